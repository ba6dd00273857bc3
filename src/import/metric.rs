//! Metrics of a HorizontalPodAutoscaler as Lua: each gives how the tasks stand to a target, for the law `ratio`.

use super::Backend;
use super::behavior::Behavior;
use super::error::Problem;
use super::kubernetes::promql;
use super::lua::{Field, Lua, number};
use super::policy::Policy;
use super::quantity::{bytes, positive};
use super::report::Report;
use super::spec::{LOAD, Spec};
use super::tree::{Node, Section};
use super::trigger::head;
use super::workload::{Bounds, Task};

/// What the tasks themselves show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Cpu,
    Memory,
}

/// Where a figure comes from.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// The mean over the tasks, in percent of what each asks for.
    Utilization(Figure),
    /// The mean over the tasks: percent of a core, or bytes.
    Mean(Figure),
    /// An expression for Prometheus, whose value is an average over the tasks or belongs to none of them.
    Query(String),
    /// The same where the value is a total, of which each task has its part.
    Total(String),
}

/// One metric and its target, in the metric's unit.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    pub(super) reading: Reading,
    pub(super) target: f64,
    /// What it is, for comments.
    pub(super) about: String,
}

impl Figure {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "cpu" => Some(Self::Cpu),
            "memory" => Some(Self::Memory),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// Gives the mean of a figure of the tasks.
pub(super) const MEAN: &str = "\
-- The mean of a figure over the tasks that show it, and how many those are; nil: none does.
local function mean(ctx, figure)
  local sum, reported = 0, 0
  for _, task in ipairs(ctx.tasks) do
    if task.state == \"running\" and task[figure] then
      sum, reported = sum + task[figure], reported + 1
    end
  end
  if reported == 0 then
    return nil, { reported = 0 }
  end
  return sum / reported, { reported = reported }
end
";

/// Reads `spec.metrics`, in order. What has no counterpart is told and left out.
pub(super) fn read(
    section: &mut Section,
    backend: Backend,
    report: &mut Report,
) -> Result<(Vec<Metric>, Option<String>), Problem> {
    let path = section.at("metrics");
    let mut metrics = Vec::new();
    let mut container = None;
    for (at, node) in section.list("metrics")?.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        if let Some(metric) = one(node, &path, backend, &mut container, report)? {
            report.carried(path, metric.about.clone());
            metrics.push(metric);
        }
    }
    Ok((metrics, container))
}

fn one(
    node: Node,
    path: &str,
    backend: Backend,
    container: &mut Option<String>,
    report: &mut Report,
) -> Result<Option<Metric>, Problem> {
    let whole = node.clone();
    let mut section = Section::new(node, path)?;
    let kind = section.needed("type", "Resource, ContainerResource, Pods, Object or External")?;
    let key = match kind.as_str() {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => {
            let text =
                format!("{path}.type: expected Resource, ContainerResource, Pods, Object or External, got {kind:?}");
            return Err(Problem::at(section.place, text));
        }
    };
    let mut source = section.section(key)?.ok_or_else(|| section.missing(key, "what the metric is"))?;
    report.rest(section);
    let metric = if matches!(key, "resource" | "containerResource") {
        resource(&mut source, container, report)?
    } else {
        Some(custom(&mut source, key, report)?)
    };
    let Some(metric) = metric else {
        report.lost_value(path, &whole, "only cpu and memory are figures of tasks");
        return Ok(None);
    };
    report.rest(source);
    if backend == Backend::None && !matches!(metric.reading, Reading::Query(_) | Reading::Total(_)) {
        report.lost_value(path, &whole, "the figures of tasks that others run are not known; query them");
        return Ok(None);
    }
    Ok(Some(metric))
}

