//! Scaling policies of nomad-autoscaler: files of `scaling` blocks, jobs with such blocks in their groups (HCL), and what
//! the API gives (JSON).

mod check;

use super::error::Problem;
use super::hcl::{self, LABELS};
use super::lua::{Field, Lua, quote};
use super::policy::Policy;
use super::quantity::{duration, seconds};
use super::report::Report;
use super::spec::{LOAD, Spec};
use super::tree::{Node, Section, Value};
use super::trigger::{self, Rules};
use super::workload::{self, Bounds, Outside, OutsideFake, Task};
use super::{Backend, Imported, Options, hpa, metric, policy_name, yaml};

use check::Check;

/// The autoscaler's defaults, in seconds.
const COOLDOWN: f64 = 300.0;
const EVALUATION: f64 = 10.0;

/// A `scaling` block, and what is known of what it scales.
struct Scaling {
    label: Option<String>,
    section: Section,
    job: Option<String>,
    group: Option<String>,
    task: Task,
    report: Report,
}

/// Imports every scaling policy of a text.
pub(super) fn import(text: &str, options: &Options) -> Result<Vec<Imported>, Problem> {
    let root = if text.trim_start().starts_with('{') {
        let mut documents = yaml::documents(text)?;
        if documents.len() != 1 {
            let got = documents.len();
            return Err(Problem::new(1, 1, format!("expected one JSON document, got {got}")));
        }
        lower(documents.remove(0))
    } else {
        hcl::document(text)?
    };
    let place = root.place;
    let found = blocks(Section::new(root, "")?)?;
    if found.is_empty() {
        let text = "expected a `scaling` block, or a job with one in a group, got neither";
        return Err(Problem::at(place, text).hint("`setpoint import keda` and `import hpa` read Kubernetes' manifests"));
    }
    found.into_iter().map(|scaling| one(scaling, options)).collect()
}

/// The API has its keys in upper case.
fn lower(node: Node) -> Node {
    let value = match node.value {
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, node)| (key.to_ascii_lowercase(), lower(node))).collect())
        }
        Value::List(items) => Value::List(items.into_iter().map(lower).collect()),
        other => other,
    };
    Node { place: node.place, value }
}

/// Blocks of one name with their labels, however the format writes them: `name "label" { … }`, `{"label": {…}}`, or a
/// list of either. `known` are keys that a block itself has, so that they are not taken for labels.
pub(super) fn labelled(
    nodes: Vec<Node>,
    path: &str,
    known: &[&str],
) -> Result<Vec<(Option<String>, Section)>, Problem> {
    let mut found = Vec::new();
    for node in nodes {
        match node.value {
            Value::List(items) => found.extend(labelled(items, path, known)?),
            Value::Map(entries) => {
                let own = entries.iter().any(|(key, _)| key == LABELS || known.contains(&key.as_str()));
                if own || entries.is_empty() {
                    let mut section = Section::new(Node { place: node.place, value: Value::Map(entries) }, path)?;
                    let labels = section.texts(LABELS)?;
                    found.push((labels.into_iter().next(), section));
                } else {
                    for (label, inner) in entries {
                        let path = format!("{path} {}", quote(&label));
                        for (_, section) in labelled(vec![inner], &path, known)? {
                            found.push((Some(label.clone()), section));
                        }
                    }
                }
            }
            _ => {
                Section::new(node, path)?;
            }
        }
    }
    Ok(found)
}

const SCALING: &[&str] = &["enabled", "min", "max", "policy", "type"];

