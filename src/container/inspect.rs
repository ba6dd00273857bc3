//! Looking at containers.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum, NetworkSettings};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};

use super::engine::{Engine, QUICK};
use super::error::EngineError;
use crate::core::container::Protocol;

/// A container as its engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name, without the slash that the API puts before it.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where in its life it is.
    pub status: Status,
    /// How it ended; 0 while it has not.
    pub exit_code: i64,
    /// Whether the kernel ended something in it for want of memory.
    pub oom_killed: bool,
    /// What the engine said when it could not start it; mostly empty.
    pub error: String,
    /// When it last started, as the engine writes it (RFC 3339); tells one start from the next.
    pub started_at: String,
    /// When it last ended, likewise.
    pub finished_at: String,
    /// The process id of its first process on the engine's machine, while it runs.
    pub pid: Option<u32>,
    /// What its health check says; none without one.
    pub health: Option<Health>,
    /// Port inside → port outside, where it is published.
    pub ports: BTreeMap<(u16, Protocol), u16>,
    /// The network that it was made for: `bridge`, `host`, a name …
    pub network: String,
    /// Its addresses, by network.
    pub addresses: BTreeMap<String, String>,
}

/// What a list says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image that it was made of, as it was named.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The engine's word for its state: `running`, `exited` …
    pub state: String,
}

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Made, never started.
    Created,
    /// It runs; a paused one too.
    Running,
    /// It is being started again by the engine.
    Restarting,
    /// It is being removed.
    Removing,
    /// It has ended.
    Exited,
}

/// What a health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}

impl Engine {
    /// One container, by name or id.
    pub async fn inspect(&self, container: &str) -> Result<Container, EngineError> {
        let options = None::<InspectContainerOptions>;
        let found =
            self.call("inspect a container", QUICK, async |docker| docker.inspect_container(container, options).await);
        Ok(details(found.await?))
    }

    /// Containers that carry every one of `labels` (`key` or `key=value`); also those that do not run, when `all`.
    pub async fn list(&self, labels: &[String], all: bool) -> Result<Vec<Listed>, EngineError> {
        let filters = (!labels.is_empty()).then(|| HashMap::from([("label".to_owned(), labels.to_vec())]));
        let options = ListContainersOptions { all, filters, ..ListContainersOptions::default() };
        let found =
            self.call("list containers", QUICK, async |docker| docker.list_containers(Some(options)).await).await?;
        let listed = found.into_iter().map(|found| Listed {
            id: found.id.unwrap_or_default(),
            name: found.names.into_iter().flatten().next().map(bare).unwrap_or_default(),
            image: found.image.unwrap_or_default(),
            labels: found.labels.into_iter().flatten().collect(),
            state: found.state.map(|state| state.to_string()).unwrap_or_default(),
        });
        Ok(listed.collect())
    }
}

fn details(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    let network = found.network_settings.unwrap_or_default();
    let status = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => Status::Created,
        Some(ContainerStateStatusEnum::RESTARTING) => Status::Restarting,
        Some(ContainerStateStatusEnum::REMOVING) => Status::Removing,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => Status::Exited,
        _ if state.running == Some(false) => Status::Exited,
        _ => Status::Running,
    };
    let health = state.health.and_then(|health| match health.status {
        Some(HealthStatusEnum::STARTING) => Some(Health::Starting),
        Some(HealthStatusEnum::HEALTHY) => Some(Health::Healthy),
        Some(HealthStatusEnum::UNHEALTHY) => Some(Health::Unhealthy),
        _ => None,
    });
    Container {
        id: found.id.unwrap_or_default(),
        name: found.name.map(bare).unwrap_or_default(),
        labels: found.config.and_then(|config| config.labels).into_iter().flatten().collect(),
        status,
        exit_code: state.exit_code.unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
        error: state.error.unwrap_or_default(),
        started_at: state.started_at.unwrap_or_default(),
        finished_at: state.finished_at.unwrap_or_default(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        health,
        ports: published(&network),
        network: found.host_config.and_then(|host| host.network_mode).unwrap_or_default(),
        addresses: addresses(network),
    }
}

fn published(network: &NetworkSettings) -> BTreeMap<(u16, Protocol), u16> {
    let all = network.ports.iter().flatten().filter_map(|(inside, bindings)| {
        let (port, protocol) = inside.split_once('/')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let outside = bindings.iter().flatten().find_map(|binding| binding.host_port.as_ref()?.parse().ok())?;
        Some(((port.parse().ok()?, protocol), outside))
    });
    all.collect()
}

fn addresses(network: NetworkSettings) -> BTreeMap<String, String> {
    let all = network.networks.into_iter().flatten();
    all.filter_map(|(name, endpoint)| Some((name, endpoint.ip_address.filter(|address| !address.is_empty())?)))
        .collect()
}

fn bare(name: String) -> String {
    name.strip_prefix('/').map(str::to_owned).unwrap_or(name)
}
