//! Relay and Relay.Mesos: their options, from a command line, an environment file or the Marathon app that ran them, as a
//! policy with the law `relay`.

mod given;

use super::error::Problem;
use super::lua::{Field, Lua, quote};
use super::policy::Policy;
use super::quantity::{bytes, seconds};
use super::report::Report;
use super::spec::{LOAD, Spec};
use super::{Backend, Imported, Options, policy_name, yaml};

use given::Given;

/// Most tasks of a policy whose source knew no most.
const MOST: u32 = 100;

/// Imports the one set of options of a text.
pub(super) fn import(text: &str, options: &Options) -> Result<Vec<Imported>, Problem> {
    let mut report = Report::default();
    let given = Given::read(text, &mut report)?;
    let backend = options.backend.unwrap_or(if given.is_mesos { Backend::Mesos } else { Backend::Local });
    if backend == Backend::None || backend == Backend::Swarm {
        let text = format!("expected local, docker or mesos: Relay launches tasks of its own, got {}", backend.name());
        return Err(Problem::new(1, 1, text));
    }
    Ok(vec![Importer { given, backend, spec: Spec::default(), first: 1.0 }.build(report, options)?])
}

/// Functions of Python that came with Relay, by their last names.
const KNOWN: &[&str] = &[
    "bash_echo_metric",
    "bash_echo_warmer",
    "bash_echo_cooler",
    "num_active_mesos_tasks",
    "oscillating_setpoint",
    "squarewave_setpoint",
    "sinwave_setpoint",
    "target_value",
    "stop_if_mostly_diverging",
];

/// Which of them an option names; none is somebody else's.
fn known(path: &str) -> Option<&'static str> {
    let (module, name) = path.rsplit_once('.').unwrap_or(("", path));
    let ours = matches!(module, "" | "relay.plugins" | "relay_mesos.for_demo");
    KNOWN.iter().copied().find(|known| ours && *known == name)
}

