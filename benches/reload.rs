//! From the last write of a policy file to when the new version runs: `cargo bench --bench reload -- [SAVES]`.
//!
//! An engine with 100 policies at an interval of one second; one of them is saved over and over, in three ways: written
//! in place, written in place in two halves, and replaced by a rename. The clock runs from the end of the last write to
//! the event that says the new version runs. Saves are 15 to 215 ms apart, so that they fall anywhere between ticks.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

mod support;

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use setpoint::runtime::view::StreamEvent;
use support::{arguments, dry_run, load, runtime, summary};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

fn policy(version: u64) -> String {
    format!(
        r#"
return {{
  interval = "1s",
  workload = {{ command = "sleep 60", min = 0, max = 40 }},
  control = {{ per_task = 5 }},
  metric = function(ctx) return {version} end,
  target = function(ctx) return {version} end,
}}
"#
    )
}

#[derive(Clone, Copy, Debug)]
enum Way {
    InPlace,
    Halves,
    Rename,
}

fn main() -> Result<(), Box<dyn Error>> {
    let saves = arguments().iter().find_map(|arg| arg.parse().ok()).unwrap_or(100);
    let dir = tempfile::tempdir()?;
    for index in 0..100 {
        fs::write(dir.path().join(format!("p{index}.lua")), policy(0))?;
    }
    runtime()?.block_on(async {
        let engine = dry_run(dir.path()).await?;
        let handle = engine.handle();
        let mut events = handle.subscribe();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = handle.totals();
        let mut version = 0;
        for way in [Way::InPlace, Way::Halves, Way::Rename] {
            let mut times = Vec::new();
            for _ in 0..saves {
                version += 1;
                tokio::time::sleep(Duration::from_millis(15 + version * 37 % 200)).await;
                // Only what comes after the save counts.
                events = events.resubscribe();
                let saved = save(dir.path(), way, &policy(version)).await?;
                reloaded(&mut events).await?;
                times.push(saved.elapsed());
            }
            println!("{way:?}: active after {}", summary(&mut times));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = handle.totals();
        println!("{} ticks, {} missed", after.ticks - before.ticks, after.missed - before.missed);
        println!("load averages {}", load());
        engine.stop().await;
        Ok(())
    })
}

/// Saves the policy; gives when the last write was over.
async fn save(dir: &Path, way: Way, text: &str) -> Result<Instant, Box<dyn Error>> {
    let path = dir.join("p7.lua");
    match way {
        Way::InPlace => fs::write(&path, text)?,
        Way::Halves => {
            let (first, second) = text.as_bytes().split_at(text.len() / 2);
            let mut file = fs::File::create(&path)?;
            file.write_all(first)?;
            file.flush()?;
            tokio::time::sleep(Duration::from_millis(5)).await;
            file.write_all(second)?;
        }
        Way::Rename => {
            let new = dir.join(".p7.lua.new");
            fs::write(&new, text)?;
            fs::rename(&new, &path)?;
        }
    }
    Ok(Instant::now())
}

/// Waits for the event that the saved version runs.
async fn reloaded(events: &mut Receiver<Arc<StreamEvent>>) -> Result<(), Box<dyn Error>> {
    loop {
        match events.recv().await {
            Ok(event) => match &*event {
                StreamEvent::Reload { error: Some(error), .. } => return Err(error.report().into()),
                StreamEvent::Reload { policy, .. } if policy.as_str() == "p7" => return Ok(()),
                _ => {}
            },
            Err(RecvError::Lagged(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
