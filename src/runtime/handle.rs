//! The handle: how everything outside the control loop looks at the engine and tells it things.
//!
//! Reading never waits for the loop: it takes the last published values. Commands go through the loop's
//! bounded inbox and are answered by it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::core::model::{PolicyName, TaskId};
use crate::script::TaskView;

use super::view::{Command, CommandError, Health, PolicySnapshot, StreamEvent, Totals};

/// What a command is answered with: the policy's snapshot after it, where it is about one policy.
pub type CommandResult = Result<Option<Arc<PolicySnapshot>>, CommandError>;

/// A command on its way to the loop.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<CommandResult>,
}

/// A cheap, cloneable handle to a running engine.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    published: Arc<Published>,
    commands: mpsc::Sender<Request>,
}

/// What the loop publishes.
#[derive(Debug)]
pub(crate) struct Published {
    /// By name; put in order when they are asked for, since each tick replaces one and few look at them.
    pub(crate) policies: RwLock<HashMap<PolicyName, Arc<PolicySnapshot>>>,
    pub(crate) tasks: RwLock<BTreeMap<TaskId, TaskView>>,
    pub(crate) health: RwLock<Health>,
    pub(crate) totals: RwLock<Totals>,
    pub(crate) events: broadcast::Sender<Arc<StreamEvent>>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            policies: RwLock::default(),
            tasks: RwLock::default(),
            health: RwLock::default(),
            totals: RwLock::default(),
            events: broadcast::Sender::new(1024),
        }
    }
}

impl EngineHandle {
    pub(crate) const fn new(published: Arc<Published>, commands: mpsc::Sender<Request>) -> Self {
        Self { published, commands }
    }

    /// Every policy, in the order of their names.
    #[must_use]
    pub fn policies(&self) -> Vec<Arc<PolicySnapshot>> {
        let mut policies: Vec<_> = read(&self.published.policies).values().cloned().collect();
        policies.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        policies
    }

    /// One policy.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<Arc<PolicySnapshot>> {
        read(&self.published.policies).get(&PolicyName::from(name)).cloned()
    }

    /// Every task of every policy, in the order of their ids.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskView> {
        read(&self.published.tasks).values().cloned().collect()
    }

    /// Whether the engine does its work.
    #[must_use]
    pub fn health(&self) -> Health {
        read(&self.published.health).clone()
    }

    /// Counters since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        read(&self.published.totals).clone()
    }

    /// Everything that happens from now on. A reader that lags by more than 1,024 events loses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<StreamEvent>> {
        self.published.events.subscribe()
    }

    /// Whether the control loop still takes commands.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// A handle with no engine behind it, and the other end of it: for tests that play the engine.
    #[doc(hidden)]
    #[must_use]
    pub fn detached() -> (Self, DetachedEngine) {
        let published = Arc::new(Published::default());
        let (sender, commands) = mpsc::channel(64);
        (Self::new(Arc::clone(&published), sender), DetachedEngine { published, commands })
    }

    /// Tells the loop something and waits for its answer.
    ///
    /// # Errors
    /// What the command's variants can run into; [`CommandError::Stopping`] once the loop has ended.
    pub async fn command(&self, command: Command) -> CommandResult {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Request { command, reply }).await.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)?
    }
}

/// The loop's end of [`EngineHandle::detached`]: publishes what it is told to and hands out the commands.
#[doc(hidden)]
#[derive(Debug)]
pub struct DetachedEngine {
    published: Arc<Published>,
    commands: mpsc::Receiver<Request>,
}

impl DetachedEngine {
    /// A second publisher beside the one that takes the commands.
    #[must_use]
    pub fn publisher(&self) -> DetachedPublisher {
        DetachedPublisher(Arc::clone(&self.published))
    }

    /// The next command, with the place for its answer; none once every handle is gone.
    pub async fn next_command(&mut self) -> Option<(Command, oneshot::Sender<CommandResult>)> {
        self.commands.recv().await.map(|request| (request.command, request.reply))
    }
}

/// The publishing half of a [`DetachedEngine`].
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct DetachedPublisher(Arc<Published>);

impl DetachedPublisher {
    /// Inserts or replaces a policy.
    pub fn set_policy(&self, snapshot: Arc<PolicySnapshot>) {
        write(&self.0.policies).insert(snapshot.name.clone(), snapshot);
    }

    /// Replaces all tasks.
    pub fn set_tasks(&self, tasks: impl IntoIterator<Item = TaskView>) {
        *write(&self.0.tasks) = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
    }

    /// Replaces the health.
    pub fn set_health(&self, health: Health) {
        *write(&self.0.health) = health;
    }

    /// Replaces the totals.
    pub fn set_totals(&self, totals: Totals) {
        *write(&self.0.totals) = totals;
    }

    /// Sends an event to whoever listens; returns how many do.
    pub fn emit(&self, event: StreamEvent) -> usize {
        self.0.events.send(Arc::new(event)).unwrap_or(0)
    }
}

/// A poisoned lock only means that a reader panicked; the values are whole.
pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// The same for a writer.
pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
