//! ScaledObjects of KEDA as policies.
//!
//! CPU and memory alone are an HPA's business and become its law. With other triggers there is what KEDA adds: an idle
//! number (0 unless given) once nothing has been active for `cooldownPeriod`, and `fallback`. Then the policy decides by
//! itself, by the same formula and within the same windows and rates.

mod source;

use super::behavior::{self, Behavior};
use super::error::Problem;
use super::kubernetes::{self, Scaled};
use super::lua::{Field, Lua, number};
use super::policy::Policy;
use super::quantity::{duration, seconds};
use super::report::Report;
use super::spec::{LOAD, Spec};
use super::tree::{Node, Section};
use super::trigger::{self, Rules};
use super::workload::{self, Bounds, Task};
use super::{Backend, Imported, Options, hpa, metric, policy_name};

use source::Source;

/// How often the HPA that KEDA makes looks, in seconds.
const PERIOD: f64 = 15.0;

/// KEDA's default for `pollingInterval`, in seconds.
const POLLING: f64 = 30.0;

/// Imports every ScaledObject of a text.
pub(super) fn import(text: &str, options: &Options) -> Result<Vec<Imported>, Problem> {
    let (own, others) = kubernetes::of_kind(kubernetes::objects(text)?, "ScaledObject")?;
    own.into_iter().map(|node| one(node, &others, options)).collect()
}

/// What a ScaledObject says beside its triggers.
struct Settings {
    polling: f64,
    cooldown: f64,
    least: u32,
    idle: Option<u32>,
    max: u32,
    /// Tasks, and seconds without a value.
    fallback: Option<(u32, f64)>,
    behavior: Behavior,
}

fn one(node: Node, others: &[Node], options: &Options) -> Result<Imported, Problem> {
    let mut report = Report::default();
    let mut root = Section::new(node, "")?;
    let (name, namespace) = kubernetes::metadata(&mut root, &mut report)?;
    let mut spec = root.section("spec")?.ok_or_else(|| root.missing("spec", "what is scaled, and by what"))?;
    report.rest(root);
    let backend = options.backend.unwrap_or(Backend::Docker);
    let reference = spec.section("scaleTargetRef")?;
    let mut reference = reference.ok_or_else(|| spec.missing("scaleTargetRef", "what is scaled"))?;
    let container = reference.text("envSourceContainerName")?;
    let scaled = Scaled::read(reference, &namespace, &mut report)?;
    let settings = settings(&mut spec, &mut report)?;
    let sources = source::read(&mut spec, backend, &mut report)?;
    report.rest(spec);
    let task = scaled.task(others, container.as_deref(), &mut report)?.cleaned(&mut report);
    scaled.others(others, &mut report);
    let name = options.name.clone().unwrap_or_else(|| policy_name(&name.unwrap_or_else(|| scaled.name.clone())));
    let mut policy = Policy::new(name, format!("{}, scaled as by its ScaledObject.", scaled.told()), report);
    let figures: Option<Vec<_>> = sources.iter().map(Source::as_metric).collect();
    if let Some(metrics) = figures.filter(|metrics| !metrics.is_empty()) {
        policy.about(
            "Imported from KEDA. With CPU and memory alone it is its HorizontalPodAutoscaler that decides: the law `ratio`.",
        );
        unneeded(&settings, &mut policy.report);
        let bounds = Bounds { min: settings.least.max(1), max: settings.max };
        return Ok(hpa::build(policy, &scaled, backend, bounds, &metrics, &settings.behavior, &task, "15s"));
    }
    policy.about(
        "Imported from KEDA. The sample is how many tasks the triggers want; decide makes it so as KEDA and its \
         HorizontalPodAutoscaler do together.",
    );
    Ok(build(policy, &scaled, backend, &settings, &sources, &task))
}

/// What has no effect where an HPA does all the work.
fn unneeded(settings: &Settings, report: &mut Report) {
    if settings.fallback.is_some() {
        report.lost("spec.fallback", 0, "KEDA does not use it for cpu and memory either");
    }
    if settings.least == 0 {
        report.carried("spec.minReplicaCount", "params.min = 1: with cpu and memory alone KEDA goes no lower");
    }
}

