//! `/metrics`.

use setpoint::core::model::Sample;
use setpoint::runtime::view::Totals;

use super::client;
use super::fake::{Fake, script_error};

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let odd = "odd \"name\"\\\nwith/everything";
    let fake = Fake::start(&["queue", odd]).await;
    fake.change("queue", |policy| policy.script.refused = Some(script_error()));
    fake.change(odd, |policy| policy.sample = Some(Sample::Error { message: "no".into() }));
    fake.publisher.set_totals(Totals {
        ticks: 812,
        launched: 20,
        killed: 3,
        failed: 1,
        reloads: 4,
        reloads_refused: 2,
        script_errors: [(("metric", "runtime"), 5)].into(),
        lag: vec![(0.001, 10), (0.01, 12), (f64::INFINITY, 13)],
        lag_sum: 0.25,
        restricted: [("max", 7)].into(),
        ..Totals::default()
    });
    let response = client().get(fake.url("/metrics")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    for line in [
        "setpoint_policy_sample{policy=\"queue\"} 7.0",
        "setpoint_policy_sample_fresh{policy=\"odd \\\"name\\\"\\\\\\nwith/everything\"} 0.0",
        "setpoint_policy_setpoint{policy=\"queue\"} 0.0",
        "setpoint_policy_tasks{policy=\"queue\",state=\"running\"} 4",
        "setpoint_policy_ticks_total{policy=\"queue\"} 812",
        "setpoint_policy_generation{policy=\"queue\"} 3.0",
        "setpoint_policy_script_differs{policy=\"queue\"} 1.0",
        "setpoint_policy_paused{policy=\"queue\"} 0.0",
        "setpoint_restricted_total{guard=\"max\"} 7",
        "setpoint_tick_lag_seconds_bucket{le=\"0.01\"} 12",
        "setpoint_tick_lag_seconds_bucket{le=\"+Inf\"} 13",
        "setpoint_tick_lag_seconds_count 13",
        "setpoint_tasks_launched_total 20",
        "setpoint_reloads_total{result=\"refused\"} 2",
        "setpoint_script_errors_total{hook=\"metric\",kind=\"runtime\"} 5",
    ] {
        assert!(text.lines().any(|got| got == line), "{line}\n{text}");
    }
    assert!(!text.contains("setpoint_policy_sample{policy=\"odd"), "an error is never a number");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(text.contains(&format!("# TYPE {family} ")), "{line} has no type");
    }
    promtool(&text);
    fake.stop().await;
}

/// Has the exposition judged by the real thing where it is installed.
fn promtool(text: &str) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let Some(promtool) = crate::support::tool("promtool") else { return };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