fn resource(
    source: &mut Section,
    container: &mut Option<String>,
    report: &mut Report,
) -> Result<Option<Metric>, Problem> {
    let name = source.needed("name", "cpu or memory")?;
    let of = source.text("container")?;
    let mut target = source.section("target")?.ok_or_else(|| source.missing("target", "a target"))?;
    let (utilization, average) = (target.whole("averageUtilization")?, positive(&mut target, "averageValue")?);
    // It says which of the values is there, and that is seen.
    target.take("type");
    let Some(figure) = Figure::named(&name) else { return Ok(None) };
    let missing = target.missing("averageUtilization", "a percentage above 0, or an averageValue");
    report.rest(target);
    let of = of.map_or_else(String::new, |of| {
        let about = format!(" of the container {of}");
        *container = Some(of);
        about
    });
    Ok(Some(match (utilization.filter(|percent| *percent > 0), average) {
        (Some(percent), _) => Metric {
            reading: Reading::Utilization(figure),
            target: f64::from(percent),
            about: format!("{name}{of}: {percent} % of what a task requests"),
        },
        (None, Some(value)) => mean(figure, value, &of),
        (None, None) => {
            return Err(missing);
        }
    }))
}

/// A mean in the unit that the tasks' figures have: percent of a core, bytes.
pub(super) fn mean(figure: Figure, value: f64, of: &str) -> Metric {
    match figure {
        Figure::Cpu => Metric {
            reading: Reading::Mean(figure),
            target: value * 100.0,
            about: format!("cpu{of}: {} % of a core for each task", number(value * 100.0)),
        },
        Figure::Memory => Metric {
            reading: Reading::Mean(figure),
            target: value,
            about: format!("memory{of}: {} for each task", bytes(value)),
        },
    }
}

/// Metrics of pods, objects and the world outside: all of them are asked of Prometheus.
fn custom(source: &mut Section, key: &str, report: &mut Report) -> Result<Metric, Problem> {
    let mut metric = source.section("metric")?.ok_or_else(|| source.missing("metric", "a metric"))?;
    let name = metric.needed("name", "the metric's name")?;
    let selector = metric.section("selector")?;
    let series = promql(&name, selector, report)?;
    report.rest(metric);
    let mut told = name.clone();
    if let Some(mut object) = source.section("describedObject")? {
        object.take("apiVersion");
        let (kind, of) = (object.text("kind")?.unwrap_or_default(), object.text("name")?.unwrap_or_default());
        told = format!("{name} of {kind} {of}");
        report.fill_in(format!(
            "the expression of {told}: which labels the object has in Prometheus, the manifest does not say"
        ));
        report.rest(object);
    }
    let mut target = source.section("target")?.ok_or_else(|| source.missing("target", "a target"))?;
    let (value, average) = (positive(&mut target, "value")?, positive(&mut target, "averageValue")?);
    target.take("type");
    let missing = target.missing("averageValue", "a quantity above 0");
    report.rest(target);
    report.fill_in(format!("the expression of {told} and the address of Prometheus; the HPA asked an adapter"));
    Ok(match (key, value, average) {
        ("pods", _, Some(average)) => Metric {
            reading: Reading::Query(format!("avg({series})")),
            target: average,
            about: format!("{told}: {} for each task", number(average)),
        },
        (_, _, Some(average)) => Metric {
            reading: Reading::Total(format!("sum({series})")),
            target: average,
            about: format!("{told}: a total of {} for each task", number(average)),
        },
        ("pods", _, None) | (_, None, None) => return Err(missing),
        (_, Some(value), None) => Metric {
            reading: Reading::Query(format!("sum({series})")),
            target: value,
            about: format!("{told}: {}", number(value)),
        },
    })
}

