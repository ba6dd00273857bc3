//! `adaptive`: learns how much one task moves the metric and after how long, and uses both. The default law.
//!
//! ```text
//!            ┌──────────────┐ one task moves the sample so much, after such a lag
//!   sample ─►│   response   ├────────────────────────────┬──────────────► sure: linear ─┐
//!   tasks  ─►│              ├──► load = sample · tasks ──┴─► forecast ──► sure: ratio ──┼─► number
//!            └──────────────┘                                              unsure ──────┘
//! ```
//!
//! Two models of what n tasks do to the sample y compete, each at every lag up to [`LONGEST_LAG`] samples (see
//! [`response`]): *linear*, y = d + b · n, and, where tasks cool and the setpoint is above 0, *ratio*, y = load / n: a
//! metric that is an average over the tasks.
//!
//! - **Unsure** (nothing has been learned yet, or neither model predicts): the number that `proportional` would take,
//!   except that whatever was changed within the longest lag counts as in flight, so that a metric that answers late
//!   is not asked the same thing twice. Where the ratio model could hold, the more careful of the two.
//! - **Linear**: n' = n_y + (setpoint − y) / b, where n_y is the number that the sample shows. It is the Smith predictor
//!   with a learned model: what is in flight, unready or not shown yet is not in n_y, and nothing adds up.
//! - **Ratio**: the load is forecast over the time until a task that is launched now shows in the sample ([`forecast`]),
//!   with a headroom for how wrong such forecasts have been. The number is that load / setpoint, rounded up.
//!   A season, where one is given, may raise it further.
//!
//! Scale-out leaves a dead band of [`DEAD_BAND`]. Scale-in of what cools goes to the highest number that was needed over
//! a few times the start-up time, and never by a forecast: the load that was measured is always covered.
//!
//! How long a task takes to start is learned from the number in flight, by Little's law: the mean number in flight is
//! the launches a second times the seconds that each takes.
//!
//! What it doesn't do: find out a gain for a metric that adds up what tasks do (a queue's length). It stays unsure there,
//! which means `proportional` with `per_task`.

mod forecast;
mod response;
mod season;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::forecast::Forecast;
use self::response::{Model, Response};
use self::season::Season;
use super::{Input, Proposal, to_count};
use crate::core::decision::{Detail, LawState};
use crate::core::model::{Effect, Point};
use crate::core::policy::Tuning;
use crate::core::time::Timestamp;

/// The longest lag that is looked for, in samples.
const LONGEST_LAG: usize = 32;

/// The furthest forecast, in samples.
const FURTHEST: usize = 24;

/// By how much the load for each task may exceed the setpoint before a task is launched, a fraction.
const DEAD_BAND: f64 = 0.05;

/// For how many times the horizon a number stays needed, and for how many samples at least.
const HOLD: (usize, usize) = (4, 12);

/// Launches over which the start-up time is averaged.
const STARTS: f64 = 64.0;

/// Loads and numbers stop here, so that sums of their squares are finite.
const MOST: f64 = 1e100;

/// Keeps a quotient that is whole but for its rounding error from being rounded up by a task.
const SLACK: f64 = 1e-9;

/// What it has learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaptiveState {
    response: Response,
    forecast: Forecast,
    season: Option<Season>,
    /// When the last sample was measured.
    measured: Option<Timestamp>,
    /// The mean time between two measurements, in seconds.
    spacing: f64,
    /// Loads that were to be covered, newest last.
    needs: VecDeque<f64>,
    starts: Starts,
}

/// The start-up time, by Little's law.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Starts {
    last: Option<Timestamp>,
    /// In flight since then.
    flying: u32,
    /// Task-seconds in flight.
    area: f64,
    /// Launches.
    launches: f64,
}

impl Starts {
    fn observe(&mut self, now: Timestamp, launches: u32) {
        if let Some(last) = self.last.replace(now) {
            self.area += f64::from(self.flying) * now.since(last).as_secs_f64();
        }
        self.flying = launches;
        if STARTS < self.launches {
            self.launches /= 2.0;
            self.area /= 2.0;
        }
    }

    /// In seconds.
    fn time(&self) -> f64 {
        if self.launches > 0.0 { self.area / self.launches } else { 0.0 }
    }
}

/// Takes in what was launched.
pub(super) fn settle(state: &mut LawState, launched: u32) {
    if let LawState::Adaptive(state) = state {
        state.starts.flying = state.starts.flying.saturating_add(launched);
        state.starts.launches += f64::from(launched);
    }
}

/// The proposed number.
pub(super) fn propose(tuning: &Tuning, state: &mut LawState, input: &Input<'_>) -> Proposal {
    let Some(point) = input.point else { return Proposal::plain(input.desired) };
    if !matches!(state, LawState::Adaptive(_)) {
        *state = LawState::Adaptive(Box::default());
    }
    let LawState::Adaptive(state) = state else { return Proposal::plain(input.desired) };
    state.observe(tuning, &point, input);
    match state.response.model() {
        Some(Model::Ratio { lag }) if point.setpoint > 0.0 => state.cover(lag, &point, input),
        Some(Model::Linear { lag, gain }) => state.follow(lag, gain, &point, input),
        _ => state.feel(tuning, &point, input),
    }
}

