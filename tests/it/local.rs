//! The local backend against real processes: their ends, their groups, their figures, and their adoption.
//!
//! Every process that a test starts carries the test's own policy name in its environment; a guard ends what
//! is left of them, also when the test fails.
#![expect(clippy::unwrap_used, reason = "what the tests stand on may panic as the tests themselves may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use setpoint::backend::local::{LocalBackend, LocalConfig};
use setpoint::backend::{BackendError, KnownTask, LaunchRequest, TaskBackend, TaskUpdate};
use setpoint::core::model::{Exit, Placement, PolicyName, TaskId, TaskState};
use setpoint::core::policy::{Command, Output, PortSpec, Ready, TaskTemplate};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long anything may take before a test gives up: the machine may be very busy.
const LIMIT: Duration = Duration::from_secs(90);

/// A grace that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

// ---------------------------------------------------------------------------------------------------------
// What the tests stand on.

/// Ends every process that carries the policy's name when it goes out of scope.
struct Guard(PolicyName);

impl Drop for Guard {
    fn drop(&mut self) {
        for group in pids().filter(|pid| variable(*pid, "SETPOINT_POLICY").as_deref() == Some(self.0.as_str())) {
            if let (Some(group), Some(pid)) = (Pid::from_raw(stat(group).pgrp), Pid::from_raw(group)) {
                kill_process_group(group, Signal::KILL).ok();
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }
}

/// A backend, what it said, and a guard.
struct Fixture {
    backend: Arc<LocalBackend>,
    updates: mpsc::Receiver<TaskUpdate>,
    heard: Vec<TaskUpdate>,
    policy: PolicyName,
    _guard: Guard,
}

impl Fixture {
    async fn new(test: &str, config: LocalConfig) -> Self {
        Self::recover(test, config, Vec::new()).await
    }

    async fn recover(test: &str, config: LocalConfig, known: Vec<KnownTask>) -> Self {
        Self::with_room(test, config, known, 1024).await
    }

    async fn with_room(test: &str, config: LocalConfig, known: Vec<KnownTask>, room: usize) -> Self {
        let policy = policy(test);
        let guard = Guard(policy.clone());
        let backend = LocalBackend::new(config).unwrap();
        let (sender, updates) = mpsc::channel(room);
        backend.recover(known, sender).await.unwrap();
        Self { backend, updates, heard: Vec::new(), policy, _guard: guard }
    }

    async fn launch(&self, id: &str, template: TaskTemplate) {
        self.backend.launch(vec![request(&self.policy, id, template)]).await.unwrap();
    }

    /// The next update.
    async fn next(&mut self) -> TaskUpdate {
        let update = tokio::time::timeout(LIMIT, self.updates.recv()).await;
        let update = update.unwrap_or_else(|_| panic!("nothing came; heard {:#?}", self.heard)).unwrap();
        self.heard.push(update.clone());
        update
    }

    /// What was said of a task's reaching a state, now or earlier.
    async fn reaches(&mut self, id: &str, state: TaskState) -> TaskUpdate {
        let id = TaskId::from(id);
        loop {
            if let Some(update) = self.heard.iter().find(|update| update.id == id && update.state == state) {
                return update.clone();
            }
            self.next().await;
        }
    }

    /// Where a task runs, once it does.
    async fn running(&mut self, id: &str) -> Placement {
        self.reaches(id, TaskState::Running).await.placement.unwrap()
    }

    async fn gone(&mut self, id: &str) -> Exit {
        self.reaches(id, TaskState::Gone).await.exit.unwrap()
    }

    async fn kill(&self, id: &str, grace: Duration) {
        self.backend.kill(vec![id.into()], grace).await.unwrap();
    }

    /// The states that a task went through.
    fn states(&self, id: &str) -> Vec<TaskState> {
        self.heard.iter().filter(|update| update.id.as_str() == id).map(|update| update.state).collect()
    }
}

/// A name that no other test, and no other run of the tests, uses.
fn policy(test: &str) -> PolicyName {
    PolicyName::new(format!("it-local-{test}-{}", std::process::id()))
}

fn request(policy: &PolicyName, id: &str, template: TaskTemplate) -> LaunchRequest {
    let template = Arc::new(template);
    LaunchRequest { id: id.into(), policy: policy.clone(), template, ready: Ready::Running, base: None }
}

fn shell(text: &str) -> TaskTemplate {
    TaskTemplate { command: Some(Command::Shell(text.into())), ..TaskTemplate::default() }
}

fn argv(argv: &[&str]) -> TaskTemplate {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    TaskTemplate { command: Some(Command::Argv(argv)), ..TaskTemplate::default() }
}

fn with_ports(template: TaskTemplate, names: &[&str]) -> TaskTemplate {
    let ports = names.iter().map(|name| PortSpec { name: (*name).into(), inside: None }).collect();
    TaskTemplate { ports, ..template }
}

fn sleeper() -> TaskTemplate {
    argv(&["sleep", "1000"])
}

fn on(folder: &TempDir) -> LocalConfig {
    LocalConfig { mark: Some(folder.path().into()), ..LocalConfig::default() }
}

fn logging(folder: &TempDir) -> LocalConfig {
    LocalConfig { log_dir: Some(folder.path().join("logs")), ..LocalConfig::default() }
}

fn known(policy: &PolicyName, id: &str, placement: Placement) -> KnownTask {
    KnownTask { id: id.into(), policy: policy.clone(), state: TaskState::Running, placement, grace: LONG }
}

/// Waits for a condition that no update tells.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "it never came to pass that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The fields of `/proc/PID/stat` that the tests look at, read in their own way.
#[derive(Default)]
struct Stat {
    state: String,
    pgrp: i32,
    ticks: u64,
    rss_pages: u64,
}

fn stat(pid: i32) -> Stat {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = text.rsplit_once(") ") else { return Stat::default() };
    let fields: Vec<&str> = rest.split(' ').collect();
    Stat {
        state: fields[0].into(),
        pgrp: fields[2].parse().unwrap(),
        ticks: fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(),
        rss_pages: fields[21].parse().unwrap(),
    }
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn variable(pid: i32, name: &str) -> Option<String> {
    let block = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{name}=");
    let entry = block.split(|byte| *byte == 0).find(|entry| entry.starts_with(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(&entry[prefix.len()..]).into_owned())
}

fn is_running(pid: u32) -> bool {
    !matches!(&*stat(pid.cast_signed()).state, "" | "Z" | "X")
}

/// The processes of a task that run, found by the task's id in their environment.
fn processes(policy: &PolicyName, id: &str) -> BTreeSet<i32> {
    pids()
        .filter(|pid| variable(*pid, "SETPOINT_TASK_ID").as_deref() == Some(id))
        .filter(|pid| variable(*pid, "SETPOINT_POLICY").as_deref() == Some(policy.as_str()))
        .filter(|pid| is_running(pid.cast_unsigned()))
        .collect()
}

/// Waits until a task's shell has said so, by making a file.
async fn says_so(file: &Path) {
    eventually("the task made its file", || file.exists()).await;
}

/// A range of `n` ports that nobody listens on.
fn quiet_ports(n: u16) -> RangeInclusive<u16> {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let ranges = (20_000..30_000).step_by(usize::from(n)).map(|start| start..=start + n - 1);
    ranges.into_iter().find(|range| range.clone().all(is_free)).unwrap()
}

// ---------------------------------------------------------------------------------------------------------
// Starting and ending.

#[tokio::test]
async fn a_task_is_followed_from_staging_to_its_status() {
    let mut fixture = Fixture::new("status", LocalConfig::default()).await;
    let cases = [
        ("zero", shell("exit 0"), Exit::Code { code: 0 }),
        ("three", argv(&["sh", "-c", "exit 3"]), Exit::Code { code: 3 }),
        ("segv", shell("kill -SEGV $$"), Exit::Signal { signal: 11 }),
        ("kill", shell("kill -9 $$"), Exit::Signal { signal: 9 }),
    ];
    for (id, template, exit) in cases {
        fixture.launch(id, template).await;
        assert_eq!(fixture.gone(id).await, exit, "{id}");
        assert_eq!(fixture.states(id), [TaskState::Staging, TaskState::Running, TaskState::Gone], "{id}");
        let placement = fixture.running(id).await;
        assert!(placement.pid.is_some() && placement.token.is_some(), "{placement:?}");
    }
    assert!(fixture.heard.iter().all(|update| update.exit.is_some() == (update.state == TaskState::Gone)));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("plain"), "not a program").unwrap();
    fs::write(path("script"), "#!/no/such/interpreter\n").unwrap();
    std::os::unix::fs::symlink("/bin/true", path("true")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path("script"), mode).unwrap();
    let cwd = |cwd: String| TaskTemplate { cwd: Some(cwd), ..argv(&["./true"]) };
    let env = |name: &str, value: &str| TaskTemplate { env: [(name.into(), value.into())].into(), ..sleeper() };
    let cases = [
        (argv(&["no-such-command-anywhere"]), "the command `no-such-command-anywhere` was not found"),
        (argv(&["/no/such/path"]), "the command `/no/such/path` was not found"),
        (argv(&[&path("plain")]), "permission denied"),
        (argv(&[&path("script")]), "what its first line names"),
        (cwd(path("nowhere")), "nowhere` cannot be used: No such file"),
        (cwd(path("plain")), "plain` cannot be used: not a directory"),
        (argv(&[]), "no command is given"),
        (TaskTemplate::default(), "no command is given"),
        (TaskTemplate { image: Some("redis:7".into()), ..sleeper() }, "the image `redis:7` is given"),
        (env("A=B", "x"), "the environment variable `A=B`"),
        (env("A", "x\0y"), "the environment variable `A`"),
        (argv(&["echo", "a\0b"]), "could not be started"),
    ];
    let mut fixture = Fixture::new("refusals", LocalConfig::default()).await;
    for (n, (template, expected)) in cases.into_iter().enumerate() {
        let id = format!("task-{n}");
        fixture.launch(&id, template).await;
        let Exit::NotStarted { reason } = fixture.gone(&id).await else { panic!("{id} was started") };
        assert!(reason.contains(expected), "expected `{expected}`, got `{reason}`");
    }
    // The same folder and command, both right: relative to it, the command is found.
    fixture.launch("good", cwd(path(""))).await;
    assert_eq!(fixture.gone("good").await, Exit::Code { code: 0 });
}

#[tokio::test]
async fn a_launch_comes_after_recover_and_before_shutdown() {
    let backend = LocalBackend::new(LocalConfig::default()).unwrap();
    let request = || vec![request(&policy("order"), "early", sleeper())];
    assert!(matches!(backend.launch(request()).await, Err(BackendError::Unavailable { .. })));
    let (sender, _updates) = mpsc::channel(8);
    backend.recover(Vec::new(), sender.clone()).await.unwrap();
    assert!(matches!(backend.recover(Vec::new(), sender).await, Err(BackendError::Refused { .. })));
    backend.shutdown(true).await;
    assert!(matches!(backend.launch(request()).await, Err(BackendError::Unavailable { .. })));
    let missing = LocalConfig { mark: Some("/no/such/folder".into()), ..LocalConfig::default() };
    assert!(LocalBackend::new(missing).unwrap_err().to_string().contains("`/no/such/folder`"));
}

#[tokio::test]
async fn a_shell_gets_its_text_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let mut fixture = Fixture::new("shell", logging(&folder)).await;
    let template = TaskTemplate {
        env: BTreeMap::from([("HOME".into(), "/ho me".into())]),
        ..shell(r#"echo "{\"a\":1} ${HOME}"; printf '%s\n' 'ü %s \n' >&2"#)
    };
    fixture.launch("quiet", shell(":")).await;
    fixture.launch("loud", TaskTemplate { output: Output::Null, ..shell("echo lost") }).await;
    fixture.launch("a/b", template).await;
    for id in ["quiet", "loud", "a/b"] {
        assert_eq!(fixture.gone(id).await, Exit::Code { code: 0 }, "{id}");
    }
    let logs = folder.path().join("logs").join(fixture.policy.as_str());
    assert_eq!(fs::read_to_string(logs.join("a~b.log")).unwrap(), "{\"a\":1} /ho me\nü %s \\n\n");
    // A log without a word is not kept, and no log is made for what goes nowhere.
    assert_eq!(fs::read_dir(logs).unwrap().count(), 1);
}

#[tokio::test]
async fn a_task_knows_its_name_and_its_ports() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("work")).unwrap();
    let mut fixture = Fixture::new("env", LocalConfig { ports: quiet_ports(8), ..logging(&folder) }).await;
    let mut template = with_ports(
        shell("echo $SETPOINT_TASK_ID $SETPOINT_POLICY $GREETING $PORT_HTTP $PORT_MY_ADMIN; pwd"),
        &["http", "my-admin"],
    );
    template.env = [("GREETING", "hello"), ("SETPOINT_TASK_ID", "forged")].map(|(k, v)| (k.into(), v.into())).into();
    template.cwd = Some("work".into());
    let request = LaunchRequest { base: Some(folder.path().into()), ..request(&fixture.policy, "env-1", template) };
    fixture.backend.launch(vec![request]).await.unwrap();
    assert_eq!(fixture.gone("env-1").await, Exit::Code { code: 0 });
    let ports = fixture.running("env-1").await.ports;
    let log = folder.path().join("logs").join(fixture.policy.as_str()).join("env-1.log");
    let expected = format!(
        "env-1 {} hello {} {}\n{}\n",
        fixture.policy,
        ports["http"],
        ports["my-admin"],
        folder.path().join("work").canonicalize().unwrap().display()
    );
    assert_eq!(fs::read_to_string(log).unwrap(), expected);
    assert_ne!(ports["http"], ports["my-admin"]);
}

#[tokio::test]
async fn ports_run_out_and_come_back() {
    let range = quiet_ports(4);
    let mut fixture = Fixture::new("ports", LocalConfig { ports: range.clone(), ..LocalConfig::default() }).await;
    // Somebody else listens on one of them.
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, *range.start())).unwrap();
    let mut taken = BTreeSet::from([other.local_addr().unwrap().port()]);
    for id in ["p1", "p2", "p3"] {
        fixture.launch(id, with_ports(sleeper(), &["http"])).await;
        let port = fixture.running(id).await.ports["http"];
        assert!(range.contains(&port) && taken.insert(port), "{port} of {range:?}, taken {taken:?}");
    }
    fixture.launch("p4", with_ports(sleeper(), &["http"])).await;
    let Exit::NotStarted { reason } = fixture.gone("p4").await else { panic!("there was no port left") };
    assert!(reason.contains("no free port"), "{reason}");
    fixture.kill("p2", LONG).await;
    fixture.gone("p2").await;
    fixture.launch("p5", with_ports(sleeper(), &["http"])).await;
    let freed = fixture.running("p2").await.ports;
    assert_eq!(fixture.running("p5").await.ports, freed);
}

