//! What it takes to sample a set of containers of one engine again and again.
//!
//! Containers whose control groups can be read here cost one look at them when they are new (the engine is asked
//! where they run) and no call of the engine after that. A file that cannot be read any more means that the
//! container has ended or started anew, so the engine is asked again. All others are read through the engine.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::remote::Remote;
use super::{ContainerFiles, CpuMeter, EngineAnswer, Machine};
use crate::core::model::TaskStats;

/// How many containers are looked up at once.
const AT_ONCE: usize = 16;

/// A container that was not asked for in so many calls is forgotten.
const CALLS_KEPT: u64 = 16;

/// Where a running container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its id in full.
    pub id: String,
    /// Its first process, on the engine's machine.
    pub pid: u32,
    /// Whether its network is its own and not the machine's, nor none.
    pub own_network: bool,
}

/// An engine, as a sampler needs it. Containers are named by id or name. Every call ends by itself.
#[async_trait]
pub trait ContainerSource: Send + Sync + 'static {
    /// Where a container runs; none when it does not.
    ///
    /// # Errors
    /// The engine did not answer; in words.
    async fn locate(&self, container: &str) -> Result<Option<Located>, String>;

    /// Its counters now; none when there is no such container.
    ///
    /// # Errors
    /// The engine did not answer; in words.
    async fn counters(&self, container: &str) -> Result<Option<EngineAnswer>, String>;
}

/// Samples containers of one engine. Shares of CPU are those between two calls of [`Sampler::sample`].
pub struct Sampler {
    source: Arc<dyn ContainerSource>,
    local: Arc<Mutex<Local>>,
    remote: Remote,
}

/// What is known of containers.
#[derive(Debug)]
struct Local {
    machine: Machine,
    containers: HashMap<String, Known>,
    buffer: Vec<u8>,
    calls: u64,
}

#[derive(Debug)]
struct Known {
    way: Way,
    /// The call that asked for it last.
    asked: u64,
}

/// How a container is read.
#[derive(Debug)]
enum Way {
    Files(Box<ContainerFiles>, CpuMeter),
    Engine,
}

impl Sampler {
    /// A sampler of the containers of an engine.
    #[must_use]
    pub fn new(source: Arc<dyn ContainerSource>) -> Self {
        let local = Local { machine: Machine::new(), containers: HashMap::new(), buffer: Vec::new(), calls: 0 };
        Self { remote: Remote::new(Arc::clone(&source)), source, local: Arc::new(Mutex::new(local)) }
    }

    /// Figures of those of `containers` that run. What the engine has to be asked for is waited for until `patience`
    /// is over; what comes later counts for the next call.
    pub async fn sample(&self, containers: &[String], patience: Duration) -> BTreeMap<String, TaskStats> {
        let until = Instant::now() + patience;
        let mut local = Arc::clone(&self.local).lock_owned().await;
        local.begin(containers);
        self.look_up(&mut local, containers, until).await;
        let (mut local, mut figures, lost) = read(local, containers.to_vec()).await;
        if !lost.is_empty() {
            // They ended, or started anew: then there is a first reading of the new run.
            self.look_up(&mut local, &lost, until).await;
            let (again, more, _) = read(local, lost).await;
            local = again;
            figures.extend(more);
        }
        let through_engine: Vec<String> = containers.iter().filter(|id| local.is_engines(id)).cloned().collect();
        drop(local);
        figures.extend(self.remote.sample(&through_engine, until).await);
        figures
    }

    /// Finds out how those that are not known can be read.
    async fn look_up(&self, local: &mut Local, containers: &[String], until: Instant) {
        let unknown: Vec<String> =
            containers.iter().filter(|id| !local.containers.contains_key(*id)).cloned().collect();
        let ask = |id: String| async move {
            let answer = tokio::time::timeout_at(until, self.source.locate(&id)).await;
            (id, answer)
        };
        let answers: Vec<_> =
            futures_util::stream::iter(unknown.into_iter().map(ask)).buffer_unordered(AT_ONCE).collect().await;
        for (container, answer) in answers {
            let located = match answer {
                Ok(Ok(Some(located))) => located,
                Ok(Ok(None)) | Err(_) => continue,
                Ok(Err(error)) => {
                    tracing::debug!(%container, %error, "a container could not be looked up");
                    continue;
                }
            };
            let found = ContainerFiles::find(&located.id, located.pid, located.own_network);
            let way = match found {
                Ok(files) => Way::Files(Box::new(files), CpuMeter::default()),
                Err(error) => {
                    tracing::debug!(%container, %error, "no control group to read; the engine is asked for figures");
                    Way::Engine
                }
            };
            let asked = local.calls;
            local.containers.insert(container, Known { way, asked });
        }
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

/// Reads the files of `containers` off the runtime's threads: figures, and those whose files are gone.
async fn read(
    local: OwnedMutexGuard<Local>,
    containers: Vec<String>,
) -> (OwnedMutexGuard<Local>, BTreeMap<String, TaskStats>, Vec<String>) {
    let work = move || {
        let mut local = local;
        let (figures, lost) = local.read(&containers);
        (local, figures, lost)
    };
    tokio::task::spawn_blocking(work).await.expect("invariant: reading files does not panic")
}

impl Local {
    /// Notes what is asked for, and forgets what was not for long.
    fn begin(&mut self, containers: &[String]) {
        self.calls += 1;
        for id in containers {
            if let Some(known) = self.containers.get_mut(id) {
                known.asked = self.calls;
            }
        }
        let calls = self.calls;
        self.containers.retain(|_, known| calls - known.asked < CALLS_KEPT);
    }

    fn is_engines(&self, id: &str) -> bool {
        matches!(self.containers.get(id), Some(Known { way: Way::Engine, .. }))
    }

    fn read(&mut self, containers: &[String]) -> (BTreeMap<String, TaskStats>, Vec<String>) {
        let (mut figures, mut lost) = (BTreeMap::new(), Vec::new());
        if !containers.iter().any(|id| matches!(self.containers.get(id), Some(Known { way: Way::Files(..), .. }))) {
            return (figures, lost);
        }
        let machine = match self.machine.cpu(&mut self.buffer) {
            Ok(machine) => machine,
            Err(error) => {
                tracing::debug!(%error, "/proc/stat could not be read");
                return (figures, lost);
            }
        };
        for id in containers {
            let Some(Known { way: Way::Files(files, meter), .. }) = self.containers.get_mut(id) else { continue };
            match files.read(machine, &self.machine, &mut self.buffer) {
                // A group under the same path, made for the container's next run.
                Ok(reading) if reading.cpu.is_some_and(|cpu| meter.is_reset_by(cpu.used)) => lost.push(id.clone()),
                Ok(reading) => drop(figures.insert(id.clone(), reading.figures(meter))),
                Err(error) => {
                    tracing::debug!(container = %id, %error, "a control group cannot be read any more");
                    lost.push(id.clone());
                }
            }
        }
        for id in &lost {
            self.containers.remove(id);
        }
        (figures, lost)
    }
}
