//! The words of a task that runs in a container: what `core::container` holds, read from a task's table.

use mlua::{Table, Value};

use crate::core::container::{ContainerSpec, Protocol, Pull, Tmpfs, Volume};
use crate::core::policy::PortSpec;

use super::checker::{Findings, Node, items, text_list};
use super::convert::{describe, finite, quote};
use super::health_table::health;

/// Keys of a task that mean something in a container only.
pub(super) const CONTAINER_FIELDS: &[&str] = &[
    "entrypoint",
    "pids",
    "network",
    "volumes",
    "tmpfs",
    "health",
    "pull",
    "user",
    "privileged",
    "init",
    "parameters",
    "service",
    "engine",
];

/// Most processes of one container.
const MOST_PIDS: u32 = 4 << 20;

/// Reads the container words of a task, over what is already known of it.
pub(super) fn container(node: &Node<'_>, base: ContainerSpec, found: &mut Findings) -> ContainerSpec {
    let mut spec = base;
    if let Some(entrypoint) = one_or_many(node, "entrypoint", found) {
        spec.entrypoint = Some(entrypoint);
    }
    spec.pids = node.whole("pids", 1..=MOST_PIDS, found).or(spec.pids);
    spec.network = named(node, "network", found).or(spec.network);
    if let Some(list) = list(node, "volumes", found) {
        spec.volumes = list.iter().filter_map(|text| volume(text, &node.at("volumes"), found)).collect();
    }
    if let Some(list) = list(node, "tmpfs", found) {
        spec.tmpfs = list.iter().filter_map(|text| tmpfs(text, &node.at("tmpfs"), found)).collect();
    }
    if node.has("health") {
        spec.health = health(node, found);
    }
    let pulls = [("missing", Pull::Missing), ("always", Pull::Always), ("never", Pull::Never)];
    spec.pull = node.word("pull", &pulls, found).unwrap_or(spec.pull);
    spec.user = named(node, "user", found).or(spec.user);
    spec.privileged = node.flag("privileged", found).unwrap_or(spec.privileged);
    spec.init = node.flag("init", found).unwrap_or(spec.init);
    if let Some(list) = list(node, "parameters", found) {
        spec.parameters = list.iter().filter_map(|text| parameter(text, &node.at("parameters"), found)).collect();
    }
    spec.service = named(node, "service", found).or(spec.service);
    if let Some(engines) = one_or_many(node, "engine", found) {
        spec.engines = engines;
    }
    spec
}

/// A text that is not empty.
fn named(node: &Node<'_>, key: &str, found: &mut Findings) -> Option<String> {
    let text = node.text(key, found)?;
    if text.is_empty() {
        found.problem(&node.at(key), "expected a name, got nothing");
        return None;
    }
    Some(text)
}

fn list(node: &Node<'_>, key: &str, found: &mut Findings) -> Option<Vec<String>> {
    let table = node.table(key, found)?;
    text_list(&table, &node.at(key), found)
}

/// A text, or a list of them.
fn one_or_many(node: &Node<'_>, key: &str, found: &mut Findings) -> Option<Vec<String>> {
    let list = match node.value(key) {
        Value::Nil => return None,
        Value::String(_) => vec![node.text(key, found)?],
        Value::Table(table) => text_list(&table, &node.at(key), found)?,
        other => {
            found.problem(&node.at(key), format!("expected text or a list of it, got {}", describe(&other)));
            return None;
        }
    };
    if list.iter().any(String::is_empty) {
        found.problem(&node.at(key), "expected text, got nothing");
    }
    Some(list)
}

/// `source:target`, `source:target:ro`, as `docker run --volume` has it.
fn volume(text: &str, path: &str, found: &mut Findings) -> Option<Volume> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => ("", "", false),
    };
    if source.is_empty() || !target.starts_with('/') {
        let got = quote(text);
        found.problem(
            path,
            format!("expected \"source:/target\" or \"source:/target:ro\", the target an absolute path, got {got}"),
        );
        return None;
    }
    Some(Volume { source: source.to_owned(), target: target.to_owned(), read_only })
}

