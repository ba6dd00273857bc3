//! What the scheduler client, and a host on it, make of masters that fall silent, break off, send elsewhere, refuse or talk nonsense.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use setpoint::mesos::wire::scheduler::{Call, Roles};
use setpoint::mesos::{End, MesosError};

use super::client::Client;
use super::fake::{Answer, FakeMaster, Step, subscribed};
use crate::support::{GENEROUS, Scratch, Setpoint, Ticks, wait_until};

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
    // No clock can tell when five such heartbeats are missing.
    let why = lost_by(vec![subscribed(1e19), Step::Beat(2, Duration::from_millis(10)), Step::Close]).await;
    assert!(why.contains("closed the stream"), "{why}");
}

/// Whatever cuts every stream at once is not asked for the next one any faster for that.
#[tokio::test]
async fn streams_that_never_live_are_asked_for_less_and_less_often() {
    let master = FakeMaster::start(vec![Answer::Stream("stream", vec![subscribed(15.0), Step::Close])]).await;
    let mut client = Client::connect(&master.address());
    let began = Instant::now();
    for serial in 1..=6 {
        assert_eq!(client.subscribed().await.serial, serial);
    }
    assert!(began.elapsed() > Duration::from_millis(1875), "half of 0.25, 0.5, 1 and 2 s: {:?}", began.elapsed());
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

/// TASK_RUNNING of a task on the agent of these masters.
fn running(task: &Value, uuid: Option<&str>) -> Value {
    let mut status = json!({ "task_id": task, "agent_id": { "value": "agent" }, "state": "TASK_RUNNING" });
    if let Some(uuid) = uuid {
        status["uuid"] = uuid.into();
    }
    json!({ "type": "UPDATE", "update": { "status": status } })
}

fn launched(accept: &Value) -> Vec<Value> {
    let operations = accept["accept"]["operations"].as_array().into_iter().flatten();
    let infos = operations.filter_map(|operation| operation["launch"]["task_infos"].as_array()).flatten();
    infos.map(|info| running(&info["task_id"], Some("AAECAwQFBgcICQoLDA0ODw=="))).collect()
}

pub(super) fn reconciled(reconcile: &Value) -> Vec<Value> {
    let tasks = reconcile["reconcile"]["tasks"].as_array().into_iter().flatten();
    tasks.map(|task| running(&task["task_id"], None)).collect()
}

/// An offer with room for a few tasks, once it is asked for.
pub(super) fn offered(_revive: &Value) -> Vec<Value> {
    let scalar =
        |name: &str, value: f64| json!({ "name": name, "type": "SCALAR", "scalar": { "value": value }, "role": "*" });
    let offer = json!({
        "id": { "value": "offer" }, "framework_id": { "value": "fake-0001" }, "agent_id": { "value": "agent" },
        "hostname": "agent.test", "allocation_info": { "role": "*" },
        "resources": [scalar("cpus", 4.0), scalar("mem", 4096.0)],
    });
    vec![json!({ "type": "OFFERS", "offers": { "offers": [offer] } })]
}

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// A host that wants two tasks on that master and keeps them, with a state folder.
pub(super) fn with_two_tasks(scratch: &Scratch, master: &FakeMaster) -> Setpoint {
    scratch.policy(
        "p",
        r#"return { interval = "200ms", workload = { backend = "mesos", command = "true", max = 2, on_end = "keep" },
  control = { law = "decide" }, decide = function() return { desired = 2 } end }"#,
    );
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", master.address()));
    let path = |name: &str| scratch.path(name).display().to_string();
    let config = config.display().to_string();
    Setpoint::run(scratch, ["--config", &config, "--state-dir", &path("st"), &path("p.lua")])
}

