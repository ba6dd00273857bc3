//! A backend in memory: its tasks are names. It can be told to be slow to recover, to fail kills, and to keep launches until it
//! is told to place them; and it counts.

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
    /// Launches that have no place yet; none for a backend that places them at once.
    queue: Option<Mutex<BTreeMap<TaskId, Arc<TaskTemplate>>>>,
    withdrawal: Arc<Semaphore>,
    withdrawn: AtomicUsize,
    withdrawals_take: Mutex<Duration>,
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
        Self::made(None)
    }

    /// One that keeps launches until it is told to place them.
    pub(super) fn queueing() -> Arc<Self> {
        Self::made(Some(Mutex::default()))
    }

    fn made(queue: Option<Mutex<BTreeMap<TaskId, Arc<TaskTemplate>>>>) -> Arc<Self> {
        Arc::new(Self {
            tasks: Mutex::default(),
            queue,
            withdrawal: Arc::new(Semaphore::new(1)),
            withdrawn: AtomicUsize::new(0),
            withdrawals_take: Mutex::default(),
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

    /// `withdraw` does not answer until the permit is dropped.
    pub(super) fn hold_withdrawals(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.withdrawal).try_acquire_owned().unwrap()
    }

    /// `withdraw` takes so long.
    pub(super) fn slow_withdrawals(&self, time: Duration) {
        *self.withdrawals_take.lock().unwrap() = time;
    }

    /// How often it was asked to let go of launches.
    pub(super) fn withdrawn(&self) -> usize {
        self.withdrawn.load(Ordering::SeqCst)
    }

    /// Places what it has kept.
    pub(super) async fn place(&self) {
        let placed = std::mem::take(&mut *self.queue.as_ref().unwrap().lock().unwrap());
        self.tasks.lock().unwrap().extend(placed.clone());
        for id in placed.into_keys() {
            self.report(id, TaskState::Running, None).await;
        }
    }

    /// The next `n` kills or withdrawals fail.
    pub(super) fn refuse(&self, n: usize) {
        self.refusals.store(n, Ordering::SeqCst);
    }

    /// From now on, the lowest number of tasks is noted.
    pub(super) fn watch_lowest(&self) {
        self.lowest.store(self.alive().len(), Ordering::SeqCst);
    }

    pub(super) fn lowest(&self) -> usize {
        self.lowest.load(Ordering::SeqCst)
    }

    fn refused(&self) -> Result<(), BackendError> {
        match self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(BackendError::Unavailable { backend: "fake".to_owned(), message: "as told".to_owned() }),
            Err(_) => Ok(()),
        }
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
        Capabilities { victims: true, task_env: true, stats: false, queues: self.queue.is_some() }
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
        if let Some(queue) = &self.queue {
            self.launched.fetch_add(requests.len(), Ordering::SeqCst);
            queue.lock().unwrap().extend(requests.into_iter().map(|request| (request.id, request.template)));
            return Ok(());
        }
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
        self.refused()?;
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

    async fn withdraw(&self, tasks: Vec<TaskId>) -> Result<(), BackendError> {
        self.withdrawn.fetch_add(1, Ordering::SeqCst);
        let _held = self.withdrawal.acquire().await.unwrap();
        let takes = *self.withdrawals_take.lock().unwrap();
        tokio::time::sleep(takes).await;
        self.refused()?;
        for id in tasks {
            let kept = self.queue.as_ref().unwrap().lock().unwrap().remove(&id);
            if kept.is_some() {
                self.report(id, TaskState::Gone, Some(Exit::Unknown)).await;
            }
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
