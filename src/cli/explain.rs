//! `setpoint explain`: why a policy did, or did not, scale, in words.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};
use setpoint::core::decision::Decision;
use setpoint::core::model::Sample;
use setpoint::http::dto::{DecisionJson, SampleJson, Time};
use setpoint::log::{self, Comparison, Entry, Item, Log, Pair};

use super::client::{Client, ServerArgs, read};
use super::dto::Policy;
use super::exit::{CliError, Exit};
use super::{ConfigArgs, host, json_text, term, units};

/// Ticks on which a shadow differed that are shown, and how many in JSON.
const FIRST: usize = 10;
const FIRST_IN_JSON: usize = 1000;

/// What `explain` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The policy.
    #[arg(value_name = "POLICY")]
    policy: String,

    /// Explain the last decision up to this time: `2026-01-31T14:05:00Z`, `2026-01-31 14:05` (local time), or `10m` ago.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,

    /// How many decisions, the last one last.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    last: u32,

    /// Read this decision log: its folder, a file of it, or the state folder that it is in.
    #[arg(long, value_name = "PATH")]
    decision_log: Option<PathBuf>,

    /// Compare the policy's shadow with it, over the whole log: on how many ticks they agreed, and where they first did not.
    #[arg(long, conflicts_with_all = ["at", "last"])]
    shadow: bool,

    /// Print the decisions as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
Decisions come from the decision log, which `run --state-dir DIR` keeps in DIR/decisions: that of --decision-log, or of \
the configuration. Without one, the running setpoint is asked for its last decision. A shadow's decisions stand below \
those of the policy that acts; they are made on that policy's tasks, so they say what it would do next, not where it \
would have led.

Examples:
  setpoint explain queue
  setpoint explain queue --last 20 --decision-log /var/lib/setpoint
  setpoint explain queue --at 10m --json
  setpoint explain queue --shadow";

/// Explains.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let text = match folder(args)? {
        Some(path) if args.shadow => compared(args, &path)?,
        Some(path) => from_log(args, &path)?,
        None => from_server(args).await?,
    };
    term::print(&text)?;
    Ok(Exit::Ok)
}

/// The log to read; none when there is none, or a server is named.
fn folder(args: &Args) -> Result<Option<PathBuf>, CliError> {
    if let Some(path) = &args.decision_log {
        return Ok(Some(path.clone()));
    }
    if args.server.server.is_some() {
        return Ok(None);
    }
    let config = host::configure(host::flags(&args.config, &[]))?;
    Ok(host::decision_log(&config).map(|log| log.folder).filter(|folder| folder.is_dir()))
}

fn from_log(args: &Args, path: &Path) -> Result<String, CliError> {
    let log = Log::find(path).map_err(|error| host::log(&error))?;
    let (mut found, mut names) = (VecDeque::<Entry>::new(), BTreeSet::new());
    let most = args.last as usize;
    let mut own = 0;
    log.read(|item| {
        let Item::Decision { entry, .. } = item else { return };
        if entry.policy.name.as_str() != args.policy {
            names.insert(entry.policy.name.clone());
            return;
        }
        if args.at.is_some_and(|at| Timestamp::try_from(entry.wall).is_ok_and(|wall| at < wall)) {
            return;
        }
        own += usize::from(entry.policy.shadow.is_none());
        found.push_back(*entry);
        // What a shadow says goes with the decision before it.
        while most < own
            && let Some(oldest) = found.pop_front()
        {
            own -= usize::from(oldest.policy.shadow.is_none());
            while found.front().is_some_and(|next| next.policy.shadow.is_some()) {
                found.pop_front();
            }
        }
    })
    .map_err(|error| host::log(&error))?;
    if found.is_empty() {
        return Err(nothing(args, &names));
    }
    if args.json {
        let mut comparison = Comparison::default();
        let decisions: Vec<Value> = found
            .iter()
            .map(|entry| {
                let mut told = value(entry);
                let pair = comparison.take(Box::new(entry.clone()));
                told["difference"] = json!(pair.map(|pair| pair.difference));
                told
            })
            .collect();
        return Ok(json_text(&json!({ "decisions": decisions })));
    }
    let mut comparison = Comparison::default();
    Ok(found
        .iter()
        .map(|entry| match comparison.take(Box::new(entry.clone())) {
            Some(pair) => differing(&pair),
            None => line(entry),
        })
        .collect())
}

