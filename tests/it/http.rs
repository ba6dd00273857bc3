//! The HTTP API over real sockets, against an engine that the tests play.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod events;
pub(crate) mod fake;
mod gate;
mod metrics;
mod readers;
mod services;

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use setpoint::core::model::{PolicyName, Sample};
use setpoint::http::bind;
use setpoint::runtime::record::Ended;
use setpoint::runtime::view::{Command, Health};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::fake::{Fake, script_error, task};

/// Long enough for a machine that has a lot else to do.
const GENEROUS: Duration = Duration::from_secs(60);

/// A client that speaks to the test's own server only.
pub(crate) fn client() -> Client {
    #[cfg(feature = "tls")]
    {
        // An error says that another test was first.
        let _already = rustls::crypto::ring::default_provider().install_default();
    }
    Client::builder().no_proxy().build().unwrap()
}

async fn get(fake: &Fake, path: &str) -> (StatusCode, Value) {
    answer(client().get(fake.url(path))).await
}

async fn send(fake: &Fake, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    answer(client().request(method, fake.url(path)).json(body)).await
}

async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Sends bytes as they are and reads the whole answer.
async fn raw(fake: &Fake, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(fake.addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    // A server that refuses a request early may reset the connection behind its answer.
    let _reset = tokio::time::timeout(GENEROUS, stream.read_to_end(&mut bytes)).await.expect("an answer");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn shapes_are_those_of_the_contract() {
    let fake = Fake::start(&["queue", "redis/mail"]).await;
    fake.publisher.set_tasks([task("queue", 1), task("redis/mail", 2)]);

    let (status, list) = get(&fake, "/v1/policies").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(list["policies"].as_array().unwrap().len(), 2);

    let (_, one) = get(&fake, "/v1/policies/redis/mail").await;
    assert_eq!(one["name"], "redis/mail");
    assert_eq!(one["generation"], 3);
    assert_eq!(one["script"]["path"], "queue.lua");
    assert_eq!(one["script"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(one["script"]["error"], Value::Null);
    assert_eq!(one["ticks"], 812);
    assert_eq!(one["sample"], json!({ "kind": "value", "value": 7.0, "age_seconds": 0.0 }));
    assert_eq!(one["setpoint"], 0.0);
    assert_eq!(
        (&one["tasks"]["running"], &one["tasks"]["in_flight"], &one["tasks"]["killing"]),
        (&json!(4), &json!(1), &json!(0))
    );
    assert_eq!((&one["decision"]["raw"], &one["decision"]["adjustment"]), (&json!(2), &json!(1)));
    assert_eq!(one["decision"]["reasons"][0]["guard"], "step");
    assert_eq!(one["decision"]["reasons"][0]["text"], "at most 1 in 60s: +2 → +1");
    assert_eq!((&one["paused"], &one["override"]), (&Value::Null, &Value::Null));
    assert_eq!(one["params"]["max"], json!({ "value": 10.0, "default": 40.0 }));
    let time = one["last_tick"].as_str().unwrap();
    assert!(time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z'), "{time}");

    let (_, tasks) = get(&fake, "/v1/tasks?policy=queue").await;
    assert_eq!(
        tasks,
        json!({ "tasks": [{
            "id": "queue.1", "policy": "queue", "backend": "local", "state": "running", "ready": true,
            "host": "localhost", "ports": { "http": 31000 }, "pid": 1001, "container": null, "cpu_percent": 12.5,
            "memory_bytes": 3_145_728, "memory_limit": 33_554_432, "network_received": 4096, "network_sent": 512,
            "block_read": 0, "block_written": null, "pids": 7, "started": "2026-01-01T00:00:00.123Z", "by": "law", "helper": false, "slot": 0,
        }] })
    );
    let (_, all) = get(&fake, "/v1/tasks").await;
    assert_eq!(all["tasks"].as_array().unwrap().len(), 2);
    let (_, rows) = get(&fake, "/v1/tasks?policy=redis").await;
    assert_eq!(rows["tasks"][0]["id"], "redis~mail.2", "a fleet's name stands for its rows");

    fake.change("queue", |policy| {
        policy.sample = Some(Sample::Error { message: "no route".into() });
        policy.script.error = Some(script_error());
        policy.ended = Some(Ended { by: "stop".into(), code: 3, reason: "done".into() });
    });
    let (_, failing) = get(&fake, "/v1/policies/queue").await;
    assert_eq!(failing["sample"]["kind"], "error");
    assert_eq!((&failing["sample"]["value"], &failing["sample"]["message"]), (&Value::Null, &json!("no route")));
    let error = &failing["script"]["error"];
    assert_eq!(
        (&error["line"], &error["column"], &error["hook"], &error["kind"]),
        (&json!(12), &json!(18), &json!("metric"), &json!("runtime"))
    );
    assert!(error["report"].as_str().unwrap().contains("12 |   return redis:llen(\"jobs\")"));
    assert_eq!(failing["ended"], json!({ "by": "stop", "code": 3, "reason": "done" }));
    fake.stop().await;
}

#[tokio::test]
async fn errors_are_problems_that_help() {
    let fake = Fake::start(&["queue", "redis/mail"]).await;
    let post = Method::POST;
    let cases = [
        (Method::GET, "/v1/policies/qeue", json!(null), 404, "there is no policy `qeue`, did you mean `queue`?"),
        (
            Method::GET,
            "/v1/policies/redis",
            json!(null),
            404,
            "`redis` is a fleet; its policies are called like `redis/mail`",
        ),
        (Method::GET, "/v1/policies/nothing/like/it/history", json!(null), 404, "there is no policy"),
        (Method::GET, "/v1/tasks?policy=quee", json!(null), 404, "did you mean `queue`?"),
        (Method::GET, "/v1/tasks?polcy=queue", json!(null), 400, "did you mean `policy`?"),
        (Method::GET, "/v2/policies", json!(null), 404, "there is nothing at `/v2/policies`"),
        (Method::GET, "/v1/policies/queue/pause", json!(null), 405, "only POST"),
        (Method::PUT, "/v1/policies", json!({}), 405, "does not take PUT"),
        (post.clone(), "/v1/policies/queue", json!({}), 405, "POST needs an action"),
        (post.clone(), "/v1/policies/queue/puase", json!({}), 404, "there is no action `puase`, did you mean `pause`?"),
        (post.clone(), "/v1/policies/quee/pause", json!({}), 404, "did you mean `queue`?"),
        (
            post.clone(),
            "/v1/policies/queue/pause",
            json!({ "fro": "5m" }),
            400,
            "unknown key `fro`, did you mean `for`? (this call takes `for`, `reason`)",
        ),
        (post.clone(), "/v1/policies/queue/pause", json!({ "for": 5 }), 400, "`for` must be a duration with a unit"),
        (post.clone(), "/v1/policies/queue/resume", json!({ "for": "5m" }), 400, "takes no keys"),
        (post.clone(), "/v1/policies/queue/override", json!({}), 400, "needs `min`, `max` or both"),
        (
            post.clone(),
            "/v1/policies/queue/override",
            json!({ "min": 5, "max": 4 }),
            400,
            "`min` (5) is more than `max` (4)",
        ),
        (
            post.clone(),
            "/v1/policies/queue/override",
            json!({ "min": 1.5 }),
            400,
            "a whole number of tasks from 0, got `1.5`",
        ),
        (post.clone(), "/v1/policies/queue/override", json!({ "max": 50 }), 422, "needs `force`"),
        (post.clone(), "/v1/policies/queue/adopt", json!({}), 400, "`new` is needed"),
        (post.clone(), "/v1/policies/queue/adopt", json!({ "new": "redis/mail" }), 409, "`queue` is not retired"),
        (post.clone(), "/v1/policies/queue/pause", json!("x".repeat(100_000)), 413, ""),
        (Method::DELETE, "/v1/policies/queue", json!({}), 409, "`queue` is not retired"),
        (Method::DELETE, "/v1/policies/nope/override", json!({}), 404, "there is no policy `nope`"),
        (Method::DELETE, "/v1/tasks/queue.9", json!({}), 404, "there is no task `queue.9`"),
    ];
    for (method, path, body, status, detail) in cases {
        let request = client().request(method.clone(), fake.url(path));
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        let what = format!("{method} {path}");
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{what}");
        if status == 405 {
            assert!(response.headers().contains_key("allow"), "{what}");
        }
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["status"], status, "{what}");
        assert_eq!(problem["type"], "about:blank", "{what}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{what}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{what}: {problem}");
    }
    fake.stop().await;
}

#[tokio::test]
async fn commands_reach_the_engine_as_they_were_meant() {
    let fake = Fake::start(&["queue", "redis/mail", "redis/pause"]).await;
    let name = |text: &str| PolicyName::from(text);
    let cases = [
        (
            "/v1/policies/queue/pause",
            json!({ "for": "15m", "reason": " deploy " }),
            200,
            Command::Pause {
                policy: name("queue"),
                for_: Some(Duration::from_secs(900)),
                reason: Some("deploy".into()),
            },
        ),
        (
            "/v1/policies/redis/pause/pause",
            json!({}),
            200,
            Command::Pause { policy: name("redis/pause"), for_: None, reason: None },
        ),
        ("/v1/policies/queue/resume", json!({}), 200, Command::Resume { policy: name("queue") }),
        (
            "/v1/policies/redis%2Fmail/override",
            json!({ "min": 0, "max": 90, "force": true, "for": "1h30m" }),
            200,
            Command::Override {
                policy: name("redis/mail"),
                min: Some(0),
                max: Some(90),
                for_: Some(Duration::from_secs(5400)),
                force: true,
                reason: None,
            },
        ),
        ("/v1/policies/redis/reload", json!({}), 204, Command::Reload { policy: Some(name("redis")) }),
        ("/v1/reload", json!({}), 204, Command::Reload { policy: None }),
        ("/v1/policies/queue/evaluate", json!({}), 200, Command::Evaluate { policy: name("queue") }),
        (
            "/v1/policies/queue/adopt",
            json!({ "new": "redis/mail" }),
            409,
            Command::Adopt { old: name("queue"), new: name("redis/mail") },
        ),
    ];
    for (path, body, status, expected) in cases {
        let (got, policy) = send(&fake, Method::POST, path, &body).await;
        assert_eq!(got, status, "{path}: {policy}");
        assert_eq!(format!("{:?}", fake.take_commands()), format!("{:?}", [expected]), "{path}");
        if status == 200 {
            assert!(policy["name"].is_string(), "{path} answers with the policy after it");
        }
    }
    let (_, paused) = send(&fake, Method::POST, "/v1/policies/queue/pause", &json!({ "for": "15m" })).await;
    assert!(paused["paused"]["until"].as_str().unwrap().ends_with('Z'));

    fake.publisher.set_tasks([task("queue", 1)]);
    for (path, expected) in [
        ("/v1/policies/redis/mail/override", "ClearOverride"),
        ("/v1/policies/redis/pause", "Remove"),
        ("/v1/tasks/queue.1", "KillTask"),
    ] {
        fake.take_commands();
        // As `curl -X DELETE` sends it: no body and no type.
        client().delete(fake.url(path)).send().await.unwrap();
        assert!(format!("{:?}", fake.take_commands()).contains(expected), "{path}");
    }
    fake.stop().await;
}

#[tokio::test]
async fn binding_says_what_is_wrong_before_anything_starts() {
    let open: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = bind(open, false).await.unwrap_err();
    assert_eq!(refused.exit_code(), 77);
    assert!(refused.to_string().contains("no token is set"), "{refused}");

    let first = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let taken = bind(first.local_addr().unwrap(), false).await.unwrap_err();
    assert_eq!(taken.exit_code(), 69);
    assert!(taken.to_string().contains("in use by another process"), "{taken}");

    let elsewhere = bind("192.0.2.1:0".parse().unwrap(), true).await.unwrap_err();
    assert_eq!(elsewhere.exit_code(), 74);
}

#[tokio::test]
async fn readiness_follows_the_engine() {
    let fake = Fake::start(&["queue"]).await;
    assert_eq!(get(&fake, "/healthz").await.0, StatusCode::OK);
    assert_eq!(
        get(&fake, "/readyz").await,
        (StatusCode::OK, json!({ "status": "ready", "degraded": false, "problems": {}, "backends": {} }))
    );

    let problems = [("queue".to_owned(), "metric failed".to_owned())].into();
    fake.publisher.set_health(Health { ready: true, degraded: true, problems, ..Health::default() });
    let (status, body) = get(&fake, "/readyz").await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("degraded")));
    assert_eq!(body["problems"]["queue"], "metric failed");

    fake.publisher.set_health(Health {
        ready: false,
        degraded: false,
        problems: [("queue".into(), "stalled".into())].into(),
        ..Health::default()
    });
    let (status, body) = get(&fake, "/readyz").await;
    assert_eq!((status, &body["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unready")));
    assert_eq!(get(&fake, "/healthz").await.0, StatusCode::OK, "a watchdog leaves a stalled policy alone");
    fake.stop().await;
}

#[tokio::test]
async fn the_chart_begins_with_what_happened_before() {
    let fake = Fake::start(&["queue"]).await;
    for number in 0..5 {
        fake.tick("queue", |policy| {
            policy.last_tick = Some(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + number));
            policy.sample = Some(if number == 3 { Sample::Missing } else { Sample::value(number as f64) });
        });
    }
    // The recorder runs beside the server: asked again until it has read all five.
    let recorded = async {
        loop {
            let (_, history) = get(&fake, "/v1/policies/queue/history").await;
            if history["points"].as_array().is_some_and(|points| points.len() == 5) {
                return history;
            }
        }
    };
    let history = tokio::time::timeout(GENEROUS, recorded).await.expect("five points");
    let points = history["points"].as_array().unwrap();
    assert_eq!(points[0]["value"], 0.0);
    assert_eq!((&points[3]["kind"], &points[3]["value"]), (&json!("missing"), &Value::Null));
    assert_eq!(
        points[4],
        json!({
            "at": "2026-01-01T00:00:04.000Z", "kind": "value", "value": 4.0, "setpoint": 0.0, "running": 4,
            "in_flight": 1, "acted": 1,
        })
    );
    fake.stop().await;
}

#[tokio::test]
async fn no_request_is_too_strange_for_an_answer() {
    let fake = Fake::start(&["queue"]).await;
    let long = "a/".repeat(4000);
    let names = [
        "%00",
        "%ff%fe",
        "..%2f..%2fetc%2fpasswd",
        "%2f",
        "//",
        "queue/",
        "queue//pause",
        "%F0%9F%94%A5/pause",
        "?policy",
        "queue%",
        "queue/override/override",
        "pause",
        "history",
        long.as_str(),
    ];
    let bodies = [
        "",
        "{",
        "null",
        "[[[[",
        "{\"for\":\"9999999999999999999d\"}",
        "{\"min\":1e400}",
        "\u{0}",
        "{\"reason\":\"\u{202e}\"}",
    ];
    for name in names {
        for method in ["GET", "POST", "DELETE", "PATCH", "BREW"] {
            for body in bodies {
                let request = format!(
                    "{method} /v1/policies/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let answer = raw(&fake, request.as_bytes()).await;
                let fine = answer.starts_with("HTTP/1.1 2") || answer.starts_with("HTTP/1.1 4");
                assert!(fine, "{method} {name} {body}: {answer}");
            }
        }
    }
    assert_eq!(get(&fake, "/healthz").await.0, StatusCode::OK);
    fake.stop().await;
}
