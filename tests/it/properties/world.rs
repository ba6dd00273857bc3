//! A host and a backend in miniature, with books of their own.
//!
//! The host does what the engine does, in its order: take in updates, withdraw what was not placed, replace
//! what is due, observe, decide, carry out, settle. The backend is fast or slow, queues or not, fails and is
//! out at times. What the ledger says is compared with the books at every tick.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use setpoint::core::decide::{Config, decide, settle, shape_key};
use setpoint::core::decision::{Bounds, Decision, Observation, PolicyState};
use setpoint::core::intent::By;
use setpoint::core::ledger::{Ledger, Rules, Task};
use setpoint::core::model::{Counts, Exit, Kind, Placement, PolicyName, TaskId, TaskState};
use setpoint::core::policy::{Actuator, PolicySpec, Ready, TaskTemplate};
use setpoint::core::time::Timestamp;

use super::draw::{self, SECOND, once_in};
use super::rules::Books;

/// What the backend knows of a task.
struct Unit {
    id: TaskId,
    by: By,
    state: TaskState,
    told: bool,
    running: Option<Timestamp>,
    ready: Option<Timestamp>,
    gone: Option<Timestamp>,
}

/// One schedule.
pub(super) struct World {
    rng: Rng,
    now: Timestamp,
    spec: PolicySpec,
    rules: Rules,
    ledger: Ledger,
    state: PolicyState,
    books: Books,
    units: Vec<Unit>,
    policy: PolicyName,
    backend: Arc<str>,
    template: Arc<TaskTemplate>,
    launched: u64,
    waiting: u32,
    refused: u32,
    bounds: Option<Bounds>,
    paused: bool,
    dry_run: bool,
    out: bool,
    /// It may accept a launch and not place it.
    queues: bool,
    /// One update in so many ticks.
    pace: u32,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let ready = if rng.bool() { Ready::Running } else { Ready::After(Duration::from_millis(rng.u64(0..4000))) };
        let lag = if rng.bool() { Duration::ZERO } else { Duration::from_millis(rng.u64(0..9000)) };
        let spec = draw::spec(&mut rng, &ready, lag);
        let mut world = Self {
            now: Timestamp::from_millis(rng.u64(0..100_000)),
            rules: Rules::from(&spec),
            spec,
            ledger: Ledger::default(),
            state: PolicyState::default(),
            books: Books::default(),
            units: Vec::new(),
            policy: PolicyName::from("p"),
            backend: Arc::from("local"),
            template: Arc::default(),
            launched: 0,
            waiting: 0,
            refused: 0,
            bounds: None,
            paused: false,
            dry_run: once_in(&mut rng, 16),
            out: false,
            queues: rng.bool(),
            pace: rng.u32(1..4),
            rng,
        };
        // A policy may find tasks of an earlier run, more than its max among them.
        let adopted = world.rng.u32(0..6) * u32::from(world.rng.bool());
        world.launch(adopted, By::Law);
        world.rules.backoff = world.spec.backoff;
        world
    }

    /// One tick, with every check.
    pub(super) fn tick(&mut self) -> Decision {
        self.pass_time();
        self.disturb();
        self.update();
        self.ledger.advance(self.now, &self.rules);
        self.withdraw();
        self.replace();
        self.check_ledger();
        self.look();

        let observation = self.observe();
        let state = std::mem::take(&mut self.state);
        let config = Config::from(&self.spec);
        let again = self.rng.bool().then(|| state.clone());
        let stored = once_in(&mut self.rng, 8).then(|| through_json(&state));
        let (decision, state) = decide(&config, state, &observation);
        if let Some(again) = again {
            assert!(
                (&decision, &state) == (&decide(&config, again, &observation).0, &state),
                "same inputs, same decision"
            );
        }
        if let Some(stored) = stored {
            let replayed = decide(&config, stored, &through_json(&observation));
            assert_eq!((&replayed.0, &replayed.1), (&decision, &state), "a stored state decides the same");
            assert_eq!(through_json(&decision), decision);
        }
        self.state = state;
        self.books.check(&config, &observation, &decision);
        self.carry_out(&decision, config_max(&self.spec, self.bounds));
        decision
    }

    /// A sample takes its time, and things happen meanwhile that it does not show.
    fn look(&mut self) {
        let shown = self.shown();
        self.ledger.look(self.now);
        if self.rng.bool() {
            self.now = self.now + Duration::from_millis(self.rng.u64(0..900));
            self.update();
        }
        let net = self.ledger.in_flight_of_sample(self.now, &self.rules).net();
        assert_eq!(net, i64::from(self.ledger.counts().desired()) - shown, "rule 4, of the sample");
    }

    fn pass_time(&mut self) {
        let step = match self.rng.u32(0..20) {
            0 => 3600 * SECOND,
            1 => Duration::from_millis(self.rng.u64(50..9000)),
            _ => SECOND,
        };
        self.now = self.now + step;
    }

    /// Reloads, overrides, pauses, outages, restarts.
    fn disturb(&mut self) {
        let rng = &mut self.rng;
        if once_in(rng, 12) {
            let spec = draw::spec(rng, &self.spec.workload.ready, self.spec.control.lag);
            // Most reloads change one thing.
            if once_in(rng, 3) {
                if shape_key(&spec) != shape_key(&self.spec) {
                    self.state.reset_law();
                }
                self.spec = spec;
                self.books.reloaded();
            } else {
                self.spec.workload.min = spec.workload.min.min(spec.workload.max);
                self.spec.workload.max = spec.workload.max;
            }
            self.rules = Rules::from(&self.spec);
        }
        if once_in(rng, 10) {
            let own = Bounds { min: self.spec.workload.min, max: self.spec.workload.max };
            self.bounds = if self.bounds.is_some() { None } else { Some(draw::bounds(rng, own)) };
        }
        if once_in(rng, 15) {
            self.paused = !self.paused;
        }
        if once_in(rng, 15) {
            self.out = !self.out;
        }
        if once_in(rng, 40) {
            let tasks: Vec<Task> = self.ledger.tasks().map(through_json).collect();
            self.ledger = Ledger::restore(through_json(self.ledger.state()), tasks);
            self.state = through_json(&self.state);
        }
    }

    /// What the backend says since the last tick.
    fn update(&mut self) {
        if self.out {
            return;
        }
        for at in 0..self.units.len() {
            if self.units[at].state == TaskState::Gone || !once_in(&mut self.rng, self.pace) {
                continue;
            }
            let end = |exit| (TaskState::Gone, Some(exit));
            let draw = self.rng.u32(0..16);
            let (state, exit) = match (self.units[at].state, draw) {
                (TaskState::Asked, 0) => end(Exit::NotStarted { reason: "no".into() }),
                (TaskState::Asked | TaskState::Staging, 1) => end(Exit::Code { code: 1 }),
                (TaskState::Asked, 2..5) => (TaskState::Staging, None),
                (TaskState::Asked, 5..9) if self.queues => continue,
                (TaskState::Asked | TaskState::Staging, _) => (TaskState::Running, None),
                (TaskState::Running, 0) => end(Exit::Code { code: 0 }),
                (TaskState::Running, 1) => end(Exit::Signal { signal: 9 }),
                (TaskState::Running, 2) => end(Exit::Unknown),
                (TaskState::Running, 3) if once_in(&mut self.rng, 4) => (TaskState::Killing, None),
                (TaskState::Killing, 0..8) => end(Exit::Signal { signal: 15 }),
                // Late and repeated news change nothing.
                (_, 15) => (TaskState::Staging, None),
                _ => continue,
            };
            self.tell(at, state, exit);
        }
        let horizon = self.rules.lag;
        let now = self.now;
        self.units.retain(|unit| unit.gone.is_none_or(|gone| now.since(gone) < horizon));
    }

    /// One update, to the ledger and to the books.
    fn tell(&mut self, at: usize, state: TaskState, exit: Option<Exit>) {
        let unit = &mut self.units[at];
        let change = self.ledger.apply(&unit.id, state, None, None, exit.clone(), self.now, &self.rules);
        unit.ripen(self.now, &self.rules.ready);
        if state <= unit.state {
            assert_eq!(change, None, "old news");
            return;
        }
        let before = unit.state;
        unit.state = state;
        if state == TaskState::Running {
            unit.running = Some(self.now);
            unit.ripen(self.now, &self.rules.ready);
        }
        if state == TaskState::Gone {
            unit.gone = Some(self.now);
            // A replacement stands for one that ran, whether it came to run itself or not.
            let ran = before >= TaskState::Running
                || unit.by == By::Replacement
                || matches!(exit, Some(Exit::Code { .. } | Exit::Signal { .. } | Exit::OutOfMemory));
            let job = match unit.by {
                By::Cooler => matches!(self.spec.hooks.cooler, Actuator::Task(_)),
                by => by == By::Helper,
            };
            let replaced = ran && !unit.told && !job && self.spec.workload.kind == Kind::Service;
            self.waiting += u32::from(replaced);
            assert_eq!(change.map(|change| change.replaced), Some(replaced), "rule 3");
            assert_eq!(
                self.ledger.apply(&unit.id, TaskState::Gone, None, None, None, self.now, &self.rules),
                None,
                "a task goes once"
            );
        }
    }

    /// Rule 3: a launch that was not placed by the next tick lapses, if it does not take a lost task's place.
    fn withdraw(&mut self) {
        if !self.queues {
            return;
        }
        for id in self.ledger.lapsed(self.now) {
            assert!(self.ledger.withdraw(&id));
            self.ledger.apply(&id, TaskState::Gone, None, None, None, self.now, &self.rules);
            self.units.retain(|unit| unit.id != id);
            self.refused += 1;
        }
        let stays = |task: &Task| task.asked == self.now || task.by == By::Replacement;
        assert!(self.ledger.tasks().all(|task| task.state != TaskState::Asked || stays(task)), "rule 3");
        let replacements = |task: &&Unit| task.state == TaskState::Asked && task.by == By::Replacement && !task.told;
        let asked = self.units.iter().filter(replacements).count();
        let known = self.ledger.tasks().filter(|task| task.state == TaskState::Asked && !task.killed);
        assert_eq!(known.filter(|task| task.by == By::Replacement).count(), asked, "rule 3: replacements stay wanted");
    }

    fn replace(&mut self) {
        let room = config_max(&self.spec, self.bounds).saturating_sub(self.ledger.counts().occupied());
        let held = self.ledger.backed_off(self.now).is_some();
        let due = self.ledger.take_due(self.now, room);
        assert!(due <= room && (due == 0 || !held), "replacements obey room and backoff");
        self.waiting -= due;
        self.launch(due, By::Replacement);
    }

    fn launch(&mut self, n: u32, by: By) {
        for _ in 0..n {
            self.launched += 1;
            let id = TaskId::new(format!("p-{:08}", self.launched));
            self.ledger.ask(Task {
                id: id.clone(),
                policy: self.policy.clone(),
                backend: Arc::clone(&self.backend),
                template: Arc::clone(&self.template),
                state: TaskState::Asked,
                by,
                asked: self.now,
                started: SystemTime::UNIX_EPOCH,
                since: self.now,
                ready: None,
                grace: SECOND,
                killed: false,
                withdrawn: false,
                attempt: 0,
                placement: Placement::default(),
                slot: None,
            });
            self.units.push(Unit {
                id,
                by,
                state: TaskState::Asked,
                told: false,
                running: None,
                ready: None,
                gone: None,
            });
        }
    }

    fn observe(&mut self) -> Observation {
        let rng = &mut self.rng;
        let sample = draw::sample(rng);
        let no_metric = !self.spec.hooks.metric;
        Observation {
            now: self.now,
            sample: if no_metric { setpoint::core::model::Sample::Missing } else { sample },
            setpoint: draw::setpoint(rng),
            counts: self.ledger.counts(),
            in_flight: self.ledger.in_flight_of_sample(self.now, &self.rules),
            refused: std::mem::take(&mut self.refused),
            scripted: draw::scripted(rng),
            bounds: self.bounds,
            budget: once_in(rng, 5).then(|| rng.u32(0..4)),
            paused: self.paused,
            dry_run: self.dry_run,
        }
    }

    /// Carries out a decision: all of it, less, or nothing while failing tasks are backed off.
    fn carry_out(&mut self, decision: &Decision, max: u32) {
        let before = self.ledger.counts();
        let wanted = u32::try_from(decision.adjustment.unsigned_abs()).expect("a count of tasks");
        let some = if once_in(&mut self.rng, 5) { self.rng.u32(0..=wanted) } else { wanted };
        let (mut launched, mut killed) = (0, 0);
        if decision.adjustment > 0 {
            launched = if self.ledger.backed_off(self.now).is_some() { 0 } else { some };
            let to_min = launched.min(decision.to_min);
            let by = if self.rng.bool() { By::Law } else { By::Cooler };
            self.launch(to_min, By::Min);
            self.launch(launched - to_min, by);
            self.refused += wanted - launched;
        } else if decision.adjustment < 0 && Config::from(&self.spec).counter {
            // What would stand against the metric finds no room here; nothing is killed in its place.
            self.refused += wanted;
        } else if decision.adjustment < 0 {
            killed = self.ledger.cancel_waiting(some);
            self.waiting -= killed;
            for unit in self.units.iter_mut().rev() {
                if killed < some && unit.state < TaskState::Killing && unit.by != By::Helper {
                    assert!(self.ledger.kill(&unit.id, self.now));
                    unit.state = TaskState::Killing;
                    unit.told = true;
                    killed += 1;
                }
            }
            assert_eq!(killed, some, "a decision never kills more than there are");
        }
        settle(&mut self.state, self.now, launched, killed, decision.to_min);
        self.books.carried_out(self.now, launched.saturating_sub(decision.to_min), killed);
        if once_in(&mut self.rng, 16) && self.ledger.helpers() < self.spec.max_helpers {
            self.launch(1, By::Helper);
        }
        let after = self.ledger.counts();
        assert_eq!(after.desired(), before.desired() + launched - killed, "rule 3: only by what was carried out");
        if launched > 0 {
            assert!(after.occupied() <= max, "rule 5: {after:?} with max {max}");
        }
    }

    /// The ledger against the books.
    fn check_ledger(&mut self) {
        let mut counts = Counts { waiting: self.waiting, ..Counts::default() };
        for unit in &mut self.units {
            unit.ripen(self.now, &self.rules.ready);
            if unit.by == By::Helper {
                continue;
            }
            match unit.state {
                TaskState::Asked => counts.asked += 1,
                TaskState::Staging => counts.staging += 1,
                TaskState::Running => {
                    counts.running += 1;
                    counts.ready += u32::from(unit.ready.is_some());
                }
                TaskState::Killing => counts.killing += 1,
                TaskState::Gone => {}
            }
        }
        assert_eq!(self.ledger.counts(), counts, "the ledger's counts");
        let net = self.ledger.in_flight(self.now, &self.rules).net();
        assert_eq!(net, i64::from(counts.desired()) - self.shown(), "rule 4");
    }

    /// How many tasks the sample shows: it is that of a world `lag` ago.
    fn shown(&self) -> i64 {
        let lag = self.rules.lag;
        let shows = |unit: &&Unit| {
            let came = unit.ready.is_some_and(|ready| lag <= self.now.since(ready));
            came && unit.by != By::Helper && unit.gone.is_none_or(|gone| self.now.since(gone) < lag)
        };
        self.units.iter().map(|unit| i64::from(shows(&unit))).sum()
    }
}

impl Unit {
    fn ripen(&mut self, now: Timestamp, rule: &Ready) {
        let delay = match rule {
            Ready::After(delay) => *delay,
            Ready::Running | Ready::Healthy => Duration::ZERO,
        };
        // One that is on its way out does not become ready any more.
        if self.state == TaskState::Running && self.ready.is_none() {
            self.ready = self.running.filter(|running| delay <= now.since(*running)).map(|running| running + delay);
        }
    }
}

fn config_max(spec: &PolicySpec, bounds: Option<Bounds>) -> u32 {
    bounds.map_or(spec.workload.max, |bounds| bounds.max)
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).expect("it can be stored")).expect("it can be read back")
}
