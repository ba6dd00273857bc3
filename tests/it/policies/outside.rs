//! `prometheus` on a genuine Prometheus, and `sqs` on a server that checks keys and signatures.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::*;
use crate::support::{HttpServer, Moto, Prometheus};

/// For what is exported no more.
const BROKEN: u64 = u64::MAX;

/// `eval` of a policy: the error of its sample, or none.
async fn complaint(scratch: &Scratch, policy: &str, sets: &[&str]) -> Option<String> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let arguments = ["eval", policy, "--json"].into_iter().chain(sets);
    let done = Setpoint::output(scratch, arguments).await;
    let shown: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}{}", done.stdout, done.stderr));
    assert_eq!(shown["decision"]["raw"], 0, "{shown}");
    match shown["sample"]["kind"].as_str() {
        Some("error") => Some(shown["sample"].to_string() + &done.stderr),
        Some("missing") => None,
        _ => panic!("a value: {shown}"),
    }
}

#[tokio::test]
async fn prometheus_runs_what_an_expression_asks_for_and_holds_while_there_is_no_answer() {
    let waiting = Arc::new(AtomicU64::new(35));
    let shown = Arc::clone(&waiting);
    let exporter = HttpServer::start(move |_| {
        let n = shown.load(Ordering::SeqCst);
        if n == BROKEN {
            return (500, String::new());
        }
        (200, format!("jobs_waiting{{queue=\"a\"}} {n}\njobs_waiting{{queue=\"b\"}} 0\n"))
    })
    .await;
    let target = exporter.url("").replace("http://", "");
    let Some(mut prometheus) = Prometheus::start_new(&target).await else { return };
    let scratch = Scratch::new();
    let url = format!("url={}", prometheus.url());
    let sets = ["query=sum(jobs_waiting)", "target=10", "min=0", "interval=500ms", "timeout=400ms", "wait=1s", &url];
    let sets = sets.into_iter().flat_map(|set| ["--set", set]);
    let mut setpoint = Setpoint::run(&scratch, std::iter::once("prometheus").chain(sets));
    setpoint.running("prometheus", 4).await;

    // What a server answers to expressions that cannot be.
    let query = |text: &str| format!("query={text}");
    for (expression, told) in [
        ("sum(", Some("parse error")),
        ("jobs_waiting[5m]", Some("instant vector")),
        ("jobs_waiting", Some("expected one series, got 2")),
        ("no_such_metric", None),
    ] {
        let complaint = complaint(&scratch, "prometheus", &["min=0", &url, &query(expression)]).await;
        let as_told = complaint.as_deref().map(|text| told.is_some_and(|told| text.contains(told)));
        assert_eq!(as_told, told.map(|_| true), "{expression}: {complaint:?}");
    }

    let failed = |policy: &Value| policy["sample"]["kind"] == "error";
    waiting.store(0, Ordering::SeqCst);
    prometheus.server.freeze();
    setpoint.policy_until("prometheus", "a server that hangs is a failed sample", failed).await;
    let held = setpoint.ticks("prometheus", 4).await;
    assert_eq!(held["tasks"]["running"], 4, "{held}");
    prometheus.server.kill();
    let held = setpoint.ticks("prometheus", 4).await;
    assert_eq!((&held["tasks"]["running"], failed(&held)), (&4.into(), true), "{held}");
    prometheus.start().await;
    setpoint.running("prometheus", 0).await;
    waiting.store(12, Ordering::SeqCst);
    setpoint.running("prometheus", 2).await;
    // Nothing is scraped any more: the series goes, and the sample with it.
    waiting.store(BROKEN, Ordering::SeqCst);
    let missing = |policy: &Value| policy["sample"]["kind"] == "missing";
    let held = setpoint.policy_until("prometheus", "the series is gone", missing).await;
    assert_eq!(held["tasks"]["running"], 2, "{held}");
    assert!(setpoint.stop().await.success());
}

