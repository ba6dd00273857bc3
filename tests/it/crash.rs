//! kill -9 at any moment: nothing lost, nothing doubled, no timer reset.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use setpoint::runtime::store::Store;

use crate::support::{GENEROUS, Scratch, Setpoint, setting, wait_until};

const HOLD: &str = r#"return {
  interval = "100ms",
  workload = { command = "exec sleep 600", min = 0, max = 20, grace = "1s" },
  control = { law = "count", n = 20 },
  backoff = { min = "100ms", max = "200ms" },
}"#;

/// Too hot for ever, but allowed one launch an hour.
const COOLED: &str = r#"return {
  interval = "100ms",
  workload = { command = "exec sleep 600", min = 0, max = 10 },
  control = { per_task = 100, cooldown = { up = "1h" } },
  metric = function(ctx) ctx.state.calls = (ctx.state.calls or 0) + 1 return 100 end,
  target = 0,
}"#;

fn of<'a>(tasks: &'a BTreeSet<String>, policy: &str) -> Vec<&'a String> {
    let prefix = format!("{policy}.");
    tasks.iter().filter(|id| id.starts_with(&prefix)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_never_doubles_nor_orphans_a_task_and_resets_no_timer() {
    let kills = setting("SETPOINT_KILLS", 6);
    let scratch = Arc::new(Scratch::new());
    scratch.policy("hold", HOLD);
    scratch.policy("cooled", COOLED);
    let args = ["hold.lua", "cooled.lua", "--state-dir", "state"];

    // Looks at the processes themselves, all the time, whoever knows of them.
    let (most, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (scratch, most, done) = (Arc::clone(&scratch), Arc::clone(&most), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let living = scratch.living_tasks();
                most.fetch_max(of(&living, "hold").len(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };

    let seed = setting("SETPOINT_SEED", 20_261_121);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut setpoint = Setpoint::run(&scratch, args);
    setpoint.running("hold", 20).await;
    setpoint.running("cooled", 1).await;
    let first_cooled: BTreeSet<String> = of(&scratch.living_tasks(), "cooled").into_iter().cloned().collect();
    for round in 1..=kills {
        // Some tasks die, so that the moment may fall into their replacement.
        let processes = scratch.processes();
        for process in processes
            .iter()
            .filter(|process| process.task.as_deref().is_some_and(|id| id.starts_with("hold.")))
            .take(random.usize(0..4))
        {
            scratch.kill(process.pid).ok();
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..900))).await;
        setpoint.kill();
        setpoint = Setpoint::run(&scratch, args);
        if random.bool() {
            continue; // Killed again before anybody looked.
        }
        let policy = setpoint.running("hold", 20).await;
        assert_eq!(policy["tasks"]["killing"], 0, "round {round}");
        let told: BTreeSet<String> =
            setpoint.tasks().await.iter().filter_map(|task| task["id"].as_str().map(str::to_owned)).collect();
        wait_until(GENEROUS, "every living task to be known and every known one to live", async || {
            (scratch.living_tasks() == told).then_some(())
        })
        .await;
    }
    let policy = setpoint.policy("cooled").await.expect("the policy is there");
    assert_eq!(policy["tasks"]["running"], 1, "the cooldown of an hour still runs: {policy}");
    let cooled: BTreeSet<String> = of(&scratch.living_tasks(), "cooled").into_iter().cloned().collect();
    assert_eq!(cooled, first_cooled, "the one task was adopted each time");
    done.store(true, Ordering::Relaxed);
    watcher.join().expect("the watcher did not panic");
    assert!(
        most.load(Ordering::Relaxed) <= 20,
        "at most 20 tasks at any moment, {} were seen",
        most.load(Ordering::Relaxed)
    );

    // The next run without the folder's tasks: `--stop-tasks` leaves nothing behind.
    let before = setpoint.ticks("cooled", 3).await;
    setpoint.stop().await;
    let mut last = Setpoint::run(&scratch, [&args[..], &["--stop-tasks"]].concat());
    last.running("hold", 20).await;
    let after = last.ticks("cooled", 1).await;
    assert!(before["ticks"].as_u64() < after["ticks"].as_u64(), "ticks are counted over restarts: {before} {after}");
    assert!(last.stop().await.success());
    assert_eq!(scratch.living_tasks(), BTreeSet::new());
}

/// Launches three tasks, one and a half seconds apart, and counts ticks and launches in `ctx.state`.
const COUNTED: &str = r#"return {
  interval = "50ms",
  workload = { command = "exec sleep 600", max = 3, grace = "1s" },
  metric = function(ctx) ctx.state.ticks = ctx.tick return 1 end,
  target = 0,
  decide = function(ctx) return { desired = math.min(3, math.floor(ctx.tick / 30)) } end,
  cooler = function(n, ctx)
    ctx.state.launched = (ctx.state.launched or 0) + n
    ctx.workload:launch(n)
  end,
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_remembers_is_written_on_change_at_most_once_a_second_and_with_each_intent() {
    let scratch = Scratch::new();
    scratch.policy("counted", COUNTED);
    let (began, folder) = (Instant::now(), scratch.path("state"));
    let mut run = Setpoint::run(&scratch, ["counted.lua", "--state-dir", "state"]);
    let (mut last, mut written, mut after) = (String::new(), 0, 0);
    while after < 4 {
        assert!(began.elapsed() < GENEROUS, "written {written} times, {after} of them after the last launch: {last}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Ok(stored) = Store::open_read_only(&folder) else { continue };
        let record = stored.policies.values().find(|record| record.script_state.is_some());
        let Some(state) = record.and_then(|record| record.script_state.clone()) else { continue };
        let counted: serde_json::Value = serde_json::from_str(&state).unwrap();
        let launched = counted["launched"].as_u64().unwrap_or_default();
        // A launch that is in the store has with it what the policy made of it.
        assert_eq!(launched, stored.tasks.len() as u64, "{state}");
        if state != last {
            written += 1;
            after += u64::from(launched == 3);
            last = state;
        }
    }
    // Twenty ticks a second, each with another state.
    let most = began.elapsed().as_secs() + 2 + 3;
    assert!(written <= most, "written {written} times within {:?}, three launches among them", began.elapsed());
    assert!(run.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_on_the_same_folder_is_refused_with_the_holders_pid() {
    let scratch = Scratch::new();
    scratch.policy("hold", HOLD);
    let mut first = Setpoint::run(&scratch, ["hold.lua", "--state-dir", "state"]);
    first.running("hold", 20).await;
    let second = Setpoint::output(&scratch, ["run", "hold.lua", "--state-dir", "state", "--no-listen"]).await;
    assert_eq!(second.code, Some(69), "{}", second.stderr);
    assert!(second.stderr.contains(&first.pid().to_string()), "{}", second.stderr);
    assert_eq!(first.policy("hold").await.expect("it goes on")["tasks"]["running"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_bad_file_runs_the_last_good_source_degraded() {
    let scratch = Scratch::new();
    scratch.policy("hold", HOLD);
    let mut setpoint = Setpoint::run(&scratch, ["hold.lua", "--state-dir", "state"]);
    setpoint.running("hold", 20).await;
    setpoint.stop().await;
    scratch.policy("hold", "return { interval = ");
    let mut again = Setpoint::run(&scratch, ["hold.lua", "--state-dir", "state"]);
    let policy = again.running("hold", 20).await;
    assert!(policy["script"]["refused"]["message"].is_string(), "{policy}");
    let (status, ready) = wait_until(GENEROUS, "an answer that says so", async || {
        let answer = again.get("/readyz").await;
        (answer.0 == 200).then_some(answer)
    })
    .await;
    assert_eq!((status, &ready["status"]), (200, &serde_json::json!("degraded")), "{ready}");
    scratch.policy("hold", &HOLD.replace("n = 20", "n = 5"));
    again.running("hold", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_folder_killed_or_stopped_nothing_is_left() {
    let scratch = Scratch::new();
    scratch.policy("hold", HOLD);
    let mut setpoint = Setpoint::run(&scratch, ["hold.lua"]);
    setpoint.running("hold", 20).await;
    setpoint.kill();
    wait_until(GENEROUS, "the tasks of a killed run to end with it", async || {
        scratch.living_tasks().is_empty().then_some(())
    })
    .await;
    let mut setpoint = Setpoint::run(&scratch, ["hold.lua"]);
    setpoint.running("hold", 20).await;
    assert!(setpoint.stop().await.success());
    assert_eq!(scratch.living_tasks(), BTreeSet::new());
}
