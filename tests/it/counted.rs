//! The loop on a count backend (semantics 36): absolute numbers under a version, tasks as a picture.

mod backend;

use std::sync::Arc;
use std::time::Duration;

use setpoint::backend::Backend;
use setpoint::core::model::{Exit, TaskState};
use setpoint::runtime::view::{Command, PolicySnapshot};
use setpoint::runtime::{Engine, EngineConfig, EngineHandle, PolicySource};

use crate::support::{GENEROUS, Scratch, wait_until};

use backend::Fake;

fn config(scratch: &Scratch, fake: &Arc<Fake>) -> EngineConfig {
    EngineConfig {
        sources: vec![PolicySource::File(scratch.path("p.lua"))],
        backends: [("herd".to_owned(), Backend::Count(Arc::clone(fake) as _))].into(),
        poll: Duration::from_millis(200),
        ..EngineConfig::default()
    }
}

async fn start(scratch: &Scratch, fake: &Arc<Fake>) -> Engine {
    Engine::start(config(scratch, fake)).await.expect("started")
}

async fn until(handle: &EngineHandle, what: &str, check: impl Fn(&PolicySnapshot) -> bool) -> Arc<PolicySnapshot> {
    wait_until(GENEROUS, what, async || handle.policy("p").filter(|policy| check(policy))).await
}

async fn running(handle: &EngineHandle, n: u32) -> Arc<PolicySnapshot> {
    until(handle, &format!("{n} tasks and none on the way"), |policy| {
        policy.counts.running == n && policy.counts.in_flight() == 0 && policy.counts.killing == 0
    })
    .await
}