#[tokio::test]
async fn the_same_id_starts_one_task() {
    let mut fixture = Fixture::new("twice", LocalConfig::default()).await;
    let twice = || vec![request(&fixture.policy, "one", sleeper()), request(&fixture.policy, "one", sleeper())];
    fixture.backend.launch(twice()).await.unwrap();
    fixture.backend.launch(twice()).await.unwrap();
    fixture.running("one").await;
    // Tasks start in turn, so a second one would be there by the time that another has been through.
    fixture.launch("after", shell("exit 0")).await;
    fixture.gone("after").await;
    assert_eq!(processes(&fixture.policy, "one").len(), 1);
    fixture.kill("one", LONG).await;
    assert_eq!(fixture.gone("one").await, Exit::Signal { signal: 15 });
    fixture.launch("one", sleeper()).await;
    fixture.launch("last", shell("exit 0")).await;
    fixture.gone("last").await;
    assert_eq!(fixture.states("one"), [TaskState::Staging, TaskState::Running, TaskState::Killing, TaskState::Gone]);
    fixture.kill("never", LONG).await;
    assert_eq!(fixture.gone("never").await, Exit::Unknown);
}

#[tokio::test]
async fn a_kill_takes_the_whole_group_and_does_not_ask_twice() {
    let folder = TempDir::new().unwrap();
    let mut fixture = Fixture::new("group", LocalConfig::default()).await;
    let file = |name: &str| folder.path().join(name);
    let at = |name: &str| file(name).to_str().unwrap().to_owned();

    // A leader with a grandchild, all of which end when they are asked to; the leader in its own good way.
    let polite = format!("trap 'exit 5' TERM; (sleep 1000; :) & : >{}; while :; do wait; done", at("polite"));
    fixture.launch("polite", shell(&polite)).await;
    says_so(&file("polite")).await;
    eventually("the grandchild is there", || 3 <= processes(&fixture.policy, "polite").len()).await;
    fixture.kill("polite", LONG).await;
    assert_eq!(fixture.gone("polite").await, Exit::Code { code: 5 });
    assert_eq!(processes(&fixture.policy, "polite"), BTreeSet::new());

    // None of them listens: they are killed, after the grace and not before.
    let deaf = format!("trap '' TERM; sleep 1000 & : >{}; wait", at("deaf"));
    fixture.launch("deaf", shell(&deaf)).await;
    says_so(&file("deaf")).await;
    let (grace, asked) = (Duration::from_millis(300), Instant::now());
    fixture.kill("deaf", grace).await;
    fixture.reaches("deaf", TaskState::Killing).await;
    assert_eq!(fixture.gone("deaf").await, Exit::Signal { signal: 9 });
    assert!(grace <= asked.elapsed());
    assert_eq!(processes(&fixture.policy, "deaf"), BTreeSet::new());

    // One that is stopped hears TERM when it goes on, and is made to; KILL it need not hear. A shorter grace of a
    // second kill counts.
    for (id, text, exit) in [("stopped", "", 15), ("stopped-deaf", "trap '' TERM;", 9)] {
        let text = format!("{text} : >{}; while :; do sleep 0.1; done", at(id));
        fixture.launch(id, shell(&text)).await;
        says_so(&file(id)).await;
        let pid = fixture.running(id).await.pid.unwrap().cast_signed();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
        eventually("it is stopped", || stat(pid).state == "T").await;
        fixture.kill(id, LONG).await;
        fixture.reaches(id, TaskState::Killing).await;
        if exit == 9 {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
            fixture.kill(id, Duration::ZERO).await;
        }
        assert_eq!(fixture.gone(id).await, Exit::Signal { signal: exit }, "{id}");
    }
}

