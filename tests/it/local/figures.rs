//! Figures and limits.

use super::*;

/// CPU time in seconds and memory in bytes of a process group, as `/proc` has them.
fn figures(group: u32) -> (f64, u64) {
    let members = pids().map(stat).filter(|stat| stat.pgrp == group.cast_signed());
    let (ticks, pages) = members.fold((0, 0), |sum, stat| (sum.0 + stat.ticks, sum.1 + stat.rss_pages));
    let second = rustix::param::clock_ticks_per_second();
    (ticks as f64 / second as f64, pages * rustix::param::page_size() as u64)
}

#[tokio::test]
async fn stats_are_what_proc_says() {
    let mut fixture = Fixture::new("stats", LocalConfig::default()).await;
    // The leader waits; what it has started works.
    fixture.launch("busy", shell("(while :; do :; done) & wait")).await;
    fixture.launch("idle", sleeper()).await;
    fixture.launch("over", shell("exit 0")).await;
    let busy = fixture.running("busy").await.pid.unwrap();
    let idle = fixture.running("idle").await.pid.unwrap();
    fixture.gone("over").await;
    let ids = || ["busy", "idle", "over", "never"].map(TaskId::from).to_vec();
    let backend = Arc::clone(&fixture.backend);
    // The backend reads at some moment between these two readings of ours.
    let sample = async || {
        let before = (Instant::now(), figures(busy).0);
        let stats = backend.stats(ids()).await.unwrap();
        (before, stats, (figures(busy).0, Instant::now()))
    };
    let (before_1, first, after_1) = sample().await;
    assert_eq!(first.keys().map(TaskId::as_str).collect::<Vec<_>>(), ["busy", "idle"]);
    assert!(first.values().all(|stats| stats.cpu_percent.is_none()));
    eventually("it has worked", || after_1.0 + 0.4 <= figures(busy).0).await;
    let (before_2, second, after_2) = sample().await;
    let percent = second[&TaskId::from("busy")].cpu_percent.unwrap();
    let least = 100.0 * (before_2.1 - after_1.0) / (after_2.1 - before_1.0).as_secs_f64();
    let most = 100.0 * (after_2.0 - before_1.1) / (before_2.0 - after_1.1).as_secs_f64();
    assert!(least - 1e-6 <= percent && percent <= most + 1e-6 && 0.0 < percent, "{least} ≤ {percent} ≤ {most}");
    let idle_stats = second[&TaskId::from("idle")];
    assert_eq!(idle_stats.cpu_percent, Some(0.0));
    assert_eq!(idle_stats.memory_bytes, Some(figures(idle).1));
    assert!(0 < figures(idle).1);
}

/// The folder of a task's control group in one hierarchy, if it has one of ours.
fn control_group(pid: u32, id: &str, file: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.starts_with("cgroup")).filter_map(|line| line.split(' ').nth(1));
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).filter(|path| path.ends_with(id));
    let all = paths.flat_map(|path| mounts.clone().map(move |mount| PathBuf::from(format!("{mount}{path}"))));
    all.into_iter().find(|folder| folder.join(file).exists())
}

#[tokio::test]
async fn limits_hold_where_control_groups_may_be_made() {
    let mut fixture = Fixture::new("limits", LocalConfig::default()).await;
    let id = format!("limited-{}", std::process::id());
    let limited = |template| TaskTemplate { cpus: Some(0.5), memory: Some(32 << 20), ..template };
    fixture.launch(&id, limited(sleeper())).await;
    let pid = fixture.running(&id).await.pid.unwrap();
    let quota = |file| control_group(pid, &id, file).map(|folder| fs::read_to_string(folder.join(file)).unwrap());
    let Some(quota) = quota("cpu.cfs_quota_us").or_else(|| quota("cpu.max")) else {
        eprintln!("skipped: no control group may be made here");
        return;
    };
    assert_eq!(quota.split_whitespace().next(), Some("50000"));
    let folder = control_group(pid, &id, "cgroup.procs").unwrap();
    fixture.kill(&id, LONG).await;
    assert_eq!(fixture.gone(&id).await, Exit::Signal { signal: 15 });
    assert!(!folder.exists(), "{} is still there", folder.display());

    // More than its memory: the kernel ends it, and so it does what a shell has started.
    let hungry = "b = bytearray(256 << 20)";
    fixture.launch("hungry", limited(argv(&["python3", "-c", hungry]))).await;
    fixture.launch("hungry-child", limited(shell(&format!("python3 -c '{hungry}'; exit $?")))).await;
    for id in ["hungry", "hungry-child"] {
        assert_eq!(fixture.gone(id).await, Exit::OutOfMemory, "{id}");
    }
    // An end of the same kind that memory has nothing to do with.
    fixture.launch("killed", limited(shell("kill -9 $$"))).await;
    assert_eq!(fixture.gone("killed").await, Exit::Signal { signal: 9 });
}
