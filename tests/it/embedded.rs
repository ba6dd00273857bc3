//! The engine through the library's door, on backends of the test's own.

mod backend;

use std::sync::Arc;
use std::time::Duration;

use setpoint::backend::Backend;
use setpoint::core::model::PolicyName;
use setpoint::runtime::view::{Command, PolicySnapshot};
use setpoint::runtime::{Engine, EngineConfig, EngineHandle, GlobalBudget, PolicySource};

use crate::support::{GENEROUS, Scratch, setting, wait_until};

use backend::Fake;

fn config(scratch: &Scratch, backends: &[(&str, &Arc<Fake>)]) -> EngineConfig {
    EngineConfig {
        sources: vec![PolicySource::File(scratch.path("p.lua"))],
        backends: backends
            .iter()
            .map(|(name, fake)| ((*name).to_owned(), Backend::Tasks(Arc::clone(fake) as _)))
            .collect(),
        poll: Duration::from_millis(200),
        ..EngineConfig::default()
    }
}

async fn until(
    handle: &EngineHandle,
    name: &str,
    what: &str,
    check: impl Fn(&PolicySnapshot) -> bool,
) -> Arc<PolicySnapshot> {
    wait_until(GENEROUS, what, async || handle.policy(name).filter(|policy| check(policy))).await
}

fn holding(backend: &str, n: u32, extra: &str) -> String {
    format!(
        r#"return {{ interval = "50ms", control = {{ law = "count", n = {n} }}, {extra}
            workload = {{ backend = "{backend}", command = "x", min = 0, max = 9 }} }}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_backend_drains_the_old_tasks_while_the_new_ones_start() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding("old", 3, ""));
    let (old, new) = (Fake::new(), Fake::new());
    let engine = Engine::start(config(&scratch, &[("old", &old), ("new", &new)])).await.expect("started");
    until(&engine.handle(), "p", "three tasks", |policy| policy.counts.running == 3).await;
    assert_eq!((old.alive().len(), new.alive().len()), (3, 0));
    scratch.replace("p.lua", &holding("new", 3, ""));
    wait_until(GENEROUS, "the new backend to have them", async || {
        (old.alive().is_empty() && new.alive().len() == 3).then_some(())
    })
    .await;
    until(&engine.handle(), "p", "three tasks", |policy| policy.counts.running == 3 && policy.counts.killing == 0)
        .await;
    assert_eq!(new.launched(), 3, "none was started twice");
    engine.stop().await;
    assert!(new.alive().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_asked_for_nothing_before_it_has_recovered() {
    let scratch = Scratch::new();
    let state = scratch.path("state");
    scratch.policy("p", &holding("old", 2, ""));
    let old = Fake::new();
    let with_state =
        |backends: &[(&str, &Arc<Fake>)]| EngineConfig { state_dir: Some(state.clone()), ..config(&scratch, backends) };
    let engine = Engine::start(with_state(&[("old", &old)])).await.expect("started");
    until(&engine.handle(), "p", "two tasks", |policy| policy.counts.running == 2).await;
    engine.stop().await;
    assert_eq!(old.alive().len(), 2, "kept over the restart");
    // The next run has the policy on another backend, and neither answers yet.
    scratch.policy("p", &holding("new", 2, ""));
    let new = Fake::new();
    let (old_gate, new_gate) = (old.hold_recovery(), new.hold_recovery());
    let engine = Engine::start(with_state(&[("old", &old), ("new", &new)])).await.expect("started");
    until(&engine.handle(), "p", "the old tasks to be on their way out", |policy| policy.counts.killing == 2).await;
    assert_eq!((old.alive().len(), new.launched()), (2, 0));
    drop((old_gate, new_gate));
    wait_until(GENEROUS, "the new backend to have them", async || {
        (old.alive().is_empty() && new.alive().len() == 2).then_some(())
    })
    .await;
    assert_eq!(old.early() + new.early(), 0, "requests before the answer to recover");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_a_backend_has_not_taken_is_asked_again() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding("old", 2, ""));
    let old = Fake::new();
    let engine = Engine::start(config(&scratch, &[("old", &old)])).await.expect("started");
    until(&engine.handle(), "p", "two tasks", |policy| policy.counts.running == 2).await;
    old.refuse(2);
    scratch.replace("p.lua", &holding("old", 1, ""));
    until(&engine.handle(), "p", "one task", |policy| policy.counts.running == 1 && policy.counts.killing == 0).await;
    assert_eq!(old.alive().len(), 1);
    engine.stop().await;
}

