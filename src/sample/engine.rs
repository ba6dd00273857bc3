//! What an engine answers to the stats call, and the figures in it, by the formulas of `docker stats`.
//!
//! Answers differ between versions of control groups and of engines: a key that is not there is none. The fields
//! are those of the Engine API's `ContainerStatsResponse`.

use std::collections::HashMap;

use serde::Deserialize;

use super::{CpuReading, Reading};
use crate::core::model::TaskStats;

/// What the moment of a reading begins with when there was none: the year 1.
const NEVER: &str = "0001-";

/// The parts of an answer that figures come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EngineAnswer {
    /// When the engine read (RFC 3339); the year 1 for a container that does not run.
    pub read: Option<String>,
    /// CPU time at that moment.
    pub cpu_stats: Option<CpuCounters>,
    /// CPU time at the engine's reading before; without figures in the first answer of a stream and in a one-shot one.
    pub precpu_stats: Option<CpuCounters>,
    /// Memory.
    pub memory_stats: Option<MemoryCounters>,
    /// Interfaces by name; absent where the container has no network of its own.
    pub networks: Option<HashMap<String, NetworkCounters>>,
    /// Processes.
    pub pids_stats: Option<PidsCounters>,
    /// Block I/O.
    pub blkio_stats: Option<BlockCounters>,
}

/// CPU time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CpuCounters {
    /// The container's.
    pub cpu_usage: Option<CpuUsage>,
    /// The machine's.
    pub system_cpu_usage: Option<u64>,
    /// Its cores; old engines leave it out or say 0.
    pub online_cpus: Option<u32>,
}

/// CPU time of a container, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// On all cores.
    pub total_usage: u64,
    /// On each core, on version 1 of control groups.
    pub percpu_usage: Option<Vec<u64>>,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MemoryCounters {
    /// All of it, the page cache included.
    pub usage: Option<u64>,
    /// The limit, or the machine's memory.
    pub limit: Option<u64>,
    /// The kernel's own counters.
    pub stats: Option<HashMap<String, u64>>,
}

/// Bytes over one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetworkCounters {
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_bytes: u64,
}

/// Processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PidsCounters {
    /// How many processes and threads there are.
    pub current: Option<u64>,
}

/// Block I/O.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BlockCounters {
    /// Bytes by device and operation; null where nobody counts them.
    pub io_service_bytes_recursive: Option<Vec<BlockCounter>>,
}

/// Bytes of one operation on one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BlockCounter {
    /// `Read`, `write`, `Sync` …
    pub op: String,
    /// Bytes.
    pub value: u64,
}

impl EngineAnswer {
    /// The reading; none of a container that does not run.
    #[must_use]
    pub fn reading(&self) -> Option<Reading> {
        if self.read.as_deref().is_none_or(|read| read.starts_with(NEVER)) {
            return None;
        }
        let memory = self.memory_stats.as_ref();
        let network = self.networks.as_ref().filter(|networks| !networks.is_empty());
        let traffic = |bytes: fn(&NetworkCounters) -> u64| network.map(|all| all.values().map(bytes).sum());
        let stats = TaskStats {
            cpu_percent: None,
            memory_bytes: memory.and_then(MemoryCounters::used),
            memory_limit: memory.and_then(|memory| memory.limit).filter(|limit| *limit != 0),
            network_received: traffic(|interface| interface.rx_bytes),
            network_sent: traffic(|interface| interface.tx_bytes),
            block_read: self.block('r'),
            block_written: self.block('w'),
            pids: self.pids_stats.and_then(|pids| pids.current),
        };
        Some(Reading { cpu: self.cpu_stats.as_ref().and_then(CpuCounters::reading), stats })
    }

    /// The engine's reading of CPU time before this one, if this answer has it.
    #[must_use]
    pub fn before(&self) -> Option<CpuReading> {
        self.precpu_stats.as_ref().and_then(CpuCounters::reading)
    }

    fn block(&self, letter: char) -> Option<u64> {
        let rows = self.blkio_stats.as_ref()?.io_service_bytes_recursive.as_ref()?;
        let begins = |row: &&BlockCounter| row.op.chars().next().is_some_and(|c| c.eq_ignore_ascii_case(&letter));
        Some(rows.iter().filter(begins).map(|row| row.value).sum())
    }
}

impl CpuCounters {
    fn reading(&self) -> Option<CpuReading> {
        let usage = self.cpu_usage.as_ref()?;
        let machine = self.system_cpu_usage.filter(|time| *time != 0)?;
        let listed = usage.percpu_usage.as_ref().and_then(|cores| u32::try_from(cores.len()).ok());
        let cores = self.online_cpus.filter(|cores| *cores != 0).or(listed).filter(|cores| *cores != 0)?;
        Some(CpuReading { used: usage.total_usage, machine, cores })
    }
}

impl MemoryCounters {
    /// Without the page cache that is not in use: version 1 counts it with the groups below, version 2 in one.
    fn used(&self) -> Option<u64> {
        let usage = self.usage?;
        let counter = |key| self.stats.as_ref().and_then(|stats| stats.get(key)).copied();
        let idle = counter("total_inactive_file").or_else(|| counter("inactive_file"));
        Some(without_idle(usage, idle))
    }
}

/// Memory without the idle page cache; a counter that cannot be right is left out, as `docker stats` does.
pub(super) fn without_idle(usage: u64, idle: Option<u64>) -> u64 {
    idle.filter(|idle| *idle < usage).map_or(usage, |idle| usage - idle)
}