#[tokio::test]
async fn what_a_leader_leaves_behind_is_ended_before_it_is_gone() {
    let config = LocalConfig { leftover_grace: Duration::from_millis(100), ..LocalConfig::default() };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("deaf");
    let mut fixture = Fixture::new("leftovers", config).await;
    fixture.launch("polite", shell("sleep 1000 & exit 7")).await;
    let deaf = "(trap '' TERM; : >\"$0\"; sleep 1000; sleep 1000) & while [ ! -e \"$0\" ]; do sleep 0.01; done; exit 8";
    fixture.launch("deaf", argv(&["sh", "-c", deaf, file.to_str().unwrap()])).await;
    for (id, code) in [("polite", 7), ("deaf", 8)] {
        assert_eq!(fixture.gone(id).await, Exit::Code { code });
        assert_eq!(processes(&fixture.policy, id), BTreeSet::new());
    }
}

// ---------------------------------------------------------------------------------------------------------
// Figures.

/// CPU time in seconds and memory in bytes of a process group, as `/proc` has them.
fn figures(group: u32) -> (f64, u64) {
    let members = pids().map(stat).filter(|stat| stat.pgrp == group.cast_signed());
    let (ticks, pages) = members.fold((0, 0), |sum, stat| (sum.0 + stat.ticks, sum.1 + stat.rss_pages));
    let second = rustix::param::clock_ticks_per_second();
    (ticks as f64 / second as f64, pages * rustix::param::page_size() as u64)
}

