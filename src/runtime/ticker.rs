//! The timers of the control loop, in one heap: when each policy ticks next, and the loop's own chores.
//!
//! A policy's schedule is drift-free: ticks are due at multiples of its interval from its first one, however long
//! each took. First ticks are spread out, so that policies that start together do not tick together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A policy's tick: its key, and the epoch of its schedule (older epochs are void).
    Tick(usize, u64),
    /// What a policy's backend has not placed lapses: its key and epoch, likewise.
    Lapse(usize, u64),
    /// A tick has waited long enough for its backend's word: its policy's key and epoch, likewise.
    Word(usize, u64),
    /// A source's discovery: its index, and the round (of an earlier generation of the fleet it is void).
    Discover(usize, u64),
    /// A source whose file is gone: retire its policies unless it came back.
    Retire(usize),
    /// Once a second: health, expiries, persistence.
    Chores,
    /// CPU and memory of tasks.
    Stats,
    /// A look at the workloads on count backends.
    Observe,
    /// A backend's recovery is tried again.
    Recover(String),
    /// A policy's replacement is due, or a drain is over.
    Wake(usize),
    /// The run is over (`--for`).
    End,
    /// The grace of a shutdown is over.
    Abort,
}

/// A heap of timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

impl Timers {
    /// Sets a timer.
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.next()? <= now { self.heap.pop().map(|Reverse(entry)| entry) } else { None }
    }
}

/// How long the first tick of the `index`-th policy waits: nothing for the first one, and for many an even spread
/// (golden ratio) over at most one interval, a millisecond of window for each policy before it.
pub(crate) fn first_delay(index: usize, interval: Duration) -> Duration {
    let spread = (index as f64 * 0.618_033_988_749_895).fract();
    let window = interval.min(Duration::from_millis(index as u64));
    window.mul_f64(spread)
}

/// The next due time after `due` that is later than `now`, and how many were skipped to get there.
pub(crate) fn next_due(due: Instant, interval: Duration, now: Instant) -> (Instant, u64) {
    let next = due + interval;
    if now < next || interval.is_zero() {
        return (next, 0);
    }
    let missed = (now - due).as_nanos() / interval.as_nanos();
    let missed = u32::try_from(missed).unwrap_or(u32::MAX);
    (due + interval * (missed + 1), u64::from(missed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_do_not_drift_and_skip_what_was_missed() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(next_due(start, second, start + Duration::from_millis(300)), (start + second, 0));
        assert_eq!(next_due(start, second, start + Duration::from_millis(3500)), (start + 4 * second, 3));
        assert_eq!(next_due(start, second, start + second), (start + 2 * second, 1));
    }

    #[test]
    fn many_policies_are_spread_over_their_interval() {
        let second = Duration::from_secs(1);
        assert_eq!(first_delay(0, second), Duration::ZERO);
        let mut slots = [0_u32; 100];
        for index in 1000..11_000 {
            slots[(first_delay(index, second).as_millis() / 10) as usize % 100] += 1;
        }
        assert!(slots.iter().all(|n| (80..=120).contains(n)), "{slots:?}");
    }

    #[test]
    fn timers_come_in_order() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(start + Duration::from_millis(2), Timer::Chores);
        timers.set(start + Duration::from_millis(1), Timer::Tick(7, 0));
        assert_eq!(timers.pop_due(start), None);
        let later = start + Duration::from_millis(5);
        assert_eq!(timers.pop_due(later).map(|(_, timer)| timer), Some(Timer::Tick(7, 0)));
        assert_eq!(timers.pop_due(later).map(|(_, timer)| timer), Some(Timer::Chores));
        assert_eq!(timers.pop_due(later), None);
    }
}
