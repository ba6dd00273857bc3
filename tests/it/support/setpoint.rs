//! The built binary as a user runs it: its files, its API, its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::scratch::Scratch;
use super::wait::{GENEROUS, wait_until};

/// A running `setpoint`, killed on drop; tasks that it leaves are ended with the scratch folder.
#[derive(Debug)]
pub(crate) struct Setpoint {
    child: Child,
    exit: Option<ExitStatus>,
    files: Files,
    address: Option<String>,
}

/// What a command that ran to its end gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

#[derive(Debug)]
struct Files {
    stdout: std::path::PathBuf,
    stderr: std::path::PathBuf,
}

impl Setpoint {
    /// `setpoint run ARGS… --listen 127.0.0.1:0` in the scratch folder.
    pub(crate) fn run<A: AsRef<OsStr>>(scratch: &Scratch, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = command(scratch);
        command.arg("run").args(arguments).args(["--listen", "127.0.0.1:0"]);
        Self::spawn(scratch, command)
    }

    /// `setpoint ARGS…` in the scratch folder, running on.
    pub(crate) fn start<A: AsRef<OsStr>>(scratch: &Scratch, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = command(scratch);
        command.args(arguments);
        Self::spawn(scratch, command)
    }

    /// Starts a command that [`command`] made, for tests that change its environment.
    pub(crate) fn spawn(scratch: &Scratch, mut command: Command) -> Self {
        let files = Files::next(scratch);
        let stdout = File::create(&files.stdout).unwrap();
        let stderr = File::create(&files.stderr).unwrap();
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        Self { child, exit: None, files, address: None }
    }

    /// `setpoint ARGS…` to its end.
    pub(crate) async fn output<A: AsRef<OsStr>>(scratch: &Scratch, arguments: impl IntoIterator<Item = A>) -> Finished {
        let mut setpoint = Self::start(scratch, arguments);
        let status = setpoint.exit(GENEROUS).await;
        Finished { code: status.code(), stdout: setpoint.stdout(), stderr: setpoint.stderr() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        read(&self.files.stdout)
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        read(&self.files.stderr)
    }

    /// Waits until the log contains `text`.
    pub(crate) async fn logged(&self, text: &str) {
        wait_until(GENEROUS, &format!("the log contains `{text}`"), async || {
            self.stderr().contains(text).then_some(())
        })
        .await;
    }

    /// `http://127.0.0.1:PORT`, as soon as it listens.
    pub(crate) async fn address(&mut self) -> String {
        if let Some(address) = &self.address {
            return address.clone();
        }
        let address = wait_until(GENEROUS, "setpoint listens", async || {
            let address = listening(&self.stderr());
            if address.is_none() {
                let exit = self.child.try_wait().unwrap();
                assert!(exit.is_none(), "setpoint ended with {exit:?} instead of listening");
            }
            address
        })
        .await;
        self.address = Some(address.clone());
        address
    }

    /// GET: status and JSON; an answer that is not JSON comes as a string.
    pub(crate) async fn get(&mut self, path: &str) -> (u16, Value) {
        let url = self.address().await + path;
        answer(client().get(url)).await
    }

    /// POST of JSON: status and JSON.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let url = self.address().await + path;
        answer(client().post(url).json(body)).await
    }

    /// The policy of that name, as the API shows it; none while there is none.
    pub(crate) async fn policy(&mut self, name: &str) -> Option<Value> {
        let (status, policy) = self.get(&format!("/v1/policies/{name}")).await;
        (status == 200).then_some(policy)
    }

    /// The tasks of all policies.
    pub(crate) async fn tasks(&mut self) -> Vec<Value> {
        let (status, mut tasks) = self.get("/v1/tasks").await;
        assert_eq!(status, 200, "{tasks}");
        serde_json::from_value(tasks["tasks"].take()).unwrap()
    }

    /// Waits until the policy is as `check` wants it, and gives it.
    pub(crate) async fn policy_until(&mut self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        wait_until(GENEROUS, what, async || self.policy(name).await.filter(&check)).await
    }

    /// Waits until the policy has `n` running tasks and none on the way.
    pub(crate) async fn running(&mut self, name: &str, n: u64) -> Value {
        self.policy_until(name, &format!("`{name}` runs {n} tasks"), |policy| {
            policy["tasks"]["running"] == n && policy["tasks"]["in_flight"] == 0
        })
        .await
    }

    /// Waits until the policy has ticked `n` more times.
    pub(crate) async fn ticks(&mut self, name: &str, n: u64) -> Value {
        let ticks = |policy: &Value| policy["ticks"].as_u64().unwrap_or_default();
        let before = self.policy_until(name, "the policy is there", |_| true).await;
        let goal = ticks(&before) + n;
        self.policy_until(name, &format!("`{name}` ticks {n} times"), |policy| goal <= ticks(policy)).await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as an operator would, and waits.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit(GENEROUS).await
    }

    /// Ends it by SIGKILL, and waits; its tasks are left as they are.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.exit = Some(self.child.wait().unwrap());
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self, limit: Duration) -> ExitStatus {
        if self.exit.is_none() {
            self.exit = Some(wait_until(limit, "setpoint ends", async || self.child.try_wait().unwrap()).await);
        }
        self.exit.expect("it has just been set")
    }
}

impl Drop for Setpoint {
    fn drop(&mut self) {
        if self.exit.is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let log = self.stderr();
            let from = log.lines().count().saturating_sub(60);
            eprintln!("--- the end of setpoint's log:");
            log.lines().skip(from).for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Files {
    /// Files of a name that no other run in this scratch folder has.
    fn next(scratch: &Scratch) -> Self {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let folder = scratch.path("logs");
        fs::create_dir_all(&folder).unwrap();
        let run = RUN.fetch_add(1, Ordering::Relaxed);
        Self { stdout: folder.join(format!("{run}.stdout")), stderr: folder.join(format!("{run}.stderr")) }
    }
}

/// `setpoint` in the scratch folder, with its mark and without the surroundings' `SETPOINT_*` variables.
pub(crate) fn command(scratch: &Scratch) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SETPOINT_") {
            command.env_remove(name);
        }
    }
    command.current_dir(scratch.folder()).env("TEST_SCRATCH", scratch.mark()).env("NO_COLOR", "1");
    command
}

/// An HTTP client that takes no proxy from the environment.
pub(crate) fn client() -> reqwest::Client {
    // Another test of this process may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(GENEROUS).build().unwrap()
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The address in the log's line about listening, whichever format the log has.
fn listening(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("listening") && line.contains("http://127.0.0.1:"))?;
    let (_, rest) = line.split_once("http://127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    // A line that is still being written may break off within the number.
    (port.len() < rest.len() && !port.is_empty()).then(|| format!("http://127.0.0.1:{port}"))
}

fn read(path: &std::path::Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

#[test]
fn the_address_is_found_in_both_log_formats() {
    let text = "INFO listening address=http://127.0.0.1:8080 token=none\n";
    let json = r#"{"message":"listening","address":"http://127.0.0.1:8080"}"#;
    assert_eq!(listening(text).as_deref(), Some("http://127.0.0.1:8080"));
    assert_eq!(listening(json).as_deref(), Some("http://127.0.0.1:8080"));
    assert_eq!(listening("INFO listening address=http://127.0.0.1:80"), None);
}
