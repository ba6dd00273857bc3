//! CPU of a task from two readings of its process group's CPU time.

use std::time::{Duration, Instant};

/// Readings closer together than this say too little: the kernel counts in ticks of 10 ms.
const SHORTEST: Duration = Duration::from_millis(100);

/// The last reading of one task, and what it came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuMeter {
    last: Option<(Instant, u64)>,
    percent: Option<f64>,
}

impl CpuMeter {
    /// Takes in CPU time in clock ticks as read at `now`; the share of one core since the reading before, in
    /// percent. None until there are two readings; a reading too soon after the last gives the last share again.
    pub(super) fn read(&mut self, now: Instant, ticks: u64, ticks_per_second: u64) -> Option<f64> {
        let Some((before, ticks_before)) = self.last else {
            self.last = Some((now, ticks));
            return None;
        };
        let elapsed = now.saturating_duration_since(before);
        if SHORTEST <= elapsed {
            // The sum can only shrink when a process has left the group; what the others used is then unknown.
            let used = ticks.saturating_sub(ticks_before) as f64 / ticks_per_second.max(1) as f64;
            self.percent = Some(100.0 * used / elapsed.as_secs_f64());
            self.last = Some((now, ticks));
        }
        self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_two_readings() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = CpuMeter::default();
        assert_eq!(meter.read(at(0), 1000, 100), None);
        assert_eq!(meter.read(at(50), 1005, 100), None, "too soon");
        assert_eq!(meter.read(at(1000), 1050, 100), Some(50.0));
        assert_eq!(meter.read(at(1020), 1070, 100), Some(50.0), "the last share again");
        assert_eq!(meter.read(at(3000), 1450, 100), Some(200.0), "two cores");
        assert_eq!(meter.read(at(4000), 100, 100), Some(0.0), "a process left");
        assert_eq!(meter.read(at(4000), 100, 100), Some(0.0), "a clock that stands still");
    }
}