fn blocks(mut root: Section) -> Result<Vec<Scaling>, Problem> {
    let mut found = Vec::new();
    // One policy as the API gives it.
    if root.has("policy") {
        let label = root.text("id")?;
        // What the server writes into its answers.
        root.take("modifyindex");
        root.take("createindex");
        let report = Report::default();
        found.push(Scaling { label, section: root, job: None, group: None, task: Task::default(), report });
        return Ok(found);
    }
    let scaling = root.take_all("scaling");
    for (label, section) in labelled(scaling, "scaling", SCALING)? {
        let report = Report::default();
        found.push(Scaling { label, section, job: None, group: None, task: Task::default(), report });
    }
    let mut passed_over = Vec::new();
    let jobs = root.take_all("job");
    for (job, mut section) in labelled(jobs, "job", &["group", "type", "datacenters"])? {
        let groups = section.take_all("group");
        for (group, mut inner) in labelled(groups, "group", &["scaling", "task", "count"])? {
            let scaling = inner.take_all("scaling");
            let mut report = Report::default();
            if scaling.is_empty() {
                let what = format!("group {}", quote(&group.unwrap_or_default()));
                passed_over.push((what, inner.place.line));
                continue;
            }
            let task = task(&mut inner, &mut report)?;
            report.lost_key(&mut inner, "count", "a policy starts with its fewest tasks, or with those that it finds");
            report.rest(inner);
            for (label, section) in labelled(scaling, "scaling", SCALING)? {
                let (job, group) = (job.clone(), group.clone());
                found.push(Scaling { label, section, job, group, task: task.clone(), report: report.clone() });
            }
        }
        if let Some(first) = found.first_mut() {
            first.report.rest(section);
        }
    }
    if let Some(first) = found.first_mut() {
        first.report.rest(root);
        for (what, line) in passed_over {
            first.report.lost(what, line, "it has no scaling block");
        }
    }
    Ok(found)
}

/// The first task of a group.
fn task(group: &mut Section, report: &mut Report) -> Result<Task, Problem> {
    let tasks = group.take_all("task");
    let mut tasks = labelled(tasks, "task", &["driver", "config", "resources"])?.into_iter();
    let mut task = Task::default();
    let Some((_, mut own)) = tasks.next() else { return Ok(task) };
    for (name, other) in tasks {
        let name = name.unwrap_or_default();
        report.lost(format!("task {name:?}"), other.place.line, "a task here is one process or container");
    }
    match own.text("driver")?.as_deref() {
        Some("docker" | "podman") => report.carried(own.at("driver"), "the workload's image"),
        Some(driver) => {
            let what = format!("{} = {}", own.at("driver"), quote(driver));
            report.lost(what, own.place.line, "what runs a task is workload.backend, as `--backend` says");
        }
        None => {}
    }
    if let Some(mut config) = own.section("config")? {
        task.image = config.text("image")?;
        let command = config.text("command")?;
        task.arguments = command.into_iter().chain(config.texts("args")?).collect();
        report.lost_key(&mut config, "ports", "say workload.ports");
        report.rest(config);
    }
    if let Some(env) = own.section("env")? {
        for (name, node) in env.into_rest().1 {
            let value = node.text(&name)?;
            task.env.push((name, value));
        }
    }
    if let Some(mut resources) = own.section("resources")? {
        // MB there, which are MiB.
        task.memory_limit = resources.number("memory")?.filter(|size| *size > 0.0).map(|size| size * 1_048_576.0);
        task.memory_request = task.memory_limit;
        task.cpu_request = resources.number("cores")?.filter(|cores| *cores > 0.0);
        if let Some(node) = resources.take("cpu") {
            report.lost_value(
                &resources.at("cpu"),
                &node,
                "MHz are not cores; say workload.cpus and params.cpu_request",
            );
        }
        report.rest(resources);
    }
    report.rest(own);
    Ok(task)
}

