//! The engine's clock: monotonic, and continued over restarts.
//!
//! The only place of the runtime that reads clocks. Engine time moves with the monotonic clock; at a start it
//! continues from what the store held, plus the wall-clock time that passed in between, never backwards.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::core::time::Timestamp;

/// Maps monotonic time to engine time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    base: Timestamp,
}

impl Clock {
    /// Starts the clock, continuing from what was stored.
    pub(crate) fn start(stored: Option<(Timestamp, SystemTime)>) -> Self {
        let base = stored.map_or(Timestamp::from_millis(1), |(at, wall)| {
            at + SystemTime::now().duration_since(wall).unwrap_or(Duration::ZERO)
        });
        Self { origin: Instant::now(), base }
    }

    /// Now, in engine time.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// A monotonic instant in engine time.
    pub(crate) fn at(&self, instant: Instant) -> Timestamp {
        self.base + instant.saturating_duration_since(self.origin)
    }

    /// The wall clock.
    #[expect(clippy::unused_self, reason = "time is asked of the clock, wherever it comes from")]
    pub(crate) fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Notices a wall clock that jumped between two looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JumpDetector {
    wall: SystemTime,
    engine: Timestamp,
}

impl JumpDetector {
    /// A difference up to this is drift or scheduling noise.
    const SLACK: Duration = Duration::from_secs(1);

    pub(crate) const fn new(wall: SystemTime, engine: Timestamp) -> Self {
        Self { wall, engine }
    }

    /// Whether the wall clock moved otherwise than the engine's since the last call.
    pub(crate) fn jumped(&mut self, wall: SystemTime, engine: Timestamp) -> bool {
        let passed = engine.since(self.engine);
        let jumped = match wall.duration_since(self.wall) {
            Ok(moved) => Self::SLACK + passed / 10 < moved.abs_diff(passed),
            Err(back) => Self::SLACK < back.duration(),
        };
        *self = Self::new(wall, engine);
        jumped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_is_noticed_once() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut detector = JumpDetector::new(wall, Timestamp::from_millis(0));
        let second = |n: u64| (wall + Duration::from_secs(n), Timestamp::from_millis(n * 1000));
        let (at, engine) = second(1);
        assert!(!detector.jumped(at, engine));
        let (at, _) = second(3602);
        assert!(detector.jumped(at, Timestamp::from_millis(2000)), "an hour forwards");
        let (at, _) = second(3603);
        assert!(!detector.jumped(at, Timestamp::from_millis(3000)), "and then it goes on from there");
        assert!(detector.jumped(wall, Timestamp::from_millis(4000)), "back again");
    }

    #[test]
    fn engine_time_goes_on_over_a_restart_and_never_back() {
        let stored = Timestamp::from_millis(50_000);
        let later = Clock::start(Some((stored, SystemTime::now() - Duration::from_secs(10))));
        assert!(stored + Duration::from_secs(10) <= later.now());
        let wall_went_back = Clock::start(Some((stored, SystemTime::now() + Duration::from_secs(3600))));
        assert!(stored <= wall_went_back.now());
        assert!(wall_went_back.now() < stored + Duration::from_secs(60));
    }
}
