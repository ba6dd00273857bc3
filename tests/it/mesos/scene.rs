//! Hosts of ours on a genuine cluster, each with a policy that asks for so many sleeping tasks; what the master, the host and
//! the processes say of them must agree. And how long a host takes to be in control again after a fault.
//!
//! Moments are taken where things happen: the master stamps elections and statuses, setpoint its subscription and when
//! every task has been heard of. A fault that breaks nothing shows in neither, so what the test sees counts as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use super::backend::{policy, sleepers};
use crate::support::{Cluster, GENEROUS, Scratch, Setpoint, setting, wait_until};

/// How long agreement may take on a machine that is busy with other things; hangs take longer.
const PATIENCE: Duration = GENEROUS.saturating_mul(3);

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What a fault was.
pub(super) struct Fault {
    /// When it was over, in seconds since 1970.
    pub(super) over: f64,
    /// The tasks that it may have ended.
    pub(super) hit: BTreeSet<String>,
    /// Whether subscriptions break: then only a later one counts.
    breaks: bool,
}

impl Fault {
    /// One that ends these tasks, and breaks nothing else.
    pub(super) fn of_tasks(hit: BTreeSet<String>, over: f64) -> Self {
        Self { over, hit, breaks: false }
    }

    /// One of the cluster's that neither tasks nor subscriptions need notice.
    pub(super) fn unnoticed(over: f64) -> Self {
        Self::of_tasks(BTreeSet::new(), over)
    }

    /// One that breaks subscriptions, and ends no task.
    pub(super) fn of_streams(over: f64) -> Self {
        Self { breaks: true, ..Self::unnoticed(over) }
    }
}

/// Where a task runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) agent: String,
    pub(super) executor: String,
}

/// What the master says of a framework.
#[derive(Debug, Default)]
struct Told {
    /// Tasks that are alive.
    alive: BTreeMap<String, Place>,
    /// Those that run, with the names of their agents.
    running: BTreeMap<String, String>,
    /// When the state of any task last changed.
    last: f64,
}

/// One setpoint, its policy `p` and its tasks.
pub(super) struct Host {
    pub(super) setpoint: Setpoint,
    pub(super) scratch: Scratch,
    /// Where it is told that the masters are.
    pub(super) masters: String,
    /// For how long its tasks sleep: what tells them from those of others.
    seconds: u32,
    wanted: u32,
    framework: String,
}