/// A launch that the backend is asked to let go of may have been placed at that very moment.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_withdrawn_is_made_up_for_only_when_the_backend_has_let_go() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding("old", 2, ""));
    let fake = Fake::queueing();
    let held = fake.hold_withdrawals();
    let engine = Engine::start(config(&scratch, &[("old", &fake)])).await.expect("started");
    let handle = engine.handle();
    wait_until(GENEROUS, "a withdrawal", async || (fake.withdrawn() > 0).then_some(())).await;
    let ticks = handle.policy("p").expect("there").ticks;
    let policy = until(&handle, "p", "ticks without an answer", |policy| ticks + 3 <= policy.ticks).await;
    assert_eq!((policy.counts.asked, policy.counts.killing, policy.counts.desired()), (2, 0, 2));
    fake.place().await;
    drop(held);
    until(&handle, "p", "two tasks", |policy| policy.counts.running == 2).await;
    let ticks = handle.policy("p").expect("there").ticks;
    until(&handle, "p", "more ticks", |policy| ticks + 3 <= policy.ticks).await;
    assert_eq!((fake.launched(), fake.alive().len()), (2, 2), "none was started twice");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_that_a_backend_has_not_taken_is_asked_again() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding("old", 2, ""));
    let fake = Fake::queueing();
    fake.refuse(2);
    let engine = Engine::start(config(&scratch, &[("old", &fake)])).await.expect("started");
    let handle = engine.handle();
    wait_until(GENEROUS, "two that fail", async || (2 <= fake.withdrawn()).then_some(())).await;
    wait_until(GENEROUS, "others to be asked for", async || (4 <= fake.launched()).then_some(())).await;
    until(&handle, "p", "two at a time", |policy| policy.counts.asked == 2 && policy.counts.killing == 0).await;
    // What nobody wants any more is not asked for.
    scratch.replace("p.lua", &holding("old", 0, ""));
    let ended = until(&handle, "p", "the file to run", |policy| policy.generation == 2).await;
    let settled = until(&handle, "p", "none to be asked for", |policy| {
        ended.ticks + 2 <= policy.ticks && policy.counts.asked == 0
    })
    .await;
    let launched = fake.launched();
    until(&handle, "p", "more ticks", |policy| settled.ticks + 3 <= policy.ticks).await;
    assert_eq!(fake.launched(), launched);
    engine.stop().await;
}

