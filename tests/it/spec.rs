//! `setpoint test` through the binary: the bundled policies' specs, and what failing ones show.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Scratch, command};

/// Exit code, standard output, standard error.
fn finished(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn out(scratch: &Scratch, arguments: &[&str]) -> (Option<i32>, String, String) {
    finished(command(scratch).arg("test").args(arguments))
}

fn json(scratch: &Scratch, code: i32, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let (got, stdout, stderr) = out(scratch, &arguments);
    assert_eq!(got, Some(code), "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn every_bundled_policy_has_a_spec_that_holds_and_runs_most_of_it() {
    let scratch = Scratch::new();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (code, stdout, stderr) =
        finished(command(&scratch).current_dir(package).args(["test", "scripts", "--coverage", "--json"]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let value: Value = serde_json::from_str(&stdout).unwrap();
    let covered: BTreeMap<&str, &Value> =
        value["coverage"].as_array().unwrap().iter().map(|file| (file["path"].as_str().unwrap(), file)).collect();
    let policies = std::fs::read_dir(package.join("scripts")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut seen = 0;
    for name in policies.map(|name| name.into_string().unwrap()) {
        let Some(stem) = name.strip_suffix(".lua").filter(|stem| !stem.ends_with("_test")) else { continue };
        seen += 1;
        let file = covered.get(format!("scripts/{name}").as_str()).unwrap_or_else(|| panic!("{stem} has no spec"));
        let (lines, missed) = (file["lines"].as_u64().unwrap(), file["missed"].as_array().unwrap().len() as u64);
        assert!(missed * 10 <= lines, "{name}: {missed} of {lines} lines are run by no case: {file}");
    }
    assert!(14 <= seen, "only {seen} policies were looked at");
}

const QUEUE: &str = r#"local redis = require("setpoint.redis")
local p = require("setpoint.params")({ max = 10, per = 5 })
local jobs = redis.connect("redis://127.0.0.1:6379")

return {
  interval = "5s",
  workload = { command = "exec sleep 60", max = p.max, effect = "cools" },
  control = { law = "decide", step = { up = 3 } },
  metric = function() return jobs:llen("jobs") end,
  target = 0,
  decide = function(ctx)
    if ctx.sample == nil then
      return { adjust = 0 }
    end
    return { desired = math.ceil(ctx.sample / p.per) }
  end,
  stop = function(ctx)
    if ctx.tick == 50 then
      return 3
    end
    return nil
  end,
}
"#;

/// `load(options)` loads it with a list of `length` jobs.
const FAKES: &str = r"local length = 0
local function load(options)
  options = options or {}
  options.fakes = { redis = { connect = function() return { llen = function() return length end } end } }
  return load_policy(options)
end
";

fn queue(scratch: &Scratch, cases: &str) {
    scratch.write("queue.lua", QUEUE);
    scratch.write("queue_test.lua", &format!("{FAKES}\n{cases}"));
}

#[test]
fn what_holds_passes() {
    let scratch = Scratch::new();
    queue(
        &scratch,
        r#"
describe("queue", function()
  local order = {}
  local policy
  before_each(function() order[#order + 1] = "before" length = 0 policy = load() end)
  after_each(function() order[#order + 1] = "after" end)

  it("ticks under a virtual clock", function()
    length = 40
    local decision = policy:tick()
    expect(decision).to_launch(3)
    expect(decision).to_have_reason("step")
    expect(decision).never.to_hold()
    expect(decision.raw).to_equal(8)
    local more = policy:advance("10s")
    expect(#more).to_equal(2)
    expect(more[2].at).to_be_near(10)
    expect(policy:running()).to_equal(8)
    expect(policy:tick({ advance = "1s", metric = 0 })).to_kill(8)
    expect(policy:tasks()).to_equal({})
  end)

  it("says when there is no sample, and holds", function()
    policy = load({ start = 4 })
    expect(policy:tick({ missing = true })).to_hold()
    expect(policy:tick({ error = "down" }).sample_kind).to_equal("error")
    expect(policy:tick({ metric = 0, age = "1m" }).sample_kind).to_equal("stale")
    expect(policy:tick({ metric = 0 / 0 }).sample_kind).to_equal("error")
    expect(policy:running()).to_equal(4)
    expect(policy:tick({ metric = 0 })).to_kill(4)
  end)

  it("has tasks that take their time, show figures and are replaced", function()
    policy = load({ startup = "7s", stop = "20s", params = { max = 4 } })
    length = 100
    expect(policy:tick().in_flight).to_equal(3)
    expect(policy:running()).to_equal(0)
    policy:advance("20s")
    expect(policy:running()).to_equal(4)
    expect(policy:finish(1, 1)).to_equal(1)
    policy:advance("30s")
    expect(policy:running()).to_equal(4)
    policy:tick({ metric = 0 })
    expect(policy:tasks()[1].state).to_equal("killing")
    policy:advance("20s", { metric = 0 })
    expect(policy:tasks()).to_have_length(0)
  end)

  it("ends when the policy does", function()
    policy:advance("10m")
    expect(policy:ended()).to_contain("exit code 3")
    expect(function() policy:tick() end).to_error("the policy has ended")
  end)

  it("tells wrong calls", function()
    expect(function() load({ params = { mx = 1 } }) end).to_error('queue declares no parameter "mx"')
    expect(function() load_policy({ fakes = { rediss = {} } }) end).to_error("has no `rediss`")
    expect(function() load_policy("other") end).to_error("no module")
    expect(function() load_policy("../queue") end).to_error("expected a module below")
    expect(function() policy:tick({ metrc = 1 }) end).to_error("has no `metrc`")
    expect(function() policy:advance(5) end).to_error("expected a duration")
    expect(function() expect(1).to_eqal(1) end).to_error("has no `to_eqal`")
    expect(function() it("inner", function() end) end).to_error("while the spec is loaded")
    expect(function() policy.x = 1 end).to_error("read-only")
    expect(function() load_policy({ fakes = { redis = {} } }) end).to_error("fake of setpoint.redis has no")
    expect(load_policy():tick()).to_have_failed("unavailable in specs")
  end)

  it("refuses a tick from within a tick, and tells the tasks there", function()
    local inner, seen
    inner = load_policy({ start = 2, fakes = { redis = { connect = function()
      return { llen = function()
        seen = #inner:tasks()
        inner:tick()
      end }
    end } } })
    expect(inner:tick()).to_have_failed("in the middle of a tick")
    expect(seen).to_equal(2)
  end)

  it("compares", function()
    expect({ 1, { a = 2 } }).to_equal({ 1, { a = 2 } })
    expect(function() expect({ a = { b = 1 } }).to_equal({ a = { b = 2 } }) end).to_error("differs at .a.b")
    expect({ "x", "y" }).to_contain("y")
    expect("some text").to_match("^some")
    expect(1).never.to_be_nil()
    expect(3).to_be_at_least(3)
    expect(order[1]).to_equal("before")
    expect(order[2]).to_equal("after")
  end)

  it("draws", function()
    local runs = 0
    for_all({
      n = gen.integer({ min = 3, max = 5 }), x = gen.number({ max = 1 }), kind = gen.one_of({ "a", "b" }),
      list = gen.list(gen.integer(), { max = 4 }), load = gen.trace({ max = 9, length = 6 }), runs = 20,
    }, function(input)
      runs = runs + 1
      expect(input.n >= 3 and input.n <= 5 and input.x >= 0 and input.x < 1).to_be_true()
      expect(#input.list).to_be_at_most(4)
      expect(input.load).to_have_length(6)
    end)
    expect(runs).to_equal(20)
  end)

  skip("is for later", function() error("not run") end)
end)
"#,
    );
    let (code, stdout, stderr) = out(&scratch, &["queue.lua", "--coverage", "--jobs", "1"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_snapshot!(stdout, @r"
    ok    queue_test.lua  9 cases, 1 skipped

    coverage  queue.lua  11 of 11 lines (100 %)

    9 cases, 1 skipped
    ");
}

const WRONG: &str = r#"describe("queue", function()
  before_each(function() length = 0 end)

  it("launches too few", function()
    length = 40
    local policy = load()
    policy:advance("10s")
    expect(policy:tick({ metric = 100 })).to_launch(9)
  end)

  it("has a property that does not hold", function()
    for_all({ backlog = gen.trace({ max = 100 }) }, function(input)
      local policy = load()
      for _, value in ipairs(input.backlog) do
        policy:tick({ metric = value })
        expect(policy:running()).to_be_at_most(4)
      end
    end)
  end)

  it("raises", function()
    local function inner(x) return x.y end
    inner(nil)
  end)

  it("wants a golden timeline", function()
    local policy = load()
    policy:advance("20s")
    expect(policy:timeline()).to_match_golden("nothing to do")
  end)
end)
"#;

#[test]
fn what_fails_shows_where_what_and_the_timeline() {
    let scratch = Scratch::new();
    queue(&scratch, WRONG);
    scratch.write("sub/broken_test.lua", "describe('x', function()\n  it('y' function() end)\nend)\n");
    let (code, stdout, stderr) = out(&scratch, &["queue_test.lua"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert_snapshot!("failing_specs", stdout);
    let (code, stdout, _) = out(&scratch, &[]);
    assert_eq!(code, Some(78), "a spec that does not load outranks one that fails: {stdout}");
    assert!(stdout.contains("sub/broken_test.lua:2"), "{stdout}");
    let value = json(&scratch, 78, &["--junit", "report.xml"]);
    assert_eq!((&value["failed"], &value["not_loaded"]), (&Value::from(4), &Value::from(1)), "{value}");
    let failure = &value["files"][0]["cases"][0]["failure"];
    assert_eq!(failure["line"], 15, "{failure}");
    assert_eq!(failure["timelines"]["queue"].as_array().unwrap().len(), 4, "{failure}");
    let xml = scratch.read("report.xml");
    assert!(xml.contains("<testsuite name=\"queue_test.lua\" tests=\"4\" failures=\"4\""), "{xml}");
    assert!(xml.contains("name=\"queue &gt; launches too few\"") && xml.contains("<error message="), "{xml}");
    let told = out(&scratch, &["nowhere"]);
    assert!(told.0 == Some(74) && told.2.contains("cannot read `nowhere`"), "{told:?}");
    scratch.write("plain.lua", QUEUE);
    let told = out(&scratch, &["plain.lua"]);
    assert!(told.0 == Some(78) && told.2.contains("plain_test.lua"), "{told:?}");
}

#[test]
fn a_case_that_does_not_end_or_grows_without_end_is_stopped_and_the_next_one_runs() {
    let scratch = Scratch::new();
    queue(
        &scratch,
        r#"
it("loops", function()
  while true do pcall(function() while true do end end) end
end)
it("grows", function()
  local list = {}
  while true do list[#list + 1] = string.rep("x", 100000) .. #list end
end)
it("holds", function()
  expect(load():tick()).to_hold()
end)
"#,
    );
    let loops = json(&scratch, 1, &["--filter", "loops", "--timeout", "100ms"]);
    let message = &loops["files"][0]["cases"][0]["failure"]["message"];
    assert_eq!(message, "expected the case to be done within 100ms, was stopped", "{loops}");
    let grows = json(&scratch, 1, &["--filter", "ows"]);
    assert_eq!(grows["cases"], 1, "{grows}");
    let rest = json(&scratch, 1, &["--timeout", "5s"]);
    let cases = rest["files"][0]["cases"].as_array().unwrap();
    let told = cases[1]["failure"]["message"].as_str().unwrap();
    assert!(told.starts_with("not enough memory"), "{told}");
    assert_eq!(cases[2]["outcome"], "passed", "{rest}");
}

#[test]
fn specs_drain_and_count_as_the_loop_does() {
    let scratch = Scratch::new();
    scratch.write(
        "drained.lua",
        r#"local http = require("setpoint.http")
return {
  interval = "1s",
  workload = { command = "exec sleep 60", min = 0, max = 10, grace = "3s" },
  decide = function(ctx) return { desired = ctx.tick == 1 and 3 or 1 } end,
  drain = function(task, ctx) return http.get("http://web/" .. task.id).body == "idle" end,
}"#,
    );
    scratch.write(
        "drained_test.lua",
        r#"
local answer
local policy
before_each(function()
  answer = "busy"
  local get = function() if answer == nil then error("no such host") end return { status = 200, body = answer } end
  policy = load_policy({ start = 3, fakes = { http = { get = get } } })
  policy:tick()
end)

it("lets tasks go when they are drained", function()
  policy:tick()
  expect(#policy:tasks()).to_equal(3)
  answer = "idle"
  policy:tick()
  expect(#policy:tasks()).to_equal(1)
end)

it("lets them go when their grace is over", function()
  for _ = 1, 3 do policy:tick() end
  expect(#policy:tasks()).to_equal(3)
  policy:tick()
  expect(#policy:tasks()).to_equal(1)
end)

it("lets them go when it fails, and tells", function()
  answer = nil
  policy:tick()
  expect(#policy:tasks()).to_equal(1)
  expect(policy:timeline()).to_match("no such host")
end)
"#,
    );
    scratch.write(
        "counted.lua",
        r#"local http = require("setpoint.http")
return {
  interval = "1s",
  workload = { backend = "none", min = 0, max = 10, count = function() return tonumber(http.get("http://web/n").body) end },
  control = { lag = "3s" },
  decide = function(ctx) return { desired = 4 } end,
  cooler = function(n, ctx) return math.min(n, 3) end,
  warmer = function(n, ctx) return n end,
}"#,
    );
    scratch.write(
        "counted_test.lua",
        r#"
it("goes by what count says", function()
  local n = "1"
  local policy = load_policy({ fakes = { http = { get = function() return { status = 200, body = n } end } } })
  local first = policy:tick()
  expect(first.raw).to_equal(3)
  expect(first).to_launch(3)
  expect(policy:tick()).to_hold()
  n = "3"
  expect(policy:tick()).to_hold()
  n = "6"
  expect(policy:tick().raw).to_equal(-2)
  n = "many"
  expect(policy:tick()).to_hold()
end)
"#,
    );
    let value = json(&scratch, 0, &[]);
    assert_eq!((&value["passed"], &value["failed"]), (&Value::from(4), &Value::from(0)), "{value}");
}

#[test]
fn golden_timelines_are_written_kept_and_compared() {
    let scratch = Scratch::new();
    queue(&scratch, WRONG);
    let only = ["queue_test.lua", "--filter", "golden"];
    let update: Vec<&str> = only.iter().copied().chain(["--update"]).collect();
    let (code, stdout, stderr) = out(&scratch, &update);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("wrote queue_test.golden\n"), "{stdout}");
    let golden = scratch.read("queue_test.golden");
    assert_snapshot!(golden, @r"
    Golden timelines, written by `setpoint test --update`.

    == nothing to do
        0s  0 of 0  tasks 0+0  raw +0  held
         …  the same until 20s
    ");
    assert_eq!(json(&scratch, 0, &only)["passed"], 1);
    scratch.write("queue_test.golden", &golden.replace("tasks 0+0", "tasks 1+0"));
    let (code, stdout, _) = out(&scratch, &only);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("\n  -     0s  0 of 0  tasks 1+0") && stdout.contains("\n  +     0s  0 of 0"), "{stdout}");
}

#[test]
fn the_spec_that_init_writes_holds() {
    let scratch = Scratch::new();
    let (code, _, stderr) = finished(command(&scratch).args(["init", "--name", "mail"]));
    assert_eq!(code, Some(0), "{stderr}");
    let value = json(&scratch, 0, &["--coverage"]);
    assert_eq!((&value["passed"], &value["failed"]), (&Value::from(3), &Value::from(0)), "{value}");
    assert_eq!(value["coverage"][0]["missed"].as_array().map(Vec::len), Some(0), "{value}");
}

#[test]
fn fakes_of_the_file_serve_each_policy_in_a_world_of_its_own() {
    let scratch = Scratch::new();
    scratch.write("queue.lua", QUEUE);
    scratch.write(
        "queue_test.lua",
        r#"
fakes(function(world)
  local asked = 0
  return {
    redis = { connect = function() return { llen = function() asked = asked + 1 return world.queue + 5 * asked end } end },
    log = { info = function() end },
  }
end)

it("makes them anew for each policy", function()
  local busy, calm = { queue = 25 }, {}
  local policy, other = load_policy({ world = busy }), load_policy({ world = calm })
  expect(policy:tick().sample).to_equal(30)
  busy.queue, calm.queue = 0, 5
  expect(policy:tick().sample).to_equal(10)
  expect(other:tick().sample).to_equal(10)
  expect(load_policy():tick()).to_have_failed("attempt to perform arithmetic")
end)

it("has those of a single policy before them", function()
  local own = { redis = { connect = function() return { llen = function() return 40 end } end } }
  expect(load_policy({ fakes = own }):tick().sample).to_equal(40)
end)

it("takes them while it is loaded only", function()
  expect(function() fakes({}) end).to_error("not within `it`")
end)
"#,
    );
    assert_eq!(json(&scratch, 0, &["queue_test.lua"])["passed"], 3);
    scratch.write("queue_test.lua", "fakes({})\nit('has no world', function() load_policy({ world = {} }) end)");
    let (code, stdout, _) = out(&scratch, &["queue_test.lua"]);
    assert!(code == Some(1) && stdout.contains("gives `fakes` no function that would take it"), "{stdout}");
}
