//! The loop under a virtual clock: the same steps as the engine's, one after the other.
//!
//! Time goes from one thing that happens to the next: a tick, a task that starts or ends, a replacement that is due, a
//! whole second, on which the plant works off the next second's load. At equal times, tasks change first, then the tick
//! decides, then the plant goes on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::core::decide::{Config, decide, settle};
use crate::core::decision::{Bounds, Decision, Detail, Guard, InFlight, Observation, PolicyState, Reason};
use crate::core::intent::{By, Intent};
use crate::core::interval::next_interval;
use crate::core::ledger::{Ledger, Rules, Task};
use crate::core::model::{Counts, Exit, Placement, Sample, TaskId, TaskState};
use crate::core::plan::{Plan, Situation, plan};
use crate::core::policy::{PolicySpec, TaskTemplate};
use crate::core::time::Timestamp;
use crate::runtime::{Action, External, action, with_plan};
use crate::script::{Hook, Observed, ScriptError};

use super::clairvoyant;
use super::plant::Machine;
use super::random::Random;
use super::report::{Meter, Report};
use super::tasks::{Event, Tasks, millis};
use super::{Functions, Setup, Standing, Tick, World, observed};

/// Engine time at the start: late enough that the first tasks have been ready for longer than any lag.
const BASE: Timestamp = Timestamp::from_millis(30 * 86_400_000);

/// Most replacements that one moment starts: a task that ends as it starts must not stop time.
const MOST_AT_ONCE: u32 = 1_000_000;

