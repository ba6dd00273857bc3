//! `proportional`: raw = deviation / per_task, less what is in flight.
//!
//! On `cools` the number is rounded up, as the HPA's `ceil`: capacity has to suffice, and rounding to the
//! nearest would leave the last part of a task's worth of work for ever. On `heats` the metric follows the
//! number itself, and the nearest one (half to even) is right.

use super::{Input, to_count};
use crate::core::model::Effect;

/// Keeps a quotient that is whole but for its rounding error from being rounded up by a task.
const SLACK: f64 = 1e-9;

/// The proposed number; `per_task` in metric units.
pub(super) fn propose(per_task: f64, input: &Input<'_>) -> u32 {
    let Some(point) = input.point else { return input.desired };
    let tasks = point.deviation() / per_task;
    let pending = input.in_flight.net() as f64;
    let desired = f64::from(input.desired);
    let proposed = match input.effect {
        Effect::Cools => (desired - tasks - pending - SLACK).ceil(),
        Effect::Heats => (desired + tasks - pending).round_ties_even(),
    };
    to_count(proposed, input.desired)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{deviations, input};
    use super::*;
    use crate::core::decision::InFlight;

    #[test]
    fn rounds_up_where_tasks_cool_and_to_the_nearest_where_they_heat() {
        use Effect::{Cools, Heats};
        let cases = [
            // (effect, deviation, per_task, desired, launches, kills, proposed)
            (Cools, -10.0, 5.0, 3, 0, 0, 5),
            (Cools, -11.0, 5.0, 3, 0, 0, 6),
            (Cools, 9.0, 5.0, 3, 0, 0, 2),
            (Cools, 100.0, 5.0, 3, 0, 0, 0),
            (Cools, -0.3, 0.1, 0, 0, 0, 3),
            (Cools, -10.0, 5.0, 5, 2, 0, 5),
            (Cools, 10.0, 5.0, 5, 0, 2, 5),
            (Heats, 20.0, 1.0, 0, 0, 0, 20),
            (Heats, 2.5, 1.0, 0, 0, 0, 2),
            (Heats, 3.5, 1.0, 0, 0, 0, 4),
            (Heats, -3.0, 1.0, 20, 0, 0, 17),
            (Heats, 20.0, 1.0, 20, 20, 0, 20),
            (Heats, 0.0, 1.0, 20, 5, 2, 17),
        ];
        for (effect, deviation, per_task, desired, launches, kills, proposed) in cases {
            let history = deviations(&[deviation]);
            let in_flight = InFlight { launches, kills };
            let given = propose(per_task, &Input { in_flight, ..input(&history, effect, desired) });
            assert_eq!(given, proposed, "{effect:?} {deviation} {per_task} {desired} {in_flight:?}");
        }
    }

    #[test]
    fn huge_figures_saturate() {
        for effect in [Effect::Cools, Effect::Heats] {
            for deviation in [f64::MAX, -f64::MAX, 1e308, -1e308, 0.0] {
                for desired in [0, 7, u32::MAX] {
                    let history = deviations(&[deviation]);
                    let in_flight = InFlight { launches: u32::MAX, kills: 0 };
                    let given = propose(1e-300, &Input { in_flight, ..input(&history, effect, desired) });
                    if deviation != 0.0 {
                        let launches = (deviation > 0.0) == (effect == Effect::Heats);
                        assert_eq!(given, if launches { u32::MAX } else { 0 });
                    }
                }
            }
        }
    }
}
