//! Backends: where tasks run.
//!
//! One small trait in two shapes. A [`TaskBackend`] starts and ends single tasks under names that the
//! host chose; a [`CountBackend`] is told a number. The control loop never waits for a backend: it hands
//! requests to a worker and hears of the outcome as a [`TaskUpdate`]. Backends do not know each other,
//! policies or scripts.
//!
//! Invariants that every backend keeps:
//! - `launch` twice under the same task id starts one task;
//! - `kill` of a task that is gone is not an error, and leads to a `Gone` update;
//! - every launch leads to at least one update, every task to exactly one `Gone`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::core::model::{Exit, Placement, PolicyName, TaskId, TaskState, TaskStats};
use crate::core::policy::{Ready, TaskTemplate};

pub mod local;

/// What a backend can do; `check` warns about what a policy asks beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It can be told which tasks to end.
    pub victims: bool,
    /// Each task can have an environment of its own.
    pub task_env: bool,
    /// It samples CPU and memory.
    pub stats: bool,
    /// It may accept a launch and not place it (offers); such launches lapse at the policy's next tick.
    pub queues: bool,
}

/// One task to start.
#[derive(Clone, Debug)]
pub struct LaunchRequest {
    /// The name that makes a repeated launch harmless; already durable.
    pub id: TaskId,
    /// The policy that it belongs to.
    pub policy: PolicyName,
    /// What to start.
    pub template: Arc<TaskTemplate>,
    /// When it counts as ready (a backend with health checks reports it).
    pub ready: Ready,
    /// The folder that relative paths start from: the policy file's.
    pub base: Option<PathBuf>,
}

/// What a backend says of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskUpdate {
    /// Which one.
    pub id: TaskId,
    /// Its state now: staging, running, killing or gone.
    pub state: TaskState,
    /// Whether its health check passes; none where there is none.
    pub healthy: Option<bool>,
    /// Where it runs; none leaves what is known.
    pub placement: Option<Placement>,
    /// How it ended; only with `Gone`.
    pub exit: Option<Exit>,
}

/// What the store knows of a task when the host starts.
#[derive(Clone, Debug)]
pub struct KnownTask {
    /// Its name.
    pub id: TaskId,
    /// The policy that it belongs to.
    pub policy: PolicyName,
    /// Its last recorded state.
    pub state: TaskState,
    /// Where it was.
    pub placement: Placement,
    /// Grace of its kill.
    pub grace: Duration,
}

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// It cannot be reached now; retried.
    #[error("backend `{backend}` is not available: {message}")]
    Unavailable {
        /// Its name.
        backend: String,
        /// What it said.
        message: String,
    },
    /// The request is wrong and will stay so.
    #[error("backend `{backend}` refused: {message}")]
    Refused {
        /// Its name.
        backend: String,
        /// What it said.
        message: String,
    },
}

/// A backend that starts and ends single tasks.
#[async_trait]
pub trait TaskBackend: Send + Sync + 'static {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Finds the tasks of an earlier run, watches them again, and reports every one of `known` (as running,
    /// or as gone) through `updates`, which all later updates go through too. Called once, before any other call.
    /// Tasks that carry the state folder's mark and are not in `known` are ended.
    async fn recover(&self, known: Vec<KnownTask>, updates: mpsc::Sender<TaskUpdate>) -> Result<(), BackendError>;

    /// Starts tasks. Outcomes come as updates: a task that cannot be started is `Gone` with [`Exit::NotStarted`].
    async fn launch(&self, requests: Vec<LaunchRequest>) -> Result<(), BackendError>;

    /// Ends tasks: asks them to stop, and after `grace` makes them.
    async fn kill(&self, tasks: Vec<TaskId>, grace: Duration) -> Result<(), BackendError>;

    /// CPU and memory of the tasks that it knows among `tasks`. A task that is gone is left out.
    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError>;

    /// Lets go of everything without ending tasks. With `kill_all`, first makes every task end at once.
    async fn shutdown(&self, kill_all: bool);
}

/// A backend that is told a number (a Swarm service).
#[async_trait]
pub trait CountBackend: Send + Sync + 'static {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Reads the workload's present number and version, creating or adopting it if need be.
    async fn observe(&self, policy: &PolicyName, template: &TaskTemplate) -> Result<CountStatus, BackendError>;

    /// Sets the number, provided that the version is still the one observed.
    async fn scale(&self, policy: &PolicyName, version: u64, count: u32) -> Result<CountStatus, BackendError>;
}

/// What a count backend says of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct CountStatus {
    /// The version that a change must name.
    pub version: u64,
    /// The number that was asked for.
    pub desired: u32,
    /// The tasks that exist.
    pub tasks: Vec<TaskUpdate>,
}

/// A backend in either shape.
#[derive(Clone)]
pub enum Backend {
    /// Single tasks.
    Tasks(Arc<dyn TaskBackend>),
    /// A number.
    Count(Arc<dyn CountBackend>),
}

impl Backend {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::Tasks(backend) => backend.capabilities(),
            Self::Count(backend) => backend.capabilities(),
        }
    }
}
