//! `setpoint simulate`: policies against a recorded or made-up load, under a virtual clock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use setpoint::config::ParamKey;
use setpoint::core::decision::Observation;
use setpoint::core::model::PolicyName;
use setpoint::core::policy::PolicySpec;
use setpoint::log::{Item, Log};
use setpoint::script::{Direct, Variation};
use setpoint::sim::{self, Past, Recorded, Report, Scripted, Setup};

use super::exit::{CliError, Exit};
use super::host::{self, Loader, Set};
use super::names::POLICY_SUFFIX;
use super::sources::{self, PolicyFile};
use super::{ConfigArgs, fleets, json_text, term};

mod chart;
mod plot;
mod progress;
pub(super) mod tune;
mod world;

use chart::Row;
use progress::Progress;
use world::WorldArgs;

/// What `simulate` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Policy files, or names of bundled policies; several are run one after the other on the same load.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    world: WorldArgs,

    /// Run on the samples and targets of this decision log, as they were, instead of asking the policy's functions: its
    /// law, guards and actions over a recorded past.
    #[arg(long, value_name = "LOG")]
    from_log: Option<PathBuf>,

    /// Whose decisions of the log; the policy's own name unless given.
    #[arg(long, value_name = "POLICY", requires = "from_log")]
    name: Option<String>,

    /// The row to run, when the file is a fleet; every row, one after the other, unless given.
    #[arg(long, value_name = "NAME")]
    row: Option<String>,

    /// Run with these laws instead of the policy's own, and these policy files (`*.lua`) with theirs, one after the other.
    #[arg(long, value_name = "LAW|FILE,…", value_delimiter = ',')]
    compare: Vec<String>,

    /// Set a key of the policy's `control`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    control: Vec<(String, String)>,

    /// Set a parameter.
    #[arg(long, value_name = "KEY=VALUE", value_parser = ParamKey::parse_assignment)]
    set: Vec<Set>,

    /// Print the figures as JSON: one object, or `runs` with one for each.
    #[arg(long)]
    json: bool,

    /// Draw load, tasks and metric into this file (of the last run): SVG, or PNG where its name ends in `.png`.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
The policy's own functions decide, through the code that decides in earnest; `ctx.trace` is the load and `ctx.plant` what \
the tasks make of it (`queue`, `served`, `lost`). Nothing outside is reached: `simulate = { metric = function(ctx) … end }` \
in the policy stands in for a metric that would, and with `--fakes SPEC` the modules of the spec's `fakes` stand in for the \
host's, in every function of the policy: `fakes(function(world) return { redis = … } end)`, where `world.queue`, `.trace`, \
`.running`, `.served` and `.lost` are this world's. The rows of a fleet are really looked for, unless fakes answer. A \
policy's `shadow` is not run: `--compare shadows/next.lua` runs both. The same command gives the same bytes.

Examples:
  setpoint simulate web.lua --trace requests.csv --rate-per-task 40 --startup 30s --metric-lag 15s
  setpoint simulate queue.lua --load square --low 10 --high 200 --period 10m --for 2h --queue --rate-per-task 5
  setpoint simulate web.lua --trace requests.csv --rate-per-task 40 --compare proportional,relay
  setpoint simulate web.lua --trace requests.csv --rate-per-task 40 --compare web-next.lua
  setpoint simulate queue.lua --fakes queue_test.lua --own-metric --load sine --high 200 --queue --rate-per-task 5
  setpoint simulate labelled --row web --load sine --high 300 --rate-per-task 40 --plot web.png
  setpoint simulate web.lua --from-log /var/lib/setpoint --startup 30s --compare adaptive,ratio
  setpoint simulate web.lua --trace requests.csv --outage refused=10m..12m --plot run.svg";

/// One run: which, and what came of it.
struct Ran {
    policy: String,
    law: String,
    report: Report,
    rows: Vec<Row>,
    /// The first error of the script's functions.
    error: Option<String>,
}

