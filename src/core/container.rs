//! What a task in a container is beyond what every task is: plain data, part of a [`TaskTemplate`].
//!
//! The words mean the same on every backend that runs containers; one that cannot do what a word says leaves it
//! out, and `check` warns.
//!
//! [`TaskTemplate`]: super::policy::TaskTemplate

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::Command;

/// The container words of a workload. The default is a container as its image has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// In place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// A network's name, or `bridge`, `host`, `none`.
    pub network: Option<String>,
    /// Folders and volumes that it sees.
    pub volumes: Vec<Volume>,
    /// Folders that it has in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// How its health is found out; none leaves that to the image.
    pub health: Option<Health>,
    /// When the image is fetched.
    pub pull: Pull,
    /// The user, and group, that it runs as.
    pub user: Option<String>,
    /// Whether it has every right on its machine.
    pub privileged: bool,
    /// Whether a small init process takes signals and reaps in it.
    pub init: bool,
    /// Options as `docker run` has them, for backends that go through it; in order, and any of them more than once.
    pub parameters: Vec<(String, String)>,
    /// A service of the Swarm that is there already, and whose number alone is the policy's.
    pub service: Option<String>,
    /// The engines that it may run on, by the host's names; empty is all of them.
    pub engines: Vec<String>,
}

/// One folder or volume that a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// A path on the engine's machine (relative ones start from the policy file's folder), or a volume's name.
    pub source: String,
    /// Where the container sees it.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// One folder in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where the container sees it.
    pub target: String,
    /// Mount options such as `size=64m`; may be empty.
    pub options: String,
}

/// How a task's health is found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not at all, whatever the image says.
    Off,
    /// By something that is tried again and again.
    Check(HealthCheck),
}

/// Something that is tried again and again while a task runs. Times that are not given are the engine's, or the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// Time before the first check.
    #[serde(default)]
    pub delay: Option<Duration>,
    /// Time between two checks.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time at the start in which failures do not count.
    pub start_period: Option<Duration>,
}

/// One kind of check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// A command, run where the task runs; exit code 0 is healthy.
    Command(Command),
    /// A request for a page; a status from 200 to 399 is healthy.
    Http {
        /// The port that answers.
        port: ProbePort,
        /// The page, from its slash on.
        path: String,
        /// Whether it is asked over TLS; the certificate is not looked at.
        tls: bool,
    },
    /// A connection; one that is accepted is healthy.
    Tcp {
        /// The port that accepts.
        port: ProbePort,
    },
}

/// A port that is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbePort {
    /// By its number, where the task listens.
    Number(u16),
    /// By the name that it has among the task's ports.
    Named(String),
}

impl ProbePort {
    /// Its number, when the task's ports have these.
    #[must_use]
    pub fn number(&self, ports: &BTreeMap<String, u16>) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Named(name) => ports.get(name).copied(),
        }
    }
}

/// When an image is fetched from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// When the engine does not have it.
    #[default]
    Missing,
    /// Before every task.
    Always,
    /// Never.
    Never,
}

/// What a port carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What a container was made with; its name, its health check and its restart policy are not part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blueprint {
    /// The image, as it was named.
    pub image: String,
    /// Entrypoint, the image's included.
    pub entrypoint: Vec<String>,
    /// Arguments, the image's included.
    pub command: Vec<String>,
    /// Environment, the image's included.
    pub env: BTreeMap<String, String>,
    /// Labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Cores.
    pub cpus: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// The network that it was made for.
    pub network: Option<String>,
    /// Folders and named volumes: `source:target[:ro]`.
    pub volumes: Vec<String>,
    /// Folders in memory: `target[:options]`.
    pub tmpfs: Vec<String>,
    /// Ports inside that are published.
    pub ports: Vec<(u16, Protocol)>,
    /// Every right on its machine.
    pub privileged: bool,
    /// A small init process in it.
    pub init: bool,
}
