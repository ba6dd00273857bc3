//! Between Mesos's words and a backend's: a `TaskInfo` as a launch request, an update as a `TaskStatus`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{LaunchRequest, TaskUpdate};
use crate::core::container::{ContainerSpec, Health, HealthCheck, Probe, Protocol, Pull, Tmpfs, Volume};
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

/// The variable that says where a task sees the sandbox.
const SANDBOX: &str = "MESOS_SANDBOX";

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
pub(super) fn request(info: &TaskInfo, sandbox: &Path, mapped: Option<&str>) -> Option<LaunchRequest> {
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
                    protocol: match mapping.protocol.as_deref() {
                        Some(udp) if udp.eq_ignore_ascii_case("udp") => Protocol::Udp,
                        _ => Protocol::Tcp,
                    },
                })
            })
            .collect();
        template.container = spec(info, container, docker);
        add_parameters(&mut template, docker);
        if let Some(target) = mapped
            // An engine refuses a second volume at one place.
            && !template.container.volumes.iter().any(|volume| volume.target == target)
        {
            template.container.volumes.push(volume(&sandbox.to_string_lossy(), target, false));
            template.env.entry(SANDBOX.to_owned()).or_insert_with(|| target.to_owned());
        }
    }
    // What the executor checks itself does not keep an engine waiting.
    let by_engine = matches!(template.container.health, Some(Health::Check(_)));
    Some(LaunchRequest {
        id: TaskId::from(info.task_id.as_str()),
        policy: PolicyName::from(policy.as_str()),
        template: Arc::new(template),
        ready: if by_engine { Ready::Healthy } else { Ready::Running },
        grace: grace(None, info.kill_policy.as_ref()),
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
    ContainerSpec {
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
                let read_only = volume.mode == VolumeMode::ReadOnly;
                Some(self::volume(volume.host_path.as_deref()?, &volume.container_path, read_only))
            })
            .collect(),
        pull: if docker.force_pull_image == Some(true) { Pull::Always } else { Pull::Missing },
        privileged: docker.privileged.unwrap_or(false),
        health: info.health_check.as_ref().and_then(health),
        ..ContainerSpec::default()
    }
}

/// The options of `docker run` that an engine's API has other words for.
fn add_parameters(template: &mut TaskTemplate, docker: &wire::DockerInfo) {
    let TaskTemplate { container: spec, labels, env, cwd, .. } = template;
    for wire::Parameter { key, value } in &docker.parameters {
        let pair = || {
            let (name, value) = value.split_once('=').unwrap_or((value.as_str(), ""));
            (name.to_owned(), value.to_owned())
        };
        match key.as_str() {
            "entrypoint" => spec.entrypoint = Some(vec![value.clone()]),
            "user" => spec.user = Some(value.clone()),
            "pids-limit" => spec.pids = value.parse().ok(),
            "init" => spec.init = value != "false",
            // The way in which `health = false` comes: a `HealthCheck` has no word for it.
            "no-healthcheck" if value != "false" => spec.health = Some(Health::Off),
            "no-healthcheck" => {}
            "tmpfs" => {
                let (target, options) = value.split_once(':').unwrap_or((value.as_str(), ""));
                spec.tmpfs.push(Tmpfs { target: target.to_owned(), options: options.to_owned() });
            }
            "volume" => match value.split(':').collect::<Vec<_>>()[..] {
                [source, target] | [source, target, "rw"] => spec.volumes.push(volume(source, target, false)),
                [source, target, "ro"] => spec.volumes.push(volume(source, target, true)),
                _ => tracing::warn!(volume = %value, "expected `source:target` or `source:target:ro`; left out"),
            },
            "label" => labels.extend([pair()]),
            "env" => env.extend([pair()]),
            "workdir" => *cwd = Some(value.clone()),
            _ => {
                tracing::warn!(parameter = %key, "an option of `docker run` that this executor does not know; left out");
            }
        }
    }
}

fn volume(source: &str, target: &str, read_only: bool) -> Volume {
    Volume { source: source.to_owned(), target: target.to_owned(), read_only }
}

