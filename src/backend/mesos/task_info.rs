//! From a launch request and its place to Mesos's `TaskInfo`.
//!
//! Commands go over as they are: nothing in them is looked at or filled in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::backend::LaunchRequest;
use crate::backend::environment;
use crate::core::container::{Health, Probe, Pull};
use crate::core::mesos::{self, Containerizer, Discovery, OURS, Visibility, Want, by_docker};
use crate::core::offers::{self, Milli, Need, Needs, Pick};
use crate::core::policy::{Command, PortSpec, TaskTemplate};
use crate::mesos::wire::{
    self, AgentId, Bytes, CommandInfo, ContainerInfo, ContainerKind, DiscoveryInfo, DiscoveryPort, DiscoveryPorts,
    DockerImage, DockerInfo, DockerNetwork, DockerPortMapping, Environment, ExecutorId, ExecutorInfo, ExecutorKind,
    HealthCheck, HealthCheckKind, HttpCheck, Image, ImageKind, KillPolicy, MesosInfo, NetworkInfo, Offer, Parameter,
    PortMapping, Scalar, TaskInfo, TcpCheck, Uri, Volume, VolumeMode,
};

use super::offer;

/// What one of our executors takes for itself.
const EXECUTOR_CPUS: f64 = 0.01;
const EXECUTOR_MEMORY: f64 = 32.0;

/// Cores and megabytes of a task that does not say.
const CPUS: f64 = 0.1;
const MEMORY: f64 = 32.0;

/// Mesos counts memory in megabytes of 1,048,576 bytes.
const MEGABYTE: f64 = 1_048_576.0;

/// The label of tasks that our executor has an engine run: what their agent measures is the executor alone.
pub(crate) const BY_ENGINE: &str = "setpoint.by_engine";

/// What is the same for all tasks of the host.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The role of policies that name none.
    pub role: String,
    /// The program that agents run as our executor: a path on them.
    pub executor: String,
    /// Where agents get it from, where it is not there already.
    pub executor_uri: Option<String>,
    /// The environment of our executors: `DOCKER_HOST` and the like.
    pub executor_env: BTreeMap<String, String>,
    /// Whether agents with GPUs are wanted; Mesos shows them to no others, and their other resources are then used, too.
    pub gpus: bool,
    /// What marks the tasks as this host's.
    pub mark: String,
    /// How long tasks whose agent the cluster cannot reach are waited for before others take their place.
    pub unreachable: Duration,
}

/// Our executor, for tasks that run under it. It runs as their user, in a sandbox that holds what was fetched for them, and
/// their role pays for it: tasks that differ in one of these do not share it, nor do those of runs with other settings.
pub(super) fn executor_of(setting: &Setting, template: &TaskTemplate, role: &str) -> Option<offers::Executor> {
    let Setting { executor, executor_uri, executor_env, .. } = setting;
    let ours = template.executor.as_deref() == Some(OURS);
    ours.then(|| offers::Executor {
        kind: digest(&serde_json::json!([
            role,
            user(template),
            template.mesos.uris,
            executor,
            executor_uri,
            executor_env
        ])),
        needs: Needs(vec![scalar("cpus", EXECUTOR_CPUS), scalar("mem", EXECUTOR_MEMORY)]),
    })
}

/// Short, since it is kept with each task.
fn digest(of: &serde_json::Value) -> Arc<str> {
    let head = Sha256::digest(of.to_string()).iter().take(8).fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
    format!("{head:016x}").into()
}

/// Whom the agent runs a task as. The user of a Docker container is for its engine to know.
fn user(template: &TaskTemplate) -> Option<&String> {
    template.container.user.as_ref().filter(|_| !by_docker(template))
}

/// Where a task goes.
pub(super) struct Place<'a> {
    pub(super) offers: &'a [Offer],
    pub(super) agent: &'a AgentId,
    pub(super) host: &'a str,
    pub(super) launch: &'a offers::Launch,
}