/// A shadow's decision in a line, with what it makes of the one before.
fn differing(pair: &Pair) -> String {
    format!("{} ({})\n", line(&pair.shadow).trim_end(), log::difference_in_words(pair.difference))
}

/// A policy's shadow beside it, over the whole log.
fn compared(args: &Args, path: &Path) -> Result<String, CliError> {
    let log = Log::find(path).map_err(|error| host::log(&error))?;
    let (mut comparison, mut names) = (Comparison::default(), BTreeSet::new());
    let (mut first, mut span) = (Vec::new(), None::<(SystemTime, SystemTime)>);
    let most = if args.json { FIRST_IN_JSON } else { FIRST };
    log.read(|item| {
        let Item::Decision { entry, .. } = item else { return };
        if entry.policy.name.as_str() != args.policy {
            names.insert(entry.policy.name.clone());
            return;
        }
        let Some(pair) = comparison.take(entry) else { return };
        let wall = pair.acting.wall;
        span = Some((span.map_or(wall, |(from, _)| from), wall));
        if pair.difference != 0 && first.len() < most {
            first.push(pair);
        }
    })
    .map_err(|error| host::log(&error))?;
    let Some((from, to)) = span else {
        if comparison.alone() == 0 {
            return Err(nothing(args, &names));
        }
        return Err(CliError::new(Exit::Usage, format!("the log has no decision of a shadow of `{}`", args.policy))
            .hint("`shadow = \"other.lua\"` in its table names one"));
    };
    let tally = comparison.tally();
    if args.json {
        let pair = |Pair { acting, shadow, difference }: &Pair| json!({ "acting": value(acting), "shadow": value(shadow), "difference": difference });
        return Ok(json_text(&json!({
            "policy": args.policy,
            "from": Time(from),
            "to": Time(to),
            "compared": tally,
            "not_compared": comparison.alone(),
            "differences": first.iter().map(pair).collect::<Vec<_>>(),
        })));
    }
    let mut text = format!("{}\n", log::tally_in_words(&tally));
    if 0 < comparison.alone() {
        text.push_str(&format!("{} more ticks are without its decision\n", comparison.alone()));
    }
    for pair in &first {
        text.push_str(&format!("\n{}{}", line(&pair.acting), differing(pair)));
    }
    Ok(text)
}

fn nothing(args: &Args, names: &BTreeSet<setpoint::core::model::PolicyName>) -> CliError {
    let when = if args.at.is_some() { " up to that time" } else { "" };
    let told = CliError::new(Exit::Usage, format!("the log has no decision of `{}`{when}", args.policy));
    if names.is_empty() {
        return told;
    }
    let some: Vec<&str> = names.iter().take(10).map(setpoint::core::model::PolicyName::as_str).collect();
    told.hint(format!("it has decisions of: {}", some.join(", ")))
}

/// A decision in a line.
pub(super) fn line(entry: &Entry) -> String {
    let who = entry.policy.shadow.as_ref().map(|path| format!("shadow {path}: ")).unwrap_or_default();
    format!("{}  {who}{}\n", when(entry), log::sentence(entry))
}

/// When a decision was made.
pub(super) fn when(entry: &Entry) -> String {
    Timestamp::try_from(entry.wall).map_or_else(|_| "?".to_owned(), |time| format!("{time:.3}"))
}

