//! One policy as the control loop holds it, and the phases of its tick.
//!
//! ```text
//!            due                     decision ≠ 0              kills to choose
//!   Idle ──────────► Observing ──────────────────► Acting ──────────────────► Choosing
//!    ▲ ▲                 │ nothing to do             │ carried out                │
//!    │ └─────────────────┴───────────────────────────┴──────────► Stopping? ──────┘
//!    │ state taken over                                               │ no exit code
//!    └────────── Migrating ◄── a new generation waits ◄───────────────┘
//! ```
//!
//! A policy that is over (`ended`) or has no file (`spec` is none) stays `Idle` and is not ticked.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::core::decide::{Config, settle, shape_key};
use crate::core::decision::{Bounds, Decision, InFlight, Observation, PolicyState};
use crate::core::intent::By;
use crate::core::ledger::{Ledger, Rules};
use crate::core::model::{Counts, PolicyName, Sample, TaskId, TaskState, TaskStats};
use crate::core::plan::{Plan, Situation};
use crate::core::policy::PolicySpec;
use crate::core::time::Timestamp;
use crate::log::{Identity, Keyframe};
use crate::script::{Ctx, Hook, LoadedPolicy, Param, PolicyScript, ScriptError, TaskView};

use super::clock::JumpDetector;
use super::counted::Counted;
use super::record::{Ended, Override, Pause, PolicyRecord};
use super::shadow::Shadow;
use super::trail::Trail;
use super::view::{PolicySnapshot, ScriptView};

/// Where a policy is in its tick.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Between ticks.
    Idle,
    /// `observe` is running.
    Observing,
    /// A warmer or cooler is running for this decision.
    Acting(Decision),
    /// `victims` is running for this plan.
    Choosing(Decision, Plan),
    /// `stop` is running.
    Stopping,
    /// A new generation is taking over the state.
    Migrating(Box<Generation>),
}

/// A generation of a policy's script.
#[derive(Clone)]
pub(crate) struct Generation {
    pub(crate) policy: LoadedPolicy,
    pub(crate) path: PathBuf,
    pub(crate) base: Option<PathBuf>,
    pub(crate) sha256: Arc<str>,
    pub(crate) params: Arc<Vec<Param>>,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("path", &self.path).field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// A task that `drain` is being asked about before it is killed.
#[derive(Debug)]
pub(crate) struct Drain {
    /// When it is killed whatever `drain` says.
    pub(crate) until: Instant,
    /// A call is running.
    pub(crate) calling: bool,
}

/// A policy that broke a limit is left alone for a while.
#[derive(Debug)]
pub(crate) struct Penalty {
    pub(crate) delay: Duration,
    pub(crate) until: Instant,
    pub(crate) error: Arc<ScriptError>,
}

/// What is known of a workload that others run (`backend = "none"`).
#[derive(Debug, Default)]
pub(crate) struct External {
    /// The last count.
    pub(crate) count: u32,
    /// Changes that were accepted and do not show in the count yet: when, and how many are left (signed).
    pub(crate) accepted: VecDeque<(Timestamp, i64)>,
}

impl External {
    /// Takes in a new count: what it moved by settles the oldest accepted changes in that direction.
    pub(crate) fn observe(&mut self, count: u32) {
        let mut moved = i64::from(count) - i64::from(self.count);
        self.count = count;
        for (_, left) in &mut self.accepted {
            if moved.signum() == left.signum() {
                let shown = if 0 < moved { moved.min(*left) } else { moved.max(*left) };
                *left -= shown;
                moved -= shown;
            }
        }
        self.accepted.retain(|(_, left)| *left != 0);
    }

    /// Forgets changes that had their time to show.
    pub(crate) fn expire(&mut self, now: Timestamp, lag: Duration) {
        self.accepted.retain(|(at, _)| now.since(*at) < lag);
    }

    /// What is in flight.
    pub(crate) fn in_flight(&self) -> InFlight {
        let sum = |sign: i64| {
            let total: i64 = self.accepted.iter().map(|(_, left)| left * sign).filter(|n| 0 < *n).sum();
            u32::try_from(total).unwrap_or(u32::MAX)
        };
        InFlight { launches: sum(1), kills: sum(-1) }
    }

