//! From a demand to all of its tasks running on a genuine Mesos cluster, beside a bare client that sends the same calls:
//! `cargo bench --bench mesos -- [TASKS] [ROUNDS]`, with the programs of `tests/run --tools` in SETPOINT_TEST_TOOLS.
//!
//! Both launch TASKS (1,000) sleeping commands under `setpoint executor` on three agents, in clusters of their own, in turns,
//! ROUNDS (4) times, each as often first as second: what the first one's files were on the disk slows the second one's agents
//! down. The bare client keeps nothing: it accepts what is offered and acknowledges what is told, through the same
//! library. setpoint is the binary of the same build with a state folder, told to hold so many by an override; what it takes
//! from the override to its API saying that all run is the figure. Beside that come the CPU seconds that each took itself.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

#[allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what tests share; it stops the bench as it would stop a test"
)]
#[path = "../tests/it/support/mod.rs"]
mod services;
mod support;

use std::collections::BTreeSet;
use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::json;
use services::{Cluster, ClusterSpec, Scratch, Setpoint};
use setpoint::mesos::wire::scheduler::{Accept, Acknowledge, Call, Event, Filters, Launch, Operation, Roles};
use setpoint::mesos::wire::{
    Bytes, Capability, CapabilityKind, CommandInfo, Environment, ExecutorId, ExecutorInfo, FrameworkInfo, KillPolicy,
    Label, Labels, Offer, Resource, TaskId, TaskInfo, TaskState,
};
use setpoint::mesos::{Scheduler, SchedulerConfig, Signal, Signals};
use support::{arguments, cpu_seconds, load, millis, percentile};

type Outcome<T> = Result<T, Box<dyn Error>>;

const AGENTS: usize = 3;
const CPUS: f64 = 0.01;
const MEMORY: f64 = 16.0;
const COMMAND: &str = "exec sleep 100000";

/// Longer than any of it takes.
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Outcome<()> {
    let numbers: Vec<usize> = arguments().iter().filter_map(|arg| arg.parse().ok()).collect();
    let tasks = numbers.first().copied().unwrap_or(1000);
    let rounds = numbers.get(1).copied().unwrap_or(4);
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Whoever is second finds a warmer machine, and a file system that is slow to give out what was just deleted.
        for is_ours in [round % 2 == 1, round % 2 == 0] {
            let Some(cluster) = cluster().await else {
                return Err("there is no Mesos: set SETPOINT_TEST_TOOLS".into());
            };
            let (took, cpu) = if is_ours { setpoint(&cluster, tasks).await? } else { client(&cluster, tasks).await? };
            println!("{}: {tasks} tasks run after {}, {cpu:.2} s of CPU", name(is_ours), millis(took));
            if is_ours { &mut ours } else { &mut bare }.push(took);
        }
    }
    let (ours, bare) = (percentile(&mut ours, 0.5), percentile(&mut bare, 0.5));
    let times = ours.as_secs_f64() / bare.as_secs_f64();
    println!("medians: setpoint {}, a bare client {}: {times:.2} times", millis(ours), millis(bare));
    println!("load averages {}", load());
    Ok(())
}

const fn name(is_ours: bool) -> &'static str {
    if is_ours { "setpoint" } else { "bare client" }
}

async fn cluster() -> Option<Cluster> {
    // The later one counts.
    let spec = ClusterSpec { agents: AGENTS, ..ClusterSpec::default() };
    Cluster::start_new(spec.agent("MESOS_RESOURCES", "cpus:64;mem:65536;disk:4096;ports:[31000-31099]")).await
}

