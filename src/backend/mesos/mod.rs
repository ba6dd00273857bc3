//! Tasks on an Apache Mesos cluster: one framework for the whole host.
//!
//! ```text
//!   engine ── launch, kill ──► worker ──► Framework (pure) ──► calls, in order ──► master
//!   engine ◄── updates ───────        ◄── signals ────────────────────────────────
//!   engine ── receipts (durable) ────► ACKNOWLEDGE
//! ```
//!
//! `framework` decides, `worker` carries out. A launch waits in the framework's queue until an offer fits; one that the
//! engine withdraws at the policy's next tick was never sent. After each subscription every task is reconciled, and an
//! update of the cluster is acknowledged only when the engine has it on its disk.
//!
//! Invariants: the framework's id is durable before anything is launched under it, and each task's place before the
//! launch is sent (`outbox`); once another scheduler has taken the
//! framework over nothing is sent any more, and the run ends.

mod book;
mod figures;
mod framework;
mod offer;
mod outbox;
mod status;
mod task_info;
#[cfg(test)]
mod tests;
mod token;
#[cfg(test)]
mod wild;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use figures::Figures;

use super::{BackendError, Capabilities, KnownTask, LaunchRequest, Standing, TaskBackend, TaskUpdate};
use crate::core::model::{TaskId, TaskStats};
use crate::mesos::wire::{AgentId, Capability, CapabilityKind, FrameworkInfo};
use crate::mesos::{HttpConfig, Masters, SchedulerConfig};

pub(crate) use figures::stats;
pub use framework::UNREACHABLE_FOR;
pub(crate) use task_info::BY_ENGINE;
pub use task_info::Setting;

/// The name that policies use.
pub(crate) const NAME: &str = "mesos";

/// A week: longer than any outage that tasks should not survive.
pub const FAILOVER_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);

/// How long agents are asked for figures at most: less than the engine's patience.
const AGENTS_FOR: Duration = Duration::from_millis(1500);

/// How long what our executor told of a task is what the task uses: it tells every two seconds. After that the task has no
/// figures; old ones would pass for an agent's word that all is as it was.
const FIGURES_FOR: Duration = Duration::from_secs(10);

/// What the backend needs to know.
#[derive(Clone, Debug)]
pub struct MesosConfig {
    /// Where the masters are; without, every launch is refused.
    pub masters: Option<Masters>,
    /// Credentials and TLS.
    pub http: HttpConfig,
    /// Whether masters found in ZooKeeper are asked over TLS.
    pub tls: bool,
    /// The framework's name.
    pub name: String,
    /// The user that tasks run as.
    pub user: String,
    /// The principal that the framework is known by.
    pub principal: Option<String>,
    /// This machine's name, for the cluster's page.
    pub hostname: Option<String>,
    /// Where our page is, for the cluster's.
    pub webui_url: Option<String>,
    /// Whether tasks survive a restart of their agent.
    pub checkpoint: bool,
    /// How long the cluster keeps the tasks of a host that is away; nothing without a state folder.
    pub failover_timeout: Duration,
    /// Where the framework's id is kept.
    pub state_dir: Option<PathBuf>,
    /// What is the same for all tasks.
    pub setting: Setting,
}

impl MesosConfig {
    fn framework(&self, id: Option<String>, roles: Vec<String>) -> FrameworkInfo {
        let mut capabilities = vec![
            CapabilityKind::MultiRole,
            CapabilityKind::PartitionAware,
            CapabilityKind::TaskKillingState,
            CapabilityKind::ReservationRefinement,
        ];
        capabilities.extend(self.setting.gpus.then_some(CapabilityKind::GpuResources));
        FrameworkInfo {
            user: self.user.clone(),
            name: self.name.clone(),
            id: id.map(crate::mesos::wire::FrameworkId::new),
            failover_timeout: Some(if self.state_dir.is_some() { self.failover_timeout.as_secs_f64() } else { 0.0 }),
            checkpoint: Some(self.checkpoint),
            roles,
            hostname: self.hostname.clone(),
            principal: self.principal.clone(),
            webui_url: self.webui_url.clone(),
            capabilities: capabilities.into_iter().map(Capability::from).collect(),
            ..FrameworkInfo::default()
        }
    }

    fn scheduler(&self, masters: Masters, framework: FrameworkInfo) -> SchedulerConfig {
        SchedulerConfig { http: self.http.clone(), tls: self.tls, ..SchedulerConfig::new(masters, framework) }
    }
}

/// What the worker is asked.
#[derive(Debug)]
enum Order {
    Recover(Vec<KnownTask>, mpsc::Sender<TaskUpdate>, oneshot::Sender<Result<(), BackendError>>),
    Launch(Vec<LaunchRequest>, oneshot::Sender<()>),
    Kill(Vec<TaskId>, Duration, oneshot::Sender<()>),
    Withdraw(Vec<TaskId>, oneshot::Sender<()>),
    Shutdown(bool, oneshot::Sender<()>),
}

