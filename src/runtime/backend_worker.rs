//! One worker for each backend: it carries out what the loop asks, in order for each policy and side by side
//! between policies, so that one policy's slow launch delays no other's.
//!
//! A launch waits for its intents to be durable before the backend hears of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::backend::{BackendError, LaunchRequest, TaskBackend};
use crate::core::model::{PolicyName, TaskId};

use super::event::Event;
use super::store::StoreError;

/// How many requests may wait for one backend.
pub(crate) const QUEUE: usize = 4096;

/// How long a backend may take for one request before it counts as not available.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the loop asks of a backend.
#[derive(Debug)]
pub(crate) struct BackendRequest {
    /// On whose behalf; requests of one policy keep their order.
    pub(crate) policy: PolicyName,
    /// What to do.
    pub(crate) work: Work,
    /// Set when a write has to be durable first.
    pub(crate) after: Option<oneshot::Receiver<Result<(), StoreError>>>,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Start tasks.
    Launch(Vec<LaunchRequest>),
    /// End tasks.
    Kill(Vec<TaskId>, Duration),
    /// Let go of launches without a place.
    Withdraw(Vec<TaskId>),
}

/// The tasks of a request, by what is to become of them.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) launches: Vec<TaskId>,
    pub(crate) kills: Vec<TaskId>,
    pub(crate) withdrawals: Vec<TaskId>,
}

impl Work {
    fn tasks(&self) -> Asked {
        let mut asked = Asked::default();
        match self {
            Self::Launch(requests) => asked.launches = requests.iter().map(|request| request.id.clone()).collect(),
            Self::Kill(tasks, _) => asked.kills.clone_from(tasks),
            Self::Withdraw(tasks) => asked.withdrawals.clone_from(tasks),
        }
        asked
    }
}

/// The worker of one backend.
pub(crate) struct BackendWorker {
    pub(crate) name: String,
    pub(crate) backend: Arc<dyn TaskBackend>,
    pub(crate) events: mpsc::Sender<Event>,
}

impl BackendWorker {
    /// Runs until the loop lets go of the queue and everything in it is done.
    pub(crate) async fn run(self, mut queue: mpsc::Receiver<BackendRequest>) {
        let mut busy: HashMap<PolicyName, VecDeque<BackendRequest>> = HashMap::new();
        let mut running: FuturesUnordered<BoxFuture<'static, PolicyName>> = FuturesUnordered::new();
        let mut open = true;
        while open || !running.is_empty() {
            tokio::select! {
                request = queue.recv(), if open => match request {
                    None => open = false,
                    Some(request) => if let Some(lane) = busy.get_mut(&request.policy) { lane.push_back(request) } else {
                        busy.insert(request.policy.clone(), VecDeque::new());
                        running.push(self.start(request));
                    },
                },
                Some(policy) = running.next() => {
                    match busy.get_mut(&policy).and_then(VecDeque::pop_front) {
                        Some(request) => running.push(self.start(request)),
                        None => { busy.remove(&policy); }
                    }
                }
            }
        }
    }

    fn start(&self, request: BackendRequest) -> BoxFuture<'static, PolicyName> {
        let (name, backend, events) = (self.name.clone(), Arc::clone(&self.backend), self.events.clone());
        Box::pin(async move {
            let asked = request.work.tasks();
            let event = match durable(request.after).await {
                Ok(()) => match carry_out(&name, backend.as_ref(), request.work).await {
                    Ok(()) => Event::BackendDone { backend: name },
                    Err(error) => Event::BackendFailed { backend: name, asked, error },
                },
                Err(error) => Event::NotRecorded { launches: asked.launches, kills: asked.kills, error },
            };
            // The loop has ended when nobody takes the event; there is nobody left to tell.
            events.send(event).await.ok();
            request.policy
        })
    }
}

pub(crate) async fn durable(after: Option<oneshot::Receiver<Result<(), StoreError>>>) -> Result<(), String> {
    let Some(after) = after else { return Ok(()) };
    match after.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store has ended".to_owned()),
    }
}

async fn carry_out(name: &str, backend: &dyn TaskBackend, work: Work) -> Result<(), BackendError> {
    let answer = match work {
        Work::Launch(requests) => tokio::time::timeout(PATIENCE, backend.launch(requests)).await,
        Work::Kill(tasks, grace) => tokio::time::timeout(PATIENCE, backend.kill(tasks, grace)).await,
        Work::Withdraw(tasks) => tokio::time::timeout(PATIENCE, backend.withdraw(tasks)).await,
    };
    answer.unwrap_or_else(|_| {
        Err(BackendError::Unavailable { backend: name.to_owned(), message: format!("no answer in {PATIENCE:?}") })
    })
}

/// The queues of all backend workers, by name.
pub(crate) type Queues = BTreeMap<String, mpsc::Sender<BackendRequest>>;
