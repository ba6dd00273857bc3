//! The tasks of an imported policy: what the source says of them, in the words of a backend.

use super::Backend;
use super::lua::{Field, Lua};
use super::policy::Policy;
use super::quantity::bytes;
use super::report::Report;

/// Longest command for a shell.
const LONGEST_COMMAND: usize = 100_000;

/// The image of a policy whose source names none.
const NO_IMAGE: &str = "fill-in:latest";

/// The command of one whose source names none; it does nothing, for a day.
const NO_COMMAND: &str = "exec sleep 86400";

/// What a task is, as far as the source says.
#[derive(Clone, Debug, Default)]
pub(super) struct Task {
    pub(super) image: Option<String>,
    pub(super) entrypoint: Vec<String>,
    /// A command line for a shell.
    pub(super) shell: Option<String>,
    /// A program with its arguments, or the arguments of the entrypoint.
    pub(super) arguments: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) ports: Vec<(String, u32)>,
    pub(super) labels: Vec<(String, String)>,
    /// When the image is fetched, in the words of `workload.pull`.
    pub(super) pull: Option<&'static str>,
    /// Cores that a task asks for, and that it may use at most.
    pub(super) cpu_request: Option<f64>,
    pub(super) cpu_limit: Option<f64>,
    /// Bytes, likewise.
    pub(super) memory_request: Option<f64>,
    pub(super) memory_limit: Option<f64>,
    /// Further words of the workload.
    pub(super) more: Vec<Field>,
}

impl Task {
    /// Takes out what no backend could run, and says so.
    pub(super) fn cleaned(mut self, report: &mut Report) -> Self {
        self.image = self.image.filter(|image| !image.trim().is_empty());
        self.shell = self.shell.filter(|line| !line.trim().is_empty());
        if self.shell.as_ref().is_some_and(|line| line.len() > LONGEST_COMMAND) {
            report.lost("the command", 0, format!("longer than {LONGEST_COMMAND} bytes"));
            self.shell = None;
        }
        for (what, list) in [("entrypoint", &mut self.entrypoint), ("arguments", &mut self.arguments)] {
            if list.first().is_some_and(String::is_empty) {
                report.lost(what, 0, "a command cannot begin with nothing");
                list.clear();
            }
        }
        let mut env: Vec<(String, String)> = Vec::new();
        for (name, value) in self.env {
            if name.is_empty() || name.contains('=') {
                report.lost(format!("the variable {name:?}"), 0, "not a variable's name");
            } else if let Some((_, there)) = env.iter_mut().find(|(other, _)| *other == name) {
                *there = value;
            } else {
                env.push((name, value));
            }
        }
        self.env = env;
        let named = |name: &str| {
            !name.is_empty()
                && name.len() < 64
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        let mut ports: Vec<(String, u32)> = Vec::new();
        for (name, inside) in self.ports {
            let name = if named(&name) { name } else { format!("port{inside}") };
            let twice = ports.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name));
            if twice || ports.len() == 64 || !(1..=65_535).contains(&inside) {
                report.lost(format!("the port {name}"), 0, "there twice, one too many, or not a port");
            } else {
                ports.push((name, inside));
            }
        }
        self.ports = ports;
        self
    }
}

/// What is outside of setpoint when the backend is `none`: code that reads and sets the number of tasks.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    /// Modules that the code needs.
    pub(super) modules: &'static [&'static str],
    /// Parameters: name, default, comment.
    pub(super) params: Vec<(&'static str, String, &'static str)>,
    /// Defines `running()` and `scale(n)`.
    pub(super) code: String,
    /// How a spec stands in for it.
    pub(super) fake: OutsideFake,
}

/// What a spec's `http` says and takes in the place of whoever runs the tasks. Addresses that hold `/scale` are theirs.
#[derive(Clone, Debug)]
pub(super) struct OutsideFake {
    /// The function that sets the number: `patch` or `post`.
    pub(super) verb: &'static str,
    /// The number in what that function is given, as code: `request.json.Count`.
    pub(super) told: &'static str,
    /// The module that `told` needs.
    pub(super) module: Option<&'static str>,
    /// The answer to `get`, as code with `replicas` in it.
    pub(super) answer: String,
}

/// How many tasks there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) min: u32,
    pub(super) max: u32,
}

/// Writes the table `workload`. `first` are entries that come before what all backends share.
pub(super) fn workload(
    policy: &mut Policy,
    task: &Task,
    backend: Backend,
    bounds: Bounds,
    first: Vec<Field>,
    outside: Option<&Outside>,
) {
    let mut fields = vec![Field::new("backend", Lua::text(backend.name()))];
    fields.extend(first);
    let min = policy.param("min", Lua::whole(bounds.min), "fewest tasks");
    let max = policy.param("max", Lua::whole(bounds.max), "most tasks");
    match (backend, outside) {
        (Backend::None, Some(outside)) => {
            elsewhere(policy, outside);
            fields.push(Field::new("count", Lua::raw("running")));
        }
        _ => own(policy, task, backend, &mut fields),
    }
    fields.push(Field::new("min", Lua::raw(min)));
    fields.push(Field::new("max", Lua::raw(max)));
    policy.field(Field::new("workload", Lua::Lines(fields)));
}

