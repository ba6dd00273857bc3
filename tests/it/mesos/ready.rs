//! What a host shows of its framework, and what it says of itself when heartbeats do not come.

use std::time::Duration;

use serde_json::Value;

use super::fake::{Answer, FakeMaster, Step, subscribed};
use crate::support::{GENEROUS, Scratch, Setpoint, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn without_heartbeats_a_host_is_not_ready_and_says_why() {
    let alive = Step::Beat(40, Duration::from_millis(250));
    // Silent after its heartbeats; from then on nobody leads.
    let script = vec![Answer::Stream("stream-1", vec![subscribed(0.5), alive]), Answer::Status(503)];
    let master = FakeMaster::start(script).await;
    let scratch = Scratch::new();
    scratch.policy(
        "p",
        r#"return { interval = "500ms", workload = { backend = "mesos", command = "true", max = 5 },
  control = { law = "decide" }, decide = function() return { desired = 0 } end }"#,
    );
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", master.address()));
    let policy = scratch.path("p.lua").display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config.display().to_string(), &policy]);

    let ready = wait_until(GENEROUS, "it is ready", async || {
        let (status, body) = setpoint.get("/readyz").await;
        (status == 200 && body["backends"]["mesos"]["subscribed"].is_string()).then_some(body)
    })
    .await;
    assert_eq!(ready["backends"]["mesos"]["framework"], "fake-0001");
    let (_, shown) = setpoint.get("/v1/policies").await;
    let mesos = &shown["backends"]["mesos"];
    assert!(mesos["problem"].is_null(), "{mesos}");
    for fact in ["leader", "subscribed", "offers", "suppressed", "roles"] {
        assert!(mesos["facts"][fact].is_string(), "{fact}: {mesos}");
    }
    assert!(mesos["facts"]["offers"].as_str().is_some_and(|offers| offers.starts_with("0 held")), "{mesos}");
    let address = setpoint.address().await;
    let status = Setpoint::output(&scratch, ["status", "--server", &address]).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    assert!(status.stdout.contains("mesos: framework fake-0001; leader http://127.0.0.1:"), "{}", status.stdout);

    wait_until(GENEROUS, "it is not ready", async || {
        let (status, body) = setpoint.get("/readyz").await;
        (status == 503 && body["problems"]["backend mesos"].is_string()).then_some(())
    })
    .await;
    let told = wait_until(GENEROUS, "the status says so", async || {
        let status = Setpoint::output(&scratch, ["status", "--server", &address]).await;
        (!status.stdout.contains("subscribed ")).then_some(status)
    })
    .await;
    let problem = told.stdout.lines().last().unwrap_or_default();
    assert!(problem.starts_with("mesos: ") && !problem.contains("framework"), "{}", told.stdout);
    assert!(setpoint.stderr().contains("heartbeats"), "{}", setpoint.stderr());
    setpoint.kill();
}

/// Before there is a cluster `/readyz` tells what keeps it away, and `status` shows the framework without policies, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_told_of_before_it_answers_and_after_the_last_policy() {
    let steady = Answer::Stream("stream-1", vec![subscribed(60.0)]);
    let script = std::iter::repeat_n(Answer::Status(503), 6).chain([steady]).collect();
    let master = FakeMaster::start(script).await;
    let scratch = Scratch::new();
    let text = r#"return { interval = "500ms", workload = { backend = "mesos", command = "true", max = 5 },
  control = { law = "decide" }, decide = function() return { desired = 0 } end }"#;
    let policy = scratch.write("policies/p.lua", text);
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", master.address()));
    let folder = scratch.path("policies").display().to_string();
    let mut setpoint = Setpoint::run(&scratch, ["--config", &config.display().to_string(), &folder]);
    wait_until(GENEROUS, "it says why it is not ready", async || {
        let (status, body) = setpoint.get("/readyz").await;
        let problem = body["problems"]["backend mesos"].as_str().unwrap_or_default();
        (status == 503 && problem.starts_with("not recovered yet: ") && problem.contains("503")).then_some(())
    })
    .await;
    wait_until(GENEROUS, "it is ready", async || (setpoint.get("/readyz").await.0 == 200).then_some(())).await;
    std::fs::remove_file(policy).unwrap();
    wait_until(GENEROUS, "there is no policy", async || {
        let (_, shown) = setpoint.get("/v1/policies").await;
        shown["policies"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
    let address = setpoint.address().await;
    let status = Setpoint::output(&scratch, ["status", "--server", &address]).await;
    assert!(status.stdout.contains("mesos: framework fake-0001; leader "), "{}", status.stdout);
    let status = Setpoint::output(&scratch, ["status", "--json", "--server", &address]).await;
    let shown: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(shown["backends"]["mesos"]["facts"]["framework"], "fake-0001", "{}", status.stdout);
    setpoint.kill();
}