fn settings(spec: &mut Section, report: &mut Report) -> Result<Settings, Problem> {
    let mut time = |key: &str, default: f64, to: &str| {
        let path = spec.at(key);
        let Some(node) = spec.take(key) else { return Ok(default) };
        report.carried(path.clone(), to);
        duration(&node, &path)
    };
    let polling = time("pollingInterval", POLLING, "interval")?.max(1.0);
    let cooldown = time("cooldownPeriod", 300.0, "params.cooldown")?;
    if let Some(node) = spec.take("initialCooldownPeriod") {
        report.lost_value(
            &spec.at("initialCooldownPeriod"),
            &node,
            "a policy that has just started may go idle at once",
        );
    }
    let place = spec.place;
    let (least, max) = (spec.whole("minReplicaCount")?.unwrap_or(0), spec.whole("maxReplicaCount")?.unwrap_or(100));
    let idle = spec.whole("idleReplicaCount")?;
    report.carried("spec.minReplicaCount, spec.maxReplicaCount", "params");
    if max == 0 || max < least {
        let text =
            format!("{}: expected at least 1 and minReplicaCount ({least}), got {max}", spec.at("maxReplicaCount"));
        return Err(Problem::at(place, text));
    }
    if idle.is_some_and(|idle| least <= idle) {
        let text = format!("{}: expected less than minReplicaCount ({least})", spec.at("idleReplicaCount"));
        return Err(Problem::at(place, text));
    }
    let fallback = match spec.section("fallback")? {
        Some(section) => Some(fallback(section, polling, report)?),
        None => None,
    };
    let mut behavior = Behavior::default();
    if let Some(mut advanced) = spec.section("advanced")? {
        let why = "where a policy goes, its tasks end, or stay as they are with workload.on_end and on_gone";
        report.lost_key(&mut advanced, "restoreToOriginalReplicaCount", why);
        if let Some(mut hpa) = advanced.section("horizontalPodAutoscalerConfig")? {
            report.lost_key(&mut hpa, "name", "no HorizontalPodAutoscaler is made");
            behavior = behavior::read(hpa.section("behavior")?, report)?;
            report.rest(hpa);
        }
        report.rest(advanced);
    }
    Ok(Settings { polling, cooldown, least, idle, max, fallback, behavior })
}

fn fallback(mut section: Section, polling: f64, report: &mut Report) -> Result<(u32, f64), Problem> {
    let failures = section.whole("failureThreshold")?.unwrap_or(3);
    let replicas = section.whole("replicas")?.ok_or_else(|| section.missing("replicas", "a whole number"))?;
    if let Some(node) = section.take("behavior")
        && node.scalar().as_deref() != Some("static")
    {
        report.lost_value(&section.at("behavior"), &node, "the fallback is a fixed number, and only ever adds tasks");
    }
    report.carried("spec.fallback", "control.on_missing; it sees to so many tasks, and scales none in");
    report.rest(section);
    Ok((replicas, f64::from(failures.max(1)) * polling))
}

fn build(
    mut policy: Policy,
    scaled: &Scaled,
    backend: Backend,
    settings: &Settings,
    sources: &[Source],
    task: &Task,
) -> Imported {
    let mut spec = Spec::default();
    let outside = scaled.outside();
    let idles = settings.least == 0 || settings.idle.is_some();
    let bounds = Bounds { min: settings.idle.unwrap_or(settings.least), max: settings.max };
    let interval = settings.polling.min(PERIOD);
    policy.field(Field::new("interval", Lua::text(seconds(interval))));
    workload::workload(&mut policy, task, backend, bounds, Vec::new(), Some(&outside));
    hpa::fakes(&mut spec, backend, &outside);
    if sources.is_empty() {
        hpa::fixed(&mut policy, &mut spec, bounds);
        workload::actuators(&mut policy, backend);
        return policy.finish(spec);
    }
    let tolerance = settings.behavior.tolerance(&mut policy.report);
    let mut control = vec![Field::new("law", Lua::text("decide"))];
    control.extend(settings.behavior.guards(!idles));
    if let Some((tasks, after)) = settings.fallback {
        let on_missing =
            vec![Field::new("fallback", Lua::whole(tasks)), Field::new("after", Lua::text(seconds(after)))];
        control.push(Field::new("on_missing", Lua::Table(on_missing)));
    }
    policy.field(Field::new("control", Lua::Lines(control)));
    let triggers: Vec<_> = sources.iter().map(|source| source.trigger(&mut policy, &mut spec, task)).collect();
    trigger::write(&mut policy, &triggers, Rules { what: "trigger", active: idles, fails: false });
    if idles {
        if settings.behavior.down.is_limited() {
            policy.report.lost(
                "going idle at once",
                0,
                "the rates of scaleDown hold for it, too; KEDA sets the idle number past its HorizontalPodAutoscaler",
            );
        }
        idle(&mut policy, settings, tolerance);
    } else {
        policy.field(Field::new("decide", Lua::raw(steady(tolerance))));
    }
    cases(&mut spec, settings, sources, idles, interval);
    workload::actuators(&mut policy, backend);
    policy.finish(spec)
}

/// `decide` without an idle number.
fn steady(tolerance: f64) -> String {
    format!(
        "function(ctx)\n  local wanted = ctx.sample\n  \
         if wanted == nil or ctx.desired > 0 and math.abs(wanted / ctx.desired - 1) <= {} then\n    \
         return {{ adjust = 0 }}\n  end\n  return {{ desired = math.ceil(wanted - 1e-9) }}\nend",
        number(tolerance)
    )
}

