//! A framework of somebody else's on the same cluster, on pymesos: what ours leaves it, and what scripts see of its tasks.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::civil::DateTime;
use serde_json::Value;

use super::backend::{policy, run_with};
use crate::support::{Cluster, ClusterSpec, GENEROUS, Scratch, Server, Setpoint, tool, wait_until};

/// How long a framework held each of its offers, in seconds, as the master's log has it: from `Sending offers [ … ] to
/// framework ID` to the ACCEPT or DECLINE that names the offer.
fn held(log: &str, framework: &str) -> Vec<f64> {
    let ids = |line: &str| -> Vec<String> {
        let list = line.split_once("[ ").and_then(|(_, rest)| rest.split_once(" ]")).map(|(list, _)| list);
        list.into_iter().flat_map(|list| list.split(", ")).map(str::to_owned).collect()
    };
    let (mut sent, mut times) = (BTreeMap::new(), Vec::new());
    for line in log.lines().filter(|line| line.contains(framework)) {
        let Some(at) = time(line) else { continue };
        if line.contains("Sending offers [") {
            sent.extend(ids(line).into_iter().map(|id| (id, at)));
        } else if line.contains("Processing ACCEPT call") || line.contains("Processing DECLINE call") {
            times.extend(ids(line).iter().filter_map(|id| sent.remove(id)).map(|sent| seconds(sent, at)));
        }
    }
    times
}

fn seconds(from: DateTime, to: DateTime) -> f64 {
    from.duration_until(to).as_secs_f64()
}

/// The time of a line of glog: `I1121 11:08:23.186302 …`. It has no year, and needs none.
fn time(line: &str) -> Option<DateTime> {
    let (day, rest) = line.strip_prefix(['I', 'W', 'E'])?.split_once(' ')?;
    let clock = rest.split(' ').next()?;
    format!("2024-{}-{}T{clock}", day.get(..2)?, day.get(2..)?).parse().ok()
}

#[test]
fn offers_are_held_from_the_sending_to_the_answer() {
    let log = "I1121 11:08:22.500000 7 master.cpp:9579] Sending offers [ a-O0, a-O1 ] to framework f-1 (x)\n\
               I1121 11:08:22.750000 8 master.cpp:4356] Processing ACCEPT call for offers: [ a-O1 ] on agent b for framework f-1 (x)\n\
               I1121 11:08:23.000000 8 master.cpp:5434] Processing DECLINE call for offers: [ a-O0 ] for framework f-1 (x)\n\
               I1121 11:08:23.000000 8 master.cpp:5434] Processing DECLINE call for offers: [ a-O0 ] for framework f-2 (x)\n";
    assert_eq!(held(log, "f-1"), [0.25, 0.5]);
}

const WATCH: &str = r#"local mesos = require("setpoint.mesos")
local json = require("setpoint.json")
local log = require("setpoint.log")
return {
  interval = "1s",
  workload = { backend = "local", command = "true", min = 0, max = 1 },
  control = { law = "decide" },
  decide = function() return { desired = 0 } end,
  metric = function()
    local usage = mesos.usage({ name = "neighbour-*", framework = "neighbour" })
    log.info("seen " .. json.encode(usage))
    return usage.cpu_percent
  end,
}
"#;

/// What the policy `watch` has seen so far.
fn seen(setpoint: &Setpoint) -> Vec<Value> {
    let said = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        serde_json::from_str(line["message"].as_str()?.strip_prefix("seen ")?).ok()
    };
    setpoint.stderr().lines().filter_map(said).collect()
}

/// Seconds of CPU that the executors of the neighbour have used, bytes of memory that they and what started them have, and
/// how many they are: to Mesos its own program that starts a container is a part of it.
fn used(cluster: &Cluster) -> (f64, f64, usize) {
    let second = rustix::param::clock_ticks_per_second() as f64;
    let processes = cluster.folder().processes();
    let of_it = processes.iter().filter(|process| process.command.ends_with("neighbour.py executor"));
    let figures = of_it.filter_map(|process| {
        let (ticks, pages, parent) = stat(process.pid)?;
        let starter =
            processes.iter().find(|process| process.pid == parent && process.command.contains("containerizer"));
        let pages = pages + starter.and_then(|starter| stat(starter.pid)).map_or(0.0, |(_, pages, _)| pages);
        Some((ticks / second, pages * rustix::param::page_size() as f64))
    });
    figures.fold((0.0, 0.0, 0), |(cpu, memory, count), (c, m)| (cpu + c, memory + m, count + 1))
}