/// A decision as JSON.
pub(super) fn value(entry: &Entry) -> Value {
    let decision = entry.carried_out();
    json!({
        "time": Time(entry.wall),
        "policy": entry.policy.name.as_str(),
        "shadow": entry.policy.shadow,
        "generation": entry.policy.generation,
        "sha256": entry.policy.sha256,
        "tick": entry.tick,
        "sample": SampleJson::from(&entry.observation.sample),
        "setpoint": entry.observation.setpoint,
        "decision": DecisionJson::from(&decision),
        "acted": entry.outcome.acted,
        "text": log::sentence(entry),
    })
}

/// The last decision of a running setpoint.
async fn from_server(args: &Args) -> Result<String, CliError> {
    if args.at.is_some() || args.last != 1 {
        return Err(CliError::new(
            Exit::Usage,
            "there is no decision log here, and a running setpoint tells only its last decision",
        )
        .hint("--decision-log names a log; `run --state-dir DIR` keeps one in DIR/decisions"));
    }
    let answer = Client::new(&args.server)?.policy(&args.policy).await?;
    if args.json {
        return Ok(json_text(&answer));
    }
    let policy: Policy = read(answer)?;
    if args.shadow {
        return match &policy.shadow {
            Some(shadow) => Ok(format!("{}\n", log::tally_in_words(&shadow.compared))),
            None => Err(CliError::new(Exit::Usage, format!("`{}` has no shadow", policy.name))),
        };
    }
    let Some(decision) = &policy.decision else { return Ok(format!("`{}` has not decided yet\n", policy.name)) };
    let sample = sampled(policy.sample.as_ref());
    let plain = Decision {
        at: setpoint::core::time::Timestamp::ZERO,
        desired: decision.desired,
        raw: decision.raw,
        adjustment: decision.adjustment,
        to_min: 0,
        reasons: Vec::new(),
    };
    let dry_run = decision.reasons.iter().any(|reason| reason.guard == "dry_run");
    let text = log::say(
        &log::setting_in_words(&sample, policy.setpoint, decision.desired),
        decision.raw,
        decision.reasons.iter().map(|reason| reason.text.clone()),
        &log::outcome_in_words(&plain, policy.acted, dry_run),
    );
    let when = policy.last_tick.map_or_else(String::new, |time| format!("{time:.3}  "));
    let mut told = format!("{when}{text}\n");
    if let Some(shadow) = &policy.shadow
        && let Some(decision) = &shadow.decision
    {
        let text = log::say(
            &log::setting_in_words(&sampled(shadow.sample.as_ref()), shadow.setpoint, decision.desired),
            decision.raw,
            decision.reasons.iter().map(|reason| reason.text.clone()),
            &log::would_in_words(decision.desired, decision.adjustment),
        );
        let difference = log::difference_in_words(shadow.difference.unwrap_or_default());
        told.push_str(&format!("{when}shadow {}: {text} ({difference})\n", shadow.script.path));
    }
    Ok(told)
}

/// A sample of the API's as the core has it.
fn sampled(sample: Option<&super::dto::Sample>) -> Sample {
    let Some(sample) = sample else { return Sample::Missing };
    let age = Duration::try_from_secs_f64(sample.age_seconds.unwrap_or_default()).unwrap_or_default();
    match (sample.kind.as_str(), sample.value) {
        ("value", Some(value)) => Sample::Value { value, age, reported: None },
        ("stale", Some(value)) => Sample::Stale { value, age },
        ("error", _) => Sample::Error { message: sample.message.as_deref().unwrap_or("error").into() },
        _ => Sample::Missing,
    }
}

/// Reads a time: absolute, local, or so long ago.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(ago) = units::parse_duration(text) {
        return Timestamp::now().checked_sub(ago).map_err(|error| error.to_string());
    }
    let local = text.parse::<jiff::civil::DateTime>().and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()));
    local
        .map(|zoned| zoned.timestamp())
        .map_err(|_| format!("expected a time such as `2026-01-31T14:05:00Z` or `10m` (ago), got `{text}`"))
}
