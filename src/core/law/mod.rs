//! The laws: each turns an observation into a proposed number of tasks.
//!
//! A law knows nothing of guards, bounds or timers, and cannot fail: where its inputs do not determine a
//! number, it proposes the number that is desired already. `raw` is what it proposes − desired, in tasks.
//!
//! Invariants: a proposal is between 0 and `u32::MAX` whatever the sample; every law that works on a
//! deviation corrects it by what is in flight, but for `relay` with `compat`; `count` and `decide` have no
//! deviation to correct (a script sees what is in flight itself).
//!
//! A law is a file here, a variant of [`LawSpec`] and an arm in `propose`.

mod adaptive;
mod count;
mod pid;
mod proportional;
mod ratio;
mod relay;
mod scripted;
mod step;

use std::collections::VecDeque;
use std::time::Duration;

pub use adaptive::AdaptiveState;
pub use pid::PidState;

use super::decision::{Detail, InFlight, LawState, Scripted};
use super::model::{Effect, Point};
use super::policy::LawSpec;
use super::time::Timestamp;

/// What a law may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// Engine time of the tick.
    pub(crate) now: Timestamp,
    /// What more tasks do to the metric.
    pub(crate) effect: Effect,
    /// The desired number of tasks.
    pub(crate) desired: u32,
    /// The sample and its setpoint (the sample itself where there is none); absent when the law needs no sample.
    pub(crate) point: Option<Point>,
    /// Fresh samples up to now, this one included and last.
    pub(crate) history: &'a VecDeque<Point>,
    /// How many fresh samples there were since the policy's first start, this one included.
    pub(crate) seen: u32,
    /// How many first samples are the ramp's.
    pub(crate) ramp: u32,
    /// Changes whose effect the sample does not show yet.
    pub(crate) in_flight: InFlight,
    /// Tasks that were asked for since the last tick and not placed.
    pub(crate) refused: u32,
    /// Tasks that are ready.
    pub(crate) ready: u32,
    /// How many tasks the sample speaks for, where the metric says so.
    pub(crate) reported: Option<u32>,
    /// How old the sample was when it was read.
    pub(crate) age: Duration,
    /// The answer of the script's own law.
    pub(crate) scripted: Option<&'a Scripted>,
}

/// What a law gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proposal {
    /// The proposed number of tasks.
    pub(crate) count: u32,
    /// What the law has to say about it, if anything.
    pub(crate) note: Option<Detail>,
}

impl Proposal {
    const fn plain(count: u32) -> Self {
        Self { count, note: None }
    }
}

impl LawSpec {
    /// Whether the law works on the sample; the others decide without one.
    #[must_use]
    pub const fn needs_sample(&self) -> bool {
        matches!(
            self,
            Self::Proportional { .. }
                | Self::Pid(_)
                | Self::Ratio { .. }
                | Self::Adaptive(_)
                | Self::Relay { .. }
                | Self::Step { .. }
        )
    }

    /// Whether the law's proposal is the desired number and so many more or less.
    #[must_use]
    pub const fn works_on_differences(&self) -> bool {
        matches!(self, Self::Proportional { .. } | Self::Pid(_) | Self::Relay { .. } | Self::Step { .. })
    }

    /// Whether the law works on the deviation from a setpoint.
    #[must_use]
    pub const fn needs_setpoint(&self) -> bool {
        matches!(
            self,
            Self::Proportional { .. } | Self::Pid(_) | Self::Ratio { .. } | Self::Adaptive(_) | Self::Relay { .. }
        )
    }
}

/// Asks a law for its proposal.
pub(crate) fn propose(law: &LawSpec, state: &mut LawState, input: &Input<'_>) -> Proposal {
    match law {
        LawSpec::Proportional { per_task } => Proposal::plain(proportional::propose(*per_task, input)),
        LawSpec::Pid(gains) => Proposal::plain(pid::propose(gains, state, input)),
        LawSpec::Ratio { tolerance } => ratio::propose(*tolerance, input),
        LawSpec::Adaptive(tuning) => adaptive::propose(tuning, state, input),
        LawSpec::Relay { compat } => Proposal::plain(relay::propose(*compat, input)),
        LawSpec::Step { tiers, hysteresis } => Proposal::plain(step::propose(tiers, *hysteresis, state, input)),
        LawSpec::Count { n, wait } => Proposal::plain(count::propose(*n, *wait, state, input)),
        LawSpec::Decide => scripted::propose(input),
    }
}

/// Tells the law what was really launched of what it asked for.
pub(crate) fn settle(state: &mut LawState, launched: u32, killed: u32) {
    count::settle(state, launched);
    pid::settle(state, launched, killed);
    adaptive::settle(state, launched);
}

/// The nearest number of tasks that exists; `otherwise` for a NaN.
fn to_count(tasks: f64, otherwise: u32) -> u32 {
    // `as` saturates at both ends, infinities included.
    if tasks.is_nan() { otherwise } else { tasks as u32 }
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// An input that holds only a point.
    pub(crate) fn input(history: &VecDeque<Point>, effect: Effect, desired: u32) -> Input<'_> {
        Input {
            now: history.back().map_or(Timestamp::ZERO, |point| point.at),
            effect,
            desired,
            point: history.back().copied(),
            history,
            seen: u32::try_from(history.len()).unwrap(),
            ramp: 0,
            in_flight: InFlight::default(),
            refused: 0,
            ready: desired,
            reported: None,
            age: Duration::ZERO,
            scripted: None,
        }
    }

    /// A history of deviations (setpoint 0), a second apart.
    pub(crate) fn deviations(values: &[f64]) -> VecDeque<Point> {
        (1..)
            .zip(values)
            .map(|(second, h)| Point { at: Timestamp::from_millis(second * 1000), value: -h, setpoint: 0.0 })
            .collect()
    }
}
