//! A genuine Mesos cluster on loopback ports of its own: masters, agents and, when asked for, the ZooKeeper in which they
//! elect. Each can be killed and started again. Nothing is left of it, executors and their tasks included.
//!
//! The cluster's own command and Docker executors and its fetcher are programs that no package has: `setpoint executor` stands
//! in for the first two, `tests/mesos/fetcher.py` for the third.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::port::{Port, PortBlock};
use super::process::end_marked;
use super::scratch::Scratch;
use super::server::Server;
use super::tool::tool;
use super::wait::{GENEROUS, wait_until};
use super::zookeeper::ZooKeeper;

/// What a cluster consists of. Settings are Mesos's flags as variables, such as `MESOS_ALLOCATION_INTERVAL`.
#[derive(Clone, Debug)]
pub(crate) struct ClusterSpec {
    pub(crate) masters: usize,
    pub(crate) agents: usize,
    /// As many more agents, which are started later.
    pub(crate) idle_agents: usize,
    /// Nodes of the ZooKeeper; 0 takes one master only, which leads at once.
    pub(crate) zookeeper: usize,
    pub(crate) master_settings: Vec<(String, String)>,
    pub(crate) agent_settings: Vec<(String, String)>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        let quick = ("MESOS_ALLOCATION_INTERVAL".to_owned(), "200ms".to_owned());
        Self {
            masters: 1,
            agents: 1,
            idle_agents: 0,
            zookeeper: 0,
            master_settings: vec![quick],
            agent_settings: Vec::new(),
        }
    }
}

impl ClusterSpec {
    /// With another setting of the masters.
    pub(crate) fn master(mut self, name: &str, value: &str) -> Self {
        self.master_settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another setting of the agents.
    pub(crate) fn agent(mut self, name: &str, value: &str) -> Self {
        self.agent_settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One master or agent.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) server: Server,
    port: Port,
    /// What an agent has for its tasks.
    ports: Option<PortBlock>,
    folder: PathBuf,
}

impl Member {
    /// The ports that tasks of this agent are given, unless a setting says otherwise.
    pub(crate) fn ports(&self) -> Range<u16> {
        self.ports.as_ref().expect("an agent").range()
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Where it keeps what it keeps.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Kills it and everything that runs on it: that knows of a folder in the agent's.
    pub(crate) fn destroy(&mut self) {
        self.server.kill();
        end_marked(&format!("{}/", self.folder.display()));
    }

    /// Makes it a new machine from its next start on: the address is all that it has of the old one.
    pub(crate) fn renew(&mut self) {
        self.folder.as_mut_os_string().push("-new");
        self.server.set("MESOSD_DIR", self.folder.to_str().unwrap());
    }
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    // In the order in which they end: who would notice the others' end goes first.
    pub(crate) agents: Vec<Member>,
    pub(crate) masters: Vec<Member>,
    pub(crate) zookeeper: Option<ZooKeeper>,
    folder: Scratch,
    http: reqwest::Client,
}

impl Cluster {
    /// Starts one and waits until a master leads and knows every agent; none where there is no Mesos (see [`tool`]).
    pub(crate) async fn start_new(spec: ClusterSpec) -> Option<Self> {
        let program = tool("mesosd")?;
        assert!(spec.masters == 1 || spec.zookeeper > 0, "several masters elect in ZooKeeper");
        let zookeeper = if spec.zookeeper > 0 { Some(ZooKeeper::start_new(spec.zookeeper)?) } else { None };
        let folder = Scratch::new();
        let launcher = launcher(&folder, &program);
        let member = |role: &str, index: usize, settings: &[(String, String)], place: Option<(&str, String)>| {
            let (port, own) = (Port::new(), folder.path(&format!("{role}-{index}")));
            let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let mut environment = vec![
                text("TEST_SCRATCH", folder.mark()),
                text("MESOSD_DIR", own.to_str().unwrap()),
                text("LIBPROCESS_PORT", &port.number().to_string()),
            ];
            environment.extend(place.map(|(name, value)| text(name, &value)));
            // Ports of their own, since they all live on one machine.
            let ports = (role == "agent").then(PortBlock::new);
            if let Some(Range { start, end }) = ports.as_ref().map(PortBlock::range) {
                let resources = format!("cpus:4;mem:4096;disk:4096;ports:[{start}-{}]", end - 1);
                environment.push(text("MESOS_RESOURCES", &resources));
                environment.push(text("MESOS_HOSTNAME", &format!("agent-{index}.test")));
                environment.push(text("MESOS_LAUNCHER_DIR", &launcher));
                // An agent that is back ends executors that are not by then; two seconds are little on a busy machine.
                environment.push(text("MESOS_EXECUTOR_REREGISTRATION_TIMEOUT", "15secs"));
                // What other agents of this machine run on its engine is no orphan.
                environment.push(text("MESOS_DOCKER_KILL_ORPHANS", "false"));
            }
            environment.extend(settings.iter().cloned());
            let log = folder.path(&format!("{role}-{index}.log"));
            let server = Server::new(program.clone(), vec![role.to_owned()], environment, log);
            Member { server, port, ports, folder: own }
        };
        let elected = zookeeper.as_ref().map(|zookeeper| ("MESOSD_ZK", zookeeper.url()));
        let masters: Vec<_> =
            (0..spec.masters).map(|index| member("master", index, &spec.master_settings, elected.clone())).collect();
        let place = elected.clone().or_else(|| Some(("MESOSD_MASTER", masters[0].address())));
        let agents: Vec<_> = (0..spec.agents + spec.idle_agents)
            .map(|index| member("agent", index, &spec.agent_settings, place.clone()))
            .collect();
        let http = super::setpoint::client();
        let mut cluster = Self { agents, masters, zookeeper, folder, http };
        cluster.masters.iter_mut().for_each(|master| master.server.start());
        cluster.wait_for_leader().await;
        cluster.agents[..spec.agents].iter_mut().for_each(|agent| agent.server.start());
        cluster.supervise_until_registered(spec.agents).await;
        Some(cluster)
    }

