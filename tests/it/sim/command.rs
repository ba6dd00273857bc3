//! `setpoint simulate` and `setpoint tune` through the binary.

use serde_json::Value;

use crate::support::Scratch;
use crate::support::command;

/// Load for each running task, held at 30 of the 40 that a task serves.
const WEB: &str = r#"return {
  interval = "5s",
  workload = { command = "exec sleep 600", min = 1, max = 400 },
  control = { law = "proportional", per_task = 4, tolerance = 2, cooldown = { down = "60s" }, lag = "15s" },
  metric = function(ctx) return ctx.trace / math.max(ctx.running, 1) end,
  target = 30,
}"#;

fn trace(scratch: &Scratch) {
    let rows = (0..=60).map(|minute| format!("{},{}", minute * 60, 400 + 300 * (minute % 20)));
    scratch.write("load.csv", &format!("seconds,value\n{}\n", rows.collect::<Vec<_>>().join("\n")));
}

fn out(scratch: &Scratch, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(scratch).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(scratch: &Scratch, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = out(scratch, arguments);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

const CONTRACT: [&str; 10] =
    ["--trace", "load.csv", "--rate-per-task", "40", "--startup", "30s", "--metric-lag", "15s", "--seed", "7"];

#[test]
fn the_contract_is_kept_and_the_same_run_is_the_same_bytes() {
    let scratch = Scratch::new();
    scratch.write("web.lua", WEB);
    trace(&scratch);
    let chance = ["--noise", "0.05", "--fail-start", "0.02", "--mean-life", "30m", "--json"];
    let arguments: Vec<&str> = ["simulate", "web.lua"].into_iter().chain(CONTRACT).chain(chance).collect();
    let (code, first, stderr) = out(&scratch, &arguments);
    assert_eq!(code, Some(0), "{stderr}");
    let value: Value = serde_json::from_str(&first).unwrap();
    for key in ["task_hours", "clairvoyant_task_hours", "minutes_over_capacity", "lost_percent", "changes"] {
        assert!(value[key].is_number(), "{key}: {value}");
    }
    assert_eq!(value["script_errors"], 0, "{value}");
    assert_eq!(value["ticks"], 720);
    assert!(value["clairvoyant_task_hours"].as_f64() < value["task_hours"].as_f64(), "{value}");
    assert_eq!(out(&scratch, &arguments).1, first);
    let other = arguments.iter().map(|argument| if *argument == "7" { "8" } else { argument });
    assert_ne!(out(&scratch, &other.collect::<Vec<_>>()).1, first, "another seed is another run");
}

#[test]
fn laws_are_compared_and_drawn() {
    let scratch = Scratch::new();
    scratch.write("web.lua", WEB);
    trace(&scratch);
    let base = ["simulate", "web.lua", "--trace", "load.csv", "--rate-per-task", "40"];
    let with = |more: &[&'static str]| base.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let value = json(&scratch, &with(&["--compare", "proportional,relay", "--json"]));
    let laws: Vec<&str> = value["runs"].as_array().unwrap().iter().map(|run| run["law"].as_str().unwrap()).collect();
    assert_eq!(laws, ["proportional", "relay"]);
    let (code, stdout, _) = out(&scratch, &with(&["--plot", "run.svg"]));
    assert_eq!(code, Some(0));
    assert!(stdout.contains("web (proportional)") && stdout.contains("tasks"), "{stdout}");
    // A picture, with letters but without a font of the system; and another policy file on the same load.
    scratch.write("next.lua", &WEB.replace("target = 30", "target = 20"));
    let (code, stdout, stderr) = out(&scratch, &with(&["--compare", "next.lua", "--plot", "run.png"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("web (proportional)") && stdout.contains("next (proportional)"), "{stdout}");
    let decoder = png::Decoder::new(std::io::Cursor::new(std::fs::read(scratch.path("run.png")).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let colors: std::collections::BTreeSet<&[u8]> = pixels[..info.buffer_size()].chunks(3).collect();
    for color in [[0xff, 0xff, 0xff], [0, 0, 0], [0x1f, 0x77, 0xb4], [0xd6, 0x27, 0x28], [0x2c, 0xa0, 0x2c]] {
        assert!(colors.contains(&color[..]), "{color:?} of {} colours", colors.len());
    }
    let svg = scratch.read("run.svg");
    assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() == 4, "{svg}");
}

#[test]
fn a_script_sees_the_plant_and_reaches_nothing_outside() {
    let scratch = Scratch::new();
    let queue = r#"
      local redis = require("setpoint.redis")
      local jobs = redis.connect("redis://127.0.0.1:6379")
      return {
        interval = "5s",
        workload = { command = "exec sleep 600", min = 1, max = 50 },
        control = { law = "proportional", per_task = 10, tolerance = 5 },
        metric = function(ctx) return jobs:llen("jobs") end,
        target = 20,
        warmer = function(n, ctx) ctx.workload:kill(n) end,
        cooler = function(n, ctx) ctx.workload:launch(n) end,
        victims = function(tasks, n, ctx) return tasks end,
        SIMULATE
      }"#;
    let arguments = ["simulate", "queue.lua", "--load", "square", "--low", "5", "--high", "60", "--queue"];
    let arguments: Vec<&str> = arguments.into_iter().chain(["--rate-per-task", "4", "--json"]).collect();
    scratch.write("queue.lua", &queue.replace("SIMULATE", ""));
    let outside = json(&scratch, &arguments);
    assert!(outside["error"].as_str().unwrap().contains("unavailable in simulate"), "{outside}");
    assert_eq!((&outside["ticks_without_sample"], &outside["stops"]), (&outside["ticks"], &Value::from(0)));
    let fake = "simulate = { metric = function(ctx) assert(ctx.plant.served >= 0) return ctx.plant.queue end },";
    scratch.write("queue.lua", &queue.replace("SIMULATE", fake));
    let inside = json(&scratch, &arguments);
    assert_eq!(inside["error"], Value::Null, "{inside}");
    assert!(10 < inside["starts"].as_u64().unwrap() && 10 < inside["stops"].as_u64().unwrap(), "{inside}");
}

/// A spec with nothing in it but fakes, and one with cases, of which none is run.
const FAKES: [&str; 2] = [
    "fakes(function(world) return { http = { get = function()
       return { number = function() return world.trace / math.max(world.running, 1) end }
     end } } end)",
    r#"local asked = require("setpoint.params")({ asked = 0 }).asked
     describe("web", function()
       fakes(function(world)
         return { http = { get = function(url)
           asked = asked + 1
           assert(url == "http://web/load" and world.now == require("setpoint.time").now())
           assert(world.queue == 0 and world.lost >= 0 and world.served >= 0)
           return { number = function() return world.trace / math.max(world.running, 1) end }
         end } }
       end)
       before_each(function() error("no case is run") end)
       it("is not run", function() load_policy() error("no case is run") end)
     end)"#,
];

/// The same as [`WEB`], but for where the load comes from, and with a parameter.
fn asking() -> String {
    let text = WEB.replace("target = 30", "target = require('setpoint.params')({ target = 30 }).target");
    text.replace("ctx.trace / math.max(ctx.running, 1)", "require('setpoint.http').get('http://web/load'):number()")
}

#[test]
fn fakes_of_a_spec_stand_in_for_what_is_outside() {
    let scratch = Scratch::new();
    trace(&scratch);
    scratch.write("inside/web.lua", WEB);
    scratch.write("web.lua", &asking());
    let simulate = |more: &[&'static str]| {
        let arguments: Vec<&str> = ["simulate"].into_iter().chain(more.iter().copied()).chain(CONTRACT).collect();
        arguments.into_iter().chain(["--noise", "0.05", "--json"]).map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        json(&scratch, &arguments)
    };
    let inside = run(simulate(&["inside/web.lua"]));
    let without = run(simulate(&["web.lua"]));
    assert!(without["error"].as_str().unwrap().contains("`--fakes SPEC` the module's"), "{without}");
    for text in FAKES {
        scratch.write("web_test.lua", text);
        // The world that fakes see is the one that `ctx` shows, and so is what is made of it, to the bit.
        assert_eq!(run(simulate(&["web.lua", "--fakes", "web_test.lua"])), inside);
    }
    // Each of those that are compared has fakes of its own.
    let both = run(simulate(&["web.lua", "--fakes", "web_test.lua", "--compare", "proportional,inside/web.lua"]));
    assert_eq!(both["runs"], serde_json::json!([inside, inside]));
    // `simulate.metric` comes first, unless it is told to stay aside.
    let made_up =
        asking().replace("target = require", "simulate = { metric = function() return 30 end }, target = require");
    scratch.write("made-up/web.lua", &made_up);
    let still = run(simulate(&["made-up/web.lua", "--fakes", "web_test.lua"]));
    assert!(still["error"].is_null() && still["changes"] != inside["changes"], "{still}");
    assert_eq!(run(simulate(&["made-up/web.lua", "--fakes", "web_test.lua", "--own-metric"])), inside);
    // `tune` takes them as well.
    let vary = ["--vary", "tolerance=1..5", "--tries", "2", "--json"];
    let tune = ["tune", "web.lua", "--fakes", "web_test.lua"].into_iter().chain(CONTRACT).chain(vary);
    let tuned = json(&scratch, &tune.collect::<Vec<_>>());
    assert_eq!(tuned["as_it_is"]["report"]["script_errors"], 0, "{tuned}");
}

#[test]
fn fakes_serve_every_function_and_the_rows_of_a_fleet() {
    let scratch = Scratch::new();
    // What is scaled is somebody else's, and is told so by HTTP; what rows there are, too.
    scratch.write(
        "apps.lua",
        r#"local http = require("setpoint.http")
return setpoint.fleet {
  discover = function() return http.get("http://apps"):json() end,
  policy = function(row)
    local app = "http://apps/" .. row.name
    local function scale(n) return http.put(app, { json = n }).ok and n or 0 end
    return {
      interval = "5s",
      workload = { backend = "none", min = 1, max = 60, count = function() return http.get(app):number() end },
      control = { law = "proportional", per_task = 4, tolerance = 2 },
      metric = function(ctx) return http.get(app .. "/load"):number() / math.max(ctx.running, 1) end,
      target = row.target,
      cooler = scale,
      warmer = scale,
    }
  end,
}"#,
    );
    scratch.write(
        "apps_test.lua",
        r#"fakes(function(world)
  local function answer(value)
    return { json = function() return value end, number = function() return value end }
  end
  return { http = {
    get = function(url)
      if url == "http://apps" then
        assert(world.trace == nil and world.running == nil, "there is no world yet")
        return answer({ { name = "eu", target = 30 }, { name = "us", target = 15 } })
      end
      return answer(url:find("/load$") and world.trace or world.running)
    end,
    put = function() return { ok = true } end,
  } }
end)"#,
    );
    trace(&scratch);
    let base = ["simulate", "apps.lua", "--fakes", "apps_test.lua", "--json"];
    let told = json(&scratch, &base.into_iter().chain(CONTRACT).collect::<Vec<_>>());
    let runs = told["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["policy"].as_str().unwrap()).collect::<Vec<_>>(), ["apps/eu", "apps/us"]);
    for run in runs {
        assert_eq!((&run["error"], &run["ticks_without_sample"]), (&Value::Null, &0.into()), "{run}");
        assert!(10 < run["changes"].as_u64().unwrap(), "{run}");
    }
    assert!(runs[0]["task_hours"].as_f64() < runs[1]["task_hours"].as_f64(), "{told}");
    let one = json(&scratch, &base.into_iter().chain(CONTRACT).chain(["--row", "us"]).collect::<Vec<_>>());
    assert_eq!(one, runs[1], "a row by itself is the same");
}

#[test]
fn fakes_that_are_none_are_told() {
    let scratch = Scratch::new();
    scratch.write("web.lua", &asking());
    let simulate = ["simulate", "web.lua", "--load", "sine", "--for", "1m", "--fakes", "web_test.lua"];
    let (code, _, stderr) = out(&scratch, &simulate);
    assert_eq!(code, Some(74), "{stderr}");
    assert!(stderr.contains("web_test.lua") && stderr.contains("cannot be read"), "{stderr}");
    for (text, expected) in [
        ("it('has none', function() load_policy({ fakes = {} }) end)", "gives no fakes: expected `fakes {"),
        (&asking(), "gives no fakes"),
        ("fakes({ htp = {} })", "fakes has no `htp`"),
        ("fakes({ htp = {} })", "did you mean `http`?"),
        ("fakes(function() return { rediss = {} } end)", "did you mean `redis`?"),
        ("fakes(function() end)", "fakes: expected a table, got nil"),
        ("fakes({ http = 3 })", "fakes.http: expected a table, got 3"),
        ("fakes('http')", "fakes: expected a table, got \"http\""),
        ("fakes({ http = {} }) fakes({ redis = {} })", "the file has given its fakes already"),
        ("fakes(function(world) return world.treace end)", "did you mean `trace`?"),
        ("fakes(function(world) world.trace = 3 end)", "the world is read-only"),
        ("fakes({ ", "xpected"),
    ] {
        scratch.write("web_test.lua", text);
        let (code, stdout, stderr) = out(&scratch, &simulate);
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{text}: {stderr}");
        assert!(stderr.contains("web_test.lua") && stderr.contains(expected), "{text}: {stderr}");
    }
    // What is asked of a fake and is not in it is an error of the function that asks.
    scratch.write("web_test.lua", "fakes({ http = { post = function() end } })");
    let told = json(&scratch, &simulate.into_iter().chain(["--json"]).collect::<Vec<_>>());
    assert!(told["error"].as_str().unwrap().contains("the fake of setpoint.http has no \"get\""), "{told}");
    scratch.write("web_test.lua", "fakes({ http = { get = function() load_policy({}) end } })");
    let told = json(&scratch, &simulate.into_iter().chain(["--json"]).collect::<Vec<_>>());
    assert!(told["error"].as_str().unwrap().contains("load_policy: expected to be called by a test"), "{told}");
    let (code, _, stderr) = out(&scratch, &["simulate", "web.lua", "--own-metric"]);
    assert!(code == Some(2) && stderr.contains("--fakes <SPEC>"), "{stderr}");
}

#[test]
fn rows_of_a_fleet_run_one_by_one_or_all() {
    let scratch = Scratch::new();
    let row = WEB.strip_prefix("return ").unwrap().replace("target = 30", "target = row.target");
    let discover = "return { { name = 'eu', target = 30 }, { name = 'us', target = 20 } }";
    scratch.write(
        "web.lua",
        &format!(
            "return setpoint.fleet {{ discover = function() {discover} end, policy = function(row) return {row} end }}"
        ),
    );
    trace(&scratch);
    let base = ["simulate", "web.lua", "--trace", "load.csv", "--rate-per-task", "40", "--json"];
    let with = |more: &[&'static str]| base.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let all = json(&scratch, &with(&[]));
    let names: Vec<&str> = all["runs"].as_array().unwrap().iter().map(|run| run["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["web/eu", "web/us"]);
    let hours = |run: &Value| run["task_hours"].as_f64().unwrap();
    assert!(hours(&all["runs"][0]) < hours(&all["runs"][1]), "a lower target takes more tasks: {all}");
    let one = json(&scratch, &with(&["--row", "us", "--control", "tolerance=0.5"]));
    assert_eq!(one["policy"], "web/us");
    assert_ne!(one["task_hours"], all["runs"][1]["task_hours"], "settings reach a row: {one}");
    let (code, _, stderr) = out(&scratch, &with(&["--row", "asia"]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--row takes one of: eu, us"), "{stderr}");
}

#[test]
fn a_runaway_script_ends_and_wrong_flags_are_told() {
    let scratch = Scratch::new();
    scratch.write("loop.lua", &WEB.replace("return ctx.trace", "while true do end return ctx.trace"));
    let value = json(&scratch, &["simulate", "loop.lua", "--for", "5s", "--json"]);
    assert_eq!(value["script_errors"], 1, "{value}");
    scratch.write("web.lua", WEB);
    for (arguments, told) in [
        (&["--outage", "flood=1m..2m"][..], "expected one of refused"),
        (&["--starve", "2m..1m"][..], "TO not before FROM"),
        (&["--rate-per-task", "0"][..], "--rate-per-task"),
    ] {
        let arguments: Vec<&str> = ["simulate", "web.lua"].iter().chain(arguments).copied().collect();
        let (code, _, stderr) = out(&scratch, &arguments);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
    scratch.write("bad.csv", "seconds,value\n0,1\n1,many\n");
    let (code, _, stderr) = out(&scratch, &["simulate", "web.lua", "--trace", "bad.csv"]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("line 3: expected `seconds,value`, got `1,many`"), "{stderr}");
}

#[test]
fn tune_finds_something_cheaper_and_finds_it_again() {
    let scratch = Scratch::new();
    scratch.write("web.lua", &WEB.replace("per_task = 4", "per_task = 40"));
    trace(&scratch);
    let vary = ["--vary", "per_task=0.5..40", "--vary", "cooldown.down=0s..5m", "--tries", "16", "--json"];
    let arguments: Vec<&str> = ["tune", "web.lua"].into_iter().chain(CONTRACT).chain(vary).collect();
    let value = json(&scratch, &arguments);
    let (before, best) = (value["as_it_is"]["cost"].as_f64().unwrap(), &value["tries"][0]);
    assert!(best["cost"].as_f64().unwrap() < before, "{value}");
    assert!(best["control"]["cooldown.down"].as_str().unwrap().ends_with("ms"), "{best}");
    assert_eq!(json(&scratch, &arguments), value);
}

/// Each law's own parameters are what is searched when nothing is said, and every value drawn is one that it takes.
#[test]
fn tune_knows_what_each_law_has_to_be_tuned() {
    let scratch = Scratch::new();
    trace(&scratch);
    let laws = [
        ("law = 'adaptive', per_task = 4", "lag per_task stabilization.down"),
        ("law = 'proportional', per_task = 4, cooldown = '20s'", "cooldown.down lag per_task"),
        ("law = 'pid', kp = 0.2", "kd ki kp lag"),
        ("law = 'ratio'", "stabilization.down tolerance"),
        ("law = 'relay'", "lag lookback ramp"),
        (
            "law = 'step', steps = { { above = 9, add = 1 }, { below = 5, remove = 1 } }",
            "cooldown.down cooldown.up hysteresis",
        ),
    ];
    for (control, keys) in laws {
        let law = format!(
            "return {{
  interval = '5s', workload = {{ command = 'exec sleep 9', effect = 'cools', min = 1, max = 60 }},
  control = {{ {control} }}, target = 8, metric = function() return 8 end,
  simulate = {{ metric = function(ctx) return ctx.trace / math.max(ctx.running, 1) end }},
}}"
        );
        scratch.write("law.lua", &law);
        let arguments: Vec<&str> =
            ["tune", "law.lua"].into_iter().chain(CONTRACT).chain(["--tries", "6", "--json"]).collect();
        let tuned = json(&scratch, &arguments);
        let tries = tuned["tries"].as_array().unwrap();
        assert_eq!(tries.len(), 6, "{tuned}");
        for tried in tries {
            let varied = tried["control"].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
            assert_eq!(varied.join(" "), keys, "{control}");
            assert_eq!(tried["report"]["script_errors"], 0, "{tried}");
        }
    }
    scratch.write(
        "law.lua",
        "return { interval = '5s', workload = { command = 'true' }, control = { law = 'count', n = 2 } }",
    );
    let (code, _, stderr) = out(&scratch, &["tune", "law.lua", "--load", "sine"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("\"count\" has no parameters"), "{stderr}");
}
