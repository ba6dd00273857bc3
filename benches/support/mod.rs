//! What the benches share: figures of processes, percentiles, and the pieces of an engine.
#![allow(dead_code, reason = "each bench uses some of it")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use setpoint::backend::Backend;
use setpoint::backend::local::{LocalBackend, LocalConfig};
use setpoint::log::LogConfig;
use setpoint::runtime::{Engine, EngineConfig, PolicySource};

/// What an ordinary policy does each tick: a metric and a target of its own, and a law that has something to decide.
pub(crate) fn policy(interval: &str) -> String {
    format!(
        r#"return {{
  interval = "{interval}",
  workload = {{ command = "sleep 60", min = 0, max = 40 }},
  control = {{ per_task = 5 }},
  metric = function(ctx) return 20 + 10 * math.sin(ctx.tick / 10) end,
  target = function(ctx) return 20 end,
}}
"#
    )
}

/// Runtime of an engine as the command line has it on two cores.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// An engine that runs the policies of a folder and launches nothing.
pub(crate) async fn dry_run(dir: &Path) -> Result<Engine, Box<dyn Error>> {
    Ok(Engine::start(config(dir)?).await?)
}

/// The same with a state folder: the store, and a decision log, as `run --state-dir` has them.
pub(crate) async fn dry_run_stored(dir: &Path, state: &Path) -> Result<Engine, Box<dyn Error>> {
    let decision_log = Some(LogConfig::new(state.join("decisions")));
    Ok(Engine::start(EngineConfig { state_dir: Some(state.to_path_buf()), decision_log, ..config(dir)? }).await?)
}

fn config(dir: &Path) -> Result<EngineConfig, Box<dyn Error>> {
    let local = Backend::Tasks(LocalBackend::new(LocalConfig::default())?);
    Ok(EngineConfig {
        sources: vec![PolicySource::Dir(dir.to_path_buf())],
        backends: [("local".to_owned(), local)].into(),
        dry_run: true,
        ..EngineConfig::default()
    })
}

/// Bytes of all files below a folder.
pub(crate) fn folder_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

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