    /// The masters as `host:port,host:port`.
    pub(crate) fn list(&self) -> String {
        self.masters.iter().map(Member::address).collect::<Vec<_>>().join(",")
    }

    /// The masters as `zk://…`.
    pub(crate) fn zk(&self) -> String {
        self.zookeeper.as_ref().expect("this cluster has a ZooKeeper").url()
    }

    /// What every process of the cluster carries, its executors too.
    pub(crate) const fn folder(&self) -> &Scratch {
        &self.folder
    }

    /// Which master leads: the one whose state it is that they show, or send to.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let state = self.state().await?;
        let leads = |master: &Member| state["pid"].as_str().is_some_and(|pid| pid.ends_with(&master.address()));
        self.masters.iter().position(leads)
    }

    /// Waits until one leads.
    pub(crate) async fn wait_for_leader(&self) -> usize {
        self.wait("a master leads", async || self.leader().await).await
    }

    /// Waits for something that the logs of all say more about when it does not come.
    async fn wait<T>(&self, what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
        let waiting = wait_until(GENEROUS * 2, what, check);
        let Ok(value) = tokio::time::timeout(GENEROUS, waiting).await else {
            panic!("waited {GENEROUS:?} in vain until {what}\n{}", self.logs());
        };
        value
    }

    /// The same, starting masters again that end by themselves: one that loses ZooKeeper steps down that way.
    pub(crate) async fn supervise_until_led(&mut self) -> usize {
        let what = format!("a master leads; logs in {}", self.folder.mark());
        let leads = async || {
            self.masters.iter_mut().for_each(|master| master.server.supervise());
            self.leader().await
        };
        wait_until(GENEROUS, &what, leads).await
    }

