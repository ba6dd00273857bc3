//! `gocd.lua` with a stand-in for the server and agents that are real processes; with what real servers answered, where
//! that is at hand.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use crate::support::{GENEROUS, HttpServer, Scratch, Setpoint, data, wait_until};

pub(crate) mod server;
use server::{Fault, GoCd, Job, Version};

/// An agent: it registers under its UUID, builds what it is given, and says so when it is told to end.
pub(crate) const AGENT: &str = r#"exec python3 -c '
import json, os, signal, time, urllib.request
base, me = os.environ["GO_SERVER_URL"][:-3], os.environ["GO_AGENT_UUID"]
assert os.environ["GO_SERVER"] == "127.0.0.1" and os.environ["AGENT_KEY"] == "the key"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def call(what):
    # A server that is away for a while is no reason to end.
    for _ in range(300):
        try:
            request = urllib.request.Request(base + "/agent/" + me + "/" + what, data=b"")
            return json.load(opener.open(request, timeout=60))
        except OSError:
            time.sleep(0.1)
def end(*_):
    call("bye")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    job = call("work")
    if job:
        time.sleep(job["milliseconds"] / 1000)
        call("done")
    else:
        time.sleep(0.05)
'"#;

fn policy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/gocd.lua")
}

/// `run gocd.lua` against a server, looking every 100 to 400 ms.
fn run(scratch: &Scratch, server: &str, more: &[&str]) -> Setpoint {
    let mut arguments = vec![policy().display().to_string()];
    let ours = [format!("server={server}"), format!("command={AGENT}"), "agent_key=the key".to_owned()];
    let pace = ["poll=100ms", "poll_max=400ms", "max=6"].map(str::to_owned);
    for set in ours.into_iter().chain(pace).chain(more.iter().map(|&set| set.to_owned())) {
        arguments.extend(["--set".to_owned(), set]);
    }
    Setpoint::run(scratch, arguments)
}

async fn ticks(setpoint: &mut Setpoint) -> u64 {
    setpoint.policy("gocd").await.and_then(|policy| policy["ticks"].as_u64()).unwrap_or_default()
}

/// Waits for `n` whole ticks from now.
async fn some_ticks(setpoint: &mut Setpoint, n: u64) {
    let from = ticks(setpoint).await;
    wait_until(GENEROUS, "the policy goes on ticking", async || (ticks(setpoint).await > from + n).then_some(())).await;
}

