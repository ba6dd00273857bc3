//! `setpoint tune`: a search for good values of a policy's control settings on a load.
//!
//! Half of the tries are drawn evenly (on a logarithmic scale, where a range spans more than a decade) from the ranges, the
//! other half around the best so far, ever closer. Seeded: the same search finds the same.

use std::path::PathBuf;

use setpoint::config::ParamKey;
use setpoint::core::policy::{Control, LawSpec};
use setpoint::sim::Report;

use super::super::exit::{CliError, Exit};
use super::super::host::{Loader, Set};
use super::super::sources::PolicyFile;
use super::super::{ConfigArgs, json_text, sources, term};
use super::world::WorldArgs;
use super::{Script, Weights, duration, load, simulate, table};

/// What `tune` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A policy file, or the name of a bundled policy.
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// A key of `control` and its range: numbers, or durations (`lag=0s..60s`); the law's own parameters, around what they
    /// are now, if none is given.
    #[arg(long, value_name = "KEY=FROM..TO", value_parser = range)]
    vary: Vec<Range>,

    /// What a task-hour beyond the minimum, a minute over capacity and a change cost.
    #[arg(long, value_name = "WHAT=COST,…", value_delimiter = ',', value_parser = weight,
          default_values = ["hours=1", "minutes=1", "changes=0.01"])]
    weights: Vec<(String, f64)>,

    /// How many runs.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    tries: u32,

    /// How many of the best to show.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,

    #[command(flatten)]
    world: WorldArgs,

    /// Set a parameter.
    #[arg(long, value_name = "KEY=VALUE", value_parser = ParamKey::parse_assignment)]
    set: Vec<Set>,

    /// Print as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
The first line is the policy as it is. The load is known to the search: what is best on it need not be best on another, \
so tune on one recording and look at the result on a second one with `simulate --control`.

Examples:
  setpoint tune web.lua --trace requests.csv --rate-per-task 40
  setpoint tune web.lua --trace requests.csv --rate-per-task 40 --vary per_task=0.5..20 --vary cooldown.down=0s..10m
  setpoint tune web.lua --load square --high 400 --rate-per-task 40 --vary lag=0s..60s --weights minutes=10";

/// A setting and the values that it may have.
#[derive(Clone, Debug)]
struct Range {
    key: String,
    from: f64,
    to: f64,
    seconds: bool,
    /// Whole numbers only.
    whole: bool,
}

impl Range {
    fn new(key: &str, from: f64, to: f64) -> Self {
        Self { key: key.to_owned(), from, to, seconds: false, whole: false }
    }

    fn seconds(key: &str, to: f64) -> Self {
        Self { seconds: true, ..Self::new(key, 0.0, to) }
    }

    fn whole(key: &str, from: f64, to: f64) -> Self {
        Self { whole: true, ..Self::new(key, from, to) }
    }

    /// From an eighth of a value to eight times as much.
    fn around(key: &str, value: f64) -> Self {
        Self::new(key, value / 8.0, value * 8.0)
    }
}

/// One run of the search.
struct Try {
    at: Vec<f64>,
    cost: f64,
    report: Report,
}

/// Searches and prints.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let files = sources::files(&sources::resolve(std::slice::from_ref(&args.path))?)?;
    let [file] = files.as_slice() else {
        return Err(CliError::new(Exit::Usage, format!("`{}` has {} policies", args.path.display(), files.len())));
    };
    let loader = Loader::new(&args.config, &args.set)?;
    let setup = args.world.setup()?;
    let mut weights =
        Weights::from([("hours".to_owned(), 1.0), ("minutes".to_owned(), 1.0), ("changes".to_owned(), 0.01)]);
    weights.extend(args.weights.iter().cloned());
    let policy = one(&loader, file, &args.world, Vec::new()).await?;
    let vary = if args.vary.is_empty() { of_law(&policy.spec.control)? } else { args.vary.clone() };
    let as_is = simulate(&file.name, policy, &setup, None);
    if let Some(error) = as_is.error {
        return Err(CliError::new(Exit::Config, format!("the policy fails in the simulation:\n{error}")));
    }
    let mut random = fastrand::Rng::with_seed(setup.seed);
    let mut tries: Vec<Try> = Vec::new();
    for n in 0..args.tries {
        let best = tries.first().filter(|_| args.tries / 2 <= n).map(|best| best.at.clone());
        let reach = f64::from(args.tries - n) / f64::from(args.tries);
        let at = draw(&vary, best.as_deref(), reach, &mut random);
        let policy = one(&loader, file, &args.world, settings(&vary, &at)).await?;
        let report = simulate(&file.name, policy, &setup, None).report;
        tries.push(Try { at, cost: cost(&report, &weights), report });
        tries.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    }
    tries.truncate(args.top.max(1));
    let text = if args.json {
        json(&vary, &as_is.report, &weights, &tries)
    } else {
        lines(&vary, &as_is.report, &weights, &tries)
    };
    term::print(&text)?;
    Ok(Exit::Ok)
}

