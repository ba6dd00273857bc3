//! The sample rule and the dead band: what may be acted on at all.
//!
//! Never scale in on missing, stale or failed data. Without a fresh sample, `on_missing` may allow a launch
//! (`keep`, `fallback`), and nothing ever allows a kill. `count` reads no sample, so it goes on filling.

use std::sync::Arc;

use super::Chain;
use crate::core::decide::Config;
use crate::core::decision::{Detail, Guard, Observation, PolicyState};
use crate::core::model::{Point, Sample};
use crate::core::policy::{LawSpec, OnMissing, Tolerance};

/// What the observation offers to act on.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::core) enum Data {
    /// A sample that may be acted on. Without a setpoint the sample stands for it: its deviation is 0.
    Fresh(Point),
    /// There is no metric, and the law needs none.
    NotNeeded,
    /// No sample: its kind, and why.
    Absent(&'static str, Arc<str>),
}

impl Data {
    /// Whether it allows a scale-in.
    pub(in crate::core) const fn allows_kills(&self) -> bool {
        !matches!(self, Self::Absent(..))
    }

    /// Whether it is a sample of this tick.
    pub(in crate::core) const fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(_))
    }
}

/// Sorts out what the sample is. Trusts nobody: a figure that is not finite, or too old, is no sample.
pub(in crate::core) fn read(config: &Config<'_>, observation: &Observation) -> Data {
    let law = &config.control.law;
    match &observation.sample {
        Sample::Value { value, age, .. } => {
            let setpoint = observation.setpoint.filter(|setpoint| setpoint.is_finite());
            if !value.is_finite() {
                absent("error", "the sample is not a finite number")
            } else if config.stale_after() < *age {
                absent("stale", &format!("it is {age:?} old"))
            } else if setpoint.is_none() && law.needs_setpoint() {
                absent("error", "there is no setpoint")
            } else {
                Data::Fresh(Point { at: observation.now, value: *value, setpoint: setpoint.unwrap_or(*value) })
            }
        }
        Sample::Missing if !config.metric && !law.needs_sample() => Data::NotNeeded,
        Sample::Missing => absent("missing", ""),
        Sample::Stale { age, .. } => absent("stale", &format!("it is {age:?} old")),
        Sample::Error { message } => Data::Absent("error", Arc::clone(message)),
    }
}

fn absent(kind: &'static str, message: &str) -> Data {
    Data::Absent(kind, Arc::from(message))
}

/// The point that a law may go on with for lack of a fresh one.
pub(in crate::core) fn kept(config: &Config<'_>, observation: &Observation, state: &PolicyState) -> Option<Point> {
    let OnMissing::Keep(keep) = config.control.on_missing else { return None };
    let last = state.last_good.filter(|last| observation.now.since(last.at) <= keep)?;
    let setpoint = observation.setpoint.filter(|setpoint| setpoint.is_finite()).unwrap_or(last.setpoint);
    Some(Point { setpoint, ..last })
}

/// The sample rule.
pub(in crate::core) fn apply(
    chain: &mut Chain,
    config: &Config<'_>,
    observation: &Observation,
    state: &PolicyState,
    data: &Data,
    kept: bool,
) {
    let Data::Absent(kind, message) = data else { return };
    let asked = kept || matches!(config.control.law, LawSpec::Count { .. });
    let mut allowed = if asked { chain.adjustment.max(0) } else { 0 };
    if let OnMissing::Fallback { n, after } = config.control.on_missing {
        let since = state.last_good.map(|last| last.at).or(state.first).unwrap_or(observation.now);
        if after <= observation.now.since(since) {
            allowed = allowed.max(i64::from(n) - chain.desired);
        }
    }
    chain.note(Guard::Sample, allowed, Detail::Sample { kind: Arc::from(*kind), message: Arc::clone(message) });
}

/// The dead band around the setpoint; a tolerance of 0 is none.
pub(in crate::core) fn tolerate(chain: &mut Chain, tolerance: Tolerance, point: Option<Point>) {
    let Some(point) = point else { return };
    let tolerance = match tolerance {
        Tolerance::Absolute(width) => width,
        Tolerance::Relative(share) => share * point.setpoint.abs(),
    };
    let tolerance = tolerance.clamp(0.0, f64::MAX);
    let deviation = point.deviation();
    if tolerance > 0.0 && deviation.abs() <= tolerance {
        chain.set(Guard::Tolerance, 0, || Detail::Tolerance { deviation, tolerance });
    }
}
