//! `cpu` with `of=machine`: work that may as well wait, and Relay's example, a warmer that burns CPU while there is
//! too little of it.
//!
//! How busy a machine is that runs tests is nobody's to say. So the targets here are beyond what a machine can be:
//! above all of it, which nothing reaches, and below none. With `SETPOINT_CPU_TARGET` the machine is held at that many
//! percent, which wants a quiet one.

use super::containers::{PATIENCE, exact, target};
use super::*;
use crate::support::{Docker, LABEL};

/// The bundled policy with another target, to be replaced while it runs.
fn aiming_at(target: f64, scratch: &Scratch) -> String {
    let text = std::fs::read_to_string(bundled("cpu")).unwrap();
    let own = format!("local workload = {{\n  labels = {{ [\"{LABEL}\"] = \"{}\" }}, grace = \"1s\",", scratch.mark());
    assert!(text.contains("  target = 50, --") && text.contains("local workload = {"));
    text.replace("  target = 50, --", &format!("  target = {target}, --")).replace("local workload = {", &own)
}

fn sample_of(policy: &Value) -> f64 {
    policy["sample"]["value"].as_f64().unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warmer_burns_cpu_while_the_machine_is_below_its_target() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    scratch.write("setpoint.toml", &format!("[docker.engines.here]\nhost = \"{}\"\n", docker.host()));
    // Relay's own: processes of this machine. And the same work in containers that have a part of a core each.
    let (burn, crunch) = (scratch.path("burn.lua"), scratch.path("crunch.lua"));
    let aim = |target: f64| {
        for name in ["burn.lua", "crunch.lua"] {
            scratch.replace(name, &aiming_at(target, &scratch));
        }
    };
    aim(200.0);
    let sets = [
        "of=machine".to_owned(),
        "interval=500ms".to_owned(),
        "settle=1".to_owned(),
        "burn.max=1".to_owned(),
        "crunch.max=3".to_owned(),
        "crunch.backend=docker".to_owned(),
        format!("crunch.image={image}"),
        "crunch.command=while :; do :; done".to_owned(),
        "crunch.cpus=0.1".to_owned(),
    ];
    let mut arguments = vec![burn.display().to_string(), crunch.display().to_string()];
    arguments.extend(sets.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    let mut setpoint = Setpoint::run(&scratch, arguments);
    for (policy, most) in [("burn", 1), ("crunch", 3)] {
        let state = setpoint.running(policy, most).await;
        let sample = sample_of(&state);
        assert!((0.0..=100.0).contains(&sample), "the machine's share is one of all of it: {state}");
    }
    // They do burn: whatever else runs, each gets a part of a core.
    wait_until(PATIENCE, "all burn CPU", async || {
        let tasks = setpoint.tasks().await;
        let burning = tasks.iter().filter(|task| task["cpu_percent"].as_f64().is_some_and(|share| 1.0 < share));
        (burning.count() == 4).then_some(())
    })
    .await;
    // Too hot: they go, one after the other.
    aim(-100.0);
    for policy in ["burn", "crunch"] {
        let state = setpoint.running(policy, 0).await;
        assert!(0.0 <= sample_of(&state), "{state}");
    }
    assert!(setpoint.stop().await.success());
    assert!(docker.of_test(&scratch).is_empty());
}

/// On a quiet machine: as many tasks as keep all of it that busy.
#[tokio::test(flavor = "multi_thread")]
async fn the_machine_is_held_at_its_target() {
    if !exact() {
        eprintln!("skipped: SETPOINT_CPU_TARGET asks for it, on a quiet machine");
        return;
    }
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    scratch.write("setpoint.toml", &format!("[docker.engines.here]\nhost = \"{}\"\n", docker.host()));
    scratch.policy("cpu", &aiming_at(target(), &scratch));
    // A task is worth a tenth of the machine.
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    let sets = [
        "of=machine".to_owned(),
        "interval=1s".to_owned(),
        "settle=3".to_owned(),
        "backend=docker".to_owned(),
        format!("image={image}"),
        "command=while :; do :; done".to_owned(),
        format!("cpus={}", cores / 10.0),
    ];
    let arguments = sets.into_iter().flat_map(|set| ["--set".to_owned(), set]);
    let mut setpoint = Setpoint::run(&scratch, std::iter::once("cpu.lua".to_owned()).chain(arguments));
    let (mut last, mut samples) = (0, VecDeque::new());
    let mean = wait_until(PATIENCE, "the machine is as busy as it is to be", async || {
        let state = setpoint.policy("cpu").await?;
        let (tick, sample) = (state["ticks"].as_u64()?, state["sample"]["value"].as_f64()?);
        if tick == std::mem::replace(&mut last, tick) {
            return None;
        }
        samples.push_back(sample);
        if samples.len() > 12 {
            samples.pop_front();
        }
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        (samples.len() == 12 && (mean - target()).abs() <= 10.0).then_some(mean)
    })
    .await;
    eprintln!("cpu of the machine: held at {mean:.1} %");
    assert!(setpoint.stop().await.success());
}