/// Runs and prints.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let (others, laws): (Vec<&String>, Vec<&String>) =
        args.compare.iter().partition(|what| what.ends_with(POLICY_SUFFIX));
    let own = sources::files(&sources::resolve(&args.paths)?)?;
    let others: Vec<PathBuf> = others.into_iter().map(PathBuf::from).collect();
    let others = sources::files(&sources::resolve(&others)?)?;
    let loader = Loader::new(&args.config, &args.set)?;
    let setup = args.world.setup()?;
    if args.from_log.is_some() && args.world.has_load() {
        return Err(CliError::new(Exit::Usage, "--from-log is a past of its own, and takes no --trace and no --load"));
    }
    if args.from_log.is_some() && args.world.fakes().is_some() {
        let said = "--from-log has what everything outside said, and takes no --fakes";
        return Err(CliError::new(Exit::Usage, said));
    }
    let mut runs = Vec::new();
    let laws: Vec<Option<&str>> =
        if laws.is_empty() { vec![None] } else { laws.iter().map(|law| Some(law.as_str())).collect() };
    let first = own.first().map(|file| file.name.clone());
    let own = own.iter().flat_map(|file| laws.iter().map(move |law| (file, *law, None)));
    // What is compared runs on the past of what it is compared with.
    for (file, law, whose) in own.chain(others.iter().map(|file| (file, None, first.as_deref()))) {
        let control = control(&args.control, law);
        for (name, script) in load(&loader, file, &args.world, control, args.row.as_deref()).await? {
            runs.push(match &args.from_log {
                Some(log) => {
                    let (past, setup) = recorded(args, log, whose.unwrap_or(&name), &setup)?;
                    simulate(&name, script, &setup, Some(past))
                }
                None => simulate(&name, script, &setup, None),
            });
        }
    }
    if let (Some(path), Some(last)) = (&args.plot, runs.last()) {
        draw(path, last)?;
    }
    term::print(&if args.json { json(&runs)? } else { text(&runs) })?;
    Ok(Exit::Ok)
}

/// The settings of one run: those given, and the law.
fn control(given: &[(String, String)], law: Option<&str>) -> Vec<(String, String)> {
    let law = law.map(|law| ("law".to_owned(), law.to_owned()));
    given.iter().cloned().chain(law).collect()
}

/// A policy that is ready to be run.
struct Script {
    spec: Arc<PolicySpec>,
    functions: Direct,
}

/// The policies of a file by their names: its own, or those of its rows.
async fn load(
    loader: &Loader,
    file: &PolicyFile,
    world: &WorldArgs,
    control: Vec<(String, String)>,
    row: Option<&str>,
) -> Result<Vec<(String, Script)>, CliError> {
    let variation = Variation { control, fakes: world.fakes() };
    let loaded = loader.load_varied(file, variation).await.map_err(|errors| host::wrong_policies(&errors))?;
    loader.check_sets([(file.name.as_str(), loaded.params.as_slice())])?;
    let policies = fleets::policies(loaded.content, &file.name, row).await?;
    let ready = policies.into_iter().map(|(name, policy)| {
        let functions = policy
            .script
            .direct()
            .ok_or_else(|| CliError::new(Exit::Bug, format!("the functions of `{name}` cannot be called directly")))?;
        let functions = functions.with_own_metric(world.own_metric());
        Ok::<_, CliError>((name, Script { spec: policy.spec, functions }))
    });
    ready.collect()
}

fn draw(path: &Path, ran: &Ran) -> Result<(), CliError> {
    let title = format!("{} ({})", ran.policy, ran.law);
    let bytes = if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        plot::png(&title, &ran.rows)
            .map_err(|error| CliError::new(Exit::Bug, "the run cannot be drawn as PNG").because(error))?
    } else {
        plot::svg(&title, &ran.rows).into_bytes()
    };
    std::fs::write(path, bytes).map_err(|error| CliError::io(format!("cannot write `{}`", path.display()), error))
}