/// Whether this host's backend can run it at all.
pub(super) fn check(setting: &Setting, template: &TaskTemplate) -> Result<(), String> {
    match template.executor.as_deref() {
        None | Some(OURS | "default") => {}
        Some(other) => {
            return Err(format!(
                "the executor `{other}` is not known, expected `setpoint` or none for the cluster's own"
            ));
        }
    }
    if template.command.is_none() && template.image.is_none() {
        return Err("there is neither a command nor an image".to_owned());
    }
    if template.executor.as_deref() == Some(OURS)
        && template.image.is_some()
        && template.mesos.containerizer == Containerizer::Mesos
    {
        return Err("our executor runs images on Docker; leave `executor` out for Mesos's own containerizer".to_owned());
    }
    if !setting.gpus && template.mesos.resources.contains_key("gpus") {
        return Err(
            "it wants `gpus`, and agents that have them are offered only with `gpus = true` in `[mesos]`".to_owned()
        );
    }
    match mesos::problems(template).first() {
        Some((word, problem)) => Err(format!("{word}: {problem}")),
        None => Ok(()),
    }
}

/// What a task needs.
pub(super) fn needs(template: &TaskTemplate) -> Needs {
    let mut needs = vec![
        scalar("cpus", template.cpus.unwrap_or(CPUS)),
        scalar("mem", template.memory.map_or(MEMORY, |bytes| bytes as f64 / MEGABYTE)),
    ];
    if let Some(disk) = template.disk {
        needs.push(scalar("disk", disk as f64 / MEGABYTE));
    }
    needs.extend(template.mesos.resources.iter().map(|(name, want)| (name.clone(), need(want))));
    if !template.ports.is_empty() {
        let picks = template.ports.iter().map(|port| match port.outside {
            None => Pick::Any,
            Some((first, last)) if first == last => Pick::Exact(first.into()),
            Some((first, last)) => Pick::Within(first.into(), last.into()),
        });
        needs.push(("ports".to_owned(), Need::Numbers(picks.collect())));
    }
    Needs(needs)
}

fn scalar(name: &str, amount: f64) -> (String, Need) {
    (name.to_owned(), Need::Scalar(Milli::of(amount)))
}

fn need(want: &Want) -> Need {
    match want {
        Want::Amount(amount) => Need::Scalar(Milli::of(*amount)),
        Want::Numbers(numbers) => Need::Numbers(numbers.iter().copied().map(Pick::Exact).collect()),
        Want::AnyNumbers { numbers } => Need::Numbers(vec![Pick::Any; *numbers as usize]),
        Want::Items(items) => Need::Items { named: items.clone(), any: 0 },
        Want::AnyItems { any } => Need::Items { named: BTreeSet::new(), any: *any },
    }
}

/// The ports that a task got, by their names.
pub(super) fn ports(template: &TaskTemplate, launch: &offers::Launch) -> BTreeMap<String, u16> {
    let numbers = launch.numbers.iter().find(|(name, _)| name == "ports").map(|(_, numbers)| numbers.as_slice());
    let named = template.ports.iter().map(|port| port.name.clone()).zip(numbers.unwrap_or_default());
    named.filter_map(|(name, number)| Some((name, u16::try_from(*number).ok()?))).collect()
}

/// The executor of ours that a policy's tasks of one kind on one agent share, named after the first of them.
pub(super) fn executor(setting: &Setting, request: &LaunchRequest, place: &Place<'_>) -> ExecutorInfo {
    let program_uri = setting.executor_uri.iter().map(|uri| Uri {
        value: uri.clone(),
        executable: Some(true),
        extract: Some(false),
        ..Uri::default()
    });
    // Agents fetch for executors only, and tasks start in their executor's sandbox.
    let uris = program_uri.chain(self::uris(&request.template));
    let program = match &setting.executor_uri {
        // What is fetched is in the sandbox, which is where the executor starts.
        Some(uri) => format!("./{}", uri.rsplit('/').next().unwrap_or(OURS)),
        None => setting.executor.clone(),
    };
    let environment: Environment = setting.executor_env.clone().into_iter().collect();
    ExecutorInfo {
        kind: Some(ExecutorKind::Custom),
        executor_id: ExecutorId::new(format!("setpoint.{}", request.id)),
        command: Some(CommandInfo {
            uris: uris.collect(),
            user: user(&request.template).cloned(),
            environment: Some(environment).filter(|environment| !environment.variables.is_empty()),
            ..CommandInfo::argv(vec![program, "executor".to_owned()])
        }),
        resources: offer::resources(place.offers, &place.launch.executor),
        name: Some(format!("setpoint: {}", request.policy)),
        source: Some(request.policy.to_string()),
        ..ExecutorInfo::default()
    }
}