#[tokio::test]
async fn stats_are_what_proc_says() {
    let mut fixture = Fixture::new("stats", LocalConfig::default()).await;
    // The leader waits; what it has started works.
    fixture.launch("busy", shell("(while :; do :; done) & wait")).await;
    fixture.launch("idle", sleeper()).await;
    fixture.launch("over", shell("exit 0")).await;
    let busy = fixture.running("busy").await.pid.unwrap();
    let idle = fixture.running("idle").await.pid.unwrap();
    fixture.gone("over").await;
    let ids = || ["busy", "idle", "over", "never"].map(TaskId::from).to_vec();
    let backend = Arc::clone(&fixture.backend);
    // The backend reads at some moment between these two readings of ours.
    let sample = async || {
        let before = (Instant::now(), figures(busy).0);
        let stats = backend.stats(ids()).await.unwrap();
        (before, stats, (figures(busy).0, Instant::now()))
    };
    let (before_1, first, after_1) = sample().await;
    assert_eq!(first.keys().map(TaskId::as_str).collect::<Vec<_>>(), ["busy", "idle"]);
    assert!(first.values().all(|stats| stats.cpu_percent.is_none()));
    eventually("it has worked", || after_1.0 + 0.4 <= figures(busy).0).await;
    let (before_2, second, after_2) = sample().await;
    let percent = second[&TaskId::from("busy")].cpu_percent.unwrap();
    let least = 100.0 * (before_2.1 - after_1.0) / (after_2.1 - before_1.0).as_secs_f64();
    let most = 100.0 * (after_2.0 - before_1.1) / (before_2.0 - after_1.1).as_secs_f64();
    assert!(least - 1e-6 <= percent && percent <= most + 1e-6 && 0.0 < percent, "{least} ≤ {percent} ≤ {most}");
    let idle_stats = second[&TaskId::from("idle")];
    assert_eq!(idle_stats.cpu_percent, Some(0.0));
    assert_eq!(idle_stats.memory_bytes, Some(figures(idle).1));
    assert!(0 < figures(idle).1);
}

