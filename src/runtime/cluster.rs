//! Scripts' view of a Mesos cluster: the port of the script host, by asking genuine masters and agents.
//!
//! Policies that ask within half a second of an answer share it: agents take no more than two questions a second, and a large
//! master's state is megabytes. Each policy has a [`Meter`] of its own, so that its shares of CPU are those since it asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::backend::mesos::{BY_ENGINE, stats};
use crate::core::model::{PolicyName, TaskStats};
use crate::mesos::wire::TaskState;
use crate::mesos::wire::operator::{Agent, Framework, MasterState, Sums, Task, Usage};
use crate::mesos::{Cluster, HttpConfig, Masters, MesosError, Meter};
use crate::script::cluster::{Amount, ClusterQuery, ClusterTask, ClusterTotals, ClusterView};

/// For how long an answer is shared, from when it came.
const FRESH: Duration = Duration::from_millis(500);

/// Agents that are asked at the same time.
const AT_ONCE: usize = 32;

/// A policy that has not asked for that long has to begin anew.
const FORGET: Duration = Duration::from_secs(3600);

const MEBIBYTE: f64 = 1_048_576.0;

/// Looks at the cluster of some masters on behalf of scripts.
#[derive(Debug)]
pub struct MesosCluster {
    cluster: Arc<Cluster>,
    state: Recent<MasterState>,
    agents: Mutex<HashMap<String, Arc<Recent<Vec<Usage>>>>>,
    meters: Mutex<HashMap<PolicyName, (Instant, Meter)>>,
}

/// The last answer to a question, shared while it is fresh; the one on its way is waited for by all who ask, however long
/// it takes: whoever asked a slow agent anew would make it slower.
struct Recent<T> {
    last: Mutex<Option<(Answered, Answer<T>)>>,
}

/// When an answer came, once it has.
type Answered = Arc<OnceLock<Instant>>;

type Answer<T> = Shared<BoxFuture<'static, Result<Arc<T>, String>>>;

/// What an agent has said, and the agent.
type Read = (String, Arc<Vec<Usage>>);

impl MesosCluster {
    /// Looks at the cluster of these masters; connects to nothing yet.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(masters: Masters, tls: bool, http: &HttpConfig) -> Result<Arc<Self>, MesosError> {
        Ok(Arc::new(Self {
            cluster: Arc::new(Cluster::new(masters, tls, http)?),
            state: Recent::default(),
            agents: Mutex::default(),
            meters: Mutex::default(),
        }))
    }

    async fn state(&self) -> Result<Arc<MasterState>, String> {
        let cluster = Arc::clone(&self.cluster);
        self.state.get(async move { cluster.state().await }).await
    }

    async fn usage(&self, agent: Agent) -> Result<Read, String> {
        let (cluster, id) = (Arc::clone(&self.cluster), agent.id.clone());
        let recent = Arc::clone(lock(&self.agents).entry(id.clone()).or_default());
        let usages = recent.get(async move { cluster.usage(&agent).await }).await?;
        Ok((id, usages))
    }

    /// Sets what was read into the tasks that run.
    fn measure(&self, caller: PolicyName, state: &MasterState, read: &[Read], found: &mut [Found<'_>]) {
        let known: BTreeSet<&str> = state.slaves.iter().map(|agent| agent.id.as_str()).collect();
        lock(&self.agents).retain(|agent, _| known.contains(agent.as_str()));
        let now = Instant::now();
        let mut figures: HashMap<(&str, &str, &str), TaskStats> = HashMap::new();
        {
            let mut meters = lock(&self.meters);
            meters.retain(|_, (asked, _)| now.saturating_duration_since(*asked) < FORGET);
            let (asked, meter) = meters.entry(caller).or_insert_with(|| (now, Meter::default()));
            *asked = now;
            meter.retain(|agent| known.contains(agent));
            for (agent, usages) in read {
                for (usage, percent) in usages.iter().zip(meter.take(agent, usages)) {
                    let key = (agent.as_str(), usage.framework_id.as_str(), usage.executor_id.as_str());
                    figures.insert(key, stats(usage, percent));
                }
            }
        }
        for Found { task, row } in found.iter_mut().filter(|found| is_measured(found.task)) {
            if let Some(of_executor) =
                figures.get(&(task.slave_id.as_str(), task.framework_id.as_str(), executor(task)))
            {
                row.stats = part(of_executor, row.shared_by);
            }
        }
    }
}

/// A task as the master has it, and as scripts see it.
struct Found<'a> {
    task: &'a Task,
    row: ClusterTask,
}

#[async_trait]
impl ClusterView for MesosCluster {
    async fn totals(&self) -> Result<ClusterTotals, String> {
        Ok(totals(&*self.state().await?))
    }

    async fn tasks(&self, query: ClusterQuery) -> Result<Vec<ClusterTask>, String> {
        let state = self.state().await?;
        Ok(find(&state, &query).into_iter().map(|found| found.row).collect())
    }

    async fn stats(&self, caller: PolicyName, query: ClusterQuery) -> Result<Vec<ClusterTask>, String> {
        let state = self.state().await?;
        let mut found = find(&state, &query);
        let on: BTreeSet<&str> =
            found.iter().filter(|found| runs(found.task)).map(|found| found.task.slave_id.as_str()).collect();
        let agents: Vec<Agent> = state.slaves.iter().filter(|agent| on.contains(agent.id.as_str())).cloned().collect();
        let asking = futures_util::stream::iter(agents.into_iter().map(|agent| self.usage(agent)));
        let read: Vec<Read> = asking.buffer_unordered(AT_ONCE).try_collect().await?;
        self.measure(caller, &state, &read, &mut found);
        Ok(found.into_iter().map(|found| found.row).collect())
    }
}

