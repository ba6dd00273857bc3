//! One tick: observe, decide, act.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::decide::{Config, decide};
use crate::core::decision::{Decision, Detail, Guard, Observation, PolicyState, Reason};
use crate::core::intent::{By, Intent};
use crate::core::interval::next_interval;
use crate::core::model::{PolicyName, Sample, TaskId};
use crate::core::plan::{Plan, plan};
use crate::core::policy::PolicySpec;
use crate::log::DecisionLog;
use crate::script::{Acted, Hook, Mode, Observed, ScriptError};

use super::super::event::Event;
use super::super::policy::{Awaiting, Penalty, Phase, Policy};
use super::super::record::Ended;
use super::super::ticker::{Timer, next_due};
use super::super::view::StreamEvent;
use super::action::{Action, action, hook_for};
use super::{BackendState, LAG_BOUNDS, Loop};

/// A policy that broke a limit waits at most this long.
const MAX_PENALTY: Duration = Duration::from_secs(60);

/// How long a tick waits at most for the backend's word on launches that lapse with it: without, it could not make up for
/// them, and the backend would have nothing to place until the next one.
const WORD: Duration = Duration::from_millis(250);

/// The functions that each tick calls to look.
const OBSERVING: [Hook; 4] = [Hook::Metric, Hook::Target, Hook::Count, Hook::Decide];

/// The functions that carry a decision out; their errors stand while there is something to carry out.
const ACTING: [Hook; 4] = [Hook::Warmer, Hook::Cooler, Hook::Victims, Hook::Drain];

impl Loop {
    /// A policy's tick is due.
    pub(super) fn on_due(&mut self, key: usize, epoch: u64, due: Instant) {
        let now = Instant::now();
        if self.stopping.is_some() {
            return;
        }
        let Some(policy) = self.policy(key) else { return };
        if policy.epoch != epoch || policy.ended.is_some() || policy.active.is_none() {
            return;
        }
        let able = matches!(policy.phase, Phase::Idle);
        if able && self.backend_ready(key) && self.awaits_word(key) {
            let Some(policy) = self.policy(key) else { return };
            policy.awaiting = Some(Awaiting { due, since: now });
            let until = now + WORD.min(policy.interval / 2);
            self.timers.set(until, Timer::Word(key, epoch));
            return;
        }
        self.tick_due(key, epoch, due, Duration::ZERO);
    }

    /// Whether a tick waits for what becomes of the launches that lapse with it.
    fn awaits_word(&mut self, key: usize) -> bool {
        self.withdraw_lapsed(key, self.clock.now());
        self.policies.get(key).and_then(Option::as_ref).is_some_and(|policy| policy.ledger.is_withdrawing())
    }

