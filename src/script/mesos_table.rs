//! The words of a task on a Mesos cluster: what `core::mesos` holds, read from `workload.mesos`.

use std::collections::{BTreeMap, BTreeSet};

use mlua::{Table, Value};

use crate::core::container::Health;
use crate::core::mesos::{Containerizer, Discovery, Limits, MesosSpec, Uri, Visibility, Want, problems};
use crate::core::offers::{Constraint, Packing, Pattern, Rule};
use crate::core::policy::TaskTemplate;

use super::checker::{Findings, Node, items, text_list};
use super::convert::{describe, did_you_mean, finite, quote, whole};

/// Keys of `workload.mesos`.
pub(super) const MESOS_FIELDS: &[&str] =
    &["role", "priority", "constraints", "place", "uris", "containerizer", "resources", "limits", "discovery"];

const RULES: &[&str] = &["equal", "not_equal", "in", "matches", "unique", "group_by"];

/// Words of a task that only Docker has something for.
const OF_DOCKER: &[&str] = &["privileged", "parameters", "pids", "tmpfs", "init"];

/// Words of a task that are about its image.
const OF_IMAGES: &[&str] = &["entrypoint", "pull"];

/// The greatest whole number that every smaller one stands beside.
const MOST_NUMBER: f64 = 9_007_199_254_740_991.0;

/// Reads `workload.mesos`, over what is already known of it.
pub(super) fn mesos(node: &Node<'_>, base: MesosSpec, found: &mut Findings) -> MesosSpec {
    let mut spec = base;
    let Some(table) = node.table("mesos", found) else { return spec };
    let node = Node::new(&table, &node.at("mesos"), MESOS_FIELDS, found);
    spec.role = role(&node, found).or(spec.role);
    if let Some(priority) = node.number("priority", -1e6, false, found) {
        spec.priority = priority as i32;
    }
    if let Some(table) = node.table("constraints", found) {
        let at = node.at("constraints");
        let list = items(&table, &at, found).unwrap_or_default();
        spec.constraints = list.iter().filter_map(|value| constraint(value, &at, found)).collect();
    }
    let places = [("pack", Packing::Pack), ("spread", Packing::Spread)];
    spec.packing = node.word("place", &places, found).unwrap_or(spec.packing);
    if let Some(table) = node.table("uris", found) {
        let at = node.at("uris");
        let list = items(&table, &at, found).unwrap_or_default();
        spec.uris = list.iter().filter_map(|value| uri(value, &at, found)).collect();
    }
    let containerizers = [("docker", Containerizer::Docker), ("mesos", Containerizer::Mesos)];
    spec.containerizer = node.word("containerizer", &containerizers, found).unwrap_or(spec.containerizer);
    if let Some(resources) = node.table("resources", found) {
        spec.resources = wants(&resources, &node.at("resources"), found);
    }
    if let Some(table) = node.table("limits", found) {
        let limits = Node::new(&table, &node.at("limits"), &["cpus", "memory"], found);
        spec.limits = Limits { cpus: limits.number("cpus", 0.0, true, found), memory: limits.size("memory", found) };
    }
    if let Some(table) = node.table("discovery", found) {
        spec.discovery = Some(discovery(&table, &node.at("discovery"), found));
    }
    spec
}

/// A role's name, as Mesos allows them.
fn role(node: &Node<'_>, found: &mut Findings) -> Option<String> {
    let role = node.text("role", found)?;
    let part = |part: &str| !part.is_empty() && !matches!(part, "." | "..") && !part.starts_with('-');
    let allowed = role.split('/').all(part) && !role.contains(|c: char| c.is_whitespace() || c.is_control());
    if !allowed {
        found.problem(
            &node.at("role"),
            format!("expected a role's name such as \"web\" or \"eng/web\", got {}", quote(&role)),
        );
    }
    Some(role)
}

