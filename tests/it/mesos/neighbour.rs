//! A framework of somebody else's on the same cluster, on pymesos: what ours leaves it, and what scripts see of its tasks.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use serde_json::Value;

use super::backend::{policy, run_with};
use super::beside::{Figure, Whose, agree, container};
use crate::support::{Cluster, ClusterSpec, GENEROUS, Marked, Scratch, Server, Setpoint, setting, tool, wait_until};

/// How long a framework held each of its offers, in seconds, as the master's log has it: from `Sending offers [ … ] to
/// framework ID` to the ACCEPT or DECLINE that names the offer. And those that it has not answered and still holds.
fn held(log: &str, framework: &str) -> (Vec<f64>, Vec<String>) {
    let ids = |line: &str| -> Vec<String> {
        let list = line.split_once("[ ").and_then(|(_, rest)| rest.split_once(" ]")).map(|(list, _)| list);
        list.into_iter().flat_map(|list| list.split(", ")).map(str::to_owned).collect()
    };
    let (mut sent, mut times) = (BTreeMap::new(), Vec::new());
    for line in log.lines() {
        if let Some((_, id)) = line.split_once("] Removing offer ") {
            sent.remove(id.trim());
        }
        let Some(at) = time(line).filter(|_| line.contains(framework)) else { continue };
        if line.contains("Sending offers [") {
            sent.extend(ids(line).into_iter().map(|id| (id, at)));
        } else if line.contains("Processing ACCEPT call") || line.contains("Processing DECLINE call") {
            times.extend(ids(line).iter().filter_map(|id| sent.remove(id)).map(|sent| seconds(sent, at)));
        }
    }
    (times, sent.into_keys().collect())
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
               I1121 11:08:23.000000 8 master.cpp:5434] Processing DECLINE call for offers: [ a-O0 ] for framework f-2 (x)\n\
               I1121 11:08:24.000000 7 master.cpp:9579] Sending offers [ a-O2, a-O3 ] to framework f-1 (x)\n\
               I1121 11:08:25.000000 7 master.cpp:11000] Removing offer a-O3\n";
    assert_eq!(held(log, "f-1"), (vec![0.25, 0.5], vec!["a-O2".to_owned()]));
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
    local which = { name = "neighbour-*", framework = "neighbour" }
    local usage = mesos.usage(which)
    log.info("seen " .. json.encode({ usage = usage, rows = mesos.stats(which) }))
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
    // Facts are those of a moment ago: before its first launch it wanted no offers either.
    wait_until(GENEROUS, "offers are wanted", async || {
        let (_, shown) = setpoint.get("/v1/policies").await;
        (shown["backends"]["mesos"]["facts"]["suppressed"] == "false").then_some(())
    })
    .await;
    scratch.replace("p.lua", &policy(0, "exec sleep 100000"));
    setpoint.running("p", 0).await;
    let log = || cluster.masters[0].server.log();
    let before = held(&log(), &framework).0.len();
    wait_until(GENEROUS * 2, "offers come and go while it is idle, and then no more are wanted", async || {
        let (_, shown) = setpoint.get("/v1/policies").await;
        (shown["backends"]["mesos"]["facts"]["suppressed"] == "true").then_some(())
    })
    .await;
    let of_neighbour = async || {
        let state = cluster.state().await?;
        let frameworks = state["frameworks"].as_array()?;
        let neighbour = frameworks.iter().find(|framework| framework["name"] == "neighbour")?;
        Some(held(&log(), neighbour["id"].as_str()?).0.len())
    };
    let since = wait_until(GENEROUS, "the neighbour is known", of_neighbour).await;
    wait_until(GENEROUS, "the neighbour gets all offers, again and again", async || {
        of_neighbour().await.filter(|now| since + 6 <= *now)
    })
    .await;
    let (times, open) = held(&log(), &framework);
    assert_eq!(open, Vec::<String>::new(), "offers are held for good");
    let idle = &times[before..];
    let (most, mean) = (idle.iter().copied().fold(0.0, f64::max), idle.iter().sum::<f64>() / idle.len() as f64);
    eprintln!(
        "neighbour: idle, {} offers were held for {:.1} ms on average, {:.1} ms at most",
        idle.len(),
        1e3 * mean,
        1e3 * most
    );
    // A machine that does other things besides is given more time.
    let limit = if setting("SETPOINT_WINDOW", 0) > 0 { 1.0 } else { 5.0 };
    assert!(6 <= idle.len() && mean < 1.0 && most < limit, "offers are held: {idle:?}");

    // The figures of the neighbour's tasks beside /proc's.
    let mut watcher = watch(&scratch, &cluster);
    let known = async || seen(&watcher).last().filter(|last| last["usage"]["cpu_percent"].is_number()).cloned();
    let first = wait_until(GENEROUS, "the neighbour's share is known", known).await;
    assert_eq!((&first["usage"]["tasks"], &first["usage"]["running"]), (&2.into(), &2.into()), "{first}");
    let names = ["neighbour-1", "neighbour-2"];
    let agents: Vec<i32> = cluster.agents.iter().map(|agent| agent.server.pid()).collect();
    let processes = cluster.folder().processes();
    let executor = |name: &str| {
        // The id of a task's executor is in the path of its sandbox.
        let own = |process: &&Marked| {
            let sandbox = std::fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap_or_default();
            process.command.ends_with("neighbour.py executor")
                && sandbox.to_string_lossy().contains(&format!("of-{name}/"))
        };
        Whose::Tree(container(processes.iter().find(own).expect("the executor runs").pid, &agents))
    };
    let sources = names.map(|name| (name, executor(name)));
    agree(&sources, async || {
        let seen = seen(&watcher);
        let of = |name: &str| {
            let rows = seen.iter().filter_map(|line| line["rows"].as_array()?.iter().find(|row| row["name"] == name));
            let figure =
                |row: &Value| Some(Figure { cpu: row["cpu_percent"].as_f64()?, memory: row["memory_bytes"].as_f64()? });
            rows.filter_map(figure).collect()
        };
        names.map(of).into()
    })
    .await;
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