/// A11 of the prior systems: the stream breaks in the middle of a record, then another master leads, then heartbeats stay
/// away. The host is back each time under the same framework id with its tasks, asks about them, and spins at no time.
#[tokio::test(flavor = "multi_thread")]
async fn a11_a_broken_stream_a_new_leader_and_missing_heartbeats_change_nothing_for_the_tasks() {
    let alive = Step::Beat(4, Duration::from_millis(250));
    let next = FakeMaster::start(vec![
        Answer::Stream("next-1", vec![subscribed(0.5), Step::Reply("RECONCILE", reconciled), alive]),
        Answer::Stream("next-2", vec![subscribed(15.0), Step::Reply("RECONCILE", reconciled)]),
    ])
    .await;
    let first = vec![
        subscribed(15.0),
        Step::Reply("REVIVE", offered),
        Step::Reply("ACCEPT", launched),
        Step::HalfChunk,
        Step::Cut,
    ];
    let led = Answer::Redirect(format!("//127.0.0.1:{}", next.port()));
    let master = FakeMaster::start(vec![Answer::Stream("first", first), led]).await;
    let scratch = Scratch::new();
    let mut setpoint = with_two_tasks(&scratch, &master);
    wait_until(GENEROUS, "the stream breaks", async || setpoint.stderr().contains("is lost").then_some(())).await;
    let (began, before) = (Instant::now(), cpu(setpoint.pid()));

    wait_until(GENEROUS, "the second subscription with the next leader", async || {
        let asked = next.seen("RECONCILE").into_iter().filter(|call| call.stream_id.as_deref() == Some("next-2"));
        let asked: Vec<_> = asked.filter(|call| !reconciled(&call.body).is_empty()).collect();
        (!asked.is_empty()).then_some(())
    })
    .await;
    setpoint.running("p", 2).await;
    let (took, used) = (began.elapsed(), cpu(setpoint.pid()) - before);
    eprintln!("A11: {used:.2} s of CPU in {took:.1?}");
    assert!(used < 0.2 * took.as_secs_f64(), "it spins: {used} s of CPU in {took:?}");

    let [accept] = &master.seen("ACCEPT")[..] else { panic!("one ACCEPT") };
    let asked: Vec<Value> =
        launched(&accept.body).iter().map(|event| event["update"]["status"]["task_id"]["value"].clone()).collect();
    let tasks: Vec<Value> = setpoint.tasks().await.iter().map(|task| task["id"].clone()).collect();
    assert_eq!(tasks.len(), 2);
    assert!(tasks.iter().all(|id| asked.contains(id)), "the tasks of the first stream: {tasks:?}, {asked:?}");
    for call in next.seen("SUBSCRIBE") {
        assert_eq!(call.body["framework_id"]["value"], "fake-0001", "the same framework");
    }
    assert!(next.seen("ACCEPT").is_empty() && next.seen("KILL").is_empty() && master.seen("KILL").is_empty());
    let log = setpoint.stderr();
    assert!(log.contains("broke") && log.contains("nothing heard for 5 heartbeats"), "{log}");
    setpoint.kill();
}

/// Launches that no offer comes for are asked for anew at each tick, at `max` too: those before have made room by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_offer_comes_for_is_asked_for_at_each_tick() {
    let master = FakeMaster::start(vec![steady()]).await;
    let scratch = Scratch::new();
    scratch.policy(
        "p",
        r#"return { interval = "250ms", workload = { backend = "mesos", command = "true", max = 2 },
  control = { law = "decide" }, decide = function() return { desired = 2 } end }"#,
    );
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", master.address()));
    let path = |name: &str| scratch.path(name).display().to_string();
    let config = config.display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config, "--state-dir", &path("st"), &path("p.lua")]);
    let ticks = Ticks::of(&mut setpoint).await;
    let all = wait_until(GENEROUS, "some ticks", async || Some(ticks.all("p")).filter(|all| 20 <= all.len())).await;
    let asked = all.iter().filter(|tick| tick["acted"] == 2).count();
    // A tick may come late, and its launches with it; every other one is what this is about.
    assert!(3 * all.len() <= 4 * asked, "{asked} of {} ticks have asked: {all:?}", all.len());
    setpoint.kill();
}

/// The task of an ACCEPT runs and fails.
fn failed(accept: &Value) -> Vec<Value> {
    let mut events = launched(accept);
    let ends = events.iter().map(|event| {
        let mut event = event.clone();
        event["update"]["status"]["state"] = "TASK_FAILED".into();
        event["update"]["status"]["uuid"] = "EAECAwQFBgcICQoLDA0ODw==".into();
        event
    });
    let ends: Vec<Value> = ends.collect();
    events.extend(ends);
    events
}

/// TASK_RUNNING of a task that the second form of the file asks for.
fn launched_after(accept: &Value) -> Vec<Value> {
    if accept.to_string().contains("after") { launched(accept) } else { Vec::new() }
}