/// `{ "rack", "equal", "r1" }`, `{ "hostname", "unique" }`, `{ "rack", "in", { "r1", "r2" } }`.
fn constraint(value: &Value, path: &str, found: &mut Findings) -> Option<Constraint> {
    let Value::Table(table) = value else {
        found.problem(
            path,
            format!("expected tables such as {{ \"rack\", \"equal\", \"r1\" }}, got {}", describe(value)),
        );
        return None;
    };
    let part = |index: i64| table.raw_get::<Value>(index).unwrap_or(Value::Nil);
    let text = |value: Value| match value {
        Value::String(text) => Some(text.to_string_lossy()),
        number @ (Value::Integer(_) | Value::Number(_)) => finite(&number, "").ok().map(|number| number.to_string()),
        _ => None,
    };
    let (Some(attribute), Some(word)) = (text(part(1)).filter(|name| !name.is_empty()), text(part(2))) else {
        found.problem(
            path,
            "expected an attribute and a rule such as { \"rack\", \"equal\", \"r1\" }, got something else",
        );
        return None;
    };
    let given = part(3);
    let one = |found: &mut Findings| {
        let value = text(given.clone());
        if value.is_none() {
            found.problem(path, format!("expected a value after \"{word}\", got {}", describe(&given)));
        }
        value
    };
    let rule = match word.as_str() {
        "equal" => Rule::Equal(one(found)?),
        "not_equal" => Rule::NotEqual(one(found)?),
        "in" => {
            let Value::Table(list) = &given else {
                found.problem(path, format!("expected a list of values after \"in\", got {}", describe(&given)));
                return None;
            };
            Rule::In(text_list(list, path, found)?)
        }
        "matches" => {
            let pattern = Pattern::new(&one(found)?);
            Rule::Matches(found.take(path, pattern)?)
        }
        "unique" => Rule::Unique,
        "group_by" => Rule::GroupBy(match given {
            Value::Nil => None,
            _ => Some(found.take(path, whole(&given, "group_by", 1..=1_000_000))?),
        }),
        other => {
            let hint = did_you_mean(other, RULES.iter().copied());
            found.problem(path, format!("expected one of the rules {}, got {}{hint}", RULES.join(", "), quote(other)));
            return None;
        }
    };
    Some(Constraint { attribute, rule })
}

/// A text, or a table with more about it.
fn uri(value: &Value, path: &str, found: &mut Findings) -> Option<Uri> {
    let uri = match value {
        Value::String(text) => Uri { uri: text.to_string_lossy(), ..Uri::default() },
        Value::Table(table) => {
            let node = Node::new(table, path, &["uri", "executable", "extract", "cache", "output"], found);
            Uri {
                uri: node.text("uri", found).unwrap_or_default(),
                executable: node.flag("executable", found).unwrap_or(false),
                extract: node.flag("extract", found),
                cache: node.flag("cache", found).unwrap_or(false),
                output: node.text("output", found),
            }
        }
        other => {
            found.problem(path, format!("expected a URI as text, or a table with one, got {}", describe(other)));
            return None;
        }
    };
    if uri.uri.is_empty() {
        found.problem(path, "expected a URI, got nothing");
        return None;
    }
    Some(uri)
}

fn wants(table: &Table, path: &str, found: &mut Findings) -> BTreeMap<String, Want> {
    let mut wants = BTreeMap::new();
    for pair in table.pairs::<Value, Value>().take(64) {
        let Some((Value::String(name), value)) = found.take(path, pair) else {
            found.problem(path, "expected names of resources as keys");
            return wants;
        };
        let name = name.to_string_lossy();
        let at = format!("{path}.{name}");
        if matches!(name.as_str(), "cpus" | "mem" | "disk" | "ports") {
            found.problem(&at, "has a word of its own in `workload`");
        } else if let Some(want) = want(&name, &value, &at, found) {
            wants.insert(name, want);
        }
    }
    wants
}

