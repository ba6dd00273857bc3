//! Containers on one or several Docker engines: each task is a container.
//!
//! ```text
//!   launch ─► an engine is chosen ─► create ─► start ─► a worker stays with the container to its end
//!                                                        ▲ looks again whenever it is poked
//!   engine's watch: events ──────────────────────────────┤
//!                   resync after each connection ────────┘
//! ```
//!
//! One worker for each task (`task`) and one watch for each engine (`watch`). What is true of a container is always
//! read from the engine; events only say when to read, so a lost one does no harm. Tasks on an engine that is away are
//! held as they are.
//!
//! Invariants beyond those of [`TaskBackend`]:
//! - a container's name is made from its task's id, so that the engine itself refuses a second one;
//! - every container carries its task, its policy and its owner (the state folder, or the run) as labels; one of ours
//!   that no task is known for is removed, whenever it shows up;
//! - an engine that is away, hangs or restarts ends no task: only what it says itself, once it is back, does.

mod credentials;
mod member;
mod registry;
mod task;
mod template;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::member::Member;
use self::registry::Registry;
use self::task::Task;
use crate::backend::run::Run;
use crate::backend::{BackendError, Capabilities, KnownTask, LaunchRequest, Mark, Standing, TaskBackend, TaskUpdate};
use crate::container::{Credentials, Engine, EngineConfig};
use crate::core::model::{Exit, TaskId, TaskState, TaskStats};

/// The name of this backend in policies, messages and records.
pub const NAME: &str = "docker";

/// Labels of every container of ours.
pub mod label {
    /// Its task's id.
    pub const TASK: &str = "setpoint.task";
    /// Its policy's name.
    pub const POLICY: &str = "setpoint.policy";
    /// Whose it is: the mark of the state folder, or the run.
    pub const OWNER: &str = "setpoint.owner";
    /// Its ports, as `name=inside/protocol,…`: an adopted task's template is not known.
    pub const PORTS: &str = "setpoint.ports";
    /// The process that runs it, for containers that are not to outlive it.
    pub const RUN: &str = "setpoint.run";
}

/// How long an update waits for room once the backend shuts down: nobody may be reading any more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long an engine may take for the figures of its containers.
const STATS_PATIENCE: Duration = Duration::from_millis(1500);

/// How long the end of all tasks may take at a shutdown that ends them.
const LONGEST_END: Duration = Duration::from_secs(25);

/// How a [`DockerBackend`] runs its tasks.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// The engines that tasks are spread over; at least one, each with a name of its own.
    pub engines: Vec<EngineConfig>,
    /// The state folder that the tasks belong to; it must exist. None: tasks are removed at the end of the run, and
    /// what a crash leaves of them by the next run on this machine.
    pub mark: Option<PathBuf>,
    /// Where the last words of failed tasks go, as `<policy>/<task>.log`. None: to the log only.
    pub log_dir: Option<PathBuf>,
    /// User and password by registry.
    pub registries: BTreeMap<String, Credentials>,
    /// Docker's own file of credentials, for registries that are not in there.
    pub client_config: Option<PathBuf>,
    /// Containers are looked at and left as they are: for runs that carry nothing out.
    pub hands_off: bool,
    /// What the container of the only task is called, for those who look it up by that; none makes a name of each task's id.
    pub container_name: Option<String>,
    /// Time between the signal and KILL for containers that no task is known for, and at a shutdown with the tasks.
    pub stop_grace: Duration,
}

impl DockerConfig {
    /// Engines, and everything else by default.
    #[must_use]
    pub fn new(engines: Vec<EngineConfig>) -> Self {
        Self {
            engines,
            mark: None,
            log_dir: None,
            registries: BTreeMap::new(),
            client_config: None,
            hands_off: false,
            container_name: None,
            stop_grace: Duration::from_secs(3),
        }
    }
}

/// The backend that runs tasks as containers. See the [module](self).
#[derive(Debug)]
pub struct DockerBackend {
    shared: Arc<Shared>,
    workers: TaskTracker,
    watches: TaskTracker,
}

/// What the workers of a backend share.
#[derive(Debug)]
struct Shared {
    members: Vec<Member>,
    /// The label by which our containers are found: `setpoint.owner=…`.
    owner: String,
    run: Run,
    /// Whether containers go when the run does.
    ephemeral: bool,
    config: DockerConfig,
    registry: Mutex<Registry>,
    updates: Mutex<Option<mpsc::Sender<TaskUpdate>>>,
    /// Known tasks are in the registry, so what is not in there is nobody's.
    recovered: CancellationToken,
    /// The backend shuts down: nothing new is started, and updates do not wait for ever.
    closing: CancellationToken,
    /// Workers are to leave their tasks alone and end.
    let_go: CancellationToken,
}

