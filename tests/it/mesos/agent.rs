//! What the executor client, and `setpoint executor`, make of agents that are silent, refuse, or speak TLS: a scripted one,
//! since no genuine one does so on demand.

use serde_json::json;
use setpoint::mesos::executor::{Executor, ExecutorConfig, ExecutorSignal, ExecutorSignals};
use setpoint::mesos::wire::{TaskId, TaskState, TaskStatus};
use tokio::net::TcpListener;

use super::fake::{Answer, FakeMaster, Step};
use crate::support::{GENEROUS, wait_until};

/// What an agent tells the executors that it starts.
fn variables<'a>(agent: &'a str, recovery_timeout: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("MESOS_AGENT_ENDPOINT", agent),
        ("MESOS_FRAMEWORK_ID", "f"),
        ("MESOS_EXECUTOR_ID", "e"),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_RECOVERY_TIMEOUT", recovery_timeout),
    ]
}

fn connect(agent: &str, recovery_timeout: &str) -> (Executor, ExecutorSignals) {
    let variables = variables(agent, recovery_timeout);
    let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Executor::connect(ExecutorConfig::from_variables(variable).unwrap()).unwrap()
}

/// A stream that stays as it is.
fn registered() -> Answer {
    Answer::Stream("stream", vec![Step::Record(json!({ "type": "SUBSCRIBED", "subscribed": {} }))])
}

/// The next signal of an executor.
async fn next(signals: &mut ExecutorSignals) -> ExecutorSignal {
    let signal = tokio::time::timeout(GENEROUS, signals.recv()).await.expect("a signal in time");
    signal.expect("the client has not ended")
}

#[tokio::test]
async fn an_agent_that_finds_fault_with_an_executor_ends_it() {
    for status in [400, 401, 403, 410] {
        let script = [404, 503, 429, status].map(Answer::Status);
        let agent = FakeMaster::start(script.into()).await;
        let (_executor, mut signals) = connect(&agent.address(), "15mins");
        let signal = next(&mut signals).await;
        let ExecutorSignal::Ended(why) = &signal else { panic!("{signal:?}") };
        assert!(why.contains(&status.to_string()), "{why}");
        assert_eq!(agent.seen("SUBSCRIBE").len(), 4);
    }
}

#[tokio::test]
async fn an_agent_that_never_answers_is_waited_for_like_one_that_is_away() {
    // The one does not even begin its answer, the other one does no more than that.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let halting = FakeMaster::start(vec![Answer::Stream("stream", Vec::new())]).await;
    for agent in [mute.local_addr().unwrap().to_string(), halting.address()] {
        let (_executor, mut signals) = connect(&agent, "1200ms");
        let signal = next(&mut signals).await;
        let ExecutorSignal::Ended(why) = &signal else { panic!("{signal:?}") };
        assert!(why.contains("within 1.2s") && why.contains("SUBSCRIBE"), "{why}");
    }
}

#[tokio::test]
async fn an_update_is_told_again_unless_it_is_the_agent_that_finds_fault_with_it() {
    let agent = FakeMaster::start(vec![registered()]).await;
    let (executor, mut signals) = connect(&agent.address(), "15mins");
    let signal = next(&mut signals).await;
    assert!(matches!(signal, ExecutorSignal::Subscribed(_)), "{signal:?}");
    let update = |task: &str| {
        let (task_id, state) = (TaskId::new(task), TaskState::Running);
        executor.update(TaskStatus { task_id, state, ..TaskStatus::default() });
    };
    agent.refuse("UPDATE", 400, "Expecting 'uuid' to be present");
    update("wrong");
    wait_until(GENEROUS, "the wrong one is given up", async || executor.is_settled().then_some(())).await;
    for status in [403, 404, 503, 401] {
        agent.refuse("UPDATE", status, "Executor is not subscribed");
    }
    update("right");
    wait_until(GENEROUS, "the right one is taken", async || (agent.seen("UPDATE").len() == 6).then_some(())).await;
    assert!(!executor.is_settled(), "it has not been acknowledged");
    let seen = agent.seen("UPDATE");
    let tasks: Vec<_> = seen.iter().map(|call| call.body["update"]["status"]["task_id"]["value"].as_str()).collect();
    assert_eq!((tasks[0], &tasks[1..]), (Some("wrong"), &[Some("right"); 5][..]));
}

/// By the variables of libprocess an executor speaks TLS, and trusts whom it is told to trust.
#[cfg(all(feature = "cli", feature = "tls"))]
#[tokio::test(flavor = "multi_thread")]
async fn our_executor_speaks_tls_as_libprocess_is_told_to() {
    use super::proxy::{Proxy, self_signed};
    use crate::support::{Scratch, Setpoint, command};

    let agent = FakeMaster::start(vec![registered()]).await;
    let (tls, certificate) = self_signed();
    let proxy = Proxy::start(agent.address(), Some(tls)).await;
    let named = proxy.address.replace("127.0.0.1", "localhost");
    let scratch = Scratch::new();
    let trusted = scratch.write("ca.pem", &certificate).display().to_string();
    let run = |endpoint: &str, more: &[(&str, &str)]| {
        let mut command = command(&scratch);
        command.arg("executor").env("LIBPROCESS_SSL_ENABLED", "1");
        command.envs(variables(endpoint, "1secs")).envs(more.iter().copied());
        Setpoint::spawn(&scratch, command)
    };
    let verify = ("LIBPROCESS_SSL_VERIFY_SERVER_CERT", "true");
    let mut lax = run(&proxy.address, &[]);
    let call = async || agent.seen("SUBSCRIBE").first().cloned();
    let call = wait_until(GENEROUS, "SUBSCRIBE over TLS", call).await;
    assert_eq!((call.path.as_str(), call.body["executor_id"]["value"].as_str()), ("/api/v1/executor", Some("e")));
    lax.kill();
    let mut strict = run(&named, &[verify, ("LIBPROCESS_SSL_CA_FILE", trusted.as_str())]);
    let called = async || (agent.seen("SUBSCRIBE").len() == 2).then_some(());
    wait_until(GENEROUS, "SUBSCRIBE over TLS that was verified", called).await;
    strict.kill();
    let mut stranger = run(&named, &[verify]);
    assert!(!stranger.exit(GENEROUS).await.success());
    assert!(stranger.stderr().contains("certificate"), "{}", stranger.stderr());
    assert_eq!(agent.seen("SUBSCRIBE").len(), 2);
}