impl<T: Send + Sync + 'static> Recent<T> {
    fn get(&self, ask: impl Future<Output = Result<T, MesosError>> + Send + 'static) -> Answer<T> {
        let mut last = lock(&self.last);
        let fresh = |answered: &Answered| answered.get().is_none_or(|at| at.elapsed() < FRESH);
        if let Some((answered, answer)) = &*last
            && fresh(answered)
        {
            return answer.clone();
        }
        let answered = Answered::default();
        let came = Arc::clone(&answered);
        // A worker of its own: it comes to an end also when those who wait for it give up.
        let asking = tokio::spawn(async move {
            let answer = ask.await.map(Arc::new).map_err(|error| error.to_string());
            came.get_or_init(Instant::now);
            answer
        });
        let over = Arc::clone(&answered);
        let answer = asking.map(move |answer| {
            over.get_or_init(Instant::now);
            answer.unwrap_or_else(|error| Err(error.to_string()))
        });
        let answer = answer.boxed().shared();
        *last = Some((answered, answer.clone()));
        answer
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { last: Mutex::new(None) }
    }
}

impl<T> fmt::Debug for Recent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = lock(&self.last).as_ref().and_then(|(answered, _)| Some(answered.get()?.elapsed()));
        f.debug_struct("Recent").field("age", &age).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lives(task: &Task) -> bool {
    matches!(task.state, TaskState::Staging | TaskState::Starting) || runs(task)
}

fn runs(task: &Task) -> bool {
    matches!(task.state, TaskState::Running | TaskState::Killing)
}

/// Whether what its agent says of its executor is of the task, too.
fn is_measured(task: &Task) -> bool {
    runs(task) && task.labels.iter().all(|label| label.key != BY_ENGINE)
}

/// The id of a task's executor; the cluster's own have that of their task.
fn executor(task: &Task) -> &str {
    if task.executor_id.is_empty() { &task.id } else { &task.executor_id }
}

/// An equal part of an executor's figures.
fn part(whole: &TaskStats, of: u32) -> TaskStats {
    let of = of.max(1);
    TaskStats {
        cpu_percent: whole.cpu_percent.map(|percent| percent / f64::from(of)),
        memory_bytes: whole.memory_bytes.map(|bytes| bytes / u64::from(of)),
        memory_limit: whole.memory_limit.map(|bytes| bytes / u64::from(of)),
        ..TaskStats::default()
    }
}

/// The tasks that a query means and that are alive, by name and id.
fn find<'a>(state: &'a MasterState, query: &ClusterQuery) -> Vec<Found<'a>> {
    let hosts: HashMap<&str, &str> =
        state.slaves.iter().map(|agent| (agent.id.as_str(), agent.hostname.as_str())).collect();
    let mut found = Vec::new();
    for framework in &state.frameworks {
        let mut together: HashMap<(&str, &str), u32> = HashMap::new();
        for task in framework.tasks.iter().filter(|task| is_measured(task)) {
            *together.entry((&task.slave_id, executor(task))).or_default() += 1;
        }
        for task in framework.tasks.iter().filter(|task| lives(task)) {
            let shared_by = together.get(&(task.slave_id.as_str(), executor(task))).copied().unwrap_or(1);
            let agent = hosts.get(task.slave_id.as_str()).copied().unwrap_or_default();
            let row = row(framework, task, agent, shared_by);
            if query.admits(&row) {
                found.push(Found { task, row });
            }
        }
    }
    found.sort_by(|a, b| (&a.row.name, &a.row.id).cmp(&(&b.row.name, &b.row.id)));
    found
}

fn row(framework: &Framework, task: &Task, agent: &str, shared_by: u32) -> ClusterTask {
    let started = task.statuses.iter().find(|change| change.state == TaskState::Running);
    let labels = task.labels.iter().map(|label| (label.key.clone(), label.value.clone().unwrap_or_default()));
    ClusterTask {
        id: task.id.clone(),
        name: task.name.clone(),
        framework: framework.name.clone(),
        framework_id: framework.id.clone(),
        state: task.state.as_str().trim_start_matches("TASK_").to_ascii_lowercase(),
        agent: agent.to_owned(),
        role: task.role.clone(),
        cpus: task.resources.cpus.unwrap_or_default(),
        memory: (task.resources.mem.unwrap_or_default() * MEBIBYTE) as u64,
        labels: labels.collect(),
        started: started.map(|change| change.timestamp),
        shared_by,
        stats: TaskStats::default(),
    }
}

fn totals(state: &MasterState) -> ClusterTotals {
    let agents: Vec<&Agent> = state.slaves.iter().filter(|agent| agent.active).collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let amount = |of: fn(&Sums) -> Option<f64>, unit: f64| {
        let sum = |sums: fn(&Agent) -> &Sums| agents.iter().filter_map(|agent| of(sums(agent))).sum::<f64>() * unit;
        Amount { total: sum(|agent| &agent.resources), used: sum(|agent| &agent.used_resources) }
    };
    ClusterTotals {
        leader: state.leader.as_deref().and_then(|pid| Some(pid.rsplit_once('@')?.1.to_owned())),
        version: state.version.clone(),
        agents: count(agents.len()),
        frameworks: count(state.frameworks.iter().filter(|framework| framework.active).count()),
        tasks: count(state.frameworks.iter().flat_map(|framework| &framework.tasks).filter(|task| lives(task)).count()),
        resources: BTreeMap::from([
            ("cpus", amount(|sums| sums.cpus, 1.0)),
            ("mem", amount(|sums| sums.mem, MEBIBYTE)),
            ("disk", amount(|sums| sums.disk, MEBIBYTE)),
            ("gpus", amount(|sums| sums.gpus, 1.0)),
        ]),
    }
}
