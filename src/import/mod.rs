//! Importing: what other autoscalers are told, as a commented Lua policy with a spec.
//!
//! ```text
//!   text ─► tree (YAML, HCL, HOCON, a command line) ─► a source's own model ─► `Policy` and `Spec` ─► Lua text
//! ```
//!
//! Pure: text in, text out; who reads and writes files is the command line. It runs nothing and looks nothing up, so a
//! name that only a cluster could resolve stays a parameter to be filled in.
//!
//! - Invariant: nothing of the input is dropped in silence. Each key is carried over, or is in the report and as a
//!   comment in the policy.
//! - Invariant: whatever the input, there is no panic, and what is written is a policy that loads.
//! - Invariant: text of the input reaches the Lua only as a quoted string or a comment, never as code.

mod behavior;
mod cron;
mod error;
mod gocd;
mod hcl;
mod hocon;
mod hpa;
mod keda;
mod kubernetes;
mod lua;
mod metric;
mod nomad;
mod policy;
mod quantity;
mod relay;
mod report;
mod shell;
mod spec;
mod tree;
mod trigger;
mod workload;
mod yaml;

pub use error::ImportError;
pub use report::{Carried, Lost, Report};

use error::Problem;

/// Longest input, in bytes: a manifest of a whole application is far below that.
const LONGEST: usize = 4 << 20;

/// What the input was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Options of Relay and Relay.Mesos: a command line, an environment file, or a Marathon app.
    Relay,
    /// The settings file of gocd-mesos.
    GocdMesos,
    /// A HorizontalPodAutoscaler of Kubernetes (autoscaling/v2).
    Hpa,
    /// A ScaledObject of KEDA.
    Keda,
    /// A scaling policy of nomad-autoscaler.
    Nomad,
}

/// Where the tasks of an imported policy run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Processes of this machine.
    Local,
    /// Containers.
    Docker,
    /// A service of a Swarm.
    Swarm,
    /// Tasks of a Mesos cluster.
    Mesos,
    /// Others run them; the policy only says how many.
    None,
}

impl Backend {
    /// Its name in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Docker => "docker",
            Self::Swarm => "swarm",
            Self::Mesos => "mesos",
            Self::None => "none",
        }
    }
}

/// What the caller chooses.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The policy's name; the input's own unless given.
    pub name: Option<String>,
    /// The backend; what is nearest to the source unless given.
    pub backend: Option<Backend>,
}

/// One policy.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its name: 1 to 63 letters, digits, `_` and `-`.
    pub name: String,
    /// The text of `NAME.lua`.
    pub policy: String,
    /// The text of `NAME_test.lua`.
    pub spec: String,
    /// What became of the input.
    pub report: Report,
}

/// Imports a text. `file` is its name, for messages. Several documents give several policies, with names that differ.
///
/// # Errors
/// A text that is not of that source: where, what was expected and what came.
pub fn import(source: Source, file: &str, text: &str, options: &Options) -> Result<Vec<Imported>, ImportError> {
    let told = |problem: Problem| ImportError::new(file, problem);
    if text.len() > LONGEST {
        return Err(told(Problem::new(1, 1, format!("expected at most {LONGEST} bytes, got {}", text.len()))));
    }
    let all = match source {
        Source::Relay => relay::import(text, options),
        Source::GocdMesos => gocd::import(text, options),
        Source::Hpa => hpa::import(text, options),
        Source::Keda => keda::import(text, options),
        Source::Nomad => nomad::import(text, options),
    }
    .map_err(told)?;
    distinguish(&all).map_err(told)?;
    Ok(all)
}

/// Two policies of one name would be one file.
fn distinguish(all: &[Imported]) -> Result<(), Problem> {
    for at in 1..all.len() {
        if let Some(twin) = all[..at].iter().find(|other| other.name == all[at].name) {
            let text = format!("expected documents of different names, got two called `{}`", twin.name);
            return Err(Problem::new(1, 1, text).hint("import them one by one, each with a --name of its own"));
        }
    }
    Ok(())
}

/// A policy's name out of any text.
fn policy_name(text: &str) -> String {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = text.chars().map(|c| if known(c) { c } else { '-' }).take(63).collect();
    let name = name.trim_matches('-');
    let name = name.strip_suffix("_test").unwrap_or(name);
    if name.is_empty() { "imported".to_owned() } else { name.to_owned() }
}
