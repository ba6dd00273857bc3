//! Local processes: each task is a child with a process group of its own.
//!
//! [`LocalBackend`] starts tasks from one thread of its own (`spawn`), stays with each through a worker
//! (`worker`), and finds the tasks of an earlier run again (`recover`). With a state folder tasks outlive the
//! program; without one they die with it. It needs Linux's `/proc` for adoption and figures; it checks no
//! health, and what a task starts outside its process group is not its business.
//!
//! Invariants beyond those of [`TaskBackend`]:
//! - a task's environment names it before its pid is known, so a crash at any moment orphans nothing;
//! - `Gone` means that nothing of the task's process group runs any more;
//! - nothing is signalled by a bare pid: it is a child, or its start time was compared.

mod account;
mod cgroup;
mod logs;
mod ports;
mod process;
mod procfs;
mod recover;
mod registry;
mod spawn;
mod worker;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant as Moment};

use async_trait::async_trait;
use rustix::process::Pid;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::cgroup::{Group, Limits};
use self::logs::Logs;
use self::process::{Process, Watching};
use self::recover::{Plan, Snapshot};
use self::registry::Registry;
use self::spawn::{Setting, Spawner};
use self::worker::Task;
use crate::backend::{BackendError, Capabilities, KnownTask, LaunchRequest, Mark, TaskBackend, TaskUpdate};
use crate::core::model::{Exit, PolicyName, TaskId, TaskState, TaskStats};

/// The name of this backend in policies, messages and records.
pub const NAME: &str = "local";

/// Where local tasks are reached.
const HOST: &str = "127.0.0.1";

/// A grace longer than this is as good as none ending; it keeps sums of times in bounds.
const LONGEST_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an update waits for room once the backend shuts down: nobody may be reading any more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far apart, and for how long, `/proc` is searched for a task that may still be on its way.
const LATE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// How a [`LocalBackend`] runs its tasks.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The state folder that the tasks belong to; it must exist, and no other backend may have it. Tasks carry its
    /// mark, outlive this program, and the next backend on the same folder finds them. None: tasks are killed when
    /// the backend is dropped or the program ends, however it ends.
    pub mark: Option<PathBuf>,
    /// Where tasks' output goes, as `<policy>/<task>.log`. None: nowhere.
    pub log_dir: Option<PathBuf>,
    /// Bytes from which on the log of a running task is rotated: its last so many bytes are kept beside it.
    pub log_max: u64,
    /// How many logs of ended tasks are kept for each policy.
    pub log_keep: usize,
    /// The ports that tasks are given, first and last included.
    pub ports: RangeInclusive<u16>,
    /// Whether `cpus` (a ceiling, in cores) and `memory` of a task are enforced, where control groups may be made.
    pub limits: bool,
    /// Time between TERM and KILL for what is left of a task's process group when its leader has ended by itself, and
    /// for marked processes that belong to no known task.
    pub leftover_grace: Duration,
    /// Time between TERM and KILL when the backend is shut down with its tasks.
    pub stop_grace: Duration,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            mark: None,
            log_dir: None,
            log_max: 16 << 20,
            log_keep: 20,
            ports: 31_000..=32_000,
            limits: true,
            leftover_grace: Duration::from_secs(5),
            stop_grace: Duration::from_secs(3),
        }
    }
}

/// The backend that runs tasks as child processes. See the [module](self).
///
/// Dropping it lets go of its tasks: with a state folder they go on running, without one they die.
#[derive(Debug)]
pub struct LocalBackend {
    shared: Arc<Shared>,
    workers: TaskTracker,
}

/// What the workers of a backend share.
#[derive(Debug)]
struct Shared {
    setting: Arc<Setting>,
    spawner: Spawner,
    watching: Watching,
    boot: Option<String>,
    leftover_grace: Duration,
    stop_grace: Duration,
    updates: OnceLock<mpsc::Sender<TaskUpdate>>,
    registry: Mutex<Registry>,
    /// The backend shuts down: nothing new is started, and updates do not wait for ever.
    closing: CancellationToken,
    /// Workers are to leave their tasks alone and end.
    let_go: CancellationToken,
}

