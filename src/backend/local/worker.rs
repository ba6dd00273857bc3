//! One task's life: a worker each, from its launch or adoption to its `Gone`.
//!
//! ```text
//!   launch ─► staging ─► running ──► the leader ends ──► its group is ended ─► gone
//!               │           │ order         ▲
//!               │           └─► killing ────┘ TERM, and KILL at the deadline
//!               └─► gone (not started)
//! ```
//!
//! Invariants: the last update of a task is `Gone`, and it is sent once nothing of its process group runs; its
//! id is given up and its ports are free before that. A worker that is told to let go leaves everything as it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::cgroup::Group;
use super::ports::Lease;
use super::process::{self, Process};
use super::spawn::Started;
use crate::backend::{LaunchRequest, TaskUpdate};
use crate::core::model::{Exit, Placement, TaskId, TaskState};

/// A process that does not go away is killed again after this long.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// First and longest pause between two looks at what is left of a process group.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// From pauses this long on, a look tells zombies from living processes.
const THOROUGH: Duration = Duration::from_millis(80);

/// A task under watch.
pub(super) struct Task {
    pub(super) id: TaskId,
    /// Its log, whether there is one or not.
    pub(super) log: Option<PathBuf>,
    pub(super) process: Process,
    pub(super) lease: Lease,
    pub(super) group: Group,
    pub(super) orders: watch::Receiver<Option<Instant>>,
}

/// Starts a task and stays with it to its end.
pub(super) async fn launch(shared: Arc<Shared>, request: LaunchRequest, orders: watch::Receiver<Option<Instant>>) {
    let id = request.id.clone();
    let log = shared.setting.logs.as_ref().map(|logs| logs.path(&request.policy, &id));
    shared.report(update(&id, TaskState::Staging)).await;
    match shared.spawner.spawn(request, orders.clone()).await {
        Ok(Started { child, start, lease, group }) => {
            let process = Process::own(child, start, &shared.watching);
            let task = Task { id, log, process, lease, group, orders };
            let memory_limit = task.group.memory_limit();
            shared.registry().set_group(&task.id, task.process.pid().as_raw_pid(), memory_limit);
            shared.report(task.placed(&shared, TaskState::Running)).await;
            task.supervise(&shared).await;
        }
        Err(error) => {
            tracing::debug!(task = %id, %error, "task not started");
            shared.registry().remove(&id);
            shared.report(gone(&id, Exit::NotStarted { reason: error.to_string().into() })).await;
        }
    }
}

impl Task {
    /// The update that says where it runs.
    pub(super) fn placed(&self, shared: &Shared, state: TaskState) -> TaskUpdate {
        let placement = Placement {
            host: Some(super::HOST.to_owned()),
            ports: self.lease.ports().clone(),
            pid: u32::try_from(self.process.pid().as_raw_pid()).ok(),
            container: None,
            token: self.process.start().and_then(|start| shared.token(start)),
        };
        TaskUpdate { placement: Some(placement), ..update(&self.id, state) }
    }

    /// Stays with a running task to its end.
    pub(super) async fn supervise(mut self, shared: &Shared) {
        tokio::select! {
            exit = self.run_to_end(shared) => self.finish(shared, exit).await,
            () = shared.let_go.cancelled() => {}
        }
    }

    async fn run_to_end(&mut self, shared: &Shared) -> Exit {
        let mut kill_at = None;
        loop {
            tokio::select! {
                () = self.process.ended() => break,
                Ok(()) = self.orders.changed() => {
                    let first = kill_at.is_none();
                    kill_at = *self.orders.borrow_and_update();
                    if first {
                        self.process.ask();
                        shared.report(update(&self.id, TaskState::Killing)).await;
                    }
                }
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    self.process.signal(Signal::KILL);
                    kill_at = Some(Instant::now() + KILL_AGAIN);
                }
            }
        }
        // An own child keeps its group's number until it is reaped, so the rest is asked to end before that.
        process::ask_group(self.process.pid());
        let exit = match self.process.reap() {
            // A shell reports the end of its last command as 128 and the signal.
            Exit::Signal { signal: 9 } | Exit::Code { code: 137 }
                if kill_at.is_none() && self.group.ran_out_of_memory() =>
            {
                Exit::OutOfMemory
            }
            exit => exit,
        };
        let kill_at = kill_at.unwrap_or_else(|| Instant::now() + shared.leftover_grace);
        end_group(self.process.pid(), kill_at, Some(&self.orders)).await;
        exit
    }

    async fn finish(self, shared: &Shared, exit: Exit) {
        let Self { id, log, lease, group, .. } = self;
        group.remove();
        if let (Some(logs), Some(path)) = (shared.setting.logs.clone(), log)
            && let Err(error) = tokio::task::spawn_blocking(move || logs.end(&path)).await
        {
            tracing::debug!(task = %id, %error, "its log was not looked at");
        }
        drop(lease);
        shared.registry().remove(&id);
        shared.report(gone(&id, exit)).await;
    }
}

/// Waits until nothing of a process group that was asked to end runs; kills what is left at `kill_at`, or at an
/// earlier time that is ordered meanwhile.
pub(super) async fn end_group(group: Pid, mut kill_at: Instant, orders: Option<&watch::Receiver<Option<Instant>>>) {
    let mut pause = PAUSE.0;
    while is_alive(group, THOROUGH <= pause).await {
        if let Some(ordered) = orders.and_then(|orders| *orders.borrow()) {
            kill_at = kill_at.min(ordered);
        }
        let now = Instant::now();
        let next = now + pause;
        if kill_at <= now {
            process::signal_group(group, Signal::KILL);
            sleep_until(next).await;
        } else {
            sleep_until(next.min(kill_at)).await;
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn is_alive(group: Pid, thorough: bool) -> bool {
    if !thorough {
        return process::group_is_alive(group, false);
    }
    // This reads all of `/proc`, which the runtime's threads should not wait for.
    tokio::task::spawn_blocking(move || process::group_is_alive(group, true)).await.unwrap_or(true)
}

/// An update that says nothing but the state.
pub(super) fn update(id: &TaskId, state: TaskState) -> TaskUpdate {
    TaskUpdate { id: id.clone(), state, healthy: None, placement: None, exit: None, receipt: None }
}

/// The last update of a task.
pub(super) fn gone(id: &TaskId, exit: Exit) -> TaskUpdate {
    TaskUpdate { exit: Some(exit), ..update(id, TaskState::Gone) }
}
