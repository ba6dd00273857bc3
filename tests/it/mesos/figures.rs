//! What tasks use: under the cluster's command executor (its stand-in), under ours, and of any framework through
//! `setpoint.mesos`, beside what `/proc` says.

use std::time::Duration;

use serde_json::Value;
use setpoint::mesos::wire::scheduler::{Call, Roles};
use setpoint::mesos::wire::{CommandInfo, TaskInfo, TaskState};

use super::beside::{Figure, Whose, agree, container, used};
use super::client::Client;
use crate::support::{Cluster, ClusterSpec, Docker, GENEROUS, LABEL, Scratch, Setpoint, wait_until};

/// A known share of a core in bursts, and a known piece of memory.
const WORK: &str = "
import os, time
memory = bytearray(os.urandom(1 << 20) * 24)
while True:
    began = time.process_time()
    while time.process_time() < began + 0.03:
        memory[0] ^= 1
    time.sleep(0.07)
";

const WATCH: &str = r#"local mesos = require("setpoint.mesos")
local json = require("setpoint.json")
local log = require("setpoint.log")
return {
  interval = "2s",
  workload = { backend = "local", command = "true", min = 0, max = 1 },
  control = { law = "decide" },
  decide = function() return { desired = 0 } end,
  metric = function()
    local cluster = mesos.cluster()
    local names = {}
    for _, name in { "command", "ours", "stranger" } do
      names[name] = mesos.usage({ name = name })
    end
    local rows = mesos.stats({ name = { "comm*", "our*" }, framework = "setpoint" })
    log.info("seen " .. json.encode({ cluster = cluster, names = names, rows = rows,
      none = mesos.usage({ name = "nobody" }), all = #mesos.tasks() }))
    return names.command.cpu_percent
  end,
}
"#;

/// What the policy has seen so far, from the lines that it logged.
fn seen(setpoint: &Setpoint) -> Vec<Value> {
    let said = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        serde_json::from_str(line["message"].as_str()?.strip_prefix("seen ")?).ok()
    };
    setpoint.stderr().lines().filter_map(said).collect()
}

/// A share and bytes, where both are known.
fn figure(of: &Value) -> Option<Figure> {
    Some(Figure { cpu: of["cpu_percent"].as_f64()?, memory: of["memory_bytes"].as_f64()? })
}

/// The engine's own figures of the policies' tasks, as they change.
async fn follow(setpoint: &mut Setpoint, policies: &[&str], figures: &mut [Vec<Figure>]) {
    for task in setpoint.tasks().await {
        let at = policies.iter().position(|policy| task["policy"] == *policy);
        if let (Some(at), Some(figure)) = (at, figure(&task))
            && figures[at].last().is_none_or(|last| last.cpu.to_bits() != figure.cpu.to_bits())
        {
            figures[at].push(figure);
        }
    }
}

/// An agent measures our executor without what that has an engine run: such a task has no figures but the executor's own,
/// instead of those of a few idle threads.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_runs_for_our_executor_is_not_measured_by_its_agent() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    scratch.policy(
        "ours",
        &format!(
            r#"return {{ interval = "1s", control = {{ law = "decide" }}, decide = function() return {{ desired = 1 }} end,
  workload = {{ backend = "mesos", executor = "setpoint", image = "{image}", init = true, network = "none",
    command = "while true; do sleep 0.01; done", labels = {{ ["{LABEL}"] = "{}" }}, max = 1, grace = "0s" }} }}"#,
            scratch.mark()
        ),
    );
    scratch.policy("watch", WATCH);
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let path = |name: &str| scratch.path(name).display().to_string();
    let config = config.display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config, &path("ours.lua"), &path("watch.lua")]);
    wait_until(GENEROUS, "its figures from the executor", async || {
        let tasks = setpoint.tasks().await;
        tasks.iter().any(|task| figure(task).is_some_and(|figure| figure.cpu > 0.0)).then_some(())
    })
    .await;
    let before = seen(&setpoint).len();
    // Two readings that both see it make a share.
    let later = async || {
        let seen = seen(&setpoint);
        (before + 3 <= seen.len()).then(|| seen.last().cloned()).flatten()
    };
    let last = wait_until(GENEROUS, "the watch has looked again", later).await;
    let usage = &last["names"]["ours"];
    assert_eq!((&usage["tasks"], &usage["running"], &usage["measured"]), (&1.into(), &1.into(), &0.into()), "{usage}");
    assert_eq!(figure(&last["rows"][0]), None, "{last}");
    assert!(usage.get("cpu_percent_mean").is_none() && usage.get("memory_bytes").is_none(), "{usage}");
    assert!(setpoint.stop().await.success());
}