/// Runs a policy; `watch` sees each tick.
pub fn run<F: Functions>(
    spec: &PolicySpec,
    setup: &Setup,
    functions: &mut F,
    mut watch: impl FnMut(&Tick<'_>),
) -> Report {
    let (mut body, minimum) = Body::new(Arc::new(spec.clone()), Arc::new(setup.clone()));
    let end = millis(setup.duration);
    let (mut tick_at, mut second_at) = (0, 0);
    loop {
        body.settle_events();
        if body.now == tick_at {
            body.tick(functions, &mut watch);
            let every = millis(body.interval).max(1);
            tick_at = if body.ended.is_some() { u64::MAX } else { body.now.saturating_add(every) };
            body.settle_events();
        }
        if body.now == second_at {
            body.second();
            second_at += 1000;
        }
        let next = tick_at.min(second_at).min(body.tasks.next()).min(body.wake());
        body.pass(next.clamp(body.now, end));
        if end <= next {
            break;
        }
    }
    body.meter.report(minimum, body.ended)
}

/// Everything but the functions.
pub(super) struct Body {
    pub(super) spec: Arc<PolicySpec>,
    setup: Arc<Setup>,
    rules: Rules,
    template: Arc<TaskTemplate>,
    backend: Arc<str>,
    state: PolicyState,
    pub(super) ledger: Ledger,
    pub(super) tasks: Tasks,
    machine: Machine,
    noise: Random,
    meter: Meter,
    /// Milliseconds since the start.
    pub(super) now: u64,
    pub(super) interval: Duration,
    tick: u64,
    sample: Option<Sample>,
    setpoint: Option<f64>,
    refused: u32,
    ids: u64,
    version: u64,
    hint: usize,
    load: f64,
    /// The world as it was, for a metric that is late.
    past: VecDeque<World>,
    /// Of a workload that others run: what `workload.count` said, and what does not show in it yet.
    external: Option<External>,
    /// Tasks that `drain` is asked about, and when they end whatever it says.
    draining: BTreeMap<TaskId, u64>,
    pub(super) ended: Option<String>,
}

impl Body {
    /// A body at the start, and the clairvoyant task-hours.
    pub(super) fn new(spec: Arc<PolicySpec>, setup: Arc<Setup>) -> (Self, Option<f64>) {
        let bounds = Bounds { min: spec.workload.min, max: spec.workload.max };
        let seconds = setup.duration.as_secs() + u64::from(setup.duration.subsec_nanos() != 0);
        let least = setup.plant.per_task().map(|per_task| {
            let needed = clairvoyant::needed(&setup.load, per_task, bounds, seconds);
            clairvoyant::with_startup(&needed, setup.startup)
        });
        let minimum = least.as_ref().map(|least| least.iter().map(|n| f64::from(*n)).sum::<f64>() / 3600.0);
        let first = least.and_then(|least| least.first().copied()).unwrap_or(bounds.min);
        let mut hint = 0;
        let load = setup.load.at(0.0, &mut hint);
        let mut body = Self {
            rules: Rules::from(&*spec),
            template: Arc::new(spec.workload.template.clone()),
            backend: spec.workload.backend.as_str().into(),
            state: PolicyState::default(),
            ledger: Ledger::default(),
            tasks: Tasks::new(Arc::clone(&setup)),
            machine: Machine::new(setup.plant, setup.seed),
            noise: Random::new(setup.seed, 3),
            meter: Meter::default(),
            now: 0,
            interval: spec.interval.min,
            tick: 0,
            sample: None,
            setpoint: None,
            refused: 0,
            ids: 0,
            version: 0,
            hint,
            load,
            past: VecDeque::new(),
            external: spec.hooks.count.then(External::default),
            draining: BTreeMap::new(),
            ended: None,
            spec,
            setup,
        };
        for _ in 0..body.setup.start.unwrap_or(first) {
            body.start_running();
        }
        if let Some(external) = &mut body.external {
            external.observe(body.ledger.counts().running);
        }
        (body, minimum)
    }

    /// A task that has been running for long when the run begins.
    fn start_running(&mut self) {
        let mut task = self.new_task(None, By::Law);
        task.state = TaskState::Running;
        (task.asked, task.since, task.ready) = (Timestamp::ZERO, Timestamp::ZERO, Some(Timestamp::ZERO));
        self.tasks.live(&task.id, 0);
        self.ledger.ask(task);
    }

    fn at(&self) -> Timestamp {
        BASE + self.since()
    }

    const fn since(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn wall(&self) -> SystemTime {
        self.setup.wall + self.since()
    }

    fn bounds(&self) -> Bounds {
        Bounds { min: self.spec.workload.min, max: self.spec.workload.max }
    }

    fn standing(&self) -> Standing<'_> {
        Standing {
            name: &self.setup.name,
            at: self.at(),
            since: self.since(),
            wall: self.wall(),
            tick: self.tick,
            sample: self.sample.as_ref(),
            setpoint: self.setpoint,
            state: &self.state,
            ledger: &self.ledger,
            counts: self.counts(),
            version: self.version,
            bounds: self.bounds(),
        }
    }

    /// The counts that guards and laws work on.
    fn counts(&self) -> Counts {
        self.external.as_ref().map_or_else(|| self.ledger.counts(), External::counts)
    }

    fn in_flight(&self) -> InFlight {
        let by_ledger = || self.ledger.in_flight(self.at(), &self.rules);
        self.external.as_ref().map_or_else(by_ledger, External::in_flight)
    }

    /// Goes on to another time.
    pub(super) fn pass(&mut self, to: u64) {
        let counts = self.ledger.counts();
        self.meter.pass(to, counts.staging + counts.running + counts.killing + self.ledger.helpers());
        self.now = to;
    }

    /// When the next replacement is due, if that is still to come.
    pub(super) fn wake(&self) -> u64 {
        let due = self.ledger.next_due().filter(|due| self.at() < *due);
        let due = due.map_or(u64::MAX, |due| self.now + millis(due.since(self.at())));
        self.draining.values().copied().min().unwrap_or(u64::MAX).max(self.now).min(due)
    }

    /// Takes in what happened to tasks by now.
    pub(super) fn settle_events(&mut self) {
        let mut happened = false;
        while let Some(id) = self.draining.iter().find(|(_, until)| **until <= self.now).map(|(id, _)| id.clone()) {
            self.release(id);
        }
        while let Some(event) = self.tasks.take(self.now) {
            happened = true;
            match event {
                Event::Starts(id) => self.begin(&id),
                Event::Ends(id, exit) => self.end(&id, exit),
                Event::Gone(id) => self.end(&id, Exit::Signal { signal: 15 }),
                Event::Room => {
                    for id in self.tasks.waiting() {
                        if self.ledger.is_alive(&id) {
                            self.place(&id);
                        }
                    }
                }
            }
        }
        if happened || self.ledger.next_due().is_some() {
            self.launch_due();
        }
    }

    fn begin(&mut self, id: &TaskId) {
        if !self.ledger.is_alive(id) {
            return;
        }
        if let Some(exit) = self.tasks.fails() {
            self.end(id, exit);
            return;
        }
        let at = self.at();
        self.version += 1;
        self.ledger.apply(id, TaskState::Running, Some(true), None, None, at, &self.rules);
        self.tasks.live(id, self.now);
    }

    pub(super) fn end(&mut self, id: &TaskId, exit: Exit) {
        let at = self.at();
        self.version += 1;
        self.draining.remove(id);
        self.ledger.apply(id, TaskState::Gone, None, None, Some(exit), at, &self.rules);
        let failures = self.ledger.state().failures;
        if self.ended.is_none() && self.spec.max_failures.is_some_and(|most| most <= failures) {
            self.ended = Some(format!("{failures} failures"));
        }
    }

    /// Launches the replacements that are due, as far as there is room.
    fn launch_due(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let room = self.bounds().max.saturating_sub(self.ledger.counts().occupied());
        let due = self.ledger.take_due(self.at(), room.min(MOST_AT_ONCE));
        self.launch(due, None, By::Replacement);
    }

    fn new_task(&mut self, template: Option<Arc<TaskTemplate>>, by: By) -> Task {
        self.ids += 1;
        Task {
            id: TaskId::new(format!("{}.{:026}", self.setup.name.as_str().replace('/', "~"), self.ids)),
            policy: self.setup.name.clone(),
            backend: Arc::clone(&self.backend),
            template: template.unwrap_or_else(|| Arc::clone(&self.template)),
            state: TaskState::Asked,
            by,
            asked: self.at(),
            started: self.wall(),
            since: self.at(),
            ready: None,
            grace: self.spec.workload.grace,
            killed: false,
            withdrawn: false,
            attempt: self.ledger.state().streak,
            placement: Placement::default(),
            slot: None,
        }
    }

    fn launch(&mut self, n: u32, template: Option<Arc<TaskTemplate>>, by: By) {
        for _ in 0..n {
            let task = self.new_task(template.clone(), by);
            let id = task.id.clone();
            self.ledger.ask(task);
            self.place(&id);
        }
    }

    fn place(&mut self, id: &TaskId) {
        self.version += 1;
        if self.tasks.place(id, self.now) {
            let at = self.at();
            self.meter.starts += 1;
            self.ledger.apply(id, TaskState::Staging, None, None, None, at, &self.rules);
        }
    }

    /// Tells tasks to end; how many were not on their way out already. What was not placed is gone at once.
    fn kill(&mut self, ids: &[TaskId]) -> u32 {
        let (at, mut killed) = (self.at(), 0);
        for id in ids {
            let state = self.ledger.get(id).map(|task| (task.state, task.grace));
            let placed = state.is_some_and(|(state, _)| state != TaskState::Asked);
            if !self.ledger.kill(id, at) {
                continue;
            }
            killed += 1;
            self.version += 1;
            if let (true, Some((TaskState::Running, grace))) = (self.spec.hooks.drain, state) {
                self.meter.stops += 1;
                self.draining.insert(id.clone(), self.now.saturating_add(millis(grace)));
            } else if placed {
                self.meter.stops += 1;
                self.tasks.kill(id.clone(), self.now);
            } else {
                self.end(id, Exit::Unknown);
            }
        }
        killed
    }

    /// A task that was drained, or was not in time, is told to end.
    fn release(&mut self, id: TaskId) {
        self.draining.remove(&id);
        self.tasks.kill(id, self.now);
    }

    /// Asks `drain` about the tasks that wait for it.
    fn ask_drains<F: Functions>(&mut self, functions: &mut F, errors: &mut Vec<ScriptError>) {
        for id in self.draining.keys().cloned().collect::<Vec<_>>() {
            match functions.drain(&id, &self.standing()) {
                Ok(false) => {}
                Ok(true) => self.release(id),
                Err(error) => {
                    errors.push(error);
                    self.release(id);
                }
            }
        }
    }

    /// The plant works off the second that begins now.
    fn second(&mut self) {
        self.load = self.setup.load.at(self.now as f64 / 1000.0, &mut self.hint);
        let second = self.machine.second(self.load, self.ledger.counts().running);
        self.meter.over_seconds += u64::from(second.over);
        self.meter.offered += second.offered;
        self.meter.lost += second.lost;
        if !self.setup.metric_lag.is_zero() {
            self.past.push_back(self.world());
        }
    }

    fn world(&self) -> World {
        World {
            at: self.since(),
            load: self.load,
            running: self.ledger.counts().running,
            plant: self.machine.reading(),
        }
    }

    /// The world that the metric shows: as it was `metric_lag` ago.
    fn seen(&mut self) -> World {
        self.load = self.setup.load.at(self.now as f64 / 1000.0, &mut self.hint);
        let now = self.world();
        let lag = self.setup.metric_lag;
        if lag.is_zero() {
            return now;
        }
        self.past.push_back(now);
        // Until a lag has passed, it is the world as it was before anything was done.
        if let Some(shown) = self.since().checked_sub(lag) {
            while self.past.get(1).is_some_and(|world| world.at <= shown) {
                self.past.pop_front();
            }
        }
        self.past.front().copied().unwrap_or(now)
    }

    pub(super) fn tick<F: Functions>(&mut self, functions: &mut F, watch: &mut impl FnMut(&Tick<'_>)) {
        self.tick += 1;
        self.meter.ticks += 1;
        let at = self.at();
        self.version += u64::from(self.ledger.advance(at, &self.rules));
        if self.tasks.queues() {
            let lapsed = self.ledger.lapsed(at);
            self.refused += self.kill(&lapsed);
        }
        if let Some(external) = &mut self.external {
            external.expire(at, self.rules.lag);
        }
        self.launch_due();
        let mut undrained = Vec::new();
        self.ask_drains(functions, &mut undrained);
        let world = self.seen();
        let Observed { sample, setpoint, count, scripted, mut errors, .. } = self.observe(functions, &world);
        errors.extend(undrained);
        if let (Some(external), Some(count)) = (&mut self.external, count) {
            external.observe(count);
        }
        let observation = Observation {
            now: at,
            sample,
            setpoint,
            counts: self.counts(),
            in_flight: self.in_flight(),
            refused: self.refused,
            scripted,
            bounds: None,
            budget: None,
            paused: false,
            dry_run: false,
        };
        let state = std::mem::take(&mut self.state);
        let (decision, state) = decide(&Config::from(&*self.spec), state, &observation);
        self.state = state;
        self.refused = 0;
        let counts = observation.counts;
        self.setpoint = setpoint;
        self.note(&observation.sample, setpoint);
        self.sample = Some(observation.sample);
        let mut recorded = Vec::new();
        let (decision, changed) = self.act(functions, decision, &mut errors, &mut recorded);
        let acted = changed.net();
        self.interval = next_interval(&self.spec.interval, self.interval, acted != 0);
        if !self.setup.metric_lag.is_zero() {
            // What is ready from now on shows exactly a lag later, as the ledger counts it.
            self.past.push_back(self.world());
        }
        if self.spec.hooks.stop {
            match functions.stop(&self.standing()) {
                Ok(None) => {}
                Ok(Some(code)) => self.ended = Some(format!("`stop` gave exit code {code}")),
                Err(error) => errors.push(error),
            }
        }
        self.meter.script_errors += errors.len() as u64;
        if let Some(sample) = &self.sample {
            let (at, load) = (self.since(), self.load);
            watch(&Tick {
                at,
                load,
                counts,
                sample,
                setpoint,
                decision: &decision,
                errors: &errors,
                launched: changed.launched,
                killed: changed.killed,
                recorded: &recorded,
            });
        }
    }

    /// The observation as the loop gets it: late, noisy, or none.
    fn observe<F: Functions>(&mut self, functions: &mut F, world: &World) -> Observed {
        let since = self.since();
        let outage = self.setup.outages.iter().find(|outage| outage.from <= since && since < outage.to);
        let mut seen = match outage {
            Some(outage) if !outage.kind.has_value() => observed(Sample::Missing, self.setpoint),
            _ => functions.observe(world, &self.standing()),
        };
        if let Sample::Value { value, age, .. } = &mut seen.sample {
            *age += self.setup.metric_lag;
            if 0.0 < self.setup.noise {
                *value *= self.setup.noise.mul_add(self.noise.normal(), 1.0);
            }
        }
        if let Some(outage) = outage {
            seen.sample = outage.kind.spoil(seen.sample, Config::from(&*self.spec).stale_after());
        }
        seen
    }

    fn note(&mut self, sample: &Sample, setpoint: Option<f64>) {
        match (sample, setpoint) {
            (Sample::Value { value, age, .. }, setpoint) if *age <= Config::from(&*self.spec).stale_after() => {
                if let Some(setpoint) = setpoint {
                    self.meter.deviate(self.since(), *value, setpoint);
                }
            }
            _ => self.meter.unseen += u64::from(self.spec.hooks.metric),
        }
    }

    /// From the decision to tasks that are launched and told to end; the decision as it was carried out.
    fn act<F: Functions>(
        &mut self,
        functions: &mut F,
        mut decision: Decision,
        errors: &mut Vec<ScriptError>,
        recorded: &mut Vec<String>,
    ) -> (Decision, Changed) {
        if decision.adjustment == 0 {
            return (decision, Changed::default());
        }
        let (intents, by, adjustment) = match action(&self.spec, &decision, decision.adjustment) {
            Action::Call { hook, n } => {
                let acted = functions.act(hook, n, &self.standing());
                errors.extend(acted.error);
                recorded.extend(acted.recorded);
                let by = if hook == Hook::Warmer { By::Warmer } else { By::Cooler };
                if self.external.is_some() {
                    return self.accept(decision, acted.accepted.unwrap_or(n).min(n));
                }
                // Tasks that others run are made up like all others: what they accept is what is launched and killed.
                let intents = if self.spec.workload.backend == "none" {
                    vec![default_intent(decision.adjustment, acted.accepted.unwrap_or(n).min(n))]
                } else {
                    acted.intents
                };
                (intents, by, decision.adjustment)
            }
            Action::Ask { intent, by, adjustment, reason } => {
                if let Some(reason) = reason {
                    decision.reasons.push(reason);
                    decision.adjustment = adjustment;
                }
                (intent.into_iter().collect(), by, adjustment)
            }
        };
        let situation = Situation {
            adjustment,
            counts: self.ledger.counts(),
            bounds: self.bounds(),
            helpers: self.ledger.helpers(),
            max_helpers: self.spec.max_helpers,
            backed_off: self.ledger.backed_off(self.at()).is_some(),
            by,
        };
        let mut plan = plan(&situation, &intents, |id| self.ledger.is_alive(id));
        let order = self.order(functions, &mut plan, situation.counts.waiting, errors);
        let changed = self.carry_out(&plan, order, decision.to_min);
        self.ask_drains(functions, errors);
        (with_plan(decision, &plan, changed.net()), changed)
    }

    /// Of a workload that others run: what they accepted is in flight until `workload.count` shows it. The tasks that it
    /// stands for are made up like all others.
    fn accept(&mut self, mut decision: Decision, accepted: u32) -> (Decision, Changed) {
        let wanted = decision.adjustment;
        let signed = i64::from(accepted) * wanted.signum();
        self.refused = u32::try_from(wanted.unsigned_abs()).unwrap_or(u32::MAX) - accepted;
        if signed != wanted {
            let detail = Detail::Text(format!("{accepted} of {} were accepted", wanted.unsigned_abs()).into());
            decision.reasons.push(Reason { guard: Guard::Intent, from: wanted, to: signed, detail });
            decision.adjustment = signed;
        }
        let (launched, killed) = if 0 < signed { (accepted, 0) } else { (0, accepted) };
        if accepted == 0 {
            return (decision, Changed::default());
        }
        let at = self.at();
        if let Some(external) = &mut self.external {
            external.accepted.push_back((at, signed));
        }
        settle(&mut self.state, at, launched, killed, decision.to_min);
        self.launch(launched, None, By::Law);
        let victims = self.ledger.victims(&[], killed, Vec::new());
        self.kill(&victims);
        (decision, Changed { launched, killed })
    }

    /// Who goes first, by the script's `victims`; while it cannot say, nobody does.
    fn order<F: Functions>(
        &self,
        functions: &mut F,
        plan: &mut Plan,
        waiting: u32,
        errors: &mut Vec<ScriptError>,
    ) -> Vec<TaskId> {
        if !self.spec.hooks.victims || plan.kills <= waiting {
            return Vec::new();
        }
        match functions.victims(plan.kills - waiting, &self.standing()) {
            Ok(order) => order,
            Err(error) => {
                errors.push(error);
                plan.refused += plan.kills;
                plan.kills = 0;
                Vec::new()
            }
        }
    }

    fn carry_out(&mut self, plan: &Plan, order: Vec<TaskId>, to_min: u32) -> Changed {
        let cancelled = self.ledger.cancel_waiting(plan.kills);
        let victims = self.ledger.victims(&plan.named, plan.kills - cancelled, order);
        let killed = cancelled + victims.len() as u32;
        let at = self.at();
        settle(&mut self.state, at, plan.launched(), killed, to_min);
        for launch in &plan.launches {
            self.launch(launch.n, launch.template.clone(), launch.by);
        }
        self.kill(&victims);
        self.refused = plan.refused;
        Changed { launched: plan.launched(), killed }
    }
}

/// What a tick changed.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    launched: u32,
    killed: u32,
}

impl Changed {
    fn net(self) -> i64 {
        i64::from(self.launched) - i64::from(self.killed)
    }
}

/// What is asked for when nobody says otherwise.
fn default_intent(adjustment: i64, n: u32) -> Intent {
    if 0 < adjustment { Intent::Launch { n, template: None, count: true } } else { Intent::Kill { n } }
}