impl DockerBackend {
    /// A backend that has no tasks yet and connects to nothing; `recover` must be the first call to it.
    ///
    /// # Errors
    /// When there is no engine, two have one name, or the state folder cannot be looked at.
    pub fn new(config: DockerConfig) -> Result<Arc<Self>, BackendError> {
        if config.engines.is_empty() {
            return Err(refused("no engine is configured"));
        }
        for (at, engine) in config.engines.iter().enumerate() {
            if config.engines[..at].iter().any(|other| other.name == engine.name) {
                return Err(refused(format!("two engines are called `{}`", engine.name)));
            }
        }
        let run = Run::this();
        let owner = match &config.mark {
            Some(folder) => Mark::of(folder)
                .map(|mark| mark.as_str().to_owned())
                .map_err(|error| refused(format!("the state folder `{}` cannot be used: {error}", folder.display())))?,
            None => format!("run-{}", ulid::Ulid::generate()),
        };
        let shared = Shared {
            members: config.engines.iter().map(|engine| Member::new(Engine::new(engine.clone()))).collect(),
            owner,
            run,
            ephemeral: config.mark.is_none(),
            config,
            registry: Mutex::default(),
            updates: Mutex::default(),
            recovered: CancellationToken::new(),
            closing: CancellationToken::new(),
            let_go: CancellationToken::new(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared), workers: TaskTracker::new(), watches: TaskTracker::new() }))
    }

    /// The engines, for whoever samples their containers.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.shared.members.iter().map(|member| &member.engine)
    }

    fn start_watches(&self) {
        if !self.watches.is_empty() {
            return;
        }
        for index in 0..self.shared.members.len() {
            self.watches.spawn(watch::run(Arc::clone(&self.shared), index));
        }
    }
}

#[async_trait]
impl TaskBackend for DockerBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities { victims: true, task_env: true, stats: true, queues: false }
    }

    /// Waits for the first engine that answers. Known tasks on engines that are away are reported as they were known.
    async fn recover(&self, known: Vec<KnownTask>, updates: mpsc::Sender<TaskUpdate>) -> Result<(), BackendError> {
        if self.shared.recovered.is_cancelled() {
            return Err(refused("`recover` was called before; it is called once"));
        }
        *lock(&self.shared.updates) = Some(updates);
        self.start_watches();
        for member in &self.shared.members {
            member.settled().await;
        }
        if let Standing::Lost(problem) = self.shared.standing() {
            // The watches go on trying, so that the next call finds them connected.
            return Err(unavailable(problem));
        }
        let mut looks = Vec::new();
        for task in known {
            let (look, looked) = tokio::sync::oneshot::channel();
            let Some(task) = Task::adopt(&self.shared, task, look) else { continue };
            looks.push(looked);
            self.workers.spawn(task.run(Arc::clone(&self.shared)));
        }
        for look in looks {
            // A worker that ends first has reported too.
            look.await.ok();
        }
        self.shared.recovered.cancel();
        Ok(())
    }

    async fn launch(&self, requests: Vec<LaunchRequest>) -> Result<(), BackendError> {
        if !self.shared.recovered.is_cancelled() {
            return Err(unavailable("`recover` has not been answered"));
        }
        let mut refusals = Vec::new();
        {
            let mut registry = self.shared.registry();
            // Asked under the lock that `shutdown` takes too, so that no launch slips in behind it.
            if self.shared.closing.is_cancelled() {
                return Err(unavailable("it is shutting down"));
            }
            let engines = |request: &LaunchRequest| self.shared.allowed(&request.template.container.engines);
            let allowed = requests.iter().map(engines).collect::<Result<Vec<_>, _>>()?;
            for (request, allowed) in requests.into_iter().zip(allowed) {
                match allowed {
                    Ok(allowed) => {
                        if let Some(task) = Task::launch(&self.shared, &mut registry, request, &allowed) {
                            self.workers.spawn(task.run(Arc::clone(&self.shared)));
                        }
                    }
                    Err(reason) => refusals.push((request.id, Exit::NotStarted { reason })),
                }
            }
        }
        for (id, exit) in refusals {
            self.shared.report(gone(&id, exit)).await;
        }
        Ok(())
    }

    async fn kill(&self, tasks: Vec<TaskId>, grace: Duration) -> Result<(), BackendError> {
        let unknown: Vec<TaskId> = {
            let registry = self.shared.registry();
            tasks.into_iter().filter(|id| !registry.end(id, grace)).collect()
        };
        for id in unknown {
            self.shared.report(gone(&id, Exit::Unknown)).await;
        }
        Ok(())
    }

    /// Tasks of an engine that is away have no figures, though their control groups could often be read: nothing is to
    /// be decided on tasks that cannot be told anything.
    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        let sample = |index: usize| {
            let member = &self.shared.members[index];
            let tasks = self.shared.registry().containers(&tasks, index);
            async move {
                let containers: Vec<String> = tasks.keys().cloned().collect();
                let figures = member.sampler.sample(&containers, STATS_PATIENCE).await;
                figures
                    .into_iter()
                    .filter_map(move |(container, figures)| Some((tasks.get(&container)?.clone(), figures)))
            }
        };
        let up = (0..self.shared.members.len()).filter(|index| self.shared.members[*index].is_up());
        let all = up.map(sample);
        Ok(futures_util::future::join_all(all).await.into_iter().flatten().collect())
    }

    fn standing(&self) -> Standing {
        self.shared.standing()
    }

    async fn shutdown(&self, kill_all: bool) {
        {
            let registry = self.shared.registry();
            self.shared.closing.cancel();
            if kill_all {
                registry.end_all(self.shared.config.stop_grace);
            }
        }
        self.workers.close();
        if kill_all && tokio::time::timeout(LONGEST_END, self.workers.wait()).await.is_err() {
            let left: Vec<String> = self.shared.registry().ids().map(ToString::to_string).collect();
            tracing::error!(tasks = %left.join(", "), "containers could not be ended and are left");
        }
        self.shared.let_go.cancel();
        self.workers.wait().await;
        self.watches.close();
        self.watches.wait().await;
    }
}