fn running(policy: &Value) -> u64 {
    policy["tasks"]["running"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn agents_come_for_jobs_and_go_when_they_are_idle() {
    for version in [Version::V16_1, Version::V21] {
        let scratch = Scratch::new();
        let server = GoCd::start(version).await;
        server.world().newcomer = "Pending";
        let mut setpoint = run(&scratch, &server.url(), &[]);
        some_ticks(&mut setpoint, 3).await;
        assert_eq!(setpoint.tasks().await.len(), 0, "no job, no agent");

        // Two jobs that none of ours can ever run, and six of which somebody else's agent will take one.
        server.foreign_agent("foreign");
        let mut jobs: Vec<Job> = (0..6).map(|n| Job::new(format!("job-{n}"), Duration::from_millis(1500))).collect();
        jobs.push(Job { resources: vec!["gpu"], ..Job::new("needs-gpu", Duration::ZERO) });
        jobs.push(Job { environment: Some("production"), ..Job::new("needs-production", Duration::ZERO) });
        server.world().waiting = jobs;
        setpoint.logged("no agent of ours can have the resources or the environment of").await;
        assert!(setpoint.stderr().contains("pipeline/1/stage/1/needs-gpu, pipeline/1/stage/1/needs-production"));
        let full = setpoint.policy_until("gocd", "five agents", |policy| running(policy) == 5).await;
        assert_eq!(full["tasks"]["running"], 5, "one job is the foreign agent's");
        let busy = async || {
            let world = server.world();
            let building = world.agents.values().filter(|agent| agent.building.is_some()).count();
            (building == 5).then_some(())
        };
        wait_until(GENEROUS, "all five were enabled and build", busy).await;
        server.world().waiting.retain(|job| job.name.starts_with("needs"));

        let none = setpoint
            .policy_until("gocd", "no agent is left", |policy| running(policy) == 0 && policy["tasks"]["killing"] == 0);
        none.await;
        wait_until(GENEROUS, "the server has forgotten them", async || {
            let world = server.world();
            (world.deleted.len() >= 5 && world.agents.len() == 1).then_some(())
        })
        .await;
        let world = server.world();
        let mut done = world.done.clone();
        done.sort();
        done.dedup();
        assert_eq!((done.len(), world.done.len()), (5, 5), "each job once: {:?}", world.done);
        assert_eq!(world.murdered, Vec::<String>::new(), "{version:?}");
        assert_eq!(world.agents["foreign"].config, "Enabled", "somebody else's agents are left alone");
    }
}

#[tokio::test]
async fn a9_a_server_that_fails_in_any_way_stops_neither_the_loop_nor_an_agent() {
    let scratch = Scratch::new();
    let mut server = GoCd::start(Version::V21).await;
    server.world().waiting = (0..4).map(|n| Job::new(format!("long-{n}"), Duration::from_secs(3))).collect();
    let mut setpoint = run(&scratch, &server.url(), &["poll=200ms", "max=4"]);
    setpoint.policy_until("gocd", "four agents", |policy| running(policy) == 4).await;
    let faults = [
        Fault::Status(404),
        Fault::Status(401),
        Fault::Status(500),
        Fault::BrokenXml,
        Fault::NotJson,
        Fault::Hang,
        Fault::Refused,
    ];
    for fault in faults {
        server.fail(Some(fault)).await;
        let failed = |policy: &Value| policy["sample"]["kind"] == "error";
        // An agent that had nothing to do may have gone before.
        let before = setpoint.policy_until("gocd", &format!("{fault:?} is a failed sample"), failed).await;
        some_ticks(&mut setpoint, 2).await;
        let after = setpoint.policy("gocd").await.unwrap();
        assert_eq!(after["tasks"]["desired"], before["tasks"]["desired"], "nothing is scaled in while {fault:?}");
        assert!(running(&after) > 0, "there is something to be scaled in");
        {
            // There is work for all of them when the server is well again, so that none is taken in rightly.
            let mut world = server.world();
            let waiting = world.waiting.len();
            let more = (waiting..4).map(|n| Job::new(format!("more-{fault:?}-{n}"), Duration::from_secs(3)));
            world.waiting.extend(more);
        }
        server.fail(None).await;
        let well = |policy: &Value| policy["sample"]["kind"] == "value";
        setpoint.policy_until("gocd", &format!("the end of {fault:?} is noticed"), well).await;
    }
    server.world().waiting.clear();
    let over = |policy: &Value| running(policy) == 0 && policy["tasks"]["killing"] == 0;
    setpoint.policy_until("gocd", "all are taken in at the end", over).await;
    assert_eq!(server.world().murdered, Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_that_dies_or_never_registers_is_cleared_away() {
    let scratch = Scratch::new();
    let server = GoCd::start(Version::V21).await;
    server.world().authorization = Some("Bearer open sesame".to_owned());
    scratch.write("setpoint.toml", "[secrets]\ngocd = { file = \"token\" }\n");
    scratch.write("token", "open sesame\n");
    server.world().waiting = vec![Job::new("endless", Duration::from_secs(600))];
    let config = scratch.path("setpoint.toml").display().to_string();
    let mut arguments = vec![policy().display().to_string(), "--config".to_owned(), config];
    for set in [
        format!("server={}", server.url()),
        format!("command={AGENT}"),
        "agent_key=the key".to_owned(),
        "token=gocd".to_owned(),
        "poll=100ms".to_owned(),
        "poll_max=400ms".to_owned(),
    ] {
        arguments.extend(["--set".to_owned(), set]);
    }
    let mut setpoint = Setpoint::run(&scratch, arguments);
    let task = wait_until(GENEROUS, "an agent builds", async || {
        let building = server.world().agents.values().any(|agent| agent.building.is_some());
        if building { setpoint.tasks().await.into_iter().find(|task| task["state"] == "running") } else { None }
    })
    .await;
    let uuid = server.world().agents.keys().next().unwrap().clone();
    scratch.kill(task["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap()).unwrap();
    // The server takes it for building until it has not heard of it for long, and lets nobody delete it before.
    server.world().agents.get_mut(&uuid).unwrap().building = None;
    wait_until(GENEROUS, "the dead agent is deleted", async || server.world().deleted.contains(&uuid).then_some(()))
        .await;
    assert!(!server.world().agents.contains_key(&uuid));
}

/// A9 of what this replaces: one agent at the sixth poll that saw a job, in a row or not, and never one less.
#[tokio::test]
async fn a9_the_old_rule_of_confirmed_polls() {
    for (in_a_row, expected) in [(false, 1), (true, 0)] {
        let scratch = Scratch::new();
        let server = GoCd::start(Version::V16_1).await;
        server.world().feed = vec![1, 0, 1, 1, 0, 1, 1, 1, 0];
        let in_a_row = format!("in_a_row={in_a_row}");
        let more = ["rule=polls", "confirm=6", "poll=100ms", "poll_max=100ms", &in_a_row];
        let mut setpoint = run(&scratch, &server.url(), &more);
        wait_until(GENEROUS, "the feed is over", async || (server.world().polls > 10).then_some(())).await;
        let polls = setpoint.policy_until("gocd", "its tasks run", |policy| policy["tasks"]["running"] == expected);
        polls.await;
        if in_a_row.ends_with("false") {
            // 6 + 1 so far; 21 positive ones in all make three.
            let polls = server.world().polls;
            let feed = [vec![0; polls], vec![1; 15], vec![0]].concat();
            let goal = feed.len() + 2;
            server.world().feed = feed;
            wait_until(GENEROUS, "the feed is over again", async || (server.world().polls > goal).then_some(())).await;
            setpoint.policy_until("gocd", "three agents", |policy| running(policy) == 3).await;
        }
    }
}

/// Answers in both shapes, for where no recorded ones are at hand: an old server with an idle agent and three jobs, and a
/// newer one with a building agent and a job for a resource that nobody has.
const ANSWERS: [(&str, &str, &str, f64); 2] = [
    (
        "old",
        r#"<scheduledJobs><job name="one" id="1"><buildLocator>p/1/s/1/one</buildLocator></job>
           <job name="two" id="2"><buildLocator>p/1/s/1/two</buildLocator><resources/></job>
           <job name="three" id="3"/></scheduledJobs>"#,
        r#"{"_embedded":{"agents":[
            {"uuid":"a","hostname":"h","status":"Idle","enabled":true,"resources":[],"environments":[]},
            {"uuid":"b","hostname":"h","status":"Missing","enabled":true,"resources":["x"],"environments":["e"]}]}}"#,
        2.0,
    ),
    (
        "newer",
        r#"<scheduledJobs><link rel="self" href="http://h/go/api/feed/jobs/scheduled.xml"/>
           <job name="one" id="1"><buildLocator><![CDATA[p/1/s/1/one]]></buildLocator></job>
           <job name="two" id="2"><resources><resource><![CDATA[gpu]]></resource></resources></job></scheduledJobs>"#,
        r#"{"_embedded":{"agents":[{"uuid":"a","hostname":"h","agent_config_state":"Enabled","agent_state":"Building",
            "build_state":"Building","resources":[],"environments":[{"name":"e","origin":{"type":"gocd"}}]}]}}"#,
        1.0,
    ),
];

