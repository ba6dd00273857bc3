//! The decision log through the binary: what a life with reloads, outages and crashes leaves can be made again, bit for
//! bit, and told in words.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use setpoint::log::{DecisionLog, Entry, Item, Log, LogConfig};

use crate::support::{GENEROUS, Scratch, Setpoint, wait_until};

/// Policies of several laws over a metric that comes and goes: refused, nothing, not a number, stale, and figures.
fn unsteady(law: &str, per_task: f64) -> String {
    format!(
        r#"-- One task for {per_task}.
return {{
  interval = "50ms",
  workload = {{ command = "exec sleep 600", min = 0, max = 4, grace = "1s" }},
  control = {{ {law}, per_task = {per_task}, stabilization = {{ down = "300ms" }}, cooldown = {{ up = "120ms" }} }},
  metric = function(ctx)
    local phase = ctx.tick % 23
    if phase < 3 then error("connection refused") end
    if phase == 3 then return nil end
    if phase == 4 then return 0 / 0 end
    if phase == 5 then return 7, 3600 end
    return 10 + 9.7 * math.sin(ctx.tick / 5) - ctx.running, 0.0125
  end,
  target = 3.1,
}}"#
    )
}

const POLICIES: [(&str, &str); 4] = [
    ("adaptive", r#"law = "adaptive""#),
    ("pid", r#"law = "pid", kp = 0.1, ki = 0.07, kd = 0.03"#),
    ("relay", r#"law = "relay", ramp = 3"#),
    ("plain", r#"law = "proportional", tolerance = 0.5, confirm = { n = 2, of = 3 }"#),
];

fn write_policies(scratch: &Scratch, per_task: f64) {
    for (name, law) in POLICIES {
        let per_task_less = law.contains("relay");
        let text = unsteady(law, per_task);
        let text = if per_task_less { text.replace(&format!(", per_task = {per_task}"), "") } else { text };
        scratch.replace(&format!("policies/{name}.lua"), &text);
    }
}

fn entries(path: PathBuf) -> Vec<Entry> {
    let mut entries = Vec::new();
    Log::find(&path)
        .unwrap()
        .read(|item| {
            if let Item::Decision { entry, .. } = item {
                entries.push(*entry);
            }
        })
        .unwrap();
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_outages_and_crashes_replay_bit_for_bit() {
    let scratch = Scratch::new();
    write_policies(&scratch, 2.5);
    let args = ["policies", "--state-dir", "state"];
    let mut run = Setpoint::run(&scratch, args);
    for (name, _) in POLICIES {
        run.ticks(name, 30).await;
    }
    for (round, per_task) in [3.5, 1.25].into_iter().enumerate() {
        write_policies(&scratch, per_task);
        for (name, _) in POLICIES {
            run.policy_until(name, "the new file runs", |policy| {
                policy["generation"].as_u64() > Some(round as u64 + 1)
            })
            .await;
            run.ticks(name, 15).await;
        }
        run.kill();
        run = Setpoint::run(&scratch, args);
        run.ticks("pid", 25).await;
    }
    // Long enough for a keyframe that only follows.
    run.ticks("plain", 300).await;
    assert!(run.stop().await.success());

    let told = Setpoint::output(&scratch, ["replay", "state", "--json"]).await;
    assert_eq!(told.code, Some(0), "{}{}", told.stdout, told.stderr);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let decisions = told["decisions"].as_u64().unwrap();
    assert!(600 < decisions, "{told}");
    assert_eq!(told["differences"], serde_json::json!([]));
    assert_eq!(told["gaps"]["not_replayable"], 0, "{told}");
    assert_eq!(told["gaps"]["lost"], 0, "{told}");
    let text = Setpoint::output(&scratch, ["replay", "state/decisions"]).await;
    assert_eq!(text.stdout, format!("{decisions} decisions, all identical\n"));

    let all = entries(scratch.path("state"));
    let kinds: std::collections::BTreeSet<&str> = all.iter().map(|entry| entry.observation.sample.kind()).collect();
    assert_eq!(kinds.len(), 4, "every kind of outage is in it: {kinds:?}");
    let generations: std::collections::BTreeSet<u64> = all.iter().map(|entry| entry.policy.generation).collect();
    assert!(3 <= generations.len(), "{generations:?}");
    assert!(all.iter().any(|entry| !entry.outcome.settled.is_empty()), "something was carried out");

    // Another policy's rules over the same past.
    scratch.write("other/plain.lua", &unsteady(POLICIES[3].1, 0.5).replace("max = 4", "max = 9"));
    let other = Setpoint::output(&scratch, ["replay", "state", "--policy", "other/plain.lua"]).await;
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    assert!(other.stdout.contains("would have been otherwise:\n"), "{}", other.stdout);
    scratch.write("other/adaptive.lua", &unsteady(POLICIES[0].1, 1.25));
    let nobody =
        Setpoint::output(&scratch, ["replay", "state", "--policy", "other/adaptive.lua", "--name", "no"]).await;
    assert_eq!(nobody.code, Some(2), "{}", nobody.stderr);

    // A run of its own on that past: the same bytes each time, and tasks that it started itself.
    let simulate = ["simulate", "other/plain.lua", "--from-log", "state", "--startup", "100ms", "--json"];
    let ran = Setpoint::output(&scratch, simulate).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(Setpoint::output(&scratch, simulate).await.stdout, ran.stdout);
    let ran: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(100 < ran["ticks"].as_u64().unwrap() && 0 < ran["changes"].as_u64().unwrap(), "{ran}");
    assert!(0 < ran["ticks_without_sample"].as_u64().unwrap(), "outages are part of the past: {ran}");
    let both = ["simulate", "other/plain.lua", "--from-log", "state", "--load", "sine"];
    assert_eq!(Setpoint::output(&scratch, both).await.code, Some(2));

    // One decision that is not what comes out: found, and named.
    let log = DecisionLog::open(LogConfig::new(scratch.path("forged"))).unwrap();
    let mut forged = all;
    forged.retain(|entry| entry.policy.name.as_str() == "plain");
    let at = forged.len() / 2;
    forged[at].decision.raw += 1;
    let tick = forged[at].tick;
    for entry in forged {
        assert!(log.submit(Box::new(entry)));
    }
    log.close();
    let told = Setpoint::output(&scratch, ["replay", "forged"]).await;
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.stdout.contains(" decisions, 1 otherwise:\n"), "{}", told.stdout);
    assert!(told.stdout.contains(&format!("plain tick {tick}: was raw ")), "{}", told.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tick_is_a_count_and_its_sample() {
    let scratch = Scratch::new();
    scratch.policy(
        "still",
        r#"return {
  interval = "50ms",
  workload = { command = "exec sleep 600", max = 4 },
  metric = function(ctx) return ctx.tick % 7 + 0.1 end,
  target = 3,
  decide = function(ctx) return { adjust = 0 } end,
}"#,
    );
    let mut run = Setpoint::run(&scratch, ["still.lua", "--state-dir", "state"]);
    run.ticks("still", 100).await;
    assert!(run.stop().await.success());
    let all = entries(scratch.path("state"));
    assert!(100 <= all.len());
    for (n, entry) in all.iter().enumerate() {
        let tick = n as u64 + 1;
        let value = (tick % 7) as f64 + 0.1;
        let seen = entry.observation.sample.fresh();
        assert_eq!((entry.tick, seen.map(f64::to_bits)), (tick, Some(value.to_bits())));
    }
    let files = fs::read_dir(scratch.path("state/decisions")).unwrap().map(|file| file.unwrap().metadata().unwrap());
    let bytes: u64 = files.map(|file| file.len()).sum();
    // One decision in full, and then eight bytes of a sample, two clocks and a frame each.
    assert!(bytes < 2_000 + 40 * all.len() as u64, "{bytes} bytes for {} ticks", all.len());
}

/// Two rows that want more tasks than they may have; `more` are other bounds of some of them.
fn fleet(more: &str) -> String {
    format!(
        r#"local max = {{ eu = 2, us = 3, {more} }}
return setpoint.fleet {{
  discover = function()
    local rows = {{}}
    for _, name in ipairs({{ "asia", "eu", "us" }}) do
      rows[#rows + 1] = max[name] and {{ name = name }} or nil
    end
    return rows
  end,
  policy = function(row)
    return {{
      interval = "50ms",
      workload = {{ command = "exec sleep 600", max = max[row.name], grace = "1s" }},
      control = {{ law = "proportional" }},
      metric = function() return 10 end,
      target = 3,
    }}
  end,
}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleets_rows_are_stood_in_for_one_by_one_or_all() {
    let scratch = Scratch::new();
    scratch.policy("web", &fleet(""));
    let mut run = Setpoint::run(&scratch, ["web.lua", "--state-dir", "state"]);
    for (row, most) in [("web/eu", 2), ("web/us", 3)] {
        run.running(row, most).await;
        run.ticks(row, 5).await;
    }
    assert!(run.stop().await.success());
    let recorded = entries(scratch.path("state"));
    let of = |row: &str| recorded.iter().filter(|entry| entry.policy.name.as_str() == row).count();
    assert_eq!(of("web/eu") + of("web/us"), recorded.len());

    let scratch = &scratch;
    let replay = |more: &'static [&'static str]| async move {
        let arguments = ["replay", "state", "--policy"].iter().chain(more).copied();
        let told = Setpoint::output(scratch, arguments.chain(["--json"])).await;
        assert_eq!(told.code, Some(0), "{more:?}: {}", told.stderr);
        let told: Value = serde_json::from_str(&told.stdout).unwrap();
        let differing = told["otherwise"].as_array().unwrap().iter().map(|other| other["policy"].to_string());
        let differing: std::collections::BTreeSet<String> = differing.collect();
        (told["decisions"].as_u64().unwrap() as usize, differing.into_iter().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(replay(&["web.lua"]).await, (recorded.len(), String::new()));
    assert_eq!(replay(&["web.lua", "--row", "eu"]).await, (of("web/eu"), String::new()));
    // Each row in its own place; one that the log does not know has none.
    scratch.write("next/web.lua", &fleet("us = 9, asia = 5"));
    assert_eq!(replay(&["next/web.lua"]).await, (recorded.len(), "\"web/us\"".to_owned()));
    assert_eq!(replay(&["next/web.lua", "--row", "eu"]).await, (of("web/eu"), String::new()));
    assert_eq!(replay(&["next/web.lua", "--row", "us"]).await, (of("web/us"), "\"web/us\"".to_owned()));
    // One row in another's place.
    let placed = replay(&["next/web.lua", "--row", "us", "--name", "web/eu"]).await;
    assert_eq!(placed, (of("web/eu"), "\"web/eu\"".to_owned()));

    for (arguments, said) in [
        (&["next/web.lua", "--name", "web/eu"][..], "--row names one of its rows"),
        (&["next/web.lua", "--row", "africa"], "--row takes one of: asia, eu, us"),
        (&["next/web.lua", "--row", "asia"], "there is no decision of `web/asia` in `state`"),
    ] {
        let arguments = ["replay", "state", "--policy"].iter().chain(arguments).copied();
        let told = Setpoint::output(scratch, arguments).await;
        assert_eq!((told.code, told.stdout.as_str()), (Some(2), ""), "{}", told.stderr);
        assert!(told.stderr.contains(said), "{}", told.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_rotated_while_it_is_written_and_can_be_switched_off() {
    let scratch = Scratch::new();
    write_policies(&scratch, 2.5);
    let settings = "[decision_log]\nfolder = \"past\"\nmax_size = \"8KiB\"\nkeep = 3\n";
    scratch.write("setpoint.toml", settings);
    let mut run = Setpoint::run(&scratch, ["policies"]);
    let files = || scratch.list("past").into_iter().filter(|name| name != "lock").collect::<Vec<_>>();
    wait_until(GENEROUS, "the oldest file is gone", async || {
        let files = files();
        (files.len() == 3 && files[0] != "00000001.dlog").then_some(())
    })
    .await;
    let second = Setpoint::output(&scratch, ["run", "policies", "--no-listen"]).await;
    assert_eq!(second.code, Some(69), "one log, one writer: {}", second.stderr);
    assert!(second.stderr.contains("another setpoint writes to the decision log"), "{}", second.stderr);
    assert!(run.stop().await.success());
    assert_eq!(files().len(), 3);
    for name in files() {
        assert!(fs::metadata(scratch.path("past").join(&name)).unwrap().len() < 512 << 10, "{name}");
    }
    let told = Setpoint::output(&scratch, ["replay", "past", "--json"]).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["differences"], serde_json::json!([]), "{told}");

    scratch.write("setpoint.toml", "[decision_log]\nenabled = false\n");
    let mut run = Setpoint::run(&scratch, ["policies", "--state-dir", "state"]);
    run.ticks("plain", 3).await;
    assert!(run.stop().await.success());
    assert_eq!(scratch.list("state/decisions"), Vec::<String>::new());
    let told = Setpoint::output(&scratch, ["replay", "state"]).await;
    assert_eq!(told.code, Some(2), "{}", told.stderr);
}

/// A small file system on a folder, gone with it.
struct Small(PathBuf);

impl Small {
    fn mount(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let small = Self(folder);
        small.size("64k", &["-t", "tmpfs", "tmpfs"]);
        small
    }

    fn size(&self, size: &str, what: &[&str]) {
        let options = if what.is_empty() { format!("remount,size={size}") } else { format!("size={size}") };
        let done = Command::new("mount").args(["-o", &options]).args(what).arg(&self.0).status().unwrap();
        assert!(done.success(), "mount takes root");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["--lazy".as_ref(), self.0.as_os_str()]).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_shows_and_takes_nothing_else_with_it() {
    let scratch = Scratch::new();
    write_policies(&scratch, 2.5);
    let small = Small::mount(scratch.path("past"));
    scratch.write("setpoint.toml", "[decision_log]\nfolder = \"past\"\n");
    let mut run = Setpoint::run(&scratch, ["policies"]);
    let status = async |run: &mut Setpoint, status: &str| {
        wait_until(GENEROUS, &format!("/readyz says {status}"), async || {
            let (code, ready) = run.get("/readyz").await;
            assert!(code == 200 || run.stderr().contains("listening"), "{ready}");
            let told = ready["problems"]["decision log"].as_str().map(str::to_owned);
            (told.is_some() == (status == "full")).then_some(told)
        })
        .await
    };
    let told = status(&mut run, "full").await;
    assert!(told.unwrap().contains("cannot be written"));
    run.ticks("plain", 5).await;
    let (_, metrics) = run.get("/metrics").await;
    let lost = metrics.as_str().unwrap().lines().find(|line| line.starts_with("setpoint_decisions_lost_total "));
    assert!(lost.is_some_and(|line| !line.ends_with(" 0")), "{lost:?}");
    // There is room again: what comes now stands by itself, and what is missing is told.
    small.size("64m", &[]);
    status(&mut run, "fine").await;
    run.ticks("plain", 5).await;
    assert!(run.stop().await.success());
    let told = Setpoint::output(&scratch, ["replay", "past", "--json"]).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["differences"], serde_json::json!([]), "{told}");
    assert!(0 < told["gaps"]["lost"].as_u64().unwrap(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_told_in_words() {
    let scratch = Scratch::new();
    scratch.policy(
        "queue",
        r#"return {
  interval = "50ms",
  workload = { command = "exec sleep 600", min = 0, max = 3, grace = "1s" },
  control = { law = "proportional", per_task = 4, cooldown = { up = "1h" }, step = { up = 6 }, stale_after = "10s" },
  metric = function(ctx)
    if ctx.tick == 2 then error("connection refused") end
    if ctx.tick == 3 then return nil end
    return 37, 0.4
  end,
  target = 0,
}"#,
    );
    let mut run = Setpoint::run(&scratch, ["queue.lua", "--state-dir", "state"]);
    run.running("queue", 3).await;
    run.ticks("queue", 4).await;
    let address = run.address().await;
    let asked = Setpoint::output(&scratch, ["explain", "queue", "--server", &address]).await;
    assert!(
        asked.stdout.contains("sample 37 (0.4 s old), target 0, 3 tasks → raw "),
        "{}{}",
        asked.stdout,
        asked.stderr
    );
    assert!(run.stop().await.success());

    let told = Setpoint::output(&scratch, ["explain", "queue", "--last", "100000", "--decision-log", "state"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let words: Vec<&str> = told.stdout.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    insta::assert_snapshot!("explained", words[..3].join("\n"));
    assert!(words.last().unwrap().starts_with("sample 37 (0.4 s old), target 0, 3 tasks → raw +"), "{words:?}");

    let json = Setpoint::output(&scratch, ["explain", "queue", "--decision-log", "state", "--json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    let last = &json["decisions"][0];
    assert_eq!((&last["policy"], &last["sample"]["value"]), (&"queue".into(), &37.0.into()), "{last}");
    assert_eq!(last["text"].as_str().map(str::to_owned), told.stdout.lines().last().map(|line| line[26..].to_owned()));
    let at = Setpoint::output(&scratch, ["replay", "state", "--at", "0s"]).await;
    assert!(at.stdout.contains("\n  made again: identical\n"), "{}{}", at.stdout, at.stderr);

    let early = ["explain", "queue", "--decision-log", "state", "--at", "2001-01-01T00:00:00Z"];
    let early = Setpoint::output(&scratch, early).await;
    assert_eq!(early.code, Some(2), "{}", early.stdout);
    let nobody = Setpoint::output(&scratch, ["explain", "nobody", "--decision-log", "state"]).await;
    assert!(nobody.stderr.contains("it has decisions of: queue"), "{}", nobody.stderr);
}
