//! The guards: what limits the adjustment that a law wants.
//!
//! Their order is fixed (semantics §7): sample rule, tolerance, confirmation, ramp, stabilization, step
//! limits, cooldowns, flap budget, min/max, global budget, pause, dry run. A guard sees what the one before
//! it left. Each records a [`Reason`] when it changes the adjustment; the sample rule records one whenever
//! the sample is not fresh, since that is why the law was not asked.
//!
//! Invariants: the reasons form a chain from the raw adjustment to the final one; desired + adjustment stays
//! between 0 and `u32::MAX`; no guard but `bound` makes a kill of anything but a kill.

pub(super) mod bound;
pub(super) mod confirm;
pub(super) mod limit;
pub(super) mod ramp;
pub(super) mod sample;
pub(super) mod stabilize;

use std::collections::VecDeque;
use std::time::Duration;

use super::decision::{Detail, Guard, Reason};
use super::time::Timestamp;

/// An adjustment on its way through the guards.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// The desired number before the decision.
    pub(super) desired: i64,
    /// The adjustment as it stands.
    pub(super) adjustment: i64,
    /// Who changed it so far.
    pub(super) reasons: Vec<Reason>,
}

impl Chain {
    /// A chain that starts from the law's raw adjustment.
    pub(super) fn new(desired: u32, raw: i64) -> Self {
        Self { desired: i64::from(desired), adjustment: raw, reasons: Vec::new() }
    }

    /// Makes the adjustment `to`, with a reason if that is a change.
    fn set(&mut self, guard: Guard, to: i64, detail: impl FnOnce() -> Detail) {
        if self.adjustment != to {
            self.note(guard, to, detail());
        }
    }

    /// Makes the adjustment `to`, with a reason in any case.
    pub(super) fn note(&mut self, guard: Guard, to: i64, detail: Detail) {
        self.reasons.push(Reason { guard, from: self.adjustment, to, detail });
        self.adjustment = to;
    }
}

/// Drops entries that are as old as `window` or older.
fn expire<T>(entries: &mut VecDeque<(Timestamp, T)>, now: Timestamp, window: Duration) {
    while entries.front().is_some_and(|(at, _)| window <= now.since(*at)) {
        entries.pop_front();
    }
}

/// `left` of something with a limit, as a reason's figures.
fn most(limit: i64, per: Option<Duration>) -> Detail {
    Detail::Limit { limit, per }
}
