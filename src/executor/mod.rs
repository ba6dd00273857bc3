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
//! everything of them is acknowledged. It stands in for a cluster's command and Docker executors, too, and then ends a task
//! for its health as those do, and sends no figures; otherwise what follows from health is the scheduler's to decide.
//!
//! - **Invariant:** an update is told again until it is acknowledged, and never told as something else.
//! - **Invariant:** when the executor ends, by itself or by force, its commands end too. Containers that a killed one has left
//!   are removed by its watcher, or by the next executor on that machine.

mod health;
mod images;
mod probe;
mod task;
mod watcher;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backend::local::{LocalBackend, LocalConfig};
use crate::backend::{TaskBackend, TaskUpdate};
use crate::core::model::{Exit, TaskId, TaskState, TaskStats};
use crate::mesos::MesosError;
use crate::mesos::executor::{Executor as Client, ExecutorConfig as Agent, ExecutorSignal, VariableError};
use crate::mesos::wire::executor::Event;
use crate::mesos::wire::{CapabilityKind, KillPolicy, StatusReason, TaskInfo, TaskStatus};

use health::{Check, Checking, Finding};
use images::Images;
pub use watcher::{Watcher, watch};

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
    /// Runs images; tasks with one fail for that reason otherwise.
    pub containers: Result<Arc<dyn TaskBackend>, String>,
    /// What removes containers when this executor is killed; without, the next one on the machine does.
    pub watcher: Option<Watcher>,
    /// Be as a cluster's own executors: end as soon as the one task has, and end it when its health says so.
    pub single: bool,
    /// Where containers see the sandbox; none leaves it out.
    pub mapped: Option<String>,
}

#[derive(Default)]
struct Running {
    kill_policy: Option<KillPolicy>,
    killed: bool,
    contained: bool,
    /// A health check of ours: how, until the task runs.
    check: Option<Check>,
    checking: Option<Checking>,
    /// What that has found.
    healthy: Option<bool>,
    /// It is ended for its health.
    condemned: bool,
    /// How a task with a check was last told to stand.
    last: Option<TaskUpdate>,
}

struct Executor {
    client: Client,
    shutdown_grace: Duration,
    sandbox: PathBuf,
    mapped: Option<String>,
    single: bool,
    local: Arc<dyn TaskBackend>,
    /// Runs images, or why there is nothing that does.
    images: Result<Images, String>,
    /// The framework knows of tasks that are being ended.
    tells_killing: bool,
    found: mpsc::Sender<Finding>,
    /// Figures that are on their way.
    sending: Option<JoinHandle<()>>,
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
    local.recover(Vec::new(), update_sender.clone()).await.map_err(ExecutorError::Local)?;
    let images = config.containers.map(|backend| Images::start(backend, update_sender, config.watcher));
    let (client, mut signals) = Client::connect(agent).map_err(ExecutorError::Client)?;
    let mut executor = Executor {
        client,
        shutdown_grace,
        sandbox: config.sandbox,
        mapped: config.mapped,
        single: config.single,
        local,
        images,
        tells_killing: false,
        found: found_sender,
        sending: None,
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
            Some(finding) = found.recv() => executor.on_health(&finding).await,
            signal = signals.recv() => match signal {
                Some(ExecutorSignal::Event(event)) => executor.on_event(event).await,
                Some(ExecutorSignal::Lost(why)) => tracing::info!(why = %why, "the agent is away"),
                Some(ExecutorSignal::Ended(why)) => {
                    executor.let_go().await;
                    return Err(ExecutorError::Abandoned(why));
                }
                Some(ExecutorSignal::Subscribed(subscribed)) => {
                    executor.tells_killing = subscribed.framework_info.has(&CapabilityKind::TaskKillingState);
                }
                None => {
                    executor.let_go().await;
                    return Err(ExecutorError::Abandoned("the client has ended".to_owned()));
                }
            },
            _ = figures.tick() => executor.send_figures(),
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
        let kill_policy = info.kill_policy.clone();
        let running = self.tasks.entry(id.clone()).or_insert(Running { kill_policy, ..Running::default() });
        let Some(request) = task::request(&info, &self.sandbox, self.mapped.as_deref()) else {
            return self.on_update(not_started(id, "there is neither a command nor an image"));
        };
        let contained = request.template.image.is_some();
        running.contained = contained;
        running.check = Check::of(&info, &request.template.env, &self.sandbox, self.single);
        match &self.images {
            Ok(images) if contained => images.launch(request),
            Err(why) if contained => {
                let reason = format!("no container engine was given to this executor: {why}");
                self.on_update(not_started(id, &reason));
            }
            _ => {
                if let Err(error) = self.local.launch(vec![request]).await {
                    self.on_update(not_started(id, &error.to_string()));
                }
            }
        }
    }

