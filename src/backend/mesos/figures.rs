//! What tasks under the cluster's own executors use: from their agents, who are found through the leading master.
//!
//! Tasks under our executor are measured by it, and come as its messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::core::model::{TaskId, TaskStats};
use crate::mesos::operator::Operator;
use crate::mesos::wire::AgentId;
use crate::mesos::wire::operator::Usage;
use crate::mesos::{HttpConfig, MesosError, Meter};

/// Agents that are asked at the same time.
const AT_ONCE: usize = 32;

/// How long one may take: those that answer are not to wait for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long what agents say of their addresses holds for those that are known; one that is not is asked for at once.
const ADDRESSES_FOR: Duration = Duration::from_secs(60);

/// Reads them, and keeps what shares of CPU take.
#[derive(Debug)]
pub(super) struct Figures {
    operator: Operator,
    meter: Mutex<Meter>,
    addresses: Mutex<Option<Addresses>>,
}

#[derive(Clone, Debug)]
struct Addresses {
    since: Instant,
    by_agent: BTreeMap<String, reqwest::Url>,
}

impl Figures {
    pub(super) fn new(http: &HttpConfig) -> Result<Self, MesosError> {
        Ok(Self { operator: Operator::new(http)?, meter: Mutex::default(), addresses: Mutex::default() })
    }

    /// What these tasks of a framework use, as far as their agents say.
    pub(super) async fn read(
        &self,
        leader: &reqwest::Url,
        framework: &str,
        places: &BTreeMap<TaskId, AgentId>,
    ) -> Result<BTreeMap<TaskId, TaskStats>, MesosError> {
        let on: BTreeSet<&str> = places.values().map(AgentId::as_str).collect();
        if on.is_empty() {
            return Ok(BTreeMap::new());
        }
        let addresses = self.addresses(leader, &on).await?;
        let asked: Vec<(String, reqwest::Url)> =
            addresses.into_iter().filter(|(agent, _)| on.contains(agent.as_str())).collect();
        let asking = futures_util::stream::iter(asked.into_iter().map(|(agent, url)| self.ask(agent, url)));
        // Which agent answers first makes no difference: each has its own tasks.
        let read: Vec<Option<(String, Vec<Usage>)>> = asking.buffer_unordered(AT_ONCE).collect().await;
        let mut meter = lock(&self.meter);
        meter.retain(|agent| on.contains(agent));
        let mut figures = BTreeMap::new();
        for (agent, usages) in read.into_iter().flatten() {
            for (usage, percent) in usages.iter().zip(meter.take(&agent, &usages)) {
                // The cluster's executors have the ids of their tasks.
                let id = TaskId::from(usage.executor_id.as_str());
                if usage.framework_id == framework && places.get(&id).is_some_and(|on| on.as_str() == agent) {
                    figures.insert(id, stats(usage, percent));
                }
            }
        }
        Ok(figures)
    }

    async fn ask(&self, agent: String, url: reqwest::Url) -> Option<(String, Vec<Usage>)> {
        match tokio::time::timeout(PATIENCE, self.operator.statistics(&url)).await {
            Ok(Ok(usages)) => Some((agent, usages)),
            Ok(Err(error)) => {
                tracing::debug!(agent, error = %error, "an agent does not tell what its tasks use");
                None
            }
            Err(_) => {
                tracing::debug!(agent, "an agent is too slow to tell what its tasks use");
                None
            }
        }
    }

    async fn addresses(
        &self,
        leader: &reqwest::Url,
        on: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, reqwest::Url>, MesosError> {
        let known = lock(&self.addresses).clone();
        if let Some(known) = known
            && known.since.elapsed() < ADDRESSES_FOR
            && on.iter().all(|agent| known.by_agent.contains_key(*agent))
        {
            return Ok(known.by_agent);
        }
        let agents = self.operator.agents(leader).await?;
        let tls = leader.scheme() == "https";
        let by_agent: BTreeMap<String, reqwest::Url> =
            agents.iter().filter_map(|agent| Some((agent.id.clone(), agent.url(tls).ok()?))).collect();
        *lock(&self.addresses) = Some(Addresses { since: Instant::now(), by_agent: by_agent.clone() });
        Ok(by_agent)
    }
}

/// An executor's figures in the words that all backends share.
pub(crate) fn stats(usage: &Usage, cpu_percent: Option<f64>) -> TaskStats {
    let figures = &usage.statistics;
    TaskStats {
        cpu_percent,
        memory_bytes: figures.memory_bytes(),
        memory_limit: figures.mem_limit_bytes,
        network_received: figures.net_rx_bytes,
        network_sent: figures.net_tx_bytes,
        pids: figures.threads.or(figures.processes),
        ..TaskStats::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
