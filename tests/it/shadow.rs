//! Shadow policies through the binary: evaluated beside the acting one, recorded, compared, and without any effect.

use serde_json::Value;

use crate::support::{GENEROUS, HttpServer, Scratch, Setpoint, wait_until};

/// Holds what `metric` says at 0, one task for `per_task`; a second line of the table is the case's own.
fn policy(metric: &str, more: &str) -> String {
    format!(
        r#"return {{
  interval = "100ms",
  workload = {{ command = "exec sleep 600", min = 0, max = 8, grace = "1s" }},
  {more}
  metric = function(ctx) {metric} end,
  target = 0,
}}"#
    )
}

/// Two tasks are enough for it.
fn acting(more: &str) -> String {
    policy("return 10 - 5 * ctx.running", &format!("control = {{ law = 'proportional', per_task = 5 }}, {more}"))
}

/// Five are, and it asks for them over HTTP too.
fn eager(url: &str) -> String {
    let post = format!("require('setpoint.http').post('{url}', {{ body = tostring(n) }}) ctx.workload:launch(n)");
    policy(
        "ctx.state.ticks = (ctx.state.ticks or 0) + 1; return 10 - 2 * ctx.running",
        &format!("control = {{ law = 'proportional', per_task = 2 }}, cooler = function(n, ctx) {post} end,"),
    )
}

const SHADOW: &str = "shadow = 'shadows/next.lua',";

