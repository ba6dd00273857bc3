//! `setpoint.exec` and `setpoint.process` with real processes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::testing::Bench;
use crate::script::{Hook, Limits, Permissions};

fn bench() -> Bench {
    let limits = Limits { body: 1000, ..Limits::default() };
    let mut bench = Bench::with_limits(Permissions { exec: true, ..Permissions::default() }, limits);
    bench.hook = Hook::Warmer;
    bench
}

fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn commands_run_with_their_input_folder_and_a_bare_environment() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench().folder(folder.path());
    let chunk = r#"
        local exec = require("setpoint.exec")
        local result = exec.run({ "sh", "-c", "cat; pwd; env | sort; echo oops >&2; exit 3" }, { stdin = "in\n", env = { A = "b" } })
        assert(result.code == 3 and not result.ok and result.stderr == "oops\n")
        assert(exec.read({ "sh", "-c", "kill -9 $$" }).signal == 9)
        assert(exec.read({ "true" }, { stdin = ("x"):rep(1e6) }).ok)
        return result.stdout
    "#;
    let stdout: String = bench.run(chunk).unwrap();
    let lines: Vec<&str> =
        stdout.lines().filter(|line| !line.starts_with("_=") && !line.starts_with("SHLVL")).collect();
    let pwd = folder.path().canonicalize().unwrap().display().to_string();
    assert_eq!(lines[..2], ["in", pwd.as_str()]);
    assert_eq!(lines[2], "A=b");
    let allowed = ["PATH=", "PWD=", "OLDPWD="];
    assert!(lines[3..].iter().all(|line| allowed.iter().any(|name| line.starts_with(name))), "{lines:?}");
}

#[test]
fn a_late_command_dies_with_its_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench().folder(folder.path());
    // The shell's child is not the one that the host started, and holds on to the output.
    let chunk =
        r#"require("setpoint.exec").run({ "sh", "-c", "sleep 1000 & echo $! > child; wait" }, { timeout = "1s" })"#;
    let error = bench.error(chunk);
    assert!(error.contains("expected it to end within 1s, killed it"), "{error}");
    let pid = std::fs::read_to_string(folder.path().join("child")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    within(Duration::from_secs(30), "the end of the child's child", || {
        std::fs::read_to_string(&stat)
            .map_or(true, |stat| stat.rsplit_once(')').is_some_and(|(_, tail)| tail.starts_with(" Z")))
    });
}

#[test]
fn the_ticks_deadline_kills_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = bench().folder(folder.path());
    bench.deadline = Duration::from_secs(1);
    let error = bench.error(r#"require("setpoint.exec").read({ "sh", "-c", "echo $$ > pid; exec sleep 1000" })"#);
    assert_eq!(error, "exec.read: no answer before the tick's deadline");
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    within(Duration::from_secs(30), "the end of the command", || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"))
    });
}

#[test]
fn commands_that_cannot_or_must_not_run_are_told() {
    let bench = bench();
    for (call, expected) in [
        (
            "run('ls -l')",
            "exec.run: argument 1: expected a command as a list, such as { \"df\", \"-h\" }, got \"ls -l\"",
        ),
        ("run({})", "exec.run: argument 1: expected a command as a list, such as { \"df\", \"-h\" }, got a table"),
        (
            "run({ 'true', 5 })",
            "exec.run: argument 1: expected a command as a list, such as { \"df\", \"-h\" }, got a list of 2 values",
        ),
        ("run({ 'no such program' })", "exec.run: \"no such program\": No such file or directory (os error 2)"),
        ("run({ 'a\\0b' })", "exec.run: argument 1: expected text without NUL, got some"),
        ("read({ 'yes' })", "exec.read: \"yes\": expected at most 1000 bytes of standard output, got more"),
        (
            "read({ 'true' }, { timeout = '0s' })",
            "exec.read: option timeout: expected a duration such as \"5s\", got \"0s\"",
        ),
        (
            "read({ 'true' }, { evn = {} })",
            "exec.read: unknown option \"evn\", did you mean env? (known: timeout, stdin, env, max_output)",
        ),
    ] {
        assert_eq!(bench.error(&format!("require('setpoint.exec').{call}")), expected, "{call}");
    }
    let refused = Bench::new(Permissions::default());
    let error = refused.error("require('setpoint.exec').read({ 'true' })");
    assert_eq!(error, "exec.read: the host does not allow commands (`exec = true` under [policy] does)");
}

#[test]
#[cfg(target_os = "linux")]
fn processes_are_found_by_command_line_and_by_name() {
    // The number makes this process one of a kind on the machine.
    let number = 100_000 + std::process::id();
    let mut child = Command::new("sleep").arg(number.to_string()).stdout(Stdio::null()).spawn().unwrap();
    let bench = bench();
    let found = bench.run::<(u32, u32, String, Option<String>, bool)>(&format!(
        r#"
        local process = require("setpoint.process")
        local list = process.list("sleep {number}")
        assert(process.count({{ name = "sleep", command = "{number}" }}) == 1)
        assert(process.count({{ name = "no such name" }}) == 0 and process.count() > 1)
        assert(list[1].memory > 0 and list[1].started > 1.6e9 and list[1].cpu_seconds >= 0)
        return #list, list[1].pid, list[1].name, list[1].command, process.memory().used_percent > 0
        "#
    ));
    child.kill().unwrap();
    child.wait().unwrap();
    let (count, pid, name, command, used) = found.unwrap();
    assert_eq!((count, pid, name.as_str(), command, used), (1, child.id(), "sleep", None, true));
}

#[test]
#[cfg(target_os = "linux")]
fn cpu_percent_needs_two_readings() {
    let bench = bench();
    assert_eq!(bench.run::<Option<f64>>("return require('setpoint.process').cpu_percent()").unwrap(), None);
    let mut percent = None;
    within(Duration::from_secs(60), "a second reading", || {
        percent = bench.run::<Option<f64>>("return require('setpoint.process').cpu_percent()").unwrap();
        percent.is_some()
    });
    assert!((0.0..=100.0).contains(&percent.unwrap()));
}