/// The body of a function that gives the metric's value, and what goes with it.
fn body(metric: &Metric, policy: &mut Policy, spec: &mut Spec, task: &Task) -> Body {
    match &metric.reading {
        Reading::Utilization(figure) | Reading::Mean(figure) => {
            let share = matches!(metric.reading, Reading::Utilization(_));
            let used = format!("local used, report = mean(ctx, \"{}\")", figure.name());
            let value =
                if share { format!("used and used / {}", request(*figure, policy, task)) } else { "used".to_owned() };
            Body { before: used, value, report: true }
        }
        Reading::Query(expression) => {
            Body { before: String::new(), value: query(expression, None, policy, spec), report: false }
        }
        Reading::Total(expression) => {
            let total = format!("local total = {}", query(expression, None, policy, spec));
            Body { before: total, value: "total and total / math.max(ctx.running, 1)".to_owned(), report: false }
        }
    }
}

struct Body {
    before: String,
    value: String,
    report: bool,
}

/// What a percentage of a task's request is divided by: cores, or hundredths of its bytes.
pub(super) fn request(figure: Figure, policy: &mut Policy, task: &Task) -> String {
    let known = |value: Option<f64>, policy: &mut Policy, what: &str| {
        if value.is_none() {
            policy
                .report
                .fill_in(format!("{what}_request: a utilization is a share of it, and the input does not say"));
        }
        if value.is_some() { "" } else { "FILL IN: " }
    };
    match figure {
        Figure::Cpu => {
            let mark = known(task.cpu_request, policy, "cpu");
            let cores = task.cpu_request.unwrap_or(1.0);
            policy.shared_param(
                "cpu_request",
                Lua::Number(cores),
                &format!("{mark}cores that a task asks for: 100 % of its CPU"),
            )
        }
        Figure::Memory => {
            let mark = known(task.memory_request, policy, "memory");
            let size = task.memory_request.unwrap_or(134_217_728.0);
            let note = format!("{mark}bytes that a task asks for: 100 % of its memory");
            policy.shared_param("memory_request", Lua::Number(size.round().max(1.0)), &note) + " * 100"
        }
    }
}

/// A query of Prometheus, whose address (where the source tells it) and expression are parameters.
pub(super) fn query(expression: &str, server: Option<&str>, policy: &mut Policy, spec: &mut Spec) -> String {
    policy.module("prometheus");
    spec.local("local value = 0 -- what the sources of the metric say");
    spec.fake("prometheus", "{\n  query = function()\n    return value\n  end,\n}");
    let note = if server.is_some() { "where Prometheus is" } else { "FILL IN: where Prometheus is" };
    let server = policy.shared_param("prometheus", Lua::text(server.unwrap_or("http://127.0.0.1:9090")), note);
    let expression = policy.param("query", Lua::text(expression), "in PromQL");
    format!("prometheus.query({server}, {expression}, {{ reduce = \"sum\" }})")
}

/// Writes `control`, `metric`, `target` and `simulate` for metrics of which the greatest proposal counts.
pub(super) fn write(policy: &mut Policy, spec: &mut Spec, metrics: &[Metric], behavior: &Behavior, task: &Task) -> f64 {
    let tolerance = behavior.tolerance(&mut policy.report);
    let mut control = vec![Field::new("law", Lua::text("ratio")), Field::new("tolerance", Lua::Number(tolerance))];
    control.extend(behavior.guards(true));
    policy.field(Field::new("control", Lua::Lines(control)));
    if metrics.iter().any(|metric| matches!(metric.reading, Reading::Utilization(_) | Reading::Mean(_))) {
        policy.shared_code(MEAN);
    }
    match metrics {
        [metric] => single(policy, spec, metric, task),
        _ => several(policy, spec, metrics, task),
    }
    tolerance
}

