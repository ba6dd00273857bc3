//! The `control` table: the law and the guards.

use std::time::Duration;

use mlua::{Table, Value};

use crate::config::units;
use crate::core::policy::{
    Confirm, Control, FlapBudget, Gains, HPA_TOLERANCE, LawSpec, OnMissing, Side, StepLimit, StepTier, Tolerance,
    Tuning, UpDown,
};

use super::checker::{Findings, Node, duration, items};
use super::convert::{describe, finite};

const FIELDS: &[&str] = &[
    "law",
    "per_task",
    "kp",
    "ki",
    "kd",
    "filter",
    "season",
    "steps",
    "hysteresis",
    "n",
    "wait",
    "compat",
    "tolerance",
    "cooldown",
    "stabilization",
    "step",
    "confirm",
    "ramp",
    "lag",
    "lookback",
    "flap",
    "stale_after",
    "on_missing",
];

#[derive(Clone, Copy)]
enum Law {
    Adaptive,
    Proportional,
    Pid,
    Ratio,
    Relay,
    Step,
    Count,
    Decide,
}

const LAWS: &[(&str, Law)] = &[
    ("adaptive", Law::Adaptive),
    ("proportional", Law::Proportional),
    ("pid", Law::Pid),
    ("ratio", Law::Ratio),
    ("relay", Law::Relay),
    ("step", Law::Step),
    ("count", Law::Count),
    ("decide", Law::Decide),
];

/// A season needs slots that are longer than a few ticks.
const SHORTEST_SEASON: Duration = Duration::from_secs(600);

/// The keys that mean something to some laws only.
const OF_LAWS: &[&str] =
    &["per_task", "kp", "ki", "kd", "filter", "season", "steps", "hysteresis", "n", "wait", "compat"];

/// Reads `control`; absent is all defaults. `decides`: the policy has a `decide` function.
pub(super) fn control(table: Option<&Table>, decides: bool, found: &mut Findings) -> Control {
    let node = match table {
        Some(table) => Node::new(table, "control", FIELDS, found),
        None => Node::absent("control"),
    };
    let law = law(&node, decides, found);
    let defaults = Control::new(law);
    Control {
        tolerance: match defaults.law {
            // Its own dead band, which a fraction stands for.
            LawSpec::Ratio { .. } => defaults.tolerance,
            _ => tolerance(&node, found).unwrap_or(defaults.tolerance),
        },
        cooldown: up_down(&node, "cooldown", found).unwrap_or(defaults.cooldown),
        stabilization: up_down(&node, "stabilization", found).unwrap_or(defaults.stabilization),
        step: step(&node, found).unwrap_or(defaults.step),
        confirm: confirm(&node, found),
        ramp: node.whole("ramp", 1..=10_000, found).unwrap_or(defaults.ramp),
        lag: node.duration("lag", found).unwrap_or(defaults.lag),
        lookback: node.whole("lookback", 1..=10_000, found).map_or(defaults.lookback, |n| n as usize),
        flap: flap(&node, found),
        stale_after: node.duration("stale_after", found),
        on_missing: on_missing(&node, found),
        law: defaults.law,
    }
}

fn law(node: &Node<'_>, decides: bool, found: &mut Findings) -> LawSpec {
    let default = if decides { Law::Decide } else { Law::Adaptive };
    let law = node.word("law", LAWS, found).unwrap_or(default);
    let only = |name: &str, keys: &[&str], found: &mut Findings| {
        for key in OF_LAWS.iter().filter(|key| !keys.contains(key) && node.has(key)) {
            found.warn(format!("control.{key} means nothing to the law \"{name}\""));
        }
    };
    match law {
        Law::Adaptive => {
            only("adaptive", &["per_task", "season"], found);
            let season = node.duration("season", found);
            if season.is_some_and(|season| season < SHORTEST_SEASON) {
                found.problem("control.season", "expected at least \"10m\"");
            }
            LawSpec::Adaptive(Tuning { per_task: per_task(node, found), season })
        }
        Law::Proportional => {
            only("proportional", &["per_task"], found);
            LawSpec::Proportional { per_task: per_task(node, found) }
        }
        Law::Pid => {
            only("pid", &["per_task", "kp", "ki", "kd", "filter"], found);
            LawSpec::Pid(gains(node, found))
        }
        Law::Ratio => {
            only("ratio", &[], found);
            let tolerance = tolerance(node, found).map_or(HPA_TOLERANCE, |tolerance| match tolerance {
                Tolerance::Absolute(fraction) | Tolerance::Relative(fraction) => fraction,
            });
            LawSpec::Ratio { tolerance }
        }
        Law::Relay => {
            only("relay", &["compat"], found);
            LawSpec::Relay { compat: node.flag("compat", found).unwrap_or(false) }
        }
        Law::Step => {
            only("step", &["steps", "hysteresis"], found);
            let hysteresis = node.number("hysteresis", 0.0, false, found).unwrap_or(0.0);
            LawSpec::Step { tiers: tiers(node, found), hysteresis }
        }
        Law::Count => {
            only("count", &["n", "wait"], found);
            if !node.has("n") {
                found.problem("control.n", "the law \"count\" needs how many, expected a whole number, got nil");
            }
            let wait = node.duration("wait", found);
            if wait.is_some_and(|wait| wait.is_zero()) {
                found.problem("control.wait", "expected more than 0");
            }
            LawSpec::Count { n: node.whole("n", 0..=super::table::MOST_TASKS, found).unwrap_or(0), wait }
        }
        Law::Decide => {
            only("decide", &[], found);
            if !decides {
                found.problem("decide", "the law \"decide\" needs the function decide(ctx), got nil");
            }
            LawSpec::Decide
        }
    }
}

