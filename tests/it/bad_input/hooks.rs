//! Functions that fail while the loop runs: what is logged, what shows, and that everything goes on. Every case of a
//! test shares one run.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{GENEROUS, Scratch, Setpoint, wait_until};

/// What is not a usable number.
const VALUES: &[(&str, &str)] = &[
    ("nan", "0 / 0"),
    ("infinity", "1 / 0"),
    ("minus-infinity", "-1 / 0"),
    ("huge", "1e308"),
    ("minus-huge", "-1e308"),
    ("string", "\"80%\""),
    ("table", "{ value = 80 }"),
    ("boolean", "false"),
    ("function", "print"),
    ("nothing", "nil"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_is_never_taken_for_one() {
    let scratch = Scratch::new();
    let policy = |metric: &str, target: &str| {
        format!(
            r#"return {{
  interval = "100ms",
  workload = {{ command = "exec sleep 600", effect = "heats", min = 1, max = 2 }},
  metric = function(ctx) return {metric} end,
  target = function(ctx) return {target} end,
}}
"#
        )
    };
    for (name, value) in VALUES {
        scratch.policy(&format!("policies/metric-{name}"), &policy(value, "5"));
        scratch.policy(&format!("policies/target-{name}"), &policy("5", value));
    }
    let mut setpoint = Setpoint::run(&scratch, ["policies"]);
    let mut text = String::new();
    for (name, _) in VALUES {
        for hook in ["metric", "target"] {
            let name = format!("{hook}-{name}");
            // Too cold without end is as many as may be; all else stays at, or goes to, the fewest.
            let n = if matches!(name.as_str(), "metric-minus-huge" | "target-huge") { 2 } else { 1 };
            setpoint.running(&name, n).await;
            let policy = setpoint.ticks(&name, 3).await;
            assert_eq!((&policy["tasks"]["running"], &policy["stalled"]), (&n.into(), &false.into()), "{policy}");
            text.push_str(&shown(&name, &policy, &setpoint.stderr(), &scratch));
        }
    }
    assert_snapshot!("no_numbers", text);
    goes_on(&mut setpoint).await;
}

/// Policies whose functions fail, with how many tasks they then have. `ctx.state.full` is set once two tasks run;
/// from then on none is wanted.
const FAILING: &[(&str, u64, &str)] = &[
    (
        "metric",
        1,
        r#"local function depth(list) return list.length end
return {
  workload = { command = "exec sleep 600", effect = "heats", min = 1, max = 2 },
  metric = function(ctx) return (depth(nil)) end,
  target = 0,
}
"#,
    ),
    (
        "target",
        1,
        r#"return {
  workload = { command = "exec sleep 600", effect = "heats", min = 1, max = 2 },
  metric = function() return 3 end,
  target = function(ctx) return ctx.sampel end,
}
"#,
    ),
    (
        "metric-and-target",
        1,
        r#"return {
  workload = { command = "exec sleep 600", effect = "heats", min = 1, max = 2 },
  metric = function() error("no such queue") end,
  target = function(ctx) error("no such hour") end,
}
"#,
    ),
    (
        "count",
        0,
        r#"return {
  workload = { backend = "none", effect = "heats", min = 0, max = 2, count = function() return 1.5 end },
  metric = function() return 0 end,
  target = 2,
  warmer = function(n) return n end,
}
"#,
    ),
    (
        "decide",
        1,
        r#"return {
  workload = { command = "exec sleep 600", min = 1, max = 2 },
  decide = function(ctx) return { desired = ctx.params.most } end,
}
"#,
    ),
    (
        "decide-bare-number",
        1,
        r#"return {
  workload = { command = "exec sleep 600", min = 1, max = 2 },
  decide = function(ctx) return 2 end,
}
"#,
    ),
    (
        "warmer-before",
        0,
        r#"return {
  workload = { command = "exec sleep 600", effect = "heats", min = 0, max = 2 },
  metric = function(ctx) return ctx.running end,
  target = 2,
  warmer = function(n, ctx) ctx.workload:lunch(n) end,
}
"#,
    ),
    (
        "warmer-after",
        2,
        r#"return {
  workload = { command = "exec sleep 600", effect = "heats", min = 0, max = 2 },
  metric = function(ctx) return 0 end,
  target = 2,
  warmer = function(n, ctx) ctx.workload:launch(n) error("the load balancer did not answer") end,
}
"#,
    ),
    (
        "cooler",
        2,
        "warmer = function(n, ctx) ctx.workload:launch(n) end,\n  cooler = function(n, ctx) ctx.workload:kill(\"all\") end",
    ),
    ("victims", 2, "victims = function(tasks, n) return tasks[99].id end"),
    ("victims-wrong", 2, "victims = function(tasks, n) return { \"nobody\" } end"),
    (
        "drain",
        0,
        "decide = function(ctx)\n    ctx.state.full = ctx.state.full or ctx.running == 1\n    return { desired = ctx.state.full and 0 or 1 }\n  end,\n  drain = function(task, ctx) error(\"cannot drain\") end",
    ),
    (
        "drain-wrong",
        0,
        "decide = function(ctx)\n    ctx.state.full = ctx.state.full or ctx.running == 1\n    return { desired = ctx.state.full and 0 or 1 }\n  end,\n  drain = function(task, ctx) return \"soon\" end",
    ),
    ("stop", 2, "decide = function() return { desired = 2 } end, stop = function(ctx) return ctx.history[0].value end"),
    ("stop-wrong", 2, "decide = function() return { desired = 2 } end, stop = function(ctx) return \"7\" end"),
];

