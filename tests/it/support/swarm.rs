//! A genuine Swarm of a test's own: each node is an engine in a network namespace of its own, with an address that is
//! reached from the test and from the other nodes. Everything goes with it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::docker::{Docker, unmount_below};
use super::scratch::Scratch;
use super::tool::{missing, tool};
use super::wait::{GENEROUS, wait_until_blocking};

/// Two nodes, the first of them the manager.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) manager: Node,
    pub(crate) worker: Node,
}

impl Swarm {
    /// Starts one; none when there is no `dockerd` or no right to run it (see [`tool`]).
    pub(crate) fn start_new() -> Option<Self> {
        let (manager, worker) = (Node::start_new()?, Node::start_new()?);
        link(&manager, &worker);
        let (first, second) = (manager.address.clone(), worker.address.clone());
        manager.docker.run(&["swarm", "init", "--advertise-addr", &first, "--listen-addr", &format!("{first}:2377")]);
        let token = manager.docker.run(&["swarm", "join-token", "--quiet", "worker"]);
        worker.docker.run(&[
            "swarm",
            "join",
            "--token",
            &token,
            "--advertise-addr",
            &second,
            "--listen-addr",
            &format!("{second}:2377"),
            &format!("{first}:2377"),
        ]);
        let swarm = Self { manager, worker };
        wait_until_blocking(GENEROUS, "both nodes are ready", || {
            let nodes = swarm.manager.docker.run(&["node", "ls", "--format", "{{.Status}}"]);
            (nodes.lines().filter(|status| *status == "Ready").count() == 2).then_some(())
        });
        Some(swarm)
    }

    /// Both nodes.
    pub(crate) fn nodes(&self) -> [&Node; 2] {
        [&self.manager, &self.worker]
    }

    /// The image of that name on both nodes.
    pub(crate) fn image(&self, name: &str) -> Option<String> {
        self.worker.docker.image(name)?;
        self.manager.docker.image(name)
    }

    /// The configuration of a setpoint whose Swarm this is.
    pub(crate) fn settings(&self) -> String {
        let [manager, worker] = self.nodes().map(|node| node.docker.host().to_owned());
        format!(
            "[swarm]\nmanager = \"one\"\n[docker.engines.one]\nhost = \"{manager}\"\n[docker.engines.two]\nhost = \"{worker}\"\n"
        )
    }
}

/// One node: an engine in a network namespace.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) docker: Docker,
    /// Its address, reached from the test.
    pub(crate) address: String,
    name: String,
    child: Option<Child>,
    folder: Scratch,
}

impl Node {
    fn start_new() -> Option<Self> {
        let main = Docker::main()?;
        let (dockerd, nsenter) = (tool("dockerd")?, tool("nsenter")?);
        if !rustix::process::geteuid().is_root() {
            missing("root, for a Swarm of a test's own,");
            return None;
        }
        let folder = Scratch::new();
        fs::write(folder.path("daemon.json"), "{}").unwrap();
        let docker = main.at(&format!("unix://{}", folder.path("docker.sock").display()));
        let driver = main.run(&["info", "--format", "{{.Driver}}"]);
        let (name, address) = namespace();
        let mut node = Self { docker, address, name, child: None, folder };
        node.start(&dockerd, &nsenter, &driver);
        Some(node)
    }

    fn start(&mut self, dockerd: &PathBuf, nsenter: &PathBuf, driver: &str) {
        let at = |name: &str| self.folder.path(name).to_str().unwrap().to_owned();
        let log = fs::File::options().create(true).append(true).open(self.folder.path("dockerd.log")).unwrap();
        let mut command = Command::new(nsenter);
        // Only the network is another: with mounts of its own the engine would miss the control groups.
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(dockerd);
        command.args(["--config-file", &at("daemon.json"), "--host", &format!("unix://{}", at("docker.sock"))]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("docker.pid")]);
        command.args(["--storage-driver", driver]).env("TEST_SCRATCH", self.folder.mark());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait_until_blocking(GENEROUS, "the node's engine answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "dockerd ended with {ended:?}:\n{}", self.log());
            self.docker.try_run(&["version"])
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path("dockerd.log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(15);
            eprintln!("--- the end of the log of node {}:", self.address);
            log.lines().skip(from).for_each(|line| eprintln!("{line}"));
        }
        self.docker.try_run(&["swarm", "leave", "--force"]);
        let all = self.docker.try_run(&["ps", "--all", "--no-trunc", "--quiet"]).unwrap_or_default();
        self.docker.remove(&all.lines().map(str::to_owned).collect::<Vec<_>>());
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), Signal::TERM).ok();
            for _ in 0..600 {
                if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            drop(child.kill());
            drop(child.wait());
        }
        unmount_below(self.folder.folder());
        ip(&["netns", "del", &self.name]);
        ip(&["link", "del", &outer(&self.name)]);
    }
}

/// Makes a namespace with a way to here and back; its name and its address. The name is the lock of the address.
fn namespace() -> (String, String) {
    static FIRST: AtomicU32 = AtomicU32::new(0);
    for _ in 0..60 {
        let number = 30 + FIRST.fetch_add(1, Ordering::Relaxed) % 60;
        let name = format!("spt-node{number}");
        if !ip(&["netns", "add", &name]) {
            continue;
        }
        let (host, address) = (format!("172.31.{number}.1/24"), format!("172.31.{number}.2"));
        let made = ip(&["link", "add", &outer(&name), "type", "veth", "peer", "name", "eth0", "netns", &name])
            && ip(&["addr", "add", &host, "dev", &outer(&name)])
            && ip(&["link", "set", &outer(&name), "up"])
            && ip(&["-n", &name, "addr", "add", &format!("{address}/24"), "dev", "eth0"])
            && ip(&["-n", &name, "link", "set", "eth0", "up"])
            && ip(&["-n", &name, "link", "set", "lo", "up"]);
        assert!(made, "{name} gets no network");
        return (name, address);
    }
    panic!("no network namespace can be made");
}

/// The name of this side's end of a node's link.
fn outer(name: &str) -> String {
    name.replace("spt-node", "sptn")
}

/// Joins two nodes by a link of their own: what goes through this machine's network obeys its engine's rules.
fn link(one: &Node, two: &Node) {
    let made =
        ip(&["-n", &one.name, "link", "add", "peer0", "type", "veth", "peer", "name", "peer0", "netns", &two.name]);
    assert!(made, "the nodes cannot be joined");
    for (node, other) in [(one, two), (two, one)] {
        let ready = ip(&["-n", &node.name, "link", "set", "peer0", "up"])
            && ip(&[
                "-n",
                &node.name,
                "route",
                "add",
                &format!("{}/32", other.address),
                "dev",
                "peer0",
                "src",
                &node.address,
            ]);
        assert!(ready, "{} cannot reach {}", node.address, other.address);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
