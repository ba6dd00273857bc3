//! The machine's own counters: CPU time over all cores, and how much memory there is.

use std::fs;
use std::io;

use super::files::Kept;

/// Fields of the `cpu` line of `/proc/stat` that `docker` adds up: user, nice, system, idle, iowait, irq, softirq.
const FIELDS: usize = 7;

/// Reads the machine's counters, again and again.
#[derive(Debug)]
pub struct Machine {
    stat: Kept,
    /// Nanoseconds of one clock tick.
    tick: u64,
    /// All memory in bytes.
    memory: u64,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn new() -> Self {
        let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
        Self {
            stat: Kept::new("/proc/stat".into()),
            tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            memory: memory.unwrap_or(u64::MAX),
        }
    }

    /// CPU time of all cores so far in nanoseconds, idle time included, and how many cores are online.
    ///
    /// # Errors
    /// There is no `/proc`, or it says something else than expected.
    pub fn cpu(&mut self, buffer: &mut Vec<u8>) -> io::Result<(u64, u32)> {
        let text = self.stat.read(buffer)?;
        let (ticks, cores) = cpu_ticks(text).ok_or(io::ErrorKind::InvalidData)?;
        Ok((ticks.saturating_mul(self.tick), cores))
    }

    /// All memory in bytes: the limit of what has none.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

fn cpu_ticks(stat: &str) -> Option<(u64, u32)> {
    let mut lines = stat.lines().take_while(|line| line.starts_with("cpu"));
    let all = lines.next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = all.split_ascii_whitespace().take(FIELDS).map_while(|field| field.parse().ok()).collect();
    let cores = u32::try_from(lines.count()).ok()?;
    (fields.len() == FIELDS && cores != 0).then(|| (fields.iter().sum(), cores))
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_what_docker_adds_up() {
        let stat = "cpu  10 5 5 70 10 1 2 900 3 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5 0\ncpufreq 1\n";
        assert_eq!(cpu_ticks(stat), Some((103, 2)), "neither steal nor guest time");
        for bad in ["", "cpu 1 2 3\ncpu0 1\n", "intr 1\ncpu  1 1 1 1 1 1 1\n", "cpu  1 1 1 1 1 1 1\n"] {
            assert_eq!(cpu_ticks(bad), None, "{bad:?}");
        }
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:   24684084 kB\n"), Some(24_684_084 << 10));
        assert_eq!(total_memory("MemTotal: much"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_is_read_again_and_again() {
        let (mut machine, mut buffer) = (Machine::new(), Vec::new());
        let (first, cores) = machine.cpu(&mut buffer).unwrap();
        let (second, _) = machine.cpu(&mut buffer).unwrap();
        assert!(0 < first && first <= second && 0 < cores && machine.memory() < u64::MAX);
    }
}
