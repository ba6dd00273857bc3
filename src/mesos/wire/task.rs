//! Tasks, commands, executors and the states that tasks go through.

use std::collections::BTreeMap;

use serde_json::Value;

use super::container::{CheckInfo, ContainerInfo, ContainerStatus, HealthCheck};
use super::resource::{Resource, Scalar};
use super::{AgentId, Bytes, DurationInfo, ExecutorId, FrameworkId, Labels, TaskId, TimeInfo};

enumeration! {
    TaskState {
        Staging = "TASK_STAGING",
        Starting = "TASK_STARTING",
        Running = "TASK_RUNNING",
        Killing = "TASK_KILLING",
        Finished = "TASK_FINISHED",
        Failed = "TASK_FAILED",
        Killed = "TASK_KILLED",
        Error = "TASK_ERROR",
        /// Only for frameworks that are not `PARTITION_AWARE`.
        Lost = "TASK_LOST",
        Dropped = "TASK_DROPPED",
        Unreachable = "TASK_UNREACHABLE",
        Gone = "TASK_GONE",
        GoneByOperator = "TASK_GONE_BY_OPERATOR",
        Unknown = "TASK_UNKNOWN",
    }
    StatusSource { Master = "SOURCE_MASTER", Agent = "SOURCE_AGENT", Executor = "SOURCE_EXECUTOR", }
    /// Why a state came to be: the values that are acted on.
    StatusReason {
        CommandExecutorFailed = "REASON_COMMAND_EXECUTOR_FAILED",
        ContainerLaunchFailed = "REASON_CONTAINER_LAUNCH_FAILED",
        ContainerLimitation = "REASON_CONTAINER_LIMITATION",
        ContainerLimitationMemory = "REASON_CONTAINER_LIMITATION_MEMORY",
        ContainerLimitationDisk = "REASON_CONTAINER_LIMITATION_DISK",
        ExecutorTerminated = "REASON_EXECUTOR_TERMINATED",
        ExecutorUnregistered = "REASON_EXECUTOR_UNREGISTERED",
        InvalidOffers = "REASON_INVALID_OFFERS",
        Reconciliation = "REASON_RECONCILIATION",
        AgentDisconnected = "REASON_SLAVE_DISCONNECTED",
        AgentRemoved = "REASON_SLAVE_REMOVED",
        AgentRestarted = "REASON_SLAVE_RESTARTED",
        AgentUnknown = "REASON_SLAVE_UNKNOWN",
        TaskInvalid = "REASON_TASK_INVALID",
        TaskUnauthorized = "REASON_TASK_UNAUTHORIZED",
        TaskUnknown = "REASON_TASK_UNKNOWN",
        TaskHealthCheckStatusUpdated = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
        MaxCompletionTimeReached = "REASON_MAX_COMPLETION_TIME_REACHED",
    }
    ExecutorKind { Default = "DEFAULT", Custom = "CUSTOM", }
    Visibility { Framework = "FRAMEWORK", Cluster = "CLUSTER", External = "EXTERNAL", }
}

impl TaskState {
    /// Whether nothing comes after it. `TASK_LOST` counts as such, though a lost task may come back where an agent does;
    /// `TASK_UNREACHABLE` and `TASK_UNKNOWN` do not.
    pub const fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Finished
                | Self::Failed
                | Self::Killed
                | Self::Error
                | Self::Lost
                | Self::Dropped
                | Self::Gone
                | Self::GoneByOperator
        )
    }
}

message! {
    Uri {
        value: String,
        executable: Option<bool>,
        extract: Option<bool>,
        cache: Option<bool>,
        output_file: Option<String>,
    }
    Variable { name: String, value: Option<String>, }
    Environment { variables: Vec<Variable>, }
    CommandInfo {
        uris: Vec<Uri>,
        environment: Option<Environment>,
        /// Whether `value` goes to `/bin/sh -c`; else it is the program and `arguments` its argv, from the program's name on.
        shell: Option<bool>,
        value: Option<String>,
        arguments: Vec<String>,
        user: Option<String>,
    }
    KillPolicy { grace_period: Option<DurationInfo>, }
    DiscoveryPort {
        number: u32,
        name: Option<String>,
        protocol: Option<String>,
        visibility: Option<Visibility>,
        labels: Option<Labels>,
    }
    DiscoveryPorts { ports: Vec<DiscoveryPort>, }
    DiscoveryInfo {
        visibility: Visibility,
        name: Option<String>,
        environment: Option<String>,
        location: Option<String>,
        version: Option<String>,
        ports: Option<DiscoveryPorts>,
        labels: Option<Labels>,
    }
    ExecutorInfo {
        #[serde(rename = "type")]
        kind: Option<ExecutorKind>,
        executor_id: ExecutorId,
        framework_id: Option<FrameworkId>,
        command: Option<CommandInfo>,
        container: Option<ContainerInfo>,
        resources: Vec<Resource>,
        name: Option<String>,
        source: Option<String>,
        data: Option<Bytes>,
        discovery: Option<DiscoveryInfo>,
        shutdown_grace_period: Option<DurationInfo>,
        labels: Option<Labels>,
    }
    TaskInfo {
        name: String,
        task_id: TaskId,
        agent_id: AgentId,
        resources: Vec<Resource>,
        /// By resource: `cpus`, `mem`. Infinity cannot be told in JSON and is left to Mesos's default.
        limits: BTreeMap<String, Scalar>,
        executor: Option<ExecutorInfo>,
        command: Option<CommandInfo>,
        container: Option<ContainerInfo>,
        health_check: Option<HealthCheck>,
        check: Option<CheckInfo>,
        kill_policy: Option<KillPolicy>,
        data: Option<Bytes>,
        labels: Option<Labels>,
        discovery: Option<DiscoveryInfo>,
        max_completion_time: Option<DurationInfo>,
    }
    TaskGroupInfo { tasks: Vec<TaskInfo>, }
    CheckStatusInfo { #[serde(rename = "type")] kind: Option<String>, command: Option<Value>, http: Option<Value>, tcp: Option<Value>, }
    TaskResourceLimitation { resources: Vec<Resource>, }
    TaskStatus {
        task_id: TaskId,
        state: TaskState,
        message: Option<String>,
        source: Option<StatusSource>,
        reason: Option<StatusReason>,
        data: Option<Bytes>,
        agent_id: Option<AgentId>,
        executor_id: Option<ExecutorId>,
        /// Seconds since 1970.
        timestamp: Option<f64>,
        /// 16 bytes; an update without one is not to be acknowledged.
        uuid: Option<Bytes>,
        healthy: Option<bool>,
        check_status: Option<CheckStatusInfo>,
        labels: Option<Labels>,
        container_status: Option<ContainerStatus>,
        unreachable_time: Option<TimeInfo>,
        limitation: Option<TaskResourceLimitation>,
    }
}

impl CommandInfo {
    /// A line for `/bin/sh -c`, byte for byte.
    pub fn shell(line: impl Into<String>) -> Self {
        Self { shell: Some(true), value: Some(line.into()), ..Self::default() }
    }

    /// A program and its arguments, run as they are. An empty list gives a command that Mesos refuses.
    pub fn argv(argv: Vec<String>) -> Self {
        Self { shell: Some(false), value: argv.first().cloned(), arguments: argv, ..Self::default() }
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self { variables: pairs.into_iter().map(|(name, value)| Variable { name, value: Some(value) }).collect() }
    }
}