/// What there is to be tuned of a law when nothing is said: its own parameters, from far below what they are now to far above,
/// and what keeps it from going back and forth.
fn of_law(control: &Control) -> Result<Vec<Range>, CliError> {
    let seconds = |now: std::time::Duration, least: f64| (4.0 * now.as_secs_f64()).max(least);
    let lag = Range::seconds("lag", seconds(control.lag, 60.0));
    let cooldown = Range::seconds("cooldown.down", seconds(control.cooldown.down, 300.0));
    let back = Range::seconds("stabilization.down", seconds(control.stabilization.down, 300.0));
    Ok(match &control.law {
        LawSpec::Adaptive(tuning) => vec![Range::around("per_task", tuning.per_task), lag, back],
        LawSpec::Proportional { per_task } => vec![Range::around("per_task", *per_task), lag, cooldown],
        LawSpec::Pid(gains) => vec![
            Range::around("kp", if gains.kp > 0.0 { gains.kp } else { 1.0 / gains.per_task }),
            // Between none and what would do the proportional part's work in some seconds.
            Range::new("ki", 0.0, (8.0 * gains.ki).max(gains.kp / 10.0)),
            Range::new("kd", 0.0, (8.0 * gains.kd).max(gains.kp * 10.0)),
            lag,
        ],
        LawSpec::Ratio { tolerance } => vec![Range::new("tolerance", 0.0, (4.0 * tolerance).max(0.3)), back],
        LawSpec::Relay { .. } => vec![Range::whole("lookback", 2.0, 1000.0), Range::whole("ramp", 1.0, 10.0), lag],
        LawSpec::Step { tiers, hysteresis } => {
            let least = tiers.iter().map(|tier| tier.at.abs()).filter(|at| 0.0 < *at).fold(f64::MAX, f64::min);
            let most = if least < f64::MAX { least / 2.0 } else { 1.0 };
            let up = Range::seconds("cooldown.up", seconds(control.cooldown.up, 120.0));
            vec![Range::new("hysteresis", 0.0, most.max(2.0 * hysteresis)), up, cooldown]
        }
        law @ (LawSpec::Count { .. } | LawSpec::Decide) => {
            let said = format!("the law \"{}\" has no parameters of its own to be tuned", law.name());
            return Err(CliError::new(Exit::Usage, said).hint("say what to vary, as in --vary cooldown.down=0s..10m"));
        }
    })
}

/// A file that is one policy.
async fn one(
    loader: &Loader,
    file: &PolicyFile,
    world: &WorldArgs,
    control: Vec<(String, String)>,
) -> Result<Script, CliError> {
    let [(_, policy)] = <[_; 1]>::try_from(load(loader, file, world, control, None).await?).map_err(|rows| {
        CliError::new(Exit::Usage, format!("`{}` is a fleet of {} rows", file.name, rows.len()))
            .hint("tune takes a file that is one policy, or a fleet of one row")
    })?;
    Ok(policy)
}

