//! Leaders, agents and ZooKeeper that fail: the scheduler is back under the same framework id, and its tasks run on.

use std::time::{Duration, Instant};

use setpoint::mesos::wire::TaskState;
use setpoint::mesos::wire::scheduler::Call;

use super::client::Client;
use crate::support::{Cluster, ClusterSpec, GENEROUS, wait_until};

/// A cluster whose masters elect in ZooKeeper.
async fn cluster(masters: usize, zookeeper: usize) -> Option<Cluster> {
    Cluster::start_new(ClusterSpec { masters, zookeeper, ..ClusterSpec::default() }).await
}

/// Waits until a client is subscribed with the master that leads; tells since when the fault was over.
async fn back(cluster: &Cluster, client: &mut Client, since: Instant, what: &str) {
    let leader = cluster.wait_for_leader().await;
    let url = format!("http://{}/", cluster.masters[leader].address());
    while client.subscribed().await.master != url {}
    eprintln!("{what}: subscribed with the leader again after {:.2?}", since.elapsed());
}

/// Kills the leader so many times; a client that was given the masters as `zk://` and one that was given a list come back.
async fn leaders_die(masters: usize, kills: usize) {
    let Some(mut cluster) = cluster(masters, 1).await else { return };
    let mut by_zk = Client::connect(&cluster.zk());
    let id = by_zk.subscribed().await.framework_id;
    by_zk.launch("kept").await;
    by_zk.status("kept", TaskState::Running).await;
    let mut by_list = Client::connect(&cluster.list());
    let other_id = by_list.subscribed().await.framework_id;
    for _ in 0..kills {
        let leader = cluster.wait_for_leader().await;
        cluster.masters[leader].server.kill();
        let began = Instant::now();
        back(&cluster, &mut by_zk, began, &format!("leader of {masters} killed, zk://")).await;
        back(&cluster, &mut by_list, began, &format!("leader of {masters} killed, list")).await;
        assert_eq!(by_zk.scheduler.status().borrow().framework_id, Some(id.clone()));
        assert_eq!(by_list.scheduler.status().borrow().framework_id, Some(other_id.clone()));
        cluster.wait_for_agents(1).await;
        by_zk.reconcile("kept").await;
        by_zk.status("kept", TaskState::Running).await;
        cluster.masters[leader].server.start();
    }
    let state = cluster.state().await.unwrap();
    assert_eq!(state["frameworks"].as_array().unwrap().len(), 2, "the same two frameworks");
    by_zk.scheduler.call(&Call::Teardown).await.unwrap();
}

#[tokio::test]
async fn the_leader_of_two_is_killed() {
    leaders_die(2, 2).await;
}

#[tokio::test]
async fn the_leader_of_three_is_killed() {
    leaders_die(3, 2).await;
}

#[tokio::test]
async fn a_node_of_zookeeper_is_killed_and_then_the_master() {
    let Some(mut cluster) = cluster(2, 3).await else { return };
    let mut client = Client::connect(&cluster.zk());
    let id = client.subscribed().await.framework_id;
    let zookeeper = cluster.zookeeper.as_mut().unwrap();
    let node = zookeeper.leader().unwrap();
    zookeeper.kill(node);
    let leads = async || cluster.zookeeper.as_ref().unwrap().leader();
    wait_until(GENEROUS, "another node leads the ensemble", leads).await;
    let (_, elected) = cluster.kill_leader().await;
    let began = Instant::now();
    back(&cluster, &mut client, began, &format!("node of ZooKeeper and then leader killed (elected in {elected:.2?})"))
        .await;
    assert_eq!(client.scheduler.status().borrow().framework_id, Some(id.clone()));
    // One that comes new finds its way past the node that is down.
    let mut late = Client::connect(&cluster.zk());
    assert_ne!(late.subscribed().await.framework_id, id);
    cluster.zookeeper.as_mut().unwrap().start(node);
    cluster.zookeeper.as_ref().unwrap().wait();
}

#[tokio::test]
async fn all_of_zookeeper_is_down_for_ten_seconds() {
    let Some(mut cluster) = cluster(2, 1).await else { return };
    let mut client = Client::connect(&cluster.zk());
    let id = client.subscribed().await.framework_id;
    client.launch("kept").await;
    client.status("kept", TaskState::Running).await;
    cluster.zookeeper.as_mut().unwrap().kill(0);
    // The length of the outage, in which sessions end and masters step down.
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.zookeeper.as_mut().unwrap().start(0);
    cluster.zookeeper.as_ref().unwrap().wait();
    let began = Instant::now();
    let leader = cluster.supervise_until_led().await;
    let url = format!("http://{}/", cluster.masters[leader].address());
    let mut status = client.scheduler.status();
    let subscribed = async || {
        let status = status.borrow_and_update();
        (status.subscribed.is_some() && status.master.as_ref() == Some(&url)).then_some(())
    };
    wait_until(GENEROUS, "the client is back", subscribed).await;
    eprintln!("ZooKeeper down for 10 s: subscribed with the leader again after {:.2?}", began.elapsed());
    assert_eq!(client.scheduler.status().borrow().framework_id, Some(id));
    cluster.wait_for_agents(1).await;
    client.reconcile("kept").await;
    client.status("kept", TaskState::Running).await;
    client.scheduler.call(&Call::Teardown).await.unwrap();
}

#[tokio::test]
async fn an_agent_is_killed_and_its_task_runs_on() {
    let Some(mut cluster) = Cluster::start_new(ClusterSpec { zookeeper: 1, ..ClusterSpec::default() }).await else {
        return;
    };
    let mut client = Client::connect(&cluster.zk());
    client.subscribed().await;
    client.launch("kept").await;
    client.status("kept", TaskState::Running).await;
    cluster.agents[0].server.kill();
    cluster.wait_for_agents(0).await;
    cluster.agents[0].server.start();
    cluster.wait_for_agents(1).await;
    client.reconcile("kept").await;
    client.status("kept", TaskState::Running).await;
    client.scheduler.call(&Call::Teardown).await.unwrap();
}
