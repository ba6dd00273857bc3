//! Between Mesos's words and a backend's: a `TaskInfo` as a launch request, an update as a `TaskStatus`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{LaunchRequest, TaskUpdate};
use crate::core::container::{ContainerSpec, Health, HealthCheck, Pull, Volume};
use crate::core::model::{Exit, PolicyName, TaskId, TaskState};
use crate::core::policy::{Command, PortSpec, Ready, TaskTemplate};
use crate::mesos::wire::{
    self, CommandInfo, ContainerInfo, DockerNetwork, HealthCheckKind, Label, Labels, StatusReason, TaskInfo,
    TaskStatus, VolumeMode,
};

/// The label of a status that holds the process id of its task.
const PID_LABEL: &str = "setpoint.pid";

/// Between TERM and KILL for tasks that say nothing of it, as Mesos has it.
const GRACE: Duration = Duration::from_secs(3);

/// A task as it was meant: one that has an executor may have no command, and brings what to run as data.
pub(super) fn unpacked(info: TaskInfo) -> TaskInfo {
    let parts = info.data.as_ref().and_then(|data| serde_json::from_slice::<TaskInfo>(&data.0).ok());
    match parts {
        Some(parts) if info.command.is_none() => {
            TaskInfo { command: parts.command, container: parts.container, health_check: parts.health_check, ..info }
        }
        _ => info,
    }
}

/// What to start; none when there is neither command nor image.
pub(super) fn request(info: &TaskInfo, sandbox: &Path) -> Option<LaunchRequest> {
    let labels: BTreeMap<String, String> = info
        .labels
        .iter()
        .flat_map(|labels| &labels.labels)
        .map(|label| (label.key.clone(), label.value.clone().unwrap_or_default()))
        .collect();
    let policy = labels.get("setpoint.policy").cloned().unwrap_or_else(|| "task".to_owned());
    let given = info.command.as_ref();
    let env = given.and_then(|command| command.environment.as_ref()).map(|environment| {
        let pairs = environment.variables.iter();
        pairs.map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default())).collect()
    });
    let docker = info.container.as_ref().and_then(|container| container.docker.as_ref());
    let image = docker.map(|docker| docker.image.clone());
    let command = given.and_then(|given| command(given, image.is_some()));
    if command.is_none() && image.is_none() {
        return None;
    }
    let mut template = TaskTemplate { command, env: env.unwrap_or_default(), labels, image, ..TaskTemplate::default() };
    if let (Some(container), Some(docker)) = (&info.container, docker) {
        let scalar = |name: &str| {
            let of_name = info.resources.iter().filter(|resource| resource.name == name);
            let sum: f64 = of_name.filter_map(|resource| resource.scalar.as_ref()).map(|scalar| scalar.value).sum();
            Some(sum).filter(|sum| 0.0 < *sum)
        };
        let limit = |name: &str| info.limits.get(name).map(|limit| limit.value).or_else(|| scalar(name));
        template.cpus = limit("cpus");
        template.memory = limit("mem").map(|megabytes| (megabytes * 1_048_576.0) as u64);
        template.ports = docker
            .port_mappings
            .iter()
            .filter_map(|mapping| {
                let outside = u16::try_from(mapping.host_port).ok()?;
                Some(PortSpec {
                    name: format!("port{outside}"),
                    inside: u16::try_from(mapping.container_port).ok(),
                    outside: Some((outside, outside)),
                    ..PortSpec::default()
                })
            })
            .collect();
        template.container = spec(info, container, docker);
    }
    Some(LaunchRequest {
        id: TaskId::from(info.task_id.as_str()),
        policy: PolicyName::from(policy.as_str()),
        template: Arc::new(template),
        ready: if info.health_check.is_some() { Ready::Healthy } else { Ready::Running },
        base: Some(sandbox.to_owned()),
    })
}

/// The command, byte for byte.
pub(super) fn command(given: &CommandInfo, in_image: bool) -> Option<Command> {
    if given.shell.unwrap_or(true) {
        return given.value.clone().map(Command::Shell);
    }
    let mut argv: Vec<String> = given.value.iter().cloned().collect();
    // The first argument is what the program is to see as its own name, unless an image's entrypoint is the program.
    let skip = usize::from(!argv.is_empty() && !in_image);
    argv.extend(given.arguments.iter().skip(skip).cloned());
    (!argv.is_empty()).then_some(Command::Argv(argv))
}