fn per_task(node: &Node<'_>, found: &mut Findings) -> f64 {
    node.number("per_task", 0.0, true, found).unwrap_or(1.0)
}

/// `per_task` and `kp` each stand for the other where only one is given.
fn gains(node: &Node<'_>, found: &mut Findings) -> Gains {
    let kp = node.number("kp", 0.0, false, found);
    let per_task = node.number("per_task", 0.0, true, found);
    let ki = node.number("ki", 0.0, false, found).unwrap_or(0.0);
    let kd = node.number("kd", 0.0, false, found).unwrap_or(0.0);
    let filter = node.duration("filter", found);
    let per_task = per_task.or_else(|| kp.filter(|kp| *kp > 0.0).map(|kp| (1.0 / kp).min(f64::MAX))).unwrap_or(1.0);
    let gains = Gains::new(per_task, kp, ki, kd);
    Gains { filter: filter.unwrap_or(gains.filter), ..gains }
}

fn tiers(node: &Node<'_>, found: &mut Findings) -> Vec<StepTier> {
    let path = node.at("steps");
    let Some(table) = node.table("steps", found) else {
        if !node.has("steps") {
            found.problem(&path, "the law \"step\" needs thresholds such as { { above = 80, add = 1 } }, got nil");
        }
        return Vec::new();
    };
    let mut tiers = Vec::new();
    for (at, item) in items(&table, &path, found).unwrap_or_default().iter().enumerate() {
        let path = format!("{path}[{}]", at + 1);
        match item {
            Value::Table(table) => tiers.extend(tier(table, &path, found)),
            other => found
                .problem(&path, format!("expected a table such as {{ above = 80, add = 1 }}, got {}", describe(other))),
        }
    }
    if tiers.is_empty() && found.problems.is_empty() {
        found.problem(&path, "expected at least one threshold, got none");
    }
    tiers
}

fn tier(table: &Table, path: &str, found: &mut Findings) -> Option<StepTier> {
    let node = Node::new(table, path, &["above", "below", "add", "remove"], found);
    let (side, key) = match (node.has("above"), node.has("below")) {
        (true, false) => (Side::Above, "above"),
        (false, true) => (Side::Below, "below"),
        _ => {
            found.problem(path, "expected one of `above` and `below`");
            return None;
        }
    };
    let at = node.number(key, f64::MIN, false, found)?;
    let tasks = |key, found: &mut Findings| node.whole(key, 1..=super::table::MOST_TASKS, found).map(i64::from);
    let adjust = match (node.has("add"), node.has("remove")) {
        (true, false) => tasks("add", found)?,
        (false, true) => -tasks("remove", found)?,
        _ => {
            found.problem(path, "expected one of `add` and `remove`");
            return None;
        }
    };
    Some(StepTier { side, at, adjust })
}

fn tolerance(node: &Node<'_>, found: &mut Findings) -> Option<Tolerance> {
    match node.value("tolerance") {
        Value::String(text) => {
            let fraction = found.take(&node.at("tolerance"), units::parse_percent(&text.to_string_lossy()));
            fraction.map(Tolerance::Relative)
        }
        _ => node.number("tolerance", 0.0, false, found).map(Tolerance::Absolute),
    }
}

/// One duration for both directions, or `{ up =, down = }`.
fn up_down(node: &Node<'_>, key: &str, found: &mut Findings) -> Option<UpDown<Duration>> {
    Some(match node.value(key) {
        Value::Nil => return None,
        Value::Table(table) => {
            let pair = Node::new(&table, &node.at(key), &["up", "down"], found);
            let mut side = |key| pair.duration(key, found).unwrap_or_default();
            UpDown { up: side("up"), down: side("down") }
        }
        value => {
            let both = duration(&value, &node.at(key), found).unwrap_or_default();
            UpDown { up: both, down: both }
        }
    })
}

