//! Genuine Docker engines: the machine's own, and further ones that a test may hurt.
//!
//! Everything that a test starts on the machine's engine carries the label `setpoint.test=<scratch folder>`, and is removed
//! by that. Further engines have socket, data, network and processes of their own in a scratch folder, and go with it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::scratch::Scratch;
use super::tool::{missing, tool};
use super::wait::{GENEROUS, wait_until_blocking};

/// The label of everything that a test starts.
pub(crate) const LABEL: &str = "setpoint.test";

/// An engine, as a test uses it: through Docker's own client.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    client: PathBuf,
    host: String,
}

impl Docker {
    /// The machine's own engine. Without one a test under `CI` fails, and any other says so and is skipped.
    pub(crate) fn main() -> Option<Self> {
        let docker = Self { client: tool("docker")?, host: "unix:///var/run/docker.sock".to_owned() };
        if docker.try_run(&["version"]).is_none() {
            missing("a Docker engine on /var/run/docker.sock");
            return None;
        }
        Some(docker)
    }

    /// Its address, as in `DOCKER_HOST`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The same engine by another address.
    pub(crate) fn at(&self, host: &str) -> Self {
        Self { client: self.client.clone(), host: host.to_owned() }
    }

    /// The name of one of the images that `tests/images` makes: `busybox`, `memcached`, `redis`. Brings it to the engine
    /// when it is not there; images stay, for the next test.
    pub(crate) fn image(&self, name: &str) -> Option<String> {
        let folder = PathBuf::from(env::var_os("SETPOINT_TEST_TOOLS").unwrap_or_default()).join("../images");
        let (tar, changes) = (folder.join(format!("{name}.tar")), folder.join(format!("{name}.changes")));
        let (Ok(content), Ok(changes)) = (fs::metadata(&tar), fs::read_to_string(&changes)) else {
            missing(&format!("the image `{name}`"));
            return None;
        };
        // Another content is another image.
        let modified = content.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let image = format!("setpoint-test/{name}:{modified}-{}", content.len());
        if self.try_run(&["image", "inspect", &image]).is_none() {
            let mut arguments = vec!["import"];
            changes.lines().for_each(|line| arguments.extend(["--change", line]));
            self.run(&[arguments, vec![tar.to_str().unwrap(), &image]].concat());
        }
        Some(image)
    }

    /// `docker ARGS…`: what it printed. Panics when it fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {}: {said}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same; none when it fails.
    pub(crate) fn try_run(&self, arguments: &[&str]) -> Option<String> {
        let output = self.output(arguments);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// `docker ARGS…` as a command of one's own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(name);
        }
        command.args(["--host", &self.host]).args(arguments).stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The containers, running or not, that carry a label: `key=value`.
    pub(crate) fn containers(&self, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let listed = self.run(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter]);
        listed.lines().map(str::to_owned).collect()
    }

    /// The containers of a test.
    pub(crate) fn of_test(&self, scratch: &Scratch) -> Vec<String> {
        self.containers(&format!("{LABEL}={}", scratch.mark()))
    }

    /// Everything that the engine says of a container.
    pub(crate) fn inspect(&self, container: &str) -> Option<Value> {
        let text = self.try_run(&["inspect", "--type", "container", container])?;
        let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
        all.pop()
    }

    /// Removes containers by force; those that are gone are fine.
    pub(crate) fn remove(&self, containers: &[String]) {
        if !containers.is_empty() {
            let names = containers.iter().map(String::as_str);
            self.try_run(&["rm", "--force", "--volumes"].into_iter().chain(names).collect::<Vec<_>>());
        }
    }

    /// A guard that removes what a test started, when it is dropped.
    pub(crate) fn sweep<'a>(&self, scratch: &'a Scratch) -> Sweep<'a> {
        Sweep { docker: self.clone(), scratch }
    }
}

/// Removes the containers of a test from an engine when it is dropped. Make it before setpoint, so that it goes after it.
#[derive(Debug)]
pub(crate) struct Sweep<'a> {
    docker: Docker,
    scratch: &'a Scratch,
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        // Twice: a request may have been on its way.
        for _ in 0..2 {
            let left = self.docker.try_run(&[
                "ps",
                "--all",
                "--no-trunc",
                "--quiet",
                "--filter",
                &format!("label={LABEL}={}", self.scratch.mark()),
            ]);
            let left: Vec<String> = left.iter().flat_map(|list| list.lines()).map(str::to_owned).collect();
            self.docker.remove(&left);
        }
    }
}

/// How an engine of a test's own is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct EngineOptions {
    /// Containers go on while the engine is down.
    pub(crate) live_restore: bool,
    /// Further arguments of `dockerd`.
    pub(crate) arguments: Vec<String>,
}

/// A Docker engine of a test's own: it can be killed, frozen, restarted. Needs root.
#[derive(Debug)]
pub(crate) struct OwnEngine {
    program: PathBuf,
    docker: Docker,
    options: EngineOptions,
    driver: String,
    bridge: Bridge,
    child: Option<Child>,
    folder: Scratch,
}

