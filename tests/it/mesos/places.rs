//! Where a task is to run is durable before its launch is sent: the backend on a scripted master, and a host that is killed at
//! the worst moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use setpoint::backend::mesos::{MesosBackend, MesosConfig, Setting, UNREACHABLE_FOR};
use setpoint::backend::{LaunchRequest, TaskBackend as _, TaskUpdate};
use setpoint::core::model::{Exit, TaskState};
use setpoint::core::policy::{Command, Ready, TaskTemplate};
use tokio::sync::mpsc::Receiver;

use super::fake::{Answer, FakeMaster, Step, subscribed};
use super::scripted::{offered, reconciled, with_two_tasks};
use crate::support::{GENEROUS, Scratch, wait_until};

fn config(master: &FakeMaster) -> MesosConfig {
    MesosConfig {
        masters: Some(master.address().parse().unwrap()),
        http: setpoint::mesos::HttpConfig::default(),
        tls: false,
        name: "places".to_owned(),
        user: "nobody".to_owned(),
        principal: None,
        hostname: None,
        webui_url: None,
        checkpoint: true,
        failover_timeout: Duration::from_secs(60),
        state_dir: None,
        setting: Setting {
            role: "*".to_owned(),
            executor: "setpoint".to_owned(),
            executor_uri: None,
            executor_env: BTreeMap::new(),
            gpus: false,
            mark: "places".to_owned(),
            unreachable: UNREACHABLE_FOR,
        },
    }
}

fn request(id: &str) -> LaunchRequest {
    let command = Some(Command::Shell("true".to_owned()));
    LaunchRequest {
        id: id.into(),
        policy: "p".into(),
        template: Arc::new(TaskTemplate { command, ..TaskTemplate::default() }),
        ready: Ready::Running,
        grace: Duration::from_secs(1),
        base: None,
    }
}

async fn told(updates: &mut Receiver<TaskUpdate>, id: &str, state: TaskState) -> TaskUpdate {
    loop {
        let update = tokio::time::timeout(GENEROUS, updates.recv()).await.expect("an update").expect("a backend");
        if (update.id.as_str(), update.state) == (id, state) {
            return update;
        }
    }
}

/// The task that each ACCEPT has launched.
fn launches(master: &FakeMaster) -> Vec<String> {
    let id = |accept: &Value| {
        let infos = &accept["accept"]["operations"][0]["launch"]["task_infos"];
        infos[0]["task_id"]["value"].as_str().unwrap().to_owned()
    };
    master.seen("ACCEPT").iter().map(|call| id(&call.body)).collect()
}

async fn seen(master: &FakeMaster, kind: &str, n: usize) {
    wait_until(GENEROUS, kind, async || (n <= master.seen(kind).len()).then_some(())).await;
}

/// A launch waits for its place, and its KILL for the launch; one whose place is not written down in time, or whose stream ends
/// before, is not sent at all: its task is gone, and its offer is declined where there still is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_launch_is_sent_when_its_place_is_durable_and_not_otherwise() {
    let first = vec![
        subscribed(60.0),
        Step::Reply("REVIVE", offered),
        Step::Reply("KILL", offered),
        Step::Reply("DECLINE", offered),
        Step::Beat(1, Duration::from_secs(1)),
        Step::Close,
    ];
    let next = Answer::Stream("next", vec![subscribed(60.0)]);
    let master = FakeMaster::start(vec![Answer::Stream("first", first), next]).await;
    let backend = MesosBackend::new(config(&master));
    let (sender, mut updates) = tokio::sync::mpsc::channel(64);
    backend.recover(Vec::new(), sender).await.unwrap();

    backend.launch(vec![request("p.1")]).await.unwrap();
    let place = told(&mut updates, "p.1", TaskState::Staging).await;
    assert_eq!(place.placement.unwrap().host.as_deref(), Some("agent.test"));
    backend.kill(vec!["p.1".into()], Duration::ZERO).await.unwrap();
    let placed = async || backend.facts().get("tasks").is_some_and(|tasks| tasks.starts_with("1 placed")).then_some(());
    wait_until(GENEROUS, "its facts show that it is placed", placed).await;
    assert!(master.seen("ACCEPT").is_empty() && master.seen("KILL").is_empty(), "before its place is durable");
    // The next offer comes after the KILL, and nobody writes down the place that it gives.
    backend.launch(vec![request("p.2")]).await.unwrap();
    place.receipt.unwrap().durable();
    seen(&master, "KILL", 1).await;
    assert_eq!(launches(&master), ["p.1"], "the launch, and then the KILL");
    drop(told(&mut updates, "p.2", TaskState::Staging).await.receipt);
    // In the queue before that offer is declined and another one comes; this time the stream ends first.
    backend.launch(vec![request("p.3")]).await.unwrap();
    let gone = told(&mut updates, "p.2", TaskState::Gone).await;
    assert_eq!(gone.exit, Some(Exit::Unknown), "it has not failed");
    let place = told(&mut updates, "p.3", TaskState::Staging).await;
    seen(&master, "DECLINE", 1).await;
    assert_eq!(told(&mut updates, "p.3", TaskState::Gone).await.exit, Some(Exit::Unknown));
    place.receipt.unwrap().durable();
    seen(&master, "SUBSCRIBE", 2).await;
    backend.shutdown(false).await;
    assert_eq!(launches(&master), ["p.1"], "an offer of a stream that is over launches nothing");
}

/// A host that is killed while the launch is on its way knows, when it is back, where the task runs; masters do not tell that.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_as_it_launches_knows_the_place() {
    let first = vec![subscribed(60.0), Step::Reply("REVIVE", offered)];
    let again = vec![subscribed(60.0), Step::Reply("RECONCILE", reconciled)];
    let master = FakeMaster::start(vec![Answer::Stream("first", first), Answer::Stream("next", again)]).await;
    let scratch = Scratch::new();
    let mut setpoint = with_two_tasks(&scratch, &master);
    seen(&master, "ACCEPT", 1).await;
    setpoint.kill();
    let mut setpoint = with_two_tasks(&scratch, &master);
    setpoint.running("p", 2).await;
    let tasks = setpoint.tasks().await;
    assert!(tasks.iter().all(|task| task["host"] == "agent.test"), "{tasks:?}");
    assert_eq!(master.seen("ACCEPT").len(), 1, "they are the same ones");
    setpoint.kill();
}
