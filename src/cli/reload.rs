//! `setpoint reload`: read policy files again now.

use serde_json::Value;

use super::answer;
use super::client::{Client, ServerArgs};
use super::exit::{CliError, Exit};

/// What `reload` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The policy whose file to read; all of them when left out.
    #[arg(value_name = "POLICY")]
    policy: Option<String>,

    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) const EXAMPLES: &str = "\
Saved files take effect by themselves; this is for when one does not want to wait for the file system to tell.
A file that is wrong never replaces the version that runs.

Examples:
  setpoint reload
  setpoint reload queue";

/// Asks the API.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let reply = Client::new(&args.server)?.reload(args.policy.as_deref()).await?;
    let refused = reply.pointer("/script/error").filter(|error| !error.is_null());
    if let (Some(error), Some(name)) = (refused, &args.policy) {
        return Err(CliError::new(Exit::Config, format!("{name} keeps the version that it ran"))
            .because(super::dto::words(error)));
    }
    let generation = reply.get("generation").and_then(Value::as_u64);
    let said = match (&args.policy, generation) {
        (Some(name), Some(generation)) => format!("{name} runs generation {generation}"),
        (Some(name), None) => format!("{name} is being read again"),
        (None, _) => "all files are being read again".to_owned(),
    };
    answer(&reply, args.json, &said)
}