impl AdaptiveState {
    /// Learns from this tick's sample.
    fn observe(&mut self, tuning: &Tuning, point: &Point, input: &Input<'_>) {
        self.starts.observe(input.now, input.in_flight.launches);
        let shown = i64::from(input.desired) - input.in_flight.net();
        self.response.record(input.now, shown.clamp(0, i64::from(u32::MAX)) as u32);
        let measured = input.now - input.age;
        let gap = match self.measured {
            // The same figure once more says nothing new.
            Some(last) if measured <= last => return,
            Some(last) => measured.since(last).as_secs_f64(),
            None => 0.0,
        };
        self.measured = Some(measured);
        // Over a hole in the samples nothing can be said about what moved them.
        if self.spacing > 0.0 && 4.0 * self.spacing < gap {
            self.response.interrupt();
            self.forecast.interrupt();
        } else if gap > 0.0 {
            self.spacing += if self.spacing > 0.0 { (gap - self.spacing) / 8.0 } else { gap };
        }
        let prior = tuning.per_task * if input.effect == Effect::Heats { 1.0 } else { -1.0 };
        let ratio = input.effect == Effect::Cools && point.setpoint > 0.0;
        self.response.learn(measured, point.value, prior, ratio);
        if ratio {
            let load = self.load(self.lag(), point);
            self.forecast.observe(load, self.horizon(input));
            if let Some(period) = tuning.season {
                self.season.get_or_insert_with(|| Season::new(period)).observe(measured, load);
            }
        }
    }

    /// What all tasks together carry, if the sample is an average over them.
    fn load(&self, lag: usize, point: &Point) -> f64 {
        (point.value.max(0.0) * f64::from(self.response.shown(lag).max(1))).min(MOST)
    }

    fn lag(&self) -> usize {
        match self.response.model() {
            Some(Model::Ratio { lag } | Model::Linear { lag, .. }) => lag,
            None => 0,
        }
    }

    /// In how many samples' time a task that is launched now has its effect in the sample.
    fn horizon(&self, input: &Input<'_>) -> usize {
        let samples = (self.starts.time() + input.age.as_secs_f64()) / self.spacing.max(1e-3);
        ((samples - 0.25).ceil().clamp(0.0, FURTHEST as f64) as usize + self.lag() + 1).min(FURTHEST)
    }

    /// The ratio model: as many tasks as the load to come takes.
    fn cover(&mut self, lag: usize, point: &Point, input: &Input<'_>) -> Proposal {
        let horizon = self.horizon(input);
        let load = self.load(lag, point);
        let trend = self.forecast.ahead(horizon);
        let span = Duration::from_secs_f64((horizon as f64 * self.spacing).clamp(0.0, 1e9));
        let season = self.season.as_ref().map_or(0.0, |season| season.ahead(input.now - input.age, span));
        let headroom = self.forecast.headroom();
        let need = load.max(trend) + headroom;
        let need = need.max(season).min(MOST);
        self.needs.push_back(need);
        while (HOLD.0 * horizon).max(HOLD.1) < self.needs.len() {
            self.needs.pop_front();
        }
        let desired = f64::from(input.desired);
        let held = self.needs.iter().copied().fold(0.0, f64::max);
        let tasks = |load: f64| (load / point.setpoint - SLACK).ceil();
        let count =
            if need / point.setpoint > desired * (1.0 + DEAD_BAND) { tasks(need) } else { tasks(held).min(desired) };
        let count = to_count(count, input.desired);
        let note =
            (count != input.desired).then_some(Detail::Forecast { load, ahead: need - headroom, headroom, span });
        Proposal { count, note }
    }

    /// The linear model: the number at which the sample is on the setpoint.
    fn follow(&mut self, lag: usize, gain: f64, point: &Point, input: &Input<'_>) -> Proposal {
        let wanted = (f64::from(self.response.shown(lag)) + point.deviation() / gain).clamp(0.0, MOST);
        let count = match input.effect {
            Effect::Heats => wanted.round_ties_even(),
            Effect::Cools => {
                let wanted = (wanted - SLACK).ceil();
                self.needs.push_back(wanted);
                while (HOLD.0 * self.horizon(input)).max(HOLD.1) < self.needs.len() {
                    self.needs.pop_front();
                }
                let held = self.needs.iter().copied().fold(wanted, f64::max);
                wanted.max(held.min(f64::from(input.desired)))
            }
        };
        let count = to_count(count, input.desired);
        let lag = Duration::from_secs_f64((lag as f64 * self.spacing).clamp(0.0, 1e9));
        Proposal { count, note: (count != input.desired).then_some(Detail::Response { gain, lag }) }
    }

    /// Unsure: feels its way, one step at a time.
    fn feel(&mut self, tuning: &Tuning, point: &Point, input: &Input<'_>) -> Proposal {
        self.needs.clear();
        let sign = if input.effect == Effect::Heats { 1.0 } else { -1.0 };
        let desired = f64::from(input.desired);
        let wanted = sign * point.deviation() / tuning.per_task;
        let pending = desired - f64::from(self.response.shown(LONGEST_LAG));
        // What was changed may still show; it counts towards a wish in the same direction.
        let wanted =
            if wanted * pending > 0.0 { wanted.signum() * (wanted.abs() - pending.abs()).max(0.0) } else { wanted };
        let mut count = match input.effect {
            Effect::Heats => (desired + wanted).round_ties_even(),
            Effect::Cools => (desired + wanted - SLACK).ceil(),
        };
        if input.effect == Effect::Cools && point.setpoint > 0.0 && input.desired > 0 {
            let shown = f64::from(self.response.shown(0));
            let ratio = (point.value.max(0.0) * shown / point.setpoint - SLACK).ceil();
            count = if count > desired { count.min(ratio).max(desired) } else { count.max(ratio).min(desired) };
        }
        let count = to_count(count, input.desired);
        Proposal { count, note: (count != input.desired).then_some(Detail::Unsure) }
    }
}