#[tokio::test]
async fn answers_of_real_servers_are_understood() {
    let mut answers: Vec<(String, String, String, f64)> = ANSWERS
        .map(|(version, scheduled, agents, jobs)| (version.to_owned(), scheduled.to_owned(), agents.to_owned(), jobs))
        .to_vec();
    for (version, jobs) in [("16.1.0", 0.0), ("16.12.0", 0.0), ("17.1.0", 1.0), ("17.5.0", 0.0)] {
        let read =
            |name: &str| data(&format!("gocd/{version}-{name}")).map(|path| std::fs::read_to_string(path).unwrap());
        if let (Some(scheduled), Some(agents)) = (read("scheduled.xml"), read("agents.json")) {
            answers.push((version.to_owned(), scheduled, agents, jobs));
        }
    }
    for (version, scheduled, agents, jobs) in answers {
        let server = HttpServer::start(move |request| match (request.method.clone(), request.path.as_str()) {
            (Method::GET, "/go/api/jobs/scheduled.xml") => (200, scheduled.clone()),
            (Method::GET, "/go/api/agents") => (200, agents.clone()),
            _ => (404, String::new()),
        })
        .await;
        let scratch = Scratch::new();
        let server = format!("server={}", server.url(""));
        let policy = policy().display().to_string();
        let done = Setpoint::output(&scratch, ["eval", &policy, "--set", &server, "--json"]).await;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let shown: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(shown["sample"]["value"], jobs, "{version}: {shown}");
        assert_eq!(shown["decision"]["raw"], jobs, "{version}");
    }
}
