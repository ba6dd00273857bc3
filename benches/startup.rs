//! From the start of `setpoint run` to its first tick, and what it takes when nothing happens:
//! `cargo bench --bench startup -- [RUNS] [SECONDS]`.
//!
//! Measured from outside on the binary of the same build, with one policy, the page and the API on: the policy's metric
//! writes a line at its first tick, and the clock runs from just before the process is made to when that line has been
//! read. `fresh` keeps no state; `stored` makes a new state folder each time. Then one run is left to itself for
//! SECONDS (10) with a tick each second, and its memory and CPU time are read from /proc.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

mod support;

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{arguments, cpu_seconds, load, memory_mb, summary};

const POLICY: &str = r#"
local log = require("setpoint.log")
return {
  interval = "1s",
  workload = { command = "sleep 60", min = 0, max = 40, effect = "cools" },
  control = { per_task = 5 },
  metric = function(ctx)
    if ctx.tick == 1 then log.warn("the first tick") end
    return 20
  end,
  target = function(ctx) return 20 end,
}
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u64> = arguments().iter().filter_map(|arg| arg.parse().ok()).collect();
    let runs = numbers.first().copied().unwrap_or(30);
    let idle = Duration::from_secs(numbers.get(1).copied().unwrap_or(10));
    let dir = tempfile::tempdir()?;
    let policy = dir.path().join("idle.lua");
    fs::write(&policy, POLICY)?;
    for stored in [false, true] {
        let mut times = Vec::new();
        for run in 0..runs {
            let state = stored.then(|| dir.path().join(format!("state{run}")));
            let mut started = Started::new(&policy, state.as_deref())?;
            times.push(started.first_tick()?);
        }
        println!("{}: first tick after {}", if stored { "stored" } else { "fresh" }, summary(&mut times));
    }
    let mut started = Started::new(&policy, None)?;
    started.first_tick()?;
    let process = started.child.id().to_string();
    let (before, begun) = (cpu_seconds(&process), Instant::now());
    std::thread::sleep(idle);
    let cpu = (cpu_seconds(&process) - before) / begun.elapsed().as_secs_f64();
    let (resident, own) = memory_mb(&process);
    println!("idle: {resident:.1} MB resident, {own:.1} MB of it its own; {:.2} % of one core", cpu * 100.0);
    println!("load averages {}", load());
    Ok(())
}

/// A run of the binary; it ends with this value.
struct Started {
    child: Child,
    begun: Instant,
}

impl Started {
    fn new(policy: &Path, state: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
        command.arg("run").arg(policy).args(["--listen", "127.0.0.1:0"]);
        if let Some(state) = state {
            command.arg("--state-dir").arg(state);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let begun = Instant::now();
        Ok(Self { child: command.spawn()?, begun })
    }

    /// Waits for the line of the first tick.
    fn first_tick(&mut self) -> Result<Duration, Box<dyn Error>> {
        let mut errors = BufReader::new(self.child.stderr.take().ok_or("its errors are read once")?);
        let mut line = String::new();
        let mut told = String::new();
        while errors.read_line(&mut line)? != 0 {
            if line.contains("the first tick") {
                let took = self.begun.elapsed();
                // Somebody must go on reading, or the process would get an error for what it writes.
                std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
                return Ok(took);
            }
            told.push_str(&line);
            line.clear();
        }
        Err(format!("it ended before its first tick: {told}").into())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It has no tasks; when it has ended by itself there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