/// A tick waits a little for the word on launches that lapse with it: each makes up for those of the one before.
#[tokio::test(flavor = "multi_thread")]
async fn a_tick_waits_for_what_lapses_with_it() {
    let scratch = Scratch::new();
    scratch.policy("p", &holding("old", 2, "").replace("50ms", "600ms"));
    let fake = Fake::queueing();
    // Longer than they lapse ahead of the tick.
    fake.slow_withdrawals(Duration::from_millis(100));
    let engine = Engine::start(config(&scratch, &[("old", &fake)])).await.expect("started");
    let ticked = until(&engine.handle(), "p", "nine ticks", |policy| 9 <= policy.ticks).await;
    // A tick that comes late may find no answer; every other one is what this is about.
    let launched = fake.launched() as u64;
    assert!(3 * launched >= 2 * 2 * ticked.ticks, "{launched} launches of 2 in {} ticks", ticked.ticks);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_replacement_changes_one_task_at_a_time() {
    let scratch = Scratch::new();
    let policy = |command: &str| {
        format!(
            r#"return {{ interval = "50ms", control = {{ law = "count", n = 3 }},
                workload = {{ backend = "old", command = "{command}", min = 0, max = 4, replace = "rolling" }} }}"#
        )
    };
    scratch.policy("p", &policy("one"));
    let fake = Fake::new();
    let engine = Engine::start(config(&scratch, &[("old", &fake)])).await.expect("started");
    until(&engine.handle(), "p", "three tasks", |policy| policy.counts.running == 3).await;
    fake.watch_lowest();
    scratch.replace("p.lua", &policy("two"));
    wait_until(GENEROUS, "all to run the new command", async || {
        let alive = fake.alive();
        (alive.len() == 3 && alive.values().all(|template| format!("{:?}", template.command).contains("two")))
            .then_some(())
    })
    .await;
    assert_eq!(fake.lowest(), 2, "one at a time");
    assert_eq!(fake.launched(), 6);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_global_budget_bounds_all_policies_together_also_while_scripts_act() {
    let scratch = Scratch::new();
    let acting = holding(
        "old",
        5,
        "warmer = function(n, ctx) ctx.workload:launch(n) end, cooler = function(n, ctx) ctx.workload:launch(n) end,",
    );
    let fake = Fake::new();
    let engine = Engine::start(EngineConfig {
        sources: ["a", "b", "c"]
            .map(|name| PolicySource::Text { name: name.to_owned(), source: acting.clone() })
            .to_vec(),
        budget: Some(GlobalBudget { changes: 4, per: Duration::from_secs(3600) }),
        ..config(&scratch, &[("old", &fake)])
    })
    .await
    .expect("started");
    for name in ["a", "b", "c"] {
        until(&engine.handle(), name, "ten ticks", |policy| 10 <= policy.ticks).await;
    }
    assert_eq!(fake.launched(), 4);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grown_interval_falls_back_at_the_first_change() {
    let scratch = Scratch::new();
    // Grown from 50 ms to an hour at the third tick, which is the one that changes something.
    let source = r#"return { interval = { min = "50ms", max = "1h", grow = 2 }, control = { law = "decide" },
        workload = { backend = "old", command = "x", min = 0, max = 9 },
        decide = function(ctx) return { desired = ctx.tick >= 4 and 1 or 0 } end }"#;
    let fake = Fake::new();
    let engine = Engine::start(EngineConfig {
        sources: vec![PolicySource::Text { name: "p".to_owned(), source: source.to_owned() }],
        ..config(&scratch, &[("old", &fake)])
    })
    .await
    .expect("started");
    let policy = until(&engine.handle(), "p", "the change", |policy| policy.ticks == 4 && policy.acted == 1).await;
    let (last, next) = (policy.last_tick.expect("it ticked"), policy.next_tick.expect("it ticks"));
    let wait = next.duration_since(last).unwrap_or_default();
    assert!(wait < Duration::from_millis(200), "50 ms, not the 400 ms that it had grown to: {wait:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retired_policies_are_adopted_or_removed() {
    let scratch = Scratch::new();
    let fake = Fake::new();
    let run = |names: &[&str], n: u32| EngineConfig {
        sources: names
            .iter()
            .map(|name| PolicySource::Text { name: (*name).to_owned(), source: holding("old", n, "") })
            .collect(),
        state_dir: Some(scratch.path("state")),
        ..config(&scratch, &[("old", &fake)])
    };
    let engine = Engine::start(run(&["a", "b"], 2)).await.expect("started");
    for name in ["a", "b"] {
        until(&engine.handle(), name, "two tasks", |policy| policy.counts.running == 2).await;
    }
    engine.stop().await;
    let before = fake.alive();
    assert_eq!(before.len(), 4);
    let engine = Engine::start(run(&["heir"], 2)).await.expect("started");
    let handle = engine.handle();
    for name in ["a", "b"] {
        until(&handle, name, "to be retired", |policy| {
            policy.ended.as_ref().is_some_and(|ended| ended.by == "retired")
        })
        .await;
    }
    let (a, b, heir) = (PolicyName::from("a"), PolicyName::from("b"), PolicyName::from("heir"));
    let refused = handle.command(Command::Remove { policy: heir.clone() }).await;
    assert!(refused.is_err(), "one with a file is not removed");
    until(&handle, "heir", "its own tasks", |policy| policy.counts.running == 2).await;
    handle.command(Command::Adopt { old: a.clone(), new: heir.clone() }).await.expect("adopted");
    assert!(handle.policy("a").is_none());
    until(&handle, "heir", "the law to have its say", |policy| {
        policy.counts.running == 2 && policy.counts.killing == 0
    })
    .await;
    assert_eq!(handle.policy("b").expect("still there").counts.running, 2);
    handle.command(Command::Remove { policy: b.clone() }).await.expect("removed");
    wait_until(GENEROUS, "b to be gone", async || handle.policy("b").is_none().then_some(())).await;
    assert_eq!(fake.alive().len(), 2);
    engine.stop().await;
    let engine = Engine::start(run(&["heir"], 2)).await.expect("started");
    until(&engine.handle(), "heir", "the same tasks", |policy| policy.counts.running == 2).await;
    assert!(engine.handle().policy("b").is_none() && engine.handle().policy("a").is_none());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_turns_from_policy_to_fleet_and_back() {
    let scratch = Scratch::new();
    let fleet = r#"return setpoint.fleet { every = "100ms", discover = function() return { { name = "row" } } end,
        policy = function(row) return { interval = "50ms", control = { law = "count", n = 1 },
          workload = { backend = "old", command = "x", min = 0, max = 9 } } end }"#;
    scratch.policy("p", &holding("old", 2, ""));
    let fake = Fake::new();
    let engine = Engine::start(config(&scratch, &[("old", &fake)])).await.expect("started");
    let handle = engine.handle();
    for _ in 0..2 {
        until(&handle, "p", "two tasks", |policy| policy.counts.running == 2).await;
        wait_until(GENEROUS, "the row to be gone", async || handle.policy("p/row").is_none().then_some(())).await;
        assert_eq!(fake.alive().len(), 2);
        scratch.replace("p.lua", fleet);
        until(&handle, "p/row", "one task", |policy| policy.counts.running == 1).await;
        wait_until(GENEROUS, "the policy to be gone", async || handle.policy("p").is_none().then_some(())).await;
        assert_eq!(fake.alive().len(), 1);
        scratch.replace("p.lua", &holding("old", 2, ""));
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_is_asked_again_after_its_policy_has_ended() {
    let scratch = Scratch::new();
    scratch.write("ended", "no");
    let source = r#"local fs = require("setpoint.fs")
return { interval = "50ms", control = { law = "count", n = 1 }, on_end = "stop",
    workload = { backend = "old", command = "x", min = 0, max = 9, grace = "1h", on_end = "stop" },
    stop = function(ctx) if fs.read("ended") == "yes" then return 3 end end,
    drain = function(task, ctx) ctx.state.asked = (ctx.state.asked or 0) + 1 return ctx.state.asked >= 3 end }"#;
    scratch.policy("p", &source.replace(" on_end = \"stop\",\n", "\n"));
    let fake = Fake::new();
    let engine = Engine::start(config(&scratch, &[("old", &fake)])).await.expect("started");
    until(&engine.handle(), "p", "its task", |policy| policy.counts.running == 1).await;
    scratch.replace("ended", "yes");
    // With an hour's grace, only answers of `drain` can end this.
    let end = tokio::time::timeout(GENEROUS, engine.run(tokio::sync::mpsc::channel(1).1)).await.expect("it ended");
    assert_eq!(end.code, 3);
    assert!(fake.alive().is_empty());
}

/// `SETPOINT_ROWS` times (1,000 in a campaign) a fleet's rows come and go.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleets_rows_come_and_go_many_times_and_leave_nothing() {
    let campaign = setting("SETPOINT_ROWS", 0);
    let rounds = if campaign > 0 { campaign } else { 50 };
    let scratch = Scratch::new();
    scratch.write("rows", "0");
    scratch.policy(
        "p",
        r#"local fs = require("setpoint.fs")
return setpoint.fleet {
  every = "100ms",
  discover = function()
    local round = tonumber(fs.read("rows"))
    local rows = { { name = "always" }, { name = "keeps" }, { name = "on" } }
    for i = 1, 2 do rows[#rows + 1] = { name = "row" .. round .. "-" .. i } end
    return rows
  end,
  policy = function(row)
    return { interval = "50ms", workload = { backend = "old", command = "x", min = 1, max = 1 }, control = { law = "count", n = 1 } }
  end,
}"#,
    );
    let fake = Fake::new();
    let engine = Engine::start(config(&scratch, &[("old", &fake)])).await.expect("started");
    let handle = engine.handle();
    let mut resident = Vec::new();
    for round in 0..rounds {
        scratch.replace("rows", &round.to_string());
        let last = format!("p/row{round}-2");
        wait_until(GENEROUS, "the new rows to run and the old ones to be gone", async || {
            let there = handle.policy(&last).is_some_and(|policy| policy.counts.running == 1);
            (there && handle.policies().len() == 5 && fake.alive().len() == 5).then_some(())
        })
        .await;
        if round % (rounds / 10).max(1) == 0 {
            resident.push(resident_kb());
        }
    }
    let always = handle.policy("p/always").expect("it stays");
    assert_eq!((always.generation, always.counts.running), (1, 1));
    // A key that was used before has one schedule: two would tick a row twice as often.
    let row = format!("p/row{}-1", rounds - 1);
    let first = handle.policy(&row).expect("it runs");
    let ticked = until(&handle, &row, "twenty ticks", |policy| first.ticks + 20 <= policy.ticks).await;
    let span =
        ticked.last_tick.zip(first.last_tick).map(|(last, first)| last.duration_since(first).unwrap_or_default());
    let shortest = Duration::from_millis(850);
    assert!(span.is_none_or(|span| shortest <= span), "twenty ticks of 50 ms in {span:?}");
    let (first, last) = (resident[resident.len() / 3], resident[resident.len() - 1]);
    // Without a campaign other tests run in this process.
    assert!(campaign == 0 || last < first + first / 5 + 8192, "resident memory stays flat: {resident:?} kB");
    println!("{rounds} rounds of rows, {} launches, resident {resident:?} kB", fake.launched());
    engine.stop().await;
    assert!(fake.alive().is_empty());
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}