    /// The backend has said what becomes of a launch that it was to let go of, or could not be asked.
    pub(super) fn on_word(&mut self, key: usize) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        if policy.awaiting.is_some() && !policy.ledger.is_withdrawing() {
            self.end_wait(key);
        }
    }

    /// A tick has waited long enough.
    pub(super) fn on_word_due(&mut self, key: usize, epoch: u64) {
        let (now, Some(policy)) = (Instant::now(), self.policy(key)) else { return };
        let limit = WORD.min(policy.interval / 2);
        if policy.epoch == epoch && policy.awaiting.is_some_and(|awaiting| awaiting.since + limit <= now) {
            self.end_wait(key);
        }
    }

    fn end_wait(&mut self, key: usize) {
        let Some(policy) = self.policy(key) else { return };
        let epoch = policy.epoch;
        if let Some(Awaiting { due, since }) = policy.awaiting.take()
            && self.stopping.is_none()
        {
            self.tick_due(key, epoch, due, since.elapsed());
        }
    }

    /// Begins a tick that was due at `due` and has waited for so long, if the policy can, and sets the timer of the next.
    fn tick_due(&mut self, key: usize, epoch: u64, due: Instant, waited: Duration) {
        let now = Instant::now();
        let Some(policy) = self.policy(key) else { return };
        let (next, missed) = next_due(due, policy.interval, now);
        policy.due = next;
        let busy = !matches!(policy.phase, Phase::Idle);
        let migrating = matches!(policy.phase, Phase::Migrating(_));
        self.timers.set(next, Timer::Tick(key, epoch));
        self.totals.missed += missed;
        if migrating {
            if let Some(policy) = self.policy(key) {
                policy.deferred = Some(due);
            }
        } else if busy {
            self.totals.missed += 1;
        } else if self.backend_ready(key) {
            self.begin_tick(key, due, waited);
        }
    }

    pub(super) fn backend_ready(&self, key: usize) -> bool {
        let Some(policy) = self.policies[key].as_ref() else { return false };
        let Some(spec) = policy.spec() else { return false };
        if policy.own_count().is_some_and(|counted| counted.seen.is_none()) {
            return false;
        }
        let state = self.backend_states.get(&spec.workload.backend);
        !matches!(state, Some(BackendState::Idle | BackendState::Recovering { .. }))
    }

    /// Begins a tick that was due at `due`, and that has waited for so long on purpose.
    pub(super) fn begin_tick(&mut self, key: usize, due: Instant, waited: Duration) {
        let now = Instant::now();
        let (at, wall) = (self.clock.now(), self.clock.wall());
        self.record_lag(now.saturating_duration_since(due + waited));
        self.totals.ticks += 1;
        let Some(policy) = self.policy(key) else { return };
        policy.ticks += 1;
        policy.last_tick = Some((wall, now));
        policy.stalled = false;
        policy.aged = true;
        let rules = policy.rules.clone();
        let ripe = policy.ledger.advance(at, &rules);
        if ripe {
            policy.tasks_changed();
        }
        let lag = policy.rules.lag;
        policy.external.expire(at, lag);
        if ripe && policy.rules.ready != crate::core::policy::Ready::Running {
            let running: Vec<TaskId> = policy.ledger.tasks().map(|task| task.id.clone()).collect();
            self.show_tasks(key, &running);
        }
        self.withdraw_lapsed(key, at);
        self.launch_due(key);
        self.roll(key);
        self.ask_drains(key);

        let Some(policy) = self.policy(key) else { return };
        policy.ledger.look(at);
        let penalty =
            policy.penalty.as_ref().filter(|penalty| now < penalty.until).map(|penalty| Arc::clone(&penalty.error));
        let (Some(script), Some(spec)) = (policy.script(), policy.spec().cloned()) else { return };
        let serial = policy.next_serial();
        policy.phase = Phase::Observing;
        if let Some(error) = penalty {
            // Left alone for breaking a limit: the tick counts and records the error.
            let sample = Sample::Error { message: error.headline().into() };
            self.decide(key, sample, None, None);
            return;
        }
        let ctx = policy.ctx(wall);
        let deadline = deadline(policy.interval).saturating_sub(waited);
        if needs_script(&spec) {
            self.call_script(deadline, move |left| async move {
                let observed = Box::new(script.observe(ctx, left).await);
                Event::Observed { key, serial, observed }
            });
        } else {
            self.decide(key, Sample::Missing, target_number(&spec), None);
        }
    }

    /// `observe` came back.
    pub(super) fn on_observed(&mut self, key: usize, serial: u64, observed: Observed) {
        let (at, wall, now) = (self.clock.now(), self.clock.wall(), Instant::now());
        let Some(policy) = self.policy(key) else { return };
        if policy.serial != serial || !matches!(policy.phase, Phase::Observing) {
            return;
        }
        if let Some(count) = observed.count {
            policy.external.observe(count);
        }
        if observed.errors.iter().any(|error| error.kind.is_limit()) {
            policy.penalty = penalty(policy.penalty.take(), &observed.errors, now);
        }
        let mut sample = observed.sample;
        let jumped = policy.jumps.jumped(wall, at);
        if let Some(shadow) = &mut policy.shadow {
            shadow.jumped = jumped;
        }
        if jumped && let Sample::Value { value, age, .. } = sample {
            tracing::warn!(policy = %policy.name, "the wall clock jumped, this tick's sample is taken as stale");
            sample = Sample::Stale { value, age };
        }
        policy.settle_errors(&OBSERVING, &observed.errors);
        for error in observed.errors {
            self.script_error(key, error, None);
        }
        self.decide(key, sample, observed.setpoint, observed.scripted);
    }

    fn decide(
        &mut self,
        key: usize,
        sample: Sample,
        setpoint: Option<f64>,
        scripted: Option<crate::core::decision::Scripted>,
    ) {
        let budget = self.budget_left();
        let dry_run = self.settings.dry_run;
        let (at, wall) = (self.clock.now(), self.clock.wall());
        let epoch = self.log.as_ref().map(DecisionLog::epoch);
        let Some(policy) = self.policy(key) else { return };
        let Some(spec) = policy.spec().cloned() else { return };
        let observation = Observation {
            now: at,
            sample,
            setpoint,
            counts: policy.counts(),
            in_flight: policy.in_flight_of_sample(at),
            refused: policy.refused,
            scripted,
            bounds: policy.bounds.is_some().then(|| policy.bounds_in_force()),
            budget,
            paused: policy.paused.is_some(),
            dry_run,
        };
        let keyframe = epoch.and_then(|epoch| policy.trail.keyframe(epoch, key, &policy.state));
        let (decision, state) = decide(&Config::from(&*spec), std::mem::take(&mut policy.state), &observation);
        policy.state = state;
        if epoch.is_some() {
            policy.begin_trail(keyframe, wall, &observation, &decision);
        }
        self.prepare_shadow(key, wall, &observation, &decision);
        if budget.is_some() {
            let n = u32::try_from(decision.adjustment.unsigned_abs()).unwrap_or(u32::MAX);
            self.reserved.insert(key, n.saturating_sub(decision.to_min));
        }
        let Some(policy) = self.policy(key) else { return };
        policy.sample = Some(observation.sample);
        policy.setpoint = observation.setpoint;
        policy.refused = 0;
        policy.acted = 0;
        for reason in decision.reasons.iter().filter(|reason| reason.from != reason.to) {
            *self.totals.restricted.entry(reason.guard.as_str()).or_default() += 1;
        }
        self.act(key, &spec, decision);
    }

    /// Turns a decision into intents: by the script's function, by its task, or by default.
    fn act(&mut self, key: usize, spec: &PolicySpec, mut decision: Decision) {
        let rehearsed = rehearsed(&decision);
        let (adjustment, mode) = match rehearsed {
            Some(adjustment) => (adjustment, Mode::Record),
            None => (decision.adjustment, Mode::Live),
        };
        if adjustment == 0 {
            if decision.raw == 0
                && let Some(policy) = self.policy(key)
            {
                policy.settle_errors(&ACTING, &[]);
            }
            self.conclude(key, decision);
            return;
        }
        match action(spec, &decision, adjustment) {
            Action::Call { hook, n } => {
                let wall = self.clock.wall();
                let Some(policy) = self.policy(key) else { return };
                let Some(script) = policy.script() else { return };
                let serial = policy.next_serial();
                let ctx = policy.ctx(wall);
                let deadline = deadline(policy.interval);
                policy.phase = Phase::Acting(decision);
                self.call_script(deadline, move |left| async move {
                    let acted = Box::new(script.act(hook, n, ctx, mode, left).await);
                    Event::Acted { key, serial, acted }
                });
            }
            Action::Ask { .. } if mode == Mode::Record => self.conclude(key, decision),
            Action::Ask { intent, by, adjustment, reason } => {
                if let Some(reason) = reason {
                    decision.reasons.push(reason);
                    decision.adjustment = adjustment;
                }
                match intent {
                    Some(intent) => self.plan_and_choose(key, decision, &[intent], by, adjustment),
                    None => self.conclude(key, decision),
                }
            }
        }
    }

    /// A warmer or cooler came back.
    pub(super) fn on_acted(&mut self, key: usize, serial: u64, acted: Acted) {
        let at = self.clock.now();
        let now = Instant::now();
        let Some(policy) = self.policy(key) else { return };
        if policy.serial != serial {
            return;
        }
        let Phase::Acting(decision) = std::mem::replace(&mut policy.phase, Phase::Idle) else { return };
        let name = policy.name.clone();
        let external = policy.is_external();
        policy.settle_errors(&[Hook::Warmer, Hook::Cooler], acted.error.as_slice());
        if let Some(error) = acted.error {
            if error.kind.is_limit() {
                policy.penalty = penalty(policy.penalty.take(), std::slice::from_ref(&error), now);
            }
            let done = acted.intents.len();
            self.script_error(
                key,
                error,
                Some(match done {
                    0 => "it had asked for nothing, nothing was done".to_owned(),
                    1 => "carried out the intent before it".to_owned(),
                    done => format!("carried out the {done} intents before it"),
                }),
            );
        }
        for effect in &acted.recorded {
            tracing::info!(policy = %name, effect = %effect, "dry run: not sent");
        }
        if rehearsed(&decision).is_some() {
            for intent in &acted.intents {
                tracing::info!(policy = %name, intent = ?intent, "dry run: not carried out");
            }
            self.conclude(key, decision);
            return;
        }
        if external {
            self.accept(key, decision, acted.accepted, at);
            return;
        }
        let by = match hook_of(&decision, self.policies[key].as_ref()) {
            Hook::Warmer => By::Warmer,
            _ => By::Cooler,
        };
        let adjustment = decision.adjustment;
        self.plan_and_choose(key, decision, &acted.intents, by, adjustment);
    }

    /// What others run: the returned number is in flight until `count` shows it.
    fn accept(&mut self, key: usize, mut decision: Decision, accepted: Option<u32>, at: crate::core::time::Timestamp) {
        let Some(policy) = self.policy(key) else { return };
        let wanted = u32::try_from(decision.adjustment.unsigned_abs()).unwrap_or(u32::MAX);
        let accepted = accepted.unwrap_or(wanted).min(wanted);
        let signed = i64::from(accepted) * decision.adjustment.signum();
        policy.refused += wanted - accepted;
        policy.acted = signed;
        if accepted < wanted {
            decision.reasons.push(Reason {
                guard: Guard::Intent,
                from: decision.adjustment,
                to: signed,
                detail: Detail::Text(format!("{accepted} of {wanted} were accepted").into()),
            });
        }
        if accepted != 0 {
            policy.external.accepted.push_back((at, signed));
            let (launched, killed) = if 0 < signed { (accepted, 0) } else { (0, accepted) };
            policy.settle(at, launched, killed, decision.to_min);
            self.spend(accepted);
        }
        self.conclude(key, decision);
    }

    fn plan_and_choose(&mut self, key: usize, decision: Decision, intents: &[Intent], by: By, adjustment: i64) {
        let at = self.clock.now();
        let wall = self.clock.wall();
        let Some(policy) = self.policy(key) else { return };
        let Some(spec) = policy.spec().cloned() else { return };
        let Some(situation) = policy.situation(adjustment, by, at) else { return };
        policy.trail.asked(intents);
        let plan = plan(&situation, intents, |id| policy.is_alive(id));
        let waiting = situation.counts.waiting;
        if spec.hooks.victims && waiting < plan.kills && policy.own_count().is_none() {
            let Some(script) = policy.script() else { return };
            let serial = policy.next_serial();
            let (n, ctx, deadline) = (plan.kills - waiting, policy.ctx(wall), deadline(policy.interval));
            policy.phase = Phase::Choosing(decision, plan);
            self.call_script(deadline, move |left| async move {
                let order = script.victims(n, ctx, left).await;
                Event::Victims { key, serial, order }
            });
        } else {
            self.carry_out(key, decision, plan, Vec::new());
        }
    }

    /// `victims` came back.
    pub(super) fn on_victims(&mut self, key: usize, serial: u64, order: Result<Vec<TaskId>, ScriptError>) {
        let now = Instant::now();
        let Some(policy) = self.policy(key) else { return };
        if policy.serial != serial {
            return;
        }
        let Phase::Choosing(decision, mut plan) = std::mem::replace(&mut policy.phase, Phase::Idle) else { return };
        match order {
            Ok(order) => {
                policy.settle_errors(&[Hook::Victims], &[]);
                self.carry_out(key, decision, plan, order);
            }
            Err(error) => {
                // Who goes is the script's to say; while it cannot, nobody does.
                if error.kind.is_limit() {
                    policy.penalty = penalty(policy.penalty.take(), std::slice::from_ref(&error), now);
                }
                policy.settle_errors(&[Hook::Victims], std::slice::from_ref(&error));
                plan.refused += plan.kills;
                plan.kills = 0;
                self.script_error(key, error, Some("killed nothing".to_owned()));
                self.carry_out(key, decision, plan, Vec::new());
            }
        }
    }

    /// Ends the deciding part of a tick.
    pub(super) fn conclude(&mut self, key: usize, decision: Decision) {
        let wall = self.clock.wall();
        let Some(policy) = self.policy(key) else { return };
        let Some(spec) = policy.spec().cloned() else { return };
        let news = decision.adjustment != 0
            || policy.decision.as_ref().is_none_or(|before| !same_reasons(&before.reasons, &decision.reasons));
        if news {
            log_decision(&policy.name, &decision, policy.acted);
        }
        if let Some(entry) = policy.trail.finish(&decision, policy.acted)
            && let Some(log) = &self.log
            && !log.submit(entry)
            && let Some(policy) = self.policy(key)
        {
            policy.trail.restart();
        }
        let Some(policy) = self.policy(key) else { return };
        policy.decision = Some(Arc::new(decision));
        let before = policy.interval;
        policy.interval = next_interval(&spec.interval, before, policy.acted != 0);
        // The next tick is set already; a grown interval that falls back brings it forward.
        let sooner = (policy.interval < before).then(|| policy.due.min(Instant::now() + policy.interval));
        // A whole tick without a broken limit ends a penalty; `stop` still belongs to it.
        if !spec.hooks.stop && policy.penalty.as_ref().is_some_and(|penalty| penalty.until <= Instant::now()) {
            policy.penalty = None;
        }
        policy.keep_script_state();
        if spec.hooks.stop {
            let Some(script) = policy.script() else { return };
            let serial = policy.next_serial();
            let (ctx, deadline) = (policy.ctx(wall), deadline(policy.interval));
            policy.phase = Phase::Stopping;
            let mode = if self.settings.dry_run { Mode::Record } else { Mode::Live };
            self.call_script(deadline, move |left| async move {
                let code = script.stop(ctx, mode, left).await;
                Event::Stop { key, serial, code }
            });
        } else {
            policy.phase = Phase::Idle;
        }
        if let Some(due) = sooner {
            self.schedule(key, due);
        }
        if let Some(snapshot) = self.publish(key) {
            self.tell(|| StreamEvent::Tick(Arc::clone(&snapshot)));
            if news {
                self.tell(|| StreamEvent::Decision(snapshot));
            }
        }
        self.begin_shadow(key);
        self.after_tick(key);
    }

    /// `stop` came back.
    pub(super) fn on_stop(&mut self, key: usize, serial: u64, code: Result<Option<i32>, ScriptError>) {
        let Some(policy) = self.policy(key) else { return };
        if policy.serial != serial || !matches!(policy.phase, Phase::Stopping) {
            return;
        }
        policy.phase = Phase::Idle;
        let now = Instant::now();
        match &code {
            Err(error) if error.kind.is_limit() => {
                policy.penalty = penalty(policy.penalty.take(), std::slice::from_ref(error), now);
            }
            _ => policy.penalty = policy.penalty.take().filter(|penalty| now < penalty.until),
        }
        policy.settle_errors(&[Hook::Stop], code.as_ref().err().map(std::slice::from_ref).unwrap_or_default());
        match code {
            Ok(None) => {}
            Ok(Some(code)) => {
                let reason = format!("`stop` gave exit code {code}");
                self.end_policy(key, Ended { by: "stop".to_owned(), code, reason });
            }
            Err(error) => self.script_error(key, error, Some("the policy goes on".to_owned())),
        }
        self.after_tick(key);
    }

    /// Between two ticks is when a new generation takes over.
    fn after_tick(&mut self, key: usize) {
        let Some(policy) = self.policy(key) else { return };
        if !matches!(policy.phase, Phase::Idle) {
            return;
        }
        if policy.next.is_some() {
            self.begin_migration(key);
        } else if let Some(due) = policy.deferred.take() {
            self.begin_tick_if_able(key, due);
        }
    }

    /// Counts, shows and logs a script's error, with what the loop did instead.
    pub(super) fn script_error(&mut self, key: usize, error: ScriptError, held: Option<String>) {
        *self.totals.script_errors.entry((error.hook.as_str(), error.kind.as_str())).or_default() += 1;
        let Some(policy) = self.policy(key) else { return };
        let held: Arc<str> = held.unwrap_or_else(|| policy.held()).into();
        let name = policy.name.clone();
        let repeated = policy.errors.iter().any(|before| **before == error);
        let error = Arc::new(error);
        if repeated {
            tracing::debug!(policy = %name, error = %error, held = %held, "script error, again");
        } else {
            policy.errors.push(Arc::clone(&error));
            tracing::error!(policy = %name, hook = error.hook.as_str(), "{}\n  {held}", error.report());
        }
        self.tell(|| StreamEvent::Error { policy: name, error, held });
    }

    fn record_lag(&mut self, lag: Duration) {
        let seconds = lag.as_secs_f64();
        self.totals.lag_sum += seconds;
        for (bound, n) in &mut self.totals.lag {
            if seconds <= *bound {
                *n += 1;
            }
        }
        debug_assert_eq!(self.totals.lag.len(), LAG_BOUNDS.len(), "one count for each bound");
    }
}

