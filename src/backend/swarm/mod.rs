//! Services of a Docker Swarm: each workload is a service, scaled by its replicas.
//!
//! A service is found by what it is, not by what is remembered of it: the one that the policy names, or the one that
//! carries the policy's name as a label. One of ours also carries its owner (the state folder, or the run); one
//! without an owner is somebody else's that is lent to us, and of it nothing but the number of replicas is ever
//! changed. Everything is asked of one manager.
//!
//! Figures come from the engines of the nodes, as far as they are configured; which engine is which node they say
//! themselves.
//!
//! Invariants beyond those of [`CountBackend`]:
//! - observing creates and changes nothing;
//! - a service that belongs to another host is refused, never scaled.

mod figures;
mod spec;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::figures::Figures;
use crate::backend::run::Run;
use crate::backend::{BackendError, Capabilities, CountBackend, CountStatus, CountWorkload, Mark, TaskUpdate};
use crate::container::{Engine, EngineConfig, EngineError, Node, Service, SwarmState, SwarmTask};
use crate::core::model::{Exit, Placement, PolicyName, TaskId, TaskState, TaskStats};

/// The name of this backend in policies, messages and records.
pub const NAME: &str = "swarm";

/// Labels of services of ours, and of their containers.
pub mod label {
    /// The policy's name; on somebody else's service it lends the service to that policy.
    pub const POLICY: &str = "setpoint.policy";
    /// Whose it is: the mark of the state folder, or the run.
    pub const OWNER: &str = "setpoint.owner";
    /// The process that runs it, for services that are not to outlive it.
    pub const RUN: &str = "setpoint.run";
    /// What its tasks were made from.
    pub const TEMPLATE: &str = "setpoint.template";
}

/// How long what is known of the nodes is good for.
const NODES_FOR: Duration = Duration::from_secs(2);

/// How often the end of a service's tasks is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How a [`SwarmBackend`] runs its services.
#[derive(Clone, Debug)]
pub struct SwarmConfig {
    /// A manager.
    pub manager: EngineConfig,
    /// Engines of nodes, for figures; the manager may be among them.
    pub engines: Vec<EngineConfig>,
    /// The state folder that the services belong to; it must exist. None: they are removed at the end of the run.
    pub mark: Option<PathBuf>,
}

/// The backend that runs workloads as services. See the [module](self).
#[derive(Debug)]
pub struct SwarmBackend {
    manager: Engine,
    owner: String,
    run: Run,
    ephemeral: bool,
    figures: Figures,
    nodes: Mutex<Option<(Instant, Nodes)>>,
    /// A service may have been made.
    used: AtomicBool,
}

/// The nodes by their ids.
type Nodes = Arc<HashMap<String, Node>>;

/// Whose a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// This host made it.
    Ours,
    /// A run that is over made it, and left it.
    Left,
    /// Somebody else's, lent to the policy.
    Lent,
}

impl SwarmBackend {
    /// A backend that connects to nothing yet.
    ///
    /// # Errors
    /// When the state folder cannot be looked at.
    pub fn new(config: SwarmConfig) -> Result<Arc<Self>, BackendError> {
        let owner = match &config.mark {
            Some(folder) => Mark::of(folder)
                .map(|mark| mark.as_str().to_owned())
                .map_err(|error| refused(format!("the state folder `{}` cannot be used: {error}", folder.display())))?,
            None => format!("run-{}", ulid::Ulid::generate()),
        };
        Ok(Arc::new(Self {
            manager: Engine::new(config.manager),
            owner,
            run: Run::this(),
            ephemeral: config.mark.is_none(),
            figures: Figures::new(config.engines),
            nodes: Mutex::default(),
            used: AtomicBool::new(false),
        }))
    }

    /// The policy's service, and whose it is.
    async fn find(
        &self,
        policy: &PolicyName,
        named: Option<&str>,
    ) -> Result<Option<(Service, Ownership)>, BackendError> {
        if let Some(name) = named {
            let found = self.manager.service(name).await.map_err(failed)?;
            let service = found.ok_or_else(|| refused(format!("there is no service `{name}` in the Swarm")))?;
            return Ok(Some((service, Ownership::Lent)));
        }
        let label = format!("{}={policy}", label::POLICY);
        let mut found = Vec::new();
        for service in self.manager.services(Some(&label)).await.map_err(failed)? {
            let ownership = match (service.labels.get(label::OWNER), service.labels.get(label::RUN)) {
                (None, _) => Ownership::Lent,
                (Some(owner), _) if *owner == self.owner => Ownership::Ours,
                (Some(_), Some(run)) if self.run.is_over(run) => Ownership::Left,
                _ => {
                    let text = format!("the service `{}` of this policy belongs to another setpoint", service.name);
                    return Err(refused(text));
                }
            };
            found.push((service, ownership));
        }
        match found.len() {
            0 => Ok(None),
            1 => Ok(found.pop()),
            n => Err(refused(format!("{n} services carry the label {label}; expected one"))),
        }
    }