/// Tasks that setpoint starts.
fn own(policy: &mut Policy, task: &Task, backend: Backend, fields: &mut Vec<Field>) {
    let contained =
        matches!(backend, Backend::Docker | Backend::Swarm) || (backend == Backend::Mesos && task.image.is_some());
    if contained {
        let note = if task.image.is_none() {
            policy.report.fill_in("image: the image that the tasks run; the input does not say");
            "FILL IN: the image that the tasks run"
        } else {
            "what the tasks run"
        };
        let image = task.image.clone().unwrap_or_else(|| NO_IMAGE.to_owned());
        let image = policy.param("image", Lua::text(image), note);
        fields.push(Field::new("image", Lua::raw(image)));
        if !task.entrypoint.is_empty() {
            fields.push(Field::new("entrypoint", Lua::texts(task.entrypoint.clone())));
        }
        if let Some(line) = &task.shell {
            fields.push(Field::new("command", Lua::text(line)));
        } else if !task.arguments.is_empty() {
            fields.push(Field::new("command", Lua::texts(task.arguments.clone())));
        }
    } else {
        fields.push(Field::new("command", bare_command(policy, task)));
        if let Some(image) = &task.image {
            policy.report.lost(
                format!("the image {image}"),
                0,
                format!("backend \"{}\" runs commands", backend.name()),
            );
        }
    }
    if !task.env.is_empty() {
        fields.push(Field::new("env", Lua::map(&task.env)));
    }
    if !task.ports.is_empty() {
        let ports = task.ports.iter().map(|(name, inside)| Field::new(name, Lua::whole(*inside)));
        fields.push(Field::new("ports", Lua::Table(ports.collect())));
    }
    let placed = backend == Backend::Mesos;
    let cpus = if placed { task.cpu_request.or(task.cpu_limit).or(Some(0.1)) } else { task.cpu_limit };
    let memory =
        if placed { task.memory_limit.or(task.memory_request).or(Some(67_108_864.0)) } else { task.memory_limit };
    if let Some(cpus) = cpus.filter(|cpus| (1e-6..1e6).contains(cpus)) {
        fields.push(Field::new("cpus", Lua::Number(cpus)));
    }
    if let Some(memory) = memory.filter(|memory| (1.0..9e15).contains(memory)) {
        fields.push(Field::new("memory", Lua::text(bytes(memory))));
    }
    if contained {
        if !task.labels.is_empty() {
            fields.push(Field::new("labels", Lua::map(&task.labels)));
        }
        if let Some(pull) = task.pull.filter(|_| backend != Backend::Swarm) {
            fields.push(Field::new("pull", Lua::text(pull)));
        }
    }
    if let Some(pull) = task.pull.filter(|_| !contained || backend == Backend::Swarm) {
        let why = format!("tasks of the backend \"{}\" do not say when an image is fetched", backend.name());
        policy.report.lost(format!("fetching the image: {pull}"), 0, why);
    }
    if !task.labels.is_empty() && !contained {
        let names: Vec<_> = task.labels.iter().map(|(name, _)| name.as_str()).collect();
        policy.report.lost(format!("the labels {}", names.join(", ")), 0, "only containers have labels");
    }
    fields.extend(task.more.iter().cloned());
}

/// A command without an image.
fn bare_command(policy: &mut Policy, task: &Task) -> Lua {
    let argv: Vec<String> = task.entrypoint.iter().chain(&task.arguments).cloned().collect();
    if let Some(line) = &task.shell {
        return Lua::text(line);
    }
    if argv.is_empty() || (task.entrypoint.is_empty() && task.image.is_some()) {
        policy.report.fill_in("command: what a task runs; the input has an image, or says nothing");
        return Lua::raw(policy.param("command", Lua::text(NO_COMMAND), "FILL IN: what a task runs, for `sh -c`"));
    }
    Lua::texts(argv)
}

/// Tasks that others run: the number is read from them, and set there.
fn elsewhere(policy: &mut Policy, outside: &Outside) {
    for (name, value, note) in &outside.params {
        policy.param(name, Lua::text(value.as_str()), note);
    }
    for module in outside.modules {
        policy.module(module);
    }
    policy.code(outside.code.clone());
}

/// `warmer` and `cooler` of a backend `none`; after the metric, where policies have them.
pub(super) fn actuators(policy: &mut Policy, backend: Backend) {
    if backend == Backend::None {
        let more = "function(n, ctx)\n  return scale(ctx.desired + n) and n or 0\nend";
        let fewer = "function(n, ctx)\n  return scale(ctx.desired - n) and n or 0\nend";
        policy.field(Field::new("cooler", Lua::raw(more)).told("The metric is too high: n more."));
        policy.field(Field::new("warmer", Lua::raw(fewer)).told("The metric is too low: n fewer."));
    }
}
