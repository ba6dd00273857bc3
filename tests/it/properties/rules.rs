//! The rules of a decision, checked against books that are kept apart from the policy's state.

use std::time::Duration;

use setpoint::core::decide::Config;
use setpoint::core::decision::{Bounds, Decision, Guard, Observation};
use setpoint::core::model::{Effect, Sample};
use setpoint::core::policy::{Confirm, LawSpec, OnMissing, StepLimit, Tolerance};
use setpoint::core::time::Timestamp;

/// What was carried out, seen and proposed, in full.
#[derive(Default)]
pub(super) struct Books {
    first: Option<Timestamp>,
    last_good: Option<Timestamp>,
    last_launch: Option<Timestamp>,
    last_change: Option<Timestamp>,
    changes: Vec<(Timestamp, i64)>,
    proposals: Vec<(Timestamp, i64)>,
    directions: Vec<i64>,
    /// A reload may have cut what the core counts; the books start that count anew.
    blurred: bool,
}

/// The adjustment as it came to `guard`.
fn before(decision: &Decision, guard: Guard) -> i64 {
    decision.reasons.iter().rfind(|reason| reason.guard < guard).map_or(decision.raw, |reason| reason.to)
}

/// The adjustment as it left `guard`.
fn after(decision: &Decision, guard: Guard) -> i64 {
    decision.reasons.iter().rfind(|reason| reason.guard <= guard).map_or(decision.raw, |reason| reason.to)
}

fn fresh(config: &Config<'_>, observation: &Observation) -> bool {
    match &observation.sample {
        Sample::Value { value, age, .. } => {
            value.is_finite()
                && *age <= config.control.stale_after.unwrap_or(config.interval.max * 3)
                && (observation.setpoint.is_some() || !config.control.law.needs_setpoint())
        }
        _ => false,
    }
}

impl Books {
    /// A reload with another confirmation or law: what was seen before may or may not count.
    pub(super) fn reloaded(&mut self) {
        self.blurred = true;
    }

    /// Takes in what was carried out, by decision.
    pub(super) fn carried_out(&mut self, now: Timestamp, launched: u32, killed: u32) {
        if launched > 0 {
            self.last_launch = Some(now);
            self.changes.push((now, i64::from(launched)));
        }
        if killed > 0 {
            self.changes.push((now, -i64::from(killed)));
        }
        if launched > 0 || killed > 0 {
            self.last_change = Some(now);
            self.directions.clear();
            self.blurred = false;
        }
    }

    /// Every rule of one decision.
    pub(super) fn check(&mut self, config: &Config<'_>, observation: &Observation, decision: &Decision) {
        let fresh = fresh(config, observation);
        // Without a metric, a law that reads no sample has nothing to wait for.
        let blind = !config.metric && observation.sample == Sample::Missing && !config.control.law.needs_sample();
        let kills = fresh || blind;
        self.first.get_or_insert(observation.now);
        if fresh {
            self.last_good = Some(observation.now);
        }
        chain(observation, decision);
        law(config, observation, decision, fresh);
        self.sample_rule(config, observation, decision, kills);
        tolerance(config, observation, decision, fresh);
        self.confirmation(config, decision);
        self.stabilization(config, observation, decision, kills);
        self.limits(config, observation, decision);
        bounds(config, observation, decision, kills);
    }

    /// Never a scale-in on missing, stale or failed data, and a launch without data only as `on_missing` says.
    fn sample_rule(&self, config: &Config<'_>, observation: &Observation, decision: &Decision, kills: bool) {
        if kills {
            return;
        }
        let max = observation.bounds.map_or(config.max, |bounds| bounds.max);
        let count = i64::from(decision.desired) + decision.adjustment;
        assert!(
            decision.adjustment >= 0 || (max != config.max && count >= i64::from(max)),
            "a scale-in without a fresh sample"
        );
        let allowed = after(decision, Guard::Sample);
        assert!(allowed >= 0, "a wish to scale in that passed the sample rule");
        let age = |since: Option<Timestamp>| since.map(|since| observation.now.since(since));
        let permitted = match config.control.on_missing {
            _ if matches!(config.control.law, LawSpec::Count { .. }) => true,
            OnMissing::Hold => false,
            OnMissing::Keep(keep) => age(self.last_good).is_some_and(|age| age <= keep),
            OnMissing::Fallback { n, after } => {
                let due = age(self.last_good.or(self.first)).is_some_and(|age| after <= age);
                assert!(!due || i64::from(decision.desired) + allowed >= i64::from(n), "the fallback did not come");
                due && i64::from(decision.desired) + allowed <= i64::from(n)
            }
        };
        assert!(permitted || allowed == 0, "a launch without a fresh sample under {:?}", config.control.on_missing);
    }

