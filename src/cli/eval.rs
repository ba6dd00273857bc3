//! `setpoint eval`: one tick of one policy, with its reasons and without any action.

use std::fmt::Write as _;
use std::path::PathBuf;

use setpoint::config::ParamKey;
use setpoint::core::model::{Counts, PolicyName, TaskId};
use setpoint::http::dto::PolicyJson;
use setpoint::runtime::eval::{Evaluation, Known, Would, evaluate};
use setpoint::runtime::store::Store;
use setpoint::script::Content;

use super::client::{Client, ServerArgs, read};
use super::dto::Policy;
use super::exit::{CliError, Exit};
use super::host::{self, Loader, Set};
use super::sources::{self, PolicyFile};
use super::{ConfigArgs, Globals, fleets, json_text, names, status, term};

/// What `eval` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A policy file, or the name of a bundled policy.
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// The row to evaluate, when the file is a fleet.
    #[arg(long, value_name = "ROW")]
    row: Option<String>,

    /// Set a parameter.
    #[arg(long, value_name = "KEY=VALUE", value_parser = ParamKey::parse_assignment)]
    set: Vec<Set>,

    /// Print the object of /v1/policies/NAME, and beside it what the tick `would` have done.
    #[arg(long)]
    json: bool,

    /// Take the tasks that this running setpoint has; without it and --state-dir, there are none.
    #[arg(long, value_name = "URL", conflicts_with = "state_dir")]
    server: Option<String>,

    /// Its token.
    #[arg(long, value_name = "TOKEN", env = names::ENV_TOKEN, hide_env_values = true)]
    token: Option<String>,

    /// Take the tasks, the history and the cooldowns of this state folder, which is only read.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
The metric and the target are really read. Nothing is launched, killed, sent or written: what the tick would have done \
is told instead.

Examples:
  setpoint eval queue.lua
  setpoint eval queue.lua --server 127.0.0.1:8080
  setpoint eval queue.lua --set max=10 --json | jq .decision";

/// Evaluates and prints.
pub(crate) async fn run(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    let file = one_file(args)?;
    let loader = Loader::new(&args.config, &args.set)?;
    let loaded = loader.load(&file).await.map_err(|errors| host::wrong_policies(&errors))?;
    loader.check_sets([(file.name.as_str(), loaded.params.as_slice())])?;
    let (name, policy) = match &loaded.content {
        Content::Policy(policy) if args.row.is_none() => (file.name.clone(), policy.clone()),
        Content::Policy(_) => return Err(fleets::no_fleet(&file.name)),
        Content::Fleet(fleet) => fleets::row(fleet.as_ref(), &file.name, args.row.as_deref()).await?,
    };
    let name = PolicyName::new(name);
    let known = known(args, &name).await?;
    let Evaluation { policy: snapshot, would } = evaluate(name, file.path, &loaded, policy, known)
        .await
        .map_err(|error| host::wrong_policies(std::slice::from_ref(&error)))?;
    let mut policy = serde_json::to_value(PolicyJson::from(&snapshot))
        .map_err(|error| CliError::new(Exit::Bug, "the policy cannot be written as JSON").because(error))?;
    let text = if args.json {
        policy["would"] = json(&would);
        json_text(&policy)
    } else {
        status::describe(policy, globals.color.stdout())? + &lines(&would)
    };
    term::print(&text)?;
    Ok(Exit::Ok)
}

/// What would have been done, beside the policy's object.
fn json(would: &Would) -> serde_json::Value {
    let Would { launch, helpers, kill, tasks, calls, accepted } = would;
    let tasks: Vec<&str> = tasks.iter().map(TaskId::as_str).collect();
    serde_json::json!({
        "launch": launch, "helpers": helpers, "kill": kill, "tasks": tasks, "calls": calls, "accepted": accepted,
    })
}

/// The same as text, a line for each thing.
fn lines(would: &Would) -> String {
    let some =
        |verb: &str, n: u32, what: &str| (0 < n).then(|| format!("{verb} {n} {what}{}", if n == 1 { "" } else { "s" }));
    let mut lines = Vec::new();
    lines.extend(some("launch", would.launch, "task"));
    lines.extend(some("launch", would.helpers, "helper"));
    lines.extend(some("kill", would.kill, "task"));
    lines.extend(would.tasks.iter().map(|id| format!("  {id}")));
    lines.extend(would.calls.iter().cloned());
    lines.extend(would.accepted.map(|n| format!("count {n} as accepted")));
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let label = if i == 0 { "would" } else { "" };
        writeln!(text, "{label:>11}  {line}").expect("invariant: writing to a string cannot fail");
    }
    text
}

fn one_file(args: &Args) -> Result<PolicyFile, CliError> {
    let source = sources::resolve(std::slice::from_ref(&args.path))?;
    let [file] = <[_; 1]>::try_from(sources::files(&source)?).map_err(|files| {
        CliError::new(Exit::Usage, format!("`{}` has {} policies", args.path.display(), files.len()))
            .hint("name one of its files")
    })?;
    Ok(file)
}

/// What is known of the policy from elsewhere.
async fn known(args: &Args, name: &PolicyName) -> Result<Known, CliError> {
    if let Some(dir) = &args.state_dir {
        let stored = Store::open_read_only(dir).map_err(host::store)?;
        return Ok(Known::from_stored(&stored, name));
    }
    let Some(server) = &args.server else { return Ok(Known::default()) };
    let server = ServerArgs { server: Some(server.clone()), token: args.token.clone() };
    let policy: Policy = read(Client::new(&server)?.policy(name.as_str()).await?)?;
    let tasks = policy.tasks;
    let counts = Counts {
        waiting: tasks.waiting,
        asked: tasks.asked,
        staging: tasks.staging,
        running: tasks.running,
        ready: tasks.ready,
        killing: tasks.killing,
    };
    Ok(Known { counts: Some(counts), ..Known::default() })
}
