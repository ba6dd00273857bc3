//! What a task is, as a table: in `workload`, as a `warmer` or `cooler`, and as options of `ctx.workload:launch`.

use mlua::{Table, Value};

use crate::core::mesos::Containerizer;
use crate::core::policy::{Command, Output, TaskTemplate};

use super::api::types::TEMPLATE_KEYS;
use super::checker::{Findings, Node, text_list};
use super::container_table::{CONTAINER_FIELDS, container, ports};
use super::convert::{describe, quote};
use super::health_table;
use super::mesos_table::mesos;

/// Keys of a task.
pub(super) const TASK_FIELDS: &[&str] = TEMPLATE_KEYS;

/// Words that a backend makes nothing of. Backends that are not listed say nothing of themselves.
const UNUSED: &[(&str, &[&str])] = &[
    ("local", &["disk", "labels", "executor", "mesos"]),
    ("docker", &["disk", "output", "executor", "parameters", "service", "mesos"]),
    ("swarm", &["disk", "output", "executor", "pull", "privileged", "parameters", "engine", "mesos"]),
    ("mesos", &["output", "cwd", "service", "engine"]),
    ("none", &[]),
];

/// Most cores of one task.
const MOST_CPUS: f64 = 1e6;

/// Reads a task from a table, over what is already known of it. Unknown keys are the caller's to refuse.
pub(super) fn task(node: &Node<'_>, base: TaskTemplate, found: &mut Findings) -> TaskTemplate {
    let mut task = base;
    if node.has("command") {
        task.command = command(&node.value("command"), &node.at("command"), found);
    }
    if let Some(image) = node.text("image", found) {
        if image.is_empty() {
            found.problem(&node.at("image"), "expected an image's name, got nothing");
        }
        task.image = Some(image);
    }
    if let Some(env) = node.texts("env", found) {
        for (name, _) in &env {
            if name.is_empty() || name.contains('=') {
                found.problem(&node.at("env"), format!("expected a variable's name, got {}", quote(name)));
            }
        }
        task.env = env.into_iter().collect();
    }
    if let Some(cpus) = node.number("cpus", 0.0, true, found) {
        if cpus > MOST_CPUS {
            found.problem(&node.at("cpus"), format!("expected at most {MOST_CPUS} cores, got {cpus}"));
        }
        task.cpus = Some(cpus);
    }
    task.memory = node.size("memory", found).or(task.memory);
    task.disk = node.size("disk", found).or(task.disk);
    if let Some(table) = node.table("ports", found) {
        task.ports = ports(&table, &node.at("ports"), found).unwrap_or_default();
    }
    if let Some(labels) = node.texts("labels", found) {
        task.labels = labels.into_iter().collect();
    }
    task.cwd = node.text("cwd", found).or(task.cwd);
    let outputs = [("auto", &Output::Auto), ("null", &Output::Null), ("inherit", &Output::Inherit)];
    if let Some(output) = node.word("output", &outputs, found) {
        task.output = output.clone();
    }
    task.executor = node.text("executor", found).or(task.executor);
    if let Some(name) = node.text("uuid_env", found) {
        if name.is_empty() || name.contains(['=', '\0']) {
            found.problem(&node.at("uuid_env"), format!("expected a variable's name, got {}", quote(&name)));
        }
        task.uuid_env = Some(name);
    }
    task.container = container(node, task.container, found);
    task.mesos = mesos(node, task.mesos, found);
    if task.image.is_some()
        && task.executor.as_deref() == Some("setpoint")
        && task.mesos.containerizer == Containerizer::Mesos
    {
        let what = "is for the cluster's own executors, while executor = \"setpoint\" runs images on Docker";
        found.problem(&format!("{}.containerizer", node.at("mesos")), format!("\"mesos\" {what}"));
    }
    if let Some(problem) = health_table::unknown_port(&task) {
        found.problem(&node.at("health"), problem);
    }
    task
}

/// Warns of words that the backend makes nothing of.
pub(super) fn unused(node: &Node<'_>, backend: &str, found: &mut Findings) {
    let unused = UNUSED.iter().filter(|(name, _)| *name == backend).flat_map(|(_, words)| words.iter());
    let bare = matches!(backend, "local" | "none");
    // Commands have users, too.
    let of_containers = CONTAINER_FIELDS.iter().filter(|word| bare && !(backend == "local" && **word == "user"));
    let words = unused.chain(of_containers);
    for word in words.filter(|word| node.has(word)) {
        found.warn(format!("{} means nothing to the backend \"{backend}\"", node.at(word)));
    }
}

/// A command: text for the shell, or a list that is run as it is.
pub(super) fn command(value: &Value, path: &str, found: &mut Findings) -> Option<Command> {
    match value {
        Value::String(text) => {
            let text = text.to_string_lossy();
            if text.trim().is_empty() || text.contains('\0') || text.len() > 128 << 10 {
                found.problem(path, "expected a command, got nothing that a shell can run");
                return None;
            }
            Some(Command::Shell(text))
        }
        Value::Table(table) => {
            let list = text_list(table, path, found)?;
            if list.first().is_none_or(String::is_empty) {
                found.problem(path, "expected a program and its arguments, got an empty list");
                return None;
            }
            Some(Command::Argv(list))
        }
        other => {
            found.problem(path, format!("expected a command as text or as a list, got {}", describe(other)));
            None
        }
    }
}

/// The options of `ctx.workload:launch(n, options)`: the template, when it is not the workload's own, and whether the
/// tasks count. With a command or image of its own a task inherits nothing from the workload; without, the other
/// options go over the workload's task.
pub(super) fn launch_options(options: &Table, workload: TaskTemplate) -> Result<(Option<TaskTemplate>, bool), String> {
    let mut found = Findings::new();
    let known: Vec<&str> = TASK_FIELDS.iter().copied().chain(["count"]).collect();
    let node = Node::new(options, "", &known, &mut found);
    let count = node.flag("count", &mut found).unwrap_or(true);
    let own = node.has("command") || node.has("image");
    let template = task(&node, if own { TaskTemplate::default() } else { workload }, &mut found);
    if !count && !own {
        found.problem("count", "a task that does not count (a helper) needs a command of its own");
    }
    if let Some(problem) = found.problems.first() {
        return Err(format!("ctx.workload:launch: {}", problem.message));
    }
    let changed = TASK_FIELDS.iter().any(|field| node.has(field));
    Ok((changed.then_some(template), count))
}
