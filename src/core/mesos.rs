//! What a task on a Mesos cluster is beyond what every task is: plain data, part of a [`TaskTemplate`].
//!
//! Everything else about it (image, network, volumes, ports, labels, health …) is said by the words that all backends
//! share.
//!
//! [`TaskTemplate`]: super::policy::TaskTemplate

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::container::Pull;
use super::offers::{Constraint, Packing};
use super::policy::TaskTemplate;

/// The executor of ours, by the word that policies use.
pub const OURS: &str = "setpoint";

/// The options of `docker run` that our executor knows, which speaks to engines without that program.
pub const KNOWN_PARAMETERS: [&str; 10] =
    ["entrypoint", "env", "init", "label", "no-healthcheck", "pids-limit", "tmpfs", "user", "volume", "workdir"];

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
    /// Further resources, `gpus` for one, by their names.
    pub resources: BTreeMap<String, Want>,
    /// What it may use beyond what it is given, where the cluster has limits.
    pub limits: Limits,
    /// How others find it.
    pub discovery: Option<Discovery>,
}

/// What a task wants of one resource. It is saved as policies write it, so its shape tells what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Want {
    /// So much of a scalar.
    Amount(f64),
    /// These numbers of ranges.
    Numbers(BTreeSet<u64>),
    /// Any numbers of ranges.
    AnyNumbers {
        /// How many.
        numbers: u32,
    },
    /// These items of a set.
    Items(BTreeSet<String>),
    /// Any items of a set.
    AnyItems {
        /// How many.
        any: u32,
    },
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

/// Whether an agent's Docker containerizer runs it, or our executor on the agent's engine.
#[must_use]
pub fn by_docker(task: &TaskTemplate) -> bool {
    task.image.is_some() && task.mesos.containerizer == Containerizer::Docker
}

/// What a task says that no Mesos cluster can do: each word, and what is wrong with it.
#[must_use]
pub fn problems(task: &TaskTemplate) -> Vec<(&'static str, String)> {
    let spec = &task.container;
    let by_docker = by_docker(task);
    let mut problems = Vec::new();
    if task.image.is_some() && spec.pull == Pull::Never {
        problems.push(("pull", "expected \"missing\" or \"always\" on Mesos, got \"never\"".to_owned()));
    }
    if let Some(user) = spec.user.as_ref().filter(|_| !by_docker)
        && (user.contains(':') || user.chars().all(|c| c.is_ascii_digit()))
    {
        let problem = format!("expected a user's name alone, by which agents look it up, got \"{user}\"");
        problems.push(("user", problem));
    }
    if task.image.is_none() && task.executor.as_deref() == Some(OURS) {
        let elsewhere =
            "is for the cluster's own executors, while executor = \"setpoint\" runs commands without a container";
        if !spec.volumes.is_empty() {
            problems.push(("volumes", elsewhere.to_owned()));
        }
        if let Some(network) = spec.network.as_ref().filter(|network| !network.eq_ignore_ascii_case("host")) {
            problems.push(("network", format!("\"{network}\" {elsewhere}")));
        }
    } else if !by_docker && spec.network.as_ref().is_some_and(|network| network.eq_ignore_ascii_case("none")) {
        let problem = "expected a network's name or \"host\", got \"none\", which only Docker has";
        problems.push(("network", problem.to_owned()));
    }
    if task.image.is_some() && task.executor.as_deref() == Some(OURS) {
        let strangers = spec.parameters.iter().map(|(option, _)| option);
        problems.extend(strangers.filter(|option| !KNOWN_PARAMETERS.contains(&option.as_str())).map(|option| {
            let known = KNOWN_PARAMETERS.join(", ");
            let problem = format!("executor = \"setpoint\" does not know the option \"{option}\"; it knows {known}");
            ("parameters", problem)
        }));
    }
    for source in spec.volumes.iter().map(|volume| &volume.source).filter(|source| !source.starts_with('/')) {
        let is_name = !source.contains('/') && !source.starts_with('.');
        let problem = match (by_docker, is_name) {
            (true, true) => continue,
            (true, false) => format!("expected an absolute path or a volume's name on Mesos, got \"{source}\""),
            (false, _) => format!("expected an absolute path without Docker, got \"{source}\""),
        };
        problems.push(("volumes", problem));
    }
    problems
}