    fn confirmation(&mut self, config: &Config<'_>, decision: &Decision) {
        let direction = before(decision, Guard::Confirmation).signum();
        self.directions.push(direction);
        let Some(confirm) = config.control.confirm else { return };
        let count = |seen: &[i64]| seen.iter().filter(|seen| **seen == direction).count();
        let (seen, needed) = match confirm {
            Confirm::Window { n, of } => {
                (count(&self.directions[self.directions.len().saturating_sub(of as usize)..]), n as usize)
            }
            Confirm::Total { n } => (count(&self.directions), n as usize),
        };
        let left = after(decision, Guard::Confirmation);
        if seen < needed {
            assert_eq!(left, 0, "not confirmed: {seen} of {needed}");
        } else if !self.blurred {
            assert_eq!(left, before(decision, Guard::Confirmation), "confirmed, and held all the same");
        }
    }

    /// The HPA's windows, from every single proposal.
    fn stabilization(&mut self, config: &Config<'_>, observation: &Observation, decision: &Decision, kills: bool) {
        let windows = config.control.stabilization;
        let (desired, now) = (i64::from(decision.desired), observation.now);
        let wanted = before(decision, Guard::Stabilization);
        let left = after(decision, Guard::Stabilization);
        if !kills && wanted == 0 {
            assert_eq!(left, 0);
            return;
        }
        let longest = windows.up.max(windows.down);
        if longest.is_zero() {
            self.proposals.clear();
            assert_eq!(left, wanted, "there is no window");
            return;
        }
        self.proposals.retain(|(at, _)| now.since(*at) < longest);
        if self.proposals.is_empty() {
            self.proposals.push((now, desired));
        }
        let proposed = (desired + wanted).clamp(0, i64::from(u32::MAX));
        self.proposals.push((now, proposed));
        let within = |window: Duration| {
            let inside = self.proposals.iter().filter(move |(at, _)| now.since(*at) < window);
            inside.map(|(_, count)| *count).chain([proposed])
        };
        let lowest = within(windows.up).min().unwrap_or(proposed);
        let highest = within(windows.down).max().unwrap_or(proposed);
        let expected = desired.max(lowest).min(highest);
        assert_eq!(desired + left, expected, "{windows:?}: {proposed} over {:?}", self.proposals);
    }

    /// Step limits, cooldowns and the flap budget; a launch up to min and a scale-in to max are above them.
    fn limits(&mut self, config: &Config<'_>, observation: &Observation, decision: &Decision) {
        let Bounds { max, .. } = config.bounds(observation);
        let control = config.control;
        let now = observation.now;
        // A reload that makes a window longer starts from what the shorter one remembered.
        let step = |limit: Option<StepLimit>| limit.and_then(|limit| limit.per).unwrap_or_default();
        let flap = control.flap.map_or(Duration::ZERO, |flap| flap.per);
        let longest = step(control.step.up).max(step(control.step.down)).max(flap);
        self.changes.retain(|(at, _)| now.since(*at) < longest);
        let by_decision = if decision.adjustment > 0 {
            decision.adjustment - i64::from(decision.to_min)
        } else if decision.desired > max {
            0
        } else {
            decision.adjustment
        };
        if by_decision == 0 {
            return;
        }
        let launch = by_decision > 0;
        let (last, cooldown) =
            if launch { (self.last_launch, control.cooldown.up) } else { (self.last_change, control.cooldown.down) };
        assert!(last.is_none_or(|last| cooldown <= now.since(last)), "a second decision inside a cooldown");
        let within = |per: Duration| self.changes.iter().filter(move |(at, _)| now.since(*at) < per);
        if let Some(StepLimit { tasks, fraction, per }) = if launch { control.step.up } else { control.step.down } {
            let window = per.unwrap_or_default();
            let net: i64 = within(window).map(|(_, change)| change).sum();
            let used: i64 = within(window).map(|(_, change)| *change).filter(|change| (*change > 0) == launch).sum();
            let base = (i64::from(decision.desired) - net).max(0) as f64;
            let share = fraction.map(|fraction| (fraction * base).ceil().max(1.0));
            if let Some(allowed) = tasks.map(f64::from).max_by(share) {
                assert!((used + by_decision).abs() as f64 <= allowed.max(used.abs() as f64), "beyond a step limit");
            }
        }
        if let Some(flap) = control.flap {
            let used: i64 = within(flap.per).map(|(_, change)| change.abs()).sum();
            assert!(used + by_decision.abs() <= i64::from(flap.changes).max(used), "beyond the flap budget");
        }
    }
}

/// The larger of two figures that may be absent.
trait MaxBy {
    fn max_by(self, other: Self) -> Self;
}

impl MaxBy for Option<f64> {
    fn max_by(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (one, two) => one.or(two),
        }
    }
}