/// Holds `n` tasks; `extra` goes into the table.
fn holding(n: u32, extra: &str) -> String {
    format!(
        r#"return {{ interval = "50ms", control = {{ law = "count", n = {n} }}, {extra}
            workload = {{ backend = "herd", command = "x", min = 0, max = 9 }} }}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_held_shown_and_removed_at_the_end() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding(3, ""));
    let fake = Fake::new();
    let engine = start(&scratch, &fake).await;
    let handle = engine.handle();
    running(&handle, 3).await;
    assert_eq!(fake.state().scaled, [3], "once, and as a whole");
    let tasks = handle.tasks();
    assert_eq!(tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["unit001", "unit002", "unit003"]);
    assert!(tasks.iter().all(|task| task.state == TaskState::Running && &*task.backend == "herd"));
    assert_eq!(tasks.iter().map(|task| task.slot).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    wait_until(GENEROUS, "figures", async || {
        handle.tasks().iter().all(|task| task.stats.memory_bytes == Some(5)).then_some(())
    })
    .await;
    let error = handle.command(Command::KillTask { task: tasks[0].id.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("chooses itself which of its tasks end"), "{error}");

    // Scaled in by another number, and out by an operator's.
    scratch.replace("p.lua", &holding(1, ""));
    running(&handle, 1).await;
    let over =
        Command::Override { policy: "p".into(), min: Some(2), max: None, for_: None, force: false, reason: None };
    handle.command(over).await.unwrap();
    running(&handle, 2).await;
    assert_eq!(fake.state().scaled, [3, 1, 2]);
    engine.stop().await;
    let state = fake.state();
    assert_eq!((state.removed, state.version), (1, 0), "without a state folder nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_is_the_backends_to_replace_and_nothing_is_asked_for_it() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding(2, "max_failures = 2,"));
    let fake = Fake::new();
    let engine = start(&scratch, &fake).await;
    let handle = engine.handle();
    running(&handle, 2).await;
    fake.state().slow = true;
    let lost = fake.crash(0, Exit::Code { code: 1 });
    let gap = until(&handle, "the loss to be seen", |policy| policy.failures == 1).await;
    assert_eq!((gap.counts.desired(), gap.counts.in_flight()), (2, 1), "the place is in flight");
    assert!(handle.tasks().iter().all(|task| task.id != lost), "the dead are not listed");
    fake.state().slow = false;
    running(&handle, 2).await;
    let slots = |handle: &EngineHandle| {
        let mut slots: Vec<_> = handle.tasks().iter().map(|task| (task.slot, task.id.to_string())).collect();
        slots.sort();
        slots
    };
    assert_eq!(slots(&handle), [(Some(0), "unit003".to_owned()), (Some(1), "unit002".to_owned())]);
    assert_eq!(fake.state().scaled, [2]);
    // The second failure ends the policy, and with it the workload.
    fake.crash(1, Exit::OutOfMemory);
    until(&handle, "the end", |policy| policy.ended.as_ref().is_some_and(|ended| ended.by == "max_failures")).await;
    wait_until(GENEROUS, "the workload to be removed", async || (fake.state().removed == 1).then_some(())).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_workload_is_taken_as_it_is_and_others_changes_are_not_undone_unseen() {
    let scratch = Scratch::new();
    let demand = r#"
        local fs = require("setpoint.params") { add = 0 }
        return { interval = "50ms", target = 0, metric = function(ctx) return ctx.params.add end,
          control = { per_task = 1, cooldown = { up = "1h" } },
          workload = { backend = "herd", command = "x", min = 0, max = 9 } }"#;
    scratch.policy("p", demand);
    let fake = Fake::new();
    fake.exists(4);
    // Between the look and the number somebody else changes something, but not the number: it is sent again.
    fake.state().meddle = vec![0, 0];
    let mut config = config(&scratch, &fake);
    config.params = [("add".to_owned(), "2".to_owned())].into();
    let engine = Engine::start(config).await.expect("started");
    running(&engine.handle(), 6).await;
    assert_eq!(fake.state().scaled, [6], "from the four that were there");
    engine.stop().await;

    // The same with another number: what was decided lapses, and the next decision starts from what is there.
    let scratch = Scratch::new();
    scratch.policy("p", &holding(3, ""));
    let fake = Fake::new();
    fake.exists(2);
    fake.state().meddle = vec![5];
    let engine = start(&scratch, &fake).await;
    running(&engine.handle(), 3).await;
    assert_eq!(fake.state().scaled, [3]);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_while_an_update_is_in_progress_or_nobody_answers() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding(3, ""));
    let fake = Fake::new();
    fake.exists(1);
    fake.state().busy = Some("an update is in progress".into());
    let engine = start(&scratch, &fake).await;
    let handle = engine.handle();
    let held = until(&handle, "the update to hold it", |policy| {
        policy.decision.as_ref().is_some_and(|decision| {
            decision.reasons.iter().any(|reason| reason.to_string().contains("an update is in progress"))
        })
    })
    .await;
    assert_eq!((held.counts.running, held.acted), (1, 0));
    assert!(fake.state().scaled.is_empty());
    // A number that is taken and not confirmed is not sent twice.
    fake.state().swallow = true;
    fake.state().busy = None;
    running(&handle, 3).await;
    assert_eq!(fake.state().scaled, [3]);

    fake.state().outage = Some("gone fishing".into());
    wait_until(GENEROUS, "the outage to show", async || {
        let health = handle.health();
        (!health.ready && health.problems.values().any(|problem| problem.contains("gone fishing"))).then_some(())
    })
    .await;
    scratch.replace("p.lua", &holding(5, ""));
    until(&handle, "a new number on its way", |policy| policy.counts.desired() == 5).await;
    fake.state().outage = None;
    running(&handle, 5).await;
    wait_until(GENEROUS, "health", async || handle.health().ready.then_some(())).await;
    assert_eq!(fake.state().scaled.last(), Some(&5));
    // One that is refused for good does not pile up, and says why.
    fake.state().refuses = Some("no such image".into());
    scratch.replace("p.lua", &holding(6, ""));
    wait_until(GENEROUS, "the refusal to show", async || {
        handle.health().problems.values().any(|problem| problem.contains("no such image")).then_some(())
    })
    .await;
    until(&handle, "what is there to count", |policy| policy.counts.desired() == 5).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_the_workload_and_a_dry_run_touches_nothing() {
    let scratch = Scratch::new();
    let state = scratch.path("state");
    scratch.policy("p", &holding(2, ""));
    let fake = Fake::new();
    let durable = || EngineConfig { state_dir: Some(state.clone()), ..config(&scratch, &fake) };
    let engine = Engine::start(durable()).await.expect("started");
    running(&engine.handle(), 2).await;
    engine.stop().await;
    assert_eq!(fake.numbers(), (2, 0), "kept");

    let engine = Engine::start(durable()).await.expect("started again");
    running(&engine.handle(), 2).await;
    assert_eq!(fake.state().scaled, [2], "nothing was asked anew");
    engine.stop().await;

    let dry = EngineConfig { dry_run: true, ..config(&scratch, &fake) };
    scratch.policy("p", &holding(7, ""));
    let engine = Engine::start(dry).await.expect("started");
    let shown = until(&engine.handle(), "a tick", |policy| 2 < policy.ticks).await;
    assert_eq!(shown.counts.running, 2);
    engine.stop().await;
    assert_eq!(fake.numbers(), (2, 0));

    let last = EngineConfig { stop_tasks: true, ..durable() };
    let engine = Engine::start(last).await.expect("started");
    running(&engine.handle(), 7).await;
    engine.stop().await;
    assert_eq!(fake.state().removed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_policys_workload_is_shown_and_can_be_removed() {
    let scratch = Scratch::new();
    let state = scratch.path("state");
    scratch.policy("p", &holding(2, ""));
    let fake = Fake::new();
    let durable = |file: &str| EngineConfig {
        sources: vec![PolicySource::File(scratch.path(file))],
        state_dir: Some(state.clone()),
        ..config(&scratch, &fake)
    };
    let engine = Engine::start(durable("p.lua")).await.expect("started");
    running(&engine.handle(), 2).await;
    engine.stop().await;
    scratch.policy("q", r#"return { workload = { backend = "none", max = 1, count = function() return 0 end }, control = { law = "count", n = 0 } }"#);
    let engine = Engine::start(durable("q.lua")).await.expect("started");
    let handle = engine.handle();
    until(&handle, "two tasks without a file", |policy| policy.spec.is_none() && policy.counts.running == 2).await;
    // It is looked at on: a loss there shows.
    fake.state().slow = true;
    let lost = fake.crash(1, Exit::Code { code: 0 });
    wait_until(GENEROUS, "the loss to show", async || handle.tasks().iter().all(|task| task.id != lost).then_some(()))
        .await;
    let adopted = handle.command(Command::Adopt { old: "p".into(), new: "q".into() }).await.unwrap_err();
    assert!(adopted.to_string().contains("found by that name"), "{adopted}");
    handle.command(Command::Remove { policy: "p".into() }).await.unwrap();
    wait_until(GENEROUS, "it to be gone", async || handle.policy("p").is_none().then_some(())).await;
    assert_eq!(fake.state().removed, 1);
    engine.stop().await;
}
