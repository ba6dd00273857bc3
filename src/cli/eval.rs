//! `setpoint eval`: one tick of one policy, with its reasons and without any action.

use std::path::PathBuf;

use setpoint::http::dto::PolicyJson;

use super::exit::{CliError, Exit};
use super::host::{self, Evaluation};
use super::params::{self, Params, Set};
use super::sources;
use super::{ConfigArgs, Globals, json_text, term};

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
    #[arg(long, value_name = "KEY=VALUE", value_parser = params::parse)]
    set: Vec<Set>,

    /// Print the object of /v1/policies/NAME.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) const EXAMPLES: &str = "\
The metric and the target are really read; what warmer or cooler would launch, kill or send is not carried out.

Examples:
  setpoint eval queue.lua
  setpoint eval queue.lua --set max=10 --json | jq .decision";

/// Evaluates and prints.
pub(crate) async fn run(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    let source = sources::resolve(std::slice::from_ref(&args.path))?;
    let [file] = <[_; 1]>::try_from(sources::files(&source)?).map_err(|files| {
        CliError::new(Exit::Usage, format!("`{}` has {} policies", args.path.display(), files.len()))
            .hint("name one of its files")
    })?;
    let params = Params::new(&args.set);
    let evaluation = Evaluation { file, params, config: args.config.clone(), row: args.row.clone() };
    let snapshot = host::evaluate(evaluation).await?;
    let policy = serde_json::to_value(PolicyJson::from(&snapshot))
        .map_err(|error| CliError::new(Exit::Bug, "the policy cannot be written as JSON").because(error))?;
    if args.json {
        term::print(&json_text(&policy))?;
        return Ok(Exit::Ok);
    }
    term::print(&super::status::describe(policy, globals.color.stdout())?)?;
    Ok(Exit::Ok)
}
