//! What a simulation costs: `cargo bench --bench simulate -- [RUNS]`.
//!
//! Ticks a second of one run on one core, by the CPU time of its thread; of several runs the median counts. The law is
//! `proportional` at the load for each running task (a sine between 100 and 1,000 requests a second, of which a task
//! serves 40, started within 30 s), and nobody watches. `lua` has the metric as a function of the policy, `rust` as a
//! closure; at 1 s the plant works off one second for each tick, at 5 s five. A week at 5 s is 120,960 ticks; `simulate`
//! is the same through the binary, with its report, by the clock on the wall.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use setpoint::core::model::Sample;
use setpoint::core::policy::PolicySpec;
use setpoint::script::{Content, LoadRequest, LoadedPolicy, ScriptHost};
use setpoint::sim::{self, Closures, Load, Plant, Report, Scripted, Setup, Shape, World};
use support::{arguments, load, percentile, runtime};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What a task is held at.
const TARGET: f64 = 30.0;

/// The load, as flags of the command.
const FLAGS: &str = "--load sine --low 100 --high 1000 --period 1h --rate-per-task 40 --startup 30s";

fn policy(interval: &str) -> String {
    format!(
        r#"return {{
  interval = "{interval}",
  workload = {{ command = "exec sleep 600", min = 1, max = 100 }},
  control = {{ law = "proportional", per_task = 4, tolerance = 2 }},
  metric = function(ctx) return ctx.trace / math.max(ctx.running, 1) end,
  target = 30,
}}
"#
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let runs = arguments().iter().find_map(|arg| arg.parse().ok()).unwrap_or(5);
    println!("load averages {}", load());
    let runtime = runtime()?;
    let host = ScriptHost::new(
        setpoint::script::Limits::default(),
        setpoint::script::Permissions::default(),
        setpoint::script::Natives::default(),
        runtime.handle().clone(),
        1,
    )?;
    for interval in ["1s", "5s"] {
        let policy = runtime.block_on(loaded(&host, interval))?;
        tell("rust", interval, runs, || without_lua(&policy.spec));
        tell("lua", interval, runs, || with_lua(&policy));
    }
    through_the_command(runs)
}

async fn loaded(host: &ScriptHost, interval: &str) -> Result<LoadedPolicy, Box<dyn Error>> {
    let request = LoadRequest {
        path: "p.lua".into(),
        name: "p".to_owned(),
        source: Some(policy(interval)),
        params: BTreeMap::new(),
        backends: vec!["local".to_owned()],
    };
    match host.load(request).await.map_err(|errors| format!("{errors:?}"))?.content {
        Content::Policy(policy) => Ok(policy),
        Content::Fleet(_) => Err("it is no fleet".into()),
    }
}

fn setup() -> Setup {
    let sine = Load::new(Shape::Sine { low: 100.0, high: 1000.0, period: 3600.0 });
    Setup { startup: Duration::from_secs(30), ..Setup::new(sine, Plant::Rate { per_task: 40.0 }, WEEK) }
}

fn without_lua(spec: &PolicySpec) -> Report {
    let metric = |world: &World| Sample::value(world.load / f64::from(world.running.max(1)));
    sim::run(spec, &setup(), &mut Closures { metric, target: |_: &World| TARGET }, |_| {})
}

fn with_lua(policy: &LoadedPolicy) -> Report {
    let functions = policy.script.direct().expect("functions that can be called directly");
    sim::run(&policy.spec, &setup(), &mut Scripted::new(functions), |_| {})
}

/// CPU time of this thread: the machine may be busy with other things.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// A week, several times.
fn tell(what: &str, interval: &str, runs: u32, run: impl Fn() -> Report) {
    let (mut times, mut seen) = (Vec::new(), None);
    for _ in 0..runs {
        let began = spent();
        let report = run();
        times.push(spent().saturating_sub(began));
        assert_eq!(report.script_errors, 0, "{report:?}");
        assert!(100 < report.changes, "{report:?}");
        seen = Some(report);
    }
    let median = percentile(&mut times, 0.5).as_secs_f64();
    let ticks = seen.map_or(0, |report| report.ticks);
    println!("{what:<5} {interval}: {ticks} ticks in {median:.3} s, {:.0} a second", ticks as f64 / median);
}

/// The same week at 5 s as its user has it.
fn through_the_command(runs: u32) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("p.lua"), policy("5s"))?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
        command.args(["simulate", "p.lua", "--json", "--for", "168h"]).args(FLAGS.split_whitespace());
        command.current_dir(dir.path()).stdout(Stdio::null());
        let began = Instant::now();
        assert!(command.status()?.success());
        times.push(began.elapsed());
    }
    println!("simulate, a week at 5 s: {:.3} s from start to end", percentile(&mut times, 0.5).as_secs_f64());
    Ok(())
}