/// Ticks of CPU, pages of memory, and the parent of a process.
fn stat(pid: i32) -> Option<(f64, f64, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((number(11)? + number(12)?, number(21)?, fields.get(1)?.parse().ok()?))
}

/// Ours holds no offer while it is idle, and scripts see what the neighbour's tasks use.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_gets_its_offers_and_is_seen() {
    let Some(python) = tool("pymesos") else { return };
    let Some(cluster) = Cluster::start_new(ClusterSpec { agents: 2, ..ClusterSpec::default() }).await else { return };
    let scratch = Scratch::new();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesos/neighbour.py");
    let mark = vec![("TEST_SCRATCH".to_owned(), scratch.mark().to_owned())];
    let arguments = vec![program.to_owned(), cluster.list()];
    let mut neighbour = Server::new(python, arguments, mark, scratch.path("neighbour.log"));
    neighbour.start();
    wait_until(GENEROUS, "the neighbour's tasks run", async || {
        (neighbour.log().matches("TASK_RUNNING").count() == 2).then_some(())
    })
    .await;

    // Ours has had tasks, and wants none now: for a while it still gets offers, and then none.
    scratch.policy("p", &policy(2, "exec sleep 100000"));
    scratch.policy("watch", WATCH);
    let mut setpoint = run_with(&scratch, &cluster.list(), "st");
    setpoint.running("p", 2).await;
    let framework = wait_until(GENEROUS, "the framework is shown", async || {
        let (_, shown) = setpoint.get("/v1/policies").await;
        shown["backends"]["mesos"]["facts"]["framework"].as_str().map(str::to_owned)
    })
    .await;
    scratch.replace("p.lua", &policy(0, "exec sleep 100000"));
    setpoint.running("p", 0).await;
    let log = || cluster.masters[0].server.log();
    let before = held(&log(), &framework).len();
    wait_until(GENEROUS, "offers come and go while it is idle", async || {
        (held(&log(), &framework).len() >= before + 6).then_some(())
    })
    .await;
    let times = held(&log(), &framework);
    let idle = &times[before..];
    let (most, mean) = (idle.iter().copied().fold(0.0, f64::max), idle.iter().sum::<f64>() / idle.len() as f64);
    eprintln!(
        "neighbour: idle, {} offers were held for {:.1} ms on average, {:.1} ms at most",
        idle.len(),
        1e3 * mean,
        1e3 * most
    );
    assert!(mean < 1.0 && most < 5.0, "offers are held: {idle:?}");

    // The figures of the neighbour's tasks over a few readings, beside /proc's.
    let mut watcher = watch(&scratch, &cluster);
    let count = async || {
        let all = seen(&watcher);
        all.last().is_some_and(|last| last["cpu_percent"].is_number()).then_some(all.len())
    };
    let first = wait_until(GENEROUS, "the neighbour's share is known", count).await;
    let (began, from) = (Instant::now(), used(&cluster));
    let last =
        wait_until(GENEROUS, "a few readings", async || Some(seen(&watcher).len()).filter(|n| *n >= first + 5)).await;
    let (took, to) = (began.elapsed().as_secs_f64(), used(&cluster));
    assert_eq!((from.2, to.2), (2, 2), "one executor on each agent");
    let window = &seen(&watcher)[first..last];
    let mean = |field: &str| window.iter().filter_map(|row| row[field].as_f64()).sum::<f64>() / window.len() as f64;
    for (what, figure, truth) in [
        ("CPU in %", mean("cpu_percent"), 100.0 * (to.0 - from.0) / took),
        ("memory in bytes", mean("memory_bytes"), to.1),
    ] {
        eprintln!("neighbour: {what}: {figure:.1}, /proc has {truth:.1}, {:+.1} %", 100.0 * (figure / truth - 1.0));
        assert!((figure / truth - 1.0).abs() < 0.3, "{what}: {figure} is not {truth}");
    }
    assert_eq!((&window[0]["tasks"], &window[0]["running"]), (&2.into(), &2.into()));
    assert!(watcher.stop().await.success() && setpoint.stop().await.success());
}

/// A host that only looks.
fn watch(scratch: &Scratch, cluster: &Cluster) -> Setpoint {
    let config = scratch.write("watch.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    Setpoint::run(
        scratch,
        ["--config", &config.display().to_string(), &scratch.path("watch.lua").display().to_string()],
    )
}
