//! The one pure function that decides: observation in, decision and state out.
//!
//! ```text
//!   observation ─► sample read ─► law ─► guards, in their order ─► Decision
//!                      │           │         │
//!                      └───────────┴─────────┴──► PolicyState (history, windows, confirmation)
//!
//!   what the intents carried out ─► settle ─► PolicyState (cooldowns, budgets)
//! ```
//!
//! `decide` never moves a cooldown, since a decision that nothing came of must not delay the next one; the
//! host says with [`settle`] what was really carried out. Same inputs, same decision: nothing else is read.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::decision::{Bounds, Decision, Guard, Observation, PolicyState};
use super::guard::sample::Data;
use super::guard::{Chain, bound, confirm, limit, ramp, sample, stabilize};
use super::law::{self, Input};
use super::model::{Effect, Kind, Point, Sample};
use super::policy::{Actuator, Control, Interval, LawSpec, PolicySpec};
use super::time::Timestamp;

/// What `decide` needs of a policy's specification.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// Law and guards.
    pub control: &'a Control,
    /// What more tasks do to the metric.
    pub effect: Effect,
    /// Fewest tasks.
    pub min: u32,
    /// Most tasks.
    pub max: u32,
    /// How often it ticks.
    pub interval: Interval,
    /// Whether a task stands against the metric where others would be killed: then kills are launches of it, and the
    /// room under max bounds them, not the number that there is.
    pub counter: bool,
    /// Whether the policy has a metric. Without one, a law that needs none may scale in.
    pub metric: bool,
}

impl<'a> From<&'a PolicySpec> for Config<'a> {
    fn from(spec: &'a PolicySpec) -> Self {
        Self {
            control: &spec.control,
            effect: spec.workload.effect,
            min: spec.workload.min,
            max: spec.workload.max,
            interval: spec.interval,
            counter: matches!(
                match spec.workload.effect {
                    Effect::Heats => &spec.hooks.cooler,
                    Effect::Cools => &spec.hooks.warmer,
                },
                Actuator::Task(_)
            ),
            metric: spec.hooks.metric,
        }
    }
}

impl Config<'_> {
    /// The bounds in force: an operator's, or the policy's own. Where they cross, max wins.
    #[must_use]
    pub fn bounds(&self, observation: &Observation) -> Bounds {
        let Bounds { min, max } = observation.bounds.unwrap_or(Bounds { min: self.min, max: self.max });
        Bounds { min: min.min(max), max }
    }

    /// The age from which a sample is stale: as configured, else three of the longest intervals.
    #[must_use]
    pub fn stale_after(&self) -> Duration {
        self.control.stale_after.unwrap_or_else(|| self.interval.max.max(self.interval.min).saturating_mul(3))
    }
}

/// Decides. Takes the state by value and gives it back brought up to this tick.
#[must_use]
pub fn decide(config: &Config<'_>, mut state: PolicyState, observation: &Observation) -> (Decision, PolicyState) {
    let control = config.control;
    let now = observation.now;
    state.first.get_or_insert(now);
    let data = sample::read(config, observation);
    if let Data::Fresh(point) = &data {
        remember(&mut state, *point, control.lookback);
    }
    let kept = if data.allows_kills() { None } else { sample::kept(config, observation, &state) };
    let point = match &data {
        Data::Fresh(point) => Some(*point),
        Data::NotNeeded | Data::Absent(..) => kept,
    };

    let mut chain = propose(config, &mut state, observation, point);
    let raw = chain.adjustment;
    sample::apply(&mut chain, config, observation, &state, &data, kept.is_some());
    sample::tolerate(&mut chain, control.tolerance, point);
    confirm::apply(&mut chain, control.confirm, &mut state);
    if data.is_fresh() {
        ramp::apply(&mut chain, control.ramp, &mut state.ramp);
    }
    if data.allows_kills() || chain.adjustment != 0 {
        stabilize::apply(&mut chain, control.stabilization, &mut state.proposals, now);
    }
    limit::expire(control, &mut state.changes, now);
    limit::steps(&mut chain, control.step, &state.changes, now);
    limit::cooldown(&mut chain, control.cooldown, &state, now);
    limit::flap(&mut chain, control.flap, &state.changes, now);
    bound::apply(&mut chain, config, observation, data.allows_kills());
    let to_min = bound::to_min(&chain, config.bounds(observation));
    bound::budget(&mut chain, to_min, observation.budget);
    bound::pause(&mut chain, to_min, observation.paused);
    bound::dry_run(&mut chain, observation.dry_run);

    let decision = Decision {
        at: now,
        desired: observation.counts.desired(),
        raw,
        adjustment: chain.adjustment,
        to_min: to_min.min(chain.adjustment.max(0)) as u32,
        reasons: chain.reasons,
    };
    (decision, state)
}

