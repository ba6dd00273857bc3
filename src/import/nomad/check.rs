//! Checks of a Nomad policy: a source, a query and a strategy.

use crate::import::error::Problem;
use crate::import::lua::{Lua, number};
use crate::import::metric::{self, Figure};
use crate::import::policy::Policy;
use crate::import::report::Report;
use crate::import::spec::Spec;
use crate::import::tree::Section;
use crate::import::trigger::Trigger;
use crate::import::workload::Task;

use super::labelled;

/// A check that can be carried over.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) about: String,
    source: Source,
    strategy: Strategy,
    /// Whether it belongs to a group: then it has no say while its bounds do not hold.
    grouped: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Prometheus(String),
    /// A figure of the tasks, all of them together or on average; as a share of what they request, or by itself.
    Tasks {
        figure: Figure,
        sum: bool,
        share: bool,
    },
}

#[derive(Clone, Debug)]
enum Strategy {
    TargetValue { target: f64, threshold: f64, most_up: Option<f64>, most_down: Option<f64> },
    Threshold { lower: Option<f64>, upper: Option<f64>, action: Action },
    FixedValue(u32),
    PassThrough,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Delta(f64),
    Percentage(f64),
    Value(f64),
}

/// Reads one; what has no counterpart is told, and none.
pub(super) fn read(name: Option<String>, mut section: Section, report: &mut Report) -> Result<Option<Check>, Problem> {
    let name = name.unwrap_or_else(|| "check".to_owned());
    section.path = format!("check {name:?}");
    let (path, line) = (section.path.clone(), section.place.line);
    let source = section.text("source")?.unwrap_or_else(|| "nomad-apm".to_owned());
    let query = section.text("query")?;
    let grouped = section.text("group")?.is_some_and(|group| !group.is_empty());
    let known = ["target", "threshold", "lower_bound", "upper_bound", "delta", "percentage", "value", "max_scale_up"];
    let nodes = section.take_all("strategy");
    let mut strategies = labelled(nodes, "strategy", &known)?.into_iter();
    let (strategy_name, strategy) = strategies.next().ok_or_else(|| section.missing("strategy", "a strategy"))?;
    for (other, second) in strategies {
        let what = format!("{path} strategy {:?}", other.unwrap_or_default());
        report.lost(what, second.place.line, "a check has one strategy, the first");
    }
    let strategy_name = strategy_name.unwrap_or_default();
    let windowed = strategy_name == "threshold";
    let Some(strategy) = read_strategy(&strategy_name, strategy, &path, report)? else {
        let why = "the importer knows target-value, threshold, fixed-value and pass-through";
        report.lost(format!("{path} with the strategy {strategy_name:?}"), line, why);
        return Ok(None);
    };
    for key in ["query_window", "query_window_offset"] {
        if let Some(node) = section.take(key) {
            if windowed || key == "query_window_offset" {
                report.lost_value(&section.at(key), &node, "a sample is one value; put the window into the expression");
            } else {
                report.carried(section.at(key), "the latest value counts, there as here");
            }
        }
    }
    let source = if matches!(strategy, Strategy::FixedValue(_)) {
        if query.is_some() {
            report.lost(section.at("query"), line, "a fixed value needs none");
        }
        Some(Source::Prometheus(String::new()))
    } else {
        read_source(&source, query.as_deref(), &section)?
    };
    report.rest(section);
    let Some(source) = source else {
        report.lost(
            format!("{path} of that source or query"),
            line,
            "the importer knows prometheus, and nomad-apm's cpu and memory",
        );
        return Ok(None);
    };
    let about = format!("{name}: {}", strategy.about());
    report.carried(path, about.clone());
    Ok(Some(Check { about, source, strategy, grouped }))
}

fn read_source(source: &str, query: Option<&str>, section: &Section) -> Result<Option<Source>, Problem> {
    let query = query.ok_or_else(|| section.missing("query", "an expression"))?;
    Ok(match source {
        "prometheus" => Some(Source::Prometheus(query.to_owned())),
        // `avg_cpu`, `avg_cpu-allocated`, `sum_memory` … for a group of tasks.
        "nomad-apm" => query.trim().split('/').next().and_then(|query| query.split_once('_')).and_then(|(how, of)| {
            let sum = match how {
                "avg" => false,
                "sum" => true,
                _ => return None,
            };
            let (figure, share) = match of {
                "cpu" => (Figure::Cpu, false),
                "cpu-allocated" => (Figure::Cpu, true),
                "memory" => (Figure::Memory, false),
                "memory-allocated" => (Figure::Memory, true),
                _ => return None,
            };
            Some(Source::Tasks { figure, sum, share })
        }),
        _ => None,
    })
}

