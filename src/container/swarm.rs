//! Swarm: services, their tasks, nodes. All calls go to a manager.
//!
//! A service is changed by writing back the specification that was read, with nothing else than what is to change, so
//! that what others set (rolling updates, placement, networks …) stays as it is.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum, EndpointSpec, Limit, Mount,
    MountType, NetworkAttachmentConfig, Service as ApiService, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated,
    ServiceUpdateStatusStateEnum as Update, Task as ApiTask, TaskSpec, TaskSpecContainerSpec, TaskSpecResources,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum, TaskState as ApiState,
};
use bollard::query_parameters::{
    InspectServiceOptions, ListNodesOptions, ListServicesOptions, ListTasksOptions, UpdateServiceOptions,
};

use super::create::{ContainerConfig, Publish, health};
use super::engine::{Engine, QUICK};
use super::error::EngineError;
use crate::core::container::Protocol;

/// A service as a manager sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version that a change must name.
    pub version: u64,
    /// The number of tasks that is wanted; none for a service that is not replicated.
    pub replicas: Option<u32>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What an update of it is at, in one word, while there is one that has not come to its end.
    pub updating: Option<&'static str>,
}

/// A service to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// What its tasks are; the name is the service's, the labels are its tasks'.
    pub container: ContainerConfig,
    /// The service's own labels.
    pub labels: BTreeMap<String, String>,
    /// Time between the signal and KILL, in nanoseconds.
    pub grace_nanos: i64,
}

/// One task of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmTask {
    /// Its id.
    pub id: String,
    /// Its place in the service, from 1.
    pub slot: u32,
    /// The node that it is on, once it is on one.
    pub node: Option<String>,
    /// Where it is in its life.
    pub state: SwarmState,
    /// Whether it is to run; one that is not is on its way out, or was.
    pub wanted: bool,
    /// What went wrong; mostly empty.
    pub error: String,
    /// Its container, once there is one.
    pub container: Option<String>,
    /// How its container ended; 0 while it has not.
    pub exit_code: i64,
    /// Port inside → port outside, on its node.
    pub ports: BTreeMap<(u16, Protocol), u16>,
}

/// Where in its life a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwarmState {
    /// Anywhere before running: no node yet, being prepared, starting, waiting for its health check.
    Starting,
    /// It runs, and is healthy where there is a health check.
    Running,
    /// It ended by itself, successfully.
    Complete,
    /// It was ended.
    Shutdown,
    /// It ended by itself, with an error.
    Failed,
    /// Its node could not run it.
    Rejected,
    /// Its node has been away too long, or it is being removed.
    Lost,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its host name.
    pub hostname: String,
    /// The address that it is reached by; none when it told none.
    pub address: Option<String>,
    /// Whether the manager hears of it.
    pub up: bool,
}

impl Engine {
    /// The node that this engine is in a Swarm; none when it is in none.
    pub async fn node_id(&self) -> Result<Option<String>, EngineError> {
        let info = self.call("describe itself", QUICK, async |docker| docker.info().await).await?;
        Ok(info.swarm.and_then(|swarm| swarm.node_id).filter(|id| !id.is_empty()))
    }

    /// Whether this engine manages a Swarm.
    pub async fn is_manager(&self) -> Result<bool, EngineError> {
        let info = self.call("describe itself", QUICK, async |docker| docker.info().await).await?;
        Ok(info.swarm.and_then(|swarm| swarm.control_available).unwrap_or(false))
    }

    /// All services, or those that carry a label: `key=value`.
    pub async fn services(&self, label: Option<&str>) -> Result<Vec<Service>, EngineError> {
        let filters = label.map(|label| HashMap::from([("label".to_owned(), vec![label.to_owned()])]));
        let options = ListServicesOptions { filters, ..ListServicesOptions::default() };
        let found = self.call("list services", QUICK, async |docker| docker.list_services(Some(options)).await).await?;
        Ok(found.into_iter().map(service).collect())
    }