fn tally(policy: &Value, what: &str) -> u64 {
    policy["shadow"]["compared"][what].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_evaluated_recorded_and_compared_and_does_nothing() {
    let outside = HttpServer::start(|_| (200, String::new())).await;
    let scratch = Scratch::new();
    scratch.write("queue.lua", &acting(SHADOW));
    scratch.write("shadows/next.lua", &eager(&outside.url("/scale")));
    let args = ["queue.lua", "--state-dir", "state"];
    let mut run = Setpoint::run(&scratch, args);
    run.running("queue", 2).await;
    let seen = run
        .policy_until("queue", "the shadow wants three more", |policy| {
            policy["shadow"]["difference"] == 3 && policy["decision"]["adjustment"] == 0
        })
        .await;
    let shadow = &seen["shadow"];
    assert_eq!((&shadow["sample"]["value"], &shadow["setpoint"]), (&6.0.into(), &0.0.into()), "{shadow}");
    assert_eq!((&shadow["decision"]["raw"], &shadow["decision"]["adjustment"]), (&3.into(), &3.into()), "{shadow}");
    assert!(shadow["effects"][0].as_str().unwrap().contains("POST"), "{shadow}");
    assert_eq!(shadow["script"]["error"], Value::Null, "{shadow}");
    assert!(shadow["script"]["path"].as_str().unwrap().ends_with("shadows/next.lua"), "{shadow}");
    run.ticks("queue", 10).await;
    let (_, text) = run.get("/metrics").await;
    let text = text.as_str().unwrap();
    assert!(text.contains("setpoint_shadow_difference{policy=\"queue\"} 3\n"), "{text}");
    assert!(text.contains("setpoint_shadow_failing{policy=\"queue\"} 0.0\n"), "{text}");
    let address = run.address().await;
    let told = Setpoint::output(&scratch, ["explain", "queue", "--server", &address]).await;
    assert!(
        told.stdout.contains("shadow shadows/next.lua: ") || told.stdout.contains("next.lua: sample 6"),
        "{told:?}"
    );
    let status = Setpoint::output(&scratch, ["status", "queue", "--server", &address]).await;
    assert!(status.stdout.contains("wanted more on"), "{}", status.stdout);

    // What it remembers outlives a crash, and a good end.
    run.policy_until("queue", "it has decided", |policy| 40 < tally(policy, "ticks")).await;
    run.kill();
    let mut run = Setpoint::run(&scratch, args);
    let after = run.policy_until("queue", "it goes on", |policy| !policy["shadow"]["tick"].is_null()).await;
    assert_eq!(after["shadow"]["generation"], 2, "one more script took effect: {after}");
    run.ticks("queue", 10).await;
    let ended = run.policy("queue").await.unwrap();
    assert!(run.stop().await.success());
    let mut run = Setpoint::run(&scratch, args);
    let again = run.policy_until("queue", "it goes on again", |policy| !policy["shadow"]["tick"].is_null()).await;
    assert!(tally(&ended, "ticks") <= tally(&again, "ticks"), "{ended} {again}");
    assert_eq!(run.policy("queue").await.unwrap()["tasks"]["running"], 2);
    assert!(run.stop().await.success());
    assert!(outside.seen().is_empty(), "nothing of a shadow is sent: {:?}", outside.seen());
    assert_eq!(scratch.living_tasks().len(), 2, "nothing of a shadow is launched");

    // The log: both, where they differ, and the same again bit for bit.
    let told = Setpoint::output(&scratch, ["explain", "queue", "--last", "10", "--decision-log", "state"]).await;
    let lines: Vec<&str> = told.stdout.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    let both = [
        "sample 0, target 0, 2 tasks → raw +0 → held at 2",
        "shadow shadows/next.lua: sample 6, target 0, 2 tasks → raw +3 → would launch 3 (3 more)",
    ];
    assert!(lines.windows(2).any(|pair| pair == both), "{told:?}");
    let told = Setpoint::output(&scratch, ["explain", "queue", "--shadow", "--decision-log", "state"]).await;
    assert!(told.stdout.starts_with("agreed on "), "{told:?}");
    assert!(told.stdout.contains("wanted more on "), "{told:?}");
    let json = ["explain", "queue", "--shadow", "--decision-log", "state", "--json"];
    let told: Value = serde_json::from_str(&Setpoint::output(&scratch, json).await.stdout).unwrap();
    let compared = &told["compared"];
    assert!(20 < compared["ticks"].as_u64().unwrap() && 0 < compared["more"].as_u64().unwrap(), "{told}");
    let first = &told["differences"][0];
    assert_eq!(first["acting"]["tick"], first["shadow"]["tick"], "{first}");
    assert_ne!(first["difference"], 0, "{first}");
    let told = Setpoint::output(&scratch, ["replay", "state", "--json"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["gaps"]["not_replayable"], 0, "{told}");
    assert!(2 * compared["ticks"].as_u64().unwrap() <= told["decisions"].as_u64().unwrap(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_shadow_the_acting_policy_goes_on() {
    let scratch = Scratch::new();
    scratch.write("queue.lua", &acting(SHADOW));
    let mut run = Setpoint::run(&scratch, ["queue.lua"]);
    let refused = |policy: &Value| policy["shadow"]["script"]["refused"]["message"].as_str().map(str::to_owned);
    let missing = run.policy_until("queue", "its file is missed", |policy| refused(policy).is_some()).await;
    assert!(refused(&missing).unwrap().contains("cannot be read"), "{missing}");
    run.running("queue", 2).await;
    wait_until(GENEROUS, "/readyz tells of it", async || {
        let (status, ready) = run.get("/readyz").await;
        let told = ready["problems"]["queue"].as_str().is_some_and(|problem| problem.contains("the shadow's file"));
        (status == 200 && ready["status"] == "degraded" && told).then_some(())
    })
    .await;

    // It comes, without anybody's doing.
    let same = acting("");
    scratch.replace("shadows/next.lua", &same);
    run.policy_until("queue", "both agree", |policy| {
        5 < tally(policy, "agreed") && policy["shadow"]["difference"] == 0 && refused(policy).is_none()
    })
    .await;

    // A file that does not compile: the version before goes on.
    scratch.replace("shadows/next.lua", "return {");
    run.policy_until("queue", "the file is refused", |policy| refused(policy).is_some()).await;
    let at = run.policy("queue").await.unwrap();
    run.policy_until("queue", "it decides on", |policy| tally(&at, "ticks") + 5 < tally(policy, "ticks")).await;

    // One that fails, and one that does not come back.
    let error = |policy: &Value| policy["shadow"]["script"]["error"]["kind"].as_str().unwrap_or_default().to_owned();
    let failing = policy("error('no such queue')", "control = { law = 'proportional', per_task = 5 },");
    scratch.replace("shadows/next.lua", &failing);
    run.policy_until("queue", "it fails", |policy| error(policy) == "runtime" && refused(policy).is_none()).await;
    let hanging = policy("while true do end", "control = { law = 'proportional', per_task = 5 },");
    scratch.replace("shadows/next.lua", &hanging);
    let stopped =
        run.policy_until("queue", "it is stopped", |policy| matches!(error(policy).as_str(), "cpu" | "deadline")).await;
    let goes_on = run.ticks("queue", 10).await;
    assert_eq!((&goes_on["generation"], &goes_on["tasks"]["running"]), (&1.into(), &2.into()), "{stopped} {goes_on}");
    run.policy_until("queue", "the acting one sees", |policy| {
        policy["script"]["error"].is_null() && policy["sample"]["kind"] == "value"
    })
    .await;

    // The acting policy's own file changes: the same shadow goes on, and without the line there is none.
    scratch.replace("shadows/next.lua", &same);
    scratch.replace("queue.lua", &acting(&format!("{SHADOW} max_helpers = 1,")));
    run.policy_until("queue", "both agree again", |policy| {
        policy["generation"] == 2 && 5 < tally(policy, "agreed") && error(policy).is_empty()
    })
    .await;
    scratch.replace("queue.lua", &acting(""));
    run.policy_until("queue", "there is no shadow", |policy| policy["shadow"].is_null()).await;
    run.ticks("queue", 3).await;
    assert!(run.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_cannot_be_a_shadow() {
    let scratch = Scratch::new();
    let named = |name: &str| acting(&format!("shadow = '{name}',"));
    scratch.write("policies/fine.lua", &named("below/next.lua"));
    scratch.write("policies/below/next.lua", &acting(""));
    let fine = Setpoint::output(&scratch, ["check", "policies/fine.lua"]).await;
    assert_eq!((fine.code, fine.stdout.as_str()), (Some(0), "policies/fine.lua: ok\n"), "{fine:?}");
    scratch.write("outside.lua", &acting(""));
    scratch.write("policies/below/again.lua", &named("next.lua"));
    let fleet = "return setpoint.fleet { discover = function() return {} end, policy = function(row) return {} end }";
    scratch.write("policies/below/fleet.lua", fleet);
    std::os::unix::fs::symlink("../outside.lua", scratch.path("policies/link.lua")).unwrap();
    for (file, expected) in [
        ("below/nowhere.lua", "cannot be read"),
        ("case.lua", "a policy cannot be its own shadow"),
        ("below/again.lua", "a shadow has no shadow of its own"),
        ("below/fleet.lua", "this file is a fleet"),
        ("../outside.lua", "expected a policy file in this file's folder or below it"),
        ("link.lua", "leads out of policies"),
        ("below/next", "expected a policy file in this file's folder or below it"),
    ] {
        scratch.replace("policies/case.lua", &named(file));
        let told = Setpoint::output(&scratch, ["check", "policies/case.lua"]).await;
        assert_eq!(told.code, Some(78), "{file}: {told:?}");
        assert!(told.stdout.contains(expected), "{file}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_beside_its_policy_is_one_of_its_own_too_where_the_folder_is_run() {
    let scratch = Scratch::new();
    scratch.write("policies/queue.lua", &acting("shadow = './next.lua',"));
    scratch.write("policies/next.lua", &acting(""));
    let told = Setpoint::output(&scratch, ["check", "policies/queue.lua"]).await;
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "policies/queue.lua: ok\n"));
    let told = Setpoint::output(&scratch, ["check", "policies"]).await;
    let warning = "warning: policies/queue.lua: shadow ./next.lua: it is run as a policy of its own too";
    assert!(told.code == Some(0) && told.stdout.contains(warning), "{told:?}");
    // Nobody's tasks end because another file names theirs: both run, and the log says so.
    let mut run = Setpoint::run(&scratch, ["policies"]);
    run.running("next", 2).await;
    run.policy_until("queue", "its shadow is evaluated", |policy| 0 < tally(policy, "ticks")).await;
    assert!(run.stderr().contains("the shadow is run as a policy of its own too"), "{}", run.stderr());
    assert!(run.stop().await.success());
}