fn single(policy: &mut Policy, spec: &mut Spec, metric: &Metric, task: &Task) {
    let Body { before, value, report } = body(metric, policy, spec, task);
    let before = if before.is_empty() { before } else { format!("  {before}\n") };
    let report = if report { ", report" } else { "" };
    let target = policy.param("target", Lua::Number(metric.target), &metric.about);
    let code = format!("{before}  return {value}{report}\n");
    policy.field(
        Field::new("metric", Lua::raw(format!("{}\n{code}end", head(&code))))
            .told(format!("{}. nil is not known now, and then nothing is scaled in.", metric.about)),
    );
    policy.field(Field::new("target", Lua::raw(target)));
    let simulated = match metric.reading {
        Reading::Query(_) => "function(ctx)\n  return ctx.trace\nend",
        _ => "function(ctx)\n  return ctx.trace / math.max(ctx.running, 1)\nend",
    };
    simulate(policy, simulated, "In `setpoint simulate` the load stands for the metric of all tasks together.");
}

fn several(policy: &mut Policy, spec: &mut Spec, metrics: &[Metric], task: &Task) {
    let mut code = String::from(
        "-- A function for each metric: how many times its target it is, and how many tasks tell. nil: not known now.\n\
         local ratios = {\n",
    );
    for metric in metrics {
        let Body { before, value, report } = body(metric, policy, spec, task);
        let before = if before.is_empty() { before } else { format!("    {before}\n") };
        let report = if report { ", report" } else { "" };
        let target = policy.param("target", Lua::Number(metric.target), &metric.about);
        code.push_str(&super::lua::comment(&metric.about, 2));
        let line = format!("    local value = {value}\n    return value and value / {target}{report}\n");
        let body = format!("{before}{line}");
        code.push_str(&format!("  {}\n{body}  end,\n", head(&body)));
    }
    code.push_str("}\n");
    policy.code(code);
    policy.field(Field::new("metric", Lua::raw(GREATEST)).told(
        "The greatest ratio: of several metrics the one that asks for most tasks counts. One that is not known must not \
         lead to fewer of them.",
    ));
    policy.field(Field::new("target", Lua::Number(1.0)));
    simulate(
        policy,
        "function(ctx)\n  return ctx.trace / math.max(ctx.running, 1) / p.target\nend",
        "In `setpoint simulate` the load stands for the first metric, of all tasks together.",
    );
}

const GREATEST: &str = "\
function(ctx)
  local greatest, report, failure, unknown
  for _, ratio in ipairs(ratios) do
    local ok, value, told = pcall(ratio, ctx)
    if not ok then
      failure = tostring(value)
    elseif value == nil then
      unknown = true
    elseif greatest == nil or value > greatest then
      greatest, report = value, told
    end
  end
  if greatest == nil or greatest <= 1 then
    if failure then
      error(failure, 0)
    elseif unknown then
      return nil
    end
  end
  return greatest, report
end";

/// The entry `simulate`.
pub(super) fn simulate(policy: &mut Policy, function: &str, told: &str) {
    policy.field(Field::new("simulate", Lua::Table(vec![Field::new("metric", Lua::raw(function))])).told(told));
}

/// Bounds that a spec can afford, and the option that sets them.
pub(super) fn affordable(bounds: Bounds) -> (Bounds, String) {
    const MOST: u32 = 300;
    if bounds.max <= MOST {
        return (bounds, String::new());
    }
    let small = Bounds { min: if bounds.min > MOST { 1 } else { bounds.min }, max: MOST };
    (small, format!(", params = {{ min = {}, max = {} }}", small.min, small.max))
}

