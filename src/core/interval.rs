//! Growing intervals: the time until a policy's next tick.

use std::time::Duration;

use super::policy::Interval;

/// The interval after `current`: back to the shortest when something changed, else longer by `grow`, at most `max`.
#[must_use]
pub fn next_interval(interval: &Interval, current: Duration, changed: bool) -> Duration {
    let longest = interval.max.max(interval.min);
    if changed {
        return interval.min;
    }
    let grown = current.as_secs_f64() * interval.grow.max(1.0);
    Duration::try_from_secs_f64(grown).unwrap_or(longest).clamp(interval.min, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn grows_while_nothing_happens_and_falls_back_at_the_first_change() {
        let interval = Interval { min: 5 * SECOND, max: 120 * SECOND, grow: 2.0 };
        let mut current = interval.min;
        let mut seen = Vec::new();
        for changed in [false, false, false, false, false, false, true, false] {
            current = next_interval(&interval, current, changed);
            seen.push(current.as_secs());
        }
        assert_eq!(seen, [10, 20, 40, 80, 120, 120, 5, 10]);
    }

    #[test]
    fn a_fixed_interval_never_changes_and_odd_factors_are_harmless() {
        assert_eq!(next_interval(&Interval::fixed(SECOND), SECOND, false), SECOND);
        for grow in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e308] {
            let interval = Interval { min: SECOND, max: 9 * SECOND, grow };
            let next = next_interval(&interval, SECOND, false);
            assert!(SECOND <= next && next <= interval.max, "{grow}");
        }
        let inverted = Interval { min: 9 * SECOND, max: SECOND, grow: 2.0 };
        assert_eq!(next_interval(&inverted, SECOND, false), 9 * SECOND);
    }
}