/// The folder of a task's control group in one hierarchy, if it has one of ours.
fn control_group(pid: u32, id: &str, file: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.starts_with("cgroup")).filter_map(|line| line.split(' ').nth(1));
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).filter(|path| path.ends_with(id));
    let all = paths.flat_map(|path| mounts.clone().map(move |mount| PathBuf::from(format!("{mount}{path}"))));
    all.into_iter().find(|folder| folder.join(file).exists())
}

#[tokio::test]
async fn limits_hold_where_control_groups_may_be_made() {
    let mut fixture = Fixture::new("limits", LocalConfig::default()).await;
    let id = format!("limited-{}", std::process::id());
    let limited = |template| TaskTemplate { cpus: Some(0.5), memory: Some(32 << 20), ..template };
    fixture.launch(&id, limited(sleeper())).await;
    let pid = fixture.running(&id).await.pid.unwrap();
    let quota = |file| control_group(pid, &id, file).map(|folder| fs::read_to_string(folder.join(file)).unwrap());
    let Some(quota) = quota("cpu.cfs_quota_us").or_else(|| quota("cpu.max")) else {
        eprintln!("skipped: no control group may be made here");
        return;
    };
    assert_eq!(quota.split_whitespace().next(), Some("50000"));
    let folder = control_group(pid, &id, "cgroup.procs").unwrap();
    fixture.kill(&id, LONG).await;
    assert_eq!(fixture.gone(&id).await, Exit::Signal { signal: 15 });
    assert!(!folder.exists(), "{} is still there", folder.display());

    // More than its memory: the kernel ends it, and so it does what a shell has started.
    let hungry = "b = bytearray(256 << 20)";
    fixture.launch("hungry", limited(argv(&["python3", "-c", hungry]))).await;
    fixture.launch("hungry-child", limited(shell(&format!("python3 -c '{hungry}'; exit $?")))).await;
    for id in ["hungry", "hungry-child"] {
        assert_eq!(fixture.gone(id).await, Exit::OutOfMemory, "{id}");
    }
    // An end of the same kind that memory has nothing to do with.
    fixture.launch("killed", limited(shell("kill -9 $$"))).await;
    assert_eq!(fixture.gone("killed").await, Exit::Signal { signal: 9 });
}

