//! How late ticks are, and what they cost, with many policies:
//! `cargo bench --bench ticks -- [fleets|files|fleets-stored|files-stored] [SECONDS]`.
//!
//! `fleets`: 10,000 policies as 100 fleets of 100 rows; `files`: 1,000 policies, a file each. All at an interval of
//! one second, each with a Lua `metric` and `target`, in a dry run; `-stored` with a state folder and the decision log,
//! which has a record of each tick. Lag is the time from when a tick was due to when it began. The first five seconds
//! (loading, first ticks) are left out.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

mod support;

use std::error::Error;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use setpoint::runtime::view::Totals;
use support::{arguments, cpu_seconds, dry_run, dry_run_stored, folder_bytes, load, memory_mb, policy, runtime};

/// A fleet of 100 rows, each an ordinary policy.
fn fleet() -> String {
    format!(
        r#"
local function discover()
  local rows = {{}}
  for i = 1, 100 do rows[i] = {{ name = "row" .. i }} end
  return rows
end
local function policy(row)
{}end
return setpoint.fleet {{ discover = discover, policy = policy }}
"#,
        policy("1s")
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = arguments();
    let seconds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(20);
    let cases = [("fleets", 100, fleet()), ("files", 1000, policy("1s"))];
    for (name, stored) in [("fleets", false), ("files", false), ("fleets-stored", true), ("files-stored", true)] {
        if args.iter().any(|arg| arg == name) {
            let (_, files, text) =
                cases.iter().find(|(case, ..)| name.starts_with(case)).expect("a case for each name");
            measure(name, *files, text, stored, Duration::from_secs(seconds))?;
        } else if args.iter().all(|arg| arg.parse::<u64>().is_ok()) {
            // A process each, so that one's memory does not count for the other.
            let seconds = seconds.to_string();
            let status = Command::new(std::env::current_exe()?).args([name, &seconds]).status()?;
            assert!(status.success(), "{name} failed");
        }
    }
    Ok(())
}

fn measure(name: &str, files: usize, text: &str, stored: bool, time: Duration) -> Result<(), Box<dyn Error>> {
    let (dir, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for index in 0..files {
        fs::write(dir.path().join(format!("p{index}.lua")), text)?;
    }
    runtime()?.block_on(async {
        let begun = Instant::now();
        let engine =
            if stored { dry_run_stored(dir.path(), state.path()).await? } else { dry_run(dir.path()).await? };
        let loaded = begun.elapsed();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let handle = engine.handle();
        let (before, cpu_before, wall) = (handle.totals(), cpu_seconds("self"), Instant::now());
        let bytes_before = folder_bytes(state.path());
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
        if stored {
            let written = folder_bytes(state.path()).saturating_sub(bytes_before) as f64 / 1e6;
            println!("  the state folder grew by {:.2} MB/s, {:.0} bytes a tick", written / elapsed, written * 1e6 / ticks as f64);
        }
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
