//! An executor of Apache Mesos over the v1 HTTP API: the other end of `executor = "setpoint"`.
//!
//! ```text
//!   agent ── LAUNCH, KILL, SHUTDOWN ──► Executor ──► LocalBackend (commands), DockerBackend (images)
//!   agent ◄── UPDATE, MESSAGE (figures) ──        ◄── updates, stats
//! ```
//!
//! What runs tasks is what runs them without Mesos. Updates are kept until the agent has acknowledged them and told again
//! with each subscription, so an agent that dies takes none with it. When the agent is away for longer than its recovery
//! timeout, the tasks are ended and the executor with them. It also ends by itself once it has had tasks, has none left and
//! everything of them is acknowledged. It stands in for a cluster's command and Docker executors, too.
//!
//! - **Invariant:** an update is told again until it is acknowledged, and never told as something else.
//! - **Invariant:** when the executor ends, by itself or by force, its commands end too.

mod health;
mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backend::local::{LocalBackend, LocalConfig};
use crate::backend::{TaskBackend, TaskUpdate};
use crate::core::model::{Exit, TaskId, TaskState, TaskStats};
use crate::mesos::MesosError;
use crate::mesos::executor::{Executor as Client, ExecutorConfig as Agent, ExecutorSignal, VariableError};
use crate::mesos::wire::executor::Event;
use crate::mesos::wire::{KillPolicy, StatusReason, TaskInfo, TaskStatus};

use health::{Check, Checking};

/// How often figures of tasks are sent.
const FIGURES_EVERY: Duration = Duration::from_secs(2);

/// How long an executor without tasks waits for more.
const LINGER: Duration = Duration::from_secs(10);

