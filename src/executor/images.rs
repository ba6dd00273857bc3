//! Tasks with images: a container engine's backend, connected with in the background, so that commands wait for no engine.
//!
//! - **Invariant:** what cannot be launched is said to be gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::backend::{BackendError, LaunchRequest, TaskBackend, TaskUpdate};
use crate::core::model::{TaskId, TaskStats};

use super::watcher::{Watched, Watcher};

/// Between two attempts to reach an engine that nobody asks for anything.
const AGAIN: Duration = Duration::from_secs(10);

/// A handle to the tasks with images.
#[derive(Clone)]
pub(super) struct Images {
    backend: Arc<dyn TaskBackend>,
    orders: mpsc::UnboundedSender<Order>,
}

enum Order {
    Launch(Box<LaunchRequest>),
    Kill(TaskId, Duration),
}

impl Images {
    /// Connects at once: what an executor that was killed has left is removed then, whether images are to be run or not.
    /// Before the first container there is a watcher, if there is to be one.
    pub(super) fn start(
        backend: Arc<dyn TaskBackend>,
        updates: mpsc::Sender<TaskUpdate>,
        watcher: Option<Watcher>,
    ) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        let worker = Worker { backend: Arc::clone(&backend), updates, watcher, watched: None, connected: false };
        tokio::spawn(worker.run(queue));
        Self { backend, orders }
    }

    /// Starts a task; what becomes of it comes as updates.
    pub(super) fn launch(&self, request: LaunchRequest) {
        // The worker ends with the executor only.
        self.orders.send(Order::Launch(Box::new(request))).ok();
    }

    /// Ends a task.
    pub(super) fn kill(&self, id: TaskId, grace: Duration) {
        self.orders.send(Order::Kill(id, grace)).ok();
    }

    /// What tasks use; nothing of those that cannot be looked at now.
    pub(super) async fn stats(&self, ids: Vec<TaskId>) -> BTreeMap<TaskId, TaskStats> {
        if ids.is_empty() {
            return BTreeMap::new();
        }
        self.backend.stats(ids).await.unwrap_or_default()
    }

    /// Ends all of them.
    pub(super) async fn shut_down(&self) {
        self.backend.shutdown(true).await;
    }
}

struct Worker {
    backend: Arc<dyn TaskBackend>,
    updates: mpsc::Sender<TaskUpdate>,
    /// To be started yet.
    watcher: Option<Watcher>,
    watched: Option<Watched>,
    connected: bool,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Order>) {
        if let Err(error) = self.connect().await {
            tracing::warn!(error = %error, "tasks with images cannot be run until the engine answers");
        }
        loop {
            let order = tokio::select! {
                order = queue.recv() => order,
                // What another executor has left is removed when the engine is back, though nobody asks for images.
                () = tokio::time::sleep(AGAIN), if !self.connected => {
                    self.connect().await.ok();
                    continue;
                }
            };
            let Some(order) = order else { return };
            match order {
                Order::Launch(request) => {
                    let id = request.id.clone();
                    if let Err(error) = self.launch(*request).await {
                        // The executor has ended when nobody takes it.
                        self.updates.send(super::not_started(id, &error.to_string())).await.ok();
                    }
                }
                Order::Kill(id, grace) => {
                    if let Err(error) = self.backend.kill(vec![id.clone()], grace).await {
                        // The scheduler repeats it.
                        tracing::warn!(task = %id, error = %error, "cannot end a task");
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), BackendError> {
        if !self.connected {
            self.backend.recover(Vec::new(), self.updates.clone()).await?;
            self.connected = true;
        }
        Ok(())
    }

    async fn launch(&mut self, request: LaunchRequest) -> Result<(), BackendError> {
        self.connect().await?;
        if let Some(watcher) = self.watcher.take() {
            match watcher.start().await {
                Ok(watched) => self.watched = Some(watched),
                Err(error) => {
                    tracing::warn!(%error, "nobody watches: containers would outlive this executor, were it killed");
                }
            }
        }
        self.backend.launch(vec![request]).await
    }
}