/// How long a call may take: most of the interval, so that it is over when the next tick is due.
pub(super) fn deadline(interval: Duration) -> Duration {
    interval.saturating_sub((interval / 20).min(Duration::from_millis(20)))
}

/// Whether an observation needs a visit to the VM at all.
fn needs_script(spec: &PolicySpec) -> bool {
    let hooks = &spec.hooks;
    hooks.metric || hooks.decide || hooks.count || matches!(hooks.target, crate::core::policy::Target::Function)
}

fn target_number(spec: &PolicySpec) -> Option<f64> {
    match spec.hooks.target {
        crate::core::policy::Target::Number(value) => Some(value),
        _ => None,
    }
}

fn hook_of(decision: &Decision, policy: Option<&Policy>) -> Hook {
    let effect = policy.and_then(Policy::spec).map(|spec| spec.workload.effect).unwrap_or_default();
    hook_for(decision.adjustment, effect)
}

/// In a dry run: what would have been carried out, had the last guard not been there.
fn rehearsed(decision: &Decision) -> Option<i64> {
    let last = decision.reasons.last()?;
    (last.guard == Guard::DryRun && last.from != 0).then_some(last.from)
}

/// A broken limit leaves the policy alone, doubling up to a minute; a whole tick without one ends that.
pub(super) fn penalty(before: Option<Penalty>, errors: &[ScriptError], now: Instant) -> Option<Penalty> {
    let error = errors.iter().find(|error| error.kind.is_limit())?;
    let delay = before.map_or(Duration::from_secs(1), |penalty| (penalty.delay * 2).min(MAX_PENALTY));
    Some(Penalty { delay, until: now + delay, error: Arc::new(error.clone()) })
}

fn same_reasons(before: &[Reason], after: &[Reason]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(a, b)| a.guard == b.guard)
}

fn log_decision(name: &PolicyName, decision: &Decision, acted: i64) {
    let chain = decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if decision.adjustment == 0 {
        tracing::debug!(policy = %name, raw = decision.raw, reasons = %chain, "held");
    } else {
        tracing::info!(
            policy = %name,
            desired = decision.desired,
            raw = decision.raw,
            adjustment = decision.adjustment,
            acted,
            reasons = %chain,
            "decision"
        );
    }
}

/// A decision for show: nothing is remembered and nothing carried out.
pub(crate) fn rehearse(spec: &PolicySpec, state: PolicyState, observation: &Observation) -> Decision {
    decide(&Config::from(spec), state, observation).0
}

/// Leaves a plan's reasons in its decision.
pub(crate) fn with_plan(mut decision: Decision, plan: &Plan, acted: i64) -> Decision {
    decision.reasons.extend(plan.reasons.iter().cloned());
    decision.adjustment = acted;
    decision
}