impl Host {
    fn start(masters: &str, wanted: u32, index: usize) -> Self {
        let scratch = Scratch::new();
        let seconds = 300_000 + fastrand::u32(..1000) * 1000 + std::process::id() % 1000 + index as u32 * 1_000_000;
        scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{masters}\"\n"));
        scratch.write("started", "");
        ask(&scratch, wanted, seconds);
        let setpoint = Self::spawn(&scratch, "st");
        Self { setpoint, scratch, masters: masters.to_owned(), seconds, wanted, framework: String::new() }
    }

    /// Runs a setpoint on this host's policy, with that state folder.
    pub(super) fn spawn(scratch: &Scratch, state: &str) -> Setpoint {
        let path = |name: &str| scratch.path(name).display().to_string();
        Setpoint::run(scratch, ["--config", &path("setpoint.toml"), "--state-dir", &path(state), &path("p.lua")])
    }

    /// Asks for so many tasks.
    fn ask(&mut self, n: u32) {
        self.wanted = n;
        ask(&self.scratch, n, self.seconds);
    }

    /// What the host shows of its framework.
    async fn facts(&mut self) -> Value {
        let (_, mut shown) = self.setpoint.get("/v1/policies").await;
        shown["backends"]["mesos"]["facts"].take()
    }

    async fn told(&self, cluster: &Cluster) -> Option<Told> {
        let state = cluster.state().await?;
        let frameworks = state["frameworks"].as_array()?;
        let framework = frameworks.iter().find(|framework| framework["id"] == self.framework.as_str())?;
        let names = agents(&state);
        let mut told = Told::default();
        for list in ["tasks", "completed_tasks"] {
            for task in framework[list].as_array()? {
                let id = task["id"].as_str()?.to_owned();
                let times = task["statuses"].as_array()?.iter().filter_map(|status| status["timestamp"].as_f64());
                told.last = times.fold(told.last, f64::max);
                // One that has ended stays listed until its end is acknowledged.
                let alive = ["TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"];
                if list == "tasks" && alive.iter().any(|state| task["state"] == *state) {
                    let (agent, executor) =
                        (task["slave_id"].as_str()?.to_owned(), task["executor_id"].as_str()?.to_owned());
                    if task["state"] == "TASK_RUNNING" {
                        told.running.insert(id.clone(), names.get(&agent).cloned().unwrap_or_default());
                    }
                    told.alive.insert(id, Place { agent, executor });
                }
            }
        }
        (framework["active"] == true).then_some(told)
    }

    /// Waits until master and host name the same tasks at the same places, as many as are wanted, all of them running; gives
    /// them, and when the host had heard of all of them and the last of them had changed. Its subscription has to be from
    /// after `since`.
    async fn settled(&mut self, cluster: &Cluster, since: f64) -> (BTreeSet<String>, f64) {
        let began = Instant::now();
        loop {
            let (ours, facts) = (running(&mut self.setpoint).await, self.facts().await);
            let fact = |name: &str| facts[name].as_str()?.parse::<Timestamp>().ok();
            let fact = |name: &str| Some(fact(name)?.as_microsecond() as f64 / 1e6);
            if let Some(told) = self.told(cluster).await
                && let (Some(subscribed), Some(reconciled)) = (fact("subscribed"), fact("reconciled"))
                && since <= subscribed
                && told.running.len() == self.wanted as usize
                && told.alive.keys().eq(told.running.keys())
                && ours.as_ref() == Some(&told.running)
            {
                assert_eq!(facts["framework"], self.framework.as_str(), "the same framework over every fault");
                return (told.running.into_keys().collect(), told.last.max(reconciled));
            }
            if began.elapsed() > PATIENCE {
                let told = self.told(cluster).await;
                panic!(
                    "not {} tasks on both sides: ours {ours:?}, the master's {told:?}, {facts}\n{}",
                    self.wanted,
                    cluster.logs()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until as many processes run as are wanted; none of them may have been started twice.
    async fn counted(&self, tasks: &BTreeSet<String>) {
        let n = self.wanted as usize;
        wait_until(PATIENCE, "as many processes", async || (sleepers(self.seconds) == n).then_some(())).await;
        let (started, ids) = (self.scratch.read("started"), self.started());
        assert_eq!(ids.len(), started.lines().count(), "a task was launched twice:\n{started}");
        assert!(tasks.is_subset(&ids), "{tasks:?} have not all been started");
    }

    /// The tasks that have ever begun to run.
    fn started(&self) -> BTreeSet<String> {
        self.scratch.read("started").lines().map(str::to_owned).collect()
    }

    /// Ends the host by SIGKILL and starts it again.
    pub(super) fn restart(&mut self) {
        self.setpoint.kill();
        self.setpoint = Self::spawn(&self.scratch, "st");
    }
}

/// The names of a cluster's agents by their ids, by the master's state.
pub(super) fn agents(state: &Value) -> BTreeMap<String, String> {
    let agents = state["slaves"].as_array().into_iter().flatten();
    agents
        .filter_map(|agent| Some((agent["id"].as_str()?.to_owned(), agent["hostname"].as_str()?.to_owned())))
        .collect()
}

/// A host's tasks with the agents that they run on; none while one of them does not run.
pub(super) async fn running(setpoint: &mut Setpoint) -> Option<BTreeMap<String, String>> {
    let tasks = setpoint.tasks().await;
    let place = |task: &Value| {
        let runs = task["state"] == "running";
        runs.then(|| Some((task["id"].as_str()?.to_owned(), task["host"].as_str()?.to_owned())))?
    };
    tasks.iter().map(place).collect()
}

/// Writes a policy that asks for so many tasks, each of which leaves its name.
fn ask(scratch: &Scratch, n: u32, seconds: u32) {
    let started = scratch.path("started").display().to_string();
    scratch.replace("p.lua", &policy(n, &format!("echo $SETPOINT_TASK_ID >>{started}; exec sleep {seconds}")));
}

/// A cluster and the hosts on it.
pub(super) struct Scene {
    // In the order in which they end: what setpoint has logged is in its scratch folder.
    pub(super) hosts: Vec<Host>,
    pub(super) cluster: Cluster,
}

impl Scene {
    /// Hosts that are each told another way where the masters are, settled at a few tasks.
    pub(super) async fn start(cluster: Cluster, masters: &[String]) -> Self {
        let hosts = masters.iter().enumerate().map(|(index, masters)| Host::start(masters, FEW, index)).collect();
        let mut scene = Self { hosts, cluster };
        for host in &mut scene.hosts {
            let known = async || host.facts().await["framework"].as_str().map(str::to_owned);
            let framework = wait_until(PATIENCE, "there is a framework", known).await;
            host.framework = framework;
        }
        scene.agreed().await;
        scene
    }

    /// The tasks of each host, once all of them have settled, with as many processes and no more frameworks than hosts.
    pub(super) async fn agreed(&mut self) -> Vec<BTreeSet<String>> {
        let mut all = Vec::new();
        for host in &mut self.hosts {
            let (tasks, _) = host.settled(&self.cluster, 0.0).await;
            host.counted(&tasks).await;
            all.push(tasks);
        }
        let state = self.cluster.state().await.unwrap();
        assert_eq!(state["frameworks"].as_array().map(Vec::len), Some(self.hosts.len()), "one framework a host");
        all
    }

    /// The tasks of all hosts that are alive where `at` says.
    pub(super) async fn tasks_at(&self, at: impl Fn(&Place) -> bool) -> BTreeSet<String> {
        let mut tasks = BTreeSet::new();
        for host in &self.hosts {
            let told = wait_until(PATIENCE, "the master answers", async || host.told(&self.cluster).await).await;
            tasks.extend(told.alive.into_iter().filter(|(_, place)| at(place)).map(|(id, _)| id));
        }
        tasks
    }

    /// Where one of the tasks is, drawn.
    pub(super) async fn place(&self) -> Place {
        wait_until(PATIENCE, "a task is alive", async || {
            let mut places: Vec<Place> = self.hosts[0].told(&self.cluster).await?.alive.into_values().collect();
            (!places.is_empty()).then(|| places.swap_remove(fastrand::usize(..places.len())))
        })
        .await
    }

    /// The id that the master has for an agent.
    pub(super) async fn agent_id(&self, index: usize) -> String {
        let address = self.cluster.agents[index].address();
        let find = async || {
            let state = self.cluster.state().await?;
            let agents = state["slaves"].as_array()?;
            let found = agents.iter().find(|agent| {
                agent["active"] == true && agent["pid"].as_str().is_some_and(|pid| pid.ends_with(&address))
            })?;
            Some(found["id"].as_str()?.to_owned())
        };
        wait_until(PATIENCE, "the agent is known", find).await
    }

    /// The agent of a task, drawn: which it is, and the id that the master has for it.
    pub(super) async fn busy_agent(&self) -> (usize, String) {
        let id = self.place().await.agent;
        for index in 0..self.cluster.agents.len() {
            if self.agent_id(index).await == id {
                return (index, id);
            }
        }
        panic!("the agent {id} is none of ours");
    }

    /// Asks each host for another number of tasks, and comes back at some moment of what follows: the file is read, a tick
    /// decides, intents are recorded, offers are asked for and accepted, tasks start or end.
    pub(super) async fn moving(&mut self) {
        for host in &mut self.hosts {
            // Up or down, by enough that it takes a while.
            let up = host.wanted < FEW + STEP || (host.wanted + STEP <= MANY && fastrand::bool());
            host.ask(if up {
                fastrand::u32(host.wanted + STEP..=MANY)
            } else {
                fastrand::u32(FEW..=host.wanted - STEP)
            });
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..1500))).await;
    }

    /// One fault while every host scales: afterwards no task that ran is lost, none was launched twice, none is left over,
    /// and every host is in control again in time.
    pub(super) async fn round(&mut self, what: &str, fault: impl AsyncFnOnce(&mut Self) -> Fault) {
        let before = self.agreed().await;
        let ran: Vec<BTreeSet<String>> = self.hosts.iter().map(Host::started).collect();
        self.moving().await;
        let since = now();
        let fault = fault(self).await;
        self.replaced(what, &before, since, &fault).await;
        let after = self.agreed().await;
        for ((before, after), (ran, host)) in before.iter().zip(&after).zip(ran.iter().zip(&self.hosts)) {
            kept(before, after, &fault.hit);
            // Where no task has ended by the fault, no other one was started than what was asked for.
            let new: BTreeSet<String> = host.started().difference(ran).cloned().collect();
            let expected: BTreeSet<String> = after.difference(before).cloned().collect();
            assert!(!fault.hit.is_empty() || new == expected, "{what}: {new:?} were started, {expected:?} are left");
        }
    }

    /// Waits until all hosts have settled after a fault that began at `since`, in time and with the tasks that nothing has
    /// happened to.
    pub(super) async fn replaced(&mut self, what: &str, before: &[BTreeSet<String>], since: f64, fault: &Fault) {
        let since = if fault.breaks { since } else { 0.0 };
        for (host, before) in self.hosts.iter_mut().zip(before) {
            let (after, settled) = host.settled(&self.cluster, since).await;
            in_time(what, &host.masters, (before.len(), after.len()), (settled - fault.over, now() - fault.over));
            kept(before, &after, &fault.hit);
        }
    }

    /// Takes every task away and ends the hosts.
    pub(super) async fn over(mut self) {
        for host in &mut self.hosts {
            host.ask(0);
        }
        self.agreed().await;
        for host in &mut self.hosts {
            assert!(host.setpoint.stop().await.success());
        }
    }
}

/// Between these numbers of tasks the hosts go up and down, by so many at least.
const FEW: u32 = 4;
const MANY: u32 = 16;
const STEP: u32 = 4;

/// A host that is in control so many seconds after the end of a fault is so in time: within 15 s in a campaign, on a machine
/// that does nothing else.
fn in_time(what: &str, masters: &str, tasks: (usize, usize), (stamped, seen): (f64, f64)) {
    let stamped = stamped.max(0.0);
    let form = if masters.starts_with("zk://") { "zk://" } else { "list" };
    let (from, to) = tasks;
    eprintln!("{what}, {form}, {from} → {to}: in control {stamped:.2} s after its end, seen after {seen:.2} s");
    let limit = setting("SETPOINT_BACK_SECS", 60) as f64;
    let seconds = stamped.max(seen);
    assert!(seconds <= limit, "{what}, {form}: in control only after {seconds:.1} s, {limit} s are allowed");
}

/// Tasks of before that nothing has happened to run on, and no others run without need.
fn kept(before: &BTreeSet<String>, after: &BTreeSet<String>, hit: &BTreeSet<String>) {
    if before.len() < after.len() {
        let lost: Vec<_> = before.difference(after).filter(|id| !hit.contains(*id)).collect();
        assert!(lost.is_empty(), "{lost:?} ran and nothing happened to them: {before:?} → {after:?}");
    } else if hit.is_empty() {
        assert!(after.is_subset(before), "others run than before: {before:?} → {after:?}");
    }
}
