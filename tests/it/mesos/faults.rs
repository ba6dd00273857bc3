//! Hosts on a genuine cluster whose parts fail while they scale: the framework stays the same, no task that runs is lost, none
//! runs twice, none is left over, and the host is in control again in time.
//!
//! Each fault happens once here and `SETPOINT_FAULTS` times in `tests/campaign mesos`, which also says within how many
//! seconds of its end a host must be in control (`SETPOINT_BACK_SECS`). A fault of masters or of ZooKeeper ends when a
//! master leads again, one of an agent when it is registered again, or given up by the master for good.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use setpoint::mesos::wire::scheduler::Call;

use super::backend::{agree, on_master, policy, run_with};
use super::client::Client;
use super::proxy::Proxy;
use super::scene::{Fault, Host, Place, Scene, now};
use crate::support::{Cluster, ClusterSpec, Docker, GENEROUS, LABEL, Scratch, setting, wait_until};

fn times() -> u64 {
    setting("SETPOINT_FAULTS", 1)
}

async fn cluster(masters: usize, zookeeper: usize, agents: usize) -> Option<Cluster> {
    Cluster::start_new(ClusterSpec { masters, agents, zookeeper, ..ClusterSpec::default() }).await
}

/// When the master that leads was elected.
async fn elected(cluster: &Cluster) -> f64 {
    let time = async || cluster.state().await?["elected_time"].as_f64();
    wait_until(GENEROUS, "a master leads", time).await
}

async fn leader_is_killed(scene: &mut Scene) -> Fault {
    scene.cluster.kill_leader().await;
    Fault::of_streams(elected(&scene.cluster).await)
}

/// A second one under the same ZooKeeper, so that the next leader can die, too.
fn masters_are_whole_again(cluster: &mut Cluster) {
    cluster.masters.iter_mut().filter(|master| !master.server.is_up()).for_each(|master| master.server.start());
}

