//! Policies on a genuine cluster whose parts fail while they scale: the framework stays the same, no task that runs is lost,
//! none runs twice, and none is left over.
//!
//! Each fault happens once here and `SETPOINT_FAULTS` times in `tests/campaign mesos`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::backend::{agree, on_master, policy, run_with, sleepers};
use crate::support::{Cluster, ClusterSpec, Docker, GENEROUS, LABEL, Scratch, Setpoint, setting, wait_until};

/// What the rounds of one test go on with.
struct Scene {
    // In the order in which they end: what setpoint has logged is in the scratch folder.
    setpoint: Setpoint,
    cluster: Cluster,
    scratch: Scratch,
    /// For how long the tasks sleep: what tells them from those of other tests.
    seconds: u32,
    running: u32,
}

impl Scene {
    async fn start(cluster: Cluster, masters: &str, seconds: u32, running: u32) -> Self {
        let scratch = Scratch::new();
        let seconds = seconds + std::process::id();
        scratch.policy("p", &policy(running, &format!("exec sleep {seconds}")));
        let setpoint = run_with(&scratch, masters, "st");
        let mut scene = Self { setpoint, cluster, scratch, seconds, running };
        scene.agreed().await;
        scene
    }

    /// Waits until master and engine name the same tasks, as many as are wanted, and as many processes run.
    async fn agreed(&mut self) -> BTreeSet<String> {
        let (n, seconds) = (self.running as usize, self.seconds);
        let tasks = agree(&self.cluster, &mut self.setpoint, n).await;
        wait_until(GENEROUS, "as many processes", async || (sleepers(seconds) == n).then_some(())).await;
        tasks
    }

    /// Asks for so many, and comes back somewhere in the middle of it: at the first change.
    async fn towards(&mut self, n: u32) {
        let before = on_master(&self.cluster).await.map_or(0, |(all, _, _)| all.len());
        self.running = n;
        self.scratch.replace("p.lua", &policy(n, &format!("exec sleep {}", self.seconds)));
        wait_until(GENEROUS, "the first change", async || {
            let (all, _, _) = on_master(&self.cluster).await?;
            (all.len() != before).then_some(())
        })
        .await;
    }

    async fn over(mut self) {
        self.towards(0).await;
        self.agreed().await;
        assert!(self.setpoint.stop().await.success());
    }
}

async fn cluster(masters: usize, zookeeper: usize, agents: usize) -> Option<Cluster> {
    Cluster::start_new(ClusterSpec { masters, agents, zookeeper, ..ClusterSpec::default() }).await
}

/// Up, then down, and so on.
const fn next(running: u32) -> u32 {
    if running < 12 { 12 } else { 6 }
}