fn one(scaling: Scaling, options: &Options) -> Result<Imported, Problem> {
    let Scaling { label, mut section, job, group, task, mut report } = scaling;
    let backend = options.backend.unwrap_or(Backend::Docker);
    let place = section.place;
    let kind = section.text("type")?.unwrap_or_else(|| "horizontal".to_owned());
    if !matches!(kind.as_str(), "horizontal" | "") {
        let text = format!("expected a policy of type horizontal, got {kind:?}");
        return Err(Problem::at(place, text).hint("setpoint changes the number of tasks, not their size"));
    }
    let min = section.whole("min")?.unwrap_or(1);
    let max = section.whole("max")?.ok_or_else(|| section.missing("max", "a whole number"))?;
    if max == 0 || max < min {
        return Err(Problem::at(
            place,
            format!("{}: expected at least 1 and min ({min}), got {max}", section.at("max")),
        ));
    }
    report.carried("min, max", "params.min, params.max");
    if section.flag("enabled")? == Some(false) {
        report.lost(
            "enabled = false",
            place.line,
            "the policy is on as soon as it is run; `setpoint pause` stops its decisions",
        );
    }
    let mut inner = section.section("policy")?.ok_or_else(|| section.missing("policy", "the policy's checks"))?;
    let settings = settings(&mut inner, &mut report)?;
    let nodes = inner.take_all("check");
    let known = ["source", "query", "strategy", "group", "query_window"];
    let mut checks = Vec::new();
    for (name, check) in labelled(nodes, "check", &known)? {
        checks.extend(check::read(name, check, &mut report)?);
    }
    let (job, group) = target(&mut inner, &mut section, job, group, &mut report)?;
    report.rest(inner);
    report.rest(section);
    let task = task.cleaned(&mut report);
    let base = label.or_else(|| group.clone()).unwrap_or_else(|| "nomad".to_owned());
    let name = options.name.clone().unwrap_or_else(|| policy_name(&base));
    let of = match (&job, &group) {
        (Some(job), Some(group)) => format!("group {group} of the job {job}"),
        _ => "a group of tasks".to_owned(),
    };
    let mut policy = Policy::new(name, format!("{of}, scaled as by nomad-autoscaler."), report);
    policy.about(
        "Imported. The sample is how many tasks the checks want, of several the one that keeps most; decide makes it so. \
         The cooldown of scale-out runs from the last launch, that of scale-in from the last change.",
    );
    let outside = outside(job.as_deref(), group.as_deref());
    Ok(build(policy, backend, Bounds { min, max }, &settings, &checks, &task, &outside))
}

struct Settings {
    interval: f64,
    up: f64,
    down: f64,
    fails: bool,
}

fn settings(section: &mut Section, report: &mut Report) -> Result<Settings, Problem> {
    let mut time = |key: &str, to: &str| -> Result<Option<f64>, Problem> {
        let path = section.at(key);
        let Some(node) = section.take(key) else { return Ok(None) };
        report.carried(path.clone(), to);
        duration(&node, &path).map(Some)
    };
    let down = time("cooldown", "control.cooldown")?.unwrap_or(COOLDOWN);
    let up = time("cooldown_on_scale_up", "control.cooldown.up")?.unwrap_or(down);
    let interval = time("evaluation_interval", "interval")?.unwrap_or(EVALUATION).clamp(0.05, 604_800.0);
    let fails = match section.text("on_check_error")?.as_deref() {
        None | Some("" | "ignore") => false,
        Some("fail") => true,
        Some(other) => {
            let text = format!("{}: expected fail or ignore, got {other:?}", section.at("on_check_error"));
            return Err(Problem::at(section.place, text));
        }
    };
    Ok(Settings { interval, up, down, fails })
}

/// What the policy is of, by its target.
fn target(
    inner: &mut Section,
    section: &mut Section,
    job: Option<String>,
    group: Option<String>,
    report: &mut Report,
) -> Result<(Option<String>, Option<String>), Problem> {
    let (mut job, mut group) = (job, group);
    let nodes: Vec<_> = inner.take_all("target").into_iter().chain(section.take_all("target")).collect();
    for (name, mut target) in labelled(nodes, "target", &["job", "group", "Job", "Group", "namespace"])? {
        let name = name.unwrap_or_else(|| "nomad".to_owned());
        if matches!(name.as_str(), "nomad" | "nomad-target") {
            for (slot, keys) in [(&mut job, ["Job", "job"]), (&mut group, ["Group", "group"])] {
                for key in keys {
                    if let Some(value) = target.text(key)? {
                        *slot = Some(value);
                    }
                }
            }
            report.carried("target", "the workload; see what is to be filled in");
        } else {
            report.lost(format!("target {name:?}"), target.place.line, "setpoint runs tasks, not machines of a cloud");
        }
        report.rest(target);
    }
    Ok((job, group))
}