/// `decide` with one, and what it needs.
fn idle(policy: &mut Policy, settings: &Settings, tolerance: f64) {
    let note = "seconds without anything active before the tasks go down to min";
    policy.param("cooldown", Lua::Number(settings.cooldown), note);
    policy.code(format!(
        "\
-- While something is active, and for p.cooldown seconds after that, there are at least so many tasks.
local LEAST = {}

-- The stabilization of scale-in: the most that was wanted in the last {} seconds. It is not a guard's, because going
-- down to p.min does not wait for it.
local function stabilized(ctx, tasks)
  local kept = {{}}
  for _, entry in ipairs(ctx.state.wanted or {{ {{ at = ctx.now, tasks = ctx.desired }} }}) do
    if ctx.now - entry.at < {} and entry.tasks > tasks then
      kept[#kept + 1] = entry
    end
  end
  kept[#kept + 1] = {{ at = ctx.now, tasks = tasks }}
  ctx.state.wanted = kept
  return math.max(tasks, math.min(ctx.desired, kept[1].tasks))
end
",
        settings.least.max(1),
        number(settings.behavior.down.window),
        number(settings.behavior.down.window)
    ));
    let decide = format!(
        "\
function(ctx)
  local wanted = ctx.sample
  if wanted == nil then
    return {{ adjust = 0 }}
  end
  if active then
    ctx.state.active = ctx.now
  elseif ctx.now - (ctx.state.active or 0) >= p.cooldown then
    return {{ desired = p.min }}
  end
  local tasks = math.max(LEAST, math.ceil(wanted - 1e-9))
  if ctx.desired > 0 and math.abs(wanted / ctx.desired - 1) <= {} then
    tasks = ctx.desired
  end
  return {{ desired = stabilized(ctx, tasks) }}
end",
        number(tolerance)
    );
    policy.field(Field::new("decide", Lua::raw(decide)));
}

fn cases(spec: &mut Spec, settings: &Settings, sources: &[Source], idles: bool, interval: f64) {
    let given = Bounds { min: settings.idle.unwrap_or(settings.least), max: settings.max };
    let (Bounds { min, max }, options) = metric::affordable(given);
    let start = min.max(1).min(max);
    let largest = number(f64::from(max) * 1.5);
    // With other rates than the usual ones it takes longer to get there.
    let quick = settings.behavior.up == Behavior::default().up;
    if settings.fallback.is_none() {
        metric::bounded(spec, largest, Bounds { min, max }, start, &options);
    }
    if let Some((tasks, after)) = settings.fallback {
        let expected = tasks.clamp(min, max).max(start);
        if tasks <= max && quick {
            spec.case(
                "falls back when its triggers have failed for a while",
                &format!(
                    "local policy = {LOAD}{{ start = {start}{options} }})\nexpect(policy:tick({{ missing = true }})).to_hold()\n\
                     policy:advance(\"{}\", {{ missing = true }})\nexpect(policy:running()).to_equal({expected})",
                    seconds(after * 3.0 + 300.0)
                ),
            );
        }
    }
    let Some(first) = sources.first() else { return };
    let figures =
        if sources.iter().any(|source| source.as_metric().is_some()) { ", task = { cpu = 0, memory = 0 }" } else { "" };
    let steady = sources.iter().all(|source| !matches!(source, Source::Cron { .. }));
    if steady
        && quick
        && let Some(value) = first.worth(3.0)
    {
        // From 1 task KEDA's HPA may add what its rates allow, and the triggers that share the value may want more.
        spec.case(
            "launches when its triggers have work",
            &format!(
                "value = {}\nlocal policy = {LOAD}{{ start = {min}{options}{figures} }})\npolicy:advance(\"{}\")\n\
                 expect(policy:running()).to_be_at_least({})",
                number(value),
                seconds(settings.behavior.up.window + 600.0 + interval),
                3.clamp(min, max)
            ),
        );
        if idles && settings.cooldown <= 36_000.0 && !settings.behavior.down.is_limited() {
            spec.case(
                "goes down to its fewest tasks once nothing is active",
                &format!(
                    "value = {}\nlocal policy = {LOAD}{{ start = {min}{options}{figures} }})\npolicy:advance(\"1m\")\nvalue = 0\n\
                     policy:advance(\"{}\")\nexpect(policy:running()).to_equal({min})",
                    number(value),
                    seconds(settings.cooldown + 4.0 * interval)
                ),
            );
        }
    }
    for source in sources {
        if let Source::Cron { desired, .. } = source
            && sources.len() == 1
        {
            spec.case(
                "has no more tasks than its hours ask for",
                &format!(
                    "local policy = {LOAD}{{ start = {min}, now = \"2026-01-14T00:00:00Z\"{options} }})\n\
                     for _ = 1, 96 do\n  local decision = policy:tick({{ advance = \"15m\" }})\n  \
                     expect(decision.sample == 0 or decision.sample == {desired}).to_be_true()\n  \
                     expect(decision.running).to_be_at_most({})\nend",
                    (*desired).max(min).max(settings.least.max(1)).min(max)
                ),
            );
        }
    }
}
