//! What a host shows of its framework, and what it says of itself when heartbeats do not come.

use std::time::Duration;

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
