//! From a task to the container that runs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Shared, label};
use crate::backend::words::{bind, command, health, inside};
use crate::backend::{LaunchRequest, environment};
use crate::container::{Container, ContainerConfig, EngineConfig, Publish};
use crate::core::container::Protocol;
use crate::core::model::{Placement, TaskId};
use crate::core::policy::{PortSpec, TaskTemplate};

/// A task id as a container's name: what engines do not allow in one becomes a dash. The ULID at its end keeps it unique.
pub(super) fn container_name(shared: &Shared, id: &TaskId) -> String {
    shared.config.container_name.clone().unwrap_or_else(|| name_of(id))
}

fn name_of(id: &TaskId) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = id.as_str().chars().map(|c| if fits(c) { c } else { '-' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) { name } else { format!("t{name}") }
}

/// The container of a task.
///
/// # Errors
/// One line on what the task lacks.
pub(super) fn config(
    shared: &Shared,
    engine: &EngineConfig,
    request: &LaunchRequest,
) -> Result<ContainerConfig, Arc<str>> {
    let TaskTemplate { image, container: spec, .. } = &*request.template;
    let template = &*request.template;
    let image = image.clone().ok_or("the backend \"docker\" needs `workload.image`")?;
    let inside = inside(&template.ports);
    let publish = |port: &PortSpec| {
        Some(Publish { inside: *inside.get(&port.name)?, protocol: port.protocol, outside: port.outside })
    };
    // In the engine's own network, or in none, there is nothing to publish.
    let own_network = !matches!(spec.network.as_deref(), Some("host" | "none"));
    let (entrypoint, command) = command(template);
    Ok(ContainerConfig {
        name: container_name(shared, &request.id),
        image,
        entrypoint,
        command,
        env: environment::of_task(&request.id, &request.policy, template, &inside),
        labels: labels(shared, request, &inside),
        cwd: template.cwd.clone(),
        user: spec.user.clone(),
        cpus: template.cpus,
        memory: template.memory,
        pids: spec.pids,
        network: spec.network.clone(),
        volumes: spec.volumes.iter().map(|volume| bind(volume, request.base.as_deref())).collect(),
        tmpfs: spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.clone(), tmpfs.options.clone())).collect(),
        ports: template.ports.iter().filter_map(publish).filter(|_| own_network).collect(),
        publish_on: Some(engine.publish),
        health: spec.health.as_ref().and_then(health),
        privileged: spec.privileged,
        init: spec.init,
    })
}

/// The policy's labels, and over them ours.
fn labels(shared: &Shared, request: &LaunchRequest, inside: &BTreeMap<String, u16>) -> BTreeMap<String, String> {
    let mut labels = request.template.labels.clone();
    let mut ours = vec![
        (label::TASK, request.id.to_string()),
        (label::POLICY, request.policy.to_string()),
        (label::OWNER, shared.owner.clone()),
    ];
    if !inside.is_empty() {
        ours.push((label::PORTS, ports_text(&request.template.ports, inside)));
    }
    if shared.ephemeral {
        ours.push((label::RUN, shared.run.label()));
    }
    labels.extend(ours.into_iter().map(|(key, value)| (key.to_owned(), value)));
    labels
}

/// Ports as the text of a label.
fn ports_text(ports: &[PortSpec], inside: &BTreeMap<String, u16>) -> String {
    let one = |port: &PortSpec| Some(format!("{}={}/{}", port.name, inside.get(&port.name)?, port.protocol.as_str()));
    ports.iter().filter_map(one).collect::<Vec<_>>().join(",")
}

/// The ports that [`ports_text`] wrote, by name; what is not one is left out.
fn ports_from_text(text: &str) -> impl Iterator<Item = (&str, (u16, Protocol))> {
    text.split(',').filter_map(|entry| {
        let (name, port) = entry.split_once('=')?;
        let (number, protocol) = port.split_once('/')?;
        let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
        Some((name, (number.parse().ok()?, protocol)))
    })
}

/// Where a container is reached, by its ports' names.
pub(super) fn placement(engine: &EngineConfig, container: &Container) -> Placement {
    let outside = |port: &(u16, Protocol)| match &*container.network {
        "host" => Some(port.0),
        _ => container.ports.get(port).copied(),
    };
    let named = ports_from_text(container.labels.get(label::PORTS).map_or("", String::as_str));
    Placement {
        host: Some(engine.advertise.clone()),
        ports: named.filter_map(|(name, port)| Some((name.to_owned(), outside(&port)?))).collect(),
        pid: None,
        container: Some(container.id.clone()),
        token: Some(engine.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_engines_allow() {
        for (id, name) in
            [("web.01ARZ", "web.01ARZ"), ("f~row.01", "f-row.01"), ("_x.01", "t_x.01"), ("ä b.01", "t--b.01")]
        {
            assert_eq!(name_of(&TaskId::from(id)), name);
        }
    }

    #[test]
    fn ports_survive_their_text() {
        let port = |name: &str| PortSpec { name: name.into(), ..PortSpec::default() };
        let ports = [port("a"), port("b")];
        let text = ports_text(&ports, &inside(&ports));
        assert_eq!(text, "a=8080/tcp,b=8081/tcp");
        let read: Vec<_> = ports_from_text("a=8080/tcp,b=53/udp,,c=x/tcp,d=1").collect();
        assert_eq!(read, [("a", (8080, Protocol::Tcp)), ("b", (53, Protocol::Udp))]);
    }
}
