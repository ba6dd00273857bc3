//! The policy table: from what a file returned to a [`PolicySpec`] and its functions, with every problem at once.
//!
//! Calls nothing: functions are only named. What the table says about tasks and control is read by `task_table` and
//! `control_table`.

use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Table, Value};

use crate::core::model::{Effect, Kind};
use crate::core::policy::{
    Actuator, Backoff, Hooks, Interval, LawSpec, MIN_INTERVAL, OnEnd, PolicySpec, Ready, Replace, Target, TaskTemplate,
    Workload,
};

use super::checker::{Findings, Node};
use super::control_table::control;
use super::convert::{describe, did_you_mean, quote};
use super::health_table;
use super::mesos_table;
use super::shadow::misnamed;
use super::task_table::{TASK_FIELDS, command, task, unused};

/// Most tasks that a policy may name anywhere.
pub(super) const MOST_TASKS: u32 = 1_000_000;

/// The longest interval: a policy that never ticks is more likely a slip.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);

const FIELDS: &[&str] = &[
    "interval",
    "workload",
    "control",
    "metric",
    "target",
    "warmer",
    "cooler",
    "decide",
    "victims",
    "drain",
    "stop",
    "migrate",
    "max_failures",
    "backoff",
    "max_helpers",
    "shadow",
    "params",
    "simulate",
];

const WORKLOAD_FIELDS: &[&str] =
    &["backend", "kind", "effect", "min", "max", "count", "ready", "grace", "on_end", "on_gone", "replace"];

/// The functions of one policy.
#[derive(Debug, Default)]
pub(super) struct Functions {
    pub(super) metric: Option<Function>,
    pub(super) target: Option<Function>,
    pub(super) count: Option<Function>,
    pub(super) warmer: Option<Function>,
    pub(super) cooler: Option<Function>,
    pub(super) decide: Option<Function>,
    pub(super) victims: Option<Function>,
    pub(super) drain: Option<Function>,
    pub(super) stop: Option<Function>,
    pub(super) migrate: Option<Function>,
    /// What stands in for `metric` in a simulation.
    pub(super) simulated_metric: Option<Function>,
}

/// Backends that a policy may name.
pub(super) struct Backends<'a> {
    /// Those that exist.
    pub(super) known: &'a [String],
    /// Those that the host allows; none is every one.
    pub(super) allowed: Option<&'a [String]>,
}

/// Reads a policy table.
pub(super) fn policy(table: &Table, backends: &Backends<'_>, found: &mut Findings) -> (PolicySpec, Functions) {
    let node = Node::new(table, "", FIELDS, found);
    let mut functions = Functions {
        metric: node.function("metric", found),
        decide: node.function("decide", found),
        victims: node.function("victims", found),
        drain: node.function("drain", found),
        stop: node.function("stop", found),
        migrate: node.function("migrate", found),
        simulated_metric: node
            .table("simulate", found)
            .and_then(|table| Node::new(&table, "simulate", &["metric"], found).function("metric", found)),
        ..Functions::default()
    };
    let target = target(&node, &mut functions, found);
    let interval = interval(&node, found);
    let control = control(node.table("control", found).as_ref(), functions.decide.is_some(), found);
    let warmer = actuator(&node, "warmer", &mut functions.warmer, found);
    let cooler = actuator(&node, "cooler", &mut functions.cooler, found);
    if !node.has("workload") {
        found.problem("workload", "expected a table that says what to run, got nil");
    }
    let workload =
        node.table("workload", found).map(|table| workload(&table, &control.law, backends, &mut functions, found));
    if let Some(workload) = &workload {
        launching(workload, &warmer, &cooler, found);
        choosing(workload, &functions, found);
        for (path, actuator) in [("warmer", &warmer), ("cooler", &cooler)] {
            if let (Actuator::Task(task), "mesos") = (actuator, workload.backend.as_str()) {
                mesos_table::impossible(task, path, found);
            }
        }
    }
    needs(&node, &control.law, &functions, &target, found);
    let shadow = node.text("shadow", found);
    if let Some(wrong) = shadow.as_deref().and_then(misnamed) {
        found.problem("shadow", wrong);
    }
    let spec = PolicySpec {
        interval,
        workload: workload.unwrap_or_else(no_workload),
        control,
        max_failures: max_failures(&node, found),
        backoff: backoff(&node, found),
        max_helpers: node.whole("max_helpers", 0..=MOST_TASKS, found).unwrap_or(0),
        shadow,
        hooks: Hooks {
            metric: functions.metric.is_some(),
            target,
            warmer,
            cooler,
            decide: functions.decide.is_some(),
            victims: functions.victims.is_some(),
            drain: functions.drain.is_some(),
            stop: functions.stop.is_some(),
            migrate: functions.migrate.is_some(),
            count: functions.count.is_some(),
        },
    };
    (spec, functions)
}

