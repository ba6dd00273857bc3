//! Policies with `backend = "mesos"` on genuine masters and agents, their tasks under our own executor.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::proxy::Proxy;
use super::scene::{agents, running};
use crate::support::{Cluster, ClusterSpec, GENEROUS, Scratch, Setpoint, client, wait_until};

/// A policy that holds as many sleeping tasks as its parameter says, from a file that the test writes.
pub(super) fn policy(n: u32, command: &str) -> String {
    format!(
        r#"return {{
  interval = "500ms",
  workload = {{ backend = "mesos", executor = "setpoint", command = [==[{command}]==], cpus = 0.05, memory = "16MiB",
    min = 0, max = 100, grace = "2s", mesos = {{ place = "spread" }} }},
  control = {{ law = "decide" }},
  decide = function(ctx) return {{ desired = {n} }} end,
}}"#
    )
}

fn run(scratch: &Scratch, cluster: &Cluster) -> Setpoint {
    run_with(scratch, &cluster.list(), "st")
}

/// The policy `p` on the masters at that place, with that state folder.
pub(super) fn run_with(scratch: &Scratch, masters: &str, state: &str) -> Setpoint {
    let config = scratch.path("setpoint.toml");
    std::fs::write(&config, format!("[mesos]\nmaster = \"{masters}\"\n")).unwrap();
    let (config, policy, state) = (
        config.display().to_string(),
        scratch.path("p.lua").display().to_string(),
        scratch.path(state).display().to_string(),
    );
    Setpoint::run(scratch, ["--config", &config, "--state-dir", &state, &policy])
}

/// The ids of the tasks that the master takes for alive, and that run; and the frameworks' ids.
pub(super) async fn on_master(cluster: &Cluster) -> Option<(BTreeSet<String>, BTreeSet<String>, BTreeSet<String>)> {
    let state = cluster.state().await?;
    let frameworks = state["frameworks"].as_array()?;
    let tasks = || frameworks.iter().filter_map(|framework| framework["tasks"].as_array()).flatten();
    let id = |task: &Value| task["id"].as_str().map(str::to_owned);
    let running = tasks().filter(|task| task["state"] == "TASK_RUNNING").filter_map(id).collect();
    Some((tasks().filter_map(id).collect(), running, frameworks.iter().filter_map(id).collect()))
}

/// Those tasks with the names of the agents that the master has them on.
async fn placed(cluster: &Cluster, tasks: &BTreeSet<String>) -> Option<BTreeMap<String, String>> {
    let state = cluster.state().await?;
    let names = agents(&state);
    let all = state["frameworks"].as_array()?.iter().filter_map(|framework| framework["tasks"].as_array()).flatten();
    let of = all.filter(|task| task["id"].as_str().is_some_and(|id| tasks.contains(id)));
    of.map(|task| Some((task["id"].as_str()?.to_owned(), names.get(task["slave_id"].as_str()?)?.clone()))).collect()
}

