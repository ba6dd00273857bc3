//! From a step of the metric to a task that runs, on a genuine Mesos cluster that was idle: `cargo bench --bench mesos_step --
//! [STEPS] [INTERVAL_MS]`.
//!
//! STEPS (50) times: a host that has nothing to do, and so has asked for no offers (SUPPRESS), with a policy that looks at a
//! file each INTERVAL_MS (100); the file changes at some moment between two ticks; the policy launches one task under our
//! executor. The time is from the rename of the file to the executor's own stamp on TASK_RUNNING, as the master's `/state` has
//! it. The cluster is one master and one agent with Mesos's usual allocation interval of 1 s. The programs come from
//! `tests/run --tools` (`SETPOINT_TEST_TOOLS`).

#![expect(clippy::print_stdout, reason = "its figures are its output")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "it stands on what the tests share")]

#[path = "../tests/it/support/mod.rs"]
mod cluster;
mod support;

use std::time::{Duration, SystemTime};

use cluster::{Cluster, ClusterSpec, GENEROUS, Scratch, Setpoint, wait_until};
use support::{arguments, load, millis, summary};

/// What the way from the tick that sees the step to the running task may take.
const BUDGET: Duration = Duration::from_millis(150);

#[tokio::main]
async fn main() {
    let arguments = arguments();
    let number = |at: usize, default: u64| arguments.get(at).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (steps, interval) = (number(0, 50), Duration::from_millis(number(1, 100)));
    let spec = ClusterSpec::default().master("MESOS_ALLOCATION_INTERVAL", "1secs");
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    println!("{steps} steps, a tick each {interval:?}, load averages {}", load());
    let mut times = Vec::new();
    for _ in 0..steps {
        times.push(step(&cluster, interval).await);
    }
    println!(
        "step to RUNNING: {}; budget {} + one interval of {}",
        summary(&mut times),
        millis(BUDGET),
        millis(interval)
    );
}

/// One host, one step.
async fn step(cluster: &Cluster, interval: Duration) -> Duration {
    let scratch = Scratch::new();
    scratch.write("queue", "0");
    scratch.policy(
        "p",
        &format!(
            r#"local fs = require("setpoint.fs")
return {{
  interval = "{}ms",
  workload = {{ backend = "mesos", executor = "setpoint", command = "exec sleep 1000", cpus = 0.1, memory = "32MiB", max = 1 }},
  control = {{ law = "proportional" }},
  metric = function() return tonumber(fs.read("queue")) end,
  target = 0,
}}"#,
            interval.as_millis()
        ),
    );
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let path = |path: std::path::PathBuf| path.display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &path(config), &path(scratch.path("p.lua"))]);
    wait_until(GENEROUS, "nothing is wanted", async || {
        let (_, shown) = setpoint.get("/v1/policies").await;
        (shown["backends"]["mesos"]["facts"]["suppressed"] == "true").then_some(())
    })
    .await;
    setpoint.ticks("p", 2).await;
    tokio::time::sleep(interval.mul_f64(fastrand::f64())).await;
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    scratch.replace("queue", "1");
    let running = wait_until(GENEROUS, "the task runs", async || {
        let state = cluster.state().await?;
        let tasks = state["frameworks"].as_array()?.iter().filter_map(|framework| framework["tasks"].as_array());
        let task = tasks.flatten().find(|task| task["state"] == "TASK_RUNNING")?.clone();
        let statuses = task["statuses"].as_array()?;
        let status = statuses.iter().find(|status| status["state"] == "TASK_RUNNING")?;
        status["timestamp"].as_f64()
    })
    .await;
    assert!(setpoint.stop().await.success());
    wait_until(GENEROUS, "the framework is gone", async || {
        cluster.state().await?["frameworks"].as_array()?.is_empty().then_some(())
    })
    .await;
    Duration::from_secs_f64((running - began.as_secs_f64()).max(0.0))
}