    /// Waits until the leader knows so many active agents.
    pub(crate) async fn wait_for_agents(&self, count: usize) {
        let registered = async || self.registered().await.filter(|registered| *registered == count);
        self.wait(&format!("{count} agents are registered"), registered).await;
    }

    /// The same, starting agents again that end by themselves: they give their engine five seconds to tell its version, which
    /// on a busy machine it needs more of.
    async fn supervise_until_registered(&mut self, count: usize) {
        let began = Instant::now();
        while self.registered().await != Some(count) {
            assert!(
                began.elapsed() < GENEROUS,
                "{count} agents are not registered after {GENEROUS:?}\n{}",
                self.logs()
            );
            self.agents.iter_mut().for_each(|agent| agent.server.supervise());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many active agents the leader knows.
    async fn registered(&self) -> Option<usize> {
        let state = self.state().await?;
        Some(state["slaves"].as_array()?.iter().filter(|agent| agent["active"] == true).count())
    }

    /// The leader's `/state`; none while nobody leads. A master that does not lead sends to the one that does.
    pub(crate) async fn state(&self) -> Option<Value> {
        for master in self.masters.iter().filter(|master| master.server.is_up()) {
            if let Some(state) = self.get(&format!("http://{}/state", master.address())).await {
                return Some(state);
            }
        }
        None
    }

    /// The tasks of a framework in that state (`TASK_RUNNING`), by the leader's `/state`.
    pub(crate) async fn tasks(&self, framework_id: &str, task_state: &str) -> Option<Vec<String>> {
        let state = self.state().await?;
        let framework =
            state["frameworks"].as_array()?.iter().find(|framework| framework["id"] == framework_id)?.clone();
        let tasks = framework["tasks"].as_array()?.iter().filter(|task| task["state"] == task_state);
        Some(tasks.filter_map(|task| Some(task["id"].as_str()?.to_owned())).collect())
    }

    /// Kills the leading master with SIGKILL, waits until another one leads, and tells which was killed and how long
    /// that took.
    pub(crate) async fn kill_leader(&mut self) -> (usize, Duration) {
        let leader = self.supervise_until_led().await;
        self.masters[leader].server.kill();
        let began = Instant::now();
        self.supervise_until_led().await;
        (leader, began.elapsed())
    }

    /// Anything that answers JSON.
    pub(crate) async fn get(&self, url: &str) -> Option<Value> {
        self.http.get(url).timeout(Duration::from_secs(5)).send().await.ok()?.error_for_status().ok()?.json().await.ok()
    }

    /// Every log, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let members = self.masters.iter().chain(&self.agents);
        members.map(|member| member.server.log()).collect::<Vec<_>>().join("\n----\n")
    }
}

/// The folder of the programs that agents start, as its path.
fn launcher(folder: &Scratch, mesosd: &Path) -> String {
    let genuine = mesosd.canonicalize().unwrap().parent().unwrap().join("libexec/mesos-containerizer");
    let own = folder.path("launcher");
    fs::create_dir_all(&own).unwrap();
    symlink(genuine, own.join("mesos-containerizer")).unwrap();
    symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesos/fetcher.py"), own.join("mesos-fetcher")).unwrap();
    let executor = format!("exec {} executor --single", env!("CARGO_BIN_EXE_setpoint"));
    program(&own.join("mesos-executor"), &executor);
    let docker = format!(
        r#"for argument; do
  case $argument in
    --container=*) container=${{argument#*=}} ;;
    --docker_socket=*) export DOCKER_HOST=unix://${{argument#*=}} ;;
    --mapped_directory=*) mapped=${{argument#*=}} ;;
    --sandbox_directory=*) cd "${{argument#*=}}" || exit ;;
  esac
done
{executor} --container "$container" --mapped-directory "$mapped""#
    );
    program(&own.join("mesos-docker-executor"), &docker);
    own.to_str().unwrap().to_owned()
}

fn program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
