//! Health checks of commands: another command, run again and again beside its task.
//!
//! It says what it found when that changes; what follows from it is the scheduler's to decide, so nothing is killed for it.
//! Containers have their checks from their engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::core::model::TaskId;
use crate::core::policy::Command;
use crate::mesos::wire::{HealthCheckKind, TaskInfo};

/// What Mesos takes when a task does not say.
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(10);
const FAILURES: u32 = 3;

/// Least time between two checks.
const LEAST: Duration = Duration::from_millis(50);

/// How a task's health is found out.
#[derive(Clone, Debug)]
pub(super) struct Check {
    command: Command,
    env: BTreeMap<String, String>,
    folder: PathBuf,
    delay: Duration,
    interval: Duration,
    timeout: Duration,
    grace: Duration,
    failures: u32,
}

/// A check that goes on until this is dropped.
#[derive(Debug)]
pub(super) struct Checking(JoinHandle<()>);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Check {
    /// The check of a task, which runs in the task's folder and environment; none when it has none by a command.
    pub(super) fn of(info: &TaskInfo, env: &BTreeMap<String, String>, folder: &Path) -> Option<Self> {
        let check = info.health_check.as_ref().filter(|check| check.kind == HealthCheckKind::Command)?;
        let seconds = |given: Option<f64>, default: Duration| {
            given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(default)
        };
        Some(Self {
            command: super::task::command(check.command.as_ref()?, false)?,
            env: env.clone(),
            folder: folder.to_owned(),
            delay: seconds(check.delay_seconds, Duration::ZERO),
            interval: seconds(check.interval_seconds, INTERVAL).max(LEAST),
            timeout: seconds(check.timeout_seconds, TIMEOUT).max(LEAST),
            grace: seconds(check.grace_period_seconds, GRACE),
            failures: check.consecutive_failures.unwrap_or(FAILURES).max(1),
        })
    }

    /// Checks until it is dropped, and says when the task is found healthy or not and was not found so before.
    pub(super) fn start(self, id: TaskId, found: mpsc::Sender<(TaskId, bool)>) -> Checking {
        Checking(tokio::spawn(async move {
            let began = Instant::now();
            tokio::time::sleep(self.delay).await;
            let (mut healthy, mut failures) = (None, 0);
            loop {
                let now = if self.passes(&id).await {
                    failures = 0;
                    Some(true)
                } else if healthy.is_none() && began.elapsed() < self.grace {
                    // It may still be on its way to its first success.
                    None
                } else {
                    failures += 1;
                    (self.failures <= failures).then_some(false)
                };
                if let Some(now) = now
                    && healthy != Some(now)
                {
                    healthy = Some(now);
                    // The executor ends when nobody takes it.
                    found.send((id.clone(), now)).await.ok();
                }
                tokio::time::sleep(self.interval).await;
            }
        }))
    }

    /// Runs the command once; whatever is left of it after that is killed.
    async fn passes(&self, id: &TaskId) -> bool {
        let mut command = match &self.command {
            Command::Shell(line) => {
                let mut shell = tokio::process::Command::new("/bin/sh");
                shell.args(["-c", line]);
                shell
            }
            Command::Argv(argv) => {
                let Some((program, arguments)) = argv.split_first() else { return false };
                let mut command = tokio::process::Command::new(program);
                command.args(arguments);
                command
            }
        };
        command.envs(&self.env).current_dir(&self.folder).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(task = %id, error = %error, "the health check cannot be run");
                return false;
            }
        };
        let _rest = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
        matches!(tokio::time::timeout(self.timeout, child.wait()).await, Ok(Ok(status)) if status.success())
    }
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Most often it is empty by then.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}
