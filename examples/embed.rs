//! The engine inside another program: a metric in Rust, a policy in Lua, tasks as local processes.
//!
//! The program has a backlog of work; the policy keeps enough workers for it. Ends by itself after eight seconds:
//! `cargo run --example embed`.

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use setpoint::backend::Backend;
use setpoint::backend::local::{LocalBackend, LocalConfig};
use setpoint::runtime::view::StreamEvent;
use setpoint::runtime::{Engine, EngineConfig, PolicySource};
use setpoint::script::{NativeMetric, Natives};

const POLICY: &str = r#"
local host = require("setpoint.host")

-- One worker for five units of backlog, at most six.
return {
  interval = "250ms",
  workload = { command = "sleep 60", min = 0, max = 6 },
  metric = function() return host.backlog() end,
  decide = function(ctx) return { desired = math.ceil(ctx.sample / 5) } end,
}
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backlog = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&backlog);
    let metric: NativeMetric = Arc::new(move || {
        let value = f64::from(seen.load(Ordering::Relaxed));
        Box::pin(async move { Ok(Some(value)) })
    });

    let engine = Engine::start(EngineConfig {
        sources: vec![PolicySource::Text { name: "workers".to_owned(), source: POLICY.to_owned() }],
        backends: BTreeMap::from([("local".to_owned(), Backend::Tasks(LocalBackend::new(LocalConfig::default())?))]),
        natives: Natives(BTreeMap::from([("backlog".to_owned(), metric)])),
        ..EngineConfig::default()
    })
    .await?;

    let mut events = engine.handle().subscribe();
    let program = async {
        for units in [30, 12, 0] {
            backlog.store(units, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
    };
    tokio::pin!(program);
    loop {
        tokio::select! {
            () = &mut program => break,
            Ok(event) = events.recv() => if let StreamEvent::Decision(policy) = &*event {
                let counts = policy.counts;
                println!("backlog {:?}: {} running, {} in flight, last change {:+}",
                    policy.sample, counts.running, counts.in_flight(), policy.acted);
            }
        }
    }
    let end = engine.stop().await;
    println!("ended: {} (code {})", end.reason, end.code);
    Ok(())
}