    /// A service by name or id; none when there is none.
    pub async fn service(&self, name: &str) -> Result<Option<Service>, EngineError> {
        match self.read_service(name).await {
            Ok(found) => Ok(Some(service(found))),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_service(&self, name: &str) -> Result<ApiService, EngineError> {
        let options = None::<InspectServiceOptions>;
        self.call("inspect a service", QUICK, async |docker| docker.inspect_service(name, options).await).await
    }

    /// Makes a service.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when the name is in use.
    pub async fn create_service(&self, config: &ServiceConfig, replicas: u32) -> Result<(), EngineError> {
        let spec = ServiceSpec {
            name: Some(config.container.name.clone()),
            labels: Some(config.labels.clone().into_iter().collect()),
            task_template: Some(task_spec(config)),
            mode: Some(mode(replicas)),
            endpoint_spec: Some(endpoint(&config.container.ports)),
            ..ServiceSpec::default()
        };
        self.call("create a service", QUICK, async |docker| docker.create_service(spec, None).await).await.map(drop)
    }

    /// Sets the number of tasks, and with `config` what new ones are and the labels; everything else stays. False when
    /// the version is not `version` any more.
    pub async fn scale_service(
        &self,
        id: &str,
        version: u64,
        replicas: u32,
        config: Option<&ServiceConfig>,
    ) -> Result<bool, EngineError> {
        let found = self.read_service(id).await?;
        let current = found.version.and_then(|version| version.index).unwrap_or_default();
        let Some(mut spec) = found.spec.filter(|_| current == version) else { return Ok(false) };
        spec.mode = Some(mode(replicas));
        if let Some(config) = config {
            let force = spec.task_template.and_then(|template| template.force_update);
            spec.task_template = Some(TaskSpec { force_update: force, ..task_spec(config) });
            spec.labels.get_or_insert_default().extend(config.labels.clone());
            spec.endpoint_spec = Some(endpoint(&config.container.ports));
        }
        let options = UpdateServiceOptions {
            version: i32::try_from(version).unwrap_or(i32::MAX),
            registry_auth_from: "spec".to_owned(),
            rollback: None,
        };
        let updated =
            self.call("scale a service", QUICK, async |docker| docker.update_service(id, spec, options, None).await);
        match updated.await {
            Ok(_) => Ok(true),
            // The manager has no status of its own for this.
            Err(EngineError::Refused { message, .. }) if message.contains("update out of sequence") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a service; its tasks are ended by their nodes after that. One that is not there is fine.
    pub async fn remove_service(&self, id: &str) -> Result<(), EngineError> {
        match self.call("remove a service", QUICK, async |docker| docker.delete_service(id).await).await {
            Err(EngineError::NotFound { .. }) => Ok(()),
            removed => removed,
        }
    }

    /// The tasks of a service by its id, by slot: those that are, and the last few that were.
    pub async fn service_tasks(&self, service: &str) -> Result<Vec<SwarmTask>, EngineError> {
        let filters = HashMap::from([("service".to_owned(), vec![service.to_owned()])]);
        let options = ListTasksOptions { filters: Some(filters) };
        let found = self.call("list tasks", QUICK, async |docker| docker.list_tasks(Some(options)).await).await?;
        let mut tasks: Vec<SwarmTask> = found.into_iter().filter_map(task).collect();
        tasks.sort_by(|a, b| (a.slot, &a.id).cmp(&(b.slot, &b.id)));
        Ok(tasks)
    }

    /// The nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>, EngineError> {
        let options = None::<ListNodesOptions>;
        let found = self.call("list nodes", QUICK, async |docker| docker.list_nodes(options).await).await?;
        let node = |found: bollard::models::Node| {
            let status = found.status.unwrap_or_default();
            Some(Node {
                id: found.id?,
                hostname: found.description.and_then(|description| description.hostname).unwrap_or_default(),
                address: status.addr.filter(|address| !matches!(address.as_str(), "" | "0.0.0.0")),
                up: status.state == Some(bollard::models::NodeState::READY),
            })
        };
        Ok(found.into_iter().filter_map(node).collect())
    }
}

fn service(found: ApiService) -> Service {
    let spec = found.spec.unwrap_or_default();
    let replicas = spec.mode.and_then(|mode| mode.replicated).map(|replicated| replicated.replicas.unwrap_or(1));
    let updating = match found.update_status.and_then(|status| status.state) {
        Some(Update::UPDATING) => Some("in progress"),
        Some(Update::PAUSED) => Some("paused"),
        Some(Update::ROLLBACK_STARTED) => Some("being rolled back"),
        Some(Update::ROLLBACK_PAUSED) => Some("paused on its way back"),
        _ => None,
    };
    Service {
        id: found.id.unwrap_or_default(),
        name: spec.name.unwrap_or_default(),
        version: found.version.and_then(|version| version.index).unwrap_or_default(),
        replicas: replicas.map(|replicas| u32::try_from(replicas).unwrap_or(u32::MAX)),
        labels: spec.labels.into_iter().flatten().collect(),
        updating,
    }
}

fn task(found: ApiTask) -> Option<SwarmTask> {
    let status = found.status.unwrap_or_default();
    let container = status.container_status.unwrap_or_default();
    let ports = status.port_status.and_then(|status| status.ports).into_iter().flatten();
    let wanted =
        matches!(found.desired_state, Some(ApiState::NEW | ApiState::READY | ApiState::RUNNING | ApiState::ACCEPTED));
    Some(SwarmTask {
        id: found.id?,
        slot: found.slot.and_then(|slot| u32::try_from(slot).ok()).unwrap_or_default(),
        node: found.node_id.filter(|node| !node.is_empty()),
        state: state(status.state),
        wanted,
        error: status.err.unwrap_or_default(),
        container: container.container_id.filter(|id| !id.is_empty()),
        exit_code: container.exit_code.unwrap_or_default(),
        ports: ports.filter_map(published).collect(),
    })
}

fn state(state: Option<ApiState>) -> SwarmState {
    match state {
        Some(ApiState::RUNNING) => SwarmState::Running,
        Some(ApiState::COMPLETE) => SwarmState::Complete,
        Some(ApiState::SHUTDOWN) => SwarmState::Shutdown,
        Some(ApiState::FAILED) => SwarmState::Failed,
        Some(ApiState::REJECTED) => SwarmState::Rejected,
        Some(ApiState::ORPHANED | ApiState::REMOVE) => SwarmState::Lost,
        _ => SwarmState::Starting,
    }
}

fn published(port: EndpointPortConfig) -> Option<((u16, Protocol), u16)> {
    let protocol = match port.protocol {
        Some(EndpointPortConfigProtocolEnum::UDP) => Protocol::Udp,
        Some(EndpointPortConfigProtocolEnum::SCTP) => return None,
        _ => Protocol::Tcp,
    };
    let number = |port: Option<i64>| port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    Some(((number(port.target_port)?, protocol), number(port.published_port)?))
}

fn mode(replicas: u32) -> ServiceSpecMode {
    let replicated = ServiceSpecModeReplicated { replicas: Some(replicas.into()) };
    ServiceSpecMode { replicated: Some(replicated), ..ServiceSpecMode::default() }
}

/// Ports are published on each task's own node: the mesh would hide which task one talks to.
fn endpoint(ports: &[Publish]) -> EndpointSpec {
    let port = |publish: &Publish| EndpointPortConfig {
        protocol: Some(match publish.protocol {
            Protocol::Tcp => EndpointPortConfigProtocolEnum::TCP,
            Protocol::Udp => EndpointPortConfigProtocolEnum::UDP,
        }),
        target_port: Some(publish.inside.into()),
        // A range cannot be said; its first is taken for a fixed port.
        published_port: publish.outside.map(|(first, _)| first.into()),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
        ..EndpointPortConfig::default()
    };
    EndpointSpec { ports: Some(ports.iter().map(port).collect()), ..EndpointSpec::default() }
}

fn task_spec(config: &ServiceConfig) -> TaskSpec {
    let container = &config.container;
    let limit = Limit {
        nano_cpus: container.cpus.map(|cpus| (cpus * 1e9).round() as i64),
        memory_bytes: container.memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        pids: container.pids.map(i64::from),
    };
    let network = container
        .network
        .clone()
        .map(|target| vec![NetworkAttachmentConfig { target: Some(target), ..NetworkAttachmentConfig::default() }]);
    TaskSpec {
        container_spec: Some(TaskSpecContainerSpec {
            image: Some(container.image.clone()),
            labels: Some(container.labels.clone().into_iter().collect()),
            command: container.entrypoint.clone(),
            args: container.command.clone(),
            env: Some(container.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            dir: container.cwd.clone(),
            user: container.user.clone(),
            mounts: Some(mounts(container)),
            health_check: container.health.as_ref().map(health),
            stop_grace_period: Some(config.grace_nanos),
            init: container.init.then_some(true),
            ..TaskSpecContainerSpec::default()
        }),
        resources: Some(TaskSpecResources { limits: Some(limit), ..TaskSpecResources::default() }),
        restart_policy: Some(TaskSpecRestartPolicy {
            condition: Some(TaskSpecRestartPolicyConditionEnum::ANY),
            ..TaskSpecRestartPolicy::default()
        }),
        networks: network,
        ..TaskSpec::default()
    }
}

fn mounts(container: &ContainerConfig) -> Vec<Mount> {
    let bind = |volume: &String| {
        let (rest, read_only) = volume.strip_suffix(":ro").map_or((volume.as_str(), false), |rest| (rest, true));
        let (source, target) = rest.rsplit_once(':')?;
        let kind = if source.starts_with('/') { MountType::BIND } else { MountType::VOLUME };
        Some(Mount {
            source: Some(source.to_owned()),
            target: Some(target.to_owned()),
            typ: Some(kind),
            read_only: read_only.then_some(true),
            ..Mount::default()
        })
    };
    let tmpfs =
        |target: &String| Mount { target: Some(target.clone()), typ: Some(MountType::TMPFS), ..Mount::default() };
    container.volumes.iter().filter_map(bind).chain(container.tmpfs.keys().map(tmpfs)).collect()
}