/// What the worker shows.
#[derive(Debug)]
struct Shown {
    standing: Standing,
    facts: BTreeMap<&'static str, String>,
    /// What our executors told, and when.
    stats: BTreeMap<TaskId, (Instant, TaskStats)>,
    /// Where the agents are to be asked for, and the framework's id; none without a subscription.
    leader: Option<(reqwest::Url, String)>,
    /// The tasks that run under the cluster's executors, and their agents.
    elsewhere: BTreeMap<TaskId, AgentId>,
}

type Board = Arc<Mutex<Shown>>;

/// The backend `mesos`.
#[derive(Debug)]
pub struct MesosBackend {
    orders: mpsc::Sender<Order>,
    board: Board,
    configured: bool,
    /// None when the HTTP client cannot be made: then nothing else works either.
    figures: Option<Figures>,
}

impl MesosBackend {
    /// A backend that connects when it is first asked to recover. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(config: MesosConfig) -> Arc<Self> {
        let (orders, inbox) = mpsc::channel(1024);
        let configured = config.masters.is_some();
        let shown = Shown {
            standing: Standing::Ready,
            facts: BTreeMap::new(),
            stats: BTreeMap::new(),
            leader: None,
            elsewhere: BTreeMap::new(),
        };
        let figures = Figures::new(&config.http).ok();
        let board = Arc::new(Mutex::new(shown));
        tokio::spawn(worker::run(config, inbox, Arc::clone(&board)));
        Arc::new(Self { orders, board, configured, figures })
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, BackendError> {
        if !self.configured {
            return Err(BackendError::Refused { backend: NAME.to_owned(), message: NO_MASTER.to_owned() });
        }
        let ended = || BackendError::Unavailable { backend: NAME.to_owned(), message: "it has ended".to_owned() };
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    fn shown<T>(&self, read: impl FnOnce(&Shown) -> T) -> T {
        read(&self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const NO_MASTER: &str = "no master is known: set `master` in `[mesos]` of the configuration, or SETPOINT_MESOS_MASTER";

#[async_trait]
impl TaskBackend for MesosBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities { victims: true, task_env: true, stats: true, queues: true }
    }

    async fn recover(&self, known: Vec<KnownTask>, updates: mpsc::Sender<TaskUpdate>) -> Result<(), BackendError> {
        if !self.configured && known.is_empty() {
            // Nobody has said where a cluster would be; launches are refused with that.
            return Ok(());
        }
        self.ask(|reply| Order::Recover(known, updates, reply)).await?
    }

    async fn launch(&self, requests: Vec<LaunchRequest>) -> Result<(), BackendError> {
        self.ask(|reply| Order::Launch(requests, reply)).await
    }

    async fn kill(&self, tasks: Vec<TaskId>, grace: Duration) -> Result<(), BackendError> {
        self.ask(|reply| Order::Kill(tasks, grace, reply)).await
    }

    async fn withdraw(&self, tasks: Vec<TaskId>) -> Result<(), BackendError> {
        self.ask(|reply| Order::Withdraw(tasks, reply)).await
    }

    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        let (mut stats, leader, elsewhere) = self.shown(|shown| {
            let told = tasks.iter().filter_map(|id| shown.stats.get_key_value(id));
            let fresh = told.filter(|(_, (at, _))| at.elapsed() < FIGURES_FOR);
            let stats: BTreeMap<TaskId, TaskStats> = fresh.map(|(id, (_, stats))| (id.clone(), *stats)).collect();
            let silent = tasks.iter().filter(|id| !stats.contains_key(*id));
            let elsewhere: BTreeMap<TaskId, AgentId> =
                silent.filter_map(|id| Some((id.clone(), shown.elsewhere.get(id)?.clone()))).collect();
            (stats, shown.leader.clone(), elsewhere)
        });
        if let Some(figures) = &self.figures
            && let Some((leader, framework)) = leader
        {
            // What our executors told is as good without it.
            match tokio::time::timeout(AGENTS_FOR, figures.read(&leader, &framework, &elsewhere)).await {
                Ok(Ok(read)) => stats.extend(read),
                Ok(Err(error)) => tracing::debug!(error = %error, "where agents answer is not known"),
                Err(_) => tracing::debug!("agents are too slow to tell what their tasks use"),
            }
        }
        Ok(stats)
    }

    fn standing(&self) -> Standing {
        self.shown(|shown| shown.standing.clone())
    }

    fn facts(&self) -> BTreeMap<&'static str, String> {
        self.shown(|shown| shown.facts.clone())
    }

    async fn shutdown(&self, kill_all: bool) {
        if self.configured {
            // One that has ended has nothing to let go of.
            self.ask(|reply| Order::Shutdown(kill_all, reply)).await.ok();
        }
    }
}
