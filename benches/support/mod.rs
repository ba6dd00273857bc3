//! What the benches share: figures of processes, percentiles, and the pieces of an engine.
#![allow(dead_code, reason = "each bench uses some of it")]

use std::fs;
use std::time::{Duration, SystemTime};

use setpoint::backend::local::{LocalBackend, LocalConfig};
use setpoint::backend::{Backend, BackendError};

/// The arguments that are the bench's own, without those that cargo adds.
pub(crate) fn arguments() -> Vec<String> {
    std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect()
}

/// The machine's load averages: figures from a busy machine are worth less.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Memory of a process, in MB: resident, and the part of it that is the process's own (not its program file).
pub(crate) fn memory_mb(process: &str) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(f64::NAN) / 1024.0
    };
    (field("VmRSS:"), field("RssAnon:"))
}

/// User + system time of a process, in seconds.
pub(crate) fn cpu_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok());
    times.sum::<f64>() / 100.0
}

/// One of a list of times; `share` 0.5 is the median.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    let at = (times.len() as f64 * share).ceil() as usize;
    times.get(at.max(1) - 1).copied().unwrap_or_default()
}

/// Median, p99 and worst of a list of times.
pub(crate) fn summary(times: &mut [Duration]) -> String {
    let (median, p99, worst) = (percentile(times, 0.5), percentile(times, 0.99), percentile(times, 1.0));
    format!("median {}, p99 {}, worst {} ({} times)", millis(median), millis(p99), millis(worst), times.len())
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// From one wall clock time to a later one.
pub(crate) fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

/// A local backend of its own.
pub(crate) fn local() -> Result<Backend, BackendError> {
    Ok(Backend::Tasks(LocalBackend::new(LocalConfig::default())?))
}
