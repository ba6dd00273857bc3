//! From a workload to the service that holds it.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::label;
use crate::backend::words::{bind, command, health, inside};
use crate::backend::{CountWorkload, environment};
use crate::container::{ContainerConfig, Publish, ServiceConfig};
use crate::core::container::Protocol;
use crate::core::model::TaskId;

/// Longest name of a service.
const MOST_NAME: usize = 63;

/// The service that holds a workload.
///
/// # Errors
/// One line on what the workload lacks.
pub(super) fn service(workload: &CountWorkload, owner: &str, run: Option<String>) -> Result<ServiceConfig, String> {
    let template = &*workload.template;
    let words = &template.container;
    let image = template.image.clone().ok_or("the backend \"swarm\" needs `workload.image`")?;
    if words.privileged {
        return Err("the backend \"swarm\" cannot run privileged containers".to_owned());
    }
    let inside = inside(&template.ports);
    let publish = |port: &crate::core::policy::PortSpec| {
        // A range cannot be told to Swarm: any free port is as good.
        let outside = port.outside.filter(|(first, last)| first == last);
        Some(Publish { inside: *inside.get(&port.name)?, protocol: port.protocol, outside })
    };
    let (entrypoint, command) = command(template);
    let mut ours = BTreeMap::from([
        (label::POLICY.to_owned(), workload.policy.to_string()),
        (label::OWNER.to_owned(), owner.to_owned()),
    ]);
    ours.extend(run.map(|run| (label::RUN.to_owned(), run)));
    let mut labels = template.labels.clone();
    labels.extend(ours.clone());
    let container = ContainerConfig {
        name: name(workload.policy.as_str()),
        image,
        entrypoint,
        command,
        env: environment(workload, &inside),
        labels: labels.clone(),
        cwd: template.cwd.clone(),
        user: words.user.clone(),
        cpus: template.cpus,
        memory: template.memory,
        pids: words.pids,
        network: words.network.clone(),
        volumes: words.volumes.iter().map(|volume| bind(volume, None)).collect(),
        tmpfs: words.tmpfs.iter().map(|tmpfs| (tmpfs.target.clone(), tmpfs.options.clone())).collect(),
        ports: template.ports.iter().filter_map(publish).collect(),
        publish_on: None,
        health: words.health.as_ref().and_then(health),
        privileged: false,
        init: words.init,
    };
    labels.insert(label::TEMPLATE.to_owned(), fingerprint(workload));
    let grace_nanos = i64::try_from(workload.grace.as_nanos()).unwrap_or(i64::MAX);
    Ok(ServiceConfig { container, labels, grace_nanos })
}

/// Port name → the port inside, by which a task's status tells the one outside.
pub(super) fn port_names(workload: &CountWorkload) -> Vec<(String, (u16, Protocol))> {
    let inside = inside(&workload.template.ports);
    let ports = workload.template.ports.iter();
    ports.filter_map(|port| Some((port.name.clone(), (*inside.get(&port.name)?, port.protocol)))).collect()
}

/// What tells one template from another.
pub(super) fn fingerprint(workload: &CountWorkload) -> String {
    // A template always serialises; should one not, all are alike and nothing is replaced.
    let text = serde_json::to_vec(&*workload.template).unwrap_or_default();
    digest(&text, 8)
}

/// The first bytes of a digest, in hexadecimal digits.
fn digest(of: &[u8], bytes: usize) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(of).iter().take(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The environment of every task. Swarm fills in each task's own name, and would fill in what looks like that in
/// values of the policy's too.
fn environment(workload: &CountWorkload, inside: &BTreeMap<String, u16>) -> BTreeMap<String, String> {
    const TASK: &str = "{{.Task.ID}}";
    let all = environment::of_task(&TaskId::from(TASK), &workload.policy, &workload.template, inside);
    let literal = |text: String| text.replace("{{", "{{\"{{\"}}");
    all.into_iter()
        .map(|(name, value)| {
            let value = if name == environment::TASK_ID { value } else { literal(value) };
            (name, value)
        })
        .collect()
}

/// A service's name: letters, digits and dashes, at most 63; what had to be changed is told apart by a digest.
fn name(policy: &str) -> String {
    let plain: String = policy.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let whole = format!("setpoint-{plain}");
    if plain == policy && whole.len() <= MOST_NAME && !policy.ends_with('-') {
        return whole;
    }
    let digest = digest(policy.as_bytes(), 4);
    let kept: String = whole.chars().take(MOST_NAME - digest.len() - 1).collect();
    format!("{}-{digest}", kept.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::core::policy::{PortSpec, Ready, TaskTemplate};

    #[test]
    fn names_are_what_swarm_allows_and_tell_policies_apart() {
        assert_eq!(name("web"), "setpoint-web");
        assert_eq!(name("my-web"), "setpoint-my-web");
        let names = [name("fleet/a"), name("fleet-a"), name("fleet.a"), name(&"x".repeat(80)), name("a-")];
        for one in &names {
            assert!(one.len() <= MOST_NAME && !one.ends_with('-'), "{one}");
            assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{one}");
            assert_eq!(names.iter().filter(|other| *other == one).count(), 1, "{one}");
        }
    }

    #[test]
    fn a_service_has_the_policys_words_and_tasks_know_their_names() {
        let template = TaskTemplate {
            image: Some("cache:1".into()),
            env: BTreeMap::from([("FORMAT".to_owned(), "{{.Node.ID}}".to_owned())]),
            ports: vec![PortSpec { name: "m".into(), inside: Some(11211), ..PortSpec::default() }],
            ..TaskTemplate::default()
        };
        let workload = CountWorkload {
            policy: "cache".into(),
            template: Arc::new(template),
            ready: Ready::Running,
            grace: Duration::from_secs(3),
            rolling: false,
        };
        let made = service(&workload, "mark", None).unwrap();
        assert_eq!(made.container.env["SETPOINT_TASK_ID"], "{{.Task.ID}}");
        assert_eq!(made.container.env["FORMAT"], "{{\"{{\"}}.Node.ID}}");
        assert_eq!(made.container.env["PORT_M"], "11211");
        assert_eq!(made.container.ports, [Publish { inside: 11211, protocol: Protocol::Tcp, outside: None }]);
        assert_eq!((made.labels[label::OWNER].as_str(), made.grace_nanos), ("mark", 3_000_000_000));
        assert_eq!(made.labels[label::TEMPLATE], fingerprint(&workload));
        assert!(!made.container.labels.contains_key(label::TEMPLATE), "tasks alike are not told apart by it");
        let bare = CountWorkload { template: Arc::default(), ..workload };
        assert!(service(&bare, "mark", None).unwrap_err().contains("workload.image"));
    }
}
