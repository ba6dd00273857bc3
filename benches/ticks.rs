//! How late ticks are, and what they cost, with many policies: `cargo bench --bench ticks -- [fleets|files] [SECONDS]`.
//!
//! `fleets`: 10,000 policies as 100 fleets of 100 rows; `files`: 1,000 policies, a file each. All at an interval of
//! one second, each with a Lua `metric` and `target`, in a dry run. Lag is the time from when a tick was due to when
//! it began. The first five seconds (loading, first ticks) are left out.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use setpoint::runtime::view::Totals;
use setpoint::runtime::{Engine, EngineConfig, PolicySource};
use support::{arguments, cpu_seconds, load, local, memory_mb};

const FLEET: &str = r#"
return setpoint.fleet {
  discover = function()
    local rows = {}
    for i = 1, 100 do rows[i] = { name = "row" .. i } end
    return rows
  end,
  policy = function(row)
    return {
      interval = "1s",
      workload = { command = "sleep 60", min = 0, max = 40 },
      control = { per_task = 5 },
      metric = function(ctx) return 20 + 10 * math.sin(ctx.tick / 10) end,
      target = function(ctx) return 20 end,
    }
  end,
}
"#;

const FILE: &str = r#"
return {
  interval = "1s",
  workload = { command = "sleep 60", min = 0, max = 40 },
  control = { per_task = 5 },
  metric = function(ctx) return 20 + 10 * math.sin(ctx.tick / 10) end,
  target = function(ctx) return 20 end,
}
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = arguments();
    let seconds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(20);
    for (name, files, text) in [("fleets", 100, FLEET), ("files", 1000, FILE)] {
        if args.iter().all(|arg| arg.parse::<u64>().is_ok() || arg == name) {
            // A process each, so that one's memory does not count for the other.
            if args.iter().any(|arg| arg == name) {
                measure(name, files, text, Duration::from_secs(seconds))?;
            } else {
                let status = std::process::Command::new(std::env::current_exe()?)
                    .args([name.to_owned(), seconds.to_string()])
                    .status()?;
                assert!(status.success(), "{name} failed");
            }
        }
    }
    Ok(())
}

fn measure(name: &str, files: usize, text: &str, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    for index in 0..files {
        fs::write(dir.path().join(format!("p{index}.lua")), text)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let begun = Instant::now();
        let engine = Engine::start(EngineConfig {
            sources: vec![PolicySource::Dir(dir.path().to_path_buf())],
            backends: [("local".to_owned(), local()?)].into(),
            dry_run: true,
            ..EngineConfig::default()
        })
        .await?;
        let loaded = begun.elapsed();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let handle = engine.handle();
        let (before, cpu_before, wall) = (handle.totals(), cpu_seconds("self"), Instant::now());
        tokio::time::sleep(time).await;
        let (after, cpu_after, elapsed) = (handle.totals(), cpu_seconds("self"), wall.elapsed().as_secs_f64());
        let ticks = after.ticks - before.ticks;
        println!(
            "{name}: {} policies, loaded in {loaded:?}; {:.0} ticks/s, {} missed; lag mean {:.2} ms, {}; {:.0} MB resident; {:.0} % of one core; load averages {}",
            handle.policies().len(),
            ticks as f64 / elapsed,
            after.missed - before.missed,
            (after.lag_sum - before.lag_sum) / ticks as f64 * 1e3,
            percentiles(&before, &after),
            memory_mb("self").0,
            (cpu_after - cpu_before) / elapsed * 100.0,
            load(),
        );
        engine.stop().await;
        Ok(())
    })
}

/// Upper bounds of the histogram's buckets in which the percentiles fall.
fn percentiles(before: &Totals, after: &Totals) -> String {
    let counts: Vec<(f64, u64)> =
        after.lag.iter().zip(&before.lag).map(|((bound, after), (_, before))| (*bound, after - before)).collect();
    let all = counts.last().map_or(0, |(_, n)| *n);
    [0.5, 0.99, 0.999]
        .map(|share| {
            let wanted = (all as f64 * share).ceil() as u64;
            let bound = counts.iter().find(|(_, n)| wanted <= *n).map_or(f64::INFINITY, |(bound, _)| *bound);
            format!("p{} ≤ {} ms", share * 100.0, bound * 1e3)
        })
        .join(", ")
}
