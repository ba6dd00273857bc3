//! What scripts may see of a Mesos cluster: the port behind `setpoint.mesos`.
//!
//! Plain values and one trait; the host passes in whoever can look at the cluster.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::containers::is_like;
use crate::core::model::{PolicyName, TaskStats};

/// Which tasks. Every part that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterQuery {
    /// Names of tasks; `*` stands for anything. One of them must match.
    pub names: Vec<String>,
    /// Names or ids of frameworks, likewise.
    pub frameworks: Vec<String>,
    /// Roles, likewise.
    pub roles: Vec<String>,
    /// Host names of agents, likewise.
    pub agents: Vec<String>,
}

/// A task of any framework that its master takes for alive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterTask {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its framework's name.
    pub framework: String,
    /// Its framework's id.
    pub framework_id: String,
    /// Mesos's word, in lower case: `staging`, `starting`, `running`, `killing`.
    pub state: String,
    /// Its agent's host name.
    pub agent: String,
    /// The role whose resources it uses.
    pub role: Option<String>,
    /// Cores that it was given.
    pub cpus: f64,
    /// Bytes that it was given.
    pub memory: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970 at which it began to run.
    pub started: Option<f64>,
    /// Running tasks that are measured together, those of its executor: each has an equal part of the figures. 1 where it is
    /// measured alone, or not at all.
    pub shared_by: u32,
    /// What it uses; nothing in a mere list.
    pub stats: TaskStats,
}

/// A whole cluster, by its master's books: what is used is what was given out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterTotals {
    /// `host:port` of the leading master.
    pub leader: Option<String>,
    /// Its version.
    pub version: String,
    /// Active agents.
    pub agents: u32,
    /// Active frameworks.
    pub frameworks: u32,
    /// Tasks that are alive, of all frameworks.
    pub tasks: u32,
    /// By name: `cpus`, `mem` (bytes), `disk` (bytes), `gpus`.
    pub resources: BTreeMap<&'static str, Amount>,
}

/// How much there is of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Amount {
    /// On all active agents.
    pub total: f64,
    /// Given to tasks and executors.
    pub used: f64,
}

/// Whoever can look at the cluster. Errors are in words, for the script's author.
#[async_trait]
pub trait ClusterView: std::fmt::Debug + Send + Sync + 'static {
    /// The cluster as a whole.
    ///
    /// # Errors
    /// No master answers.
    async fn totals(&self) -> Result<ClusterTotals, String>;

    /// The tasks that a query means, by name and id.
    ///
    /// # Errors
    /// No master answers.
    async fn tasks(&self, query: ClusterQuery) -> Result<Vec<ClusterTask>, String>;

    /// The same, those that run with what they use. Shares of CPU are those since the same caller's call before.
    ///
    /// # Errors
    /// No master answers, or an agent with such tasks does not.
    async fn stats(&self, caller: PolicyName, query: ClusterQuery) -> Result<Vec<ClusterTask>, String>;
}

impl ClusterQuery {
    /// Whether it means this task.
    #[must_use]
    pub fn admits(&self, task: &ClusterTask) -> bool {
        let any = |patterns: &[String], texts: &[&str]| {
            let like = |pattern: &String| texts.iter().any(|text| is_like(pattern, text));
            patterns.is_empty() || patterns.iter().any(like)
        };
        any(&self.names, &[&task.name])
            && any(&self.frameworks, &[&task.framework, &task.framework_id])
            && any(&self.roles, &[task.role.as_deref().unwrap_or("*")])
            && any(&self.agents, &[&task.agent])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_query_must_hold() {
        let task = ClusterTask {
            name: "web.1".to_owned(),
            framework: "marathon".to_owned(),
            framework_id: "abc-0001".to_owned(),
            agent: "a1.example".to_owned(),
            ..ClusterTask::default()
        };
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let query = |names: &[&str], frameworks: &[&str], roles: &[&str], agents: &[&str]| ClusterQuery {
            names: list(names),
            frameworks: list(frameworks),
            roles: list(roles),
            agents: list(agents),
        };
        assert!(query(&[], &[], &[], &[]).admits(&task));
        assert!(query(&["x", "web.*"], &["marathon"], &["\u{2a}"], &["*.example"]).admits(&task));
        assert!(query(&[], &["abc-*"], &[], &[]).admits(&task), "a framework's id is as good as its name");
        assert!(!query(&["web"], &[], &[], &[]).admits(&task));
        assert!(!query(&["web.*"], &["chronos"], &[], &[]).admits(&task));
        assert!(!query(&[], &[], &["batch"], &[]).admits(&task));
        assert!(!query(&[], &[], &[], &["a2*"]).admits(&task));
    }
}