/// Waits until so many run, and master and engine name the very same ones, at the same places.
pub(super) async fn agree(cluster: &Cluster, setpoint: &mut Setpoint, n: usize) -> BTreeSet<String> {
    let began = Instant::now();
    loop {
        let ours = running(setpoint).await;
        if let Some((all, running, frameworks)) = on_master(cluster).await
            && running.len() == n
            && !frameworks.is_empty()
            && all == running
            && let (Some(ours), Some(placed)) = (ours, placed(cluster, &running).await)
            && ours == placed
        {
            assert_eq!(frameworks.len(), 1, "one framework, the same over every restart");
            return running;
        }
        assert!(
            began.elapsed() < GENEROUS * 2,
            "not {n} tasks on both sides\n{}\n{}",
            setpoint.stderr(),
            cluster.logs()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The processes of a test's tasks: each runs `sleep` for a time of its own.
pub(super) fn sleepers(seconds: u32) -> usize {
    let wanted = format!("sleep\0{seconds}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
        .count()
}

/// 0 → 50 → 0 tasks on three agents; at every step the master and the engine name the same tasks, and as many processes run.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_goes_from_nothing_to_fifty_tasks_and_back() {
    let Some(cluster) = Cluster::start_new(ClusterSpec { agents: 3, ..ClusterSpec::default() }).await else { return };
    let scratch = Scratch::new();
    let seconds = 100_000 + std::process::id();
    let sleep = format!("exec sleep {seconds}");
    scratch.policy("p", &policy(0, &sleep));
    let mut setpoint = run(&scratch, &cluster);
    agree(&cluster, &mut setpoint, 0).await;
    let mut ever = BTreeSet::new();
    for n in [20_u32, 50, 30, 0] {
        scratch.replace("p.lua", &policy(n, &sleep));
        ever.append(&mut agree(&cluster, &mut setpoint, n as usize).await);
        if n == 50 {
            let places = running(&mut setpoint).await.unwrap();
            assert_eq!(places.values().collect::<BTreeSet<_>>().len(), 3, "on all agents");
        }
        wait_until(GENEROUS, "as many processes", async || (sleepers(seconds) == n as usize).then_some(())).await;
    }
    assert_eq!(ever.len(), 50, "nothing was launched but what was asked for");
    assert!(setpoint.stop().await.success());
}

/// A14 of the prior systems: a command reaches the shell byte for byte, under our executor and under the cluster's, and it is
/// that shell that fills in what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn a14_a_command_reaches_the_shell_byte_for_byte() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    for executor in [r#"executor = "setpoint","#, ""] {
        let scratch = Scratch::new();
        let out = scratch.path("out");
        // The shell stays for the sake of the last command.
        let command =
            format!(r#"echo "{{\"a\":1}} ${{HOME}} %s \\\\ 'é' $SETPOINT_POLICY" > {}; sleep 1000; :"#, out.display());
        let text = policy(1, &command).replacen(r#"executor = "setpoint","#, executor, 1);
        scratch.policy("p", &text);
        let mut setpoint = run(&scratch, &cluster);
        setpoint.running("p", 1).await;
        let written = wait_until(GENEROUS, "the task has written", async || {
            std::fs::read_to_string(&out).ok().filter(|text| text.ends_with('\n'))
        })
        .await;
        let line = format!("-c\0{command}\0");
        let read = |pid: i32, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let is_it = |pid: &i32| read(*pid, "cmdline").ends_with(line.as_bytes());
        let shell = cluster.folder().processes().into_iter().map(|process| process.pid).find(is_it);
        let environ = read(shell.expect("a shell was given the command as it is"), "environ");
        let home = environ.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"HOME="));
        let home = String::from_utf8_lossy(home.unwrap_or_default());
        assert_eq!(written, format!("{{\"a\":1}} {home} %s \\ 'é' p\n"));
        // Its framework goes with it, and leaves room for the next one.
        setpoint.kill();
    }
}

/// A command under our executor runs as its user; and a policy that is saved with another user and another role has tasks of
/// all kinds on one agent, each under an executor of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_user_and_role_starts_an_executor_beside_the_first() {
    let spec = ClusterSpec::default().agent("MESOS_SWITCH_USER", "true");
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    let scratch = Scratch::new();
    // What `nobody` must be able to enter, run and write.
    let open = |path: &std::path::Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    let (program, out) = (scratch.path("setpoint"), scratch.write("out", ""));
    std::fs::copy(env!("CARGO_BIN_EXE_setpoint"), &program).unwrap();
    [scratch.folder(), cluster.folder().folder(), &program, &out].into_iter().for_each(open);
    let settings =
        format!("[mesos]\nmaster = \"{}\"\nexecutor = {{ path = \"{}\" }}\n", cluster.list(), program.display());
    let config = scratch.write("setpoint.toml", &settings).display().to_string();
    let command = format!("id -un >> {}; pwd -P > /dev/null && touch mine && exec sleep 100000", out.display());
    let with = |n, user: &str, place: &str| {
        policy(n, &command).replace("min = 0,", &format!("min = 0, {user}")).replace(r#"place = "spread""#, place)
    };
    let (nobody, ops) = (r#"user = "nobody","#, r#"place = "spread", role = "ops""#);
    let file = scratch.policy("p", &with(1, nobody, r#"place = "spread""#)).display().to_string();
    let state = scratch.path("st").display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config, "--state-dir", &state, &file]);
    let mut before = agree(&cluster, &mut setpoint, 1).await;
    for (n, user) in [(2, nobody), (3, "")] {
        scratch.replace("p.lua", &with(n, user, ops));
        let after = agree(&cluster, &mut setpoint, n as usize).await;
        assert!(after.is_superset(&before), "those before go on");
        before = after;
    }
    let words = wait_until(GENEROUS, "all have said who they are", async || {
        let text = scratch.read("out");
        let words: Vec<String> = text.lines().map(str::to_owned).collect();
        (words.len() >= 3).then_some(words)
    })
    .await;
    assert_eq!(words, ["nobody", "nobody", "root"]);
    let state = cluster.state().await.unwrap();
    let tasks = state["frameworks"][0]["tasks"].as_array().unwrap();
    let executors: BTreeSet<_> = tasks.iter().map(|task| task["executor_id"].as_str()).collect();
    assert_eq!((tasks.len(), executors.len()), (3, 3), "{executors:?}");
    assert!(setpoint.stop().await.success());
}

/// A run uses the executors of the one before; and one that is to stop all tasks ends the framework as well.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_outlives_its_host_and_a_framework_ends_when_it_is_asked_to() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let scratch = Scratch::new();
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let start = |n: u32, word: Option<&str>| {
        scratch.policy("p", &policy(n, "exec sleep 100000"));
        let path = |path: std::path::PathBuf| path.display().to_string();
        let (config, state, file) = (path(config.clone()), path(scratch.path("st")), path(scratch.path("p.lua")));
        let arguments = ["--config", &config, "--state-dir", &state, &file];
        Setpoint::run(&scratch, arguments.into_iter().chain(word))
    };
    let mut first = start(2, None);
    let before = agree(&cluster, &mut first, 2).await;
    assert!(first.stop().await.success());
    let mut second = start(4, Some("--stop-tasks"));
    let after = agree(&cluster, &mut second, 4).await;
    assert!(after.is_superset(&before));
    let state = cluster.state().await.unwrap();
    let framework = &state["frameworks"][0];
    let executors: BTreeSet<_> =
        framework["tasks"].as_array().unwrap().iter().map(|task| task["executor_id"].as_str().unwrap()).collect();
    assert_eq!(executors.len(), 1, "{executors:?}");
    assert!(second.stop().await.success());
    let over =
        async || on_master(&cluster).await.filter(|(all, _, frameworks)| all.is_empty() && frameworks.is_empty());
    wait_until(GENEROUS, "nothing is left of it", over).await;
    let mut third = start(1, None);
    assert!(agree(&cluster, &mut third, 1).await.is_disjoint(&after));
    assert!(third.stop().await.success());
}

/// An agent whose maintenance has begun is given nothing, until it is over.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_launched_on_an_agent_in_maintenance() {
    let Some(cluster) = Cluster::start_new(ClusterSpec { agents: 2, ..ClusterSpec::default() }).await else { return };
    let schedule = async |windows: Value| {
        let url = format!("http://{}/maintenance/schedule", cluster.masters[0].address());
        let answer = client().post(url).json(&json!({ "windows": windows })).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    schedule(json!([{
        "machine_ids": [{ "hostname": "agent-0.test", "ip": "127.0.0.1" }],
        "unavailability": { "start": { "nanoseconds": u64::try_from(now).unwrap() } },
    }]))
    .await;
    let scratch = Scratch::new();
    // An agent has room for four.
    let large = |n| policy(n, "exec sleep 1000").replace("cpus = 0.05", "cpus = 0.9");
    scratch.policy("p", &large(4));
    let mut setpoint = run(&scratch, &cluster);
    agree(&cluster, &mut setpoint, 4).await;
    let hosts = async |setpoint: &mut Setpoint| -> BTreeSet<String> {
        setpoint.tasks().await.iter().filter_map(|task| task["host"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(hosts(&mut setpoint).await, ["agent-1.test".to_owned()].into());
    schedule(json!([])).await;
    scratch.replace("p.lua", &large(8));
    agree(&cluster, &mut setpoint, 8).await;
    assert_eq!(hosts(&mut setpoint).await.len(), 2);
    assert!(setpoint.stop().await.success());
}

/// Without a state folder the cluster forgets a framework with its stream, and ends its tasks: a new one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_without_a_state_folder_is_a_new_framework_and_not_the_end() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let proxy = Proxy::start(cluster.list(), None).await;
    let scratch = Scratch::new();
    let file = scratch.policy("p", &policy(3, "exec sleep 100000")).display().to_string();
    let settings = format!("[mesos]\nmaster = \"{}\"\n", proxy.address);
    let config = scratch.write("setpoint.toml", &settings).display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config, &file]);
    let before = agree(&cluster, &mut setpoint, 3).await;
    proxy.cut(0);
    wait_until(GENEROUS, "the stream has been cut", async || proxy.has_cut().then_some(())).await;
    setpoint.logged("beginning a new one").await;
    let after = agree(&cluster, &mut setpoint, 3).await;
    assert!(before.is_disjoint(&after), "{before:?}, {after:?}");
    assert!(setpoint.stop().await.success());
    let over =
        async || on_master(&cluster).await.filter(|(all, _, frameworks)| all.is_empty() && frameworks.is_empty());
    wait_until(GENEROUS, "nothing is left of it", over).await;
}

/// Wrong credentials: one clear error, and exit code 77.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_end_the_run_with_77() {
    let scratch = Scratch::new();
    let credentials = scratch.write("credentials.json", r#"{"credentials":[{"principal":"scale","secret":"right"}]}"#);
    let spec = ClusterSpec::default()
        .master("MESOS_AUTHENTICATE_HTTP_FRAMEWORKS", "true")
        .master("MESOS_HTTP_FRAMEWORK_AUTHENTICATORS", "basic")
        .master("MESOS_CREDENTIALS", &format!("file://{}", credentials.display()));
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    scratch.policy("p", &policy(1, "exec sleep 1000"));
    let configure = |secret: &str| {
        std::fs::write(scratch.path("secret"), secret).unwrap();
        let text = format!(
            "[mesos]\nmaster = \"{}\"\nprincipal = \"scale\"\nsecret = {{ file = \"secret\" }}\n",
            cluster.list()
        );
        std::fs::write(scratch.path("setpoint.toml"), text).unwrap();
        let path = |name: &str| scratch.path(name).display().to_string();
        Setpoint::run(&scratch, ["--config", &path("setpoint.toml"), &path("p.lua")])
    };
    let mut setpoint = configure("wrong");
    assert_eq!(setpoint.exit(GENEROUS).await.code(), Some(77), "{}", setpoint.stderr());
    let log = setpoint.stderr();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
    assert_eq!((errors.len(), log.matches("does not accept these credentials").count()), (1, 1), "{log}");
    assert!(errors[0].contains("does not accept these credentials"), "{log}");
    let mut setpoint = configure("right");
    agree(&cluster, &mut setpoint, 1).await;
    // Without a state folder the framework and its tasks end with the run.
    assert!(setpoint.stop().await.success());
    wait_until(GENEROUS, "the framework is gone", async || {
        let (all, _, frameworks) = on_master(&cluster).await?;
        (all.is_empty() && frameworks.is_empty()).then_some(())
    })
    .await;
}

/// A plain command's health check runs beside it, and is its readiness, both ways.
#[tokio::test(flavor = "multi_thread")]
async fn the_health_of_a_command_is_its_readiness() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let scratch = Scratch::new();
    let well = scratch.path("well");
    // It needs the task's own environment to pass.
    let check = format!(r#"test -e {} && test \"$COLOUR\" = red"#, well.display());
    let words = format!(
        r#"env = {{ COLOUR = "red" }}, ready = "healthy",
    health = {{ command = "{check}", interval = "200ms", timeout = "10s", retries = 2, start_period = "200ms" }}, command"#
    );
    scratch.policy("p", &policy(1, "exec sleep 1000").replacen("command", &words, 1));
    let mut setpoint = run(&scratch, &cluster);
    agree(&cluster, &mut setpoint, 1).await;
    let counts = |policy: &Value| (policy["tasks"]["running"].clone(), policy["tasks"]["in_flight"].clone());
    let unwell = |policy: &Value| counts(policy) == (1.into(), 1.into());
    setpoint.policy_until("p", "one that was never healthy is not ready", unwell).await;
    scratch.write("well", "");
    setpoint.running("p", 1).await;
    std::fs::remove_file(&well).unwrap();
    setpoint.policy_until("p", "one that is unhealthy is not ready", unwell).await;
    scratch.write("well", "");
    setpoint.running("p", 1).await;
    setpoint.stop().await;
}