/// The whole task.
pub(super) fn task(
    setting: &Setting,
    request: &LaunchRequest,
    place: &Place<'_>,
    ports: &BTreeMap<String, u16>,
    executor: Option<ExecutorInfo>,
) -> TaskInfo {
    let template = &*request.template;
    let mut labels = template.labels.clone();
    labels.insert("setpoint.policy".to_owned(), request.policy.to_string());
    labels.insert("setpoint.mark".to_owned(), setting.mark.clone());
    if executor.is_some() && template.image.is_some() {
        labels.insert(BY_ENGINE.to_owned(), "true".to_owned());
    }
    let parts = TaskInfo {
        command: Some(command(request, place, ports)),
        container: container(template, ports),
        health_check: health(template, ports),
        ..TaskInfo::default()
    };
    // A task has either a command or an executor; ours is told by data what to run.
    let (parts, data) = if executor.is_some() {
        let data = serde_json::to_vec(&parts).expect("invariant: its keys are texts");
        (TaskInfo::default(), Some(Bytes(data)))
    } else {
        (parts, None)
    };
    TaskInfo {
        name: request.policy.to_string(),
        task_id: wire::TaskId::new(request.id.as_str()),
        agent_id: place.agent.clone(),
        resources: offer::resources(place.offers, &place.launch.pieces),
        limits: limits(template),
        kill_policy: Some(KillPolicy { grace_period: Some(request.grace.into()) }),
        executor,
        data,
        labels: Some(labels.into_iter().collect()),
        discovery: template.mesos.discovery.as_ref().map(|discovery| discover(discovery, request, ports)),
        ..parts
    }
}

fn limits(template: &TaskTemplate) -> BTreeMap<String, Scalar> {
    let limits = &template.mesos.limits;
    let cpus = limits.cpus.map(|cpus| ("cpus".to_owned(), Scalar { value: cpus }));
    let memory = limits.memory.map(|bytes| ("mem".to_owned(), Scalar { value: bytes as f64 / MEGABYTE }));
    cpus.into_iter().chain(memory).collect()
}

fn command(request: &LaunchRequest, place: &Place<'_>, ports: &BTreeMap<String, u16>) -> CommandInfo {
    let template = &*request.template;
    // What it is told is where it is to listen, as on every backend.
    let mut variables = environment::of_task(&request.id, &request.policy, template, &listening(template, ports));
    variables.entry("HOST".to_owned()).or_insert_with(|| place.host.to_owned());
    variables.extend(granted(template, &offer::resources(place.offers, &place.launch.pieces)));
    CommandInfo {
        uris: uris(template).collect(),
        environment: Some(variables.into_iter().collect()),
        user: user(template).cloned(),
        ..program(template)
    }
}

/// The items and numbers that a task got, as `RESOURCE_<NAME>`: `eth0,eth1`.
fn granted(template: &TaskTemplate, resources: &[wire::Resource]) -> BTreeMap<String, String> {
    let told = template.mesos.resources.iter().filter(|(_, want)| !matches!(want, Want::Amount(_)));
    let of_name = |name: &String| {
        let mut all = Vec::new();
        for resource in resources.iter().filter(|resource| resource.name == *name) {
            all.extend(resource.set.iter().flat_map(|set| set.item.iter().cloned()));
            let ranges = resource.ranges.iter().flat_map(|ranges| &ranges.range);
            all.extend(ranges.flat_map(|range| range.begin..=range.end).map(|number| number.to_string()));
        }
        (environment::variable("RESOURCE", name), all.join(","))
    };
    told.map(|(name, _)| of_name(name)).collect()
}

/// What is run, byte for byte.
///
/// Docker's arguments follow the entrypoint, the image's or the one whose first word is an option of `docker run`. Mesos's
/// own containerizer has no such thing: what it is told to run takes the place of what the image says.
fn program(template: &TaskTemplate) -> CommandInfo {
    let entrypoint = template.container.entrypoint.as_ref().filter(|_| template.image.is_some());
    let command = match (&template.command, entrypoint) {
        // Mesos puts its shell in the entrypoint's place, so under another one a text is a list like any other.
        (Some(Command::Shell(line)), None) => return CommandInfo::shell(line.clone()),
        (Some(Command::Shell(line)), Some(_)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        (Some(Command::Argv(argv)), _) => argv.clone(),
        (None, _) => Vec::new(),
    };
    let by_docker = by_docker(template);
    let before = entrypoint.into_iter().flatten().skip(usize::from(by_docker)).cloned();
    let argv: Vec<String> = before.chain(command).collect();
    if by_docker || argv.is_empty() {
        // Without a value there is no other program than the container's.
        CommandInfo { shell: Some(false), arguments: argv, ..CommandInfo::default() }
    } else {
        CommandInfo::argv(argv)
    }
}

/// What is fetched into the sandbox.
fn uris(template: &TaskTemplate) -> impl Iterator<Item = Uri> + '_ {
    template.mesos.uris.iter().map(|uri| Uri {
        value: uri.uri.clone(),
        executable: uri.executable.then_some(true),
        extract: uri.extract,
        cache: uri.cache.then_some(true),
        output_file: uri.output.clone(),
    })
}

