//! `setpoint status`: every policy in a line, or one in detail.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use setpoint::log;
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Client, ServerArgs, read};
use super::dto::{Policy, PolicyList, Task, TaskList};
use super::exit::{CliError, Exit};
use super::rows::{self, Row};
use super::term::{self, Paint};
use super::units;
use super::{Globals, json_text};

/// What `status` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show this policy in detail.
    #[arg(value_name = "POLICY")]
    policy: Option<String>,

    /// Show it again and again, every two seconds or as often as given, until interrupted.
    #[arg(long, value_name = "EVERY", num_args = 0..=1, require_equals = true, default_missing_value = "2s",
          value_parser = units::parse_duration)]
    watch: Option<Duration>,

    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  setpoint status                 every policy, a line each
  setpoint status queue           one policy, with its reasons and its tasks
  setpoint status --watch=500ms   twice a second, until Ctrl-C
  setpoint status --json | jq '.policies[].tasks'";

/// Asks, prints, and with `--watch` does it again.
pub(crate) async fn run(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    let client = Client::new(&args.server)?;
    let Some(every) = args.watch else {
        term::print(&show(&client, args, globals).await?)?;
        return Ok(Exit::Ok);
    };
    // One listener for the whole time: an interrupt between two waits must not get lost.
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| CliError::io("cannot listen for signals", error))?;
    tokio::select! {
        ended = watch(&client, args, globals, every) => ended.map(|never| match never {}),
        _ = interrupt.recv() => Ok(Exit::Ok),
    }
}

async fn watch(client: &Client, args: &Args, globals: &Globals, every: Duration) -> Result<Infallible, CliError> {
    let redraw = std::io::IsTerminal::is_terminal(&std::io::stdout()) && !args.json;
    loop {
        let text = show(client, args, globals).await?;
        // Home, then clear from there: less flicker than clearing first.
        term::print(&if redraw { format!("\x1b[H\x1b[J{text}") } else { text })?;
        tokio::time::sleep(every.max(Duration::from_millis(100))).await;
    }
}

async fn show(client: &Client, args: &Args, globals: &Globals) -> Result<String, CliError> {
    let now = Timestamp::now();
    let paint = globals.color.stdout();
    let Some(name) = &args.policy else {
        let answer = client.policies().await?;
        return if args.json { Ok(json_text(&answer)) } else { table(answer, now, paint) };
    };
    let answer = client.policy(name).await?;
    if args.json {
        return Ok(json_text(&answer));
    }
    let tasks: TaskList = read(client.tasks().await?)?;
    let policy: Policy = read(answer)?;
    let tasks: Vec<_> = tasks.tasks.into_iter().filter(|task| task.policy == policy.name).collect();
    Ok(detail(&policy, &tasks, now, paint))
}

/// One policy in detail, from the API's object.
pub(crate) fn describe(policy: Value, paint: Paint) -> Result<String, CliError> {
    Ok(detail(&read(policy)?, &[], Timestamp::now(), paint))
}

fn table(answer: Value, now: Timestamp, paint: Paint) -> Result<String, CliError> {
    let list: PolicyList = read(answer)?;
    let rows: Vec<_> = list.policies.iter().map(|policy| Row::of_policy(policy, now)).collect();
    // Into a file or a pipe nothing is cut.
    let width = match term::size() {
        Some((width, _)) if std::io::IsTerminal::is_terminal(&std::io::stdout()) => width,
        _ => usize::MAX / 2,
    };
    let mut lines = if rows.is_empty() { vec!["no policies".to_owned()] } else { rows::lines(&rows, width, paint) };
    for (name, backend) in &list.backends {
        let facts: Vec<_> = backend.facts.iter().map(|(fact, value)| format!("{fact} {value}")).collect();
        lines.push(format!("{}: {}", paint.bold(name), facts.join("; ")));
        lines.extend(backend.problem.iter().map(|problem| paint.red(&format!("{name}: {problem}"))));
    }
    Ok(lines.join("\n") + "\n")
}