impl LocalBackend {
    /// A backend that has no tasks yet; `recover` must be the first call to it.
    ///
    /// # Errors
    /// When the state folder cannot be looked at, the range of ports holds port 0, or no thread can be started.
    pub fn new(config: LocalConfig) -> Result<Arc<Self>, BackendError> {
        if config.ports.contains(&0) {
            return Err(refused("the range of ports must start at 1 or above"));
        }
        let mark = config.mark.as_deref().map(|folder| Mark::of(folder).map_err(|error| (folder, error))).transpose();
        let mark = mark.map_err(|(folder, error)| {
            refused(format!("the state folder `{}` cannot be used: {error}", folder.display()))
        })?;
        let setting = Arc::new(Setting {
            ephemeral: mark.is_none(),
            // A task that runs setpoint itself must not pass its own mark on to that one's tasks.
            mark: mark.map_or_else(|| "none".to_owned(), |mark| mark.as_str().to_owned()),
            logs: config.log_dir.map(|folder| Arc::new(Logs::new(folder, config.log_max, config.log_keep))),
            ports: ports::Pool::new(config.ports),
            limits: config.limits.then(Limits::find),
        });
        let spawner = Spawner::start(Arc::clone(&setting))
            .map_err(|error| unavailable(format!("no thread could be started: {error}")))?;
        let shared = Shared {
            setting,
            spawner,
            watching: Watching::new(),
            boot: procfs::boot_id(),
            leftover_grace: config.leftover_grace.min(LONGEST_GRACE),
            stop_grace: config.stop_grace.min(LONGEST_GRACE),
            updates: OnceLock::new(),
            registry: Mutex::default(),
            closing: CancellationToken::new(),
            let_go: CancellationToken::new(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared), workers: TaskTracker::new() }))
    }

    /// Looks which processes are which known tasks.
    async fn plan(&self, known: &[KnownTask]) -> Plan {
        let mark = (!self.shared.setting.ephemeral).then(|| self.shared.setting.mark.clone());
        if mark.is_none() && known.is_empty() {
            // There is nothing to look for, and all of `/proc` takes a while.
            return Plan::default();
        }
        let snapshot = tokio::task::spawn_blocking(move || Snapshot::take(mark.as_deref())).await;
        let own_group = rustix::process::getpgrp().as_raw_pid();
        snapshot.map(|snapshot| snapshot.plan(known, own_group)).unwrap_or_default()
    }

    /// The same, once no child of a crashed run is between fork and exec any more: such a one is found by nothing
    /// that a task is known by, and would run unknown to anybody.
    async fn settled_plan(&self, known: &[KnownTask]) -> Plan {
        let end = Instant::now() + LATE.1;
        let mut plan = self.plan(known).await;
        // One look more in any case: for a moment after exec the environment cannot be read.
        let mut again = !self.shared.setting.ephemeral;
        while plan.missing && again {
            again = plan.unborn && Instant::now() < end;
            tokio::time::sleep(LATE.0).await;
            plan = self.plan(known).await;
        }
        plan
    }

    /// Watches a task of an earlier run again. None when it is not there (any more).
    fn adopt(&self, known: &KnownTask, plan: &Plan) -> Option<(Task, TaskUpdate)> {
        let found = plan.adopted.get(&known.id)?;
        let process = Process::adopt(found.pid, found.start, &self.shared.watching)?;
        // A kill that the earlier run had begun is begun again: it cannot be told how far it came.
        let killing = known.state == TaskState::Killing;
        let order = killing.then(|| deadline(known.grace));
        let group = self.shared.group(&known.id);
        let mut registry = self.shared.registry();
        let orders = registry.insert(&known.id, order)?;
        registry.set_group(&known.id, found.pid, group.memory_limit());
        drop(registry);
        let lease = self.shared.setting.ports.adopt(found.ports.clone());
        let log = self.shared.setting.logs.as_ref().map(|logs| logs.adopt(&known.policy, &known.id));
        let task = Task { id: known.id.clone(), log, process, lease, group, orders };
        let update = task.placed(&self.shared, if killing { TaskState::Killing } else { TaskState::Running });
        Some((task, update))
    }

    /// Ends processes that carry our mark and are no known task's.
    fn end_strays(&self, plan: &Plan) {
        for group in plan.strays.iter().filter_map(|group| Pid::from_raw(*group)) {
            tracing::warn!(
                group = group.as_raw_pid(),
                "ending processes of this state folder that no task is known for"
            );
            process::ask_group(group);
            let (shared, kill_at) = (Arc::clone(&self.shared), Instant::now() + self.shared.leftover_grace);
            self.workers.spawn(async move {
                tokio::select! {
                    () = worker::end_group(group, kill_at, None) => {}
                    () = shared.let_go.cancelled() => {}
                }
            });
        }
    }
}

