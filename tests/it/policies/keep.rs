//! `keep` with real tasks that are killed at random.

use super::*;

/// A task that dies is replaced, the others are not touched, and never are there more than are kept.
#[tokio::test]
async fn keep_replaces_tasks_that_are_killed_at_random() {
    const KEPT: usize = 6;
    let scratch = Scratch::new();
    // The mark of a task's own: a file for each that was ever started.
    let command = "command=: >started-$SETPOINT_TASK_ID; exec sleep 600";
    let sets = ["--set", "n=6", "--set", "backoff=100ms", "--set", "backoff_max=400ms", "--set", command];
    let mut setpoint = Setpoint::run(&scratch, ["keep"].into_iter().chain(sets));
    let ticks = Ticks::of(&mut setpoint).await;
    setpoint.running("keep", KEPT as u64).await;
    let running = async |setpoint: &mut Setpoint| -> BTreeMap<String, i32> {
        let tasks = setpoint.tasks().await;
        let running = tasks.iter().filter(|task| task["state"] == "running");
        let row = |task: &Value| Some((task["id"].as_str()?.to_owned(), task["pid"].as_i64()? as i32));
        running.filter_map(row).collect()
    };
    let rounds = setting("SETPOINT_DEATHS", 8);
    let mut deaths = 0;
    for _ in 0..rounds {
        let before = running(&mut setpoint).await;
        assert_eq!(before.len(), KEPT);
        let mut victims: Vec<_> = before.keys().cloned().collect();
        fastrand::shuffle(&mut victims);
        victims.truncate(fastrand::usize(1..=3));
        for victim in &victims {
            scratch.kill(before[victim]).unwrap();
            deaths += 1;
        }
        let after = wait_until(GENEROUS, "all are replaced", async || {
            let now = running(&mut setpoint).await;
            (now.len() == KEPT && victims.iter().all(|victim| !now.contains_key(victim))).then_some(now)
        })
        .await;
        for (id, pid) in before.iter().filter(|(id, _)| !victims.contains(id)) {
            assert_eq!(after.get(id), Some(pid), "who was not killed goes on");
        }
        assert!(scratch.living_tasks().len() <= KEPT, "{:?}", scratch.living_tasks());
    }
    eprintln!("keep: {deaths} tasks killed in {rounds} rounds");
    for tick in ticks.all("keep") {
        let tasks = &tick["tasks"];
        let all = tasks["running"].as_u64().unwrap() + tasks["in_flight"].as_u64().unwrap();
        assert!(all <= KEPT as u64, "more than are kept: {tick}");
    }
    // One that was killed on its first instruction has left no file.
    let started = scratch.list("").iter().filter(|name| name.starts_with("started-")).count();
    assert!((KEPT..=KEPT + deaths).contains(&started), "{started} were started for {deaths} that died");
    assert!(setpoint.stop().await.success());
    assert!(scratch.living_tasks().is_empty());
}