/// What a run costs.
fn cost(report: &Report, weights: &Weights) -> f64 {
    let weight = |name: &str| weights.get(name).copied().unwrap_or(0.0);
    // Fewer than needed is no saving: what it loses shows in the minutes.
    let beyond = (report.task_hours - report.clairvoyant_task_hours.unwrap_or(0.0)).max(0.0);
    weight("hours") * beyond
        + weight("minutes") * report.minutes_over_capacity
        + weight("changes") * report.changes as f64
}

/// A point in the ranges: anywhere, or within `reach` of their width around `best`.
fn draw(ranges: &[Range], best: Option<&[f64]>, reach: f64, random: &mut fastrand::Rng) -> Vec<f64> {
    let mut at = Vec::with_capacity(ranges.len());
    for (index, range) in ranges.iter().enumerate() {
        let logarithmic = 0.0 < range.from && 10.0 * range.from < range.to;
        let there = |value: f64| if logarithmic { value.ln() } else { value };
        let back = |value: f64| if logarithmic { value.exp() } else { value };
        let (from, to) = (there(range.from), there(range.to));
        let drawn = match best {
            Some(best) => {
                let width = (to - from) * reach * 0.5;
                (there(best[index]) + width * (2.0 * random.f64() - 1.0)).clamp(from, to)
            }
            None => from + (to - from) * random.f64(),
        };
        at.push(back(drawn).clamp(range.from, range.to));
    }
    at
}

/// A point as settings.
fn settings(ranges: &[Range], at: &[f64]) -> Vec<(String, String)> {
    let text = |range: &Range, value: f64| match range {
        Range { seconds: true, .. } => format!("{}ms", (value * 1000.0).round()),
        Range { whole: true, .. } => format!("{}", value.round()),
        _ => format!("{value:.6}"),
    };
    ranges.iter().zip(at).map(|(range, value)| (range.key.clone(), text(range, *value))).collect()
}

fn lines(vary: &[Range], as_is: &Report, weights: &Weights, tries: &[Try]) -> String {
    let shown = |at: &[f64]| {
        let pairs = settings(vary, at);
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    let name = |cost: f64, what: &str| format!("{cost:>10.2}  {what}");
    let first = std::iter::once((name(cost(as_is, weights), "as it is"), as_is));
    table(first.chain(tries.iter().map(|tried| (name(tried.cost, &shown(&tried.at)), &tried.report))))
}

fn json(vary: &[Range], as_is: &Report, weights: &Weights, tries: &[Try]) -> String {
    let one = |tried: &Try| {
        let control: serde_json::Map<_, _> =
            settings(vary, &tried.at).into_iter().map(|(key, value)| (key, value.into())).collect();
        serde_json::json!({ "cost": tried.cost, "control": control, "report": tried.report })
    };
    json_text(&serde_json::json!({
        "as_it_is": { "cost": cost(as_is, weights), "report": as_is },
        "tries": tries.iter().map(one).collect::<Vec<_>>(),
    }))
}

fn range(text: &str) -> Result<Range, String> {
    const EXPECTED: &str = "expected KEY=FROM..TO, as in per_task=1..10 or lag=0s..60s";
    let (key, values) = text.split_once('=').ok_or(EXPECTED)?;
    let (from, to) = values.split_once("..").ok_or(EXPECTED)?;
    let numbers = from.parse::<f64>().ok().zip(to.parse::<f64>().ok());
    let (from, to, seconds) = match numbers {
        Some((from, to)) => (from, to, false),
        None => (duration(from)?.as_secs_f64(), duration(to)?.as_secs_f64(), true),
    };
    if !(from.is_finite() && to.is_finite() && from <= to) || key.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    Ok(Range { seconds, ..Range::new(key, from, to) })
}

fn weight(text: &str) -> Result<(String, f64), String> {
    const EXPECTED: &str = "expected hours=N, minutes=N or changes=N";
    let (name, cost) = text.split_once('=').ok_or(EXPECTED)?;
    let cost = cost.parse::<f64>().ok().filter(|cost| cost.is_finite() && 0.0 <= *cost).ok_or(EXPECTED)?;
    if !["hours", "minutes", "changes"].contains(&name) {
        return Err(EXPECTED.to_owned());
    }
    Ok((name.to_owned(), cost))
}
