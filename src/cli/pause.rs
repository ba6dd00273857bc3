//! `setpoint pause`: a policy decides nothing until it is resumed.

use std::time::Duration;

use super::client::{Client, ServerArgs, for_how_long};
use super::exit::{CliError, Exit};
use super::{answer, units};

/// What `pause` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The policy.
    #[arg(value_name = "POLICY")]
    policy: String,

    /// Resume by itself after this long.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    for_: Option<Duration>,

    /// Why, for whoever looks at it later.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) const EXAMPLES: &str = "\
Tasks that end are still replaced, and none is launched or killed by a decision.

Examples:
  setpoint pause queue
  setpoint pause queue --for 30m --reason 'database migration'";

/// Asks the API.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let reply = Client::new(&args.server)?.pause(&args.policy, args.for_, args.reason.as_deref()).await?;
    answer(&reply, args.json, &format!("{} is paused {}", args.policy, for_how_long(args.for_)))
}