/// What is to replace a lost task waits for an offer over any number of ticks, and is launched as the file has it by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_waits_for_an_offer_and_follows_the_file() {
    let policy = |role: &str, command: &str, n: u32| {
        format!(
            r#"return {{ interval = "200ms", backoff = {{ min = "100ms" }},
  workload = {{ backend = "mesos", command = "{command}", max = 2, on_gone = "keep", mesos = {{ role = "{role}" }} }},
  control = {{ law = "decide" }}, decide = function() return {{ adjust = {n} }} end }}"#
        )
    };
    // One task, which is asked for only where none is wanted. A task of another role is what the next offer waits for.
    let once = policy("*", "before", 0).replace("{ adjust = 0 }", "{ adjust = ctx.desired == 0 and 1 or 0 }");
    let once = once.replace("function()", "function(ctx)");
    let steps = vec![
        subscribed(60.0),
        Step::Reply("REVIVE", offered),
        Step::Reply("ACCEPT", failed),
        Step::Reply("UPDATE_FRAMEWORK", offered),
        Step::Reply("ACCEPT", launched_after),
    ];
    let master = FakeMaster::start(vec![Answer::Stream("first", steps)]).await;
    let scratch = Scratch::new();
    scratch.write("policies/p.lua", &once);
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", master.address()));
    let path = |name: &str| scratch.path(name).display().to_string();
    let config = config.display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config, "--state-dir", &path("st"), &path("policies")]);
    let waits = |policy: &Value| policy["failures"] == 1 && policy["tasks"]["asked"] == 1;
    let state = setpoint.policy_until("p", "a replacement waits for an offer", waits).await;
    let ticks = state["ticks"].as_u64().unwrap();
    let later = |policy: &Value| waits(policy) && ticks + 5 < policy["ticks"].as_u64().unwrap();
    setpoint.policy_until("p", "it still does some ticks later", later).await;

    scratch.replace("policies/p.lua", &once.replace("before", "after"));
    let renewed = |policy: &Value| policy["generation"] == 2 && waits(policy);
    let state = setpoint.policy_until("p", "the new file runs", renewed).await;
    let ticks = state["ticks"].as_u64().unwrap();
    let ticked = |policy: &Value| waits(policy) && ticks + 2 < policy["ticks"].as_u64().unwrap();
    setpoint.policy_until("p", "and has ticked", ticked).await;
    scratch.write("policies/q.lua", &policy("other", "true", 1));
    let accept =
        wait_until(GENEROUS, "the replacement is launched", async || master.seen("ACCEPT").get(1).cloned()).await;
    let said = accept.body.to_string();
    assert!(said.contains("after") && !said.contains("before"), "{said}");
    setpoint.policy_until("p", "it runs", |policy| policy["tasks"]["running"] == 1).await;
    let tasks = setpoint.tasks().await;
    assert!(tasks.iter().any(|task| task["policy"] == "p" && task["by"] == "replacement"), "{tasks:?}");
    setpoint.kill();
}

/// What waits for an offer goes with its policy: nobody would decide about it any more.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_policy_whose_file_is_gone() {
    let master = FakeMaster::start(vec![steady()]).await;
    let scratch = Scratch::new();
    // One tick is all there is time for, so that nothing lapses.
    let text = r#"return { interval = "1h", workload = { backend = "mesos", command = "true", max = 2, on_gone = "keep" },
  control = { law = "decide" }, decide = function() return { desired = 2 } end }"#;
    let file = scratch.write("policies/p.lua", text);
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", master.address()));
    let config = config.display().to_string();
    let policies = scratch.path("policies").display().to_string();
    let state = scratch.path("st").display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config, "--state-dir", &state, &policies]);
    setpoint.policy_until("p", "two wait for an offer", |policy| policy["tasks"]["asked"] == 2).await;
    std::fs::remove_file(file).unwrap();
    wait_until(GENEROUS, "none waits any more", async || setpoint.tasks().await.is_empty().then_some(())).await;
    assert!(setpoint.stderr().contains("policy retired"), "{}", setpoint.stderr());
    setpoint.kill();
}

/// Two policies with roles of their own, on that master.
fn with_roles(scratch: &Scratch, master: &FakeMaster) -> Setpoint {
    for role in ["dev", "ops"] {
        let text = format!(
            r#"return {{ interval = "1s", workload = {{ backend = "mesos", command = "true", max = 1, mesos = {{ role = "{role}" }} }},
  control = {{ law = "decide" }}, decide = function() return {{ desired = 1 }} end }}"#
        );
        scratch.write(&format!("policies/{role}.lua"), &text);
    }
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", master.address()));
    let path = |name: &str| scratch.path(name).display().to_string();
    let config = config.display().to_string();
    Setpoint::run(scratch, ["--config", &config, "--state-dir", &path("st"), &path("policies")])
}

/// The roles that a call names for the framework.
fn roles(call: &Value, kind: &str) -> Vec<String> {
    let roles = call[kind]["framework_info"]["roles"].as_array().cloned().unwrap_or_default();
    let mut roles: Vec<String> = roles.iter().filter_map(|role| Some(role.as_str()?.to_owned())).collect();
    roles.sort();
    roles
}

