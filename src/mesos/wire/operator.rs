//! What masters and agents tell those who ask: `/state`, `/slaves`, `/monitor/statistics`, as far as it is used.
//!
//! These are the older endpoints, which every Mesos from 1.0 on has. Their ids are bare texts and their resources are
//! sums by name.

use std::collections::BTreeMap;

use reqwest::Url;
use serde_json::Value;

use super::super::address::url_at;
use super::super::error::MesosError;
use super::task::TaskState;

message! {
    /// A sum for each resource. Ports are a text such as `[31000-31999]`.
    Sums {
        cpus: Option<f64>,
        /// Megabytes.
        mem: Option<f64>,
        /// Megabytes.
        disk: Option<f64>,
        gpus: Option<f64>,
        ports: Option<String>,
    }
    /// A change of a task's state.
    StateChange {
        state: TaskState,
        /// Seconds since 1970.
        timestamp: f64,
    }
    Task {
        id: String,
        name: String,
        framework_id: String,
        /// Empty for a task of Mesos's command executor.
        executor_id: String,
        slave_id: String,
        state: TaskState,
        resources: Sums,
        role: Option<String>,
        statuses: Vec<StateChange>,
        labels: Vec<super::Label>,
    }
    Framework {
        id: String,
        name: String,
        pid: Option<String>,
        active: bool,
        connected: bool,
        hostname: String,
        principal: Option<String>,
        webui_url: Option<String>,
        user: String,
        checkpoint: bool,
        failover_timeout: f64,
        roles: Vec<String>,
        capabilities: Vec<String>,
        used_resources: Sums,
        offered_resources: Sums,
        tasks: Vec<Task>,
        unreachable_tasks: Vec<Task>,
        completed_tasks: Vec<Task>,
    }
    Agent {
        id: String,
        hostname: String,
        port: u64,
        /// `slave(1)@address:port`: where it answers.
        pid: String,
        active: bool,
        resources: Sums,
        used_resources: Sums,
        offered_resources: Sums,
        attributes: BTreeMap<String, Value>,
        version: Option<String>,
    }
    /// A master's `/state`.
    MasterState {
        id: String,
        version: String,
        hostname: String,
        pid: String,
        /// `master@address:port` of the one that leads.
        leader: Option<String>,
        cluster: Option<String>,
        slaves: Vec<Agent>,
        frameworks: Vec<Framework>,
        completed_frameworks: Vec<Framework>,
    }
    Agents { slaves: Vec<Agent>, }
    /// What the containerizer measured of one container. Times are totals since its start.
    Statistics {
        /// Seconds since 1970.
        timestamp: f64,
        cpus_limit: Option<f64>,
        cpus_user_time_secs: Option<f64>,
        cpus_system_time_secs: Option<f64>,
        mem_limit_bytes: Option<u64>,
        mem_rss_bytes: Option<u64>,
        mem_total_bytes: Option<u64>,
        mem_file_bytes: Option<u64>,
        net_rx_bytes: Option<u64>,
        net_tx_bytes: Option<u64>,
        processes: Option<u64>,
        threads: Option<u64>,
    }
    /// One executor, in an agent's `/monitor/statistics`. Under Mesos's command executor its id is that of the task.
    Usage {
        executor_id: String,
        executor_name: String,
        framework_id: String,
        source: String,
        statistics: Statistics,
    }
}

impl Agent {
    /// `address:port` where it answers.
    pub fn address(&self) -> Option<&str> {
        self.pid.rsplit_once('@').map(|(_, address)| address)
    }

    /// The same as a URL. With TLS it has the agent's name, which its certificate is for.
    ///
    /// # Errors
    /// It does not say where it answers.
    pub fn url(&self, tls: bool) -> Result<Url, MesosError> {
        let url = self.address().and_then(|address| {
            let (ip, port) = address.rsplit_once(':')?;
            let name = Some(self.hostname.as_str()).filter(|name| tls && !name.is_empty() && *name != "localhost");
            url_at(name.unwrap_or(ip), port.parse().ok()?, tls)
        });
        url.ok_or_else(|| MesosError::NoAddress { agent: self.id.clone(), pid: self.pid.clone() })
    }
}

impl Statistics {
    /// Bytes in use: without the page cache, as `docker stats` has it.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.mem_rss_bytes.or_else(|| Some(self.mem_total_bytes?.saturating_sub(self.mem_file_bytes.unwrap_or(0))))
    }

    /// Seconds of CPU since the container's start.
    pub fn cpu_secs(&self) -> Option<f64> {
        Some(self.cpus_user_time_secs? + self.cpus_system_time_secs?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_agent_answers() {
        let at = |pid: &str, hostname: &str, tls| {
            let agent = Agent { pid: pid.to_owned(), hostname: hostname.to_owned(), ..Agent::default() };
            agent.url(tls).map(|url| url.to_string()).ok()
        };
        let pid = "slave(1)@10.0.0.7:5051";
        assert_eq!(at(pid, "a1.example", false).as_deref(), Some("http://10.0.0.7:5051/"));
        assert_eq!(at(pid, "a1.example", true).as_deref(), Some("https://a1.example:5051/"));
        assert_eq!(at(pid, "localhost", true).as_deref(), Some("https://10.0.0.7:5051/"));
        assert_eq!(at(pid, "", true).as_deref(), Some("https://10.0.0.7:5051/"));
        assert_eq!(at("slave(1)@[::1]:5051", "", false).as_deref(), Some("http://[::1]:5051/"));
        for bad in ["", "slave(1)", "slave(1)@10.0.0.7", "slave(1)@10.0.0.7:x", "slave(1)@a/b:5051", "slave(1)@:5051"] {
            assert_eq!(at(bad, "", false), None, "{bad}");
        }
        assert_eq!(at(pid, "a/b", true), None);
    }
}
