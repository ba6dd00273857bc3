//! `setpoint replay`: a log's decisions made again, bit for bit, or by another policy's rules.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};
use setpoint::config::ParamKey;
use setpoint::core::decide::Config;
use setpoint::core::decision::Decision;
use setpoint::core::model::PolicyName;
use setpoint::core::policy::LawSpec;
use setpoint::http::dto::DecisionJson;
use setpoint::log::{Alternative, Entry, Item, Log, Replay, Verdict};

use super::exit::{CliError, Exit};
use super::explain::{line, time, value, when};
use super::host::{self, Loader, Set};
use super::{ConfigArgs, fleets, json_text, sources, term};

/// Differences that are shown as text.
const SHOWN: usize = 20;

/// What `replay` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The decision log: its folder, a file of it, or the state folder that it is in.
    #[arg(value_name = "LOG")]
    path: PathBuf,

    /// Only decisions of this policy.
    #[arg(long, value_name = "POLICY")]
    name: Option<String>,

    /// Show each policy's last decision up to this time, as it was and as it comes out now.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "policy")]
    at: Option<Timestamp>,

    /// Decide by the law, guards and bounds of this file instead, and say where that would have been otherwise.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// The row that decides instead, when that file is a fleet; each row in its own place unless given.
    #[arg(long, value_name = "NAME", requires = "policy")]
    row: Option<String>,

    /// Set a parameter of that file.
    #[arg(long, value_name = "KEY=VALUE", value_parser = ParamKey::parse_assignment, requires = "policy")]
    set: Vec<Set>,

    /// Print the result as JSON, with every difference.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
The exit code is 1 when a decision comes out otherwise. With --policy the world stays as it was: the samples, the tasks \
and what was carried out are the recorded ones, and the policy of the file's name is the one that it stands in for, \
unless --name says otherwise.

Examples:
  setpoint replay /var/lib/setpoint
  setpoint replay /var/lib/setpoint --name queue --at 10m
  setpoint replay /var/lib/setpoint --policy queue.lua --set max=60";

/// What is said of a log besides its decisions.
#[derive(Default)]
struct Gaps {
    unknown: u64,
    lost: u64,
    damaged: u64,
    torn: u64,
}

impl Gaps {
    fn note(&mut self, item: &Item<'_>) {
        match item {
            Item::Decision { .. } => {}
            Item::Lost(records) => self.lost += records,
            Item::Unreadable => self.unknown += 1,
            Item::Damaged { bytes, .. } => self.damaged += *bytes as u64,
            Item::Torn { bytes, .. } => self.torn += *bytes as u64,
        }
    }

    fn json(&self) -> Value {
        json!({
            "not_replayable": self.unknown, "lost": self.lost, "damaged_bytes": self.damaged, "torn_bytes": self.torn,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |n: u64, what: &str| {
            if 0 < n {
                text.push_str(&format!("{n} {what}\n"));
            }
        };
        add(self.unknown, "more could not be made again: the state before them is not in the log");
        add(self.lost, "more were made and are not in the log: its writer was behind, or could not write");
        add(self.damaged, "bytes of the log are damaged and were passed over");
        add(self.torn, "bytes at the end are a record that was not written to its end");
        text
    }
}

/// A decision that came out otherwise.
struct Difference {
    entry: Entry,
    /// None where only the recorded state is another one.
    now: Option<Decision>,
}

/// Replays and tells.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let log = Log::find(&args.path).map_err(|error| host::log(&error))?;
    if let Some(file) = &args.policy {
        return instead(args, &log, file).await;
    }
    let wanted = |entry: &Entry| args.name.as_deref().is_none_or(|name| entry.policy.name.as_str() == name);
    let (mut replay, mut gaps, mut differences) = (Replay::default(), Gaps::default(), Vec::new());
    let (mut decisions, mut at_time) = (0_u64, BTreeMap::<(PolicyName, bool), (Entry, Verdict)>::new());
    log.read(|item| {
        gaps.note(&item);
        let Item::Decision { entry, follows } = item else { return };
        if !wanted(&entry) || args.at.is_some_and(|at| Timestamp::try_from(entry.wall).is_ok_and(|wall| at < wall)) {
            return;
        }
        let verdict = replay.take(&entry, follows);
        match &verdict {
            Verdict::Identical => decisions += 1,
            Verdict::Unknown => gaps.unknown += 1,
            Verdict::Different(now) => {
                decisions += 1;
                differences.push(Difference { entry: (*entry).clone(), now: Some((**now).clone()) });
            }
            Verdict::OtherState => {
                decisions += 1;
                differences.push(Difference { entry: (*entry).clone(), now: None });
            }
        }
        if args.at.is_some() {
            at_time.insert((entry.policy.name.clone(), entry.policy.shadow.is_some()), (*entry, verdict));
        }
    })
    .map_err(|error| host::log(&error))?;
    if decisions == 0 && gaps.unknown == 0 {
        return Err(none_found(args));
    }
    let text = if args.json {
        let shown: Vec<Value> = at_time.values().map(|(entry, verdict)| made_again(entry, verdict)).collect();
        json_text(&json!({
            "decisions": decisions,
            "differences": differences.iter().map(difference).collect::<Vec<_>>(),
            "gaps": gaps.json(),
            "at": args.at.map(|_| shown),
        }))
    } else {
        let shown: String = at_time.values().map(|(entry, verdict)| line(entry) + &words(verdict)).collect();
        shown + &summary(decisions, &differences) + &gaps.text()
    };
    term::print(&text)?;
    Ok(if differences.is_empty() && 0 < decisions { Exit::Ok } else { Exit::Findings })
}

fn none_found(args: &Args) -> CliError {
    let whose = args.name.as_ref().map(|name| format!(" of `{name}`")).unwrap_or_default();
    CliError::new(Exit::Usage, format!("there is no decision{whose} in `{}`", args.path.display()))
}

fn plural(n: u64) -> String {
    format!("{n} decision{}", if n == 1 { "" } else { "s" })
}

fn summary(decisions: u64, differences: &[Difference]) -> String {
    if differences.is_empty() {
        return format!("{}, all identical\n", plural(decisions));
    }
    let mut text = format!("{}, {} otherwise:\n", plural(decisions), differences.len());
    for Difference { entry, now } in differences.iter().take(SHOWN) {
        let now = now
            .as_ref()
            .map_or_else(|| "the same, from another state than the log has next".to_owned(), |now| chain(now.raw, now));
        text.push_str(&format!(
            "{}  {} tick {}: was {}; is {now}\n",
            when(entry),
            entry.policy.name,
            entry.tick,
            chain(entry.decision.raw, &entry.decision),
        ));
    }
    if SHOWN < differences.len() {
        text.push_str(&format!("… and {} more (--json shows all)\n", differences.len() - SHOWN));
    }
    text
}

fn chain(raw: i64, decision: &Decision) -> String {
    let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
    format!("raw {raw:+} → {:+}{reasons}", decision.adjustment)
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Identical => "  made again: identical\n".to_owned(),
        Verdict::Unknown => "  cannot be made again: the state before it is not in the log\n".to_owned(),
        Verdict::Different(now) => format!("  made again: {}\n", chain(now.raw, now)),
        Verdict::OtherState => "  made again: identical, from another state than the log has\n".to_owned(),
    }
}

