//! What containers use, as their engine says, and where they run: an engine as a source of figures.

use std::io;

use async_trait::async_trait;
use bollard::models::{ContainerCpuStats, ContainerStatsResponse};
use bollard::query_parameters::StatsOptions;
use futures_util::StreamExt;

use super::engine::{Engine, QUICK};
use super::error::EngineError;
use super::inspect::Status;
use crate::sample::{
    BlockCounter, BlockCounters, ContainerSource, CpuCounters, CpuUsage, EngineAnswer, Located, MemoryCounters,
    NetworkCounters, PidsCounters,
};

impl Engine {
    /// A container's counters now, by name or id. Engines of API 1.41 and newer read once; older ones, and some newer,
    /// take a second or two, because they wait for their own next reading.
    pub async fn counters(&self, container: &str) -> Result<EngineAnswer, EngineError> {
        let options = StatsOptions { stream: false, one_shot: true };
        let answer = self.call("read what a container uses", QUICK, async |docker| {
            let mut answers = Box::pin(docker.stats(container, Some(options)));
            answers.next().await.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))
        });
        Ok(translate(answer.await?))
    }
}

#[async_trait]
impl ContainerSource for Engine {
    async fn locate(&self, container: &str) -> Result<Option<Located>, String> {
        match self.inspect(container).await {
            Ok(found) => {
                let own_network = !matches!(found.network.as_str(), "host" | "none");
                let pid = found.pid.filter(|_| found.status == Status::Running);
                Ok(pid.map(|pid| Located { id: found.id, pid, own_network }))
            }
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn counters(&self, container: &str) -> Result<Option<EngineAnswer>, String> {
        match Self::counters(self, container).await {
            Ok(answer) => Ok(Some(answer)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn translate(answer: ContainerStatsResponse) -> EngineAnswer {
    let networks = answer.networks.map(|networks| {
        let bytes = networks.into_iter().map(|(name, bytes)| {
            let (rx_bytes, tx_bytes) = (bytes.rx_bytes.unwrap_or(0), bytes.tx_bytes.unwrap_or(0));
            (name, NetworkCounters { rx_bytes, tx_bytes })
        });
        bytes.collect()
    });
    let block = |entries: Vec<bollard::models::ContainerBlkioStatEntry>| {
        let rows = entries.into_iter();
        rows.map(|row| BlockCounter { op: row.op.unwrap_or_default(), value: row.value.unwrap_or(0) }).collect()
    };
    EngineAnswer {
        read: answer.read,
        cpu_stats: answer.cpu_stats.map(cpu),
        precpu_stats: answer.precpu_stats.map(cpu),
        memory_stats: answer.memory_stats.map(|memory| MemoryCounters {
            usage: memory.usage,
            limit: memory.limit,
            stats: memory.stats,
        }),
        networks,
        pids_stats: answer.pids_stats.map(|pids| PidsCounters { current: pids.current }),
        blkio_stats: answer.blkio_stats.map(|counters| BlockCounters {
            io_service_bytes_recursive: counters.io_service_bytes_recursive.map(block),
        }),
    }
}

fn cpu(counters: ContainerCpuStats) -> CpuCounters {
    CpuCounters {
        cpu_usage: counters
            .cpu_usage
            .map(|usage| CpuUsage { total_usage: usage.total_usage.unwrap_or(0), percpu_usage: usage.percpu_usage }),
        system_cpu_usage: counters.system_cpu_usage,
        online_cpus: counters.online_cpus,
    }
}
