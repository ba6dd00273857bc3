//! Tasks as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::script::TaskView;

use super::Time;

/// The answer of `GET /v1/tasks`.
#[derive(Debug, Serialize)]
pub struct AllTasksJson<'a> {
    /// Every task, in the order of their ids.
    pub tasks: Vec<TaskJson<'a>>,
}

/// One task, as in `GET /v1/tasks`.
#[derive(Debug, Serialize)]
pub struct TaskJson<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its policy.
    pub policy: &'a str,
    /// Name of its backend.
    pub backend: &'a str,
    /// `asked`, `staging`, `running`, `killing` or `gone`.
    pub state: &'static str,
    /// Whether it is ready.
    pub ready: bool,
    /// Where it runs.
    pub host: Option<&'a str>,
    /// Port name → number outside.
    pub ports: &'a BTreeMap<String, u16>,
    /// Process id, on the local backend.
    pub pid: Option<u32>,
    /// Container id, where there is one.
    pub container: Option<&'a str>,
    /// Share of one core, in percent.
    pub cpu_percent: Option<f64>,
    /// Memory in use.
    pub memory_bytes: Option<u64>,
    /// The most memory that it may use, in bytes.
    pub memory_limit: Option<u64>,
    /// Bytes received over the network.
    pub network_received: Option<u64>,
    /// Bytes sent over the network.
    pub network_sent: Option<u64>,
    /// Bytes read from block devices.
    pub block_read: Option<u64>,
    /// Bytes written to block devices.
    pub block_written: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// When it was asked for.
    pub started: Time,
    /// Who asked for it.
    pub by: &'static str,
    /// Whether it is a helper.
    pub helper: bool,
    /// Its place among the policy's tasks, from 0, which its replacement gets.
    pub slot: Option<u32>,
}

impl<'a> From<&'a TaskView> for TaskJson<'a> {
    fn from(task: &'a TaskView) -> Self {
        Self {
            id: task.id.as_str(),
            policy: task.policy.as_str(),
            backend: &task.backend,
            state: task.state.as_str(),
            ready: task.ready,
            host: task.placement.host.as_deref(),
            ports: &task.placement.ports,
            pid: task.placement.pid,
            container: task.placement.container.as_deref(),
            cpu_percent: task.stats.cpu_percent,
            memory_bytes: task.stats.memory_bytes,
            memory_limit: task.stats.memory_limit,
            network_received: task.stats.network_received,
            network_sent: task.stats.network_sent,
            block_read: task.stats.block_read,
            block_written: task.stats.block_written,
            pids: task.stats.pids,
            started: Time(task.started),
            by: task.by,
            helper: task.helper,
            slot: task.slot,
        }
    }
}