/// What the task runs in; none for a command that has nothing of its own but its sandbox.
fn container(template: &TaskTemplate, ports: &BTreeMap<String, u16>) -> Option<ContainerInfo> {
    let spec = &template.container;
    let mapped = template.ports.iter().filter_map(|port| {
        let outside = *ports.get(&port.name)?;
        Some((u32::from(outside), u32::from(port.inside.unwrap_or(outside)), Some(port.protocol.as_str().to_owned())))
    });
    // A relative path would be one in the sandbox; named volumes are options of `docker run`.
    let volumes = spec.volumes.iter().filter(|volume| volume.source.starts_with('/')).map(|volume| Volume {
        mode: if volume.read_only { VolumeMode::ReadOnly } else { VolumeMode::ReadWrite },
        container_path: volume.target.clone(),
        host_path: Some(volume.source.clone()),
        ..Volume::default()
    });
    let base = ContainerInfo { volumes: volumes.collect(), ..ContainerInfo::default() };
    if let Some(image) = template.image.clone().filter(|_| by_docker(template)) {
        let network = spec.network.as_deref().unwrap_or("bridge");
        let kind = match network.to_ascii_lowercase().as_str() {
            "host" => DockerNetwork::Host,
            "none" => DockerNetwork::None,
            "bridge" => DockerNetwork::Bridge,
            _ => DockerNetwork::User,
        };
        let bridged = matches!(kind, DockerNetwork::Bridge | DockerNetwork::User);
        let port_mappings = mapped.filter(|_| bridged).map(|(host_port, container_port, protocol)| DockerPortMapping {
            host_port,
            container_port,
            protocol,
        });
        let networks = (kind == DockerNetwork::User)
            .then(|| NetworkInfo { name: Some(network.to_owned()), ..NetworkInfo::default() });
        return Some(ContainerInfo {
            kind: ContainerKind::Docker,
            docker: Some(DockerInfo {
                image,
                network: Some(kind),
                port_mappings: port_mappings.collect(),
                privileged: Some(spec.privileged),
                parameters: parameters(template),
                force_pull_image: Some(spec.pull == Pull::Always),
                volume_driver: None,
            }),
            network_infos: networks.into_iter().collect(),
            ..base
        });
    }
    let network = network(template).map(|name| NetworkInfo {
        name: Some(name.to_owned()),
        port_mappings: mapped
            .map(|(host_port, container_port, protocol)| PortMapping { host_port, container_port, protocol })
            .collect(),
        ..NetworkInfo::default()
    });
    let image = template.image.clone().map(|name| Image {
        kind: ImageKind::Docker,
        docker: Some(DockerImage { name }),
        cached: Some(spec.pull != Pull::Always),
    });
    let bare = image.is_none() && base.volumes.is_empty() && network.is_none();
    (!bare).then(|| ContainerInfo {
        kind: ContainerKind::Mesos,
        mesos: image.map(|image| MesosInfo { image: Some(image) }),
        network_infos: network.into_iter().collect(),
        ..base
    })
}

/// The network that a task has instead of the host's; none where it says nothing of it.
fn network(template: &TaskTemplate) -> Option<&str> {
    template.container.network.as_deref().filter(|network| !network.eq_ignore_ascii_case("host"))
}

