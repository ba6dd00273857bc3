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
//! - every launch leads to at least one update, every task to a `Gone`, after which nothing is said of it but that once more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::core::model::{Exit, Placement, PolicyName, TaskId, TaskState, TaskStats};
use crate::core::policy::{Ready, TaskTemplate};

#[cfg(feature = "docker")]
pub mod docker;
pub mod environment;
pub mod local;
mod mark;
#[cfg(feature = "mesos")]
pub mod mesos;
#[cfg(feature = "docker")]
mod run;
#[cfg(feature = "docker")]
pub mod swarm;
#[cfg(feature = "docker")]
mod words;

pub use mark::Mark;

/// What a backend can do; `check` warns about what a policy asks beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It can be told which tasks to end.
    pub victims: bool,
    /// Each task can have an environment of its own.
    pub task_env: bool,
    /// It samples CPU and memory.
    pub stats: bool,
    /// It may accept a launch and not place it (offers); such launches lapse at the policy's next tick
    /// (replacements of lost tasks stay wanted).
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
    /// Time between TERM and KILL, for backends that are told beforehand.
    pub grace: Duration,
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
    /// What its sender hears of once it is durable; for backends that are told things until they have acknowledged them.
    pub receipt: Option<Receipt>,
}

/// Tells whoever sent an update that it is durable. One that is dropped says nothing.
#[derive(Clone, Debug)]
pub struct Receipt {
    serial: u64,
    sender: mpsc::UnboundedSender<u64>,
    pressing: bool,
}

impl Receipt {
    /// A receipt that sends `serial` to `sender`, once a burst of updates has been written together.
    #[must_use]
    pub const fn new(serial: u64, sender: mpsc::UnboundedSender<u64>) -> Self {
        Self { serial, sender, pressing: false }
    }

    /// The same, for a sender that can do nothing until then: the update is written at once.
    #[must_use]
    pub const fn pressing(serial: u64, sender: mpsc::UnboundedSender<u64>) -> Self {
        Self { serial, sender, pressing: true }
    }

    /// Whether its sender can do nothing until the update is durable.
    pub(crate) const fn is_pressing(&self) -> bool {
        self.pressing
    }

    /// The update is durable, or there is nothing to be kept of it.
    pub fn durable(self) {
        // A backend that has ended does not need to know.
        self.sender.send(self.serial).ok();
    }
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
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
    /// The workload is not any more what the request was decided on; decided anew.
    #[error("backend `{backend}`: the workload was changed by somebody else meanwhile")]
    Moved {
        /// Its name.
        backend: String,
    },
}

/// How much of a backend can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of it, as far as it knows.
    Ready,
    /// Some of it cannot; tasks there are held as they are, launches go elsewhere.
    Degraded(String),
    /// Nothing can: its tasks are held as they are, and nothing is launched.
    Lost(String),
    /// Nothing can, and that will stay so: the run ends.
    Over {
        /// Why.
        message: String,
        /// The exit code that it ends with: 77 for credentials that are refused, 69 otherwise.
        code: i32,
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

    /// Lets go of launches that have found no place yet, and says that they are gone. Those that have one by now go on as if
    /// nothing had been asked. Only asked of a backend that keeps launches for later ([`Capabilities::queues`]); until it has
    /// told of a launch either way, that counts as asked for, and none is made in its place.
    async fn withdraw(&self, tasks: Vec<TaskId>) -> Result<(), BackendError> {
        drop(tasks);
        Ok(())
    }

    /// CPU and memory of the tasks that it knows among `tasks`. A task that is gone is left out.
    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError>;

    /// How much of it can be reached. Asked once a second and before launches, so it only says what is known.
    fn standing(&self) -> Standing {
        Standing::Ready
    }

    /// What there is to be shown of it, by names: a framework's id, a leader. Asked once a second.
    fn facts(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::new()
    }

    /// A policy is gone for good, and so may be what was kept of its tasks (logs).
    async fn forget(&self, _policy: &PolicyName) {}

    /// Lets go of everything without ending tasks. With `kill_all`, first makes every task end at once.
    async fn shutdown(&self, kill_all: bool);
}

/// What a count backend is to hold for a policy.
#[derive(Clone, Debug)]
pub struct CountWorkload {
    /// The policy; the workload is found again by its name.
    pub policy: PolicyName,
    /// What a task is.
    pub template: Arc<TaskTemplate>,
    /// When a running task counts as ready.
    pub ready: Ready,
    /// Time between asking a task to stop and making it.
    pub grace: Duration,
    /// Whether tasks of an older template make way for new ones, in the backend's own fashion.
    pub rolling: bool,
}

/// A backend that is told a number (a Swarm service), and sees to it by itself that so many tasks run.
///
/// Its tasks' ids are its own, and which of them end when the number falls is its own choice. A number is set under
/// the version of the workload that it was decided on, so that nobody else's change is undone unseen.
#[async_trait]
pub trait CountBackend: Send + Sync + 'static {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Reads the workload's present number, version and tasks. Creates and changes nothing: where there is no
    /// workload yet, the version is 0.
    async fn observe(&self, workload: &CountWorkload) -> Result<CountStatus, BackendError>;

    /// Sets the number, provided that the version is still the one observed ([`BackendError::Moved`] otherwise). With
    /// version 0 the workload is created.
    async fn scale(&self, workload: &CountWorkload, version: u64, count: u32) -> Result<(), BackendError>;

    /// Ends every task of a workload that this host made, and forgets it; answers when they have ended. One that it
    /// only adopted is left as it is. That there is none is not an error.
    async fn remove(&self, policy: &PolicyName) -> Result<(), BackendError>;

    /// CPU and memory of the tasks that it can sample among `tasks`; others are left out.
    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError>;

    /// Lets go of everything without ending tasks. With `kill_all`, first removes what this host made.
    async fn shutdown(&self, kill_all: bool);
}

/// What a count backend says of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CountStatus {
    /// The version that a change must name; 0 where there is no workload yet.
    pub version: u64,
    /// The number that was asked for.
    pub desired: u32,
    /// Why the number must not be changed now (an update is in progress), if so.
    pub busy: Option<String>,
    /// Its tasks are made from an older template.
    pub outdated: bool,
    /// Its tasks, in the order of their places, with those that ended lately. A task that is on its way out is
    /// `Killing`.
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

    /// CPU and memory of the tasks that it can sample among `tasks`.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        match self {
            Self::Tasks(backend) => backend.stats(tasks).await,
            Self::Count(backend) => backend.stats(tasks).await,
        }
    }

    /// Lets go of everything; with `kill_all`, ends every task of this host first.
    pub async fn shutdown(&self, kill_all: bool) {
        match self {
            Self::Tasks(backend) => backend.shutdown(kill_all).await,
            Self::Count(backend) => backend.shutdown(kill_all).await,
        }
    }

    /// How much of it can be reached.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self::Tasks(backend) => backend.standing(),
            Self::Count(_) => Standing::Ready,
        }
    }

    /// What there is to be shown of it.
    #[must_use]
    pub fn facts(&self) -> BTreeMap<&'static str, String> {
        match self {
            Self::Tasks(backend) => backend.facts(),
            Self::Count(_) => BTreeMap::new(),
        }
    }
}
