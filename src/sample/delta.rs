//! The share of CPU between two readings of counters that only grow.

/// Readings closer together than this, in nanoseconds of each core, say too little: kernels count in ticks of 10 ms.
const SHORTEST: u64 = 100_000_000;

/// The last reading of one task, and what it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuMeter {
    last: Option<(u64, u64)>,
    percent: Option<f64>,
}

impl CpuMeter {
    /// Takes in the CPU time used so far, and the time that there was on `cores` cores together, both in
    /// nanoseconds; the share of one core since the reading before, in percent. None until there are two readings;
    /// a reading too soon after the last gives the last share again.
    pub fn read(&mut self, used: u64, available: u64, cores: u32) -> Option<f64> {
        let Some((used_before, available_before)) = self.last else {
            self.last = Some((used, available));
            return None;
        };
        if available < available_before {
            // Another machine, or the same one after a restart: what was read before says nothing.
            *self = Self { last: Some((used, available)), percent: None };
            return None;
        }
        let span = available - available_before;
        if SHORTEST.saturating_mul(cores.into()) <= span {
            // A sum over processes shrinks when one of them leaves; what the others used is then unknown.
            let used_since = used.saturating_sub(used_before) as f64;
            self.percent = Some(used_since / span as f64 * f64::from(cores) * 100.0);
            self.last = Some((used, available));
        }
        self.percent
    }

    /// Whether it has taken in a reading.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.last.is_none()
    }

    /// Whether `used` is less than it was: the counter belongs to another run.
    #[must_use]
    pub fn is_reset_by(&self, used: u64) -> bool {
        self.last.is_some_and(|(before, _)| used < before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn shares_come_from_two_readings() {
        let mut meter = CpuMeter::default();
        let ms = |millis: u64| millis * SECOND / 1000;
        assert_eq!(meter.read(10 * SECOND, 0, 1), None);
        assert_eq!(meter.read(10 * SECOND + ms(50), ms(50), 1), None, "too soon");
        assert_eq!(meter.read(10 * SECOND + ms(500), ms(1000), 1), Some(50.0));
        assert_eq!(meter.read(10 * SECOND + ms(700), ms(1020), 1), Some(50.0), "the last share again");
        assert_eq!(meter.read(14 * SECOND + ms(500), ms(3000), 1), Some(200.0), "two cores");
        assert_eq!(meter.read(SECOND, ms(4000), 1), Some(0.0), "a process left");
        assert_eq!(meter.read(SECOND, ms(4000), 1), Some(0.0), "a clock that stands still");
        assert_eq!(meter.read(SECOND, ms(1000), 1), None, "a machine that started again");
        assert_eq!(meter.read(2 * SECOND, ms(2000), 1), Some(100.0));
    }

    #[test]
    fn the_machines_time_is_that_of_all_its_cores() {
        let mut meter = CpuMeter::default();
        assert_eq!(meter.read(0, 0, 4), None);
        assert_eq!(meter.read(SECOND / 10, SECOND / 5, 4), None, "50 ms on each core are too few");
        assert_eq!(meter.read(SECOND / 2, 4 * SECOND, 4), Some(50.0));
    }
}