// ---------------------------------------------------------------------------------------------------------
// Many at once, and the way out.

#[tokio::test]
async fn two_hundred_at_once_lose_no_update() {
    // Room for one update: every sender has to wait for its turn.
    let mut fixture = Fixture::with_room("many", LocalConfig::default(), Vec::new(), 1).await;
    let ids: Vec<String> = (0..200).map(|n| format!("many-{n:03}")).collect();
    let requests = ids.iter().map(|id| request(&fixture.policy, id, sleeper())).collect();
    fixture.backend.launch(requests).await.unwrap();
    let mut pids = BTreeSet::new();
    for id in &ids {
        pids.insert(fixture.running(id).await.pid.unwrap());
    }
    assert_eq!(pids.len(), 200);
    let stats = fixture.backend.stats(ids.iter().map(|id| TaskId::from(&**id)).collect()).await.unwrap();
    assert_eq!(stats.len(), 200);
    let backend = Arc::clone(&fixture.backend);
    let stopped = tokio::spawn(async move { backend.shutdown(true).await });
    for id in &ids {
        assert_eq!(fixture.gone(id).await, Exit::Signal { signal: 15 });
        assert_eq!(fixture.states(id).len(), 4);
    }
    tokio::time::timeout(LIMIT, stopped).await.unwrap().unwrap();
    assert!(pids.into_iter().all(|pid| !is_running(pid)));
}

#[tokio::test]
async fn a_shutdown_ends_the_deaf_although_nobody_listens() {
    let folder = TempDir::new().unwrap();
    let config = LocalConfig { stop_grace: Duration::from_millis(100), ..on(&folder) };
    let mut fixture = Fixture::with_room("deaf-exit", config, Vec::new(), 1).await;
    let file = folder.path().join("ready");
    let text = format!("trap '' TERM; : >{}; while :; do sleep 0.1; done", file.display());
    fixture.launch("deaf", shell(&text)).await;
    let pid = fixture.running("deaf").await.pid.unwrap();
    says_so(&file).await;
    tokio::time::timeout(LIMIT, fixture.backend.shutdown(true)).await.unwrap();
    assert!(!is_running(pid));
}

// ---------------------------------------------------------------------------------------------------------
// Restarts.