/// setpoint's time, and its CPU seconds.
async fn setpoint(cluster: &Cluster, tasks: usize) -> Outcome<(Duration, f64)> {
    let scratch = Scratch::new();
    let policy = scratch.policy(
        "p",
        &format!(
            r#"return {{
  interval = "1s",
  workload = {{ backend = "mesos", executor = "setpoint", command = "{COMMAND}", cpus = {CPUS}, memory = "{MEMORY}MiB",
    min = 0, max = {tasks}, grace = "1s", mesos = {{ place = "spread" }} }},
  control = {{ law = "decide" }},
  decide = function() return {{ desired = 0 }} end,
}}"#
        ),
    );
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let state = scratch.path("state");
    let arguments =
        ["--config".as_ref(), config.as_os_str(), "--state-dir".as_ref(), state.as_os_str(), policy.as_os_str()];
    let mut setpoint = Setpoint::run(&scratch, arguments);
    setpoint.ticks("p", 2).await;
    let cpu = || cpu_seconds(&setpoint.pid().to_string());
    let before = cpu();
    let begun = Instant::now();
    let (status, said) = setpoint.post("/v1/policies/p/override", &json!({ "min": tasks })).await;
    if status != 200 {
        return Err(format!("the override is refused: {said}").into());
    }
    while setpoint.policy("p").await.is_none_or(|policy| policy["tasks"]["running"] != tasks) {
        if LIMIT < begun.elapsed() {
            return Err(format!("not all run: {:?}", setpoint.policy("p").await).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed();
    let cpu = cpu_seconds(&setpoint.pid().to_string()) - before;
    setpoint.kill();
    Ok((took, cpu))
}

/// The bare client's time, and its CPU seconds.
async fn client(cluster: &Cluster, tasks: usize) -> Outcome<(Duration, f64)> {
    let own = std::process::id().to_string();
    let (scheduler, mut signals) = Scheduler::connect(SchedulerConfig::new(cluster.list().parse()?, framework()))?;
    while !matches!(next(&mut signals).await?, Signal::Subscribed(_)) {}
    let roles = || Roles { roles: vec!["*".to_owned()] };
    scheduler.call(&Call::Suppress(roles())).await?;
    let before = cpu_seconds(&own);
    // Acknowledgements go out beside what is read, one after the other, as they do from setpoint.
    let (acknowledge, mut acknowledgements) = tokio::sync::mpsc::unbounded_channel();
    let caller = scheduler.clone();
    let acknowledging = tokio::spawn(async move {
        while let Some(call) = acknowledgements.recv().await {
            caller.call(&Call::Acknowledge(call)).await.ok();
        }
    });
    let begun = Instant::now();
    scheduler.call(&Call::Revive(roles())).await?;
    let (mut left, mut running) = (tasks, BTreeSet::new());
    // Each agent gets its share, so that both do the same work on the same agents.
    let share = tasks.div_ceil(AGENTS);
    let mut served = BTreeSet::new();
    while running.len() < tasks {
        match next(&mut signals).await? {
            Signal::Event(Event::Offers(offers)) => {
                for offer in offers {
                    let n = if served.insert(offer.agent_id.clone()) { share.min(left) } else { 0 };
                    scheduler.call(&Call::Accept(accept(&offer, tasks - left, n))).await?;
                    left -= n;
                }
            }
            Signal::Event(Event::Update(status)) => {
                if status.state == TaskState::Running {
                    running.insert(status.task_id.clone());
                }
                if let (Some(agent_id), Some(uuid)) = (status.agent_id, status.uuid) {
                    acknowledge.send(Acknowledge { agent_id, task_id: status.task_id, uuid })?;
                }
            }
            Signal::Ended(end) => return Err(end.to_string().into()),
            _ => {}
        }
        if LIMIT < begun.elapsed() {
            return Err(format!("not all run: {}", running.len()).into());
        }
    }
    let (took, cpu) = (begun.elapsed(), cpu_seconds(&own) - before);
    acknowledging.abort();
    scheduler.call(&Call::Teardown).await?;
    Ok((took, cpu))
}

async fn next(signals: &mut Signals) -> Outcome<Signal> {
    Ok(tokio::time::timeout(LIMIT, signals.recv()).await?.ok_or("the client has ended")?)
}

fn framework() -> FrameworkInfo {
    let capabilities = [
        CapabilityKind::MultiRole,
        CapabilityKind::PartitionAware,
        CapabilityKind::TaskKillingState,
        CapabilityKind::ReservationRefinement,
    ];
    FrameworkInfo {
        user: "root".to_owned(),
        name: "bare".to_owned(),
        roles: vec!["*".to_owned()],
        failover_timeout: Some(0.0),
        checkpoint: Some(true),
        capabilities: capabilities.map(Capability::from).into(),
        ..FrameworkInfo::default()
    }
}

/// So many tasks of the same kind as setpoint's, from a serial number on.
fn accept(offer: &Offer, from: usize, n: usize) -> Accept {
    let task_infos = (from..from + n).map(|serial| task(offer, serial)).collect();
    Accept {
        offer_ids: vec![offer.id.clone()],
        operations: vec![Operation::Launch(Launch { task_infos })],
        filters: Some(Filters { refuse_seconds: Some(0.25) }),
    }
}

fn task(offer: &Offer, serial: usize) -> TaskInfo {
    // As long as those that setpoint makes.
    let id = format!("p.{serial:026}");
    let allocated = |name: &str, amount| {
        let allocation_info = offer.allocation_info.clone();
        Resource { allocation_info, ..Resource::scalar(name, amount) }
    };
    let pairs = [("HOST", offer.hostname.as_str()), ("SETPOINT_POLICY", "p"), ("SETPOINT_TASK_ID", id.as_str())];
    let environment: Environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let command = Some(CommandInfo { environment: Some(environment), ..CommandInfo::shell(COMMAND) });
    let parts = TaskInfo { command, ..TaskInfo::default() };
    let program = vec![env!("CARGO_BIN_EXE_setpoint").to_owned(), "executor".to_owned()];
    let label = |key: &str, value: &str| Label { key: key.to_owned(), value: Some(value.to_owned()) };
    TaskInfo {
        name: "p".to_owned(),
        task_id: TaskId::new(id),
        agent_id: offer.agent_id.clone(),
        resources: vec![allocated("cpus", CPUS), allocated("mem", MEMORY)],
        executor: Some(ExecutorInfo {
            executor_id: ExecutorId::new(format!("bare.{}", offer.agent_id)),
            command: Some(CommandInfo::argv(program)),
            resources: vec![allocated("cpus", 0.01), allocated("mem", 32.0)],
            ..ExecutorInfo::default()
        }),
        data: serde_json::to_vec(&parts).ok().map(Bytes),
        labels: Some(Labels { labels: vec![label("setpoint.mark", "run-0"), label("setpoint.policy", "p")] }),
        kill_policy: Some(KillPolicy { grace_period: Some(Duration::from_secs(1).into()) }),
        ..TaskInfo::default()
    }
}
