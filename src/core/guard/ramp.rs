//! The ramp: the first wanted adjustment is spread over the first samples.
//!
//! Relay's documented intent (15 over 10 samples as 5,0,4,0,3,0,2,0,1), which its code stopped doing in 0.1.7
//! and overshot before: steps n, n−1 … 1 with n(n+1)/2 ≤ the total, the rest as one more step in its place
//! among them, and as many samples between two steps as fit. A total too large for that falls linearly over
//! all samples. The plan sums to the total exactly and never grows, apart from its zeros.

use super::Chain;
use crate::core::decision::{Detail, Guard, RampState};

/// Replaces the adjustment by the plan's, on a fresh sample that has been counted in `state.seen`.
pub(in crate::core) fn apply(chain: &mut Chain, ramp: u32, state: &mut RampState) {
    let index = state.seen.saturating_sub(1);
    if state.wanted == 0 {
        if ramp <= 1 || ramp <= index || chain.adjustment == 0 {
            return;
        }
        *state = RampState { seen: state.seen, wanted: chain.adjustment, from: index, over: ramp - index };
    }
    let at = index.saturating_sub(state.from);
    if at < state.over {
        let step = step(state.wanted.unsigned_abs(), state.over, at).cast_signed() * state.wanted.signum();
        // The number may have fallen by itself meanwhile.
        let step = step.max(-chain.desired);
        chain.set(Guard::Ramp, step, || Detail::Ramp { sample: at + 1, of: state.over });
    }
}

/// Step `at` of the plan that spreads `total` over `samples`.
fn step(total: u64, samples: u32, at: u32) -> u64 {
    let (samples, at) = (u64::from(samples), u64::from(at));
    let largest = triangular_root(total);
    let rest = total - largest * (largest + 1) / 2;
    let steps = largest + u64::from(rest > 0);
    if steps == 0 {
        return 0;
    }
    if steps <= samples {
        let spacing = samples / steps;
        let position = at / spacing;
        if at % spacing != 0 || steps <= position {
            return 0;
        }
        // The rest stands once more after the step of its own size.
        let repeated = rest > 0 && largest - rest < position;
        return largest + u64::from(repeated) - position;
    }
    // Shares of samples, samples − 1 … 1; what rounding leaves goes to the first ones, one each.
    let weights = u128::from(samples * (samples + 1) / 2);
    let share = |at: u64| (u128::from(total) * u128::from(samples - at) / weights) as u64;
    let placed: u64 = (0..samples).map(share).sum();
    share(at) + u64::from(at < total - placed)
}

/// The largest n with n(n+1)/2 ≤ `total`.
fn triangular_root(total: u64) -> u64 {
    // The square root is near enough that at most one correction is left; totals are below 2^33.
    let mut n = ((2.0 * total as f64 + 0.25).sqrt() - 0.5) as u64;
    while n * (n + 1) / 2 > total {
        n -= 1;
    }
    while (n + 1) * (n + 2) / 2 <= total {
        n += 1;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(total: u64, samples: u32) -> Vec<u64> {
        (0..samples).map(|at| step(total, samples, at)).collect()
    }

    #[test]
    fn a4_ramp_10_has_the_documented_shape() {
        assert_eq!(plan(15, 10), [5, 0, 4, 0, 3, 0, 2, 0, 1, 0]);
        assert_eq!(plan(7, 10), [3, 0, 2, 0, 1, 0, 1, 0, 0, 0]);
        assert_eq!(plan(0, 10), [0; 10]);
        assert_eq!(plan(1, 3), [1, 0, 0]);
        assert_eq!(plan(5, 10), [2, 0, 0, 2, 0, 0, 1, 0, 0, 0]);
        assert_eq!(plan(100, 4), [40, 30, 20, 10]);
        assert_eq!(plan(15, 2), [10, 5]);
    }

    #[test]
    fn a4_every_plan_sums_to_its_total_and_never_grows() {
        let large = [1_000, 12_345, 1 << 20, u64::from(u32::MAX)];
        for total in (0..200).chain(large) {
            for samples in (1..40).chain([100, 1000]) {
                let plan = plan(total, samples);
                assert_eq!(plan.iter().sum::<u64>(), total, "{total} over {samples}");
                let steps: Vec<u64> = plan.iter().copied().filter(|step| *step > 0).collect();
                assert!(steps.is_sorted_by(|a, b| a >= b), "{total} over {samples}: {plan:?}");
            }
        }
    }

    #[test]
    fn a_ramp_as_long_as_can_be_takes_no_room_and_no_time() {
        assert_eq!(step(u64::from(u32::MAX), u32::MAX, u32::MAX - 1), 0);
        assert_eq!(step(15, u32::MAX, 0), 5);
    }
}
