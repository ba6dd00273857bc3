//! What `/proc` says about processes and the machine: parsing, apart from `setpoint.process`, which is for scripts.
//!
//! Everything that cannot be read (a process that has just ended, a foreign one behind `hidepid`) is left out.

use std::fs;

use super::args::Problem;

/// One process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) name: String,
    pub(super) command: String,
    /// Seconds since 1970.
    pub(super) started: f64,
    /// User and system time, in seconds.
    pub(super) cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub(super) memory: u64,
}

/// CPU time of all cores since boot, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTimes {
    pub(super) busy: u64,
    pub(super) total: u64,
}

/// Memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) available: u64,
    pub(super) swap_total: u64,
    pub(super) swap_free: u64,
}

fn text(path: &str) -> Result<String, Problem> {
    fs::read_to_string(path).map_err(|error| Problem::Failed(format!("{path}: {error}")))
}

fn unexpected(path: &str) -> Problem {
    Problem::Failed(format!("{path}: expected the format of Linux, got another"))
}

/// Every process that lives and can be read, by pid; this one is left out.
pub(super) fn processes() -> Result<Vec<Process>, Problem> {
    let boot = boot_time(&text("/proc/stat")?).ok_or_else(|| unexpected("/proc/stat"))?;
    let entries = fs::read_dir("/proc").map_err(|error| Problem::Failed(format!("/proc: {error}")))?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    let mut processes: Vec<_> = pids.filter(|pid| *pid != own).filter_map(|pid| process(pid, boot)).collect();
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

fn process(pid: u32, boot: f64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut process = parse_stat(pid, &stat, boot)?;
    process.command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    Some(process)
}

/// Reads `/proc/PID/stat`; none for a zombie. The name stands in parentheses and may hold any character, so
/// fields are counted from the last one.
fn parse_stat(pid: u32, stat: &str, boot: f64) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    // proc(5) counts from 1 with the pid; these fields begin with its third.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(Process {
        pid,
        parent: u32::try_from(number(4)?).ok()?,
        name,
        command: String::new(),
        started: boot + number(22)? as f64 / per_second,
        cpu_seconds: (number(14)? + number(15)?) as f64 / per_second,
        memory: number(24)?.saturating_mul(rustix::param::page_size() as u64),
    })
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// CPU time of the machine so far.
pub(super) fn cpu_times() -> Result<CpuTimes, Problem> {
    parse_cpu(&text("/proc/stat")?).ok_or_else(|| unexpected("/proc/stat"))
}

fn parse_cpu(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest time is part of user time already.
    let times: Vec<u64> = line.split_whitespace().take(8).map_while(|time| time.parse().ok()).collect();
    let total = times.iter().sum();
    let idle = times.get(3)? + times.get(4).copied().unwrap_or(0);
    Some(CpuTimes { busy: total - idle, total })
}

/// Memory of the machine now.
pub(super) fn memory() -> Result<Memory, Problem> {
    parse_memory(&text("/proc/meminfo")?).ok_or_else(|| unexpected("/proc/meminfo"))
}

fn parse_memory(meminfo: &str) -> Option<Memory> {
    let bytes = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Memory {
        total: bytes("MemTotal")?,
        available: bytes("MemAvailable")?,
        swap_total: bytes("SwapTotal").unwrap_or(0),
        swap_free: bytes("SwapFree").unwrap_or(0),
    })
}

/// The load averages over 1, 5 and 15 minutes.
pub(super) fn loadavg() -> Result<[f64; 3], Problem> {
    parse_loadavg(&text("/proc/loadavg")?).ok_or_else(|| unexpected("/proc/loadavg"))
}

fn parse_loadavg(line: &str) -> Option<[f64; 3]> {
    let mut loads = line.split_whitespace().map(str::parse::<f64>);
    Some([loads.next()?.ok()?, loads.next()?.ok()?, loads.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_read_whole() {
        let stat =
            "42 (a) (b c) S 7 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 500 1000000 25 18446744073709551615";
        let process = parse_stat(42, stat, 1000.0).unwrap();
        assert_eq!((process.name.as_str(), process.parent), ("a) (b c", 7));
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        assert!((process.cpu_seconds - 300.0 / per_second).abs() < 1e-9);
        assert!((process.started - (1000.0 + 500.0 / per_second)).abs() < 1e-9);
        assert_eq!(process.memory, 25 * rustix::param::page_size() as u64);
        assert_eq!(parse_stat(42, &stat.replace(" S 7", " Z 7"), 0.0), None);
        assert_eq!(parse_stat(42, "42 (short) S 7", 0.0), None);
    }

    #[test]
    fn the_machines_figures() {
        let stat = "cpu  10 5 5 70 10 0 0 0 3 0\ncpu0 1 1 1 1\nbtime 1234\n";
        assert_eq!(parse_cpu(stat), Some(CpuTimes { busy: 20, total: 100 }));
        assert_eq!(boot_time(stat), Some(1234.0));
        let meminfo = "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:   40 kB\nSwapTotal: 8 kB\nSwapFree: 2 kB\n";
        let expected = Memory { total: 102_400, available: 40_960, swap_total: 8192, swap_free: 2048 };
        assert_eq!(parse_memory(meminfo), Some(expected));
        assert_eq!(parse_memory("MemTotal: x"), None);
        assert_eq!(parse_loadavg("0.52 1.00 2.25 3/456 789"), Some([0.52, 1.0, 2.25]));
        assert_eq!(parse_loadavg("0.52"), None);
    }
}
