//! A backend in memory: its tasks are names. It can be told to be slow to recover and to fail kills, and it counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use setpoint::backend::{BackendError, Capabilities, KnownTask, LaunchRequest, TaskBackend, TaskUpdate};
use setpoint::core::model::{Exit, TaskId, TaskState, TaskStats};
use setpoint::core::policy::TaskTemplate;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc::Sender};

#[derive(Debug)]
pub(super) struct Fake {
    tasks: Mutex<BTreeMap<TaskId, Arc<TaskTemplate>>>,
    updates: Mutex<Option<Sender<TaskUpdate>>>,
    recovery: Arc<Semaphore>,
    recovered: AtomicBool,
    launched: AtomicUsize,
    early: AtomicUsize,
    refusals: AtomicUsize,
    lowest: AtomicUsize,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            tasks: Mutex::default(),
            updates: Mutex::default(),
            recovery: Arc::new(Semaphore::new(1)),
            recovered: AtomicBool::new(false),
            launched: AtomicUsize::new(0),
            early: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            lowest: AtomicUsize::new(usize::MAX),
        })
    }

    pub(super) fn alive(&self) -> BTreeMap<TaskId, Arc<TaskTemplate>> {
        self.tasks.lock().unwrap().clone()
    }

    pub(super) fn launched(&self) -> usize {
        self.launched.load(Ordering::SeqCst)
    }

    /// Requests that came before the answer to `recover`.
    pub(super) fn early(&self) -> usize {
        self.early.load(Ordering::SeqCst)
    }

    /// `recover` does not answer until the permit is dropped.
    pub(super) fn hold_recovery(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.recovery).try_acquire_owned().unwrap()
    }

    /// The next `n` kills fail.
    pub(super) fn refuse_kills(&self, n: usize) {
        self.refusals.store(n, Ordering::SeqCst);
    }

    /// From now on, the lowest number of tasks is noted.
    pub(super) fn watch_lowest(&self) {
        self.lowest.store(self.alive().len(), Ordering::SeqCst);
    }

    pub(super) fn lowest(&self) -> usize {
        self.lowest.load(Ordering::SeqCst)
    }

    fn note_request(&self) {
        if !self.recovered.load(Ordering::SeqCst) {
            self.early.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn report(&self, id: TaskId, state: TaskState, exit: Option<Exit>) {
        let updates = self.updates.lock().unwrap().clone();
        if let Some(updates) = updates {
            updates.send(TaskUpdate { id, state, healthy: None, placement: None, exit, receipt: None }).await.ok();
        }
    }
}

#[async_trait]
impl TaskBackend for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities { victims: true, task_env: true, stats: false, queues: false }
    }

    async fn recover(&self, known: Vec<KnownTask>, updates: Sender<TaskUpdate>) -> Result<(), BackendError> {
        *self.updates.lock().unwrap() = Some(updates);
        let _held = self.recovery.acquire().await.unwrap();
        for task in known {
            if self.alive().contains_key(&task.id) {
                self.report(task.id, TaskState::Running, None).await;
            } else {
                self.report(task.id, TaskState::Gone, Some(Exit::Unknown)).await;
            }
        }
        self.recovered.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn launch(&self, requests: Vec<LaunchRequest>) -> Result<(), BackendError> {
        self.note_request();
        for request in requests {
            if self.tasks.lock().unwrap().insert(request.id.clone(), request.template).is_none() {
                self.launched.fetch_add(1, Ordering::SeqCst);
            }
            self.report(request.id, TaskState::Running, None).await;
        }
        Ok(())
    }

    async fn kill(&self, tasks: Vec<TaskId>, _grace: Duration) -> Result<(), BackendError> {
        self.note_request();
        let refused = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if refused {
            return Err(BackendError::Unavailable { backend: "fake".to_owned(), message: "as told".to_owned() });
        }
        for id in tasks {
            let left = {
                let mut tasks = self.tasks.lock().unwrap();
                tasks.remove(&id);
                tasks.len()
            };
            self.lowest.fetch_min(left, Ordering::SeqCst);
            self.report(id, TaskState::Gone, Some(Exit::Code { code: 0 })).await;
        }
        Ok(())
    }

    async fn stats(&self, _tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        Ok(BTreeMap::new())
    }

    async fn shutdown(&self, kill_all: bool) {
        if kill_all {
            self.tasks.lock().unwrap().clear();
        }
        self.recovered.store(false, Ordering::SeqCst);
    }
}