    /// The counts that guards work on: what runs, less what is on its way out, plus what is on its way in.
    pub(crate) fn counts(&self) -> Counts {
        let in_flight = self.in_flight();
        let killing = in_flight.kills.min(self.count);
        let running = self.count - killing;
        Counts { staging: in_flight.launches, running, ready: running, killing, ..Counts::default() }
    }
}

/// A tick that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaiting {
    /// When it was due.
    pub(crate) due: Instant,
    /// Since when it waits.
    pub(crate) since: Instant,
}

/// One policy.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) name: PolicyName,
    /// Index of its source; none once retired for good.
    pub(crate) source: Option<usize>,
    pub(crate) generation: u64,
    /// What runs; none for a retired policy.
    pub(crate) active: Option<Generation>,
    /// What will run after the present tick.
    pub(crate) next: Option<Box<Generation>>,
    pub(crate) rules: Rules,
    pub(crate) state: PolicyState,
    pub(crate) ledger: Ledger,
    pub(crate) external: External,
    /// What is known of it on count backends, by backend: its own, and one that it is leaving.
    pub(crate) counted: BTreeMap<Arc<str>, Counted>,
    pub(crate) phase: Phase,
    /// Serial number of the last call; answers to others are void.
    pub(crate) serial: u64,
    /// Epoch of the schedule.
    pub(crate) epoch: u64,
    pub(crate) interval: Duration,
    pub(crate) due: Instant,
    /// A tick that came due while the policy could not begin one and that is not to wait for the next.
    pub(crate) deferred: Option<Instant>,
    /// A tick that waits for its backend's word on launches that lapse with it.
    pub(crate) awaiting: Option<Awaiting>,
    pub(crate) ticks: u64,
    pub(crate) last_tick: Option<(SystemTime, Instant)>,
    pub(crate) jumps: JumpDetector,
    pub(crate) sample: Option<Sample>,
    pub(crate) setpoint: Option<f64>,
    pub(crate) decision: Option<Arc<Decision>>,
    /// Tasks asked for at the last tick that were not placed.
    pub(crate) refused: u32,
    pub(crate) acted: i64,
    pub(crate) paused: Option<Pause>,
    pub(crate) bounds: Option<Override>,
    pub(crate) ended: Option<Ended>,
    pub(crate) penalty: Option<Penalty>,
    pub(crate) drains: BTreeMap<TaskId, Drain>,
    /// When the next look at replacements and drains is due, if one is.
    pub(crate) wake: Option<Instant>,
    /// Errors that stand: of each function the last one, until it does its work again. The newest is at the end.
    pub(crate) errors: Vec<Arc<ScriptError>>,
    pub(crate) refusal: Option<Arc<ScriptError>>,
    pub(crate) stats: BTreeMap<TaskId, TaskStats>,
    views: Option<Arc<Vec<TaskView>>>,
    pub(crate) stalled: bool,
    /// Something changed that is to be in the store within a second.
    pub(crate) dirty: bool,
    /// Only the history and the number of ticks changed since the record was last written.
    pub(crate) aged: bool,
    /// `ctx.state` as it was last taken from the script (kept for retired policies and for records).
    pub(crate) script_state: Option<String>,
    /// The law, effect and kind that the state belongs to.
    pub(crate) shape: String,
    /// What the decision log is told of it.
    pub(crate) trail: Trail,
    /// The policy that is evaluated beside it.
    pub(crate) shadow: Option<Box<Shadow>>,
}

impl Policy {
    /// A policy as the store has it, or a new one, without a script yet.
    pub(crate) fn new(name: PolicyName, record: PolicyRecord, ledger: Ledger, jumps: JumpDetector) -> Self {
        Self {
            name,
            source: None,
            generation: record.generation,
            active: None,
            next: None,
            rules: Rules {
                kind: crate::core::model::Kind::Service,
                ready: crate::core::policy::Ready::Running,
                backoff: crate::core::policy::Backoff::default(),
                lag: Duration::ZERO,
                warmer_jobs: false,
                cooler_jobs: false,
            },
            state: record.state,
            ledger,
            external: External::default(),
            counted: BTreeMap::new(),
            phase: Phase::Idle,
            serial: 0,
            epoch: 0,
            interval: Duration::from_secs(1),
            due: Instant::now(),
            deferred: None,
            awaiting: None,
            ticks: record.ticks,
            last_tick: None,
            jumps,
            sample: None,
            setpoint: None,
            decision: None,
            refused: 0,
            acted: 0,
            paused: record.paused,
            bounds: record.bounds,
            ended: record.ended,
            penalty: None,
            drains: BTreeMap::new(),
            wake: None,
            errors: Vec::new(),
            refusal: None,
            stats: BTreeMap::new(),
            views: None,
            stalled: false,
            dirty: true,
            aged: false,
            script_state: record.script_state,
            shape: record.shape,
            trail: Trail::default(),
            shadow: record.shadow.map(|record| Box::new(Shadow::restored(record))),
        }
    }

