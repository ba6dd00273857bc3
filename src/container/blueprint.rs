//! What a container was made with, so that another one can be made like it.

use bollard::models::{ContainerConfig as ApiConfig, HostConfig, MountPoint};
use bollard::query_parameters::InspectContainerOptions;

use super::engine::{Engine, QUICK};
use super::error::EngineError;
use crate::core::container::{Blueprint, Protocol};

/// Units of a core in which an engine keeps its share.
const NANO: f64 = 1e9;

impl Engine {
    /// What a container, by name or id, was made with.
    pub async fn blueprint(&self, container: &str) -> Result<Blueprint, EngineError> {
        let options = None::<InspectContainerOptions>;
        let found =
            self.call("inspect a container", QUICK, async |docker| docker.inspect_container(container, options).await);
        let found = found.await?;
        let config = found.config.unwrap_or_default();
        let host = found.host_config.unwrap_or_default();
        Ok(blueprint(config, host, found.mounts.unwrap_or_default()))
    }
}

fn blueprint(config: ApiConfig, host: HostConfig, mounts: Vec<MountPoint>) -> Blueprint {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let env = config.env.into_iter().flatten();
    let tmpfs = host.tmpfs.into_iter().flatten();
    let mut tmpfs: Vec<String> = tmpfs
        .map(|(target, options)| if options.is_empty() { target } else { format!("{target}:{options}") })
        .collect();
    tmpfs.sort();
    let mut ports: Vec<_> = host.port_bindings.iter().flatten().filter_map(|(port, _)| inside(port)).collect();
    ports.sort_unstable();
    // A share may be kept in two ways.
    let nano = host.nano_cpus.filter(|nano| 0 < *nano).map(|nano| nano as f64 / NANO);
    let quota = host.cpu_quota.filter(|quota| 0 < *quota);
    let quota =
        quota.map(|quota| quota as f64 / host.cpu_period.filter(|period| 0 < *period).unwrap_or(100_000) as f64);
    Blueprint {
        image: config.image.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        env: env
            .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect(),
        labels: config.labels.into_iter().flatten().collect(),
        cwd: given(config.working_dir),
        user: given(config.user),
        cpus: nano.or(quota),
        memory: host.memory.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes != 0),
        pids: host.pids_limit.and_then(|pids| u32::try_from(pids).ok()).filter(|pids| *pids != 0),
        // Another container's network goes with that container.
        network: given(host.network_mode).filter(|name| name != "default" && !name.starts_with("container:")),
        volumes: volumes(mounts),
        tmpfs,
        ports,
        privileged: host.privileged.unwrap_or(false),
        init: host.init.unwrap_or(false),
    }
}

/// Folders of the machine, and volumes that have a name of somebody's choice; an anonymous one is its container's.
fn volumes(mounts: Vec<MountPoint>) -> Vec<String> {
    let mut volumes: Vec<String> = mounts
        .into_iter()
        .filter_map(|mount| {
            let source = match mount.typ?.as_str() {
                "bind" => mount.source?,
                "volume" => mount.name.filter(|name| !is_anonymous(name))?,
                _ => return None,
            };
            let mode = if mount.rw == Some(false) { ":ro" } else { "" };
            Some(format!("{source}:{}{mode}", mount.destination?))
        })
        .collect();
    volumes.sort();
    volumes
}

fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn inside(port: &str) -> Option<(u16, Protocol)> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((number.parse().ok()?, protocol))
}