/// One limit for both directions, or `{ up =, down = }`.
fn step(node: &Node<'_>, found: &mut Findings) -> Option<UpDown<Option<StepLimit>>> {
    let value = node.value("step");
    if value.is_nil() {
        return None;
    }
    if let Value::Table(table) = &value
        && ["up", "down"].iter().any(|key| table.raw_get::<Value>(*key).is_ok_and(|value| !value.is_nil()))
    {
        let pair = Node::new(table, "control.step", &["up", "down"], found);
        let mut side = |key: &str| step_limit(&pair.value(key), &pair.at(key), found);
        return Some(UpDown { up: side("up"), down: side("down") });
    }
    let both = step_limit(&value, "control.step", found);
    Some(UpDown { up: both, down: both })
}

fn step_limit(value: &Value, path: &str, found: &mut Findings) -> Option<StepLimit> {
    match value {
        Value::Nil => None,
        Value::String(text) => {
            let fraction = found.take(path, units::parse_percent(&text.to_string_lossy()))?;
            Some(StepLimit { tasks: None, fraction: Some(fraction), per: None })
        }
        Value::Table(table) => {
            let node = Node::new(table, path, &["tasks", "percent", "per"], found);
            let limit = StepLimit {
                tasks: node.whole("tasks", 0..=super::table::MOST_TASKS, found),
                fraction: node.number("percent", 0.0, false, found).map(|percent| percent / 100.0),
                per: node.duration("per", found),
            };
            if !node.has("tasks") && !node.has("percent") {
                found.problem(path, "expected `tasks`, `percent` or both");
            }
            Some(limit)
        }
        number => {
            let number = found.take(path, finite(number, "a step").map_err(|text| text.replace("a step: ", "")))?;
            if number.fract() != 0.0 || !(0.0..=f64::from(super::table::MOST_TASKS)).contains(&number) {
                found.problem(path, format!("expected a whole number of tasks or text such as \"50%\", got {number}"));
                return None;
            }
            Some(StepLimit { tasks: Some(number as u32), fraction: None, per: None })
        }
    }
}

/// `n`: in a row; `{ n, of }`: in n of the last so many; `{ n, total = true }`: n in all since the last action.
fn confirm(node: &Node<'_>, found: &mut Findings) -> Option<Confirm> {
    let value = node.value("confirm");
    let Value::Table(table) = &value else {
        return node.whole("confirm", 1..=1000, found).map(|n| Confirm::Window { n, of: n });
    };
    let inner = Node::new(table, "control.confirm", &["n", "of", "total"], found);
    if !inner.has("n") {
        found.problem("control.confirm.n", "expected how often, got nil");
    }
    let n = inner.whole("n", 1..=1000, found)?;
    if inner.flag("total", found) == Some(true) {
        if inner.has("of") {
            found.problem("control.confirm", "expected one of `of` and `total`, got both");
        }
        return Some(Confirm::Total { n });
    }
    let of = inner.whole("of", 1..=1000, found).unwrap_or(n);
    if of < n {
        found.problem("control.confirm.of", format!("expected at least n ({n}), got {of}"));
    }
    Some(Confirm::Window { n, of })
}

fn flap(node: &Node<'_>, found: &mut Findings) -> Option<FlapBudget> {
    let table = node.table("flap", found)?;
    let inner = Node::new(&table, "control.flap", &["changes", "per"], found);
    for key in ["changes", "per"] {
        if !inner.has(key) {
            found.problem(&inner.at(key), "expected a value, got nil");
        }
    }
    let changes = inner.whole("changes", 1..=1_000_000, found);
    let per = inner.duration("per", found);
    Some(FlapBudget { changes: changes?, per: per? })
}

fn on_missing(node: &Node<'_>, found: &mut Findings) -> OnMissing {
    const FORMS: &str = "\"hold\", { keep = \"60s\" } or { fallback = 4, after = \"5m\" }";
    match node.value("on_missing") {
        Value::Nil => OnMissing::Hold,
        Value::String(text) if text.as_bytes() == b"hold" => OnMissing::Hold,
        Value::Table(table) => {
            let inner = Node::new(&table, "control.on_missing", &["keep", "fallback", "after"], found);
            let keep = inner.duration("keep", found);
            let fallback = inner.whole("fallback", 0..=super::table::MOST_TASKS, found);
            let after = inner.duration("after", found);
            match (keep, fallback, after) {
                (Some(keep), None, None) => OnMissing::Keep(keep),
                (None, Some(n), Some(after)) => OnMissing::Fallback { n, after },
                _ => {
                    if found.problems.is_empty() {
                        found.problem("control.on_missing", format!("expected {FORMS}, got another table"));
                    }
                    OnMissing::Hold
                }
            }
        }
        other => {
            found.problem("control.on_missing", format!("expected {FORMS}, got {}", describe(&other)));
            OnMissing::Hold
        }
    }
}
