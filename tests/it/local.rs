//! The local backend against real processes: their ends, their groups, their figures, and their adoption.
//!
//! Every process that a test starts carries the test's own policy name in its environment; a guard ends what
//! is left of them, also when the test fails.
#![expect(clippy::unwrap_used, reason = "what the tests stand on may panic as the tests themselves may")]

mod figures;
mod life;
mod logs;
mod restart;

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
use setpoint::core::container::ContainerSpec;
use setpoint::core::model::{Exit, Placement, PolicyName, TaskId, TaskState};
use setpoint::core::policy::{Command, Output, PortSpec, Ready, TaskTemplate};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long anything may take before a test gives up: the machine may be very busy.
const LIMIT: Duration = Duration::from_secs(90);

/// A grace that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

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
    LaunchRequest {
        id: id.into(),
        policy: policy.clone(),
        template,
        ready: Ready::Running,
        grace: Duration::ZERO,
        base: None,
    }
}

fn shell(text: &str) -> TaskTemplate {
    TaskTemplate { command: Some(Command::Shell(text.into())), ..TaskTemplate::default() }
}

fn argv(argv: &[&str]) -> TaskTemplate {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    TaskTemplate { command: Some(Command::Argv(argv)), ..TaskTemplate::default() }
}

fn run_as(user: &str, template: TaskTemplate) -> TaskTemplate {
    let container = ContainerSpec { user: Some(user.to_owned()), ..ContainerSpec::default() };
    TaskTemplate { container, ..template }
}

fn with_ports(template: TaskTemplate, names: &[&str]) -> TaskTemplate {
    let ports =
        names.iter().map(|name| PortSpec { name: (*name).into(), inside: None, ..PortSpec::default() }).collect();
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
