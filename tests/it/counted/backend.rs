//! A count backend in memory, scripted to do what a real one won't do on demand. Like Swarm it holds its number by
//! itself: what ends is replaced in its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use setpoint::backend::{BackendError, Capabilities, CountBackend, CountStatus, CountWorkload, TaskUpdate};
use setpoint::core::model::{Exit, Placement, PolicyName, TaskId, TaskState, TaskStats};

#[derive(Debug, Default)]
pub(super) struct Fake(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// 0 is no workload.
    pub(super) version: u64,
    pub(super) desired: u32,
    pub(super) busy: Option<String>,
    /// New tasks stay in staging.
    pub(super) slow: bool,
    /// No call is answered with anything but this.
    pub(super) outage: Option<String>,
    /// Numbers are refused for good.
    pub(super) refuses: Option<String>,
    /// The version goes up just before the next so many numbers, and with them the desired number by this much.
    pub(super) meddle: Vec<i64>,
    /// The next number is taken and not confirmed.
    pub(super) swallow: bool,
    /// Numbers that were taken.
    pub(super) scaled: Vec<u32>,
    pub(super) removed: u32,
    pub(super) observed: u32,
    tasks: Vec<Unit>,
    born: u32,
}

#[derive(Clone, Debug)]
struct Unit {
    id: TaskId,
    slot: u32,
    state: TaskState,
    exit: Option<Exit>,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The number that is to run, and how often the workload was removed.
    pub(super) fn numbers(&self) -> (u32, u32) {
        let state = self.state();
        (state.desired, state.removed)
    }

    /// Makes a workload that was there before.
    pub(super) fn exists(&self, desired: u32) {
        let mut state = self.state();
        state.version = 10;
        state.desired = desired;
        state.settle();
    }

    /// Ends the task of a place; another one takes the place.
    pub(super) fn crash(&self, slot: u32, exit: Exit) -> TaskId {
        let mut state = self.state();
        let unit = state.tasks.iter_mut().find(|unit| unit.slot == slot && unit.state < TaskState::Gone).unwrap();
        (unit.state, unit.exit) = (TaskState::Gone, Some(exit));
        let id = unit.id.clone();
        state.settle();
        id
    }
}

impl State {
    /// What the backend does by itself: every place has a task, and no others run.
    fn settle(&mut self) {
        for unit in &mut self.tasks {
            let beyond = self.desired <= unit.slot;
            unit.state = match unit.state {
                TaskState::Killing => TaskState::Gone,
                TaskState::Staging | TaskState::Running if beyond => TaskState::Killing,
                TaskState::Staging if !self.slow => TaskState::Running,
                state => state,
            };
            if unit.state == TaskState::Gone {
                unit.exit.get_or_insert(Exit::Signal { signal: 15 });
            }
        }
        for slot in 0..self.desired {
            if !self.tasks.iter().any(|unit| unit.slot == slot && unit.state < TaskState::Killing) {
                self.born += 1;
                let id = TaskId::new(format!("unit{:03}", self.born));
                self.tasks.push(Unit { id, slot, state: TaskState::Staging, exit: None });
            }
        }
    }

    fn out(&self) -> Result<(), BackendError> {
        match &self.outage {
            Some(message) => Err(BackendError::Unavailable { backend: "herd".into(), message: message.clone() }),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl CountBackend for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities { victims: false, task_env: false, stats: true, queues: false }
    }

    async fn observe(&self, _workload: &CountWorkload) -> Result<CountStatus, BackendError> {
        let mut state = self.state();
        state.observed += 1;
        state.out()?;
        state.settle();
        let task = |unit: &Unit| TaskUpdate {
            id: unit.id.clone(),
            state: unit.state,
            healthy: None,
            placement: Some(Placement {
                host: Some("node".into()),
                ports: BTreeMap::from([("x".to_owned(), 1000)]),
                ..Placement::default()
            }),
            exit: unit.exit.clone(),
            receipt: None,
        };
        Ok(CountStatus {
            version: state.version,
            desired: state.desired,
            busy: state.busy.clone(),
            outdated: false,
            tasks: state.tasks.iter().map(task).collect(),
        })
    }

    async fn scale(&self, _workload: &CountWorkload, version: u64, count: u32) -> Result<(), BackendError> {
        let mut state = self.state();
        state.out()?;
        if let Some(message) = &state.refuses {
            return Err(BackendError::Refused { backend: "herd".into(), message: message.clone() });
        }
        if let Some(by) = state.meddle.pop() {
            state.version += 1;
            state.desired = state.desired.saturating_add_signed(by as i32);
        }
        if version != state.version {
            return Err(BackendError::Moved { backend: "herd".into() });
        }
        state.version += 1;
        state.desired = count;
        state.scaled.push(count);
        if std::mem::take(&mut state.swallow) {
            return Err(BackendError::Unavailable { backend: "herd".into(), message: "cut off".into() });
        }
        Ok(())
    }

    async fn remove(&self, _policy: &PolicyName) -> Result<(), BackendError> {
        let mut state = self.state();
        state.out()?;
        state.removed += 1;
        state.version = 0;
        state.desired = 0;
        state.tasks.clear();
        Ok(())
    }

    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        let stats = TaskStats { memory_bytes: Some(5), ..TaskStats::default() };
        Ok(tasks.into_iter().map(|id| (id, stats)).collect())
    }

    async fn shutdown(&self, _kill_all: bool) {}
}
