//! What the scheduler client makes of masters that fall silent, break off, send elsewhere, refuse or talk nonsense.

use std::time::{Duration, Instant};

use serde_json::json;
use setpoint::mesos::wire::scheduler::{Call, Roles};
use setpoint::mesos::{End, MesosError};

use super::client::Client;
use super::fake::{Answer, FakeMaster, Step, subscribed};
use crate::support::{GENEROUS, wait_until};

/// A stream that stays as it is.
fn steady() -> Answer {
    Answer::Stream("stream-2", vec![subscribed(15.0)])
}

/// A client whose first stream goes through `steps`; tells how that was lost, and that a second one followed.
async fn lost_by(steps: Vec<Step>) -> String {
    let master = FakeMaster::start(vec![Answer::Stream("stream-1", steps), steady()]).await;
    let mut client = Client::connect(&master.address());
    assert_eq!(client.subscribed().await.serial, 1);
    let why = client.lost().await;
    assert_eq!(client.subscribed().await.serial, 2);
    let again = &master.seen("SUBSCRIBE")[1];
    assert_eq!(again.body["framework_id"]["value"], "fake-0001", "the same framework");
    assert_eq!(again.body["subscribe"]["framework_info"]["id"]["value"], "fake-0001");
    client.scheduler.call(&Call::Revive(Roles::default())).await.unwrap();
    assert_eq!(master.seen("REVIVE")[0].stream_id.as_deref(), Some("stream-2"), "calls go under the living stream");
    why
}

#[tokio::test]
async fn five_missed_heartbeats_end_a_stream_and_fewer_do_not() {
    let began = Instant::now();
    let beats = Step::Beat(40, Duration::from_millis(100));
    let why = lost_by(vec![subscribed(0.5), beats]).await;
    assert!(why.contains("nothing heard for 5 heartbeats of 500ms"), "{why}");
    assert!(began.elapsed() > Duration::from_millis(4000 + 2400), "every heartbeat counts: {:?}", began.elapsed());
}

#[tokio::test]
async fn streams_that_break_off_anywhere_are_replaced() {
    // Half a chunk and then silence: only the heartbeats that do not come show that.
    let why = lost_by(vec![subscribed(0.2), Step::HalfChunk]).await;
    assert!(why.contains("heartbeats"), "{why}");
    let why = lost_by(vec![subscribed(15.0), Step::HalfChunk, Step::Cut]).await;
    assert!(why.contains("broke"), "{why}");
    let why = lost_by(vec![subscribed(15.0), Step::Bytes(b"255\n{\"ty".to_vec()), Step::Close]).await;
    assert!(why.contains("in the middle of a record"), "{why}");
    let why = lost_by(vec![subscribed(15.0), Step::Close]).await;
    assert!(why.contains("closed the stream"), "{why}");
    let why = lost_by(vec![subscribed(15.0), Step::Bytes(b"<html>".to_vec())]).await;
    assert!(why.contains("expected the length of a record"), "{why}");
}

#[tokio::test]
async fn events_that_cannot_be_read_or_are_not_known_are_passed_over() {
    let unknown = json!({ "type": "OF_TOMORROW", "of_tomorrow": {} });
    let steps = vec![
        subscribed(15.0),
        Step::Bytes(b"3\n{]}".to_vec()),
        Step::Record(unknown),
        Step::Record(json!({ "type": "RESCIND", "rescind": { "offer_id": { "value": "o" } } })),
    ];
    let master = FakeMaster::start(vec![Answer::Stream("stream-1", steps)]).await;
    let mut client = Client::connect(&master.address());
    client.subscribed().await;
    let heard = |signal| match signal {
        setpoint::mesos::Signal::Event(event) => Some(format!("{event:?}")),
        _ => None,
    };
    assert_eq!(client.wait("an event", heard).await, r#"Unknown("OF_TOMORROW")"#);
    assert!(client.wait("an event", heard).await.contains("Rescind"));
    assert_eq!(client.scheduler.status().borrow().unreadable, 1);
}

#[tokio::test]
async fn every_form_of_redirect_leads_to_the_leader() {
    for form in [
        "//localhost:{}",
        "//127.0.0.1:{}",
        "//localhost:{}/api/v1/scheduler",
        "//127.0.0.1:{}/master/api/v1/scheduler",
        "http://localhost:{}/api/v1/scheduler",
    ] {
        let leader = FakeMaster::start(vec![steady()]).await;
        let location = form.replace("{}", &leader.port().to_string());
        let follower = FakeMaster::start(vec![Answer::Redirect(location)]).await;
        let mut client = Client::connect(&follower.address());
        assert_eq!(client.subscribed().await.master, format!("http://{}/", leader.address()), "{form}");
        assert_eq!(leader.seen("SUBSCRIBE")[0].path, "/api/v1/scheduler", "{form}");
    }
}

#[tokio::test]
async fn what_passes_is_waited_for_and_what_does_not_is_the_end() {
    let busy = FakeMaster::start(vec![Answer::Status(503), Answer::Status(503), Answer::Status(500), steady()]).await;
    let mut client = Client::connect(&busy.address());
    assert!(matches!(client.scheduler.call(&Call::Teardown).await, Err(MesosError::NotSubscribed)));
    client.subscribed().await;
    assert_eq!(busy.seen("SUBSCRIBE").len(), 4);
    // A list goes on to the next one.
    let none = FakeMaster::start(vec![Answer::Redirect("//127.0.0.1:1/".to_owned())]).await;
    let mut client = Client::connect(&format!("{},{}", none.address(), busy.address()));
    client.subscribed().await;
    drop(client);

    for status in [400, 401, 403] {
        let master = FakeMaster::start(vec![Answer::Status(status)]).await;
        let mut client = Client::connect(&master.address());
        let End::Refused { status: told, .. } = client.ended().await else { panic!() };
        assert_eq!((told, master.seen("SUBSCRIBE").len()), (status, 1));
        assert!(matches!(client.scheduler.call(&Call::Teardown).await, Err(MesosError::Ended)));
    }
    let error = json!({ "type": "ERROR", "error": { "message": "Framework has been removed" } });
    let steps = vec![subscribed(15.0), Step::Record(error)];
    let master = FakeMaster::start(vec![Answer::Stream("stream-1", steps)]).await;
    let mut client = Client::connect(&master.address());
    assert_eq!(client.ended().await, End::Error("Framework has been removed".to_owned()));
}

#[tokio::test]
async fn a_client_that_is_stopped_or_forgotten_closes_its_stream() {
    let master = FakeMaster::start(vec![steady()]).await;
    let mut client = Client::connect(&master.address());
    client.subscribed().await;
    client.scheduler.stop();
    assert_eq!(client.ended().await, End::Stopped);
    assert!(matches!(client.scheduler.call(&Call::Teardown).await, Err(MesosError::Ended)));
    let mut client = Client::connect(&master.address());
    client.subscribed().await;
    let mut status = client.scheduler.status();
    drop(client.signals);
    let ended = async || status.borrow_and_update().end.clone();
    assert_eq!(wait_until(GENEROUS, "the client ends", ended).await, End::Stopped);
}
