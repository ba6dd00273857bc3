//! How a second policy's decisions compare with those of the one that acts, tick by tick.
//!
//! What it doesn't do: it follows no decision through. Both policies are given the tasks that the acting one's decisions
//! led to, so a difference says what the other would do *now*, not where it would have led.

use serde::{Deserialize, Serialize};

use super::decision::{Decision, Guard};

/// What a decision came to, in tasks (+ launches, − kills), whether or not a dry run then held it.
#[must_use]
pub fn intended(decision: &Decision) -> i64 {
    match decision.reasons.last() {
        Some(last) if last.guard == Guard::DryRun => last.from,
        _ => decision.adjustment,
    }
}

/// Ticks on which both decided, counted by who wanted more tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Ticks on which both decided.
    pub ticks: u64,
    /// Those on which both wanted the same number of tasks.
    pub agreed: u64,
    /// Those on which the shadow wanted more.
    pub more: u64,
    /// Those on which it wanted fewer.
    pub fewer: u64,
    /// By how many tasks more, over all ticks.
    pub tasks_more: u64,
    /// By how many fewer.
    pub tasks_fewer: u64,
    /// The most that it wanted more on one tick.
    pub most_more: u64,
    /// The most that it wanted fewer.
    pub most_fewer: u64,
}

impl Tally {
    /// Counts a tick, by what both decisions came to; the difference, + where the shadow wanted more.
    pub fn add(&mut self, acting: i64, shadow: i64) -> i64 {
        let difference = shadow.saturating_sub(acting);
        let tasks = difference.unsigned_abs();
        self.ticks += 1;
        match difference {
            0 => self.agreed += 1,
            1.. => {
                self.more += 1;
                self.tasks_more = self.tasks_more.saturating_add(tasks);
                self.most_more = self.most_more.max(tasks);
            }
            _ => {
                self.fewer += 1;
                self.tasks_fewer = self.tasks_fewer.saturating_add(tasks);
                self.most_fewer = self.most_fewer.max(tasks);
            }
        }
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::decision::{Detail, Reason};
    use crate::core::time::Timestamp;

    #[test]
    fn ticks_are_counted_by_who_wanted_more() {
        let mut tally = Tally::default();
        let differences: Vec<i64> =
            [(0, 0), (2, 5), (1, 2), (-3, -4), (i64::MAX, i64::MIN)].map(|(a, b)| tally.add(a, b)).to_vec();
        assert_eq!(differences, [0, 3, 1, -1, i64::MIN]);
        assert_eq!((tally.ticks, tally.agreed, tally.more, tally.fewer), (5, 1, 2, 2));
        assert_eq!((tally.tasks_more, tally.most_more, tally.most_fewer), (4, 3, 1 << 63));
    }

    #[test]
    fn a_dry_run_holds_what_was_intended() {
        let held = Reason { guard: Guard::DryRun, from: 3, to: 0, detail: Detail::Text("dry run".into()) };
        let decision =
            Decision { at: Timestamp::ZERO, desired: 1, raw: 4, adjustment: 0, to_min: 0, reasons: vec![held] };
        assert_eq!(intended(&decision), 3);
        assert_eq!(intended(&Decision { adjustment: 2, reasons: Vec::new(), ..decision }), 2);
    }
}