    /// The checked table of what runs.
    pub(crate) fn spec(&self) -> Option<&Arc<PolicySpec>> {
        self.active.as_ref().map(|active| &active.policy.spec)
    }

    /// The functions of what runs.
    pub(crate) fn script(&self) -> Option<Arc<dyn PolicyScript>> {
        self.active.as_ref().map(|active| Arc::clone(&active.policy.script))
    }

    /// These functions did their work, but for what `errors` says: older errors of theirs stand no longer.
    pub(crate) fn settle_errors(&mut self, hooks: &[Hook], errors: &[ScriptError]) {
        self.errors.retain(|before| !hooks.contains(&before.hook) || errors.contains(before));
    }

    /// What the loop does when a function fails: it keeps to the number of tasks, or raises it to the lower bound.
    pub(crate) fn held(&self) -> String {
        match self.counts().desired().max(self.bounds_in_force().min) {
            1 => "held at 1 task".to_owned(),
            n => format!("held at {n} tasks"),
        }
    }

    /// Whether its tasks are run by others.
    pub(crate) fn is_external(&self) -> bool {
        self.spec().is_some_and(|spec| spec.workload.backend == "none")
    }

    /// Makes a generation the one that runs. History, timers and tasks carry over; a changed law, effect or kind
    /// starts the law's memory anew.
    pub(crate) fn adopt(&mut self, generation: Generation, now: Instant) {
        let spec = &generation.policy.spec;
        let shape = shape_key(spec);
        if !self.shape.is_empty() && self.shape != shape {
            self.state.reset_law();
        }
        self.shape = shape;
        self.trail.restart();
        self.rules = Rules::from(&**spec);
        if self.active.is_none() || self.interval < spec.interval.min || spec.interval.max < self.interval {
            self.interval = spec.interval.min;
        }
        self.active = Some(generation);
        self.generation += 1;
        self.penalty = None;
        self.errors.clear();
        self.refusal = None;
        self.last_tick = self.last_tick.map(|(wall, _)| (wall, now));
        self.dirty = true;
    }

    /// Whether a generation is on its way to take over.
    pub(crate) fn is_loading(&self) -> bool {
        self.next.is_some() || matches!(self.phase, Phase::Migrating(_))
    }