/// What was observed for a policy, and the set-up that goes with it: as long, and with as many tasks at the start.
fn recorded(args: &Args, path: &Path, file: &str, setup: &Setup) -> Result<(Vec<Past>, Setup), CliError> {
    let name = args.name.as_deref().unwrap_or(file);
    let log = Log::find(path).map_err(|error| host::log(&error))?;
    let (mut past, mut first, mut refused) = (Vec::<Past>::new(), None, 0_u64);
    log.read(|item| {
        let Item::Decision { entry, .. } = item else { return };
        if entry.policy.name.as_str() != name || entry.policy.shadow.is_some() {
            return;
        }
        let (began, _) = *first.get_or_insert((entry.wall, entry.observation.counts.desired()));
        let at = entry.wall.duration_since(began).ok();
        match at.filter(|at| past.last().is_none_or(|last| last.at <= *at)) {
            Some(at) => {
                let Observation { sample, setpoint, scripted, .. } = entry.observation;
                past.push(Past { at, sample, setpoint, scripted });
            }
            // The wall clock went back.
            None => refused += 1,
        }
    })
    .map_err(|error| host::log(&error))?;
    let (Some(last), Some((_, desired))) = (past.last(), first) else {
        return Err(CliError::new(Exit::Usage, format!("there is no decision of `{name}` in `{}`", path.display()))
            .hint("--name says whose decisions are the past"));
    };
    if 0 < refused {
        tracing::warn!(refused, "decisions made while the wall clock went back were left out");
    }
    let duration = args.world.until().unwrap_or(last.at.max(Duration::from_secs(1)));
    Ok((past, Setup { duration, start: setup.start.or(Some(desired)), ..setup.clone() }))
}

fn simulate(name: &str, script: Script, setup: &Setup, past: Option<Vec<Past>>) -> Ran {
    let setup = Setup { name: PolicyName::from(name), ..setup.clone() };
    let (mut rows, mut error) = (Vec::new(), None);
    let mut progress = Progress::new(name, setup.duration);
    let watch = |tick: &sim::Tick<'_>| {
        progress.at(tick.at);
        rows.push(Row::of(tick));
        if error.is_none() {
            error = tick.errors.first().map(setpoint::script::ScriptError::report);
        }
    };
    let Script { spec, functions } = script;
    let mut functions = Scripted::new(functions);
    let report = match past {
        Some(past) => sim::run(&spec, &setup, &mut Recorded::new(past, functions), watch),
        None => sim::run(&spec, &setup, &mut functions, watch),
    };
    Ran { policy: name.to_owned(), law: spec.control.law.name().to_owned(), report, rows, error }
}

fn json(runs: &[Ran]) -> Result<String, CliError> {
    let one = |ran: &Ran| {
        let mut value = serde_json::to_value(&ran.report)
            .map_err(|error| CliError::new(Exit::Bug, "the report cannot be written as JSON").because(error))?;
        value["policy"] = ran.policy.as_str().into();
        value["law"] = ran.law.as_str().into();
        value["error"] = ran.error.as_deref().into();
        Ok::<_, CliError>(value)
    };
    match runs {
        [ran] => Ok(json_text(&one(ran)?)),
        runs => {
            let runs = runs.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            Ok(json_text(&serde_json::json!({ "runs": runs })))
        }
    }
}

fn text(runs: &[Ran]) -> String {
    let mut text = table(runs.iter().map(|ran| (format!("{} ({})", ran.policy, ran.law), &ran.report)));
    for ran in runs {
        text += &format!("\n{} ({})\n{}", ran.policy, ran.law, chart::sparklines(&ran.rows));
        if let Some(ended) = &ran.report.ended {
            text += &format!("  ended early: {ended}\n");
        }
        if let Some(error) = &ran.error {
            text += &format!("  {} errors of the script, the first:\n{error}\n", ran.report.script_errors);
        }
    }
    text
}

/// The figures side by side.
fn table<'a>(runs: impl Iterator<Item = (String, &'a Report)>) -> String {
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let mut lines =
        vec![["", "task-h", "× min", "over min", "lost %", "changes", "p95 dev", "settled s"].map(str::to_owned)];
    lines.extend(runs.map(|(name, report)| {
        [
            name,
            format!("{:.2}", report.task_hours),
            optional(report.ratio),
            format!("{:.1}", report.minutes_over_capacity),
            format!("{:.3}", report.lost_percent),
            report.changes.to_string(),
            optional(report.p95_deviation),
            optional(report.settling_seconds),
        ]
    }));
    let widths: Vec<usize> =
        (0..8).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text.push('\n');
    }
    text
}

/// `key=value`.
fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() || value.is_empty() {
        return Err("expected KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Values by name, for those who look them up.
type Weights = BTreeMap<String, f64>;

/// A duration as a flag's value.
fn duration(text: &str) -> Result<Duration, String> {
    setpoint::config::units::parse_duration(text).map_err(|error| error.to_string())
}