#[tokio::test]
async fn sqs_runs_consumers_for_a_queue_and_tells_why_it_cannot() {
    let Some(moto) = Moto::start_new().await else { return };
    let (key, secret) = moto.user().await;
    let queue = moto.queue("jobs").await;
    let scratch = Scratch::new();
    scratch.write("id", &key);
    scratch.write("secret", &format!("{secret}\n"));
    scratch.write("wrong-id", "AKIAXXXXXXXXXXXXXXXX");
    scratch.write("wrong-secret", "no such secret at all");
    let names = ["id", "secret", "wrong-id", "wrong-secret"];
    let secrets = names.map(|name| format!("{name} = {{ file = \"{name}\" }}\n")).concat();
    scratch.write("setpoint.toml", &format!("[secrets]\n{secrets}"));
    let url = format!("queue={queue}");
    let base = [&url, "access_key=id", "secret_key=secret", "region=us-east-1"];
    let pace = ["interval=300ms", "wait=1s", "per_task=10"];
    let sets = base.iter().chain(&pace).flat_map(|set| ["--set", set]);
    let mut setpoint = Setpoint::run(&scratch, std::iter::once("sqs").chain(sets));
    let value = |n: f64| move |policy: &Value| policy["sample"]["value"] == n;
    setpoint.policy_until("sqs", "an empty queue is read", value(0.0)).await;

    // Messages, of which some are then in a consumer's hands, and some are done.
    for batch in 0..3 {
        let entries: Vec<Value> =
            (0..8).map(|n| json!({ "Id": format!("m{n}"), "MessageBody": format!("{batch}/{n}") })).collect();
        moto.sqs("SendMessageBatch", &json!({ "QueueUrl": queue, "Entries": entries })).await;
    }
    setpoint.running("sqs", 3).await;
    let ten = json!({ "QueueUrl": queue, "MaxNumberOfMessages": 10, "VisibilityTimeout": 600 });
    let received = moto.sqs("ReceiveMessage", &ten).await["Messages"].as_array().unwrap().clone();
    assert!(!received.is_empty());
    let read = setpoint.ticks("sqs", 3).await;
    assert_eq!(read["sample"]["value"], 24.0, "what a consumer has in hand counts: {read}");
    let waiting = ["in_flight=false"];
    let sets = base.iter().chain(&waiting).flat_map(|set| ["--set", set]);
    let done = Setpoint::output(&scratch, ["eval", "sqs", "--json"].into_iter().chain(sets)).await;
    let shown: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(shown["sample"]["value"], 24.0 - received.len() as f64, "{shown}");

    let with = |others: &[&'static str]| {
        let key = |set: &str| set.split('=').next().map(str::to_owned);
        let kept = base.iter().filter(|set| others.iter().all(|other| key(other) != key(set)));
        kept.chain(others).copied().collect::<Vec<&str>>()
    };
    for (sets, told) in [
        (["access_key=wrong-id", "secret_key=secret"], "got 403: InvalidClientTokenId"),
        (["access_key=id", "secret_key=wrong-secret"], "got 403: SignatureDoesNotMatch"),
        (["access_key=id", "secret_key=nobody"], "the host has no secret"),
        (["region=", "secret_key=secret"], "expected the option region"),
    ] {
        let complaint = complaint(&scratch, "sqs", &with(&sets)).await.unwrap();
        assert!(complaint.contains(told), "{sets:?}: {complaint}");
        assert!(!complaint.contains(&secret) && !complaint.contains("no such secret at all"), "{complaint}");
    }
    let unknown = format!("queue={queue}-of-nobody");
    let complaint = complaint(&scratch, "sqs", &[&[unknown.as_str()], &base[1..]].concat()).await.unwrap();
    assert!(complaint.contains("got 400: QueueDoesNotExist: \\\"The specified queue does not exist"), "{complaint}");

    // While it refuses and while it is away nobody goes, though the queue is empty.
    moto.sqs("PurgeQueue", &json!({ "QueueUrl": queue })).await;
    let failed = |policy: &Value| policy["sample"]["kind"] == "error";
    scratch.replace("secret", "rotated, and not known there");
    setpoint.policy_until("sqs", "the secret that was replaced is used at once", failed).await;
    let held = setpoint.ticks("sqs", 5).await;
    assert_eq!((&held["tasks"]["desired"], failed(&held)), (&3.into(), true), "{held}");
    scratch.replace("secret", &secret);
    setpoint.running("sqs", 0).await;
    assert!(setpoint.stop().await.success());
    let log = setpoint.stderr();
    assert!(!log.contains(&secret) && log.contains("SignatureDoesNotMatch"), "{log}");
}