fn made_again(entry: &Entry, verdict: &Verdict) -> Value {
    let mut told = value(entry);
    let (identical, now) = match verdict {
        Verdict::Identical => (Some(true), None),
        Verdict::Unknown => (None, None),
        Verdict::Different(now) => (Some(false), Some(&**now)),
        Verdict::OtherState => (Some(false), None),
    };
    told["identical"] = identical.into();
    told["now"] = json!(now.map(DecisionJson::from));
    told
}

fn difference(difference: &Difference) -> Value {
    let mut told = value(&difference.entry);
    told["decision"] = json!(DecisionJson::from(&difference.entry.decision));
    told["now"] = json!(difference.now.as_ref().map(DecisionJson::from));
    told
}

/// Another policy in the place of a recorded one.
async fn instead(args: &Args, log: &Log, file: &std::path::Path) -> Result<Exit, CliError> {
    let source = sources::resolve(std::slice::from_ref(&file.to_owned()))?;
    let [file] = <[_; 1]>::try_from(sources::files(&source)?)
        .map_err(|files| CliError::new(Exit::Usage, format!("--policy takes one file, got {}", files.len())))?;
    let loader = Loader::new(&args.config, &args.set)?;
    let loaded = loader.load(&file).await.map_err(|errors| host::wrong_policies(&errors))?;
    loader.check_sets([(file.name.as_str(), loaded.params.as_slice())])?;
    let policies = fleets::policies(loaded.content, &file.name, args.row.as_deref()).await?;
    if 1 < policies.len() && args.name.is_some() {
        return Err(CliError::new(
            Exit::Usage,
            "--name says whose decisions one policy stands in for, and this is a fleet",
        )
        .hint("--row names one of its rows"));
    }
    let whose = |name: String| args.name.clone().unwrap_or(name);
    let mut instead: BTreeMap<String, (Alternative, bool)> = policies
        .into_iter()
        .map(|(name, policy)| {
            let alternative = Alternative::new(Config::from(&*policy.spec).into());
            (whose(name), (alternative, policy.spec.control.law == LawSpec::Decide))
        })
        .collect();
    let (mut gaps, mut decisions, mut otherwise) = (Gaps::default(), 0_u64, Vec::new());
    let mut unanswered = false;
    log.read(|item| {
        gaps.note(&item);
        let Item::Decision { entry, .. } = item else { return };
        if entry.policy.shadow.is_some() {
            return;
        }
        let Some((alternative, scripted)) = instead.get_mut(entry.policy.name.as_str()) else { return };
        unanswered |= *scripted && entry.observation.scripted.is_none();
        match alternative.take(&entry) {
            None => gaps.unknown += 1,
            Some(now) => {
                decisions += 1;
                if now.adjustment != entry.decision.adjustment {
                    otherwise.push(Difference { entry: *entry, now: Some(now) });
                }
            }
        }
    })
    .map_err(|error| host::log(&error))?;
    if unanswered {
        return Err(CliError::new(Exit::Usage, format!("`{}` decides by its own function", file.name))
            .hint("the log has no answers of it, and replay calls no function of a policy"));
    }
    if decisions == 0 && gaps.unknown == 0 {
        return Err(CliError::new(
            Exit::Usage,
            format!(
                "there is no decision of `{}` in `{}`",
                instead.into_keys().collect::<Vec<_>>().join("`, `"),
                args.path.display()
            ),
        )
        .hint("--name says whose decisions the file stands in for"));
    }
    let text = if args.json {
        json_text(&json!({
            "decisions": decisions,
            "otherwise": otherwise.iter().map(difference).collect::<Vec<_>>(),
            "gaps": gaps.json(),
        }))
    } else if otherwise.is_empty() {
        format!("{}, none would have been otherwise\n{}", plural(decisions), gaps.text())
    } else {
        let told = summary(decisions, &otherwise).replacen(" otherwise:", " would have been otherwise:", 1);
        told.replace("; is raw", "; would be raw") + &gaps.text()
    };
    term::print(&text)?;
    Ok(Exit::Ok)
}