#[tokio::test]
async fn tasks_of_a_state_folder_outlive_their_backend() {
    let folder = TempDir::new().unwrap();
    let ports = quiet_ports(2);
    let config = || LocalConfig { ports: ports.clone(), ..on(&folder) };
    let mut first = Fixture::new("outlive", config()).await;
    for id in ["a", "b"] {
        first.launch(id, with_ports(sleeper(), &["http"])).await;
    }
    let (a, b) = (first.running("a").await, first.running("b").await);
    first.backend.shutdown(false).await;
    let Fixture { backend, policy, _guard: guard, .. } = first;
    drop(backend);
    assert!(is_running(a.pid.unwrap()) && is_running(b.pid.unwrap()));

    // The second knows `b` as a launch whose outcome was never recorded.
    let known = vec![known(&policy, "a", a.clone()), known(&policy, "b", Placement::default())];
    let mut second = Fixture::recover("outlive", config(), known).await;
    assert_eq!(second.running("a").await, a);
    assert_eq!(second.running("b").await, b);
    // A launch that is repeated finds the first one, and the ports are still taken.
    second.launch("b", sleeper()).await;
    second.launch("c", with_ports(sleeper(), &["http"])).await;
    assert!(matches!(second.gone("c").await, Exit::NotStarted { .. }));
    assert_eq!(processes(&policy, "b").len(), 1);
    for (id, placement) in [("a", a), ("b", b)] {
        second.kill(id, LONG).await;
        second.gone(id).await;
        assert!(!is_running(placement.pid.unwrap()));
    }
    drop(guard);
}

#[tokio::test]
async fn tasks_without_a_state_folder_end_with_their_backend() {
    let mut fixture = Fixture::new("ephemeral", LocalConfig::default()).await;
    fixture.launch("a", shell("trap '' TERM; while :; do sleep 0.1; done")).await;
    let pid = fixture.running("a").await.pid.unwrap();
    drop(fixture.backend);
    eventually("it has died", || !is_running(pid)).await;
}

/// Another program that has a backend: this test binary, running [`host`] alone.
struct Host {
    child: Child,
    folder: TempDir,
    _guard: Guard,
}

impl Host {
    /// Starts the program; its tasks run when this returns.
    async fn start(test: &str, tasks: &[&str], durable: bool) -> (Self, BTreeMap<String, Placement>) {
        let host = Self::starting(test, tasks, durable);
        let ready = host.folder.path().join("ready");
        says_so(&ready).await;
        let placements = serde_json::from_str(&fs::read_to_string(ready).unwrap()).unwrap();
        (host, placements)
    }

    /// Starts the program, and does not wait for what it does.
    fn starting(test: &str, tasks: &[&str], durable: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let policy = policy(test);
        fs::write(folder.path().join("tasks"), tasks.join("\n")).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "local::host", "--nocapture"])
            .env("SETPOINT_TEST_HOST", folder.path())
            .env("SETPOINT_TEST_POLICY", policy.as_str())
            .env("SETPOINT_TEST_DURABLE", if durable { "yes" } else { "no" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder, _guard: Guard(policy) }
    }

    /// Ends it as a crash would.
    fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Not a test by itself: the program that [`Host`] starts. It launches tasks, says so, and waits for its end.
#[test]
fn host() {
    let Some(folder) = std::env::var_os("SETPOINT_TEST_HOST").map(PathBuf::from) else { return };
    let durable = std::env::var_os("SETPOINT_TEST_DURABLE").unwrap() == "yes";
    let policy = PolicyName::new(std::env::var_os("SETPOINT_TEST_POLICY").unwrap().into_string().unwrap());
    let tasks = fs::read_to_string(folder.join("tasks")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = LocalConfig { mark: durable.then(|| folder.clone()), ..LocalConfig::default() };
        let backend = LocalBackend::new(config).unwrap();
        let (sender, mut updates) = mpsc::channel(64);
        backend.recover(Vec::new(), sender).await.unwrap();
        let text = "(sleep 1000; :) & wait";
        backend.launch(tasks.lines().map(|id| request(&policy, id, shell(text))).collect()).await.unwrap();
        let mut placements = BTreeMap::new();
        while placements.len() < tasks.lines().count() {
            let update = updates.recv().await.unwrap();
            placements.extend(update.placement.map(|placement| (update.id, placement)));
        }
        fs::write(folder.join("half"), serde_json::to_string(&placements).unwrap()).unwrap();
        fs::rename(folder.join("half"), folder.join("ready")).unwrap();
        // Until it is killed, or the test that started it is.
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut rest).unwrap();
    });
}

