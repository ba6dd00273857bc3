//! The last minutes of each policy, so that a chart is not empty when the page is opened.
//!
//! Memory is bounded by [`MAX_RINGS`] × [`MAX_POINTS`] points of 48 bytes: 6 MB at most, whatever the number of
//! policies. While there are more policies than rings, those that somebody looked at last have them.
//!
//! It is not durable and not what decisions are made from; that history is in the policy's own state.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::core::model::{PolicyName, Sample};
use crate::runtime::handle::EngineHandle;
use crate::runtime::view::{PolicySnapshot, StreamEvent};

use super::dto::Time;

/// How many policies are remembered at once.
const MAX_RINGS: usize = 200;

/// How many ticks of each.
const MAX_POINTS: usize = 600;

/// One tick, as the chart needs it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct ChartPoint {
    /// When the tick began.
    at: Time,
    /// The sample's kind.
    kind: &'static str,
    /// The sample, when it was fresh.
    value: Option<f64>,
    /// The setpoint.
    setpoint: Option<f64>,
    /// Tasks running.
    running: u32,
    /// Tasks wanted and not ready.
    in_flight: u32,
    /// What was carried out: + launched, − killed.
    acted: i64,
}

impl ChartPoint {
    fn of(policy: &PolicySnapshot) -> Option<Self> {
        Some(Self {
            at: Time(policy.last_tick?),
            kind: policy.sample.as_ref().map_or("missing", Sample::kind),
            value: policy.sample.as_ref().and_then(Sample::fresh),
            setpoint: policy.setpoint,
            running: policy.counts.running,
            in_flight: policy.counts.in_flight(),
            acted: policy.acted,
        })
    }
}

#[derive(Debug, Default)]
struct Ring {
    points: VecDeque<ChartPoint>,
    /// Number of the last look at it; 0 is never.
    looked: u64,
}

/// The rings of all policies that have one.
#[derive(Debug, Default)]
struct Rings {
    rings: HashMap<PolicyName, Ring>,
    looks: u64,
}

/// The history and what feeds it.
#[derive(Debug)]
pub(super) struct History {
    rings: Arc<Mutex<Rings>>,
    /// What the recorder will read, until there is a runtime to run it on.
    unread: Mutex<Option<Receiver<Arc<StreamEvent>>>>,
}

impl History {
    /// Begins to record if there is a runtime to do it on, else with the first request.
    pub(super) fn start(handle: &EngineHandle) -> Arc<Self> {
        let history = Self { rings: Arc::default(), unread: Mutex::new(Some(handle.subscribe())) };
        history.record();
        Arc::new(history)
    }

    /// What is remembered of a policy, oldest first; at least its last tick.
    pub(super) fn points(&self, policy: &PolicySnapshot) -> Vec<ChartPoint> {
        self.record();
        let mut rings = lock(&self.rings);
        let ring = rings.look_at(&policy.name);
        if ring.points.is_empty() {
            ring.push(ChartPoint::of(policy));
        }
        ring.points.iter().copied().collect()
    }

    fn record(&self) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if unread.is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && let Some(events) = unread.take()
        {
            runtime.spawn(record(events, Arc::downgrade(&self.rings)));
        }
    }
}

/// Feeds the rings until the engine or the router is gone.
async fn record(mut events: Receiver<Arc<StreamEvent>>, rings: Weak<Mutex<Rings>>) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            // A gap in a chart; nothing else depends on it.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Some(rings) = rings.upgrade() else { return };
        if let StreamEvent::Tick(policy) = &*event {
            lock(&rings).push(policy);
        }
    }
}

impl Rings {
    fn push(&mut self, policy: &PolicySnapshot) {
        if self.rings.len() < MAX_RINGS && !self.rings.contains_key(&policy.name) {
            self.rings.insert(policy.name.clone(), Ring::default());
        }
        if let Some(ring) = self.rings.get_mut(&policy.name) {
            ring.push(ChartPoint::of(policy));
        }
    }

    /// The policy's ring, at the cost of the one that was not looked at for the longest time.
    fn look_at(&mut self, policy: &PolicyName) -> &mut Ring {
        if self.rings.len() >= MAX_RINGS
            && !self.rings.contains_key(policy)
            && let Some(oldest) = self.rings.iter().min_by_key(|(_, ring)| ring.looked).map(|(name, _)| name.clone())
        {
            self.rings.remove(&oldest);
        }
        self.looks += 1;
        let ring = self.rings.entry(policy.clone()).or_default();
        ring.looked = self.looks;
        ring
    }
}

impl Ring {
    fn push(&mut self, point: Option<ChartPoint>) {
        let Some(point) = point else { return };
        if self.points.back().is_some_and(|last| last.at == point.at) {
            return;
        }
        if self.points.len() == MAX_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn point(second: u64) -> ChartPoint {
        let at = Time(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        ChartPoint { at, kind: "value", value: Some(0.0), setpoint: None, running: 0, in_flight: 0, acted: 0 }
    }

    #[test]
    fn a_ring_keeps_the_newest_ticks_once_each() {
        let mut ring = Ring::default();
        for second in 0..2000 {
            ring.push(Some(point(second)));
            ring.push(Some(point(second)));
        }
        assert_eq!(ring.points.len(), MAX_POINTS);
        assert_eq!(ring.points.back().copied(), Some(point(1999)));
        assert_eq!(ring.points.front().copied(), Some(point(2000 - MAX_POINTS as u64)));
    }

    #[test]
    fn rings_go_to_what_was_looked_at_last() {
        let mut rings = Rings::default();
        for number in 0..5000 {
            rings.look_at(&PolicyName::new(format!("p{number}")));
        }
        assert_eq!(rings.rings.len(), MAX_RINGS);
        assert!(rings.rings.contains_key(&PolicyName::from("p4999")));
        assert!(!rings.rings.contains_key(&PolicyName::from("p0")));
    }
}