/// An amount, `{ "eth0", "eth1" }`, `{ 7, 8 }`, `{ any = 2 }` or `{ numbers = 2 }`.
fn want(name: &str, value: &Value, at: &str, found: &mut Findings) -> Option<Want> {
    let amount = match value {
        Value::Table(table) if name != "gpus" => return listed(table, at, found),
        Value::Integer(_) | Value::Number(_) => finite(value, name).ok(),
        _ => None,
    };
    let amount = amount.filter(|amount| 0.0 < *amount && (name != "gpus" || amount.fract() == 0.0));
    if amount.is_none() {
        let expected = match (name, value) {
            ("gpus", _) => "a whole number of more than 0",
            (_, Value::Integer(_) | Value::Number(_)) => "more than 0",
            _ => "an amount, a list of items or numbers, or how many such as { any = 2 }",
        };
        found.problem(at, format!("expected {expected}, got {}", describe(value)));
    }
    amount.map(Want::Amount)
}

fn listed(table: &Table, at: &str, found: &mut Findings) -> Option<Want> {
    if table.raw_len() == 0 {
        let node = Node::new(table, at, &["any", "numbers"], found);
        let (any, numbers) = (node.whole("any", 1..=1_000, found), node.whole("numbers", 1..=1_000, found));
        return match (any, numbers) {
            (Some(any), None) => Some(Want::AnyItems { any }),
            (None, Some(numbers)) => Some(Want::AnyNumbers { numbers }),
            _ if node.has("any") != node.has("numbers") => None,
            _ => {
                found.problem(at, "expected how many items, { any = 2 }, or how many numbers, { numbers = 2 }");
                None
            }
        };
    }
    let list = items(table, at, found)?;
    if list.iter().all(|item| matches!(item, Value::String(_))) {
        return Some(Want::Items(text_list(table, at, found)?.into_iter().collect()));
    }
    let number = |item: &Value| match item {
        Value::Integer(_) | Value::Number(_) => {
            let number = finite(item, "").ok().filter(|number| number.fract() == 0.0);
            number.filter(|number| (0.0..=MOST_NUMBER).contains(number)).map(|number| number as u64)
        }
        _ => None,
    };
    let numbers: Option<BTreeSet<u64>> = list.iter().map(number).collect();
    if numbers.is_none() {
        found.problem(at, "expected items as text, or whole numbers of at least 0, got a list of something else");
    }
    numbers.map(Want::Numbers)
}

fn discovery(table: &Table, path: &str, found: &mut Findings) -> Discovery {
    let node = Node::new(table, path, &["visibility", "name", "environment", "location", "version"], found);
    let words =
        [("framework", Visibility::Framework), ("cluster", Visibility::Cluster), ("external", Visibility::External)];
    Discovery {
        visibility: node.word("visibility", &words, found).unwrap_or_default(),
        name: node.text("name", found),
        environment: node.text("environment", found),
        location: node.text("location", found),
        version: node.text("version", found),
    }
}

/// Warns of what means nothing to a cluster, and tells of what it could only fail at.
pub(super) fn misfits(node: &Node<'_>, task: &TaskTemplate, backend: &str, found: &mut Findings) {
    if backend != "mesos" {
        return;
    }
    let (words, what) = match (&task.image, task.mesos.containerizer) {
        (None, _) => (&[OF_DOCKER, OF_IMAGES][..], "the backend \"mesos\" without an image"),
        (Some(_), Containerizer::Mesos) => (&[OF_DOCKER][..], "Mesos's own containerizer"),
        (Some(_), Containerizer::Docker) => (&[][..], ""),
    };
    for word in words.iter().copied().flatten().filter(|word| node.has(word)) {
        found.warn(format!("{} means nothing to {what}", node.at(word)));
    }
    if !words.is_empty() && task.image.is_some() && task.container.health == Some(Health::Off) {
        found.warn(format!("{} = false means nothing to {what}", node.at("health")));
    }
    impossible(task, "workload", found);
}

/// Tells of what a cluster could only fail at.
pub(super) fn impossible(task: &TaskTemplate, path: &str, found: &mut Findings) {
    for (word, problem) in problems(task) {
        found.problem(&format!("{path}.{word}"), problem);
    }
}
