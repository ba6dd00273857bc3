//! `step`: thresholds on the sample, with hysteresis.
//!
//! A tier is on while the sample is strictly beyond its threshold, and stays on until the sample is back by
//! `hysteresis`. Of the tiers that are on in one direction the one with the largest adjustment counts; where
//! both directions are on, launching wins, since too few tasks do more harm than too many. What is in flight
//! in the same direction already counts towards the adjustment.

use super::Input;
use crate::core::decision::LawState;
use crate::core::policy::{Side, StepTier};

/// The proposed number.
pub(super) fn propose(tiers: &[StepTier], hysteresis: f64, state: &mut LawState, input: &Input<'_>) -> u32 {
    let Some(point) = input.point else { return input.desired };
    if !matches!(state, LawState::Step { on } if on.len() == tiers.len()) {
        *state = LawState::Step { on: vec![false; tiers.len()] };
    }
    let LawState::Step { on } = state else { return input.desired };
    let (mut up, mut down) = (0_i64, 0_i64);
    for (tier, on) in tiers.iter().zip(on) {
        *on = is_on(tier, point.value, if *on { hysteresis } else { 0.0 });
        if *on {
            up = up.max(tier.adjust);
            down = down.min(tier.adjust);
        }
    }
    let net = input.in_flight.net();
    let adjust = if up > 0 { (up - net.max(0)).max(0) } else { down.saturating_sub(net.min(0)).min(0) };
    i64::from(input.desired).saturating_add(adjust).clamp(0, i64::from(u32::MAX)) as u32
}

fn is_on(tier: &StepTier, value: f64, back: f64) -> bool {
    match tier.side {
        Side::Above => value > tier.at - back,
        Side::Below => value < tier.at + back,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{deviations, input};
    use super::*;
    use crate::core::decision::InFlight;
    use crate::core::model::Effect;

    const TIERS: [StepTier; 4] = [
        StepTier { side: Side::Above, at: 80.0, adjust: 1 },
        StepTier { side: Side::Above, at: 90.0, adjust: 3 },
        StepTier { side: Side::Below, at: 20.0, adjust: -1 },
        StepTier { side: Side::Below, at: 10.0, adjust: -2 },
    ];

    fn raws(hysteresis: f64, in_flight: InFlight, samples: &[f64]) -> Vec<i64> {
        let mut state = LawState::Empty;
        samples
            .iter()
            .map(|sample| {
                let history = deviations(&[-sample]);
                let input = Input { in_flight, ..input(&history, Effect::Cools, 50) };
                i64::from(propose(&TIERS, hysteresis, &mut state, &input)) - 50
            })
            .collect()
    }

    #[test]
    fn a_tier_fires_strictly_beyond_its_threshold_and_stays_on_until_the_sample_is_back() {
        let none = InFlight::default();
        let samples = [80.0, 80.1, 90.0, 90.1, 88.0, 86.0, 85.1, 78.0, 75.0, 20.0, 19.0, 9.0, 14.9, 15.0, 24.9, 25.0];
        assert_eq!(raws(5.0, none, &samples), [0, 1, 1, 3, 3, 3, 3, 1, 0, 0, -1, -2, -2, -1, -1, 0]);
        assert_eq!(raws(0.0, none, &[81.0, 80.0, 95.0, 90.0, 19.0, 20.0]), [1, 0, 3, 1, -1, 0]);
    }

    #[test]
    fn what_is_in_flight_counts_towards_the_same_direction_only() {
        let flight = |launches, kills| InFlight { launches, kills };
        assert_eq!(raws(0.0, flight(1, 0), &[95.0, 85.0, 5.0]), [2, 0, -2]);
        assert_eq!(raws(0.0, flight(9, 0), &[95.0, 85.0, 5.0]), [0, 0, -2]);
        assert_eq!(raws(0.0, flight(0, 1), &[95.0, 85.0, 5.0]), [3, 1, -1]);
    }

    #[test]
    fn launching_wins_where_both_directions_are_on() {
        let tiers =
            [StepTier { side: Side::Above, at: 10.0, adjust: 2 }, StepTier { side: Side::Below, at: 20.0, adjust: -9 }];
        let history = deviations(&[-15.0]);
        assert_eq!(propose(&tiers, 0.0, &mut LawState::Empty, &input(&history, Effect::Cools, 5)), 7);
    }

    #[test]
    fn a_changed_number_of_tiers_and_absurd_adjustments_are_harmless() {
        let mut state = LawState::Step { on: vec![true] };
        let tiers = [
            StepTier { side: Side::Above, at: 0.0, adjust: i64::MAX },
            StepTier { side: Side::Below, at: -1.0, adjust: i64::MIN },
        ];
        for (sample, expected) in [(5.0, u32::MAX), (-5.0, 0)] {
            let history = deviations(&[-sample]);
            let in_flight = InFlight { launches: 0, kills: 3 };
            let input = Input { in_flight, ..input(&history, Effect::Cools, 5) };
            assert_eq!(propose(&tiers, 0.0, &mut state, &input), expected);
        }
    }
}
