//! What tasks use: under the cluster's own executors, under ours, and of any framework through `setpoint.mesos`, beside
//! what `/proc` says. How well they agree is printed; the limits here leave room for a busy machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;
use setpoint::mesos::wire::scheduler::{Call, Roles};

use super::client::Client;
use crate::support::{Cluster, ClusterSpec, GENEROUS, Scratch, Setpoint, tool, wait_until};

/// A folder in which our executor stands in for the cluster's own command executor, which no package has.
fn launcher(scratch: &Scratch) -> Option<PathBuf> {
    let genuine = tool("mesosd")?.canonicalize().unwrap().parent()?.join("libexec/mesos-containerizer");
    let own = scratch.path("launcher");
    fs::create_dir_all(&own).unwrap();
    symlink(genuine, own.join("mesos-containerizer")).unwrap();
    let executor = own.join("mesos-executor");
    fs::write(&executor, format!("#!/bin/sh\nexec {} executor --single\n", env!("CARGO_BIN_EXE_setpoint"))).unwrap();
    fs::set_permissions(&executor, fs::Permissions::from_mode(0o755)).unwrap();
    Some(own)
}

/// Seconds of CPU of each process whose command line carries a word, by its id.
fn cpu_of(word: &str) -> BTreeMap<u32, f64> {
    let second = rustix::param::clock_ticks_per_second() as f64;
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        // The task's own shell begins with the word, those who start it only repeat it.
        let mut arguments = line.split(|byte| *byte == 0);
        let shell = arguments.next().is_some_and(|program| program.ends_with(b"sh"));
        let carries = shell && arguments.any(|argument| argument.starts_with(word.as_bytes()));
        let stat = carries.then(|| fs::read_to_string(format!("/proc/{pid}/stat")).ok()).flatten()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some((pid, ticks / second))
    })
    .collect()
}

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

fn close(what: &str, figure: f64, truth: f64) {
    eprintln!("{what}: {figure:.1} % of a core, /proc has {truth:.1} %, {:+.1} %", 100.0 * (figure / truth - 1.0));
    assert!((figure - truth).abs() <= 0.3 * truth.max(10.0), "{what}: {figure} is not {truth}");
}

/// The mean of the figures that a window had.
fn mean(figures: &[f64]) -> f64 {
    assert!(!figures.is_empty(), "nothing was measured");
    figures.iter().sum::<f64>() / figures.len() as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_what_proc_says() {
    const WINDOW: usize = 5;
    let scratch = Scratch::new();
    let Some(launcher) = launcher(&scratch) else { return };
    // What the other framework does not answer comes back by itself.
    let spec = ClusterSpec { agents: 2, ..ClusterSpec::default() }.master("MESOS_OFFER_TIMEOUT", "1secs");
    let Some(cluster) = Cluster::start_new(spec.agent("MESOS_LAUNCHER_DIR", launcher.to_str().unwrap())).await else {
        return;
    };
    let mut stranger = Client::connect(&cluster.list());
    let stranger_id = stranger.subscribed().await.framework_id;
    stranger.launch("stranger").await;
    stranger.scheduler.call(&Call::Suppress(Roles { roles: vec!["*".to_owned()] })).await.unwrap();

    let word = |name: &str| format!(": {name}-{}", std::process::id());
    let policy = |name: &str, executor: &str| {
        let busy = format!("{}; while :; do :; done", word(name));
        scratch.policy(
            name,
            &format!(
                r#"return {{ interval = "1s", control = {{ law = "decide" }}, decide = function() return {{ desired = 1 }} end,
  workload = {{ backend = "mesos", {executor} command = "{busy}", cpus = 0.1, memory = "64MiB", max = 1, grace = "0s" }} }}"#
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

    // From here on every reading covers work of both.
    let known = async || {
        let last = seen(&setpoint).pop()?;
        let knows = |name: &str| last["names"][name]["cpu_percent"].is_number();
        (knows("command") && knows("ours")).then(|| seen(&setpoint).len())
    };
    let first = wait_until(GENEROUS, "the shares of both are known", known).await;
    let cpu = || ["command", "ours"].map(|name| cpu_of(&word(name)));
    let (began, before) = (Instant::now(), cpu());
    assert!(before.iter().all(|processes| processes.len() == 1), "one process each: {before:?}");
    // The engine's own figures, meanwhile.
    let mut of_tasks: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut readings = BTreeSet::new();
    let last = wait_until(GENEROUS, "a window of figures", async || {
        for task in setpoint.tasks().await {
            let (name, Some(percent)) = (task["policy"].as_str()?.to_owned(), task["cpu_percent"].as_f64()) else {
                continue;
            };
            if readings.insert((name.clone(), percent.to_bits())) {
                of_tasks.entry(name).or_default().push(percent);
            }
        }
        let all = seen(&setpoint).len();
        (first + WINDOW <= all).then_some(all)
    })
    .await;
    let (after, took) = (cpu(), began.elapsed().as_secs_f64());
    let seen = seen(&setpoint);
    for (index, name) in ["command", "ours"].into_iter().enumerate() {
        let pid = before[index].keys().next().unwrap();
        let truth = 100.0 * (after[index][pid] - before[index][pid]) / took;
        let window = seen[first..last].iter().filter_map(|line| line["names"][name]["cpu_percent"].as_f64());
        close(&format!("setpoint.mesos, {name}"), mean(&window.collect::<Vec<_>>()), truth);
        close(&format!("task, {name}"), mean(&of_tasks[name]), truth);
    }

    let last = seen.last().unwrap();
    let usage = &last["names"]["command"];
    assert_eq!((&usage["tasks"], &usage["running"], &usage["measured"]), (&1.into(), &1.into(), &1.into()), "{usage}");
    assert!(usage["memory_bytes"].as_f64().is_some_and(|bytes| bytes > 100_000.0), "{usage}");
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
