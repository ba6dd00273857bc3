//! Figures through the engine's API, for containers whose control groups cannot be read here.
//!
//! An engine may take a second or two for an answer. So readings go on in the background, one at a time for each
//! container, and a call takes what has come by then.
//!
//! Invariant: a figure that is given is not older than [`FRESH`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::sampler::ContainerSource;
use super::{CpuMeter, EngineAnswer};
use crate::core::model::TaskStats;

/// How long a figure counts.
const FRESH: Duration = Duration::from_secs(5);

/// How many answers are waited for at once: an old engine gives all of them at its next tick.
const AT_ONCE: usize = 256;

/// A container that nobody asked for in so long is forgotten.
const KEPT: Duration = Duration::from_secs(3600);

/// The containers that are read through the engine.
pub(super) struct Remote {
    source: Arc<dyn ContainerSource>,
    containers: Arc<Mutex<HashMap<String, Known>>>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Known {
    meter: CpuMeter,
    last: Option<(Instant, TaskStats)>,
    asked: Instant,
    /// Closed when the reading that is under way is over.
    reading: Option<watch::Receiver<()>>,
}

impl Remote {
    pub(super) fn new(source: Arc<dyn ContainerSource>) -> Self {
        Self { source, containers: Arc::default(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins a reading of each of `containers`, unless one is under way, and gives what there is at `until` at the
    /// latest.
    pub(super) async fn sample(&self, containers: &[String], until: Instant) -> BTreeMap<String, TaskStats> {
        if containers.is_empty() {
            return BTreeMap::new();
        }
        let readings: Vec<_> = containers.iter().map(|id| self.begin(id)).collect();
        for mut reading in readings {
            // Nothing is ever sent: the end of the reading is the end of the channel.
            if tokio::time::timeout_at(until, reading.changed()).await.is_err() {
                break;
            }
        }
        let now = Instant::now();
        let mut known = lock(&self.containers);
        known.retain(|_, known| now.saturating_duration_since(known.asked) < KEPT);
        let fresh = |id: &String| {
            let (at, stats) = known.get(id)?.last?;
            (now.saturating_duration_since(at) <= FRESH).then(|| (id.clone(), stats))
        };
        containers.iter().filter_map(fresh).collect()
    }

    fn begin(&self, id: &str) -> watch::Receiver<()> {
        let now = Instant::now();
        let mut containers = lock(&self.containers);
        let known = containers.entry(id.to_owned()).or_insert_with(|| Known {
            meter: CpuMeter::default(),
            last: None,
            asked: now,
            reading: None,
        });
        known.asked = now;
        if let Some(reading) = &known.reading {
            return reading.clone();
        }
        let (end, reading) = watch::channel(());
        known.reading = Some(reading.clone());
        let (source, containers, room) =
            (Arc::clone(&self.source), Arc::clone(&self.containers), Arc::clone(&self.room));
        let id = id.to_owned();
        // It ends with the source's own deadline.
        tokio::spawn(async move {
            let answer = match room.acquire().await {
                Ok(_permit) => source.counters(&id).await,
                Err(error) => Err(error.to_string()),
            };
            if let Some(known) = lock(&containers).get_mut(&id) {
                known.reading = None;
                known.take(&id, answer);
            }
            drop(end);
        });
        reading
    }
}

impl Known {
    fn take(&mut self, id: &str, answer: Result<Option<EngineAnswer>, String>) {
        let reading = match &answer {
            Ok(answer) => answer.as_ref().and_then(EngineAnswer::reading),
            Err(error) => {
                tracing::debug!(container = %id, %error, "no figures of a container");
                return;
            }
        };
        let Some(reading) = reading else {
            (self.last, self.meter) = (None, CpuMeter::default());
            return;
        };
        if reading.cpu.is_some_and(|cpu| self.meter.is_reset_by(cpu.used)) {
            self.meter = CpuMeter::default();
        }
        // An answer that has the engine's own reading before gives a figure the first time.
        let before = answer.ok().flatten().and_then(|answer| answer.before());
        if let Some(before) = before.filter(|_| self.meter.is_new()) {
            self.meter.read(before.used, before.machine, before.cores);
        }
        self.last = Some((Instant::now(), reading.figures(&mut self.meter)));
    }
}

fn lock(containers: &Mutex<HashMap<String, Known>>) -> MutexGuard<'_, HashMap<String, Known>> {
    containers.lock().unwrap_or_else(PoisonError::into_inner)
}