/// A role that a master has not taken is told it again, until it does; one that it refuses keeps no other out, and what never
/// reached it is not called a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_a_policy_reaches_the_master_in_the_end() {
    let master = FakeMaster::start(vec![steady()]).await;
    master.refuse("UPDATE_FRAMEWORK", 503, "");
    master.refuse("UPDATE_FRAMEWORK", 403, "not authorized to use role");
    let scratch = Scratch::new();
    let mut setpoint = with_roles(&scratch, &master);
    let told = async |n: usize| {
        wait_until(GENEROUS, "roles are told", async || {
            let seen = master.seen("UPDATE_FRAMEWORK");
            (n <= seen.len()).then(|| seen.iter().map(|call| roles(&call.body, "update_framework")).collect::<Vec<_>>())
        })
        .await
    };
    assert_eq!(told(1).await[0].len(), 2, "one at a time");
    let first = told(3).await;
    let (refused, taken) = if first[1].contains(&"dev".to_owned()) { ("dev", "ops") } else { ("ops", "dev") };
    assert_eq!(first[1..3], [["*", refused], ["*", taken]]);
    let shows = async |setpoint: &mut Setpoint, refusal: bool| {
        wait_until(GENEROUS, "it is told", async || {
            let (_, shown) = setpoint.get("/v1/policies").await;
            let facts = &shown["backends"]["mesos"]["facts"]["roles_refused"];
            (facts.as_str().is_some_and(|why| why.contains(refused) && why.contains("403")) == refusal).then_some(())
        })
        .await;
    };
    shows(&mut setpoint, true).await;
    let log = setpoint.stderr();
    let (missed, denied) =
        (log.find("could not be told of a policy's role"), log.find("does not take a role of a policy"));
    assert!(missed.is_some() && missed < denied, "{log}");
    let all = told(4).await;
    assert_eq!(all[3], ["*", "dev", "ops"], "half a minute later it is tried again");
    shows(&mut setpoint, false).await;
    setpoint.kill();
}

/// Masters that cannot change a framework get the change with another subscription.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_cannot_change_a_framework_is_subscribed_with_again() {
    let old = json!({
        "type": "SUBSCRIBED",
        "subscribed": { "framework_id": { "value": "fake-0001" }, "heartbeat_interval_seconds": 60.0,
            "master_info": { "id": "m", "ip": 0, "port": 5050, "version": "1.9.0" } },
    });
    let unsupported = "Failed to update: Updating 'FrameworkInfo.user' is unsupported";
    for (first, refusal) in [(Step::Record(old), None), (subscribed(60.0), Some(unsupported))] {
        let master = FakeMaster::start(vec![Answer::Stream("stream-1", vec![first]), steady()]).await;
        if let Some(text) = refusal {
            master.refuse("UPDATE_FRAMEWORK", 400, text);
        }
        let scratch = Scratch::new();
        let mut setpoint = with_roles(&scratch, &master);
        wait_until(GENEROUS, "every role is told", async || {
            let asked = master.seen("SUBSCRIBE").get(1).map(|call| roles(&call.body, "subscribe"))?;
            let told = master.seen("UPDATE_FRAMEWORK").last().map(|call| roles(&call.body, "update_framework"));
            // The second role comes with the new subscription, or is told under it.
            (asked.len() == 3 || asked.len() == 2 && told.is_some_and(|told| told.len() == 3)).then_some(())
        })
        .await;
        setpoint.kill();
    }
}

/// A framework's id that cannot be read is not replaced by another one: the tasks under it would be nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_framework_id_ends_the_run_and_says_where() {
    let master = FakeMaster::start(vec![steady()]).await;
    let scratch = Scratch::new();
    scratch.write("st/mesos.json", "{ not");
    let mut setpoint = with_roles(&scratch, &master);
    let status = setpoint.exit(GENEROUS).await;
    assert_eq!(status.code(), Some(74), "{}", setpoint.stderr());
    let log = setpoint.stderr();
    assert!(log.contains("mesos.json: expected the framework's id"), "{log}");
    assert!(master.seen("SUBSCRIBE").is_empty());
    assert_eq!(scratch.read("st/mesos.json"), "{ not");
}

/// Whoever waits for a leader is told what keeps ZooKeeper from naming one.
#[tokio::test]
async fn zookeeper_that_cannot_be_asked_is_told() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = Client::connect(&format!("zk://{closed}/mesos"));
    let why = |signal| if let setpoint::mesos::Signal::Failed(why) = signal { Some(why) } else { None };
    let why = client.wait("the failure", why).await;
    assert!(why.contains("cannot reach ZooKeeper") && why.contains(&closed.to_string()), "{why}");
    assert_eq!(client.scheduler.status().borrow().failure.as_deref(), Some(&*why));
}