impl OwnEngine {
    /// Starts one; none when there is no `dockerd` (see [`tool`]) or no right to run it.
    pub(crate) fn start_new(options: EngineOptions) -> Option<Self> {
        let main = Docker::main()?;
        let program = tool("dockerd")?;
        if !rustix::process::geteuid().is_root() {
            missing("root, for an engine of a test's own,");
            return None;
        }
        let folder = Scratch::new();
        fs::write(folder.path("daemon.json"), "{}").unwrap();
        let docker = main.at(&format!("unix://{}", folder.path("docker.sock").display()));
        let driver = main.run(&["info", "--format", "{{.Driver}}"]);
        let mut engine = Self { program, docker, options, driver, bridge: Bridge::new(), child: None, folder };
        engine.start();
        Some(engine)
    }

    /// Docker's client for it.
    pub(crate) const fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path("docker.sock")
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.folder()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path("dockerd.log")).unwrap_or_default()
    }

    /// Starts it again after `stop` or `kill`, and waits until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "this engine runs already");
        // What a killed engine leaves, and would not start beside.
        for stale in ["docker.pid", "exec/containerd/containerd.pid"] {
            fs::remove_file(self.folder.path(stale)).ok();
        }
        let at = |name: &str| self.folder.path(name).to_str().unwrap().to_owned();
        let log = fs::File::options().create(true).append(true).open(self.folder.path("dockerd.log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["--config-file", &at("daemon.json"), "--host", &format!("unix://{}", at("docker.sock"))]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("docker.pid")]);
        command.args(["--storage-driver", &self.driver, "--bridge", &self.bridge.name]);
        command.args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        if self.options.live_restore {
            command.arg("--live-restore");
        }
        command.args(&self.options.arguments).env("TEST_SCRATCH", self.folder.mark());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait_until_blocking(GENEROUS, "the engine answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "dockerd ended with {ended:?}:\n{}", self.log());
            self.docker.try_run(&["version"])
        });
    }

    /// Stops it in order, and waits for its end. Without `live_restore` that ends its containers.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.child.take().expect("this engine runs").wait().unwrap();
    }

    /// Ends it by SIGKILL; its containers go on.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().expect("this engine runs").wait().unwrap();
    }

    /// Freezes it: connections are accepted and nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Restarts it with or without containers going on meanwhile, from now on.
    pub(crate) fn set_live_restore(&mut self, live_restore: bool) {
        self.options.live_restore = live_restore;
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("this engine runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    fn clean(&mut self) {
        if let Some(child) = &mut self.child {
            kill_process(Pid::from_child(child), Signal::CONT).ok();
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                self.child = None;
            }
        }
        if self.child.is_none() || !self.socket().exists() {
            // Only an engine can end containers so that nothing of them is left.
            if self.child.is_some() {
                self.kill();
            }
            self.start();
        }
        let all = self.docker.try_run(&["ps", "--all", "--no-trunc", "--quiet"]).unwrap_or_default();
        self.docker.remove(&all.lines().map(str::to_owned).collect::<Vec<_>>());
        self.signal(Signal::TERM);
        let child = self.child.as_mut().expect("this engine runs");
        wait_until_blocking(Duration::from_secs(30), "the engine ends", || child.try_wait().unwrap());
        self.child = None;
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(20);
            eprintln!("--- the end of the engine's log:");
            log.lines().skip(from).for_each(|line| eprintln!("{line}"));
        }
        // A test that failed must not be ended by the cleaning that follows it.
        let cleaned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean()));
        if cleaned.is_err() {
            eprintln!("the engine in {} could not be ended in order", self.folder.mark());
        }
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        unmount_below(self.folder.folder());
    }
}

/// Unmounts what is mounted below a folder, the deepest first.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut below: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    below.retain(|path| Path::new(path).starts_with(folder));
    below.sort_unstable();
    for path in below.iter().rev() {
        Command::new("umount").args(["--lazy", path]).stderr(Stdio::null()).status().ok();
    }
}

/// A network of an engine's own. Its number is its lock: a second one of the name cannot be made.
#[derive(Debug)]
struct Bridge {
    name: String,
}

impl Bridge {
    fn new() -> Self {
        let ip = |arguments: &[&str]| {
            Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let name = (100..250).find_map(|number: u8| {
            let name = format!("spt{number}");
            ip(&["link", "add", &name, "type", "bridge"]).then(|| {
                assert!(ip(&["addr", "add", &format!("172.31.{number}.1/24"), "dev", &name]), "no address for {name}");
                assert!(ip(&["link", "set", &name, "up"]), "{name} cannot be used");
                name
            })
        });
        Self { name: name.expect("a bridge can be made") }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        Command::new("ip").args(["link", "del", &self.name]).stderr(Stdio::null()).status().ok();
    }
}

#[test]
fn an_engine_of_ones_own_can_be_killed_and_goes_with_everything() {
    let Some(mut engine) = OwnEngine::start_new(EngineOptions { live_restore: true, ..EngineOptions::default() })
    else {
        return;
    };
    let Some(image) = engine.docker().image("busybox") else { return };
    let docker = engine.docker().clone();
    let id = docker.run(&["run", "--detach", "--init", &image, "sleep", "600"]);
    engine.kill();
    assert_eq!(docker.try_run(&["version"]), None);
    engine.start();
    let state = docker.inspect(&id).unwrap();
    assert_eq!(state["State"]["Running"], true);
    let pid = state["State"]["Pid"].as_i64().unwrap();
    let folder = engine.folder().to_owned();
    drop(engine);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "its containers end with it");
    assert!(!folder.exists());
}
