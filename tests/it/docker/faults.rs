//! Engines that are killed, frozen, restarted or out of reach while a policy scales: nothing is launched twice, nothing is
//! lost, and the outage is told.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{configure, holding, tasks_of};
use crate::support::{EngineOptions, GENEROUS, LABEL, OwnEngine, Scratch, Setpoint, setting, wait_until};

/// One engine, a policy on it, and a setpoint that holds three containers.
struct Stage {
    setpoint: Setpoint,
    engine: OwnEngine,
    scratch: Scratch,
    first: BTreeSet<String>,
}

impl Stage {
    async fn set(live_restore: bool) -> Option<Self> {
        let engine = OwnEngine::start_new(EngineOptions { live_restore, ..EngineOptions::default() })?;
        let image = engine.docker().image("busybox")?;
        let scratch = Scratch::new();
        configure(&scratch, &[("own", engine.docker().host())]);
        scratch.policy("sleepers", &watching(&scratch, &image));
        let mut setpoint = Setpoint::run(&scratch, ["sleepers.lua", "--state-dir", "state"]);
        scratch.write("n", "3");
        setpoint.running("sleepers", 3).await;
        let first = ids(&setpoint.tasks().await);
        Some(Self { setpoint, engine, scratch, first })
    }

    /// Three more are wanted, from now on.
    fn scale(&self) {
        self.scratch.write("n", "6");
    }

    /// The outage shows, and as long as it lasts every task of before it stays listed as running.
    async fn told_and_held(&mut self) {
        wait_until(GENEROUS, "/readyz tells of the engine", async || {
            let (status, body) = self.setpoint.get("/readyz").await;
            (status == 503 && body.to_string().contains("engine `own`")).then_some(())
        })
        .await;
        self.setpoint.ticks("sleepers", 5).await;
        let tasks = self.setpoint.tasks().await;
        let held = tasks.iter().filter(|task| task["state"] == "running");
        let held: BTreeSet<String> = held.map(|task| task["id"].as_str().unwrap().to_owned()).collect();
        assert!(self.first.is_subset(&held), "{tasks:?}");
        // What the engine said last stands for some seconds.
        let unknown = |policy: &Value| policy["sample"]["kind"] != "value";
        let policy = self.setpoint.policy_until("sleepers", "what the engine was to tell is not known", unknown).await;
        let desired = policy["tasks"]["running"].as_u64().unwrap() + policy["tasks"]["in_flight"].as_u64().unwrap();
        assert!(3 <= desired && policy["tasks"]["killing"] == 0, "nothing is scaled in: {policy}");
    }

    /// In the end six run, each is a container and each container one of them, and all is well again.
    async fn settles(&mut self) -> BTreeSet<String> {
        self.setpoint.running("sleepers", 6).await;
        wait_until(GENEROUS, "containers and tasks are the same", async || {
            let tasks = ids(&self.setpoint.tasks().await);
            (tasks.len() == 6 && tasks_of(self.engine.docker(), &self.scratch).into_iter().eq(tasks)).then_some(())
        })
        .await;
        wait_until(GENEROUS, "/readyz is well", async || (self.setpoint.get("/readyz").await.0 == 200).then_some(()))
            .await;
        self.setpoint.ticks("sleepers", 3).await;
        let policy = self.setpoint.policy("sleepers").await.unwrap();
        assert_eq!(policy["tasks"]["running"], 6, "it stays so: {policy}");
        ids(&self.setpoint.tasks().await)
    }

    async fn end(mut self) {
        self.setpoint.signal(rustix::process::Signal::TERM);
        assert!(self.setpoint.exit(GENEROUS).await.success());
    }
}

/// A policy whose sample its engine has to tell, and whose law is careless: without a sample it wants nothing to run.
fn watching(scratch: &Scratch, image: &str) -> String {
    let words = r#"command = { "sleep", "3600" }, init = true,"#;
    let metric = format!(
        r#"metric = function() return #docker.stats {{ label = "{LABEL}={}" }} end,
          decide = function(ctx) if not ctx.sample then return {{ desired = 0 }} end return"#,
        scratch.mark()
    );
    let policy = holding(scratch, image, words).replace("decide = function() return", &metric);
    format!("local docker = require(\"setpoint.docker\")\n{policy}")
}

fn ids(tasks: &[Value]) -> BTreeSet<String> {
    tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_engine_that_is_killed_keeps_its_containers_with_live_restore() {
    let Some(mut stage) = Stage::set(true).await else { return };
    stage.scale();
    stage.engine.kill();
    stage.told_and_held().await;
    stage.engine.start();
    let all = stage.settles().await;
    assert!(stage.first.is_subset(&all), "none of those before was lost");
    stage.end().await;
}

#[tokio::test]
async fn an_engine_that_is_killed_ends_its_containers_without_live_restore() {
    let Some(mut stage) = Stage::set(false).await else { return };
    stage.scale();
    stage.engine.kill();
    stage.told_and_held().await;
    stage.engine.start();
    let all = stage.settles().await;
    assert!(stage.first.is_disjoint(&all), "the engine ended those before, and all were replaced");
    let log = stage.setpoint.stderr();
    assert!(!log.contains("task failed"), "what the engine did is no failure of a task:\n{log}");
    stage.end().await;
}

#[tokio::test]
async fn an_engine_that_is_restarted_is_taken_up_again() {
    for live_restore in [true, false] {
        let Some(mut stage) = Stage::set(live_restore).await else { return };
        stage.scale();
        stage.engine.stop();
        stage.engine.start();
        let all = stage.settles().await;
        assert_eq!(stage.first.is_subset(&all), live_restore);
        stage.end().await;
    }
}

#[tokio::test]
async fn an_engine_that_hangs_is_waited_for() {
    let Some(mut stage) = Stage::set(true).await else { return };
    stage.scale();
    stage.engine.freeze();
    let thaw_at = Instant::now() + Duration::from_secs(setting("SETPOINT_FREEZE", 8));
    stage.told_and_held().await;
    tokio::time::sleep(thaw_at.saturating_duration_since(Instant::now())).await;
    stage.told_and_held().await;
    stage.engine.thaw();
    let all = stage.settles().await;
    assert!(stage.first.is_subset(&all), "none of those before was lost");
    stage.end().await;
}

#[tokio::test]
async fn an_engine_whose_socket_is_gone_is_waited_for() {
    let Some(mut stage) = Stage::set(true).await else { return };
    let (socket, aside) = (stage.engine.socket(), stage.engine.folder().join("aside.sock"));
    stage.scale();
    fs::rename(&socket, &aside).unwrap();
    stage.told_and_held().await;
    fs::rename(&aside, &socket).unwrap();
    let all = stage.settles().await;
    assert!(stage.first.is_subset(&all), "none of those before was lost");
    stage.end().await;
}