/// Why an executor could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The environment that an agent gives its executors is not there.
    #[error("this is run by a Mesos agent")]
    Variable(#[source] VariableError),
    /// The agent cannot be spoken to at all.
    #[error("cannot speak to the agent")]
    Client(#[source] MesosError),
    /// Commands cannot be run.
    #[error("cannot run local processes")]
    Local(#[source] crate::backend::BackendError),
    /// The agent went away, or does not want us.
    #[error("the agent is gone: {0}")]
    Abandoned(String),
}

/// What an executor is started with.
pub struct ExecutorConfig {
    /// The environment that the agent gave it.
    pub vars: BTreeMap<String, String>,
    /// Its sandbox, where tasks start.
    pub sandbox: PathBuf,
    /// Runs images; without, tasks with one fail.
    pub containers: Option<Arc<dyn TaskBackend>>,
    /// End as soon as the one task has: for stand-ins of a cluster's own executors.
    pub single: bool,
}

struct Running {
    kill_policy: Option<KillPolicy>,
    killed: bool,
    contained: bool,
    /// A command's health check: how, until it runs.
    check: Option<Check>,
    checking: Option<Checking>,
    /// How a task with a check was last told to stand.
    last: Option<TaskUpdate>,
}

struct Executor {
    client: Client,
    shutdown_grace: Duration,
    sandbox: PathBuf,
    local: Arc<dyn TaskBackend>,
    containers: Option<Arc<dyn TaskBackend>>,
    found: mpsc::Sender<(TaskId, bool)>,
    tasks: BTreeMap<TaskId, Running>,
    had_tasks: bool,
    idle: Instant,
    /// When a shutdown gives up waiting.
    shutdown: Option<Instant>,
}

/// Runs an executor until its agent or its work ends it.
///
/// # Errors
/// When it cannot start, or its agent is gone.
pub async fn run(config: ExecutorConfig) -> Result<(), ExecutorError> {
    let agent = Agent::from_variables(|name| config.vars.get(name).cloned()).map_err(ExecutorError::Variable)?;
    let shutdown_grace = agent.shutdown_grace;
    let local = LocalConfig { log_dir: Some(config.sandbox.join("tasks")), limits: false, ..LocalConfig::default() };
    let local: Arc<dyn TaskBackend> = LocalBackend::new(local).map_err(ExecutorError::Local)?;
    let (update_sender, mut updates) = mpsc::channel(1024);
    let (found_sender, mut found) = mpsc::channel(1024);
    for backend in [Some(&local), config.containers.as_ref()].into_iter().flatten() {
        if let Err(error) = backend.recover(Vec::new(), update_sender.clone()).await {
            tracing::warn!(error = %error, "tasks with images cannot be run");
        }
    }
    let (client, mut signals) = Client::connect(agent).map_err(ExecutorError::Client)?;
    let mut executor = Executor {
        client,
        shutdown_grace,
        sandbox: config.sandbox,
        local,
        containers: config.containers,
        found: found_sender,
        tasks: BTreeMap::new(),
        had_tasks: false,
        idle: Instant::now(),
        shutdown: None,
    };
    let linger = if config.single { Duration::ZERO } else { LINGER };
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let mut figures = tokio::time::interval(FIGURES_EVERY);
    loop {
        tokio::select! {
            Some(update) = updates.recv() => executor.on_update(update),
            Some((id, healthy)) = found.recv() => executor.on_health(&id, healthy),
            signal = signals.recv() => match signal {
                Some(ExecutorSignal::Event(event)) => executor.on_event(event).await,
                Some(ExecutorSignal::Lost(why)) => tracing::info!(why = %why, "the agent is away"),
                Some(ExecutorSignal::Ended(why)) => {
                    executor.let_go().await;
                    return Err(ExecutorError::Abandoned(why));
                }
                Some(_) => {}
                None => {
                    executor.let_go().await;
                    return Err(ExecutorError::Abandoned("the client has ended".to_owned()));
                }
            },
            _ = figures.tick() => executor.send_figures().await,
            _ = tick.tick() => {
                if executor.is_done(linger) {
                    executor.let_go().await;
                    return Ok(());
                }
            }
        }
    }
}

impl Executor {
    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Launch(task) => self.launch(*task).await,
            Event::LaunchGroup(tasks) => {
                for task in tasks {
                    self.launch(task).await;
                }
            }
            Event::Kill(kill) => {
                let id = TaskId::from(kill.task_id.as_str());
                let own = self.tasks.get(&id).and_then(|task| task.kill_policy.as_ref());
                let grace = task::grace(kill.kill_policy.as_ref(), own);
                self.kill(&id, grace).await;
            }
            Event::Shutdown => {
                self.shutdown = Some(Instant::now() + self.shutdown_grace);
                // The agent takes no longer than this; what it leaves is killed.
                let grace = self.shutdown_grace.saturating_sub(Duration::from_secs(1));
                for id in self.tasks.keys().cloned().collect::<Vec<_>>() {
                    self.kill(&id, grace).await;
                }
            }
            other => tracing::debug!(event = ?other, "passed over"),
        }
    }

    async fn launch(&mut self, info: TaskInfo) {
        let info = task::unpacked(info);
        let id = TaskId::from(info.task_id.as_str());
        if self.tasks.contains_key(&id) {
            return;
        }
        self.had_tasks = true;
        let fail = |reason: &str| TaskUpdate {
            id: id.clone(),
            state: TaskState::Gone,
            healthy: None,
            placement: None,
            exit: Some(Exit::NotStarted { reason: reason.into() }),
            receipt: None,
        };
        let Some(request) = task::request(&info, &self.sandbox) else {
            return self.on_update(fail("there is neither a command nor an image"));
        };
        let contained = request.template.image.is_some();
        let Some(backend) = (if contained { self.containers.clone() } else { Some(Arc::clone(&self.local)) }) else {
            return self.on_update(fail("no container engine was given to this executor"));
        };
        let check = if contained { None } else { Check::of(&info, &request.template.env, &self.sandbox) };
        let kill_policy = info.kill_policy.clone();
        let running = Running { kill_policy, killed: false, contained, check, checking: None, last: None };
        self.tasks.insert(id.clone(), running);
        if let Err(error) = backend.launch(vec![request]).await {
            self.on_update(fail(&error.to_string()));
        }
    }

    async fn kill(&mut self, id: &TaskId, grace: Duration) {
        let Some(running) = self.tasks.get_mut(id) else { return };
        running.killed = true;
        let backend = if running.contained { self.containers.clone() } else { Some(Arc::clone(&self.local)) };
        let Some(backend) = backend else { return };
        if let Err(error) = backend.kill(vec![id.clone()], grace).await {
            // The scheduler repeats it.
            tracing::warn!(task = %id, error = %error, "cannot end a task");
        }
    }

    fn on_update(&mut self, update: TaskUpdate) {
        let killed = self.tasks.get(&update.id).is_some_and(|running| running.killed);
        if update.state == TaskState::Gone {
            self.tasks.remove(&update.id);
            self.idle = Instant::now();
        } else if let Some(running) = self.tasks.get_mut(&update.id) {
            if update.state == TaskState::Running
                && let Some(check) = running.check.take()
            {
                running.checking = Some(check.start(update.id.clone(), self.found.clone()));
            }
            if running.checking.is_some() {
                running.last = Some(update.clone());
            }
        }
        if let Some(status) = task::status(&update, killed) {
            self.client.update(status);
        }
    }

    /// What a command's health check has found.
    fn on_health(&mut self, id: &TaskId, healthy: bool) {
        let Some(running) = self.tasks.get(id).filter(|running| !running.killed) else { return };
        let Some(last) = running.last.clone().filter(|last| last.state == TaskState::Running) else { return };
        if let Some(status) = task::status(&TaskUpdate { healthy: Some(healthy), ..last }, false) {
            let reason = Some(StatusReason::TaskHealthCheckStatusUpdated);
            self.client.update(TaskStatus { reason, ..status });
        }
    }

    /// CPU and memory of the tasks, for the scheduler.
    async fn send_figures(&self) {
        if self.tasks.is_empty() {
            return;
        }
        let ids = |contained: bool| {
            let of_kind = self.tasks.iter().filter(move |(_, running)| running.contained == contained);
            of_kind.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        let mut all: BTreeMap<TaskId, TaskStats> = self.local.stats(ids(false)).await.unwrap_or_default();
        if let Some(containers) = &self.containers {
            all.extend(containers.stats(ids(true)).await.unwrap_or_default());
        }
        if let Ok(data) = serde_json::to_vec(&serde_json::json!({ "tasks": all })) {
            // The next ones come soon.
            self.client.message(data).await.ok();
        }
    }

    fn is_done(&self, linger: Duration) -> bool {
        let over = self.tasks.is_empty() && self.client.is_settled();
        match self.shutdown {
            Some(until) => over || until <= Instant::now(),
            None => over && self.had_tasks && linger <= self.idle.elapsed(),
        }
    }

    /// Ends what is left.
    async fn let_go(&self) {
        self.local.shutdown(true).await;
        if let Some(containers) = &self.containers {
            containers.shutdown(true).await;
        }
    }
}