fn kept(before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let (fewer, more) = if before.len() < after.len() { (before, after) } else { (after, before) };
    assert!(fewer.is_subset(more), "tasks of before still run, and no others: {before:?} → {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_killed_and_zookeeper_is_away_for_ten_seconds() {
    for by_zk in [true, false] {
        let Some(cluster) = cluster(2, 1, 2).await else { return };
        let masters = if by_zk { cluster.zk() } else { cluster.list() };
        let mut scene = Scene::start(cluster, &masters, 300_000, 6).await;
        for _ in 0..setting("SETPOINT_FAULTS", 1) {
            let before = scene.agreed().await;
            scene.towards(next(scene.running)).await;
            let (killed, _) = scene.cluster.kill_leader().await;
            let began = Instant::now();
            let after = scene.agreed().await;
            eprintln!("leader killed, zk {by_zk}: in agreement {:.1?} after the next one led", began.elapsed());
            kept(&before, &after);
            scene.cluster.masters[killed].server.start();
            if by_zk {
                let before = after;
                scene.cluster.zookeeper.as_mut().unwrap().kill(0);
                // The length of the outage, in which sessions end and masters step down.
                tokio::time::sleep(Duration::from_secs(10)).await;
                scene.cluster.zookeeper.as_mut().unwrap().start(0);
                scene.cluster.zookeeper.as_ref().unwrap().wait();
                scene.cluster.supervise_until_led().await;
                let began = Instant::now();
                scene.towards(next(scene.running)).await;
                let after = scene.agreed().await;
                eprintln!("ZooKeeper away: in agreement {:.1?} after somebody led", began.elapsed());
                kept(&before, &after);
            }
        }
        scene.over().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_are_killed_and_their_tasks_replaced() {
    let Some(cluster) = cluster(1, 0, 1).await else { return };
    let masters = cluster.list();
    let mut scene = Scene::start(cluster, &masters, 400_000, 4).await;
    for _ in 0..setting("SETPOINT_FAULTS", 1) {
        let before = scene.agreed().await;
        let executors = executors(&scene.cluster);
        assert!(!executors.is_empty(), "the executor is found");
        for executor in executors {
            // One that has ended by itself meanwhile is as good.
            scene.cluster.folder().kill(executor).ok();
        }
        wait_until(GENEROUS, "the tasks of the dead executor are gone", async || {
            let (all, _, _) = on_master(&scene.cluster).await?;
            all.is_disjoint(&before).then_some(())
        })
        .await;
        let after = scene.agreed().await;
        assert!(before.is_disjoint(&after), "a task that ended is not the one that replaces it");
    }
    scene.over().await;
}

/// Nobody is left to end the containers of an executor that was killed: the next one on that machine does.
#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_killed_executor_are_removed() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let Some(cluster) = cluster(1, 0, 1).await else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let label = format!(r#"labels = {{ ["{LABEL}"] = "{}" }},"#, scratch.mark());
    let words = format!(r#"image = "{image}", network = "none", {label} command"#);
    scratch.policy("p", &policy(2, "sleep 1000").replacen("command", &words, 1));
    let mut setpoint = run_with(&scratch, &cluster.list(), "st");
    let before = agree(&cluster, &mut setpoint, 2).await;
    let old = docker.of_test(&scratch);
    assert_eq!(old.len(), 2, "a container for each of {before:?}");
    for executor in executors(&cluster) {
        cluster.folder().kill(executor).ok();
    }
    wait_until(GENEROUS, "other tasks, and their containers alone", async || {
        let now = docker.of_test(&scratch);
        let (_, running, _) = on_master(&cluster).await?;
        let replaced = running.len() == 2 && running.is_disjoint(&before);
        (replaced && now.len() == 2 && now.iter().all(|id| !old.contains(id))).then_some(())
    })
    .await;
    scratch.replace("p.lua", &policy(0, "sleep 1000").replacen("command", &words, 1));
    agree(&cluster, &mut setpoint, 0).await;
    wait_until(GENEROUS, "no container is left", async || docker.of_test(&scratch).is_empty().then_some(())).await;
    assert!(setpoint.stop().await.success());
}

/// The executors of ours on a cluster.
fn executors(cluster: &Cluster) -> Vec<i32> {
    let runs = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"/setpoint")) && words.next() == Some(b"executor")
    };
    cluster.folder().processes().iter().map(|process| process.pid).filter(|pid| runs(*pid)).collect()
}

/// A second host under the same framework id: the first one ends with 69 and touches nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_scheduler_takes_the_framework_over() {
    let Some(cluster) = cluster(1, 0, 1).await else { return };
    let masters = cluster.list();
    let mut scene = Scene::start(cluster, &masters, 500_000, 3).await;
    let first = scene.agreed().await;
    scene.scratch.write("st-2/mesos.json", &scene.scratch.read("st/mesos.json"));
    let second = run_with(&scene.scratch, &masters, "st-2");
    let mut replaced = std::mem::replace(&mut scene.setpoint, second);
    assert_eq!(replaced.exit(GENEROUS).await.code(), Some(69), "{}", replaced.stderr());
    assert!(replaced.stderr().contains("another scheduler has taken the framework over"), "{}", replaced.stderr());
    // The second one knows nothing of the first one's tasks: it ends them and has its own.
    let tasks = scene.agreed().await;
    assert!(tasks.is_disjoint(&first));
    scene.over().await;
}
