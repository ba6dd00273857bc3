//! `behavior` of a HorizontalPodAutoscaler as guards: windows, rates, tolerance; and its algorithm for a spec's vectors.

use super::error::Problem;
use super::lua::{Field, Lua};
use super::quantity::{quantity, seconds};
use super::report::Report;
use super::tree::{Node, Section};

/// What a rate allows: of tasks and percent the larger one, within a period in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    tasks: Option<u32>,
    percent: Option<f64>,
    per: f64,
}

/// One direction. No rate is no limit; `held` allows none at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    pub(super) window: f64,
    rate: Option<Rate>,
    held: bool,
    tolerance: f64,
}

/// Both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Behavior {
    pub(super) up: Rules,
    pub(super) down: Rules,
}

impl Default for Behavior {
    /// The HPA's own: up at once, by 100 % or 4 tasks in 15 s; down after 300 s, as far as it likes.
    fn default() -> Self {
        let quick = Rate { tasks: Some(4), percent: Some(100.0), per: 15.0 };
        Self {
            up: Rules { window: 0.0, rate: Some(quick), held: false, tolerance: 0.1 },
            down: Rules { window: 300.0, rate: None, held: false, tolerance: 0.1 },
        }
    }
}

/// Reads `behavior`.
pub(super) fn read(section: Option<Section>, report: &mut Report) -> Result<Behavior, Problem> {
    let mut behavior = Behavior::default();
    let Some(mut section) = section else { return Ok(behavior) };
    for (key, rules) in [("scaleUp", &mut behavior.up), ("scaleDown", &mut behavior.down)] {
        if let Some(inner) = section.section(key)? {
            direction(inner, rules, report)?;
        }
    }
    report.rest(section);
    Ok(behavior)
}

fn direction(mut section: Section, rules: &mut Rules, report: &mut Report) -> Result<(), Problem> {
    if let Some(window) = section.whole("stabilizationWindowSeconds")? {
        report.carried(section.at("stabilizationWindowSeconds"), "control.stabilization");
        rules.window = f64::from(window.min(3600));
    }
    if let Some(node) = section.take("tolerance") {
        let path = section.at("tolerance");
        let fraction = node.scalar().and_then(|text| quantity(&text)).filter(|fraction| (0.0..=1e6).contains(fraction));
        rules.tolerance = fraction.ok_or_else(|| {
            Problem::at(node.place, format!("{path}: expected a fraction such as 0.05, got {}", node.described()))
        })?;
        report.carried(path, "control.tolerance");
    }
    let path = section.at("policies");
    let mut rates = Vec::new();
    for (at, node) in section.list("policies")?.into_iter().enumerate() {
        rates.push(rate(node, &format!("{path}[{at}]"), report)?);
    }
    let line = section.place.line;
    let select = section.text("selectPolicy")?.unwrap_or_else(|| "Max".to_owned());
    match select.as_str() {
        "Disabled" => {
            rules.held = true;
            report.carried(section.at("selectPolicy"), "control.step = 0");
        }
        "Max" | "Min" => {
            if !rates.is_empty() {
                rules.rate = Some(selected(&rates, &select, &path, line, report));
            }
        }
        other => {
            let text = format!("{}: expected Max, Min or Disabled, got {other:?}", section.at("selectPolicy"));
            return Err(Problem::at(section.place, text));
        }
    }
    report.rest(section);
    Ok(())
}

fn rate(node: Node, path: &str, report: &mut Report) -> Result<Rate, Problem> {
    let mut section = Section::new(node, path)?;
    let kind = section.needed("type", "Pods or Percent")?;
    let value = section.whole("value")?.ok_or_else(|| section.missing("value", "a whole number"))?;
    let per = section.whole("periodSeconds")?.ok_or_else(|| section.missing("periodSeconds", "1 to 1800 seconds"))?;
    let per = f64::from(per.clamp(1, 1800));
    let rate = match kind.as_str() {
        "Pods" => Rate { tasks: Some(value), percent: None, per },
        "Percent" => Rate { tasks: None, percent: Some(value.into()), per },
        other => {
            let text = format!("{}: expected Pods or Percent, got {other:?}", section.at("type"));
            return Err(Problem::at(section.place, text));
        }
    };
    report.rest(section);
    Ok(rate)
}

