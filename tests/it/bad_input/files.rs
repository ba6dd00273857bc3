//! Policy files that cannot be used: `check` says everything that is wrong with them, `run` launches nothing.

use insta::assert_snapshot;

use crate::support::{Scratch, Setpoint};

/// Policy files by name. Whatever is right in them is kept short.
const FILES: &[(&str, &str)] = &[
    ("syntax-end-of-file", "return {\n  interval = \"1s\",\n  metric = function() return 1\n}\n"),
    ("syntax-key", "return {\n  interval \"1s\",\n}\n"),
    ("raises", "local redis = nil\nlocal jobs = redis.connect(\"redis://127.0.0.1\")\nreturn {}\n"),
    ("raises-a-table", "error({ code = 3 })\n"),
    ("misspelt-global", "return { metric = function() return 1 end, target = tonumbr(\"3\") }\n"),
    ("missing-module", "local r = require(\"setpoint.rediss\")\nreturn {}\n"),
    ("gives-nothing", "local interval = \"1s\"\n"),
    ("gives-a-number", "return 3\n"),
    ("gives-an-empty-table", "return {}\n"),
    (
        "unknown-keys",
        r#"return {
  intervall = "1s",
  workload = { command = "exec sleep 600", max = 2, mim = 1, imagee = "redis" },
  control = {
    tolerence = 2,
    cooldown = { dwon = "3s" },
    stabilization = { donw = "3s" },
    step = { up = { task = 1 } },
    confirm = { n = 1, off = 3 },
    flap = { change = 1, changes = 1, per = "1m" },
    on_missing = { kep = "1m" },
  },
  backoff = { mn = "1s" },
  metric = function() return 1 end,
  target = 0,
  quite_something_else = true,
  [1] = "x",
}
"#,
    ),
    (
        "unknown-keys-deeper",
        r#"return {
  interval = { min = "1s", max = "2s", grwo = 2 },
  workload = { command = "exec sleep 600", max = 2 },
  control = { law = "step", steps = { { above = 1, ad = 1 } } },
  warmer = { command = "exec sleep 600", cpu = 1 },
  metric = function() return 1 end,
}
"#,
    ),
    (
        "wrong-types",
        r#"return {
  interval = true,
  workload = { command = 7, backend = {}, kind = "job", effect = 1, min = "1", max = 2.5, cpus = 0 / 0, memory = 64, env = "A=B" },
  control = { law = "proportinal", per_task = -1, tolerance = "ten", ramp = 0 },
  metric = 3,
  target = "80%",
  warmer = 5,
  victims = {},
  max_failures = "many",
}
"#,
    ),
    (
        "min-above-max",
        r#"return {
  workload = { command = "exec sleep 600", min = 5, max = 3 },
  metric = function() return 1 end,
  target = 0,
}
"#,
    ),
    (
        "bad-durations",
        r#"return {
  interval = "15",
  workload = { command = "exec sleep 600", max = 1, grace = "-1s" },
  control = { lag = "3 parsecs", cooldown = { up = "1e99s" }, stale_after = "" },
  metric = function() return 1 end,
  target = 0,
}
"#,
    ),
    (
        "interval-too-short",
        r#"return {
  interval = "49ms",
  workload = { command = "exec sleep 600", max = 1 },
  metric = function() return 1 end,
  target = 0,
}
"#,
    ),
    (
        "no-numbers",
        r#"return {
  workload = { command = "exec sleep 600", max = 1 / 0 },
  control = { per_task = 0 / 0 },
  metric = function() return 1 end,
  target = -1 / 0,
  max_helpers = 1e308,
}
"#,
    ),
    (
        "pid-without-a-gain",
        r#"return {
  workload = { command = "exec sleep 600", max = 1 },
  control = { law = "pid", kp = -1, ki = "much", filter = "-1s" },
  metric = function() return 1 end,
  target = 0,
}
"#,
    ),
    (
        "no-such-backend",
        r#"return {
  workload = { backend = "loacl", command = "exec sleep 600", max = 1 },
  metric = function() return 1 end,
  target = 0,
}
"#,
    ),
    (
        "fleet-unknown-key",
        r"return setpoint.fleet {
  discover = function() return {} end,
  polcy = function(row) return {} end,
}
",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_are_all_told_at_once_and_nothing_is_launched() {
    let scratch = Scratch::new();
    for (name, text) in FILES {
        scratch.policy(&format!("policies/{name}"), text);
    }
    scratch.policy(
        "policies/well",
        r#"return { workload = { command = "touch launched; exec sleep 600", min = 1, max = 1 },
            control = { law = "count", n = 1 } }"#,
    );
    let check = Setpoint::output(&scratch, ["check", "policies"]).await;
    assert_snapshot!("files", check.told(&scratch));
    for (name, _) in FILES {
        assert!(check.stdout.contains(&format!("error: policies/{name}.lua")), "{name} passes");
    }

    let run = Setpoint::output(&scratch, ["run", "policies", "--no-listen"]).await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(78), ""), "{}", run.stderr);
    for error in check.stdout.lines().filter_map(|line| line.strip_prefix("error: ")) {
        assert!(run.stderr.contains(error), "`run` says the same: {error}\n{}", run.stderr);
    }
    assert!(run.stderr.ends_with("hint: nothing was launched; `setpoint check` says the same\n"), "{}", run.stderr);
    assert!(!scratch.path("launched").exists() && !scratch.path("policies/launched").exists());
}