/// `/path` or `/path:size=64m`, as `docker run --tmpfs` has it.
fn tmpfs(text: &str, path: &str, found: &mut Findings) -> Option<Tmpfs> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        found.problem(path, format!("expected \"/path\" or \"/path:size=64m\", got {}", quote(text)));
        return None;
    }
    Some(Tmpfs { target: target.to_owned(), options: options.to_owned() })
}

fn parameter(text: &str, path: &str, found: &mut Findings) -> Option<(String, String)> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    if pair.is_none() {
        found.problem(path, format!("expected \"option=value\", got {}", quote(text)));
    }
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// Ports: `{ http = 8080 }`, `{ "http" }` for a name without a number inside, or
/// `{ http = { inside = 80, outside = "8000-8010", protocol = "udp" } }`. Lists keep their order, names are sorted.
pub(super) fn ports(table: &Table, path: &str, found: &mut Findings) -> Option<Vec<PortSpec>> {
    let mut ports = Vec::new();
    if table.raw_len() > 0 {
        for item in items(table, path, found)? {
            match &item {
                Value::String(name) => ports.push(PortSpec { name: name.to_string_lossy(), ..PortSpec::default() }),
                other => {
                    found.problem(path, format!("expected names of ports, got {}", describe(other)));
                    return None;
                }
            }
        }
    } else {
        for pair in table.pairs::<Value, Value>().take(65) {
            let (key, value) = found.take(path, pair)?;
            let Value::String(name) = &key else {
                found.problem(path, format!("expected names of ports, got {}", describe(&key)));
                return None;
            };
            ports.push(port(name.to_string_lossy(), &value, path, found)?);
        }
        ports.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if ports.len() > 64 {
        found.problem(path, "expected at most 64 ports, got more");
        return None;
    }
    for (at, port) in ports.iter().enumerate() {
        let named =
            !port.name.is_empty() && port.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !named {
            found.problem(
                path,
                format!("expected a port's name of letters, digits, - and _, got {}", quote(&port.name)),
            );
        } else if ports[..at].iter().any(|other| other.name.eq_ignore_ascii_case(&port.name)) {
            found.problem(path, format!("the port {} is there twice", quote(&port.name)));
        }
    }
    Some(ports)
}

fn port(name: String, value: &Value, path: &str, found: &mut Findings) -> Option<PortSpec> {
    let at = format!("{path}.{name}");
    let Value::Table(table) = value else {
        let inside = Some(number(value, &name, &at, found)?);
        return Some(PortSpec { name, inside, ..PortSpec::default() });
    };
    let node = Node::new(table, &at, &["inside", "outside", "protocol"], found);
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let inside = match node.value("inside") {
        Value::Nil => None,
        value => Some(number(&value, "inside", &node.at("inside"), found)?),
    };
    let outside = match node.value("outside") {
        Value::Nil => None,
        Value::String(text) => Some(range(&text.to_string_lossy(), &node.at("outside"), found)?),
        value => number(&value, "outside", &node.at("outside"), found).map(|port| (port, port)),
    };
    let protocol = node.word("protocol", &protocols, found).unwrap_or_default();
    Some(PortSpec { name, inside, outside, protocol })
}

pub(super) fn number(value: &Value, name: &str, at: &str, found: &mut Findings) -> Option<u16> {
    let number = found.take(at, finite(value, name))?;
    if number.fract() != 0.0 || !(1.0..=65535.0).contains(&number) {
        found.problem(at, format!("expected a port from 1 to 65535, got {number}"));
        return None;
    }
    Some(number as u16)
}

fn range(text: &str, at: &str, found: &mut Findings) -> Option<(u16, u16)> {
    let parsed = || {
        let (first, last) = text.split_once('-')?;
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (0 < first && first <= last).then_some((first, last))
    };
    let range = parsed();
    if range.is_none() {
        found.problem(at, format!("expected a port, or a range of them such as \"31000-31100\", got {}", quote(text)));
    }
    range
}
