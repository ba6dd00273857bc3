//! Where tasks' figures come from: the engines of their nodes, as far as they are known.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::lock;
use crate::container::{Engine, EngineConfig, SwarmTask};
use crate::core::model::{PolicyName, TaskId, TaskStats};
use crate::sample::Sampler;

/// How long an engine's answer about its node is good for, and how soon one that gave none is asked again.
const NODE_FOR: Duration = Duration::from_secs(30);

/// How long the engines together may take for one reading.
const PATIENCE: Duration = Duration::from_millis(1800);

/// A task's node and container.
type Place = (String, String);

/// The engines of nodes, and which containers are where.
pub(super) struct Figures {
    engines: Vec<Arc<Source>>,
    /// Policy → task → node and container.
    places: Mutex<HashMap<PolicyName, HashMap<TaskId, Place>>>,
}

struct Source {
    engine: Engine,
    sampler: Sampler,
    /// The node that it said that it is, and when.
    node: Mutex<Option<(Instant, Option<String>)>>,
}

impl Figures {
    pub(super) fn new(engines: Vec<EngineConfig>) -> Self {
        let source = |config: EngineConfig| {
            let engine = Engine::new(config);
            Arc::new(Source { sampler: Sampler::new(Arc::new(engine.clone())), engine, node: Mutex::default() })
        };
        Self { engines: engines.into_iter().map(source).collect(), places: Mutex::default() }
    }

    /// Takes in where a policy's tasks are.
    pub(super) fn know(&self, policy: &PolicyName, tasks: &[SwarmTask]) {
        let place =
            |task: &SwarmTask| Some((TaskId::from(task.id.as_str()), (task.node.clone()?, task.container.clone()?)));
        lock(&self.places).insert(policy.clone(), tasks.iter().filter_map(place).collect());
    }

    pub(super) fn forget(&self, policy: &PolicyName) {
        lock(&self.places).remove(policy);
    }

    /// The name or address under which a node's ports are reached, where its engine's settings say so: an engine that
    /// is spoken to through a socket has none but loopback, which is no address of a node.
    pub(super) fn advertised(&self, node: &str) -> Option<String> {
        let source = self
            .engines
            .iter()
            .find(|source| lock(&source.node).as_ref().is_some_and(|(_, known)| known.as_deref() == Some(node)))?;
        let advertise = &source.engine.config().advertise;
        let loopback = advertise == "localhost" || advertise.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        (!loopback).then(|| advertise.clone())
    }

    /// The figures of those tasks whose nodes' engines are known and answer.
    pub(super) async fn sample(&self, tasks: &[TaskId]) -> BTreeMap<TaskId, TaskStats> {
        let places: Vec<(TaskId, String, String)> = {
            let places = lock(&self.places);
            let mut found = Vec::new();
            for id in tasks {
                if let Some((node, container)) = places.values().find_map(|tasks| tasks.get(id)) {
                    found.push((id.clone(), node.clone(), container.clone()));
                }
            }
            found
        };
        let places = Arc::new(places);
        let sample = |source: &Arc<Source>| Arc::clone(source).sample(Arc::clone(&places));
        join_all(self.engines.iter().map(sample)).await.into_iter().flatten().collect()
    }
}

impl Source {
    async fn sample(self: Arc<Self>, places: Arc<Vec<(TaskId, String, String)>>) -> Vec<(TaskId, TaskStats)> {
        let Some(node) = self.node().await else { return Vec::new() };
        let mut here: BTreeMap<String, TaskId> = BTreeMap::new();
        for (id, _, container) in places.iter().filter(|(_, of_task, _)| *of_task == node) {
            here.insert(container.clone(), id.clone());
        }
        if here.is_empty() {
            return Vec::new();
        }
        let containers: Vec<String> = here.keys().cloned().collect();
        let figures = self.sampler.sample(&containers, PATIENCE).await;
        let mut of_tasks = Vec::new();
        for (container, stats) in figures {
            if let Some(id) = here.remove(&container) {
                of_tasks.push((id, stats));
            }
        }
        of_tasks
    }

    /// The node that this engine is.
    async fn node(&self) -> Option<String> {
        let known = lock(&self.node).clone();
        if let Some((_, node)) = known.filter(|(at, _)| at.elapsed() < NODE_FOR) {
            return node;
        }
        let node = self.engine.node_id().await.unwrap_or_else(|error| {
            tracing::debug!(engine = %self.engine.name(), error = %error, "an engine does not say which node it is");
            None
        });
        *lock(&self.node) = Some((Instant::now(), node.clone()));
        node
    }
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engines: Vec<&str> = self.engines.iter().map(|source| source.engine.name()).collect();
        f.debug_struct("Figures").field("engines", &engines).finish_non_exhaustive()
    }
}
