//! Service discovery over the API, and on the listener with the old list.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::{Value, json};
use setpoint::core::model::TaskState;
use setpoint::http::{HttpConfig, bind, legacy_router, serve};
use setpoint::runtime::view::StreamEvent;
use setpoint::script::TaskView;

use super::events::Events;
use super::fake::{Fake, policy, task};
use super::{client, get};

/// Task `number` of `cache`, on a port of its own.
fn member(number: u32, slot: u32) -> TaskView {
    let mut task = task("cache", number);
    task.placement.ports.insert("http".into(), 31_000 + u16::try_from(number).unwrap());
    task.slot = Some(slot);
    task
}

fn ids(services: &Value) -> Vec<&str> {
    services["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn formats_list_only_tasks_that_can_be_used() {
    let fake = Fake::start(&["cache", "fleet/row", "portless"]).await;
    let mut dying = member(2, 1);
    dying.state = TaskState::Killing;
    fake.publisher.set_tasks([member(1, 0), dying, member(3, 2), task("fleet/row", 9)]);

    let (status, list) = get(&fake, "/v1/services").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        list["services"][0]["tasks"][0],
        json!({
            "id": "cache.1", "slot": 0, "host": "localhost", "ports": { "http": 31001 }, "container": null,
            "started": "2026-01-01T00:00:00.123Z", "cpu_percent": 12.5, "memory_bytes": 3_145_728,
            "memory_percent": 9.375,
        })
    );
    assert_eq!(ids(&list["services"][0]), ["cache.1", "cache.3"]);
    assert_eq!(list["services"].as_array().unwrap().len(), 2, "a policy without ports is no service: {list}");
    let (_, of_fleet) = get(&fake, "/v1/services?policy=fleet").await;
    assert_eq!(of_fleet["services"][0]["policy"], "fleet/row");

    let (_, targets) = get(&fake, "/v1/services?format=prometheus&policy=cache").await;
    assert_eq!(targets[1]["targets"], json!(["localhost:31003"]));
    assert_eq!(targets[1]["labels"]["__meta_setpoint_slot"], "2");

    let (_, mcrouter) = get(&fake, "/v1/services?format=mcrouter&policy=cache").await;
    let servers = json!(["localhost:31001", "localhost:31003", "localhost:31003"]);
    assert_eq!(mcrouter, json!({ "pools": { "cache": { "servers": servers } }, "route": "PoolRoute|cache" }));

    let text = async |path: &str| client().get(fake.url(path)).send().await.unwrap().text().await.unwrap();
    let haproxy = text("/v1/services?format=haproxy").await;
    assert!(haproxy.contains("backend fleet__row\n    server fleet__row-0 localhost:31000"), "{haproxy}");
    let nginx = text("/v1/services?format=nginx&port=other").await;
    assert!(nginx.contains("down;"), "nobody has that port: {nginx}");

    for (path, says) in [
        ("/v1/services?format=xml", "expected one of json, prometheus, mcrouter, haproxy, nginx"),
        ("/v1/services?fromat=json", "did you mean `format`?"),
        ("/v1/services?warm_up=soon", "`warm_up`: "),
    ] {
        let (status, problem) = get(&fake, path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    let (status, _) = get(&fake, "/v1/services?policy=cahce").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn changes_of_who_can_be_used_are_told_and_nothing_else() {
    let fake = Fake::start(&["cache"]).await;
    fake.publisher.set_policy(Arc::new(policy("cache")));
    fake.publisher.set_tasks([member(1, 0)]);
    let mut events = Events::open(&fake, "/v1/services/events").await;
    let (kind, first) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), ids(&first)), ("service", vec!["cache.1"]));

    let tell = |task: TaskView| assert_eq!(fake.publisher.emit(StreamEvent::Task(Box::new(task), None)), 2);
    // Other figures are no news.
    let mut busier = member(1, 0);
    busier.stats.cpu_percent = Some(99.0);
    fake.publisher.set_tasks([busier.clone()]);
    tell(busier);
    fake.publisher.set_tasks([member(1, 0), member(2, 1)]);
    tell(member(2, 1));
    assert_eq!(ids(&events.next().await.unwrap().1), ["cache.1", "cache.2"]);
    let mut gone = member(1, 0);
    gone.state = TaskState::Gone;
    fake.publisher.set_tasks([member(2, 1)]);
    tell(gone);
    let (_, last) = events.next().await.unwrap();
    assert_eq!((ids(&last), &last["tasks"][0]["slot"]), (vec!["cache.2"], &json!(1)));
}

#[tokio::test]
async fn the_old_list_is_on_a_listener_of_its_own_without_a_token() {
    let fake = Fake::start(&["cache"]).await;
    let mut dead = member(2, 1);
    dead.state = TaskState::Gone;
    fake.publisher.set_tasks([member(1, 0), dead]);
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = legacy_router(fake.handle(), addr, HttpConfig::default().hosts);
    let server = tokio::spawn(serve(listener, router, std::future::pending()));
    for path in ["/", "/anything"] {
        let answer = client().get(format!("http://{addr}{path}")).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(
            answer.text().await.unwrap(),
            r#"{"cache.1":{"TaskID":"cache.1","CPU":12.5,"Memory":9.375,"Hostname":"localhost","Port":31001}}"#
        );
    }
    let changing = client().post(format!("http://{addr}/")).json(&json!({})).send().await.unwrap();
    assert_eq!(changing.status(), StatusCode::METHOD_NOT_ALLOWED);
    let rebound = client().get(format!("http://{addr}/")).header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), StatusCode::FORBIDDEN);
    server.abort();
}
