//! What scripts may see of containers and services that no policy owns: the port behind `setpoint.docker`.
//!
//! Plain values and one trait; the host passes in whoever can look at engines.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::core::container::Blueprint;
use crate::core::model::{PolicyName, TaskStats};

/// Labels that Compose puts on its containers: of the project, and of the service in it.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// See [`COMPOSE_PROJECT`].
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// Which containers. Every part that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerQuery {
    /// Names; `*` stands for anything. One of them must match.
    pub names: Vec<String>,
    /// Labels with their value, or with any.
    pub labels: Vec<(String, Option<String>)>,
    /// A name of the host's for an engine; none is all of them.
    pub engine: Option<String>,
    /// Also those that do not run.
    pub all: bool,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerRow {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image that it was made of, as it was named.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The engine's word: `running`, `paused`, `exited` …
    pub state: String,
    /// The host's name for the engine that it is on.
    pub engine: String,
    /// What it uses; nothing in a mere list, nor of one that does not run.
    pub stats: TaskStats,
}

/// What it takes to start another container like one that there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerTemplate {
    /// What it was made with.
    pub blueprint: Blueprint,
    /// The host's name for the engine that it is on.
    pub engine: String,
}

/// A service of a Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRow {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its own labels, not those of its containers.
    pub labels: BTreeMap<String, String>,
    /// The number of tasks that is wanted; none for a service that is not replicated.
    pub replicas: Option<u32>,
}

/// Whoever can look at container engines. Errors are in words, for the script's author.
#[async_trait]
pub trait Containers: std::fmt::Debug + Send + Sync + 'static {
    /// The containers that a query means, by name.
    ///
    /// # Errors
    /// An engine does not answer, or there is none of that name.
    async fn list(&self, query: ContainerQuery) -> Result<Vec<ContainerRow>, String>;

    /// Those of them that run, with what they use. Shares of CPU are those since the same caller's call before; what
    /// an engine has to be asked for is waited for until `patience` is over, and then left out.
    ///
    /// # Errors
    /// As with `list`.
    async fn stats(
        &self,
        caller: PolicyName,
        query: ContainerQuery,
        patience: Duration,
    ) -> Result<Vec<ContainerRow>, String>;

    /// How to start another one like a container, by name or id; none when there is no such container.
    ///
    /// # Errors
    /// As with `list`.
    async fn template(&self, container: String, engine: Option<String>) -> Result<Option<ContainerTemplate>, String>;

    /// The services of the Swarm that a query means, by name; none when there is no Swarm. Only names and labels of the
    /// query count.
    ///
    /// # Errors
    /// The manager does not answer.
    async fn services(&self, query: ContainerQuery) -> Result<Option<Vec<ServiceRow>>, String>;
}

impl ContainerQuery {
    /// Whether it means a container of this name and these labels; the engine and the state are the host's to look at.
    #[must_use]
    pub fn admits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let named = self.names.is_empty() || self.names.iter().any(|pattern| is_like(pattern, name));
        let labelled = |(key, value): &(String, Option<String>)| {
            labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        named && self.labels.iter().all(labelled)
    }
}

/// Whether a pattern, in which `*` stands for anything, is like all of `text`.
pub(super) fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        // The part before this one may begin at its first place: what follows it can only get longer by that.
        if let Some(part) = last.replace(part) {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + str::len(part)..];
        }
    }
    last.map_or(rest.is_empty(), |part| rest.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_looked_at_together() {
        for (pattern, name, expected) in [
            ("web", "web", true),
            ("web", "web-1", false),
            ("web*", "web", true),
            ("web-*", "web-1", true),
            ("*-1", "web-1", true),
            ("*-1", "web-10", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("ab*ba", "aba", false),
            ("**", "x", true),
        ] {
            assert_eq!(is_like(pattern, name), expected, "{pattern} {name}");
        }
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("on".to_owned(), String::new())]);
        let query = |label: &str, value: Option<&str>| ContainerQuery {
            names: vec!["no".to_owned(), "w*".to_owned()],
            labels: vec![("on".to_owned(), None), (label.to_owned(), value.map(str::to_owned))],
            ..ContainerQuery::default()
        };
        assert!(query("app", None).admits("web", &labels) && query("app", Some("web")).admits("web", &labels));
        assert!(!query("app", Some("we")).admits("web", &labels) && !query("app", None).admits("x", &labels));
        assert!(!query("none", None).admits("web", &labels));
        assert!(ContainerQuery::default().admits("anything", &labels));
    }
}