/// Containers under our executor, and under the cluster's Docker executor.
#[tokio::test(flavor = "multi_thread")]
async fn figures_of_containers_are_what_proc_says() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let spec = ClusterSpec::default().agent("MESOS_CONTAINERIZERS", "docker,mesos");
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let names = ["ours", "theirs"];
    for (name, executor) in names.into_iter().zip([r#"executor = "setpoint","#, ""]) {
        // The last of the pipe keeps in its own memory what it would print at the end.
        scratch.policy(
            name,
            &format!(
                r#"return {{ interval = "1s", control = {{ law = "decide" }}, decide = function() return {{ desired = 1 }} end,
  workload = {{ backend = "mesos", {executor} image = "{image}", init = true, network = "none", memory = "512MiB", max = 1,
    command = [[(head -c 250000000 /dev/zero; touch /tmp/ready; exec sleep 3600) | tail -c 250000000 >/dev/null &
      while :; do i=0; while [ $i -lt 15000 ]; do i=$((i+1)); done; sleep 0.1; done]],
    labels = {{ ["{LABEL}"] = "{}" }}, grace = "0s" }} }}"#,
                scratch.mark()
            ),
        );
    }
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let paths = names.map(|name| scratch.path(&format!("{name}.lua")).display().to_string());
    let arguments = ["--config".to_owned(), config.display().to_string()].into_iter().chain(paths);
    let mut setpoint = Setpoint::run(&scratch, arguments);
    for name in names {
        setpoint.running(name, 1).await;
    }
    let tasks = setpoint.tasks().await;
    let mut sources = Vec::new();
    for name in names {
        let id = tasks.iter().find(|task| task["policy"] == name).unwrap()["id"].as_str().unwrap();
        let is_its = |container: &String| {
            docker.inspect(container).is_some_and(|seen| seen["Config"]["Labels"]["setpoint.task"] == id)
        };
        let container = docker.of_test(&scratch).into_iter().find(is_its).unwrap();
        wait_until(GENEROUS, "its memory is full", async || {
            docker.try_run(&["exec", &container, "test", "-e", "/tmp/ready"])
        })
        .await;
        let pid = docker.inspect(&container).unwrap()["State"]["Pid"].as_i64().unwrap();
        sources.push((name, Whose::Container(pid as i32)));
    }
    let mut of_tasks = [Vec::new(), Vec::new()];
    agree(&sources, async || {
        follow(&mut setpoint, &names, &mut of_tasks).await;
        of_tasks.to_vec()
    })
    .await;
    assert!(setpoint.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_what_proc_says() {
    let scratch = Scratch::new();
    // What the other framework does not answer comes back by itself.
    let spec = ClusterSpec { agents: 2, ..ClusterSpec::default() }.master("MESOS_OFFER_TIMEOUT", "1secs");
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    let work = scratch.write("work.py", WORK);
    let command = |name: &str| format!("exec python3 {} {name}", work.display());
    let mut stranger = Client::connect(&cluster.list());
    let stranger_id = stranger.subscribed().await.framework_id;
    let task = TaskInfo { command: Some(CommandInfo::shell(command("stranger"))), ..TaskInfo::default() };
    stranger.launch_as("stranger", task).await;
    stranger.status("stranger", TaskState::Running).await;
    stranger.scheduler.call(&Call::Suppress(Roles { roles: vec!["*".to_owned()] })).await.unwrap();

    let policy = |name: &str, executor: &str| {
        scratch.policy(
            name,
            &format!(
                r#"return {{ interval = "1s", control = {{ law = "decide" }}, decide = function() return {{ desired = 1 }} end,
  workload = {{ backend = "mesos", {executor} command = "{}", cpus = 0.1, memory = "64MiB", max = 1, grace = "0s" }} }}"#,
                command(name)
            ),
        );
    };
    policy("command", "");
    policy("ours", r#"executor = "setpoint","#);
    scratch.policy("watch", WATCH);
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let paths = ["command.lua", "ours.lua", "watch.lua"].map(|name| scratch.path(name).display().to_string());
    let arguments = ["--config".to_owned(), config.display().to_string()].into_iter().chain(paths);
    let mut setpoint = Setpoint::run(&scratch, arguments);
    for name in ["command", "ours"] {
        setpoint.running(name, 1).await;
    }

    let names = ["command", "ours", "stranger"];
    let known = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let last = seen(&setpoint).pop()?;
        names.iter().all(|name| figure(&last["names"][name]).is_some()).then_some(())
    };
    wait_until(GENEROUS, "the figures of all are known", known).await;

    let agents: Vec<i32> = cluster.agents.iter().map(|agent| agent.server.pid()).collect();
    let processes = cluster.folder().processes();
    let worker = |name: &str| {
        let line = format!("{} {name}", work.display());
        let is_it = |command: &str| command.starts_with("python3 ") && command.ends_with(&line);
        let mut of_it = processes.iter().filter(|process| is_it(&process.command));
        let process = of_it.next().unwrap_or_else(|| panic!("`{name}` works: {processes:?}"));
        assert!(of_it.next().is_none(), "`{name}` works once: {processes:?}");
        process.pid
    };
    let executor = |name: &str| Whose::Tree(container(worker(name), &agents));
    let sources = [
        ("setpoint.mesos, command", executor("command")),
        ("setpoint.mesos, ours", executor("ours")),
        ("setpoint.mesos, stranger", executor("stranger")),
        ("task, command", executor("command")),
        ("task, ours", Whose::Group(worker("ours"))),
    ];
    // An executor's own memory shows: a figure that has it, or lacks it, by mistake does not agree.
    let memory = used(&sources.map(|(_, whose)| whose)).into_iter().map(|used| used.memory).collect::<Vec<_>>();
    assert!(memory[4] * 1.2 < memory[1], "{memory:?}");

    let mut of_tasks = [Vec::new(), Vec::new()];
    agree(&sources, async || {
        follow(&mut setpoint, &names, &mut of_tasks).await;
        let seen = seen(&setpoint);
        let of_scripts = names.map(|name| seen.iter().filter_map(|line| figure(&line["names"][name])).collect());
        of_scripts.into_iter().chain(of_tasks.iter().cloned()).collect()
    })
    .await;

    let seen = seen(&setpoint);
    let last = seen.last().unwrap();
    let usage = &last["names"]["command"];
    assert_eq!((&usage["tasks"], &usage["running"], &usage["measured"]), (&1.into(), &1.into(), &1.into()), "{usage}");
    assert_eq!(usage["memory"], f64::from(64 << 20));
    let none = &last["none"];
    assert_eq!((none["tasks"].as_f64(), none["cpu_percent"].as_f64()), (Some(0.0), Some(0.0)), "no tasks use nothing");
    assert!(none.get("cpu_percent_mean").is_none(), "{none}");
    assert_eq!(last["names"]["stranger"]["running"], 1, "a task of another framework: {last}");
    let rows = last["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["command", "ours"]);
    assert!(
        rows.iter().all(|row| row["state"] == "running" && row["framework_id"] != stranger_id.as_str()),
        "{rows:?}"
    );
    let totals = &last["cluster"];
    assert_eq!(
        (&totals["agents"], &totals["frameworks"], &totals["tasks"]),
        (&2.into(), &2.into(), &3.into()),
        "{totals}"
    );
    assert_eq!((totals["cpus"].as_f64(), last["all"].as_u64()), (Some(8.0), Some(3)), "{totals}");
    assert!(totals["cpus_used"].as_f64().is_some_and(|used| (0.2..4.0).contains(&used)), "{totals}");

    // In a simulation there is no cluster to look at, and says so.
    let simulated = Setpoint::output(&scratch, ["simulate", &scratch.path("watch.lua").display().to_string()]).await;
    let said = format!("{}{}", simulated.stdout, simulated.stderr);
    assert!(said.contains("mesos.cluster: unavailable in simulate"), "{said}");
    assert!(setpoint.stop().await.success());
    stranger.scheduler.call(&Call::Teardown).await.unwrap();
}