    async fn nodes(&self) -> Result<Nodes, BackendError> {
        let known = lock(&self.nodes).clone();
        if let Some((_, nodes)) = known.filter(|(at, _)| at.elapsed() < NODES_FOR) {
            return Ok(nodes);
        }
        let nodes = self.manager.nodes().await.map_err(failed)?;
        let nodes = Arc::new(nodes.into_iter().map(|node| (node.id.clone(), node)).collect::<HashMap<_, _>>());
        *lock(&self.nodes) = Some((Instant::now(), Arc::clone(&nodes)));
        Ok(nodes)
    }

    /// Ends a service of ours and waits until its tasks have.
    async fn end(&self, service: &Service) -> Result<(), BackendError> {
        let mut version = service.version;
        while !self.manager.scale_service(&service.id, version, 0, None).await.map_err(failed)? {
            let Some(now) = self.manager.service(&service.id).await.map_err(failed)? else { return Ok(()) };
            version = now.version;
        }
        loop {
            let tasks = self.manager.service_tasks(&service.id).await.map_err(failed)?;
            let nodes = self.nodes().await?;
            let lives = |task: &SwarmTask| task.state <= SwarmState::Running && !is_on_a_lost_node(task, &nodes);
            if !tasks.iter().any(lives) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.manager.remove_service(&service.id).await.map_err(failed)
    }
}

#[async_trait]
impl CountBackend for SwarmBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities { victims: false, task_env: true, stats: true, queues: false }
    }

    async fn observe(&self, workload: &CountWorkload) -> Result<CountStatus, BackendError> {
        let named = workload.template.container.service.as_deref();
        let Some((service, ownership)) = self.find(&workload.policy, named).await? else {
            self.figures.forget(&workload.policy);
            return Ok(CountStatus::default());
        };
        let Some(desired) = service.replicas else {
            return Err(refused(format!("the service `{}` is not replicated, it has no number to set", service.name)));
        };
        let tasks = self.manager.service_tasks(&service.id).await.map_err(failed)?;
        let nodes = self.nodes().await?;
        self.figures.know(&workload.policy, &tasks);
        let ports = spec::port_names(workload);
        let made_from = service.labels.get(label::TEMPLATE);
        Ok(CountStatus {
            version: service.version,
            desired,
            busy: service.updating.map(|word| format!("an update of the service `{}` is {word}", service.name)),
            outdated: ownership != Ownership::Lent && made_from != Some(&spec::fingerprint(workload)),
            tasks: tasks.iter().map(|task| update(task, &nodes, &self.figures, &ports)).collect(),
        })
    }

    async fn scale(&self, workload: &CountWorkload, version: u64, count: u32) -> Result<(), BackendError> {
        let run = self.ephemeral.then(|| self.run.label());
        let named = workload.template.container.service.as_deref();
        let Some((service, ownership)) = self.find(&workload.policy, named).await? else {
            if version != 0 {
                return Err(moved());
            }
            let config = spec::service(workload, &self.owner, run).map_err(refused)?;
            self.used.store(true, Ordering::SeqCst);
            return self.manager.create_service(&config, count).await.map_err(failed);
        };
        let outdated = service.labels.get(label::TEMPLATE) != Some(&spec::fingerprint(workload));
        let config = match ownership {
            Ownership::Lent => None,
            Ownership::Ours if !(workload.rolling && outdated) => None,
            Ownership::Ours | Ownership::Left => Some(spec::service(workload, &self.owner, run).map_err(refused)?),
        };
        let taken = self.manager.scale_service(&service.id, version, count, config.as_ref()).await.map_err(failed)?;
        if taken { Ok(()) } else { Err(moved()) }
    }

    async fn remove(&self, policy: &PolicyName) -> Result<(), BackendError> {
        self.figures.forget(policy);
        match self.find(policy, None).await {
            Ok(Some((service, Ownership::Ours | Ownership::Left))) => self.end(&service).await,
            // What is not ours is not ours to remove.
            Ok(Some((_, Ownership::Lent)) | None) | Err(BackendError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn stats(&self, tasks: Vec<TaskId>) -> Result<BTreeMap<TaskId, TaskStats>, BackendError> {
        Ok(self.figures.sample(&tasks).await)
    }

    async fn shutdown(&self, kill_all: bool) {
        if !kill_all || !self.used.load(Ordering::SeqCst) {
            return;
        }
        let label = format!("{}={}", label::OWNER, self.owner);
        match self.manager.services(Some(&label)).await {
            Ok(left) => {
                for service in left {
                    if let Err(error) = self.end(&service).await {
                        tracing::error!(service = %service.name, error = %error, "a service could not be removed and is left");
                    }
                }
            }
            // Where there never was a Swarm, there is nothing to be left.
            Err(error) => tracing::debug!(error = %error, "services could not be looked for"),
        }
    }
}

/// What the loop is told of a task.
fn update(
    task: &SwarmTask,
    nodes: &HashMap<String, Node>,
    figures: &Figures,
    ports: &[(String, (u16, crate::core::container::Protocol))],
) -> TaskUpdate {
    let lost = is_on_a_lost_node(task, nodes);
    let state = match task.state {
        _ if lost => TaskState::Gone,
        SwarmState::Starting | SwarmState::Running if !task.wanted => TaskState::Killing,
        SwarmState::Starting => TaskState::Staging,
        SwarmState::Running => TaskState::Running,
        _ => TaskState::Gone,
    };
    let exit = match task.state {
        SwarmState::Complete => Exit::Code { code: 0 },
        SwarmState::Failed if task.exit_code != 0 => Exit::Code { code: task.exit_code as i32 },
        SwarmState::Failed | SwarmState::Rejected => Exit::NotStarted { reason: task.error.as_str().into() },
        _ => Exit::Unknown,
    };
    let node = task.node.as_ref().and_then(|id| nodes.get(id));
    let numbers = ports.iter().filter_map(|(name, inside)| Some((name.clone(), *task.ports.get(inside)?)));
    let placement = Placement {
        host: node.map(|node| {
            figures.advertised(&node.id).or_else(|| node.address.clone()).unwrap_or_else(|| node.hostname.clone())
        }),
        ports: numbers.collect(),
        pid: None,
        container: task.container.clone(),
        token: None,
    };
    TaskUpdate {
        id: TaskId::from(task.id.as_str()),
        state,
        // Swarm lets a task run only once its health check passes.
        healthy: (state == TaskState::Running).then_some(true),
        placement: node.is_some().then_some(placement),
        exit: (state == TaskState::Gone).then_some(exit),
        receipt: None,
    }
}

/// A node that is away runs its tasks on, for all anybody knows; nobody can use them, and others take their places.
fn is_on_a_lost_node(task: &SwarmTask, nodes: &HashMap<String, Node>) -> bool {
    !task.wanted && task.node.as_ref().is_some_and(|id| nodes.get(id).is_none_or(|node| !node.up))
}

fn failed(error: EngineError) -> BackendError {
    let unavailable = match &error {
        // An engine that is in no Swarm, or a Swarm without a leader, may be so for a while only.
        EngineError::Refused { status, .. } => *status == 0 || 500 <= *status,
        error => error.is_retryable(),
    };
    let message = error.to_string();
    if unavailable { BackendError::Unavailable { backend: NAME.to_owned(), message } } else { refused(message) }
}

fn refused(message: impl Into<String>) -> BackendError {
    BackendError::Refused { backend: NAME.to_owned(), message: message.into() }
}

fn moved() -> BackendError {
    BackendError::Moved { backend: NAME.to_owned() }
}

/// A poisoned lock only means that a reader panicked; the values are whole.
fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: SwarmState, wanted: bool) -> SwarmTask {
        SwarmTask {
            id: "t".into(),
            slot: 1,
            node: Some("n".into()),
            state,
            wanted,
            error: "no such image".into(),
            container: Some("c".into()),
            exit_code: 0,
            ports: BTreeMap::from([((11211, crate::core::container::Protocol::Tcp), 32768)]),
        }
    }

    fn told(task: &SwarmTask, up: bool) -> TaskUpdate {
        let node = Node { id: "n".into(), hostname: "h".into(), address: Some("10.0.0.1".into()), up };
        let ports = [("m".to_owned(), (11211, crate::core::container::Protocol::Tcp))];
        update(task, &HashMap::from([("n".to_owned(), node)]), &Figures::new(Vec::new()), &ports)
    }

    #[test]
    fn a_tasks_state_is_what_swarm_says_and_what_it_wants() {
        use TaskState::{Gone, Killing, Running, Staging};
        for (state, wanted, up, expected) in [
            (SwarmState::Starting, true, true, Staging),
            (SwarmState::Running, true, true, Running),
            (SwarmState::Running, false, true, Killing),
            (SwarmState::Running, false, false, Gone),
            (SwarmState::Running, true, false, Running),
            (SwarmState::Shutdown, false, true, Gone),
            (SwarmState::Rejected, false, true, Gone),
        ] {
            assert_eq!(told(&task(state, wanted), up).state, expected, "{state:?} {wanted} {up}");
        }
        let running = told(&task(SwarmState::Running, true), true).placement.unwrap();
        assert_eq!((running.host.as_deref(), running.ports["m"]), (Some("10.0.0.1"), 32768));
        let rejected = told(&task(SwarmState::Rejected, false), true);
        assert_eq!(rejected.exit, Some(Exit::NotStarted { reason: "no such image".into() }));
        let failed = SwarmTask { exit_code: 137, ..task(SwarmState::Failed, false) };
        assert_eq!(told(&failed, true).exit, Some(Exit::Code { code: 137 }));
    }
}