/// The check as an engine makes it; none but a command is for an engine, and then the image's own is not wanted either.
/// Engines know no delay before the first check: what fails in that time is not counted.
fn health(check: &wire::HealthCheck) -> Option<Health> {
    if check.kind != HealthCheckKind::Command {
        return Some(Health::Off);
    }
    let seconds = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(Health::Check(HealthCheck {
        probe: Probe::Command(command(check.command.as_ref()?, false)?),
        delay: None,
        interval: seconds(check.interval_seconds),
        timeout: seconds(check.timeout_seconds),
        retries: check.consecutive_failures,
        start_period: seconds(check.grace_period_seconds).max(seconds(check.delay_seconds)),
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
        // Nobody's failure: its engine was restarted, or somebody removed it.
        Some(Exit::Unknown) | None => (Killed, Some("it ended unwatched".to_owned()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a Docker task of any framework can say reaches the engine.
    #[test]
    fn a_container_is_made_of_all_that_mesos_says_of_it() {
        let pair = |key: &str, value: &str| wire::Parameter { key: key.to_owned(), value: value.to_owned() };
        let mapping = |host_port, protocol: &str| wire::DockerPortMapping {
            host_port,
            container_port: 53,
            protocol: Some(protocol.to_owned()),
        };
        let info = TaskInfo {
            task_id: wire::TaskId::new("t"),
            resources: vec![wire::Resource::scalar("cpus", 0.5), wire::Resource::scalar("mem", 64.0)],
            limits: [("mem".to_owned(), wire::Scalar { value: 96.0 })].into(),
            container: Some(ContainerInfo {
                docker: Some(wire::DockerInfo {
                    image: "i".to_owned(),
                    network: Some(DockerNetwork::User),
                    port_mappings: vec![mapping(31_000, "tcp"), mapping(31_001, "udp")],
                    privileged: Some(true),
                    force_pull_image: Some(true),
                    parameters: vec![
                        pair("entrypoint", "/e"),
                        pair("init", "true"),
                        pair("tmpfs", "/a"),
                        pair("tmpfs", "/b:size=1m"),
                        pair("label", "l=1"),
                        pair("env", "E=a=b"),
                        pair("volume", "/v:/w:ro"),
                        pair("workdir", "/x"),
                        pair("user", "7"),
                        pair("pids-limit", "9"),
                    ],
                    volume_driver: None,
                }),
                network_infos: vec![wire::NetworkInfo { name: Some("n".to_owned()), ..wire::NetworkInfo::default() }],
                volumes: vec![wire::Volume {
                    mode: VolumeMode::ReadWrite,
                    container_path: "/d".to_owned(),
                    host_path: Some("/c".to_owned()),
                    ..wire::Volume::default()
                }],
                ..ContainerInfo::default()
            }),
            ..TaskInfo::default()
        };
        let template = request(&info, Path::new("/sandbox"), Some("/mnt")).unwrap().template;
        let spec = &template.container;
        assert_eq!((template.cpus, template.memory), (Some(0.5), Some(96 << 20)), "a limit is more than a request");
        assert_eq!(
            (spec.network.as_deref(), spec.privileged, spec.pull, spec.init),
            (Some("n"), true, Pull::Always, true)
        );
        assert_eq!(
            (spec.user.as_deref(), spec.pids, spec.entrypoint.clone()),
            (Some("7"), Some(9), Some(vec!["/e".to_owned()]))
        );
        let tmpfs: Vec<_> = spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), tmpfs.options.as_str())).collect();
        assert_eq!(tmpfs, [("/a", ""), ("/b", "size=1m")]);
        let volumes = [volume("/c", "/d", false), volume("/v", "/w", true), volume("/sandbox", "/mnt", false)];
        assert_eq!(spec.volumes, volumes);
        assert_eq!((template.env[SANDBOX].as_str(), &spec.health), ("/mnt", &None));
        let mapped = |target| request(&info, Path::new("/sandbox"), target).unwrap().template;
        assert_eq!(mapped(None).env.get(SANDBOX), None, "it does not see the sandbox");
        let (template_own, own) = (mapped(Some("/d")), &volumes[..2]);
        assert_eq!((&*template_own.container.volumes, template_own.env.get(SANDBOX)), (own, None), "a place is taken");
        assert_eq!(
            (template.env["E"].as_str(), template.labels["l"].as_str(), template.cwd.as_deref()),
            ("a=b", "1", Some("/x"))
        );
        let ports: Vec<_> = template.ports.iter().map(|port| (port.outside, port.inside, port.protocol)).collect();
        let expected = [(31_000, Protocol::Tcp), (31_001, Protocol::Udp)];
        assert_eq!(ports, expected.map(|(port, protocol)| (Some((port, port)), Some(53), protocol)));
    }

    /// A policy is refused for options that are not on the list: those that are do something here.
    #[test]
    fn every_option_that_policies_may_use_is_known() {
        let with = |parameters: Vec<wire::Parameter>| {
            let docker = wire::DockerInfo { parameters, ..wire::DockerInfo::default() };
            let container = Some(ContainerInfo { docker: Some(docker), ..ContainerInfo::default() });
            let info = TaskInfo { container, ..TaskInfo::default() };
            (*request(&info, Path::new("/sandbox"), None).unwrap().template).clone()
        };
        for key in crate::core::mesos::KNOWN_PARAMETERS {
            let value = if key == "pids-limit" { "7" } else { "/a:/b" };
            let parameter = wire::Parameter { key: key.to_owned(), value: value.to_owned() };
            assert_ne!(with(vec![parameter]), with(Vec::new()), "{key}");
        }
    }

    /// What a task in a container with a health check, or without one, asks of its engine.
    #[test]
    fn health_is_checked_by_the_engine_and_not_at_all_where_it_is_switched_off() {
        let with = |check: Option<wire::HealthCheck>, parameters: &[(&str, &str)]| {
            let parameter =
                |(key, value): &(&str, &str)| wire::Parameter { key: (*key).into(), value: (*value).into() };
            let docker = wire::DockerInfo {
                parameters: parameters.iter().map(parameter).collect(),
                ..wire::DockerInfo::default()
            };
            let env = [(SANDBOX.to_owned(), "/own".to_owned())].into_iter().collect();
            let info = TaskInfo {
                command: Some(CommandInfo { environment: Some(env), ..CommandInfo::shell("x") }),
                container: Some(ContainerInfo { docker: Some(docker), ..ContainerInfo::default() }),
                health_check: check,
                ..TaskInfo::default()
            };
            let template = request(&info, Path::new("/sandbox"), Some("/mnt")).unwrap().template;
            assert_eq!(template.env[SANDBOX], "/own", "what the task gives stands");
            template.container.health.clone()
        };
        assert_eq!(with(None, &[]), None, "the image's own");
        assert_eq!(with(None, &[("no-healthcheck", "true")]), Some(Health::Off));
        assert_eq!(with(None, &[("no-healthcheck", "false")]), None);
        let check = |delay: f64, grace: f64| wire::HealthCheck {
            kind: HealthCheckKind::Command,
            command: Some(CommandInfo::shell("true")),
            delay_seconds: Some(delay),
            grace_period_seconds: Some(grace),
            ..wire::HealthCheck::default()
        };
        for (delay, grace, expected) in [(0.0, 5.0, 5), (7.0, 5.0, 7), (7.0, 9.0, 9)] {
            let Some(Health::Check(found)) = with(Some(check(delay, grace)), &[]) else { panic!("no check") };
            assert_eq!(found.start_period, Some(Duration::from_secs(expected)), "{delay} {grace}");
        }
        let page = wire::HealthCheck { kind: HealthCheckKind::Http, ..check(0.0, 0.0) };
        assert_eq!(with(Some(page), &[]), Some(Health::Off), "the executor asks for it itself");
    }

    #[test]
    fn commands_are_taken_byte_for_byte() {
        let line = r#"echo "{\"a\":1} ${HOME}""#;
        assert_eq!(command(&CommandInfo::shell(line), false), Some(Command::Shell(line.to_owned())));
        let argv = ["prog", "${A}", "b c"].map(str::to_owned).to_vec();
        assert_eq!(command(&CommandInfo::argv(argv.clone()), false), Some(Command::Argv(argv)));
    }
}