fn read_strategy(
    name: &str,
    mut section: Section,
    path: &str,
    report: &mut Report,
) -> Result<Option<Strategy>, Problem> {
    section.path = format!("{path} strategy {name:?}");
    let place = section.place;
    let problem = |text: String| Problem::at(place, text);
    let strategy = match name {
        "target-value" => {
            let target = section.number("target")?.filter(|target| *target > 0.0 && *target < 1e18);
            let target = target.ok_or_else(|| section.missing("target", "a number above 0"))?;
            Strategy::TargetValue {
                target,
                threshold: section.number("threshold")?.unwrap_or(0.01).abs(),
                most_up: section.number("max_scale_up")?.map(|most| most.clamp(0.0, 1e6).floor()),
                most_down: section.number("max_scale_down")?.map(|most| most.clamp(0.0, 1e6).floor()),
            }
        }
        "threshold" => {
            let (lower, upper) = (section.number("lower_bound")?, section.number("upper_bound")?);
            if lower.is_none() && upper.is_none() {
                return Err(section.missing("lower_bound", "a lower_bound, an upper_bound or both"));
            }
            let actions = [
                section.number("delta")?.map(|by| Action::Delta(by.clamp(-1e6, 1e6).trunc())),
                section.number("percentage")?.map(|by| Action::Percentage(by.clamp(-100.0, 1e6))),
                section.number("value")?.map(|to| Action::Value(to.clamp(0.0, 1e6).trunc())),
            ];
            let mut given = actions.into_iter().flatten();
            let (Some(action), None) = (given.next(), given.next()) else {
                return Err(problem(format!("{}: expected one of delta, percentage and value", section.path)));
            };
            if let Some(node) = section.take("within_bounds_trigger") {
                report.lost_value(&section.at("within_bounds_trigger"), &node, "one value within the bounds is enough");
            }
            Strategy::Threshold { lower, upper, action }
        }
        "fixed-value" => {
            let path = section.at("value");
            let value = section.take("value").ok_or_else(|| section.missing("value", "a whole number"))?;
            Strategy::FixedValue(value.whole(&path)?)
        }
        "pass-through" => Strategy::PassThrough,
        _ => return Ok(None),
    };
    report.rest(section);
    Ok(Some(strategy))
}

/// Lua of the strategy target-value.
const TARGET_VALUE: &str = "\
-- Nomad's target-value: the count times the factor, unless that is within the threshold of 1.
local function target_value(ctx, factor, threshold, most_up, most_down)
  if math.abs(factor - 1) <= threshold then
    return ctx.desired
  end
  local count = math.ceil(math.max(ctx.desired, 1) * factor - 1e-9)
  return math.max(ctx.desired - most_down, math.min(ctx.desired + most_up, count))
end
";

impl Strategy {
    fn about(&self) -> String {
        match self {
            Self::TargetValue { target, .. } => format!("target-value {}", number(*target)),
            Self::Threshold { lower, upper, action } => {
                let lower = lower.map_or_else(String::new, |at| format!(" from {}", number(at)));
                let upper = upper.map_or_else(String::new, |at| format!(" to below {}", number(at)));
                let action = match action {
                    Action::Delta(by) => format!("{by:+}"),
                    Action::Percentage(by) => format!("{by:+} %"),
                    Action::Value(to) => format!("= {to}"),
                };
                format!("threshold{lower}{upper}: {action}")
            }
            Self::FixedValue(value) => format!("fixed-value {value}"),
            Self::PassThrough => "pass-through".to_owned(),
        }
    }
}

fn bound(most: Option<f64>) -> String {
    most.map_or_else(|| "math.huge".to_owned(), number)
}

impl Check {
    /// Whether it looks at the tasks' own figures.
    pub(super) fn is_of_tasks(&self) -> bool {
        matches!(self.source, Source::Tasks { .. }) && !matches!(self.strategy, Strategy::FixedValue(_))
    }

    /// Writes it as a function.
    pub(super) fn trigger(&self, policy: &mut Policy, spec: &mut Spec, task: &Task) -> Trigger {
        let about = self.about.clone();
        if let Strategy::FixedValue(value) = self.strategy {
            return Trigger { about, body: format!("return {value}"), simulated: None };
        }
        let read = self.read(policy, spec, task);
        let proposal = self.proposal(policy);
        let body = format!("local value = {read}\nif value == nil then\n  return nil\nend\n{proposal}");
        let trace = match (&self.source, &self.strategy) {
            (_, Strategy::PassThrough) | (Source::Tasks { sum: true, .. }, _) => "ctx.trace",
            _ => "ctx.trace / math.max(ctx.running, 1)",
        };
        Trigger { about, body, simulated: Some(format!("local value = {trace}\n{proposal}")) }
    }

