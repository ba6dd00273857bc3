//! Containers, their networks, and checks of health.

use serde_json::Value;

use super::task::CommandInfo;
use super::{DurationInfo, Labels};

enumeration! {
    ContainerKind { Docker = "DOCKER", Mesos = "MESOS", }
    DockerNetwork { Host = "HOST", Bridge = "BRIDGE", None = "NONE", User = "USER", }
    VolumeMode { ReadWrite = "RW", ReadOnly = "RO", }
    ImageKind { Appc = "APPC", Docker = "DOCKER", }
    HealthCheckKind { Command = "COMMAND", Http = "HTTP", Tcp = "TCP", }
    CheckKind { Command = "COMMAND", Http = "HTTP", Tcp = "TCP", }
}

message! {
    Parameter { key: String, value: String, }
    Parameters { parameter: Vec<Parameter>, }
    DockerPortMapping { host_port: u32, container_port: u32, protocol: Option<String>, }
    DockerInfo {
        image: String,
        network: Option<DockerNetwork>,
        port_mappings: Vec<DockerPortMapping>,
        privileged: Option<bool>,
        /// Options of `docker run`; a key may come more than once.
        parameters: Vec<Parameter>,
        force_pull_image: Option<bool>,
        volume_driver: Option<String>,
    }
    DockerImage { name: String, }
    Image {
        #[serde(rename = "type")]
        kind: ImageKind,
        docker: Option<DockerImage>,
        cached: Option<bool>,
    }
    MesosInfo { image: Option<Image>, }
    Volume {
        mode: VolumeMode,
        container_path: String,
        host_path: Option<String>,
        image: Option<Image>,
        source: Option<Value>,
    }
    PortMapping { host_port: u32, container_port: u32, protocol: Option<String>, }
    IpAddress { protocol: Option<String>, ip_address: Option<String>, }
    NetworkInfo {
        ip_addresses: Vec<IpAddress>,
        name: Option<String>,
        groups: Vec<String>,
        labels: Option<Labels>,
        port_mappings: Vec<PortMapping>,
    }
    ContainerInfo {
        #[serde(rename = "type")]
        kind: ContainerKind,
        volumes: Vec<Volume>,
        hostname: Option<String>,
        docker: Option<DockerInfo>,
        mesos: Option<MesosInfo>,
        network_infos: Vec<NetworkInfo>,
        linux_info: Option<Value>,
        rlimit_info: Option<Value>,
        tty_info: Option<Value>,
    }
    CgroupInfo { net_cls: Option<Value>, }
    ContainerStatus {
        container_id: Option<ContainerId>,
        network_infos: Vec<NetworkInfo>,
        cgroup_info: Option<CgroupInfo>,
        executor_pid: Option<u32>,
    }
    HttpCheck {
        protocol: Option<String>,
        scheme: Option<String>,
        port: u32,
        path: Option<String>,
        statuses: Vec<u32>,
    }
    TcpCheck { protocol: Option<String>, port: u32, }
    HealthCheck {
        /// Seconds, as all of its times.
        delay_seconds: Option<f64>,
        interval_seconds: Option<f64>,
        timeout_seconds: Option<f64>,
        consecutive_failures: Option<u32>,
        grace_period_seconds: Option<f64>,
        #[serde(rename = "type")]
        kind: HealthCheckKind,
        command: Option<CommandInfo>,
        http: Option<HttpCheck>,
        tcp: Option<TcpCheck>,
    }
    CheckInfo {
        #[serde(rename = "type")]
        kind: CheckKind,
        command: Option<Value>,
        http: Option<Value>,
        tcp: Option<Value>,
        delay_seconds: Option<f64>,
        interval_seconds: Option<f64>,
        timeout_seconds: Option<f64>,
    }
}

/// A container's id; that of a nested one has its parent's.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ContainerId {
    pub value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<Self>>,
}

impl super::Unset for ContainerId {}

impl HealthCheck {
    /// How long after a start failures do not count.
    pub fn grace_period(&self) -> Option<DurationInfo> {
        let seconds = self.grace_period_seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
        Some(DurationInfo { nanoseconds: (seconds * 1e9) as i64 })
    }
}
