//! Hot reload: each line of the contract, on the running command.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{GENEROUS, Scratch, Setpoint, setting, wait_until};

/// A policy that holds `n` tasks, remembers how often it was asked, and says which version it is by its metric.
fn version(metric: u32, n: u32) -> String {
    format!(
        r#"return {{
  interval = "100ms",
  workload = {{ command = "exec sleep 600", effect = "heats", min = {n}, max = {n} }},
  metric = function(ctx)
    ctx.state.calls = (ctx.state.calls or 0) + 1
    return {metric}
  end,
  target = function(ctx) return ctx.state.calls end,
}}"#
    )
}

fn metric(policy: &Value) -> f64 {
    policy["sample"]["value"].as_f64().unwrap_or(f64::NAN)
}

async fn until_metric(setpoint: &mut Setpoint, value: f64) -> Value {
    setpoint
        .policy_until("p", &format!("the metric to be {value}"), |policy| (metric(policy) - value).abs() < 1e-9)
        .await
}

/// Until a refused reload shows.
async fn until_refused(setpoint: &mut Setpoint) -> Value {
    setpoint.policy_until("p", "the refusal to show", |policy| policy["script"]["refused"].is_object()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_file_takes_effect_and_everything_carries_over() {
    let scratch = Scratch::new();
    scratch.policy("p", &version(1, 3));
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    setpoint.running("p", 3).await;
    setpoint.ticks("p", 5).await;
    let before = until_metric(&mut setpoint, 1.0).await;
    let tasks = scratch.living_tasks();

    scratch.replace("p.lua", &version(2, 3));
    let after = until_metric(&mut setpoint, 2.0).await;
    assert!(before["generation"].as_u64() < after["generation"].as_u64());
    assert_ne!(before["script"]["sha256"], after["script"]["sha256"]);
    assert!(before["setpoint"].as_f64() < after["setpoint"].as_f64(), "ctx.state went on counting: {before} {after}");
    assert!(before["ticks"].as_u64() < after["ticks"].as_u64());
    assert_eq!(scratch.living_tasks(), tasks, "the tasks are the same ones");

    scratch.write("p.lua", &version(3, 4));
    until_metric(&mut setpoint, 3.0).await;
    setpoint.running("p", 4).await;
    assert!(tasks.is_subset(&scratch.living_tasks()), "written in place: one task more, the others stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_never_replaces_what_runs_and_that_shows_until_it_is_mended() {
    let scratch = Scratch::new();
    scratch.policy("p", &version(1, 2));
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    setpoint.running("p", 2).await;
    let tasks = scratch.living_tasks();
    let bad = [
        ("syntax", "return { interval = "),
        ("runtime", "error('no such luck')"),
        ("shape", "return { intervall = \"1s\" }"),
        ("cpu", "while true do end"),
        ("memory", "local t = {} while true do t[#t + 1] = (\"x\"):rep(4096) .. #t end"),
    ];
    for (kind, text) in bad {
        let before = setpoint.policy("p").await.expect("the policy is there");
        scratch.replace("p.lua", text);
        let policy = setpoint.policy_until("p", kind, |policy| policy["script"]["refused"]["kind"] == kind).await;
        assert_eq!(policy["generation"], before["generation"], "{kind}");
        setpoint.ticks("p", 3).await;
        until_metric(&mut setpoint, 1.0).await;
        let ready = wait_until(GENEROUS, "readiness to say so", async || {
            let (status, ready) = setpoint.get("/readyz").await;
            (status == 200 && ready["status"] == "degraded").then_some(ready)
        })
        .await;
        assert!(ready.to_string().contains('p'), "{ready}");
    }
    let (_, metrics) = setpoint.get("/metrics").await;
    let differs = r#"setpoint_policy_script_differs{policy="p"} 1"#;
    assert!(metrics.as_str().unwrap_or_default().contains(differs), "{metrics}");
    let status = Setpoint::output(&scratch, ["status", "--server", &setpoint.address().await]).await;
    assert!(status.stdout.contains("differs") || status.stdout.contains("refused"), "{}", status.stdout);

    scratch.replace("p.lua", &version(9, 2));
    let mended = until_metric(&mut setpoint, 9.0).await;
    assert!(mended["script"]["refused"].is_null(), "{mended}");
    wait_until(GENEROUS, "readiness to be whole again", async || {
        let (status, ready) = setpoint.get("/readyz").await;
        (status == 200 && ready["status"] != "degraded").then_some(())
    })
    .await;
    assert_eq!(scratch.living_tasks(), tasks);
}

#[tokio::test(flavor = "multi_thread")]
async fn required_files_are_watched_too() {
    let scratch = Scratch::new();
    let main = version(1, 1)
        .replacen("return {\n", "local lib = require(\"lib.value\")\nreturn {\n", 1)
        .replace("return 1\n", "return lib.value\n");
    scratch.write("lib/value.lua", "return { value = 10 }");
    scratch.policy("p", &main);
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    until_metric(&mut setpoint, 10.0).await;
    scratch.replace("lib/value.lua", "return { value = 20 }");
    until_metric(&mut setpoint, 20.0).await;
    scratch.write("lib/value.lua", "return {");
    until_refused(&mut setpoint).await;
    until_metric(&mut setpoint, 20.0).await;
    scratch.write("lib/value.lua", "return { value = 30 }");
    until_metric(&mut setpoint, 30.0).await;
}

/// A required file is the policy's too from the moment at which it was read, also of a version that does not load.
#[tokio::test(flavor = "multi_thread")]
async fn required_files_that_change_during_the_start_or_mend_a_bad_version_are_noticed() {
    let scratch = Scratch::new();
    let requiring = |module: &str| {
        version(1, 1)
            .replacen("return {\n", &format!("local lib = require(\"{module}\")\nreturn {{\n"), 1)
            .replace("return 1\n", "return lib.value\n")
            .replace("max = 1", "max = lib.max")
    };
    scratch.write("lib/value.lua", "return { value = 10, max = 1 }");
    scratch.policy("p", &requiring("lib.value"));
    // Another policy takes its time to load, and nothing is watched before all have.
    scratch.policy("slow", &format!("local x = 0\nfor i = 1, 5e7 do x = x + i % 7 end\n{}", version(1, 1)));
    scratch.write("setpoint.toml", "[limits]\nload_cpu = \"1m\"\n");
    let mut setpoint = Setpoint::run(&scratch, ["p.lua", "slow.lua"]);
    wait_until(GENEROUS, "the files are being loaded", async || (30 < cpu_ticks(setpoint.pid())).then_some(())).await;
    scratch.replace("lib/value.lua", "return { value = 20, max = 1 }");
    until_metric(&mut setpoint, 20.0).await;

    // Not there yet: its coming is enough.
    scratch.replace("p.lua", &requiring("lib.later"));
    until_refused(&mut setpoint).await;
    scratch.write("lib/later.lua", "return { value = 30, max = 'many' }");
    // There and well in itself, while the policy is not: its next version is enough.
    setpoint
        .policy_until("p", "the new file to be at fault", |policy| {
            policy["script"]["refused"]["kind"] == "shape" && (metric(policy) - 20.0).abs() < 1e-9
        })
        .await;
    scratch.replace("lib/later.lua", "return { value = 40, max = 1 }");
    until_metric(&mut setpoint, 40.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_that_are_swapped_and_changes_without_notification_are_noticed() {
    let scratch = Scratch::new();
    // As a mounted configuration does it: p.lua → ..data/p.lua, ..data → version folder, renamed over.
    scratch.write("conf/v1/p.lua", &version(1, 1));
    scratch.write("conf/v2/p.lua", &version(2, 1));
    symlink("v1", scratch.path("conf/..data")).expect("a symlink");
    symlink("..data/p.lua", scratch.path("conf/p.lua")).expect("a symlink");
    let mut setpoint = Setpoint::run(&scratch, ["conf/p.lua"]);
    until_metric(&mut setpoint, 1.0).await;
    symlink("v2", scratch.path("conf/..new")).expect("a symlink");
    std::fs::rename(scratch.path("conf/..new"), scratch.path("conf/..data")).expect("a rename");
    until_metric(&mut setpoint, 2.0).await;
    // Changed behind the link, in a folder that nobody watches: only the poll can see it.
    scratch.write("conf/v2/p.lua", &version(3, 1));
    until_metric(&mut setpoint, 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_carries_the_state_over_and_one_that_raises_refuses() {
    let scratch = Scratch::new();
    scratch.policy("p", &version(1, 1));
    let mut setpoint = Setpoint::run(&scratch, ["p.lua"]);
    setpoint.ticks("p", 3).await;
    let with = |migrate: &str, metric: u32| {
        version(metric, 1).replacen("return {\n", &format!("return {{\n  migrate = {migrate},\n"), 1)
    };
    scratch.replace("p.lua", &with("function(old) error('cannot take ' .. old.calls) end", 2));
    let refused = until_refused(&mut setpoint).await;
    assert_eq!(refused["script"]["refused"]["hook"], "migrate", "{refused}");
    until_metric(&mut setpoint, 1.0).await;
    scratch.replace("p.lua", &with("function(old) return { calls = old.calls + 100000 } end", 3));
    let policy = until_metric(&mut setpoint, 3.0).await;
    assert!(100_000.0 < policy["setpoint"].as_f64().unwrap_or_default(), "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_and_go_in_a_watched_folder() {
    let scratch = Scratch::new();
    scratch.write("policies/a.lua", &version(1, 1));
    scratch.write("policies/a_test.lua", "this is no policy at all");
    let mut setpoint = Setpoint::run(&scratch, ["policies", "--state-dir", "state"]);
    setpoint.running("a", 1).await;
    scratch.write("policies/p.lua", &version(5, 2));
    until_metric(&mut setpoint, 5.0).await;
    setpoint.running("p", 2).await;
    let tasks = scratch.living_tasks();
    // An editor that deletes and writes again is back before anybody is retired.
    std::fs::remove_file(scratch.path("policies/p.lua")).expect("removed");
    scratch.write("policies/p.lua", &version(6, 2));
    until_metric(&mut setpoint, 6.0).await;
    std::fs::remove_file(scratch.path("policies/p.lua")).expect("removed");
    let retired =
        setpoint.policy_until("p", "the policy to be retired", |policy| policy["ended"]["by"] == "retired").await;
    assert_eq!(retired["tasks"]["running"], 2, "its tasks are kept: {retired}");
    assert_eq!(scratch.living_tasks(), tasks);
    scratch.write("policies/p.lua", &version(7, 2));
    let back = until_metric(&mut setpoint, 7.0).await;
    assert!(back["ended"].is_null(), "{back}");
    assert_eq!(scratch.living_tasks(), tasks, "and taken up again");
}

/// `SETPOINT_FILES_GONE` files (1,000 in the campaign) come to a watched folder and go for good, a wave after the other.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_for_good_leave_nothing_behind() {
    const WAVES: u64 = 5;
    let wave = setting("SETPOINT_FILES_GONE", 150) / WAVES;
    let scratch = Scratch::new();
    scratch.write("policies/stays.lua", &version(1, 1));
    let mut setpoint = Setpoint::run(&scratch, ["policies", "--state-dir", "state"]);
    setpoint.running("stays", 1).await;
    let (mut resident, mut peaks): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    for round in 0..WAVES {
        let file = |n: u64| format!("policies/p{}.lua", round * wave + n);
        for n in 0..wave {
            // One that does not load is known too, and goes like any other.
            let text = if n % 10 == 9 { "return {".to_owned() } else { version(1, 0) };
            scratch.write(&file(n), &text);
        }
        until_known(&mut setpoint, wave + 1, wave - wave / 10 + 1).await;
        peaks.push(resident_kb(setpoint.pid()));
        for n in 0..wave {
            std::fs::remove_file(scratch.path(&file(n))).expect("removed");
        }
        until_known(&mut setpoint, 1, 1).await;
        // What was theirs goes back to the system some seconds after the last of them.
        let enough = resident.first().map(|first| first + first / 5 + 4096);
        resident.push(valley_kb(setpoint.pid(), enough).await);
    }
    setpoint.ticks("stays", 3).await;
    let first = resident[0];
    assert!(
        resident.iter().all(|kb| *kb < first + first / 5 + 4096),
        "resident memory stays flat: {resident:?} kB, {peaks:?} kB at most"
    );
    println!("{} files, resident {resident:?} kB without them, {peaks:?} kB with some", WAVES * wave);
    assert_eq!(setpoint.stop().await.code(), Some(0));
    // Nor does the state folder know them any more, bad as they may come back.
    scratch.write("policies/p0.lua", "return {");
    let bad = Setpoint::output(&scratch, ["run", "policies", "--state-dir", "state", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(bad.code, Some(78), "no text stands in for it: {}", bad.stderr);
}

/// The least memory that a process comes down to: within some seconds, or, where `enough` is known, as soon as it has less.
async fn valley_kb(pid: u32, enough: Option<u64>) -> u64 {
    let (began, mut least) = (Instant::now(), u64::MAX);
    let limit = if enough.is_some() { GENEROUS } else { Duration::from_secs(12) };
    while began.elapsed() < limit && enough.is_none_or(|enough| enough <= least) {
        least = least.min(resident_kb(pid));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    least
}

async fn until_known(setpoint: &mut Setpoint, sources: u64, policies: u64) {
    let expected = format!("setpoint_sources {sources}");
    wait_until(GENEROUS, &format!("{sources} files and {policies} policies"), async || {
        let (_, metrics) = setpoint.get("/metrics").await;
        let known = metrics.as_str().is_some_and(|metrics| metrics.lines().any(|line| line == expected));
        let (_, listed) = setpoint.get("/v1/policies").await;
        let listed = listed["policies"].as_array().map_or(0, Vec::len) as u64;
        (known && listed == policies).then_some(())
    })
    .await;
}

/// `SETPOINT_RELOADS` reloads (1,000 in the campaign) while the policy ticks ten times a second.
#[tokio::test(flavor = "multi_thread")]
async fn many_reloads_under_load_miss_no_tick_and_hold_no_memory() {
    let reloads: u32 = u32::try_from(setting("SETPOINT_RELOADS", 100)).expect("a number of reloads");
    let scratch = Scratch::new();
    scratch.policy("p", &version(0, 2));
    scratch.policy("other", &version(0, 2));
    let mut setpoint = Setpoint::run(&scratch, ["p.lua", "other.lua"]);
    setpoint.running("p", 2).await;
    setpoint.running("other", 2).await;
    let tasks = scratch.living_tasks();
    let mut resident = Vec::new();
    for round in 1..=reloads {
        scratch.replace("p.lua", &version(round, 2));
        until_metric(&mut setpoint, f64::from(round)).await;
        if round % (reloads / 10).max(1) == 0 {
            resident.push(resident_kb(setpoint.pid()));
        }
    }
    let policy = setpoint.policy("p").await.expect("the policy is there");
    let calls = policy["setpoint"].as_f64().unwrap_or_default();
    let ticks = policy["ticks"].as_f64().unwrap_or_default();
    assert!((ticks - calls).abs() <= 1.0, "every tick called the metric once, whichever version: {policy}");
    assert_eq!(scratch.living_tasks(), tasks);
    let (first, last) = (resident[resident.len() / 3], resident[resident.len() - 1]);
    assert!(last < first + first / 5 + 4096, "resident memory stays flat: {resident:?} kB");
    println!("{reloads} reloads, {ticks} ticks, resident {resident:?} kB");
}

/// CPU time that a process has used so far, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}