    /// Ends what is going on: answers to calls are void, and so is the schedule. A generation that was taking over
    /// waits again.
    pub(crate) fn halt(&mut self) {
        if let Phase::Migrating(next) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.next.get_or_insert(next);
        }
        self.serial += 1;
        self.epoch += 1;
        self.deferred = None;
        self.awaiting = None;
    }

    /// A new serial number for a call.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// min and max in force.
    pub(crate) fn bounds_in_force(&self) -> Bounds {
        self.narrowed(self.spec().map_or(Bounds { min: 0, max: 0 }, |spec| own_bounds(spec)))
    }

    /// A policy's own bounds, with the operator's in their place where there are any.
    pub(crate) fn narrowed(&self, Bounds { min, max }: Bounds) -> Bounds {
        let over = self.bounds.as_ref();
        let max = over.and_then(|over| over.max).unwrap_or(max);
        let min = over.and_then(|over| over.min).unwrap_or(min);
        match over {
            // An override of one bound pulls the other one along.
            Some(Override { min: Some(_), max: None, .. }) => Bounds { min, max: max.max(min) },
            Some(_) => Bounds { min: min.min(max), max },
            None => Bounds { min, max },
        }
    }

    /// The counts that guards and laws work on.
    pub(crate) fn counts(&self) -> Counts {
        if self.is_external() {
            return self.external.counts();
        }
        let mut counts = self.ledger.counts();
        if let Some(counted) = self.own_count() {
            counted.adjust(&mut counts);
        }
        counts
    }

    /// What a sample of this moment does not show yet.
    pub(crate) fn in_flight(&self, now: Timestamp) -> InFlight {
        self.in_flight_by(|ledger, rules| ledger.in_flight(now, rules))
    }

    /// What the tick's own sample does not show yet.
    pub(crate) fn in_flight_of_sample(&self, now: Timestamp) -> InFlight {
        self.in_flight_by(|ledger, rules| ledger.in_flight_of_sample(now, rules))
    }

    fn in_flight_by(&self, of: impl FnOnce(&Ledger, &Rules) -> InFlight) -> InFlight {
        if self.is_external() {
            return self.external.in_flight();
        }
        let mut in_flight = of(&self.ledger, &self.rules);
        if let Some(counted) = self.own_count() {
            counted.adjust_in_flight(self.ledger.counts(), &mut in_flight);
        }
        in_flight
    }

    /// Marks what is shown of its tasks, and what is stored of them, as old.
    pub(crate) fn tasks_changed(&mut self) {
        self.views = None;
        self.dirty = true;
    }

    /// Takes in CPU and memory of a task, which are shown and not stored.
    pub(crate) fn take_stats(&mut self, id: TaskId, stats: TaskStats) {
        self.stats.insert(id, stats);
        self.views = None;
    }

    /// Its tasks as scripts and the API see them, oldest first.
    pub(crate) fn views(&mut self) -> Arc<Vec<TaskView>> {
        if let Some(views) = &self.views {
            return Arc::clone(views);
        }
        let mut views: Vec<TaskView> = self.ledger.tasks().map(|task| self.view(task)).collect();
        views.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
        let views = Arc::new(views);
        self.views = Some(Arc::clone(&views));
        views
    }

    /// One task as scripts and the API see it.
    pub(crate) fn view(&self, task: &crate::core::ledger::Task) -> TaskView {
        TaskView {
            id: task.id.clone(),
            policy: self.name.clone(),
            backend: Arc::clone(&task.backend),
            state: task.state,
            ready: task.state == TaskState::Running && task.ready.is_some(),
            helper: task.by == By::Helper,
            placement: task.placement.clone(),
            started: task.started,
            stats: self.stats.get(&task.id).copied().unwrap_or_default(),
            by: by_word(task.by),
            slot: task.slot,
        }
    }

    /// What the script may see now.
    pub(crate) fn ctx(&mut self, wall: SystemTime) -> Arc<Ctx> {
        let counts = self.counts();
        let running = if self.is_external() { self.external.count } else { counts.running };
        Arc::new(Ctx {
            policy: self.name.clone(),
            now: wall,
            tick: self.ticks,
            sample: self.sample.clone(),
            setpoint: self.setpoint,
            history: Arc::clone(&self.state.history),
            tasks: self.views(),
            running,
            in_flight: counts.in_flight(),
            desired: counts.desired(),
            bounds: self.bounds_in_force(),
        })
    }

    /// What the world may see now.
    pub(crate) fn snapshot(&self, now: Instant, wall: SystemTime) -> PolicySnapshot {
        let active = self.active.as_ref();
        let mut counts = self.counts();
        if self.is_external() {
            counts.running = self.external.count;
            counts.ready = self.external.count;
        }
        PolicySnapshot {
            name: self.name.clone(),
            generation: self.generation,
            script: ScriptView {
                path: active.map(|active| active.path.clone()).unwrap_or_default(),
                sha256: active.map(|active| Arc::clone(&active.sha256)).unwrap_or_default(),
                error: self.errors.last().cloned(),
                refused: self.refusal.clone(),
            },
            spec: self.spec().cloned(),
            params: active.map(|active| Arc::clone(&active.params)).unwrap_or_default(),
            ticks: self.ticks,
            last_tick: self.last_tick.map(|(wall, _)| wall),
            next_tick: (self.active.is_some() && self.ended.is_none())
                .then(|| wall + self.due.saturating_duration_since(now)),
            sample: self.sample.clone(),
            setpoint: self.setpoint,
            counts,
            bounds: self.bounds_in_force(),
            decision: self.decision.clone(),
            acted: self.acted,
            paused: self.paused.clone(),
            bounds_override: self.bounds.clone(),
            ended: self.ended.clone(),
            stalled: self.stalled,
            failures: self.ledger.state().failures,
            shadow: self.active.as_ref().and(self.shadow.as_ref()).map(|shadow| Arc::new(shadow.snapshot())),
        }
    }

    /// Takes over what its script has changed in `ctx.state`.
    pub(crate) fn keep_script_state(&mut self) {
        if let Some(state) = self.script().and_then(|script| script.take_changed_state()) {
            self.script_state = Some(state);
            self.dirty = true;
        }
    }

    /// What is to be stored.
    pub(crate) fn record(&self) -> PolicyRecord {
        PolicyRecord {
            state: self.state.clone(),
            ledger: self.ledger.state().clone(),
            script_state: self.script_state.clone(),
            ticks: self.ticks,
            generation: self.generation,
            paused: self.paused.clone(),
            bounds: self.bounds.clone(),
            ended: self.ended.clone(),
            shape: self.shape.clone(),
            backend: self.spec().map(|spec| spec.workload.backend.clone()).unwrap_or_default(),
            shadow: self.shadow.as_ref().map(|shadow| shadow.record()),
        }
    }

    /// Whether a task of this id is there and not on its way out.
    pub(crate) fn is_alive(&self, id: &TaskId) -> bool {
        self.ledger.get(id).is_some_and(|task| task.state < TaskState::Killing)
    }

    /// The situation that intents for `adjustment` are judged in; none without a script.
    pub(crate) fn situation(&self, adjustment: i64, by: By, now: Timestamp) -> Option<Situation> {
        Some(Situation {
            adjustment,
            counts: self.counts(),
            bounds: self.bounds_in_force(),
            helpers: self.ledger.helpers(),
            max_helpers: self.spec()?.max_helpers,
            backed_off: self.ledger.backed_off(now).is_some(),
            by,
        })
    }

    /// Takes in what was carried out of a decision: its state and the log's.
    pub(crate) fn settle(&mut self, at: Timestamp, launched: u32, killed: u32, to_min: u32) {
        settle(&mut self.state, at, launched, killed, to_min);
        self.trail.settled(at, launched, killed, to_min);
        if let Some(shadow) = &mut self.shadow {
            shadow.owe(at, launched, killed, to_min);
        }
    }

    /// A tick has been decided: the log will want to know.
    pub(crate) fn begin_trail(
        &mut self,
        keyframe: Option<Keyframe>,
        wall: SystemTime,
        observation: &Observation,
        decision: &Decision,
    ) {
        let Some(active) = &self.active else { return };
        let identity = || Identity {
            name: self.name.clone(),
            shadow: None,
            generation: self.generation,
            path: active.path.display().to_string(),
            sha256: active.sha256.to_string(),
            config: Config::from(&*active.policy.spec).into(),
        };
        self.trail.begin(identity, keyframe, (self.ticks, wall), observation, decision);
    }

    /// Which tasks go: the named ones, and `n` more in the order that `victims` gave, then in the default order.
    pub(crate) fn victims(&self, named: &[TaskId], n: u32, order: Vec<TaskId>) -> Vec<TaskId> {
        self.ledger.victims(named, n, order)
    }
}