/// Takes a fresh sample into the history.
fn remember(state: &mut PolicyState, point: Point, lookback: usize) {
    let history = Arc::make_mut(&mut state.history);
    // First make room: a full window must not grow by a point each tick, for which it would take twice the memory.
    while history.len() >= lookback.max(1) {
        history.pop_front();
    }
    history.push_back(point);
    state.last_good = Some(point);
    state.ramp.seen = state.ramp.seen.saturating_add(1);
}

/// Asks the law, where it has what it needs; a chain that starts from 0 otherwise.
fn propose(config: &Config<'_>, state: &mut PolicyState, observation: &Observation, point: Option<Point>) -> Chain {
    let desired = observation.counts.desired();
    let law = law_of(config);
    if law.needs_sample() && point.is_none() {
        return Chain::new(desired, 0);
    }
    // A law that only knows differences may go below no task at all, where that means to launch against them.
    let lift = if config.counter && law.works_on_differences() { room(config, observation) } else { 0 };
    let lifted = desired.saturating_add(lift);
    let (age, reported) = match observation.sample {
        Sample::Value { age, reported, .. } => (age, reported),
        _ => (Duration::ZERO, None),
    };
    let input = Input {
        now: observation.now,
        effect: config.effect,
        desired: lifted,
        point,
        history: &state.history,
        seen: state.ramp.seen,
        ramp: config.control.ramp,
        in_flight: observation.in_flight,
        refused: observation.refused,
        ready: observation.counts.ready.min(observation.counts.running),
        reported,
        age,
        scripted: observation.scripted.as_ref(),
    };
    let proposal = law::propose(&law, &mut state.law, &input);
    let raw = i64::from(proposal.count) - i64::from(lifted);
    let mut chain = Chain::new(desired, raw);
    if let Some(note) = proposal.note {
        chain.note(Guard::Law, raw, note);
    }
    chain
}

/// The law in force. Where some tasks stand against the others there is no such thing as the effect of one task to be
/// learned.
fn law_of<'a>(config: &Config<'a>) -> Cow<'a, LawSpec> {
    match &config.control.law {
        LawSpec::Adaptive(tuning) if config.counter => Cow::Owned(LawSpec::Proportional { per_task: tuning.per_task }),
        law => Cow::Borrowed(law),
    }
}

/// How many more tasks there is room for (rule 5 of the semantics).
pub(super) fn room(config: &Config<'_>, observation: &Observation) -> u32 {
    config.bounds(observation).max.saturating_sub(observation.counts.occupied())
}

/// Takes in what was carried out of a decision: tasks launched (`to_min` of them only up to min), and tasks killed,
/// with the replacements that were called off.
///
/// Replacements and launches up to min neither start a cooldown nor use up a budget, so replacements must not
/// be counted in `launched`, and what was launched counts as up to min first.
pub fn settle(state: &mut PolicyState, now: Timestamp, launched: u32, killed: u32, to_min: u32) {
    law::settle(&mut state.law, launched, killed);
    let by_decision = launched.saturating_sub(to_min);
    if by_decision > 0 {
        state.last_launch = Some(now);
        state.changes.push_back((now, i64::from(by_decision)));
    }
    if killed > 0 {
        state.changes.push_back((now, -i64::from(killed)));
    }
    if by_decision > 0 || killed > 0 {
        state.last_change = Some(now);
        state.forget_directions();
    }
}

/// Names what the law's state belongs to. When a reload changes it, [`PolicyState::reset_law`] is due.
#[must_use]
pub fn shape_key(spec: &PolicySpec) -> String {
    let mut key = spec.control.law.name().to_owned();
    if let LawSpec::Relay { compat: true } = spec.control.law {
        key.push_str(" compat");
    }
    key.push_str(match spec.workload.effect {
        Effect::Heats => " heats",
        Effect::Cools => " cools",
    });
    key.push_str(match spec.workload.kind {
        Kind::Service => " service",
        Kind::Jobs => " jobs",
    });
    key
}

#[cfg(test)]
mod tests;