/// Rule 7: the reasons lead from raw to the adjustment, in the order of the guards, and each changes something
/// but for the law's and the sample's.
fn chain(observation: &Observation, decision: &Decision) {
    assert_eq!((decision.at, decision.desired), (observation.now, observation.counts.desired()));
    let mut adjustment = decision.raw;
    let mut last = Guard::Law;
    for reason in &decision.reasons {
        assert!(last <= reason.guard, "out of order: {:?}", decision.reasons);
        assert_eq!(reason.from, adjustment, "a gap before {reason:?}");
        assert!(reason.from != reason.to || reason.guard <= Guard::Sample, "nothing changed: {reason:?}");
        last = reason.guard;
        adjustment = reason.to;
        assert!(!reason.to_string().is_empty());
    }
    assert_eq!(adjustment, decision.adjustment, "the last reason is the decision");
}

/// Rules 1 and 2, and 4 where it can be said in one line.
fn law(config: &Config<'_>, observation: &Observation, decision: &Decision, fresh: bool) {
    let desired = i64::from(decision.desired);
    if config.counter && decision.raw < 0 {
        // Less than none means tasks that stand against the metric; there is no count to compare with.
        return;
    }
    assert!((0..=i64::from(u32::MAX)).contains(&(desired + decision.raw)), "rule 2: a count that does not exist");
    let (Sample::Value { value, .. }, Some(setpoint), true) = (&observation.sample, observation.setpoint, fresh) else {
        return;
    };
    if let LawSpec::Proportional { per_task } = config.control.law {
        let sign = if config.effect == Effect::Heats { 1.0 } else { -1.0 };
        let tasks = sign * (setpoint - value) / per_task;
        let exact = (tasks - observation.in_flight.net() as f64).clamp(-(desired as f64), 4e9);
        assert!((decision.raw as f64 - exact).abs() <= 1.0 || exact >= 4e9, "raw {} for {exact}", decision.raw);
    }
    if let LawSpec::Ratio { tolerance } = config.control.law {
        let ratio = if config.effect == Effect::Heats { setpoint / value } else { value / setpoint };
        let wanted =
            if setpoint <= 0.0 || *value < 0.0 || (ratio - 1.0).abs() <= tolerance { 0.0 } else { ratio - 1.0 };
        let against = decision.raw != 0 && decision.raw.is_positive() != wanted.is_sign_positive();
        assert!(!against && (wanted != 0.0 || decision.raw == 0), "raw {} at a ratio of {ratio}", decision.raw);
    }
}

/// Inside the dead band nothing is wanted.
fn tolerance(config: &Config<'_>, observation: &Observation, decision: &Decision, fresh: bool) {
    let (Sample::Value { value, .. }, Some(setpoint), true) = (&observation.sample, observation.setpoint, fresh) else {
        return;
    };
    let width = match config.control.tolerance {
        Tolerance::Absolute(width) => width,
        Tolerance::Relative(share) => share * setpoint.abs(),
    };
    let left = after(decision, Guard::Tolerance);
    if width > 0.0 && (setpoint - value).abs() <= width {
        assert_eq!(left, 0, "inside the dead band");
    } else {
        assert_eq!(left, before(decision, Guard::Tolerance), "outside the dead band");
    }
}

/// Rules 5 and 6, and what stands above a policy.
fn bounds(config: &Config<'_>, observation: &Observation, decision: &Decision, kills: bool) {
    let Bounds { min, max } = config.bounds(observation);
    let adjustment = decision.adjustment;
    let to_min = i64::from(decision.to_min);
    if observation.dry_run {
        assert_eq!((adjustment, to_min), (0, 0), "a dry run carries out nothing");
        return;
    }
    let count = i64::from(decision.desired) + adjustment;
    let room = i64::from(max.saturating_sub(observation.counts.occupied()));
    let missing = (i64::from(min) - i64::from(decision.desired)).clamp(0, room);
    assert_eq!(to_min, missing, "launches up to min are always made, as far as there is room");
    assert!(to_min == 0 || to_min <= adjustment, "{adjustment} with {to_min} up to min");
    if adjustment > 0 {
        assert!(count <= i64::from(max), "beyond max");
        assert!(adjustment <= room, "rule 5: no room");
    }
    if adjustment < 0 && config.counter {
        assert!(-adjustment <= room, "rule 5: no room for what stands against the metric");
    } else if adjustment < 0 {
        assert!(count >= i64::from(min), "below min");
    }
    if let Some(budget) = observation.budget {
        assert!((adjustment - to_min).unsigned_abs() <= u64::from(budget), "beyond the global budget");
    }
    if observation.paused {
        assert_eq!(adjustment, to_min, "a pause stops decisions");
    } else if !config.counter && observation.budget.is_none() && (kills || max != config.max) {
        assert!(count <= i64::from(max), "more than max stays");
    }
}