fn spec(info: &TaskInfo, container: &ContainerInfo, docker: &wire::DockerInfo) -> ContainerSpec {
    let mut spec = ContainerSpec {
        network: Some(match &docker.network {
            Some(DockerNetwork::Host) => "host".to_owned(),
            Some(DockerNetwork::None) => "none".to_owned(),
            Some(DockerNetwork::User) => {
                container.network_infos.first().and_then(|network| network.name.clone()).unwrap_or_default()
            }
            _ => "bridge".to_owned(),
        }),
        volumes: container
            .volumes
            .iter()
            .filter_map(|volume| {
                Some(Volume {
                    source: volume.host_path.clone()?,
                    target: volume.container_path.clone(),
                    read_only: volume.mode == VolumeMode::ReadOnly,
                })
            })
            .collect(),
        pull: if docker.force_pull_image == Some(true) { Pull::Always } else { Pull::Missing },
        privileged: docker.privileged.unwrap_or(false),
        health: info.health_check.as_ref().and_then(health),
        ..ContainerSpec::default()
    };
    for parameter in &docker.parameters {
        match parameter.key.as_str() {
            "entrypoint" => spec.entrypoint = Some(vec![parameter.value.clone()]),
            "user" => spec.user = Some(parameter.value.clone()),
            "pids-limit" => spec.pids = parameter.value.parse().ok(),
            key => tracing::warn!(parameter = key, "an option of `docker run` that this executor does not know"),
        }
    }
    spec
}

fn health(check: &wire::HealthCheck) -> Option<Health> {
    if check.kind != HealthCheckKind::Command {
        return None;
    }
    let seconds = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(Health::Check(HealthCheck {
        command: command(check.command.as_ref()?, false)?,
        interval: seconds(check.interval_seconds),
        timeout: seconds(check.timeout_seconds),
        retries: check.consecutive_failures,
        start_period: seconds(check.grace_period_seconds),
    }))
}

/// Between TERM and KILL: what the call says, or the task.
pub(super) fn grace(call: Option<&wire::KillPolicy>, task: Option<&wire::KillPolicy>) -> Duration {
    let given = call.or(task).and_then(|policy| policy.grace_period.as_ref());
    given.map_or(GRACE, |grace| Duration::from_nanos(u64::try_from(grace.nanoseconds).unwrap_or(0)))
}

/// What an update is as a status; none for states that Mesos has no word for.
pub(super) fn status(update: &TaskUpdate, killed: bool) -> Option<TaskStatus> {
    let (state, message, reason) = match update.state {
        TaskState::Asked => return None,
        TaskState::Staging => (wire::TaskState::Starting, None, None),
        TaskState::Running => (wire::TaskState::Running, None, None),
        TaskState::Killing => (wire::TaskState::Killing, None, None),
        TaskState::Gone => end(update.exit.as_ref(), killed),
    };
    let pid = update.placement.as_ref().and_then(|placement| placement.pid);
    let labels =
        pid.map(|pid| Labels { labels: vec![Label { key: PID_LABEL.to_owned(), value: Some(pid.to_string()) }] });
    Some(TaskStatus {
        task_id: wire::TaskId::new(update.id.as_str()),
        state,
        message,
        reason,
        healthy: update.healthy,
        labels,
        ..TaskStatus::default()
    })
}

fn end(exit: Option<&Exit>, killed: bool) -> (wire::TaskState, Option<String>, Option<StatusReason>) {
    use wire::TaskState::{Failed, Finished, Killed};
    match exit {
        _ if killed => (Killed, None, None),
        Some(Exit::Code { code: 0 }) => (Finished, None, None),
        Some(Exit::Code { code }) => (Failed, Some(format!("Command exited with status {code}")), None),
        Some(Exit::Signal { signal }) => (Failed, Some(format!("Command terminated with signal {signal}")), None),
        Some(Exit::OutOfMemory) => {
            let message = "Memory limit exceeded".to_owned();
            (Failed, Some(message), Some(StatusReason::ContainerLimitationMemory))
        }
        Some(Exit::NotStarted { reason }) => {
            (Failed, Some(reason.to_string()), Some(StatusReason::ContainerLaunchFailed))
        }
        Some(Exit::Lost { reason }) => (Failed, Some(reason.to_string()), Some(StatusReason::ExecutorTerminated)),
        Some(Exit::Unknown) | None => (Failed, Some("it ended unwatched".to_owned()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_byte_for_byte() {
        let line = r#"echo "{\"a\":1} ${HOME}""#;
        assert_eq!(command(&CommandInfo::shell(line), false), Some(Command::Shell(line.to_owned())));
        let argv = ["prog", "${A}", "b c"].map(str::to_owned).to_vec();
        assert_eq!(command(&CommandInfo::argv(argv.clone()), false), Some(Command::Argv(argv)));
    }
}
