//! From a template's container words to what an engine is told, the same for every backend that runs containers.

use std::collections::BTreeMap;
use std::path::Path;

use crate::container::HealthConfig;
use crate::core::container::{Health, Probe, Volume};
use crate::core::policy::{Command, PortSpec, TaskTemplate};

/// Where ports inside a container begin that the policy leaves open.
const FIRST_INSIDE: u16 = 8080;

/// Port name → port inside the container.
pub(in crate::backend) fn inside(ports: &[PortSpec]) -> BTreeMap<String, u16> {
    let fixed = |port: &PortSpec| {
        port.inside.or_else(|| port.outside.filter(|(first, last)| first == last).map(|(port, _)| port))
    };
    let mut taken: Vec<u16> = ports.iter().filter_map(fixed).collect();
    let mut all = BTreeMap::new();
    for port in ports {
        let number = fixed(port).or_else(|| (FIRST_INSIDE..=u16::MAX).find(|number| !taken.contains(number)));
        if let Some(number) = number {
            taken.push(number);
            all.insert(port.name.clone(), number);
        }
    }
    all
}

/// Entrypoint and command. A text goes to the shell of the image, whatever its entrypoint; a list is what the
/// entrypoint, where there is one, gets as arguments.
pub(in crate::backend) fn command(template: &TaskTemplate) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let entrypoint = template.container.entrypoint.clone();
    match &template.command {
        None => (entrypoint, None),
        Some(Command::Argv(argv)) => (entrypoint, Some(argv.clone())),
        Some(Command::Shell(text)) => {
            let shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            match entrypoint {
                None => (Some(shell), Some(vec![text.clone()])),
                Some(entrypoint) => (Some(entrypoint), Some([shell, vec![text.clone()]].concat())),
            }
        }
    }
}

/// A folder or volume as `source:target[:ro]`; relative sources start from `base`.
pub(in crate::backend) fn bind(volume: &Volume, base: Option<&Path>) -> String {
    let relative = volume.source.starts_with("./") || volume.source.starts_with("../");
    // Engines want absolute paths, and policies are often named by relative ones.
    let absolute = || std::path::absolute(base.unwrap_or(Path::new("")).join(&volume.source)).ok();
    let found = relative.then(absolute).flatten().map(|path| path.to_string_lossy().into_owned());
    let source = found.unwrap_or_else(|| volume.source.clone());
    format!("{source}:{}{}", volume.target, if volume.read_only { ":ro" } else { "" })
}

/// How its health is found out; none leaves that to the image, as where engines have no such check: they run commands only.
pub(in crate::backend) fn health(health: &Health) -> Option<HealthConfig> {
    let Health::Check(check) = health else {
        return Some(HealthConfig { command: None, interval: None, timeout: None, retries: None, start_period: None });
    };
    let command = match &check.probe {
        Probe::Command(Command::Argv(argv)) => argv.clone(),
        Probe::Command(Command::Shell(text)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
        Probe::Http { .. } | Probe::Tcp { .. } => return None,
    };
    Some(HealthConfig {
        command: Some(command),
        interval: check.interval,
        timeout: check.timeout,
        retries: check.retries,
        start_period: check.start_period,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_one_inside() {
        let port = |name: &str, inside, outside| PortSpec { name: name.into(), inside, outside, ..PortSpec::default() };
        let ports = [
            port("a", Some(8080), None),
            port("b", None, None),
            port("c", None, Some((9000, 9000))),
            port("d", None, Some((9000, 9009))),
        ];
        let all: Vec<_> = inside(&ports).into_values().collect();
        assert_eq!(all, [8080, 8081, 9000, 8082]);
    }
}
