//! How a task's health is found out, as a policy says it: `health = "test -e /ok"`, `health = { http = { port = "web" } }`.

use mlua::{Table, Value};

use crate::core::container::{Health, HealthCheck, Probe, ProbePort};
use crate::core::policy::TaskTemplate;

use super::checker::{Findings, Node};
use super::container_table::number;
use super::convert::{describe, quote};
use super::task_table::command;

/// What a check is, of which there is one, and when it is made.
const KINDS: [&str; 3] = ["command", "http", "tcp"];
const KEYS: [&str; 8] = ["command", "http", "tcp", "delay", "interval", "timeout", "retries", "start_period"];

/// Most failed checks in a row.
const MOST_RETRIES: u32 = 1_000_000;

/// A command, a table around a check, or false for none at all.
pub(super) fn health(node: &Node<'_>, found: &mut Findings) -> Option<Health> {
    let at = node.at("health");
    let by_command = |command| {
        let probe = Probe::Command(command);
        Health::Check(HealthCheck {
            probe,
            delay: None,
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
        })
    };
    match node.value("health") {
        Value::Boolean(false) => Some(Health::Off),
        text @ Value::String(_) => command(&text, &at, found).map(by_command),
        Value::Table(table) if table.raw_len() > 0 => command(&Value::Table(table), &at, found).map(by_command),
        Value::Table(table) => check(&table, &at, found).map(Health::Check),
        other => {
            found.problem(&at, format!("expected a command, a table with a check, or false, got {}", describe(&other)));
            None
        }
    }
}

fn check(table: &Table, at: &str, found: &mut Findings) -> Option<HealthCheck> {
    let node = Node::new(table, at, &KEYS, found);
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| node.has(kind)).collect();
    let [kind] = given[..] else {
        let got = if given.is_empty() { "none of them".to_owned() } else { given.join(" and ") };
        found.problem(at, format!("expected one of `command`, `http` and `tcp`, got {got}"));
        return None;
    };
    let probe = match kind {
        "http" => http(&node, found)?,
        "tcp" => Probe::Tcp { port: port(&node.value("tcp"), &node.at("tcp"), found)? },
        _ => Probe::Command(command(&node.value("command"), &node.at("command"), found)?),
    };
    Some(HealthCheck {
        probe,
        delay: node.duration("delay", found),
        interval: node.duration("interval", found),
        timeout: node.duration("timeout", found),
        retries: node.whole("retries", 1..=MOST_RETRIES, found),
        start_period: node.duration("start_period", found),
    })
}

/// A port alone, or `{ port = "web", path = "/healthz", scheme = "https" }`.
fn http(node: &Node<'_>, found: &mut Findings) -> Option<Probe> {
    let at = node.at("http");
    let value = node.value("http");
    let Value::Table(table) = &value else {
        return Some(Probe::Http { port: port(&value, &at, found)?, path: "/".to_owned(), tls: false });
    };
    let inner = Node::new(table, &at, &["port", "path", "scheme"], found);
    let tls = inner.word("scheme", &[("http", false), ("https", true)], found).unwrap_or(false);
    let path = inner.text("path", found).unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') {
        found.problem(&inner.at("path"), format!("expected a path that begins with a slash, got {}", quote(&path)));
    }
    Some(Probe::Http { port: port(&inner.value("port"), &inner.at("port"), found)?, path, tls })
}

/// The name of one of the task's ports, or a number.
fn port(value: &Value, at: &str, found: &mut Findings) -> Option<ProbePort> {
    match value {
        Value::String(name) => Some(ProbePort::Named(name.to_string_lossy())),
        Value::Nil => {
            found.problem(at, "expected the name of one of the task's ports, or a number, got nil");
            None
        }
        value => number(value, "port", at, found).map(ProbePort::Number),
    }
}

/// What is wrong with a task's check once all of the task is known: a port that it does not have.
pub(super) fn unknown_port(task: &TaskTemplate) -> Option<String> {
    let Some(Health::Check(check)) = &task.container.health else { return None };
    let (Probe::Http { port: ProbePort::Named(name), .. } | Probe::Tcp { port: ProbePort::Named(name) }) = &check.probe
    else {
        return None;
    };
    let known = task.ports.iter().any(|port| port.name == *name);
    (!known).then(|| format!("the task has no port {}", quote(name)))
}

/// What of a check a backend makes nothing of.
pub(super) fn unused(task: &TaskTemplate, backend: &str, found: &mut Findings) {
    let Some(Health::Check(check)) = &task.container.health else { return };
    if !matches!(backend, "docker" | "swarm") {
        return;
    }
    let word = match check.probe {
        Probe::Http { .. } => Some("http"),
        Probe::Tcp { .. } => Some("tcp"),
        Probe::Command(_) => None,
    };
    let delay = check.delay.map(|_| "delay");
    for word in word.into_iter().chain(delay) {
        found.warn(format!("workload.health.{word} means nothing to the backend \"{backend}\""));
    }
}