/// What the law cannot do without.
fn needs(node: &Node<'_>, law: &LawSpec, functions: &Functions, target: &Target, found: &mut Findings) {
    let name = law.name();
    if !node.has("metric") && law.needs_sample() {
        found.problem("metric", format!("the law \"{name}\" needs the function metric(ctx), got nil"));
    }
    let absent = matches!(target, Target::Absent);
    if !node.has("target") && law.needs_setpoint() {
        found.problem("target", format!("the law \"{name}\" needs a target, expected a number or a function, got nil"));
    }
    if functions.decide.is_some() && !matches!(law, LawSpec::Decide) {
        found.warn(format!("decide is never called: the law is \"{name}\""));
    }
    if !absent && matches!(law, LawSpec::Count { .. }) {
        found.warn("target means nothing to the law \"count\"");
    }
}

/// A service that is only told a number chooses itself which of its tasks end, and when one begins.
fn choosing(workload: &Workload, functions: &Functions, found: &mut Findings) {
    if workload.backend == "swarm" {
        if workload.kind == Kind::Jobs {
            let problem =
                "expected \"service\" on backend \"swarm\", which starts every task that ends anew, got \"jobs\"";
            found.problem("workload.kind", problem);
        }
        for (name, given) in [("victims", &functions.victims), ("drain", &functions.drain)] {
            if given.is_some() {
                found.warn(format!("{name} is never called: backend \"swarm\" chooses itself which tasks end"));
            }
        }
    }
}

/// Whether anything could be launched.
fn launching(workload: &Workload, warmer: &Actuator, cooler: &Actuator, found: &mut Findings) {
    let outside = workload.backend == "none";
    let lent = workload.backend == "swarm" && workload.template.container.service.is_some();
    let has_task = workload.template.command.is_some() || workload.template.image.is_some() || lent;
    if outside {
        if has_task {
            found.problem("workload.command", "backend \"none\" runs nothing: its tasks are run by others");
        }
        if matches!(warmer, Actuator::Absent) && matches!(cooler, Actuator::Absent) {
            found.warn("backend \"none\" without warmer and cooler can change nothing");
        }
        return;
    }
    if workload.backend == "local" && matches!(workload.ready, Ready::Healthy) {
        found.warn("workload.ready: the backend \"local\" checks no health, so its tasks never count as ready");
    }
    let launches = match workload.effect {
        Effect::Heats => warmer,
        Effect::Cools => cooler,
    };
    let by_script = !matches!(launches, Actuator::Absent) && workload.min == 0;
    let told = |found: &Findings| found.problems.iter().any(|problem| problem.path == "workload.command");
    if !has_task && !by_script && workload.max > 0 && !told(found) {
        found.problem("workload.command", "expected a command as text or as a list, got nil");
    } else if workload.backend == "local" && workload.template.command.is_none() && workload.template.image.is_some() {
        found.problem("workload.command", "backend \"local\" runs no images, expected a command, got nil");
    } else if workload.backend == "local" && workload.template.image.is_some() {
        // The backend refuses each launch of it.
        found.problem("workload.image", "backend \"local\" runs commands and no images, expected none");
    } else if workload.backend == "docker" && has_task && workload.template.image.is_none() {
        found.problem("workload.image", "backend \"docker\" runs images, expected the name of one, got nil");
    }
}

