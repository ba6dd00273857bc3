//! A backend of one's own: tasks that live in this program and count. `cargo run --example backend` holds four.
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use setpoint::backend::{Backend, BackendError, Capabilities, KnownTask, LaunchRequest, TaskBackend, TaskUpdate};
use setpoint::core::model::{Exit, TaskId, TaskState, TaskStats};
use setpoint::runtime::{Engine, EngineConfig, PolicySource};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

const POLICY: &str = r#"return {
  interval = "200ms",
  workload = { backend = "counters", command = "count", min = 0, max = 10 },
  control = { law = "count", n = 4 },
}"#;

#[derive(Default)]
struct Counters {
    tasks: Mutex<BTreeMap<TaskId, JoinHandle<()>>>,
    updates: OnceLock<Sender<TaskUpdate>>,
    total: Arc<AtomicU64>,
}

impl Counters {
    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn report(&self, id: TaskId, state: TaskState, exit: Option<Exit>) {
        if let Some(updates) = self.updates.get() {
            updates.send(TaskUpdate { id, state, healthy: None, placement: None, exit, receipt: None }).await.ok();
        }
    }
}

#[async_trait]
impl TaskBackend for Counters {
    fn capabilities(&self) -> Capabilities {
        Capabilities { victims: true, task_env: false, stats: false, queues: false }
    }

    async fn recover(&self, known: Vec<KnownTask>, updates: Sender<TaskUpdate>) -> Result<(), BackendError> {
        self.updates.get_or_init(|| updates);
        for task in known {
            // Threads do not outlive their program.
            self.report(task.id, TaskState::Gone, Some(Exit::Unknown)).await;
        }
        Ok(())
    }

    async fn launch(&self, requests: Vec<LaunchRequest>) -> Result<(), BackendError> {
        for request in requests {
            let total = Arc::clone(&self.total);
            self.tasks().entry(request.id.clone()).or_insert_with(|| {
                tokio::spawn(async move {
                    loop {
                        total.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                })
            });
            self.report(request.id, TaskState::Running, None).await;
        }
        Ok(())
    }

    async fn kill(&self, tasks: Vec<TaskId>, _grace: Duration) -> Result<(), BackendError> {
        for id in tasks {
            self.tasks().remove(&id).inspect(JoinHandle::abort);
            self.report(id, TaskState::Gone, Some(Exit::Code { code: 0 })).await;
        }
        Ok(())
    }

    async fn stats(&self, _tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        Ok(BTreeMap::new())
    }

    async fn shutdown(&self, _kill_all: bool) {}
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counters = Arc::new(Counters::default());
    let engine = Engine::start(EngineConfig {
        sources: vec![PolicySource::Text { name: "four".to_owned(), source: POLICY.to_owned() }],
        backends: BTreeMap::from([("counters".to_owned(), Backend::Tasks(Arc::clone(&counters) as _))]),
        run_for: Some(Duration::from_secs(5)),
        ..EngineConfig::default()
    })
    .await?;
    let end = engine.run(tokio::sync::mpsc::channel(1).1).await;
    println!("counted to {}; {}", counters.total.load(Ordering::Relaxed), end.reason);
    Ok(())
}