/// Options of `docker run`: those given, and those that other words stand for.
fn parameters(template: &TaskTemplate) -> Vec<Parameter> {
    let spec = &template.container;
    let parameter = |key: &str, value: String| Parameter { key: key.to_owned(), value };
    let mut parameters: Vec<Parameter> =
        spec.parameters.iter().map(|(key, value)| parameter(key, value.clone())).collect();
    // Docker takes the empty one for none at all. What follows the first word is in front of the arguments.
    let entrypoint = spec.entrypoint.iter().map(|words| words.first().cloned().unwrap_or_default());
    parameters.extend(entrypoint.map(|first| parameter("entrypoint", first)));
    parameters.extend(spec.pids.map(|pids| parameter("pids-limit", pids.to_string())));
    parameters.extend(spec.init.then(|| parameter("init", "true".to_owned())));
    parameters.extend((spec.health == Some(Health::Off)).then(|| parameter("no-healthcheck", "true".to_owned())));
    parameters.extend(spec.user.clone().map(|user| parameter("user", user)));
    parameters.extend(spec.volumes.iter().filter(|volume| !volume.source.starts_with('/')).map(|volume| {
        let mode = if volume.read_only { ":ro" } else { "" };
        parameter("volume", format!("{}:{}{mode}", volume.source, volume.target))
    }));
    parameters.extend(spec.tmpfs.iter().map(|tmpfs| {
        let options = if tmpfs.options.is_empty() { String::new() } else { format!(":{}", tmpfs.options) };
        parameter("tmpfs", format!("{}{options}", tmpfs.target))
    }));
    parameters
}

/// The check, in Mesos's words; none where it asks for a port that the task does not have.
fn health(template: &TaskTemplate, ports: &BTreeMap<String, u16>) -> Option<HealthCheck> {
    let Some(Health::Check(check)) = &template.container.health else { return None };
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    let base = HealthCheck {
        delay_seconds: Some(check.delay.unwrap_or_default().as_secs_f64()),
        interval_seconds: seconds(check.interval),
        timeout_seconds: seconds(check.timeout),
        consecutive_failures: check.retries,
        grace_period_seconds: seconds(check.start_period),
        ..HealthCheck::default()
    };
    let listens = listening(template, ports);
    Some(match &check.probe {
        Probe::Command(command) => {
            let command = match command {
                Command::Shell(line) => CommandInfo::shell(line.clone()),
                Command::Argv(argv) => CommandInfo::argv(argv.clone()),
            };
            HealthCheck { kind: HealthCheckKind::Command, command: Some(command), ..base }
        }
        Probe::Http { port, path, tls } => {
            let http = HttpCheck {
                scheme: Some(if *tls { "https" } else { "http" }.to_owned()),
                port: port.number(&listens)?.into(),
                path: Some(path.clone()),
                ..HttpCheck::default()
            };
            HealthCheck { kind: HealthCheckKind::Http, http: Some(http), ..base }
        }
        Probe::Tcp { port } => {
            let tcp = TcpCheck { port: port.number(&listens)?.into(), ..TcpCheck::default() };
            HealthCheck { kind: HealthCheckKind::Tcp, tcp: Some(tcp), ..base }
        }
    })
}

/// Where the task itself listens: in a network of its own that is inside, else it is what it was given.
fn listening(template: &TaskTemplate, ports: &BTreeMap<String, u16>) -> BTreeMap<String, u16> {
    let own_network = match &template.container.network {
        Some(_) => network(template).is_some_and(|network| !network.eq_ignore_ascii_case("none")),
        None => by_docker(template),
    };
    let inside = |port: &PortSpec| {
        let outside = *ports.get(&port.name)?;
        Some((port.name.clone(), port.inside.filter(|_| own_network).unwrap_or(outside)))
    };
    template.ports.iter().filter_map(inside).collect()
}

fn discover(discovery: &Discovery, request: &LaunchRequest, ports: &BTreeMap<String, u16>) -> DiscoveryInfo {
    let ports = request.template.ports.iter().filter_map(|port| {
        Some(DiscoveryPort {
            number: u32::from(*ports.get(&port.name)?),
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.as_str().to_owned()),
            ..DiscoveryPort::default()
        })
    });
    DiscoveryInfo {
        visibility: match discovery.visibility {
            Visibility::Framework => wire::Visibility::Framework,
            Visibility::Cluster => wire::Visibility::Cluster,
            Visibility::External => wire::Visibility::External,
        },
        name: Some(discovery.name.clone().unwrap_or_else(|| request.policy.to_string())),
        environment: discovery.environment.clone(),
        location: discovery.location.clone(),
        version: discovery.version.clone(),
        ports: Some(DiscoveryPorts { ports: ports.collect() }),
        labels: None,
    }
}