/// Cases that hold the policy against the HPA's algorithm.
pub(super) fn cases(
    spec: &mut Spec,
    metrics: &[Metric],
    behavior: &Behavior,
    tolerance: f64,
    bounds: Bounds,
    task: &Task,
) {
    let target = if let [metric] = metrics { metric.target } else { 1.0 };
    let (Bounds { min, max }, options) = affordable(bounds);
    let middle = 4_u32.clamp(min.max(1), max);
    let mut rows = String::new();
    for tasks in [min.max(1), middle, max] {
        for ratio in [1.0 + tolerance / 2.0, 1.637 + tolerance, 2.573 + tolerance, 0.41, 1.0 - tolerance / 2.0] {
            let expected = behavior.decide(tasks, ratio, tolerance, min, max);
            let sample = format!("{:.9e}", target * ratio).parse().map_or_else(|_| "0".to_owned(), number);
            let row = format!("  {{ {tasks}, {sample}, {expected} }},\n");
            if !rows.contains(&row) {
                rows.push_str(&row);
            }
        }
    }
    spec.case(
        "decides as the HorizontalPodAutoscaler does",
        &format!(
            "-- Tasks, the sample, the tasks after one decision: ⌈tasks · sample / target⌉ beyond the tolerance, within the\n\
             -- windows, the rates and the bounds.\nfor _, case in ipairs({{\n{rows}}}) do\n  \
             local policy = {LOAD}{{ start = case[1]{options} }})\n  policy:tick({{ metric = case[2] }})\n  \
             expect(policy:running()).to_equal(case[3])\nend"
        ),
    );
    bounded(spec, number((target * 3.0).ceil().min(1e12)), Bounds { min, max }, middle, &options);
    reads(spec, metrics, middle, &options, task);
}

/// Cases that hold for every policy with a sample: it holds without one, and stays within its bounds.
pub(super) fn bounded(spec: &mut Spec, largest: String, bounds: Bounds, start: u32, options: &str) {
    let Bounds { min, max } = bounds;
    spec.case(
        "changes nothing while the metric is missing",
        &format!(
            "local policy = {LOAD}{{ start = {start}{options} }})\nexpect(policy:tick({{ missing = true }})).to_hold()\n\
             expect(policy:running()).to_equal({start})"
        ),
    );
    spec.case(
        "stays within its bounds, whatever the metric",
        &format!(
            "for_all({{ load = gen.trace({{ max = {largest} }}), runs = 20 }}, function(input)\n  \
             local policy = {LOAD}{{ start = {start}{options} }})\n  for _, sample in ipairs(input.load) do\n    \
             policy:tick({{ metric = sample }})\n    expect(policy:running()).to_be_at_most({max})\n    \
             expect(policy:running()).to_be_at_least({min})\n  end\nend)"
        ),
    );
}

/// A case that runs the metric itself.
fn reads(spec: &mut Spec, metrics: &[Metric], tasks: u32, options: &str, task: &Task) {
    let [metric] = metrics else {
        let unknown = if metrics.iter().any(|metric| matches!(metric.reading, Reading::Query(_) | Reading::Total(_))) {
            "value = nil\n"
        } else {
            ""
        };
        let code = format!("{unknown}expect({LOAD}{{ start = {tasks}{options} }}):tick()).to_hold()");
        spec.case("holds while its metrics are not known", &code);
        return;
    };
    let figures = |figure: &str, value: f64| {
        format!(
            "local policy = {LOAD}{{ start = {tasks}{options}, task = {{ {figure} = {} }} }})\n\
             expect(policy:tick().sample / policy.table.target).to_be_near(1, 0.001)",
            number(value)
        )
    };
    let target = metric.target;
    let asked = |sample: String, value: f64| {
        format!(
            "value = {}\nlocal decision = {LOAD}{{ start = {tasks}{options} }}):tick()\n\
             expect(decision.sample / ({sample})).to_be_near(1, 0.001)",
            number(value)
        )
    };
    let code = match &metric.reading {
        Reading::Utilization(Figure::Cpu) => figures("cpu", target * task.cpu_request.unwrap_or(1.0)),
        Reading::Utilization(Figure::Memory) => {
            figures("memory", (target / 100.0 * task.memory_request.unwrap_or(134_217_728.0)).round())
        }
        Reading::Mean(figure) => figures(figure.name(), target),
        Reading::Query(_) => asked("value".to_owned(), target),
        Reading::Total(_) => asked(format!("value / {tasks}"), target * 10.0),
    };
    spec.case("reads its metric", &code);
}
