//! `setpoint explain`: why a policy did, or did not, scale, in words.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use setpoint::core::decision::Decision;
use setpoint::core::model::Sample;
use setpoint::http::dto::{DecisionJson, SampleJson, Time};
use setpoint::log::{self, Entry, Item, Log};

use super::client::{Client, ServerArgs, read};
use super::dto::Policy;
use super::exit::{CliError, Exit};
use super::{ConfigArgs, host, json_text, term, units};

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
the configuration. Without one, the running setpoint is asked for its last decision.

Examples:
  setpoint explain queue
  setpoint explain queue --last 20 --decision-log /var/lib/setpoint
  setpoint explain queue --at 10m --json";

/// Explains.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let text = match folder(args)? {
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
        let decisions: Vec<Value> = found.iter().map(value).collect();
        return Ok(json_text(&json!({ "decisions": decisions })));
    }
    Ok(found.iter().map(line).collect())
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
    let Some(decision) = &policy.decision else { return Ok(format!("`{}` has not decided yet\n", policy.name)) };
    let age = policy.sample.as_ref().and_then(|sample| sample.age_seconds).unwrap_or_default();
    let age = Duration::try_from_secs_f64(age).unwrap_or_default();
    let sample = policy.sample.as_ref().map(|sample| match (sample.kind.as_str(), sample.value) {
        ("value", Some(value)) => Sample::Value { value, age, reported: None },
        ("stale", Some(value)) => Sample::Stale { value, age },
        ("error", _) => Sample::Error { message: sample.message.as_deref().unwrap_or("error").into() },
        _ => Sample::Missing,
    });
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
        &log::setting_in_words(&sample.unwrap_or(Sample::Missing), policy.setpoint, decision.desired),
        decision.raw,
        decision.reasons.iter().map(|reason| reason.text.clone()),
        &log::outcome_in_words(&plain, policy.acted, dry_run),
    );
    let when = policy.last_tick.map_or_else(String::new, |time| format!("{time:.3}  "));
    Ok(format!("{when}{text}\n"))
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