/// Python that calls what Relay's options name, as Relay found it: below `relay.plugins` first.
const CALL: &str = "\
-- Calls a function of Python that an option of Relay named. `[policy] exec = true` of setpoint.toml allows it.
-- A generator begins anew each time: one that remembers something must be rewritten in Lua.
local CALL = [=[
import importlib, os, sys
sys.path.insert(0, os.getcwd())
path, arguments = sys.argv[1], [int(text) for text in sys.argv[2:]]
for name in (\"relay.plugins.\" + path, path):
    try:
        module, _, attribute = name.rpartition(\".\")
        found = getattr(importlib.import_module(module), attribute)
        break
    except (AttributeError, ImportError, ValueError):
        continue
else:
    sys.exit(\"cannot import \" + path)
result = found(*arguments)
if not arguments:
    print(next(iter(result)))
]=]

local function checked(path, result)
  if not result.ok then
    error(path .. \": \" .. result.stderr, 0)
  end
  return result
end
";

/// How a function is read.
const READ: &str = "\
local function read(path)
  local result = checked(path, exec.read({ p.python, \"-c\", CALL, path }))
  return tonumber(result.stdout) or error(path .. \": expected a number, got \" .. result.stdout, 0)
end
";

/// How one is told to act.
const ACT: &str = "\
local function act(path, n)
  checked(path, exec.run({ p.python, \"-c\", CALL, path, tostring(n) }))
  return math.abs(n)
end
";

/// Exit code 0 once more than half of the steps of the deviation are away from 0.
const DIVERGING: &str = "\
function(ctx)
  local steps, rising, before = 0, 0, nil
  for _, point in ipairs(ctx.history) do
    local deviation = math.abs(point.setpoint - point.value)
    if before then
      steps, rising = steps + 1, rising + (deviation > before and 1 or 0)
    end
    before = deviation
  end
  return rising > steps / 2 and 0 or nil
end";

struct Importer {
    given: Given,
    backend: Backend,
    spec: Spec,
    /// Seconds that the first samples take, over which a ramp goes.
    first: f64,
}

impl Importer {
    fn build(mut self, mut report: Report, options: &Options) -> Result<Imported, Problem> {
        let framework = self.given.text("framework_name");
        if let Some((name, _)) = &framework {
            report.carried("mesos_framework_name", "the policy's name");
            if self.backend == Backend::Mesos {
                report.fill_in(format!(
                    "setpoint.toml: [mesos] name, which was {}",
                    quote(&format!("Relay.Mesos: {name}"))
                ));
            }
        }
        let base = framework.map(|(name, _)| name).or_else(|| self.given.app.clone());
        let name = options.name.clone().unwrap_or_else(|| policy_name(&base.unwrap_or_else(|| "relay".to_owned())));
        let mut policy = Policy::new(name, "what Relay did, by its law and at its pace.", report);
        policy.about(
            "Imported from Relay's options. The metric is to come up to the target: warmer is called while it is below, \
             cooler while it is above, each with as many tasks as Relay's formula says. What is launched ends by itself \
             and is not replaced.",
        );
        self.pace(&mut policy)?;
        let only_cooler = self.given.has("cooler") && !self.given.has("warmer");
        if !self.given.has("warmer") && !only_cooler {
            return Err(self.given.problem("expected a warmer, a cooler or both, got neither"));
        }
        policy.report.fill_in(format!("params.max: Relay knew no most; {MOST} is a guess"));
        let max = policy.param("max", Lua::whole(MOST), "most tasks at once, of warmer and cooler together");
        let task = self.task(&mut policy)?;
        let workload = vec![
            Field::new("backend", Lua::text(self.backend.name())),
            Field::new("kind", Lua::text("jobs"))
                .noted("a task that ends is gone, and the law decides what comes next"),
            Field::new("effect", Lua::text(if only_cooler { "cools" } else { "heats" })),
            Field::new("max", Lua::raw(max)),
        ];
        policy.field(Field::new("workload", Lua::Lines(workload)));
        self.control(&mut policy)?;
        self.metric(&mut policy)?;
        self.target(&mut policy)?;
        for (key, sign) in [("warmer", 1), ("cooler", -1)] {
            self.actuator(&mut policy, key, sign, &task)?;
        }
        self.stop(&mut policy);
        self.settings(&mut policy)?;
        self.cases(only_cooler);
        for (what, line) in self.given.rest() {
            policy.report.lost(what, line, "not an option of Relay");
        }
        Ok(policy.finish(self.spec))
    }

    fn pace(&mut self, policy: &mut Policy) -> Result<(), Problem> {
        let delay = self.given.number("delay", 0.0, 604_800.0)?.unwrap_or(1.0);
        if self.given.had("delay") {
            policy.report.carried("delay", "interval; a tick is due at that pace, however long the metric takes");
        }
        self.first = delay.max(0.05);
        policy.field(Field::new("interval", Lua::text(seconds(self.first))));
        Ok(())
    }

    fn control(&mut self, policy: &mut Policy) -> Result<(), Problem> {
        let mut control = vec![Field::new("law", Lua::text("relay"))];
        let lookback = self.given.number("lookback", 1.0, 10_000.0)?.unwrap_or(1000.0);
        control.push(Field::new("lookback", Lua::Number(lookback.floor())));
        let ramp = self.given.number("ramp", 0.0, 10_000.0)?.unwrap_or(1.0);
        self.first *= ramp.max(1.0) + 1.0;
        control.push(Field::new("ramp", Lua::Number(ramp.floor().max(1.0))));
        for (key, to) in [("lookback", "control.lookback"), ("ramp", "control.ramp, as Relay's documentation meant it")]
        {
            if self.given.had(key) {
                policy.report.carried(key, to);
            }
        }
        policy.field(Field::new("control", Lua::Lines(control)));
        Ok(())
    }

    fn metric(&mut self, policy: &mut Policy) -> Result<(), Problem> {
        let path = self.given.needed("metric", "the path of a metric")?;
        if let Some(name @ ("bash_echo_metric" | "num_active_mesos_tasks")) = known(&path) {
            policy.report.carried("metric", "ctx.running");
            policy.field(
                Field::new("metric", Lua::raw("function(ctx)\n  return ctx.running\nend"))
                    .told(format!("{name}: how many of its own tasks run.")),
            );
            return Ok(());
        }
        self.bridge(policy, &path, "metric", READ);
        let code = format!("function()\n  return read({})\nend", quote(&path));
        policy.field(Field::new("metric", Lua::raw(code)).told("The metric is still Relay's."));
        let told = "In `setpoint simulate` the load stands for the metric.";
        super::metric::simulate(policy, "function(ctx)\n  return ctx.trace\nend", told);
        Ok(())
    }

    fn bridge(&mut self, policy: &mut Policy, path: &str, key: &str, code: &str) {
        policy.module("exec");
        policy.shared_param("python", Lua::text("python3"), "what runs the functions that Relay's options name");
        policy.shared_code(CALL);
        policy.shared_code(code);
        policy.report.carried(key, format!("{path}, called in Python"));
        policy.report.fill_in(format!(
            "{key}: {path} is called in Python, with `[policy] exec = true` in setpoint.toml, or rewritten in Lua"
        ));
        self.spec.local("local value = 0 -- what Python says");
        self.spec.fake(
            "exec",
            "{\n  read = function()\n    return { ok = true, stdout = tostring(value), stderr = \"\" }\n  end,\n  \
             run = function()\n    return { ok = true, stdout = \"\", stderr = \"\" }\n  end,\n}",
        );
    }

    fn target(&mut self, policy: &mut Policy) -> Result<(), Problem> {
        const WAVES: &str = "local waves = require(\"setpoint.math\")\n";
        let text = self.given.needed("target", "a whole number or the path of a target")?;
        let constant = text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && number.abs() < 1e15);
        let shape = match known(&text) {
            Some("oscillating_setpoint") => Some("oscillating"),
            Some("squarewave_setpoint") => Some("square"),
            Some("sinwave_setpoint") => Some("sine"),
            _ => None,
        };
        if let Some(number) = constant {
            let target = policy.param("target", Lua::Number(number), "what the metric should be");
            policy.report.carried("target", "params.target");
            policy.field(Field::new("target", Lua::raw(target)));
        } else if let Some(shape) = shape {
            policy.code(WAVES);
            policy.report.carried("target", format!("the wave `{shape}`, a sample each tick"));
            let code = format!("function(ctx)\n  return waves.{shape}(ctx.tick)\nend");
            policy.field(Field::new("target", Lua::raw(code)));
        } else if matches!(known(&text), Some("target_value")) {
            policy.report.carried("target", "40, as the demo's");
            policy.field(Field::new("target", Lua::Number(40.0)));
        } else {
            self.bridge(policy, &text, "target", READ);
            let stand_in = policy.param("simulated_target", Lua::Number(20.0), "in `setpoint simulate`");
            let code = format!(
                "function(ctx)\n  if ctx.trace then\n    return {stand_in}\n  end\n  return read({})\nend",
                quote(&text)
            );
            policy.field(Field::new("target", Lua::raw(code)).told("The target is still Relay's."));
        }
        Ok(())
    }

    /// `warmer` or `cooler`: with Mesos a command, otherwise a function.
    fn actuator(&mut self, policy: &mut Policy, key: &str, sign: i32, task: &[Field]) -> Result<(), Problem> {
        let Some((text, place)) = self.given.text(key) else { return Ok(()) };
        if text.trim().is_empty() {
            return Err(Problem::at(place, format!("{key}: expected a command or a function's path, got nothing")));
        }
        let path = !self.given.is_mesos && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_'));
        let command = match known(&text) {
            Some("bash_echo_cooler") if path => {
                policy.report.carried(key, "n tasks are ended");
                let code = "function(n, ctx)\n  return ctx.workload:kill(n)\nend";
                policy.field(Field::new(key, Lua::raw(code)));
                return Ok(());
            }
            // As Relay's: from 5 to 10 seconds.
            Some("bash_echo_warmer") if path => "exec sleep \"$((5 + $$ % 5)).$(($$ / 5 % 10))\"".to_owned(),
            _ if path => {
                self.bridge(policy, &text, key, ACT);
                let n = if sign < 0 { "-n" } else { "n" };
                let code = format!("function(n)\n  return act({}, {n})\nend", quote(&text));
                let sign = if sign < 0 { " Relay gave it a number below 0." } else { "" };
                policy.field(Field::new(key, Lua::raw(code)).told(format!("The {key} is still Relay's.{sign}")));
                return Ok(());
            }
            _ => text,
        };
        policy.report.carried(key, "a task, of which as many are launched");
        let mut fields = vec![Field::new("command", Lua::text(command))];
        fields.extend(task.iter().cloned());
        policy.field(Field::new(key, Lua::Lines(fields)));
        Ok(())
    }

    fn stop(&mut self, policy: &mut Policy) {
        let Some((text, place)) = self.given.text("stop_condition") else { return };
        if matches!(known(&text), Some("stop_if_mostly_diverging")) {
            policy.report.carried("stop_condition", "stop");
            policy.field(Field::new("stop", Lua::raw(DIVERGING)).told("An exit code ends the policy."));
        } else {
            let why =
                "it would have to be called with the whole history; write it as stop(ctx), which sees ctx.history";
            policy.report.lost(format!("stop_condition = {text}"), place.line, why);
        }
    }

    /// What every task of the policy has beside its command.
    fn task(&mut self, policy: &mut Policy) -> Result<Vec<Field>, Problem> {
        let mut fields = Vec::new();
        let contained = self.backend != Backend::Local;
        if let Some((image, place)) = self.given.text("docker_image").filter(|(image, _)| !image.is_empty()) {
            if contained {
                policy.report.carried("docker_image", "params.image");
                fields
                    .push(Field::new("image", Lua::raw(policy.param("image", Lua::text(image), "what tasks run in"))));
            } else {
                policy.report.lost(
                    format!("docker_image = {image}"),
                    place.line,
                    "the backend \"local\" runs commands",
                );
            }
        } else if self.backend == Backend::Docker {
            policy.report.fill_in("params.image: the image that tasks run in; Relay ran them without one");
            let image = policy.param("image", Lua::text("fill-in:latest"), "FILL IN: what tasks run in");
            fields.push(Field::new("image", Lua::raw(image)));
        }
        self.resources(policy, &mut fields)?;
        self.container(policy, &mut fields, contained)?;
        if let Some((path, place)) = self.given.text("environment") {
            let why =
                "a file of the machine that Relay ran on; put its lines into the tables `env` of warmer and cooler";
            policy.report.lost(format!("mesos_environment = {path}"), place.line, why);
        }
        self.mesos(policy, &mut fields)?;
        Ok(fields)
    }

    fn resources(&mut self, policy: &mut Policy, fields: &mut Vec<Field>) -> Result<(), Problem> {
        let given = self.given.text("task_resources");
        let mut told = Vec::new();
        if let Some((text, place)) = &given {
            for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
                let wrong = || {
                    Problem::at(*place, format!("mesos_task_resources: expected such as cpus=0.1,mem=64, got {part:?}"))
                };
                let (key, value) = part.split_once('=').ok_or_else(wrong)?;
                let number: f64 = value.parse().map_err(|_| wrong())?;
                let allowed = number > 0.0 && number < 1e6;
                match (key, allowed) {
                    ("cpus", true) => fields.push(Field::new("cpus", Lua::Number(number))),
                    ("mem", true) => fields.push(Field::new("memory", Lua::text(bytes(number * 1_048_576.0)))),
                    ("disk", true) if self.backend == Backend::Mesos => {
                        fields.push(Field::new("disk", Lua::text(bytes(number * 1_048_576.0))));
                    }
                    (_, true) => {
                        policy.report.lost(
                            format!("mesos_task_resources: {part}"),
                            place.line,
                            "not a resource of such a task",
                        );
                    }
                    (_, false) => return Err(wrong()),
                }
                told.push(key);
            }
            policy.report.carried("mesos_task_resources", "cpus and memory");
        }
        if self.backend == Backend::Mesos && !(told.contains(&"cpus") && told.contains(&"mem")) {
            policy.report.fill_in("cpus and memory of warmer and cooler: what a task asks an offer for");
            if !told.contains(&"cpus") {
                fields.push(Field::new("cpus", Lua::Number(0.1)));
            }
            if !told.contains(&"mem") {
                fields.push(Field::new("memory", Lua::text("32MiB")));
            }
        }
        Ok(())
    }

    fn container(&mut self, policy: &mut Policy, fields: &mut Vec<Field>, contained: bool) -> Result<(), Problem> {
        let lost = |policy: &mut Policy, what: String, line: usize| {
            policy.report.lost(what, line, "processes of this machine have no such thing");
        };
        if let Some((network, place)) = self.given.text("docker_network") {
            let name = network.to_lowercase();
            if !matches!(name.as_str(), "bridge" | "host" | "none") {
                return Err(Problem::at(
                    place,
                    format!("docker_network: expected BRIDGE, HOST or NONE, got {network:?}"),
                ));
            }
            if contained {
                policy.report.carried("docker_network", "network");
                fields.push(Field::new("network", Lua::text(name)));
            } else {
                lost(policy, format!("docker_network = {network}"), place.line);
            }
        }
        if let Some((text, place)) = self.given.text("docker_parameters") {
            let pairs = parameters(&text, place)?;
            if self.backend == Backend::Mesos {
                policy.report.carried("docker_parameters", "parameters");
                if !pairs.is_empty() {
                    fields.push(Field::new("parameters", Lua::texts(pairs)));
                }
            } else {
                let why =
                    "only Mesos's Docker containerizer takes options of `docker run`; see the words of containers";
                policy.report.lost(format!("docker_parameters = {text}"), place.line, why);
            }
        }
        if let Some(pull) = self.given.flag("force_pull_image")? {
            if contained && pull {
                fields.push(Field::new("pull", Lua::text("always")));
            }
            policy.report.carried("force_pull_image", "pull");
        }
        if let Some((text, place)) = self.given.text("volumes") {
            let volumes = volumes(&text, place)?;
            if contained {
                policy.report.carried("volumes", "volumes");
                fields.push(Field::new("volumes", Lua::texts(volumes)));
            } else {
                lost(policy, format!("volumes = {text}"), place.line);
            }
        }
        Ok(())
    }

    /// What only a Mesos cluster needs to know of a task.
    fn mesos(&mut self, policy: &mut Policy, fields: &mut Vec<Field>) -> Result<(), Problem> {
        let mut mesos = Vec::new();
        let mut lost = Vec::new();
        if let Some((role, place)) = self.given.text("framework_role") {
            lost.push((format!("mesos_framework_role = {role}"), place.line));
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
            if role.is_empty() || role.starts_with(['-', '.']) || !role.chars().all(plain) {
                return Err(Problem::at(place, format!("mesos_framework_role: expected a role's name, got {role:?}")));
            }
            mesos.push(Field::new("role", Lua::text(role)));
        }
        if let Some((text, place)) = self.given.text("uris") {
            let uris: Vec<_> = text.split(',').map(str::trim).filter(|uri| !uri.is_empty()).collect();
            mesos.push(Field::new("uris", Lua::texts(uris)));
            lost.push((format!("uris = {text}"), place.line));
        }
        if let Some((text, place)) = self.given.text("attribute_matches_all") {
            let mut rules = Vec::new();
            for part in text.split(',').filter(|part| !part.trim().is_empty()) {
                let Some((name, value)) = part.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
                    let told = format!("mesos_attribute_matches_all: expected attribute=value, got {part:?}");
                    return Err(Problem::at(place, told));
                };
                rules.push(Lua::texts([name.trim(), "equal", value.trim()]));
            }
            mesos.push(Field::new("constraints", Lua::List(rules)));
            lost.push((format!("mesos_attribute_matches_all = {text}"), place.line));
        }
        if self.backend == Backend::Mesos {
            for (what, _) in &lost {
                policy.report.carried(what.split(" = ").next().unwrap_or_default(), "mesos");
            }
            if !mesos.is_empty() {
                fields.push(Field::new("mesos", Lua::Table(mesos)));
            }
        } else {
            for (what, line) in lost {
                policy.report.lost(what, line, "the tasks do not run on Mesos");
            }
        }
        Ok(())
    }

    /// Options that are the host's business, or nobody's any more.
    fn settings(&mut self, policy: &mut Policy) -> Result<(), Problem> {
        let on_mesos = self.backend == Backend::Mesos;
        for (key, name) in [("master", "master"), ("framework_principal", "principal")] {
            let Some((value, place)) = self.given.text(key) else { continue };
            if on_mesos {
                policy.report.carried(format!("mesos_{key}"), format!("[mesos] {name} in setpoint.toml"));
                policy.report.fill_in(format!("setpoint.toml: [mesos] {name} = {}", quote(&value)));
            } else {
                policy.report.lost(format!("mesos_{key} = {value}"), place.line, "the tasks do not run on Mesos");
            }
        }
        let state = "`setpoint run --state-dir DIR`, with which tasks outlive the host";
        for key in ["checkpoint", "failover_timeout"] {
            if self.given.text(key).is_some() {
                policy.report.carried(format!("mesos_{key}"), state);
            }
        }
        for (key, instead) in [
            ("sendstats", "the page and /metrics of `setpoint run`"),
            ("init_timeout", "nothing: there is no second process to wait for"),
            ("master_state_for_demo", "nothing: the number of the policy's own tasks is known"),
        ] {
            if self.given.text(key).is_some() {
                policy.report.carried(key, instead);
            }
        }
        if let Some(most) = self.given.number("max_failures", -1.0, 1e6)? {
            policy.report.carried("max_failures", "max_failures");
            if most >= 1.0 {
                policy.field(Field::new("max_failures", Lua::Number(most.floor())));
            }
        }
        Ok(())
    }

    fn cases(&mut self, only_cooler: bool) {
        let (cold, hot) = ("metric = 15, target = 20", "metric = 25, target = 20");
        let both = self.given.had("warmer") && self.given.had("cooler");
        let (acts, other, names) =
            if only_cooler { (hot, cold, ("cooler", "warmer")) } else { (cold, hot, ("warmer", "cooler")) };
        if !self.given.calls_python {
            self.spec.case(
                &format!("has the {} make up for the whole deviation", names.0),
                &format!(
                    "local policy = {LOAD}{{}})\npolicy:advance(\"{}\", {{ {acts} }})\n\
                     expect(policy:running()).to_be_at_least(5)",
                    seconds(self.first)
                ),
            );
        }
        if !both {
            self.spec.case(
                &format!("does nothing on the other side, where there is no {}", names.1),
                &format!("local policy = {LOAD}{{}})\nexpect(policy:tick({{ {other} }})).to_hold()"),
            );
        }
        self.spec.case(
            "changes nothing while the metric is missing, and never has more tasks than it may",
            &format!(
                "local policy = {LOAD}{{ start = 3 }})\nexpect(policy:tick({{ missing = true, target = 20 }})).to_hold()\n\
                 for_all({{ load = gen.trace({{ max = 60 }}), runs = 10 }}, function(input)\n  \
                 local fresh = {LOAD}{{}})\n  for _, sample in ipairs(input.load) do\n    \
                 if fresh:ended() then\n      break\n    end\n    fresh:tick({{ metric = sample, target = 30 }})\n    \
                 expect(fresh:running()).to_be_at_most(fresh.table.workload.max)\n  end\nend)"
            ),
        );
    }
}

/// `{"key": "value"}` as `key=value`.
fn parameters(text: &str, place: super::tree::Place) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::at(place, format!("docker_parameters: expected a JSON object, got {text:?}"));
    let mut documents = yaml::documents(text).map_err(|_| wrong())?;
    let Some(super::tree::Value::Map(entries)) = documents.pop().map(|node| node.value) else { return Err(wrong()) };
    entries
        .iter()
        .map(|(key, node)| {
            let value = node.scalar().filter(|_| !key.is_empty()).ok_or_else(wrong)?;
            Ok(format!("{key}={value}"))
        })
        .collect()
}

/// `host:container:mode,…` as containers have them here.
fn volumes(text: &str, place: super::tree::Place) -> Result<Vec<String>, Problem> {
    let mut volumes = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let parts: Vec<_> = part.split(':').collect();
        let [source, target, mode] = parts[..] else {
            return Err(Problem::at(place, format!("volumes: expected host:container:mode, got {part:?}")));
        };
        let mode = mode.to_lowercase();
        if source.is_empty() || !target.starts_with('/') || !matches!(mode.as_str(), "ro" | "rw") {
            let told = "volumes: expected host:/container:RO or RW";
            return Err(Problem::at(place, format!("{told}, got {part:?}")));
        }
        let read_only = if mode == "ro" { ":ro" } else { "" };
        volumes.push(format!("{source}:{target}{read_only}"));
    }
    Ok(volumes)
}