/// One host finds the masters in ZooKeeper, the other one in a list.
fn both_forms(cluster: &Cluster) -> [String; 2] {
    [cluster.zk(), cluster.list()]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_two_masters_is_killed() {
    let Some(cluster) = cluster(2, 1, 2).await else { return };
    let masters = both_forms(&cluster);
    let mut scene = Scene::start(cluster, &masters).await;
    for _ in 0..times() {
        scene.round("leader of two killed", leader_is_killed).await;
        masters_are_whole_again(&mut scene.cluster);
    }
    scene.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_three_masters_and_zookeeper_are_killed() {
    let Some(cluster) = cluster(3, 3, 2).await else { return };
    let masters = both_forms(&cluster);
    let mut scene = Scene::start(cluster, &masters).await;
    for _ in 0..times() {
        scene.round("leader of three killed", leader_is_killed).await;
        masters_are_whole_again(&mut scene.cluster);
        let mut down = 0;
        scene
            .round("node of ZooKeeper killed", async |scene| {
                let zookeeper = scene.cluster.zookeeper.as_mut().unwrap();
                down = fastrand::usize(..zookeeper.len());
                zookeeper.kill(down);
                Fault::unnoticed(now())
            })
            .await;
        // One that comes new finds its way past the node that is down.
        let mut late = Client::connect(&scene.cluster.zk());
        late.subscribed().await;
        late.scheduler.call(&Call::Teardown).await.unwrap();
        drop(late);
        let zookeeper = scene.cluster.zookeeper.as_mut().unwrap();
        zookeeper.start(down);
        zookeeper.wait();
        scene.round("ZooKeeper away for 10 s", zookeeper_is_away).await;
    }
    scene.over().await;
}

async fn zookeeper_is_away(scene: &mut Scene) -> Fault {
    let zookeeper = scene.cluster.zookeeper.as_mut().unwrap();
    (0..zookeeper.len()).for_each(|node| zookeeper.kill(node));
    // The length of the outage, in which sessions end and masters step down.
    tokio::time::sleep(Duration::from_secs(10)).await;
    (0..zookeeper.len()).for_each(|node| zookeeper.start(node));
    zookeeper.wait();
    let serves = now();
    scene.cluster.supervise_until_led().await;
    Fault::of_streams(elected(&scene.cluster).await.max(serves))
}

#[tokio::test(flavor = "multi_thread")]
async fn schedulers_agents_executors_and_connections_die() {
    let Some(cluster) = cluster(1, 0, 3).await else { return };
    let proxy = Proxy::start(cluster.list(), None).await;
    let mut scene = Scene::start(cluster, std::slice::from_ref(&proxy.address)).await;
    for _ in 0..times() {
        scene.round("connections cut in mid-record", async |_| connections_are_cut(&proxy).await).await;
        scene.round("scheduler killed", scheduler_is_killed).await;
        scene.round("agent killed and restarted", agent_is_restarted).await;
        scene.round("executor killed", executor_is_killed).await;
    }
    scene.over().await;
}

/// The stream breaks in the middle of a record, and the answers to a few calls never come.
async fn connections_are_cut(proxy: &Proxy) -> Fault {
    proxy.cut(fastrand::u32(..3));
    wait_until(GENEROUS, "the stream has been cut", async || proxy.has_cut().then_some(())).await;
    Fault::of_streams(proxy.mend())
}

async fn scheduler_is_killed(scene: &mut Scene) -> Fault {
    scene.hosts[0].restart();
    Fault::of_streams(now())
}

async fn agent_is_restarted(scene: &mut Scene) -> Fault {
    let index = fastrand::usize(..scene.cluster.agents.len());
    let id = scene.agent_id(index).await;
    let server = &mut scene.cluster.agents[index].server;
    server.kill();
    // For as long as it takes to start it again, or longer.
    tokio::time::sleep(Duration::from_millis(fastrand::u64(..4000))).await;
    scene.cluster.agents[index].server.start();
    let began = now();
    let again = async || {
        let state = scene.cluster.state().await?;
        let agent = state["slaves"].as_array()?.iter().find(|agent| agent["id"] == id.as_str())?.clone();
        agent["reregistered_time"].as_f64().filter(|at| *at >= began)
    };
    Fault::unnoticed(wait_until(GENEROUS, "the agent is registered again", again).await)
}

async fn executor_is_killed(scene: &mut Scene) -> Fault {
    let executor = scene.place().await.executor;
    let variable = format!("MESOS_EXECUTOR_ID={executor}\0");
    let is_it = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&variable)
    };
    let under_it = |place: &Place| place.executor == executor;
    let killed = async || {
        let tasks = scene.tasks_at(under_it).await;
        let pids: Vec<i32> = executors(&scene.cluster).into_iter().filter(is_it).collect();
        let killed = pids.iter().filter(|pid| scene.cluster.folder().kill(**pid).is_ok()).count();
        (killed > 0).then_some(tasks)
    };
    let hit = wait_until(GENEROUS, "the executor has been started, and killed", killed).await;
    let over = now();
    let gone = async || scene.tasks_at(|_| true).await.is_disjoint(&hit).then_some(());
    wait_until(GENEROUS, "the tasks of the dead executor are gone", gone).await;
    Fault::of_tasks(hit, over)
}

/// Agents that are gone with all that ran on them, and agents that only seem so: their tasks are replaced, and what is
/// still there when one comes back is ended.
#[tokio::test(flavor = "multi_thread")]
async fn agents_are_gone_for_good_or_come_back_late() {
    // The master gives an agent up after so many seconds.
    let spec = ClusterSpec { agents: 3, ..ClusterSpec::default() }
        .master("MESOS_AGENT_PING_TIMEOUT", "1secs")
        .master("MESOS_MAX_AGENT_PING_TIMEOUTS", "4");
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    let masters = cluster.list();
    let mut scene = Scene::start(cluster, &[masters]).await;
    for _ in 0..times() {
        let mut gone = 0;
        scene
            .round("agent gone for good", async |scene| {
                let id;
                (gone, id) = scene.busy_agent().await;
                let hit = scene.tasks_at(|place| place.agent == id).await;
                scene.cluster.agents[gone].destroy();
                given_up(scene, &id, hit).await
            })
            .await;
        // Another machine, with nothing of the old one but its address.
        let agent = &mut scene.cluster.agents[gone];
        agent.renew();
        agent.server.start();
        scene.cluster.wait_for_agents(3).await;
        late_agent(&mut scene).await;
    }
    scene.over().await;
}