fn target(node: &Node<'_>, functions: &mut Functions, found: &mut Findings) -> Target {
    match node.value("target") {
        Value::Nil => Target::Absent,
        Value::Function(function) => {
            functions.target = Some(function);
            Target::Function
        }
        Value::Integer(_) | Value::Number(_) => {
            Target::Number(node.number("target", f64::MIN, false, found).unwrap_or(0.0))
        }
        other => {
            found.problem("target", format!("expected a number or a function, got {}", describe(&other)));
            Target::Absent
        }
    }
}

/// `warmer` or `cooler`: a function, a command as text, or a task.
fn actuator(node: &Node<'_>, key: &str, function: &mut Option<Function>, found: &mut Findings) -> Actuator {
    match node.value(key) {
        Value::Nil => Actuator::Absent,
        Value::Function(given) => {
            *function = Some(given);
            Actuator::Function
        }
        text @ Value::String(_) => {
            let command = command(&text, key, found);
            Actuator::Task(Arc::new(TaskTemplate { command, ..TaskTemplate::default() }))
        }
        Value::Table(table) => {
            let inner = Node::new(&table, key, TASK_FIELDS, found);
            let template = task(&inner, TaskTemplate::default(), found);
            if template.command.is_none() && template.image.is_none() {
                found.problem(&inner.at("command"), "expected a command as text or as a list, got nil");
            }
            Actuator::Task(Arc::new(template))
        }
        other => {
            found.problem(key, format!("expected a function, a command or a task's table, got {}", describe(&other)));
            Actuator::Absent
        }
    }
}

fn interval(node: &Node<'_>, found: &mut Findings) -> Interval {
    let default = Interval::fixed(Duration::from_secs(15));
    let interval = match node.value("interval") {
        Value::Nil => return default,
        Value::Table(table) => {
            let inner = Node::new(&table, "interval", &["min", "max", "grow"], found);
            let min = inner.duration("min", found).unwrap_or(default.min);
            let max = inner.duration("max", found).unwrap_or(min.max(default.max));
            if max < min {
                found.problem("interval.max", "expected at least interval.min, got less");
            }
            Interval { min, max, grow: inner.number("grow", 1.0, false, found).unwrap_or(2.0) }
        }
        _ => Interval::fixed(node.duration("interval", found).unwrap_or(default.min)),
    };
    if interval.min < MIN_INTERVAL {
        found.problem("interval", format!("expected at least {} ms, got {:?}", MIN_INTERVAL.as_millis(), interval.min));
    }
    if interval.max > MAX_INTERVAL {
        found.problem("interval", "expected at most 7d, got more");
    }
    interval
}

fn workload(
    table: &Table,
    law: &LawSpec,
    backends: &Backends<'_>,
    functions: &mut Functions,
    found: &mut Findings,
) -> Workload {
    let known: Vec<&str> = WORKLOAD_FIELDS.iter().chain(TASK_FIELDS).copied().collect();
    let node = Node::new(table, "workload", &known, found);
    let backend = backend(&node, backends, found);
    unused(&node, &backend, found);
    functions.count = node.function("count", found);
    if (backend == "none") != functions.count.is_some() && !node.has("count") {
        found.problem(
            "workload.count",
            "backend \"none\" needs the function count(ctx), which gives the running number, got nil",
        );
    } else if backend != "none" && functions.count.is_some() {
        found.problem("workload.count", format!("expected backend \"none\" beside it, got \"{backend}\""));
    }
    let min = node.whole("min", 0..=MOST_TASKS, found);
    let max = node.whole("max", 0..=MOST_TASKS, found).or(match law {
        LawSpec::Count { n, .. } => Some(min.map_or(*n, |min| min.max(*n))),
        _ => None,
    });
    if max.is_none() && !node.has("max") {
        found.problem("workload.max", "expected the most tasks that may run, got nil");
    }
    let (min, max) = (min.unwrap_or(0), max.unwrap_or(MOST_TASKS));
    if min > max {
        found.problem("workload.min", format!("expected at most workload.max ({max}), got {min}"));
    }
    if let LawSpec::Count { n, .. } = law
        && *n > max
    {
        found.problem("control.n", format!("expected at most workload.max ({max}), got {n}"));
    }
    let ends = [("stop", OnEnd::Stop), ("keep", OnEnd::Keep)];
    let template = task(&node, TaskTemplate::default(), found);
    health_table::unused(&template, &backend, found);
    mesos_table::misfits(&node, &template, &backend, found);
    Workload {
        kind: node.word("kind", &[("service", Kind::Service), ("jobs", Kind::Jobs)], found).unwrap_or_default(),
        effect: node.word("effect", &[("cools", Effect::Cools), ("heats", Effect::Heats)], found).unwrap_or_default(),
        min,
        max,
        template,
        ready: ready(&node, found),
        grace: node.duration("grace", found).unwrap_or(Duration::from_secs(10)),
        on_end: node.word("on_end", &ends, found).unwrap_or_default(),
        on_gone: node.word("on_gone", &ends, found).unwrap_or_default(),
        replace: node
            .word("replace", &[("keep", Replace::Keep), ("rolling", Replace::Rolling)], found)
            .unwrap_or_default(),
        backend,
    }
}

