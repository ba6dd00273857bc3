//! The event stream.

use std::sync::Arc;

use serde_json::{Value, json};
use setpoint::core::model::{PolicyName, Sample};
use setpoint::runtime::view::StreamEvent;

use super::fake::{Fake, policy, script_error, task};
use super::{GENEROUS, client};

/// Reads a stream of events until it has the next one of interest.
pub(super) struct Events {
    response: reqwest::Response,
    buffer: String,
}

impl Events {
    pub(super) async fn open(fake: &Fake, path: &str) -> Self {
        let response = client().get(fake.url(path)).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Self { response, buffer: String::new() };
        // The greeting: from here on nothing is missed.
        assert!(events.block().await.unwrap().starts_with(':'));
        events
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(block);
            }
            let chunk = tokio::time::timeout(GENEROUS, self.response.chunk()).await.expect("an event").unwrap()?;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Name and data of the next event; none at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block().await?;
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(|text| text.trim().to_owned()));
            if let Some(name) = field("event:") {
                return Some((name, serde_json::from_str(&field("data:").unwrap()).unwrap()));
            }
        }
    }
}

#[tokio::test]
async fn events_tell_everything_in_order() {
    let fake = Fake::start(&["queue", "redis/mail"]).await;
    let mut all = Events::open(&fake, "/v1/events").await;
    let mut mail = Events::open(&fake, "/v1/events?policy=redis").await;

    fake.tick("queue", |policy| policy.sample = Some(Sample::value(0.0)));
    let snapshot = Arc::new(policy("redis/mail"));
    fake.publisher.emit(StreamEvent::Decision(Arc::clone(&snapshot)));
    fake.publisher.emit(StreamEvent::Task(Box::new(task("queue", 1)), Some("exit code 1".into())));
    let (policy, error) = (PolicyName::from("queue"), script_error());
    fake.publisher.emit(StreamEvent::Reload { policy: policy.clone(), generation: 4, error: None });
    fake.publisher.emit(StreamEvent::Error { policy, error, held: "held at 4 tasks".into() });
    fake.publisher.emit(StreamEvent::Policy(snapshot));

    let mut names = Vec::new();
    for _ in 0..6 {
        let (name, data) = all.next().await.unwrap();
        match name.as_str() {
            "tick" => assert_eq!((&data["name"], &data["sample"]["value"]), (&json!("queue"), &json!(0.0))),
            "task" => assert_eq!((&data["id"], &data["exit"]), (&json!("queue.1"), &json!("exit code 1"))),
            "reload" => assert_eq!(data, json!({ "policy": "queue", "generation": 4, "error": null })),
            "error" => assert_eq!((&data["held"], &data["error"]["line"]), (&json!("held at 4 tasks"), &json!(12))),
            _ => assert_eq!(data["name"], "redis/mail"),
        }
        names.push(name);
    }
    assert_eq!(names, ["tick", "decision", "task", "reload", "error", "policy"]);
    assert_eq!(mail.next().await.unwrap().0, "decision");
    assert_eq!(mail.next().await.unwrap().0, "policy");

    // Nothing runs between these on a single thread, so the stream falls behind.
    for _ in 0..3000 {
        fake.tick("queue", |_| {});
    }
    let (name, data) = all.next().await.unwrap();
    assert_eq!(name, "lagged");
    assert!(data["missed"].as_u64().unwrap() >= 1000, "{data}");
    assert_eq!(all.next().await.unwrap().0, "tick");

    fake.stop().await;
    while all.next().await.is_some() {}
}