/// An agent answers no more, with its tasks running on, and comes back after it has been given up.
async fn late_agent(scene: &mut Scene) {
    let before = scene.agreed().await;
    let (index, id) = scene.busy_agent().await;
    let hit = scene.tasks_at(|place| place.agent == id).await;
    let since = now();
    scene.cluster.agents[index].server.freeze();
    let fault = given_up(scene, &id, hit).await;
    scene.replaced("agent out of reach", &before, since, &fault).await;
    scene.cluster.agents[index].server.thaw();
    scene.cluster.wait_for_agents(3).await;
    scene.agreed().await;
}

/// Waits until the master has given an agent up, and tells when that was.
async fn given_up(scene: &Scene, agent: &str, mut hit: BTreeSet<String>) -> Fault {
    let given_up = async || {
        let state = scene.cluster.state().await?;
        let agents = state["slaves"].as_array()?;
        let known = agents.iter().any(|known| known["id"] == agent);
        (!known).then_some(state)
    };
    let state = wait_until(GENEROUS, "the master has given the agent up", given_up).await;
    let lists = state["frameworks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|framework| framework["unreachable_tasks"].as_array());
    let mut over: f64 = 0.0;
    for task in lists.flatten().filter(|task| task["slave_id"] == agent) {
        hit.extend(task["id"].as_str().map(str::to_owned));
        let times = task["statuses"].as_array().into_iter().flatten();
        over = times.filter_map(|status: &Value| status["timestamp"].as_f64()).fold(over, f64::max);
    }
    Fault::of_tasks(hit, if over > 0.0 { over } else { now() })
}

/// Its watcher ends the containers of an executor that was killed, though nobody is there to launch another one; where the
/// watcher was killed as well, the next executor on that machine does.
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
    for process in watchers(&cluster).into_iter().chain(executors(&cluster)) {
        cluster.folder().kill(process).unwrap();
    }
    wait_until(GENEROUS, "other tasks, and their containers alone", async || {
        let now = docker.of_test(&scratch);
        let (_, running, _) = on_master(&cluster).await?;
        let replaced = running.len() == 2 && running.is_disjoint(&before);
        (replaced && now.len() == 2 && now.iter().all(|id| !old.contains(id))).then_some(())
    })
    .await;
    setpoint.kill();
    assert_eq!((executors(&cluster).len(), watchers(&cluster).len()), (1, 1));
    for executor in executors(&cluster) {
        cluster.folder().kill(executor).unwrap();
    }
    wait_until(GENEROUS, "no container is left", async || docker.of_test(&scratch).is_empty().then_some(())).await;
    assert!(executors(&cluster).is_empty(), "nobody has launched another one");
}

/// The executors of ours on a cluster.
fn executors(cluster: &Cluster) -> Vec<i32> {
    run_by(cluster, false)
}

/// What outlives them.
fn watchers(cluster: &Cluster) -> Vec<i32> {
    run_by(cluster, true)
}

/// Processes of `setpoint executor` on a cluster.
fn run_by(cluster: &Cluster, watch: bool) -> Vec<i32> {
    let is_one = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().is_some_and(|program| program.ends_with(b"/setpoint"));
        program && words.next() == Some(b"executor") && words.any(|word| word == b"--watch") == watch
    };
    cluster.folder().processes().iter().map(|process| process.pid).filter(|pid| is_one(*pid)).collect()
}

/// A second host under the same framework id: the first one ends with 69 and touches nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_scheduler_takes_the_framework_over() {
    let Some(cluster) = cluster(1, 0, 1).await else { return };
    let masters = cluster.list();
    let mut scene = Scene::start(cluster, &[masters]).await;
    let first = scene.agreed().await;
    let host = &mut scene.hosts[0];
    host.scratch.write("st-2/mesos.json", &host.scratch.read("st/mesos.json"));
    let second = Host::spawn(&host.scratch, "st-2");
    let mut replaced = std::mem::replace(&mut host.setpoint, second);
    assert_eq!(replaced.exit(GENEROUS).await.code(), Some(69), "{}", replaced.stderr());
    assert!(replaced.stderr().contains("another scheduler has taken the framework over"), "{}", replaced.stderr());
    // The second one knows nothing of the first one's tasks: it ends them and has its own.
    let tasks = scene.agreed().await;
    assert!(tasks[0].is_disjoint(&first[0]));
    scene.over().await;
}
