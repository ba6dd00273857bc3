//! Making containers.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HealthConfig as ApiHealth, HostConfig, PortBinding, PortMap};
use bollard::query_parameters::CreateContainerOptions;

use super::engine::{Engine, SLOW};
use super::error::EngineError;
use crate::core::container::Protocol;

/// A container to make. The default takes everything from the image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerConfig {
    /// Its name, unique on the engine.
    pub name: String,
    /// The image that it is made of.
    pub image: String,
    /// In place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or the command where there is no entrypoint; none are the image's.
    pub command: Option<Vec<String>>,
    /// Environment beyond the image's.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Working folder in the container.
    pub cwd: Option<String>,
    /// User, or `user:group`.
    pub user: Option<String>,
    /// Cores.
    pub cpus: Option<f64>,
    /// Bytes of memory; there is no swap beyond it.
    pub memory: Option<u64>,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// A network's name, or `bridge`, `host`, `none`.
    pub network: Option<String>,
    /// `source:target[:ro]`.
    pub volumes: Vec<String>,
    /// Folder in memory → its mount options.
    pub tmpfs: BTreeMap<String, String>,
    /// Ports to publish.
    pub ports: Vec<Publish>,
    /// The address of the engine's machine that ports are published on; none is every one.
    pub publish_on: Option<IpAddr>,
    /// How its health is found out; none leaves that to the image.
    pub health: Option<HealthConfig>,
    /// Every right on its machine.
    pub privileged: bool,
    /// A small init process in it.
    pub init: bool,
}

/// A port to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The port in the container.
    pub inside: u16,
    /// What it carries.
    pub protocol: Protocol,
    /// First and last of the ports outside that the engine chooses from; none is any free one.
    pub outside: Option<(u16, u16)>,
}

/// How a container's health is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// The command as it is run, or none for no check at all.
    pub command: Option<Vec<String>>,
    /// Time between two checks.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time at the start in which failures do not count.
    pub start_period: Option<Duration>,
}

impl Engine {
    /// Makes a container and gives its id; it does not run yet.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when the name is in use, [`EngineError::NotFound`] when the engine does not have the
    /// image.
    pub async fn create(&self, config: &ContainerConfig) -> Result<String, EngineError> {
        let options = CreateContainerOptions { name: Some(config.name.clone()), ..CreateContainerOptions::default() };
        let body = body(config);
        // The request is large, and so would be every future that this one is part of.
        let made = Box::pin(
            self.call("create a container", SLOW, async |docker| docker.create_container(Some(options), body).await),
        );
        let made = made.await?;
        for warning in &made.warnings {
            tracing::debug!(engine = %self.name(), container = %config.name, "{warning}");
        }
        Ok(made.id)
    }
}

fn body(config: &ContainerConfig) -> ContainerCreateBody {
    let port = |publish: &Publish| format!("{}/{}", publish.inside, publish.protocol.as_str());
    ContainerCreateBody {
        image: Some(config.image.clone()),
        entrypoint: config.entrypoint.clone(),
        cmd: config.command.clone(),
        env: Some(config.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(config.labels.clone().into_iter().collect()),
        working_dir: config.cwd.clone(),
        user: config.user.clone(),
        exposed_ports: Some(config.ports.iter().map(port).collect()),
        healthcheck: config.health.as_ref().map(health),
        host_config: Some(host_config(config)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(config: &ContainerConfig) -> HostConfig {
    let memory = config.memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let tmpfs: HashMap<String, String> = config.tmpfs.clone().into_iter().collect();
    HostConfig {
        nano_cpus: config.cpus.map(|cpus| (cpus * 1e9).round() as i64),
        memory,
        // Without swap, what a container may use is what the policy says.
        memory_swap: memory,
        pids_limit: config.pids.map(i64::from),
        network_mode: config.network.clone(),
        binds: Some(config.volumes.clone()),
        tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
        port_bindings: Some(bindings(config)),
        privileged: Some(config.privileged),
        init: config.init.then_some(true),
        ..HostConfig::default()
    }
}

fn bindings(config: &ContainerConfig) -> PortMap {
    let mut map = PortMap::new();
    for publish in &config.ports {
        let outside = match publish.outside {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let binding =
            PortBinding { host_ip: config.publish_on.map(|address| address.to_string()), host_port: Some(outside) };
        let key = format!("{}/{}", publish.inside, publish.protocol.as_str());
        map.entry(key).or_default().get_or_insert_default().push(binding);
    }
    map
}

pub(super) fn health(config: &HealthConfig) -> ApiHealth {
    let nanos = |time: Option<Duration>| time.map(|time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    let test = match &config.command {
        None => vec!["NONE".to_owned()],
        Some(command) => [vec!["CMD".to_owned()], command.clone()].concat(),
    };
    ApiHealth {
        test: Some(test),
        interval: nanos(config.interval),
        timeout: nanos(config.timeout),
        retries: config.retries.map(i64::from),
        start_period: nanos(config.start_period),
        ..ApiHealth::default()
    }
}