fn detail(policy: &Policy, tasks: &[Task], now: Timestamp, paint: Paint) -> String {
    let mut text = String::new();
    let mut put = |label: &str, value: &str| {
        if !value.is_empty() {
            writeln!(text, "{label:>11}  {value}").expect("invariant: writing to a string cannot fail");
        }
    };
    put("policy", &paint.bold(&policy.name));
    put("script", &policy.script.path);
    put("version", &format!("generation {}, {:.12}", policy.generation, policy.script.sha256));
    put("ticks", &ticks(policy, now));
    put("sample", &sample(policy));
    put("setpoint", &policy.setpoint.map(units::number).unwrap_or_default());
    put("tasks", &counts(policy));
    if let Some(decision) = &policy.decision {
        put("decision", &rows::say(decision.raw, decision.adjustment, std::iter::empty()));
        for reason in &decision.reasons {
            put("", &format!("  {:<13} {}", reason.guard, reason.text));
        }
    }
    if let Some(value) = &policy.paused {
        put("paused", &paint.yellow(format!("yes{}", rows::limits(value, now)).as_str()));
    }
    if let Some(value) = &policy.bounds_override {
        put("override", &paint.yellow(rows::limits(value, now).trim_start()));
    }
    if let Some(ended) = &policy.ended {
        put("ended", &paint.red(&format!("{} ({}, code {})", ended.reason, ended.by, ended.code)));
    }
    for (label, error) in [("not loaded", &policy.script.refused), ("error", &policy.script.error)] {
        for (i, line) in error.iter().flat_map(|error| error.report.lines()).enumerate() {
            put(if i == 0 { label } else { "" }, &paint.red(line));
        }
    }
    if let Some(shadow) = &policy.shadow {
        put("shadow", &shadow.script.path);
        put("", &format!("  {}", log::tally_in_words(&shadow.compared)));
        if let Some(difference) = shadow.difference {
            put("", &format!("  last tick: {}", log::difference_in_words(difference)));
        }
        for (label, error) in [("not loaded", &shadow.script.refused), ("error", &shadow.script.error)] {
            for (i, line) in error.iter().flat_map(|error| error.report.lines()).enumerate() {
                put(if i == 0 { label } else { "" }, &paint.red(line));
            }
        }
    }
    if !tasks.is_empty() {
        text.push('\n');
        text.push_str(&task_table(tasks, now, paint));
    }
    text
}

fn ticks(policy: &Policy, now: Timestamp) -> String {
    let ago = policy
        .last_tick
        .map_or_else(String::new, |at| format!(", the last one {} ago", units::short(rows::between(at, now))));
    let stalled = if policy.stalled { ", stalled" } else { "" };
    format!("{}{ago}{stalled}", policy.ticks)
}

fn sample(policy: &Policy) -> String {
    policy.sample.as_ref().map_or_else(String::new, |sample| match (sample.kind.as_str(), sample.value) {
        ("value", Some(value)) => units::number(value),
        (kind, Some(value)) => format!("{kind} ({})", units::number(value)),
        (kind, None) => match &sample.message {
            Some(message) => format!("{kind}: {message}"),
            None => kind.to_owned(),
        },
    })
}

fn counts(policy: &Policy) -> String {
    let tasks = &policy.tasks;
    let desired = tasks.desired.map_or_else(String::new, |desired| format!(" of {desired} wanted"));
    format!("{} running{desired}, {} in flight, {} being killed", tasks.running, tasks.in_flight, tasks.killing)
}

fn task_table(tasks: &[Task], now: Timestamp, paint: Paint) -> String {
    let width = tasks.iter().map(|task| task.id.chars().count()).max().unwrap_or(0).max(4);
    let head =
        format!("{:<width$}  {:<8} {:>8} {:>7} {:>9} {:>6}  PLACE", "TASK", "STATE", "PID", "CPU", "MEMORY", "AGE");
    let mut text = paint.dim(&head) + "\n";
    for task in tasks {
        writeln!(
            text,
            "{:<width$}  {:<8} {:>8} {:>7} {:>9} {:>6}  {}",
            task.id,
            task.state,
            task.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            task.cpu_percent.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1} %")),
            task.memory_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}MiB", bytes as f64 / 1_048_576.0)),
            task.started.map_or_else(|| "-".to_owned(), |at| units::short(rows::between(at, now))),
            task.host.as_deref().unwrap_or("-"),
        )
        .expect("invariant: writing to a string cannot fail");
    }
    text
}