#[tokio::test]
async fn a_crashed_program_takes_tasks_without_a_state_folder_along() {
    let (mut host, placements) = Host::start("pdeath", &["x", "y"], false).await;
    let pids: Vec<u32> = placements.values().map(|placement| placement.pid.unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_running(*pid)));
    host.crash();
    eventually("its tasks have died with it", || pids.iter().all(|pid| !is_running(*pid))).await;
}

#[tokio::test]
async fn a_crashed_program_s_tasks_are_told_apart() {
    let tasks = ["recorded", "unrecorded", "forged", "forgotten", "killing"];
    let (mut host, placements) = Host::start("adopt", &tasks, true).await;
    host.crash();
    assert!(placements.values().all(|placement| is_running(placement.pid.unwrap())));
    let policy = policy("adopt");
    let placement = |id: &str| placements[id].clone();
    // A pid that is another process's by now has another start time.
    let (start, boot) =
        placement("forged").token.unwrap().split_once('@').map(|(s, b)| (s.to_owned(), b.to_owned())).unwrap();
    let forged =
        Placement { token: Some(format!("{}@{boot}", start.parse::<u64>().unwrap() - 1)), ..placement("forged") };
    let killing = KnownTask { state: TaskState::Killing, ..known(&policy, "killing", placement("killing")) };
    let known = vec![
        known(&policy, "recorded", placement("recorded")),
        known(&policy, "unrecorded", Placement::default()),
        known(&policy, "forged", forged),
        known(&policy, "never", Placement::default()),
        killing,
    ];
    let mut fixture = Fixture::recover("adopt", on(&host.folder), known).await;
    for id in ["recorded", "unrecorded"] {
        assert_eq!(fixture.running(id).await, placement(id));
    }
    assert_eq!(fixture.gone("forged").await, Exit::Unknown);
    assert_eq!(fixture.gone("never").await, Exit::Unknown);
    // What had been told to end is told again.
    assert_eq!(fixture.gone("killing").await, Exit::Unknown);
    assert_eq!(fixture.states("killing")[0], TaskState::Killing);
    // What carries the folder's mark and belongs to no known task is ended, with all of its group.
    for id in ["forged", "forgotten"] {
        eventually("it was ended", || processes(&policy, id).is_empty()).await;
    }
    // The adopted ones are whole, measured, watched and killed like any other.
    let ids = ["recorded", "unrecorded"].map(TaskId::from);
    assert_eq!(fixture.backend.stats(ids.to_vec()).await.unwrap().len(), 2);
    for id in ["recorded", "unrecorded"] {
        eventually("it has its child", || 2 <= processes(&policy, id).len()).await;
    }
    let pid = Pid::from_raw(placement("recorded").pid.unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(fixture.gone("recorded").await, Exit::Unknown);
    fixture.kill("unrecorded", LONG).await;
    assert_eq!(fixture.gone("unrecorded").await, Exit::Unknown);
    for id in tasks {
        assert_eq!(processes(&policy, id), BTreeSet::new(), "{id}");
    }
}

#[tokio::test]
async fn a_crash_in_the_midst_of_launches_orphans_nothing() {
    let ids: Vec<String> = (0..60).map(|n| format!("midst-{n:02}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let policy = policy("midst");
    let ours = || pids().filter(|pid| variable(*pid, "SETPOINT_POLICY").as_deref() == Some(policy.as_str()));
    for started in [1, 5, 12, 25, 40] {
        let mut host = Host::starting("midst", &names, true);
        eventually("some tasks have been started", || started <= ours().count()).await;
        host.crash();
        // Every intent was recorded, and no outcome.
        let known = ids.iter().map(|id| known(&policy, id, Placement::default())).collect();
        let mut fixture = Fixture::recover("midst", on(&host.folder), known).await;
        let mut adopted = 0;
        for id in &names {
            let update = fixture.next().await;
            assert_eq!(update.id.as_str(), *id);
            adopted += usize::from(update.state == TaskState::Running);
            let expected = (update.state == TaskState::Gone).then_some(Exit::Unknown);
            assert_eq!(update.exit, expected);
        }
        // Each task is up to three processes.
        assert!(started <= adopted * 3, "{adopted} tasks for {started} processes");
        fixture.backend.shutdown(true).await;
        assert_eq!(ours().filter(|pid| is_running(pid.cast_unsigned())).count(), 0, "after {started}");
    }
}
