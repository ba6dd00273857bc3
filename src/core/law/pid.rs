//! `pid`: proportional, integral and derivative terms whose sum is the adjustment.
//!
//! ```text
//!   raw = kp · e + I + D        I ← I + ki · h · e        D ← (Tf · D − kd · Δy) / (Tf + h)
//! ```
//!
//! e is the deviation, y the sample, h the time since the last sample. The sum adjusts the number, as with `proportional`
//! (which this is where ki and kd are 0): the number of tasks is an integrator by itself, so that kp leaves no
//! lasting deviation where a number of tasks holds the metric still. ki is for metrics that leak away
//! under a steady number (jobs that end), kd damps those that add up what the tasks do (a queue).
//!
//! - The derivative is that of the sample, not of the deviation, so a new setpoint gives no kick; it goes
//!   through a first-order filter with the time constant Tf.
//! - Smith predictor: the model of the plant is one task = `per_task`, shown `control.lag` after it is ready. What is in
//!   flight by the ledger is that model's prediction, and is taken off before e is used.
//! - Anti-windup by clamping (conditional integration): the sum does not grow in a direction in which the last adjustment
//!   was not carried out in full, whatever held it back: a guard, a bound, the room, a backend that had no offer.
//!   It is never larger than what it may do at once: as many tasks as the present deviation could be worth, or
//!   the number itself, whichever is more.
//!
//! Source: K. J. Åström, T. Hägglund, "Advanced PID Control" (ISA, 2006), chapters 3 (filtering, windup) and 13
//! (discretisation: backward differences), chapter 8 (dead-time compensation).

use serde::{Deserialize, Serialize};

use super::{Input, to_count};
use crate::core::decision::LawState;
use crate::core::model::{Effect, Point};
use crate::core::policy::Gains;

/// What the law keeps between ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidState {
    /// The integral term, in tasks (+ warms).
    pub integral: f64,
    /// The filtered derivative term, in tasks (+ warms).
    pub derivative: f64,
    /// The last sample.
    pub last: Option<Point>,
    /// What the last adjustment is still short of, in tasks; its sign is the direction that is held back.
    pub short: i64,
}

/// The proposed number.
pub(super) fn propose(gains: &Gains, state: &mut LawState, input: &Input<'_>) -> u32 {
    let Some(point) = input.point else { return input.desired };
    if !matches!(state, LawState::Pid(_)) {
        *state = LawState::Pid(PidState::default());
    }
    let LawState::Pid(state) = state else { return input.desired };
    let sign = match input.effect {
        Effect::Heats => 1.0,
        Effect::Cools => -1.0,
    };
    let pending = input.in_flight.net() as f64;
    let deviation = point.deviation() - sign * pending * gains.per_task;
    state.learn(gains, &point, deviation, sign, input);
    let tasks = sign * (gains.kp * deviation + state.integral + state.derivative);
    let desired = f64::from(input.desired);
    let proposed = match input.effect {
        Effect::Cools => (desired + tasks - SLACK).ceil(),
        Effect::Heats => (desired + tasks).round_ties_even(),
    };
    let proposed = to_count(proposed, input.desired);
    state.short = i64::from(proposed) - i64::from(input.desired);
    proposed
}

/// Takes in what was carried out of the last adjustment.
pub(super) fn settle(state: &mut LawState, launched: u32, killed: u32) {
    if let LawState::Pid(state) = state {
        state.short = match state.short {
            0 => 0,
            1.. => (state.short - i64::from(launched)).max(0),
            _ => (state.short + i64::from(killed)).min(0),
        };
    }
}

/// Keeps a sum that is whole but for its rounding error from being rounded up by a task.
const SLACK: f64 = 1e-9;

impl PidState {
    fn learn(&mut self, gains: &Gains, point: &Point, deviation: f64, sign: f64, input: &Input<'_>) {
        let Some(last) = self.last.replace(*point) else { return };
        let seconds = point.at.since(last.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let filter = gains.filter.as_secs_f64();
        let moved = gains.kd * (point.value - last.value);
        self.derivative = finite((filter * self.derivative - moved) / (filter + seconds));
        let step = finite(gains.ki * seconds * deviation);
        // The direction, in tasks, in which more was asked for than was carried out.
        let short = if input.refused > 0 { 1.0 } else { self.short as f64 };
        if sign * step * short <= 0.0 {
            let most = (gains.kp * deviation).abs().max(f64::from(input.desired)).max(1.0);
            self.integral = finite(self.integral + step).clamp(-most, most);
        }
    }
}

/// Sums of huge figures start anew instead of staying infinite.
fn finite(sum: f64) -> f64 {
    if sum.is_finite() { sum } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::super::fixture::input;
    use super::*;
    use crate::core::time::Timestamp;

    const HEATS: Effect = Effect::Heats;

    /// Raw adjustments at 100 tasks for (sample, setpoint), a second apart; `carried` is the share carried out of each.
    fn raws(gains: Gains, carried: f64, figures: &[(f64, f64)]) -> Vec<i64> {
        let mut state = LawState::Empty;
        let mut history = VecDeque::new();
        (1..)
            .zip(figures)
            .map(|(second, (value, setpoint))| {
                history.push_back(Point {
                    at: Timestamp::from_millis(second * 1000),
                    value: *value,
                    setpoint: *setpoint,
                });
                let raw = i64::from(propose(&gains, &mut state, &input(&history, HEATS, 100))) - 100;
                let done = (raw.unsigned_abs() as f64 * carried) as u32;
                settle(&mut state, if raw > 0 { done } else { 0 }, if raw < 0 { done } else { 0 });
                raw
            })
            .collect()
    }

    #[test]
    fn the_derivative_is_the_samples_and_filtered() {
        let gains = Gains { kp: 0.0, filter: Duration::ZERO, ..Gains::new(1.0, None, 0.0, 4.0) };
        // A new setpoint gives no kick; a rising sample is held against, and no longer when it is steady.
        assert_eq!(raws(gains, 1.0, &[(5.0, 5.0), (5.0, 50.0), (6.0, 50.0), (6.0, 50.0)]), [0, 0, -4, 0]);
        let slow = Gains { filter: Duration::from_secs(3), ..gains };
        assert_eq!(raws(slow, 1.0, &[(0.0, 0.0), (16.0, 0.0), (16.0, 0.0), (16.0, 0.0)]), [0, -16, -12, -9]);
    }

    #[test]
    fn the_integral_grows_with_what_is_carried_out_and_stops_otherwise() {
        let gains = Gains { kp: 0.0, ..Gains::new(1.0, None, 1.0, 0.0) };
        let low = [(0.0, 2.0); 5];
        assert_eq!(raws(gains, 1.0, &low), [0, 2, 4, 6, 8]);
        assert_eq!(raws(gains, 0.0, &low), [0, 2, 2, 2, 2], "nothing could be had");
        // It comes down again at once, whatever is short in the other direction.
        assert_eq!(raws(gains, 0.0, &[(0.0, 2.0), (0.0, 2.0), (0.0, 2.0), (4.0, 2.0), (4.0, 2.0)]), [0, 2, 2, 0, -2]);
    }

    #[test]
    fn without_integral_and_derivative_it_is_proportional() {
        let gains = Gains::new(5.0, None, 0.0, 0.0);
        assert_eq!(raws(gains, 1.0, &[(0.0, 12.0), (12.0, 0.0), (3.0, 3.0)]), [2, -2, 0]);
    }
}