/// min and max as a policy's table says them.
pub(crate) fn own_bounds(spec: &PolicySpec) -> Bounds {
    Bounds { min: spec.workload.min, max: spec.workload.max }
}

/// The API's word for who asked for a task.
pub(crate) const fn by_word(by: By) -> &'static str {
    match by {
        By::Law => "law",
        By::Min => "min",
        By::Replacement => "replacement",
        By::Warmer => "warmer",
        By::Cooler => "cooler",
        By::Helper => "helper",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_changes_are_in_flight_until_the_count_shows_them_or_the_lag_passes() {
        let mut external = External::default();
        external.observe(5);
        external.accepted.push_back((Timestamp::from_millis(0), 3));
        assert_eq!(external.in_flight(), InFlight { launches: 3, kills: 0 });
        assert_eq!(external.counts().desired(), 8);
        external.observe(7);
        assert_eq!(external.in_flight().launches, 1, "two of three show");
        external.observe(6);
        assert_eq!(external.in_flight().launches, 1, "a loss settles no launch");
        external.expire(Timestamp::from_millis(10_000), Duration::from_secs(10));
        assert_eq!(external.in_flight().launches, 0);
        external.accepted.push_back((Timestamp::from_millis(0), -2));
        assert_eq!(external.counts().desired(), 4);
        external.observe(4);
        assert_eq!(external.in_flight(), InFlight::default());
    }
}
