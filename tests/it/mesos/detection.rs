//! Who leads according to a genuine ZooKeeper: places without masters, and a folder that not everybody may read.

use serde_json::json;
use setpoint::mesos::Signal;
use zookeeper_client::{Acls, Client as Session, CreateMode};

use super::client::Client;
use super::fake::{Answer, FakeMaster, subscribed};
use crate::support::ZooKeeper;

async fn master() -> FakeMaster {
    FakeMaster::start(vec![Answer::Stream("stream-1", vec![subscribed(15.0)])]).await
}

/// What a master writes of itself.
fn info(master: &FakeMaster) -> Vec<u8> {
    json!({ "address": { "ip": "127.0.0.1", "port": master.port() } }).to_string().into_bytes()
}

/// Why there is no subscription, and that there is none.
async fn failure(client: &mut Client) -> String {
    client
        .wait("a failure", |signal| match signal {
            Signal::Failed(why) => Some(why),
            Signal::Subscribed(_) => panic!("subscribed"),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_place_without_masters_is_told_until_there_is_one() {
    let Some(zookeeper) = ZooKeeper::start_new(1) else { return };
    let hosts = zookeeper.hosts();
    let mut client = Client::connect(&format!("zk://{hosts}/nowhere"));
    let why = failure(&mut client).await;
    assert_eq!(why, format!("ZooKeeper at {hosts} has no masters' folder `/nowhere`"));
    assert_eq!(client.scheduler.status().borrow().failure.as_deref(), Some(&*why));

    let session = Session::connect(&hosts).await.unwrap();
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    session.create("/nowhere", b"", &open).await.unwrap();
    session.create("/nowhere/log_replicas", b"", &open).await.unwrap();
    assert_eq!(failure(&mut client).await, format!("ZooKeeper at {hosts} has no master in `/nowhere`"));

    session.create("/nowhere/json.info_0000000007", b"{}", &open).await.unwrap();
    let why = failure(&mut client).await;
    assert!(why.contains("`/nowhere/json.info_0000000007` is of no use: the leading master's node names no"), "{why}");

    let master = master().await;
    session.create("/nowhere/json.info_0000000003", &info(&master), &open).await.unwrap();
    assert_eq!(client.subscribed().await.master, format!("http://{}/", master.address()));
}

#[tokio::test]
async fn a_folder_for_one_digest_alone_is_read_by_it_alone() {
    let Some(zookeeper) = ZooKeeper::start_new(1) else { return };
    let hosts = zookeeper.hosts();
    let session = Session::connector().with_auth("digest", b"mesos:right").connect(&hosts).await.unwrap();
    let own = CreateMode::Persistent.with_acls(Acls::creator_all());
    let master = master().await;
    session.create("/secret", b"", &own).await.unwrap();
    session.create("/secret/json.info_0000000000", &info(&master), &own).await.unwrap();
    for other in ["mesos:wrong@", "somebody:right@", ""] {
        let mut client = Client::connect(&format!("zk://{other}{hosts}/secret"));
        let why = failure(&mut client).await;
        assert!(why.contains("not authorized") && !why.contains("wrong"), "{other}: {why}");
    }
    assert!(master.seen("SUBSCRIBE").is_empty());
    let mut client = Client::connect(&format!("zk://mesos:right@{hosts}/secret"));
    client.subscribed().await;
}