/// The text of a case: a whole policy, or what is added to one that goes from two tasks to none.
fn text_of(case: &str) -> String {
    if case.contains("return {\n") {
        return case.replacen("return {\n", "return {\n  interval = \"100ms\",\n", 1);
    }
    let decide = if case.contains("decide =") {
        ""
    } else {
        "\n  decide = function(ctx)
    ctx.state.full = ctx.state.full or ctx.running == 2
    return { desired = ctx.state.full and 0 or 2 }
  end,"
    };
    format!(
        "return {{\n  interval = \"100ms\",\n  workload = {{ command = \"exec sleep 600\", effect = \"heats\", min = 0, max = 2 }},{decide}\n  {case},\n}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_fail_are_told_once_and_the_loop_goes_on() {
    let scratch = Scratch::new();
    for (name, _, case) in FAILING {
        scratch.policy(&format!("policies/{name}"), &text_of(case));
    }
    scratch.policy("policies/migrate", &text_of("decide = function(ctx) ctx.state.n = 2 return { desired = 2 } end"));
    scratch.policy(
        "policies/fleet",
        r#"local asked = 0
return setpoint.fleet {
  every = "100ms",
  discover = function()
    asked = asked + 1
    if 2 < asked then error("the list is not to be had") end
    return { { name = "a", max = 1 }, { name = "b", max = "many" }, { name = "c" } }
  end,
  policy = function(row)
    return {
      interval = "100ms",
      workload = { command = "exec sleep 600", min = 1, max = row.max + 0 },
      control = { law = "count", n = 1 },
    }
  end,
}
"#,
    );
    let mut setpoint = Setpoint::run(&scratch, ["policies"]);
    let mut text = String::new();
    for (name, n, _) in FAILING {
        // Each error is told, then the policy comes to rest at its number.
        let hook = name.split('-').next().unwrap_or_default();
        wait_until(GENEROUS, &format!("`{name}` tells its error"), async || {
            reports(&setpoint.stderr(), name).iter().any(|report| report.contains(&format!(": {hook}: "))).then_some(())
        })
        .await;
        setpoint.running(name, *n).await;
        let policy = setpoint.ticks(name, 5).await;
        assert_eq!((&policy["tasks"]["running"], &policy["stalled"]), (&(*n).into(), &false.into()), "{policy}");
        text.push_str(&shown(name, &policy, &setpoint.stderr(), &scratch));
    }

    setpoint.running("migrate", 2).await;
    let before = setpoint.policy("migrate").await.expect("the policy is there");
    let new =
        "decide = function(ctx) return { desired = 1 } end,\n  migrate = function(old) return { n = old.m.n } end";
    scratch.replace("policies/migrate.lua", &text_of(new));
    setpoint.policy_until("migrate", "the refusal to show", |policy| policy["script"]["refused"].is_object()).await;
    let policy = setpoint.ticks("migrate", 3).await;
    assert_eq!(policy["generation"], before["generation"]);
    assert_eq!(policy["tasks"]["running"], 2, "the old version goes on: {policy}");
    text.push_str(&shown("migrate", &policy, &setpoint.stderr(), &scratch));

    // A row that is wrong leaves the others alone; a discovery that fails keeps all rows.
    setpoint.logged("the list is not to be had").await;
    setpoint.running("fleet/a", 1).await;
    setpoint.ticks("fleet/a", 3).await;
    assert!(setpoint.policy("fleet/b").await.is_none());
    for name in ["fleet", "fleet/b", "fleet/c"] {
        text.push_str(&format!("{name}\n{}", told(name, &setpoint.stderr(), &scratch)));
    }
    // Ids of tasks differ from run to run.
    insta::with_settings!({ filters => vec![(r"\.[0-9A-HJKMNP-TV-Z]{26}", ".ULID")] }, {
        assert_snapshot!("functions", text);
    });
    goes_on(&mut setpoint).await;
}

/// A policy as it is now, and everything that was logged about its errors.
fn shown(name: &str, policy: &Value, log: &str, scratch: &Scratch) -> String {
    let (sample, tasks) = (&policy["sample"], &policy["tasks"]);
    let value = sample["value"].as_f64().map(|value| format!(" {value:e}")).unwrap_or_default();
    let kind = sample["kind"].as_str().unwrap_or_default();
    let header = format!("{name}: {} running, sample {kind}{value}", tasks["running"]);
    let setpoint = policy["setpoint"].as_f64().map(|value| format!(", setpoint {value:e}")).unwrap_or_default();
    format!("{header}{setpoint}\n{}", told(name, log, scratch))
}

fn told(name: &str, log: &str, scratch: &Scratch) -> String {
    let reports = reports(log, name);
    let mut times = BTreeMap::new();
    for report in &reports {
        *times.entry(report.as_str()).or_insert(0) += 1;
    }
    for (report, n) in &times {
        assert_eq!(*n, 1, "`{name}` says {n} times: {report}");
    }
    let text =
        reports.iter().fold(String::new(), |text, report| text + "    " + &report.replace('\n', "\n    ") + "\n");
    super::settled(scratch, &format!("{text}\n"))
}

/// What the log says about a policy at the level ERROR.
fn reports(log: &str, name: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["level"] == "ERROR" && line["policy"] == name)
        .filter_map(|line| line["message"].as_str().map(str::to_owned))
        .collect()
}

/// The whole is degraded, not broken, and ends in order.
async fn goes_on(setpoint: &mut Setpoint) {
    let (status, ready) = setpoint.get("/readyz").await;
    assert_eq!((status, &ready["status"]), (200, &"degraded".into()), "{ready}");
    assert!(setpoint.stop().await.success());
}