/// One rate out of several. A step limit knows one period, and the larger of two figures.
fn selected(rates: &[Rate], select: &str, path: &str, line: usize, report: &mut Report) -> Rate {
    let first = rates[0];
    let same_period = rates.iter().all(|rate| rate.per.total_cmp(&first.per).is_eq());
    let of_one_kind = rates.iter().all(|rate| rate.tasks.is_some() == first.tasks.is_some());
    let speed = |rate: &Rate| f64::from(rate.tasks.unwrap_or(0)).max(rate.percent.unwrap_or(0.0)) / rate.per;
    let extreme = |wanted: std::cmp::Ordering| {
        rates
            .iter()
            .copied()
            .reduce(|a, b| if speed(&b).total_cmp(&speed(&a)) == wanted { b } else { a })
            .unwrap_or(first)
    };
    if select == "Max" && same_period {
        report.carried(path, "control.step");
        return Rate {
            tasks: rates.iter().filter_map(|rate| rate.tasks).max(),
            percent: rates.iter().filter_map(|rate| rate.percent).reduce(f64::max),
            per: first.per,
        };
    }
    if rates.len() == 1 || (same_period && of_one_kind) {
        report.carried(path, "control.step");
        return extreme(std::cmp::Ordering::Less);
    }
    // The one that brings about less is the one that surprises less.
    let kept = if select == "Max" && of_one_kind {
        extreme(std::cmp::Ordering::Greater)
    } else {
        extreme(std::cmp::Ordering::Less)
    };
    let of = if kept.tasks.is_some() { "Pods" } else { "Percent" };
    report.lost(
        format!("{path} with selectPolicy {select}"),
        line,
        format!(
            "a step limit has one period, and takes the larger of two figures; only the policy of type {of} with \
             periodSeconds {} is in control.step",
            kept.per
        ),
    );
    kept
}

impl Rate {
    fn lua(self) -> Lua {
        let mut fields = Vec::new();
        fields.extend(self.tasks.map(|tasks| Field::new("tasks", Lua::whole(tasks))));
        fields.extend(self.percent.map(|percent| Field::new("percent", Lua::Number(percent))));
        fields.push(Field::new("per", Lua::text(seconds(self.per))));
        Lua::Table(fields)
    }

    /// Most change from a number of tasks, in a period in which nothing else has changed.
    fn allows(self, tasks: u32) -> u32 {
        let share = self.percent.map(|percent| (percent / 100.0 * f64::from(tasks) - 1e-9).ceil() as u32);
        self.tasks.unwrap_or(0).max(share.unwrap_or(0))
    }
}

impl Rules {
    fn step(self) -> Option<Lua> {
        if self.held { Some(Lua::whole(0)) } else { self.rate.map(Rate::lua) }
    }

    /// Whether there is a rate, or nothing is allowed.
    pub(super) fn is_limited(self) -> bool {
        self.held || self.rate.is_some()
    }

    fn allows(self, tasks: u32) -> u32 {
        if self.held { 0 } else { self.rate.map_or(u32::MAX, |rate| rate.allows(tasks)) }
    }
}

impl Behavior {
    /// Below this change of the ratio nothing is done; one figure for both directions.
    pub(super) fn tolerance(&self, report: &mut Report) -> f64 {
        let (up, down) = (self.up.tolerance, self.down.tolerance);
        if up.total_cmp(&down).is_ne() {
            report.lost(
                format!("a tolerance of {up} for scaleUp and {down} for scaleDown"),
                0,
                "control.tolerance is one for both directions; the smaller one is taken",
            );
        }
        up.min(down)
    }

    /// The guards, both directions written out. `window` is false where the policy's own code keeps the window down.
    pub(super) fn guards(&self, window: bool) -> Vec<Field> {
        let down = if window { self.down.window } else { 0.0 };
        let windows =
            vec![Field::new("up", Lua::text(seconds(self.up.window))), Field::new("down", Lua::text(seconds(down)))];
        let mut fields = vec![Field::new("stabilization", Lua::Table(windows))];
        let mut step = Vec::new();
        step.extend(self.up.step().map(|limit| Field::new("up", limit)));
        step.extend(self.down.step().map(|limit| Field::new("down", limit)));
        fields.push(Field::new("step", Lua::Table(step)));
        fields
    }

    /// What the HPA makes of a number of tasks on the first look, where the ratio to the target is known of all of them:
    /// tolerance, ⌈tasks · ratio⌉, windows (which hold at first), rates, bounds.
    pub(super) fn decide(&self, tasks: u32, ratio: f64, tolerance: f64, min: u32, max: u32) -> u32 {
        if (1.0 - ratio).abs() <= tolerance {
            return tasks;
        }
        let wanted = (f64::from(tasks) * ratio - 1e-9).ceil().max(0.0) as u32;
        let to = if wanted > tasks {
            let most = if self.up.window > 0.0 { 0 } else { self.up.allows(tasks) };
            wanted.min(tasks.saturating_add(most))
        } else {
            let most = if self.down.window > 0.0 { 0 } else { self.down.allows(tasks) };
            wanted.max(tasks.saturating_sub(most))
        };
        to.clamp(min, max)
    }
}