    fn read(&self, policy: &mut Policy, spec: &mut Spec, task: &Task) -> String {
        match &self.source {
            Source::Prometheus(query) => metric::query(query, None, policy, spec),
            Source::Tasks { figure, sum, share } => {
                policy.shared_code(metric::MEAN);
                let part =
                    if *share { format!(" / {}", metric::request(*figure, policy, task)) } else { String::new() };
                let all = if *sum { " * ctx.running" } else { "" };
                let name = figure.name();
                // `mean` also tells how many tasks showed it.
                if part.is_empty() && all.is_empty() {
                    format!("(mean(ctx, \"{name}\"))")
                } else {
                    format!("mean(ctx, \"{name}\")\nvalue = value and value{part}{all}")
                }
            }
        }
    }

    fn proposal(&self, policy: &mut Policy) -> String {
        match &self.strategy {
            Strategy::TargetValue { target, threshold, most_up, most_down } => {
                policy.shared_code(TARGET_VALUE);
                let target = policy.param("target", Lua::Number(*target), &self.about);
                let (up, down) = (bound(*most_up), bound(*most_down));
                format!("return target_value(ctx, value / {target}, {}, {up}, {down})", number(*threshold))
            }
            Strategy::Threshold { lower, upper, action } => {
                let outside: Vec<_> = [
                    lower.map(|at| format!("value < {}", number(at))),
                    upper.map(|at| format!("value >= {}", number(at))),
                ]
                .into_iter()
                .flatten()
                .collect();
                let none = if self.grouped { "false" } else { "ctx.desired" };
                let to = match action {
                    Action::Delta(by) if *by < 0.0 => format!("ctx.desired - {}", number(-by)),
                    Action::Delta(by) => format!("ctx.desired + {}", number(*by)),
                    Action::Percentage(by) if *by < 0.0 => {
                        format!("ctx.desired - math.ceil(ctx.desired * {})", number(-by / 100.0))
                    }
                    Action::Percentage(by) => format!("ctx.desired + math.ceil(ctx.desired * {})", number(by / 100.0)),
                    Action::Value(to) => number(*to),
                };
                format!("if {} then\n  return {none}\nend\nreturn {to}", outside.join(" or "))
            }
            Strategy::PassThrough | Strategy::FixedValue(_) => "return value".to_owned(),
        }
    }

    /// Values, and the count that the check makes of them from a number of tasks on; for specs, whose value is Prometheus's.
    pub(super) fn vectors(&self, start: u32) -> Vec<(f64, i64)> {
        let start = f64::from(start);
        if !matches!(self.source, Source::Prometheus(_)) {
            return Vec::new();
        }
        match &self.strategy {
            Strategy::TargetValue { target, threshold, most_up, most_down } => [1.0, 0.25, 1.75, 3.0]
                .into_iter()
                .map(|factor: f64| {
                    let count = if (factor - 1.0).abs() <= *threshold { start } else { (start * factor - 1e-9).ceil() };
                    let (up, down) = (most_up.unwrap_or(1e9), most_down.unwrap_or(1e9));
                    (target * factor, count.min(start + up).max(start - down) as i64)
                })
                .collect(),
            Strategy::PassThrough => [0.0, 1.5, 3.0].map(|value: f64| (value, value.ceil() as i64)).to_vec(),
            // Bounds that cross hold for nothing.
            Strategy::Threshold { lower: Some(lower), upper: Some(upper), .. } if upper <= lower => Vec::new(),
            Strategy::Threshold { lower, upper, action } => {
                let inside = lower.or_else(|| upper.map(|at| at - 1.0)).unwrap_or(0.0);
                let outside = upper.or_else(|| lower.map(|at| at - 1.0)).unwrap_or(0.0);
                let to = match action {
                    Action::Delta(by) => start + by,
                    Action::Percentage(by) if *by < 0.0 => start - (start * -by / 100.0).ceil(),
                    Action::Percentage(by) => start + (start * by / 100.0).ceil(),
                    Action::Value(to) => *to,
                };
                vec![(inside, to as i64), (outside, start as i64)]
            }
            Strategy::FixedValue(_) => Vec::new(),
        }
    }
}