    async fn kill(&mut self, id: &TaskId, grace: Duration) {
        let Some(running) = self.tasks.get_mut(id) else { return };
        running.killed = true;
        if running.contained {
            if let Ok(images) = &self.images {
                images.kill(id.clone(), grace);
            }
        } else if let Err(error) = self.local.kill(vec![id.clone()], grace).await {
            // The scheduler repeats it.
            tracing::warn!(task = %id, error = %error, "cannot end a task");
        }
    }

    fn on_update(&mut self, update: TaskUpdate) {
        // Whoever is told to end a task that is over says once more that it is.
        let Some(running) = self.tasks.get(&update.id) else { return };
        let Running { killed, contained, .. } = *running;
        let healthy = match update.state {
            // Mesos's word for a task that was ended for its health.
            TaskState::Gone => running.condemned.then_some(false),
            _ => update.healthy.or(running.healthy),
        };
        let update = TaskUpdate { healthy, ..update };
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
        // A command runs a moment later. Telling of that moment would cost it a whole round to the scheduler and back, since
        // an agent passes on one update of a task at a time.
        if update.state == TaskState::Staging && !self.single && !contained {
            return;
        }
        // Frameworks that did not ask for this state would not know it.
        if update.state == TaskState::Killing && !self.tells_killing {
            return;
        }
        if let Some(status) = task::status(&update, killed) {
            self.client.update(status);
        }
    }

    /// What a health check has found.
    async fn on_health(&mut self, finding: &Finding) {
        let Finding { id, healthy, exhausted } = finding;
        let Some(running) = self.tasks.get_mut(id).filter(|running| !running.killed) else { return };
        let Some(last) = running.last.clone().filter(|last| last.state == TaskState::Running) else { return };
        running.healthy = Some(*healthy);
        let grace = task::grace(None, running.kill_policy.as_ref());
        running.condemned = self.single && *exhausted;
        let condemned = running.condemned;
        if let Some(status) = task::status(&TaskUpdate { healthy: Some(*healthy), ..last }, false) {
            let reason = Some(StatusReason::TaskHealthCheckStatusUpdated);
            self.client.update(TaskStatus { reason, ..status });
        }
        if condemned {
            tracing::warn!(task = %id, "unhealthy for too long, ending it");
            self.kill(id, grace).await;
        }
    }

    /// CPU and memory of the tasks, for the scheduler; beside everything else, since agents can be slow to take them.
    fn send_figures(&mut self) {
        // Those that it stands in for send none: agents measure their tasks.
        if self.single || self.tasks.is_empty() || self.sending.as_ref().is_some_and(|sending| !sending.is_finished()) {
            return;
        }
        let ids = |contained: bool| {
            let of_kind = self.tasks.iter().filter(move |(_, running)| running.contained == contained);
            of_kind.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        let (commands, contained) = (ids(false), ids(true));
        let (local, images, client) = (Arc::clone(&self.local), self.images.clone(), self.client.clone());
        self.sending = Some(tokio::spawn(async move {
            let mut all: BTreeMap<TaskId, TaskStats> = local.stats(commands).await.unwrap_or_default();
            if let Ok(images) = images {
                all.extend(images.stats(contained).await);
            }
            if let Ok(data) = serde_json::to_vec(&serde_json::json!({ "tasks": all })) {
                // The next ones come soon.
                client.message(data).await.ok();
            }
        }));
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
        if let Ok(images) = &self.images {
            images.shut_down().await;
        }
    }
}

/// A task that could not be started.
fn not_started(id: TaskId, reason: &str) -> TaskUpdate {
    let exit = Some(Exit::NotStarted { reason: reason.into() });
    TaskUpdate { id, state: TaskState::Gone, healthy: None, placement: None, exit, receipt: None }
}
