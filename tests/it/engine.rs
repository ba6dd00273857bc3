//! What a policy can ask of the loop, on the running command with real processes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{GENEROUS, HttpServer, Scratch, Setpoint, wait_until};

fn tasks_of<'a>(tasks: &'a [Value], policy: &str) -> Vec<&'a Value> {
    tasks.iter().filter(|task| task["policy"] == policy).collect()
}

fn reasons(policy: &Value) -> String {
    policy["decision"]["reasons"].to_string()
}

/// A policy that wants as many tasks as the file `want` says.
fn wanting(extra: &str) -> String {
    format!(
        r#"local fs = require("setpoint.fs")
return {{
  interval = "100ms",
  workload = {{ command = "exec sleep 600", min = 0, max = 8, grace = "2s" }},
  metric = function() return tonumber(fs.read("want")) end,
  decide = function(ctx) return {{ desired = ctx.sample }} end,
  {extra}
}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_held_and_a_job_is_simply_gone() {
    let scratch = Scratch::new();
    scratch.policy(
        "service",
        r#"return { interval = "100ms", backoff = { min = "50ms", max = "100ms" },
            workload = { command = "exec sleep 600", min = 2, max = 4 }, control = { law = "count", n = 2 } }"#,
    );
    scratch.policy(
        "jobs",
        r#"return { interval = "100ms", workload = { command = "exec sleep 600", kind = "jobs", min = 0, max = 4 },
            control = { law = "count", n = 2, wait = "1h" } }"#,
    );
    let mut setpoint = Setpoint::run(&scratch, ["service.lua", "jobs.lua"]);
    setpoint.running("service", 2).await;
    setpoint.running("jobs", 2).await;
    let victims: Vec<i64> = setpoint.tasks().await.iter().filter_map(|task| task["pid"].as_i64()).collect();
    assert_eq!(victims.len(), 4);
    for pid in &victims {
        scratch.kill(i32::try_from(*pid).expect("a pid")).expect("killed");
    }
    wait_until(GENEROUS, "two new tasks of the service", async || {
        let tasks = setpoint.tasks().await;
        let new = tasks_of(&tasks, "service")
            .iter()
            .filter(|task| task["state"] == "running" && !victims.contains(&task["pid"].as_i64().unwrap_or(0)))
            .count();
        (new == 2).then_some(())
    })
    .await;
    let jobs = setpoint.ticks("jobs", 3).await;
    assert_eq!((&jobs["tasks"]["running"], &jobs["tasks"]["in_flight"]), (&json!(0), &json!(0)), "{jobs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_override_and_evaluate_do_what_they_say() {
    let scratch = Scratch::new();
    scratch.write("want", "2");
    scratch.policy("p", &wanting(""));
    let mut setpoint = Setpoint::run(&scratch, ["p.lua", "--state-dir", "state"]);
    setpoint.running("p", 2).await;

    let (status, paused) =
        setpoint.post("/v1/policies/p/pause", &json!({ "for": "1h", "reason": "maintenance" })).await;
    assert_eq!(status, 200, "{paused}");
    scratch.replace("want", "5");
    let policy = setpoint.ticks("p", 3).await;
    assert_eq!(policy["tasks"]["running"], 2, "{policy}");
    assert!(reasons(&policy).contains("pause"), "{policy}");

    // A pause survives a restart.
    setpoint.stop().await;
    let mut setpoint = Setpoint::run(&scratch, ["p.lua", "--state-dir", "state"]);
    let policy = setpoint.ticks("p", 3).await;
    assert_eq!((&policy["tasks"]["running"], policy["paused"].is_object()), (&json!(2), true), "{policy}");

    let (status, shown) = setpoint.post("/v1/policies/p/evaluate", &json!({})).await;
    assert_eq!((status, &shown["decision"]["raw"]), (200, &json!(3)), "{shown}");
    setpoint.post("/v1/policies/p/resume", &json!({})).await;
    setpoint.running("p", 5).await;

    let (status, refused) = setpoint.post("/v1/policies/p/override", &json!({ "max": 20 })).await;
    assert!((400..500).contains(&status), "above the policy's own max only with force: {refused}");
    setpoint.post("/v1/policies/p/override", &json!({ "max": 3, "for": "1h" })).await;
    let policy = setpoint.running("p", 3).await;
    assert!(reasons(&policy).contains("max"), "{policy}");
    setpoint.post("/v1/policies/p/override", &json!({ "min": 6, "for": "2s" })).await;
    setpoint.running("p", 6).await;
    let policy = setpoint.running("p", 5).await;
    assert!(policy["override"].is_null(), "it has expired: {policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn victims_and_drain_say_who_goes_and_when() {
    let scratch = Scratch::new();
    scratch.write("want", "4");
    let extra = r#"
  victims = function(tasks, n)
    -- The oldest first.
    table.sort(tasks, function(a, b) return a.started < b.started or (a.started == b.started and a.id < b.id) end)
    local ids = {}
    for i = 1, n do ids[i] = tasks[i].id end
    return ids
  end,
  drain = function(task, ctx) return fs.exists("drained") end,"#;
    scratch.policy("p", &wanting(extra).replace("grace = \"2s\"", "grace = \"1h\""));
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    setpoint.running("p", 4).await;
    let mut tasks = setpoint.tasks().await;
    tasks.sort_by_key(|task| (task["started"].to_string(), task["id"].to_string()));
    scratch.replace("want", "3");
    setpoint.policy_until("p", "one task to be drained", |policy| policy["tasks"]["killing"] == 1).await;
    setpoint.ticks("p", 3).await;
    assert_eq!(scratch.living_tasks().len(), 4, "it lives while drain says false");
    scratch.write("drained", "");
    setpoint.running("p", 3).await;
    let left = setpoint.tasks().await;
    let left: Vec<String> =
        left.iter().filter(|task| task["state"] == "running").map(|task| task["id"].to_string()).collect();
    assert!(!left.contains(&tasks[0]["id"].to_string()), "the oldest went: {tasks:?} {left:?}");
    // The way out does not wait an hour for tasks that do not drain.
    std::fs::remove_file(scratch.path("drained")).expect("removed");
    scratch.write("drained", "");
    assert!(setpoint.stop().await.success());
    assert!(scratch.living_tasks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_the_run_with_its_code() {
    let scratch = Scratch::new();
    scratch.policy(
        "p",
        r#"return { interval = "50ms", workload = { command = "exec sleep 600", min = 1, max = 1 },
            control = { law = "count", n = 1 }, stop = function(ctx) if ctx.tick == 5 then return 7 end end }"#,
    );
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    assert_eq!(setpoint.exit(GENEROUS).await.code(), Some(7));
    assert!(scratch.living_tasks().is_empty());
}

/// A8: F, F, FINISHED, F, F → 1, 2, 1, 2, 3.
#[tokio::test(flavor = "multi_thread")]
async fn a8_max_failures_counts_failures_net_of_successes() {
    let scratch = Scratch::new();
    scratch.write("n", "0");
    scratch.policy(
        "p",
        r#"return { interval = "50ms", max_failures = 3, backoff = { min = "50ms", max = "60ms" },
            workload = { kind = "jobs", min = 0, max = 1,
              command = "n=$(($(cat n)+1)); echo $n >n; test $n = 3" },
            control = { law = "count", n = 1 } }"#,
    );
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    assert_eq!(setpoint.exit(GENEROUS).await.code(), Some(1));
    assert_eq!(scratch.read("n").trim(), "5", "the fifth run was the third failure net of the one success");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_tasks_are_backed_off_and_one_that_cannot_start_says_why() {
    let scratch = Scratch::new();
    scratch.write("starts", "");
    scratch.policy(
        "failing",
        r#"return { interval = "50ms", backoff = { min = "400ms", max = "10m" },
            workload = { command = "echo x >>starts; exit 3", min = 1, max = 1 }, control = { law = "count", n = 1 } }"#,
    );
    scratch.policy(
        "missing",
        r#"return { interval = "50ms", backoff = { min = "1h", max = "1h" },
            workload = { command = { "/no/such/program" }, min = 1, max = 1 }, control = { law = "count", n = 1 } }"#,
    );
    let mut setpoint = Setpoint::run(&scratch, ["failing.lua", "missing.lua"]);
    setpoint.ticks("failing", 60).await;
    let starts = scratch.read("starts").lines().count();
    assert!((1..=5).contains(&starts), "{starts} starts in three seconds with a doubling delay from 400 ms");
    setpoint.logged("/no/such/program").await;
    let policy = setpoint.policy("missing").await.expect("the policy is there");
    assert_eq!(policy["tasks"]["running"], 0, "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn warmer_and_cooler_may_be_tasks_and_a_missing_one_says_so() {
    let scratch = Scratch::new();
    scratch.write("heat", "10");
    let policy = |actuators: &str| {
        format!(
            r#"local fs = require("setpoint.fs")
return {{
  interval = "100ms",
  workload = {{ kind = "jobs", effect = "heats", min = 0, max = 3 }},
  control = {{ per_task = 5, cooldown = {{ up = "1h" }} }},
  metric = function() return tonumber(fs.read("heat")) end,
  target = 20,
  {actuators}
}}"#
        )
    };
    scratch.policy("both", &policy(r#"warmer = "exec sleep 601", cooler = { command = { "sleep", "602" } },"#));
    scratch.policy("warmer", &policy(r#"warmer = "exec sleep 603","#));
    let mut setpoint = Setpoint::run(&scratch, ["both.lua", "warmer.lua"]);
    setpoint.running("both", 2).await;
    setpoint.running("warmer", 2).await;
    assert!(setpoint.tasks().await.iter().all(|task| task["by"] == "warmer"));
    scratch.replace("heat", "30");
    setpoint.running("both", 3).await;
    let tasks = setpoint.tasks().await;
    let coolers = tasks_of(&tasks, "both").iter().filter(|task| task["by"] == "cooler").count();
    assert_eq!(coolers, 1, "too hot by two tasks, and room for one: {tasks:?}");
    let policy = setpoint
        .policy_until("warmer", "the lack of a cooler to be said", |policy| {
            reasons(policy).contains("too hot, no cooler")
        })
        .await;
    assert_eq!(policy["tasks"]["running"], 2, "{policy}");
    setpoint.stop().await;
    // With nothing to kill, the cooler is launched all the same.
    let mut setpoint = Setpoint::run(&scratch, ["both.lua"]);
    setpoint.policy_until("both", "two coolers", |policy| policy["tasks"]["running"] == 2).await;
    assert!(setpoint.tasks().await.iter().all(|task| task["by"] == "cooler"));
}

/// The four functions are all the user's own; what is scaled is a real HTTP server's number of workers.
#[tokio::test(flavor = "multi_thread")]
async fn all_four_functions_of_the_users_own_against_an_http_server() {
    let scratch = Scratch::new();
    let state = std::sync::Arc::new(std::sync::Mutex::new((40_i64, 0_i64, Vec::<String>::new())));
    let seen = std::sync::Arc::clone(&state);
    let server = HttpServer::start(move |request| {
        let mut state = seen.lock().expect("not poisoned");
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/load") => (200, json!({ "load": state.0, "workers": state.1 }).to_string()),
            ("POST", path) => {
                let n = path.rsplit('/').next().and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
                state.1 += if path.starts_with("/add/") { n } else { -n };
                state.2.push(path.to_owned());
                (200, json!({ "accepted": n }).to_string())
            }
            _ => (404, String::new()),
        }
    })
    .await;
    scratch.policy(
        "p",
        &format!(
            r#"local http = require("setpoint.http")
local time = require("setpoint.time")
local url = "{}"
return {{
  interval = "100ms",
  workload = {{ backend = "none", min = 0, max = 10, count = function() return http.get(url .. "/load"):json().workers end }},
  control = {{ per_task = 10, lag = "500ms" }},
  metric = function(ctx) return http.get(url .. "/load"):json().load - 10 * ctx.running end,
  target = function(ctx) local hour = time.zoned(ctx.now, "UTC").hour return hour >= 0 and 0 or 100 end,
  warmer = function(n) return http.post(url .. "/remove/" .. n):json().accepted end,
  cooler = function(n) return http.post(url .. "/add/" .. n):json().accepted end,
}}"#,
            server.url("")
        ),
    );
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    setpoint.running("p", 4).await;
    setpoint.ticks("p", 10).await;
    assert_eq!(state.lock().expect("not poisoned").2, ["/add/4"], "one call, and none while it was in flight");
    state.lock().expect("not poisoned").0 = 10;
    setpoint.running("p", 1).await;
    assert_eq!(state.lock().expect("not poisoned").2, ["/add/4", "/remove/3"]);

    // With own tasks: a warmer and a cooler by ctx.workload.
    scratch.write("want", "3");
    scratch.policy(
        "own",
        r#"local fs = require("setpoint.fs")
return {
  interval = "100ms",
  workload = { command = "exec sleep 600", effect = "heats", min = 0, max = 5, grace = "1s" },
  max_helpers = 1,
  metric = function(ctx) return ctx.running end,
  target = function() return tonumber(fs.read("want")) end,
  warmer = function(n, ctx)
    ctx.workload:launch(n, { env = { EXTRA = "1" } })
    ctx.workload:launch(2, { command = "exec sleep 700", count = false })
    ctx.workload:kill(1)
  end,
  cooler = function(n, ctx)
    local newest = ctx.tasks[#ctx.tasks]
    ctx.workload:kill({ newest })
  end,
}"#,
    );
    let mut own = Setpoint::run(&scratch, ["own.lua"]);
    own.running("own", 3).await;
    let tasks = own.tasks().await;
    assert_eq!(tasks.iter().filter(|task| task["by"] == "helper").count(), 1, "one helper, not two: {tasks:?}");
    scratch.replace("want", "1");
    own.running("own", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_and_eval_touch_nothing() {
    let scratch = Scratch::new();
    scratch.write("want", "4");
    scratch.policy("p", &wanting("cooler = function(n, ctx) ctx.workload:launch(n) end,"));
    let mut setpoint = Setpoint::run(&scratch, ["p.lua", "--dry-run"]);
    let policy = setpoint.ticks("p", 4).await;
    assert_eq!((&policy["decision"]["raw"], &policy["decision"]["adjustment"]), (&json!(4), &json!(0)), "{policy}");
    assert!(reasons(&policy).contains("dry_run"), "{policy}");
    let eval = Setpoint::output(&scratch, ["eval", "p.lua", "--json"]).await;
    assert_eq!(eval.code, Some(0), "{}", eval.stderr);
    let eval: Value = serde_json::from_str(&eval.stdout).expect("one JSON object");
    assert_eq!((&eval["name"], &eval["decision"]["raw"]), (&json!("p"), &json!(4)), "{eval}");
    assert!(scratch.living_tasks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleets_rows_come_and_go_with_their_tasks() {
    let scratch = Scratch::new();
    scratch.write("rows", r#"["a","b"]"#);
    scratch.policy(
        "fleet",
        r#"local fs = require("setpoint.fs")
local json = require("setpoint.json")
return setpoint.fleet {
  every = "100ms",
  discover = function()
    local rows = {}
    for i, name in ipairs(json.decode(fs.read("rows"))) do rows[i] = { name = name } end
    return rows
  end,
  policy = function(row)
    return { interval = "100ms", workload = { command = "exec sleep 600", min = 1, max = 1, grace = "1s",
        on_gone = row.name == "kept" and "keep" or "stop" },
      control = { law = "count", n = 1 } }
  end,
}"#,
    );
    let mut setpoint = Setpoint::run(&scratch, ["fleet.lua"]);
    setpoint.running("fleet/a", 1).await;
    setpoint.running("fleet/b", 1).await;
    scratch.replace("rows", r#"["a","c","kept"]"#);
    setpoint.running("fleet/c", 1).await;
    setpoint.running("fleet/kept", 1).await;
    wait_until(GENEROUS, "row b to be gone", async || setpoint.policy("fleet/b").await.is_none().then_some(())).await;
    assert!(!scratch.living_tasks().iter().any(|id| id.starts_with("fleet~b.")));
    // A discovery that fails keeps all rows.
    scratch.replace("rows", "not json");
    setpoint.logged("kept the rows").await;
    setpoint.ticks("fleet/a", 5).await;
    setpoint.running("fleet/c", 1).await;
    scratch.replace("rows", r#"["a","c"]"#);
    let kept =
        setpoint.policy_until("fleet/kept", "the kept row to be retired", |policy| policy["ended"].is_object()).await;
    assert_eq!(kept["tasks"]["running"], 1, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_stuck_policy_delays_no_other() {
    let scratch = Scratch::new();
    scratch.policy(
        "stuck",
        r#"return { interval = "100ms", workload = { command = "true", min = 0, max = 1 }, target = 0,
            metric = function() while true do end end }"#,
    );
    scratch.policy(
        "fine",
        r#"return { interval = "100ms", workload = { command = "true", min = 0, max = 1 }, target = 0,
            metric = function() return 0 end }"#,
    );
    let mut setpoint = Setpoint::run(&scratch, ["stuck.lua", "fine.lua"]);
    setpoint.ticks("fine", 20).await;
    let stuck = setpoint.ticks("stuck", 3).await;
    assert_eq!(stuck["sample"]["kind"], "error", "{stuck}");
    // Which of the two limits comes first depends on how busy the machine is.
    assert!(["cpu", "deadline"].contains(&stuck["script"]["error"]["kind"].as_str().unwrap_or_default()), "{stuck}");
    // Saving a mended file ends the penalty.
    scratch.policy("stuck", &scratch.read("fine.lua"));
    let mended = setpoint.policy_until("stuck", "a value", |policy| policy["sample"]["kind"] == "value").await;
    assert!(mended["script"]["error"].is_null(), "{mended}");
    assert!(tokio::time::timeout(Duration::from_secs(60), setpoint.stop()).await.is_ok());
}