#[async_trait]
impl TaskBackend for LocalBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities { victims: true, task_env: true, stats: true, queues: false }
    }

    /// Sends one update for each known task before it returns: `updates` must be read meanwhile, or have as much room.
    async fn recover(&self, known: Vec<KnownTask>, updates: mpsc::Sender<TaskUpdate>) -> Result<(), BackendError> {
        self.shared.updates.set(updates).map_err(|_| refused("`recover` was called before; it is called once"))?;
        let plan = self.settled_plan(&known).await;
        self.end_strays(&plan);
        if let Some(logs) = &self.shared.setting.logs {
            logs.take_in();
            self.workers.spawn(look_after(Arc::clone(logs), self.shared.closing.clone()));
        }
        for task in &known {
            let Some((task, update)) = self.adopt(task, &plan) else {
                self.shared.group(&task.id).remove();
                self.shared.report(worker::gone(&task.id, Exit::Unknown)).await;
                continue;
            };
            self.shared.report(update).await;
            let shared = Arc::clone(&self.shared);
            self.workers.spawn(async move { task.supervise(&shared).await });
        }
        Ok(())
    }

    async fn launch(&self, requests: Vec<LaunchRequest>) -> Result<(), BackendError> {
        if self.shared.updates.get().is_none() {
            return Err(unavailable("`recover` has not been called"));
        }
        let mut registry = self.shared.registry();
        // Asked under the lock that `shutdown` takes too, so that no launch slips in behind it.
        if self.shared.closing.is_cancelled() {
            return Err(unavailable("it is shutting down"));
        }
        for request in requests {
            if let Some(orders) = registry.insert(&request.id, None) {
                self.workers.spawn(worker::launch(Arc::clone(&self.shared), request, orders));
            }
        }
        Ok(())
    }

    async fn kill(&self, tasks: Vec<TaskId>, grace: Duration) -> Result<(), BackendError> {
        let deadline = deadline(grace);
        let unknown: Vec<TaskId> = {
            let registry = self.shared.registry();
            tasks.into_iter().filter(|id| !registry.end(id, deadline)).collect()
        };
        for id in unknown {
            self.shared.report(worker::gone(&id, Exit::Unknown)).await;
        }
        Ok(())
    }

    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        let groups = self.shared.registry().groups(tasks);
        if groups.is_empty() {
            return Ok(BTreeMap::new());
        }
        let numbers: Vec<i32> = groups.iter().map(|(_, group)| *group).collect();
        let read = tokio::task::spawn_blocking(move || (Moment::now(), procfs::usage(numbers))).await;
        let (now, usage) = read.map_err(|error| unavailable(format!("`/proc` could not be read: {error}")))?;
        Ok(self.shared.registry().measure(now, groups, &usage))
    }

    async fn forget(&self, policy: &PolicyName) {
        let Some(logs) = self.shared.setting.logs.clone() else { return };
        let policy = policy.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || logs.forget(&policy)).await {
            tracing::warn!(%error, "a removed policy's logs are left");
        }
    }

    async fn shutdown(&self, kill_all: bool) {
        {
            let registry = self.shared.registry();
            self.shared.closing.cancel();
            if kill_all {
                registry.end_all(Instant::now() + self.shared.stop_grace);
            }
        }
        if !kill_all {
            self.shared.let_go.cancel();
        }
        self.workers.close();
        self.workers.wait().await;
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        self.shared.let_go.cancel();
    }
}

impl Shared {
    /// For short sections only; never held over an await.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an update, waiting for room. Nothing is lost but what nobody reads any more.
    async fn report(&self, update: TaskUpdate) {
        let Some(updates) = self.updates.get() else { return };
        let abandoned = async {
            self.closing.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            biased;
            room = updates.reserve() => if let Ok(room) = room { room.send(update) },
            () = abandoned => tracing::debug!(task = %update.id, "nobody took a task's update during shutdown"),
        }
    }

    /// The control groups that an earlier run made for a task.
    fn group(&self, id: &TaskId) -> Group {
        self.setting.limits.as_ref().map(|limits| limits.existing(id)).unwrap_or_default()
    }

    fn token(&self, start: u64) -> Option<String> {
        Some(procfs::token(start, self.boot.as_deref()?))
    }
}

/// Keeps logs within their bounds until the backend shuts down.
async fn look_after(logs: Arc<Logs>, closing: CancellationToken) {
    while closing.run_until_cancelled(tokio::time::sleep(logs::LOOK)).await.is_some() {
        let logs = Arc::clone(&logs);
        if let Err(error) = tokio::task::spawn_blocking(move || logs.look()).await {
            tracing::warn!(%error, "logs were not looked at");
        }
    }
}

fn deadline(grace: Duration) -> Instant {
    Instant::now() + grace.min(LONGEST_GRACE)
}

fn unavailable(message: impl Into<String>) -> BackendError {
    BackendError::Unavailable { backend: NAME.to_owned(), message: message.into() }
}

fn refused(message: impl Into<String>) -> BackendError {
    BackendError::Refused { backend: NAME.to_owned(), message: message.into() }
}
