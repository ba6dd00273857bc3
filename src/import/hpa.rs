//! HorizontalPodAutoscalers of autoscaling/v2 as policies with the law `ratio`, which is their algorithm.

use super::behavior::{self, Behavior};
use super::error::Problem;
use super::kubernetes::{self, Scaled};
use super::lua::{Field, Lua};
use super::metric::{self, Figure, Metric, Reading};
use super::policy::Policy;
use super::report::Report;
use super::spec::{LOAD, Spec};
use super::tree::{Node, Section};
use super::workload::{self, Bounds, Outside, Task};
use super::{Backend, Imported, Options, policy_name};

/// How often the controller of Kubernetes looks.
const PERIOD: &str = "15s";

/// Imports every HorizontalPodAutoscaler of a text.
pub(super) fn import(text: &str, options: &Options) -> Result<Vec<Imported>, Problem> {
    let (own, others) = kubernetes::of_kind(kubernetes::objects(text)?, "HorizontalPodAutoscaler")?;
    own.into_iter().map(|node| one(node, &others, options)).collect()
}

fn one(node: Node, others: &[Node], options: &Options) -> Result<Imported, Problem> {
    let mut report = Report::default();
    let place = node.place;
    let mut root = Section::new(node, "")?;
    let version = root.text("apiVersion")?.unwrap_or_default();
    if version == "autoscaling/v1" {
        let text = "expected a HorizontalPodAutoscaler of autoscaling/v2, got one of autoscaling/v1";
        return Err(Problem::at(place, text).hint("`kubectl get hpa.v2.autoscaling NAME -o yaml` gives it as v2"));
    }
    let (name, namespace) = kubernetes::metadata(&mut root, &mut report)?;
    let mut spec = root.section("spec")?.ok_or_else(|| root.missing("spec", "what the autoscaler does"))?;
    report.rest(root);
    let backend = options.backend.unwrap_or(Backend::Docker);
    let reference = spec.section("scaleTargetRef")?;
    let reference = reference.ok_or_else(|| spec.missing("scaleTargetRef", "what is scaled"))?;
    let scaled = Scaled::read(reference, &namespace, &mut report)?;
    let bounds = bounds(&mut spec, &mut report)?;
    let given = spec.has("metrics");
    let (mut metrics, container) = metric::read(&mut spec, backend, &mut report)?;
    if !given && backend != Backend::None {
        metrics.push(default_metric());
        report.carried("spec.metrics", "the default of Kubernetes: 80 % of the CPU that is requested");
    }
    let behavior = behavior::read(spec.section("behavior")?, &mut report)?;
    report.rest(spec);
    let task = scaled.task(others, container.as_deref(), &mut report)?.cleaned(&mut report);
    scaled.others(others, &mut report);
    let name = options.name.clone().unwrap_or_else(|| policy_name(&name.unwrap_or_else(|| scaled.name.clone())));
    let title = format!("{}, scaled as by its HorizontalPodAutoscaler.", scaled.told());
    let mut policy = Policy::new(name, title, report);
    policy.about(
        "Imported. The law `ratio` is the algorithm of the HorizontalPodAutoscaler: as many tasks as bring the metric to \
         its target, with its windows and rates as guards.",
    );
    Ok(build(policy, &scaled, backend, bounds, &metrics, &behavior, &task, PERIOD))
}

fn default_metric() -> Metric {
    Metric {
        reading: Reading::Utilization(Figure::Cpu),
        target: 80.0,
        about: "cpu: 80 % of what a task requests".to_owned(),
    }
}

fn bounds(spec: &mut Section, report: &mut Report) -> Result<Bounds, Problem> {
    let min = spec.whole("minReplicas")?;
    let place = spec.place;
    let max = spec.whole("maxReplicas")?.ok_or_else(|| spec.missing("maxReplicas", "a whole number"))?;
    report.carried("spec.minReplicas, spec.maxReplicas", "params.min, params.max");
    let min = min.unwrap_or(1);
    if max == 0 || max < min {
        let text = format!("{}: expected at least 1 and minReplicas ({min}), got {max}", spec.at("maxReplicas"));
        return Err(Problem::at(place, text));
    }
    Ok(Bounds { min, max })
}

/// Puts a policy with the law `ratio` together.
pub(super) fn build(
    mut policy: Policy,
    scaled: &Scaled,
    backend: Backend,
    bounds: Bounds,
    metrics: &[Metric],
    behavior: &Behavior,
    task: &Task,
    interval: &str,
) -> Imported {
    let mut spec = Spec::default();
    let outside = scaled.outside();
    policy.field(Field::new("interval", Lua::text(interval)));
    workload::workload(&mut policy, task, backend, bounds, Vec::new(), Some(&outside));
    fakes(&mut spec, backend, &outside);
    if metrics.is_empty() {
        fixed(&mut policy, &mut spec, bounds);
    } else {
        let tolerance = metric::write(&mut policy, &mut spec, metrics, behavior, task);
        metric::cases(&mut spec, metrics, behavior, tolerance, bounds, task);
    }
    workload::actuators(&mut policy, backend);
    policy.finish(spec)
}

/// What a spec needs where the tasks are counted over HTTP.
pub(super) fn fakes(spec: &mut Spec, backend: Backend, outside: &Outside) {
    if backend == Backend::None {
        spec.outside(&outside.fake);
    }
}

/// Without any metric left, the fewest tasks are kept.
pub(super) fn fixed(policy: &mut Policy, spec: &mut Spec, bounds: Bounds) {
    policy.report.fill_in("metric, target and control: none of the metrics could be carried over; min tasks are kept");
    let control = vec![Field::new("law", Lua::text("count")), Field::new("n", Lua::raw("p.min"))];
    policy
        .field(Field::new("control", Lua::Lines(control)).told("FILL IN: none of the metrics could be carried over."));
    let (small, options) = metric::affordable(bounds);
    let code = format!("local policy = {LOAD}{{ start = {}{options} }})\npolicy:tick()\n", small.min);
    spec.case("keeps min tasks", &format!("{code}expect(policy:running()).to_equal({})", small.min));
}