/// The group itself, through Nomad's API.
fn outside(job: Option<&str>, group: Option<&str>) -> Outside {
    let (job, group) = (job.unwrap_or("fill-in"), group.unwrap_or("fill-in"));
    let code = "\
-- The group itself, through Nomad's API.
local SCALE = p.nomad .. \"/v1/job/\" .. p.job .. \"/scale\"

local function running()
  return http.get(SCALE):json().TaskGroups[p.group].Running
end

local function scale(n)
  local response = http.post(SCALE, {
    json = { Count = n, Message = \"by setpoint\", Target = { Group = p.group } },
  })
  return response.ok
end
";
    Outside {
        modules: &["http"],
        params: vec![
            ("nomad", "http://127.0.0.1:4646".to_owned(), "Nomad's API"),
            ("job", job.to_owned(), "the job"),
            ("group", group.to_owned(), "its group of tasks"),
        ],
        code: code.to_owned(),
        fake: OutsideFake {
            verb: "post",
            told: "request.json.Count",
            module: None,
            answer: format!("{{ TaskGroups = {{ [{}] = {{ Running = replicas }} }} }}", quote(group)),
        },
    }
}

fn build(
    mut policy: Policy,
    backend: Backend,
    bounds: Bounds,
    settings: &Settings,
    checks: &[Check],
    task: &Task,
    outside: &Outside,
) -> Imported {
    let mut spec = Spec::default();
    policy.field(Field::new("interval", Lua::text(seconds(settings.interval))));
    workload::workload(&mut policy, task, backend, bounds, Vec::new(), Some(outside));
    hpa::fakes(&mut spec, backend, outside);
    let usable: Vec<_> = checks.iter().filter(|check| backend != Backend::None || !check.is_of_tasks()).collect();
    for check in checks.iter().filter(|check| backend == Backend::None && check.is_of_tasks()) {
        policy.report.lost(check.about.clone(), 0, "the figures of tasks that others run are not known; query them");
    }
    if usable.is_empty() {
        hpa::fixed(&mut policy, &mut spec, bounds);
    } else {
        let cooldown = vec![
            Field::new("up", Lua::text(seconds(settings.up))),
            Field::new("down", Lua::text(seconds(settings.down))),
        ];
        let control = vec![Field::new("law", Lua::text("decide")), Field::new("cooldown", Lua::Table(cooldown))];
        policy.field(Field::new("control", Lua::Lines(control)));
        let triggers: Vec<_> = usable.iter().map(|check| check.trigger(&mut policy, &mut spec, task)).collect();
        trigger::write(&mut policy, &triggers, Rules { what: "check", active: false, fails: settings.fails });
        policy.field(Field::new(
            "decide",
            Lua::raw(
                "function(ctx)\n  if ctx.sample == nil then\n    return { adjust = 0 }\n  end\n  \
                 return { desired = math.max(0, math.ceil(ctx.sample - 1e-9)) }\nend",
            ),
        ));
        cases(&mut spec, bounds, &usable);
    }
    workload::actuators(&mut policy, backend);
    policy.finish(spec)
}

fn cases(spec: &mut Spec, bounds: Bounds, checks: &[&Check]) {
    let (Bounds { min, max }, options) = metric::affordable(bounds);
    let start = 4_u32.clamp(min.max(1), max);
    metric::bounded(spec, (u64::from(max) * 2).to_string(), Bounds { min, max }, start, &options);
    let [only] = checks else { return };
    let mut rows = String::new();
    for (value, count) in only.vectors(start) {
        rows.push_str(&format!("  {{ {}, {} }},\n", super::lua::number(value), count.clamp(min.into(), max.into())));
    }
    if !rows.is_empty() {
        spec.case(
            "decides as its check does",
            &format!(
                "-- The check's value, the tasks after one decision from {start} on.\nfor _, case in ipairs({{\n{rows}}}) do\n  \
                 value = case[1]\n  local policy = {LOAD}{{ start = {start}{options} }})\n  policy:tick()\n  \
                 expect(policy:running()).to_equal(case[2])\nend"
            ),
        );
    }
}
