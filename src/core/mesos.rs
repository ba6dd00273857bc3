//! What a task on a Mesos cluster is beyond what every task is: plain data, part of a [`TaskTemplate`].
//!
//! Everything else about it (image, network, volumes, ports, labels, health …) is said by the words that all backends
//! share.
//!
//! [`TaskTemplate`]: super::policy::TaskTemplate

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::offers::{Constraint, Packing};

/// The Mesos words of a workload: `workload.mesos`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MesosSpec {
    /// The role whose resources it uses; none is the host's.
    pub role: Option<String>,
    /// Policies of a higher number are served first.
    pub priority: i32,
    /// Where it may go.
    pub constraints: Vec<Constraint>,
    /// Where it goes when there is a choice.
    pub packing: Packing,
    /// What is fetched into its sandbox.
    pub uris: Vec<Uri>,
    /// Which containerizer runs its image.
    pub containerizer: Containerizer,
    /// Further scalar resources, `gpus` for one, by their names.
    pub resources: BTreeMap<String, f64>,
    /// What it may use beyond what it is given, where the cluster has limits.
    pub limits: Limits,
    /// How others find it.
    pub discovery: Option<Discovery>,
}

/// A file or an archive that is fetched into the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uri {
    /// Where it is.
    pub uri: String,
    /// Whether it is made executable.
    pub executable: bool,
    /// Whether an archive is unpacked; none is Mesos's default, which is yes.
    pub extract: Option<bool>,
    /// Whether the agent keeps it for the next task.
    pub cache: bool,
    /// Its name in the sandbox.
    pub output: Option<String>,
}

/// What runs a container image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Containerizer {
    /// The agent's Docker containerizer.
    #[default]
    Docker,
    /// Mesos's own.
    Mesos,
}

/// Upper limits of a task's resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Cores.
    pub cpus: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// How other systems find a task: Mesos's `DiscoveryInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Who may find it.
    pub visibility: Visibility,
    /// Its name there; none is the policy's.
    pub name: Option<String>,
    /// Which stage it belongs to: `production`.
    pub environment: Option<String>,
    /// Where it is.
    pub location: Option<String>,
    /// Which version it is.
    pub version: Option<String>,
}

/// Who may find a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Its own framework.
    Framework,
    /// The cluster.
    #[default]
    Cluster,
    /// Everybody.
    External,
}
