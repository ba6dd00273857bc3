//! Tasks' output: rotated while they run, kept for a while when they have ended, gone with their policy.

use std::path::Path;

use super::*;
use crate::support::{GENEROUS, Scratch, Setpoint, wait_until};

/// A kilobyte of zeros and a line end, twenty times a second.
const NOISY: &str = "while sleep 0.05; do printf '%01000d\\n' 0; done";

/// Waits until a log has been rotated, and has been written to since.
async fn rotated(log: &Path, max: u64) {
    let aside = log.with_extension("log.1");
    eventually("the log is rotated", || {
        let after = fs::metadata(log).is_ok_and(|log| 0 < log.len());
        after && fs::metadata(&aside).is_ok_and(|aside| aside.len() == max)
    })
    .await;
    for file in [log, &aside] {
        let text = fs::read(file).unwrap();
        let whole = text.iter().all(|byte| matches!(byte, b'0' | b'\n'));
        assert!(whole, "{}: the writer goes on at the new end, without a hole", file.display());
    }
}

#[tokio::test]
async fn logs_are_kept_within_bounds() {
    const MAX: u64 = 8 << 10;
    let folder = TempDir::new().unwrap();
    let logs = folder.path().join("logs");
    let config = || LocalConfig { log_max: MAX, log_keep: 2, log_dir: Some(logs.clone()), ..on(&folder) };
    let mut first = Fixture::new("bounds", config()).await;
    let of_policy = logs.join(first.policy.as_str());
    let log = of_policy.join("noisy.log");
    first.launch("noisy", shell(NOISY)).await;
    first.running("noisy").await;
    for n in 0..5 {
        let id = format!("short-{n}");
        first.launch(&id, shell("echo done")).await;
        first.gone(&id).await;
    }
    rotated(&log, MAX).await;
    let names = || {
        let files = fs::read_dir(&of_policy).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.collect::<std::collections::BTreeSet<_>>()
    };
    eventually("only the newest are kept", || {
        names() == ["noisy.log", "noisy.log.1", "short-3.log", "short-4.log"].map(str::to_owned).into()
    })
    .await;

    // The next backend finds the task under another policy, which has adopted it, and its log where it was.
    let placement = first.running("noisy").await;
    first.backend.shutdown(false).await;
    let Fixture { backend, policy: old, _guard: guard, .. } = first;
    drop(backend);
    fs::remove_file(of_policy.join("noisy.log.1")).unwrap();
    let named = format!("{old}.01J");
    fs::rename(&log, of_policy.join(format!("{named}.log"))).unwrap();
    let heir = PolicyName::new("heir");
    let known = KnownTask { policy: heir.clone(), ..known(&old, &named, placement) };
    let mut second = Fixture::recover("heir", config(), vec![known]).await;
    second.running(&named).await;
    rotated(&of_policy.join(format!("{named}.log")), MAX).await;

    // A policy that is gone for good takes its logs with it, but for what still runs.
    second.backend.forget(&old).await;
    assert_eq!(names(), [format!("{named}.log"), format!("{named}.log.1")].into());
    second.kill(&named, LONG).await;
    second.gone(&named).await;
    second.backend.forget(&old).await;
    assert!(!of_policy.exists());
    drop(guard);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_policy_takes_its_logs_with_it() {
    let scratch = Scratch::new();
    let policy = |command: &str| {
        format!(
            "return {{ interval = '100ms', control = {{ law = 'count', n = 1 }},
  workload = {{ command = [[{command}]], min = 0, max = 1, grace = '1s' }} }}"
        )
    };
    scratch.write("policies/stays.lua", &policy("exec sleep 600"));
    scratch.write("policies/loud.lua", &policy(NOISY));
    scratch.write("setpoint.toml", "[local]\nlog_max = \"4KiB\"\nlog_keep = 1\n");
    let mut setpoint = Setpoint::run(&scratch, ["policies", "--state-dir", "state"]);
    let task = setpoint.running("loud", 1).await;
    assert_eq!(task["tasks"]["running"], 1, "{task}");
    let logs = scratch.path("state/logs/loud");
    let aside = || {
        let mut files = fs::read_dir(&logs).ok()?.flatten().map(|entry| entry.path());
        files.find(|path| path.to_string_lossy().ends_with(".log.1"))
    };
    let aside = wait_until(GENEROUS, "the log is rotated", async || aside()).await;
    assert_eq!(fs::metadata(aside).unwrap().len(), 4096, "as the configuration says");

    fs::remove_file(scratch.path("policies/loud.lua")).unwrap();
    setpoint.policy_until("loud", "it is retired", |policy| policy["ended"]["by"] == "retired").await;
    assert!(logs.exists(), "its task and its logs are kept");
    let server = setpoint.address().await;
    let removed = Setpoint::output(&scratch, ["policies", "remove", "loud", "--server", &server]).await;
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    wait_until(GENEROUS, "the logs are gone", async || (!logs.exists()).then_some(())).await;
}