fn backend(node: &Node<'_>, backends: &Backends<'_>, found: &mut Findings) -> String {
    let name = node.text("backend", found).unwrap_or_else(|| "local".to_owned());
    let known = || backends.known.iter().map(String::as_str).chain(["none"]);
    if !known().any(|other| other == name) {
        let all: Vec<String> = known().map(|name| format!("\"{name}\"")).collect();
        let hint = did_you_mean(&name, known());
        found.problem(&node.at("backend"), format!("expected {}, got {}{hint}", all.join(" or "), quote(&name)));
    } else if backends.allowed.is_some_and(|allowed| !allowed.contains(&name)) {
        found.problem(
            &node.at("backend"),
            format!("the host does not allow {} ([policy] allow_backends)", quote(&name)),
        );
    }
    name
}

/// `"running"`, `"healthy"`, or a time after the start.
fn ready(node: &Node<'_>, found: &mut Findings) -> Ready {
    match node.value("ready") {
        Value::Nil => Ready::Running,
        Value::String(text) if text.as_bytes() == b"running" => Ready::Running,
        Value::String(text) if text.as_bytes() == b"healthy" => Ready::Healthy,
        Value::String(text) if !text.as_bytes().first().is_some_and(u8::is_ascii_digit) => {
            let got = quote(&text.to_string_lossy());
            found.problem(&node.at("ready"), format!("expected \"running\", \"healthy\" or a duration, got {got}"));
            Ready::Running
        }
        _ => Ready::After(node.duration("ready", found).unwrap_or_default()),
    }
}

fn max_failures(node: &Node<'_>, found: &mut Findings) -> Option<u32> {
    match node.value("max_failures") {
        Value::Boolean(false) => None,
        _ => node.whole("max_failures", 1..=MOST_TASKS, found),
    }
}

fn backoff(node: &Node<'_>, found: &mut Findings) -> Backoff {
    let default = Backoff::default();
    let Some(table) = node.table("backoff", found) else { return default };
    let inner = Node::new(&table, "backoff", &["min", "max"], found);
    let min = inner.duration("min", found).unwrap_or(default.min);
    let max = inner.duration("max", found).unwrap_or(default.max.max(min));
    if min.is_zero() {
        found.problem("backoff.min", "expected more than 0: a task that fails at once would be restarted without end");
    }
    if max < min {
        found.problem("backoff.max", "expected at least backoff.min, got less");
    }
    Backoff { min, max }
}

/// Stands in for a workload that is missing; the problem has been noted.
fn no_workload() -> Workload {
    Workload {
        backend: "none".to_owned(),
        kind: Kind::default(),
        effect: Effect::default(),
        min: 0,
        max: 0,
        template: TaskTemplate::default(),
        ready: Ready::default(),
        grace: Duration::ZERO,
        on_end: OnEnd::default(),
        on_gone: OnEnd::default(),
        replace: Replace::default(),
    }
}