impl Drop for DockerBackend {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        self.shared.let_go.cancel();
    }
}

impl Shared {
    /// For short sections only; never held over an await.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// The engines by these names (all of them when there are none) that answer now, or why there never will be one.
    ///
    /// # Errors
    /// None of them answers now.
    fn allowed(&self, names: &[String]) -> Result<Result<Vec<usize>, Arc<str>>, BackendError> {
        let named = |name: &String| self.members.iter().position(|member| member.engine.name() == name);
        if let Some(stranger) = names.iter().find(|name| named(name).is_none()) {
            let all: Vec<&str> = self.members.iter().map(|member| member.engine.name()).collect();
            let all = all.join("`, `");
            return Ok(Err(format!("there is no engine `{stranger}`; the host has `{all}`").into()));
        }
        let all: Vec<usize> =
            if names.is_empty() { (0..self.members.len()).collect() } else { names.iter().filter_map(named).collect() };
        let up: Vec<usize> = all.iter().copied().filter(|index| self.members[*index].is_up()).collect();
        if up.is_empty() {
            let problems: Vec<String> = all.iter().filter_map(|index| self.members[*index].problem()).collect();
            return Err(unavailable(problems.join("; ")));
        }
        Ok(Ok(up))
    }

    fn standing(&self) -> Standing {
        let problems: Vec<String> = self.members.iter().filter_map(Member::problem).collect();
        if problems.is_empty() {
            return Standing::Ready;
        }
        let text = format!("{}; tasks there are held as they are", problems.join("; "));
        if problems.len() == self.members.len() { Standing::Lost(text) } else { Standing::Degraded(text) }
    }

    /// Sends an update, waiting for room. Nothing is lost but what nobody reads any more.
    async fn report(&self, update: TaskUpdate) {
        let Some(updates) = lock(&self.updates).clone() else { return };
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An update that says nothing but the state.
fn update(id: &TaskId, state: TaskState) -> TaskUpdate {
    TaskUpdate { id: id.clone(), state, healthy: None, placement: None, exit: None, receipt: None }
}

/// The last update of a task.
fn gone(id: &TaskId, exit: Exit) -> TaskUpdate {
    TaskUpdate { exit: Some(exit), ..update(id, TaskState::Gone) }
}

fn unavailable(message: impl Into<String>) -> BackendError {
    BackendError::Unavailable { backend: NAME.to_owned(), message: message.into() }
}

fn refused(message: impl Into<String>) -> BackendError {
    BackendError::Refused { backend: NAME.to_owned(), message: message.into() }
}
