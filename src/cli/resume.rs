//! `setpoint resume`: a paused policy decides again.

use super::answer;
use super::client::{Client, ServerArgs};
use super::exit::{CliError, Exit};

/// What `resume` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The policy.
    #[arg(value_name = "POLICY")]
    policy: String,

    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Asks the API.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let reply = Client::new(&args.server)?.resume(&args.policy).await?;
    answer(&reply, args.json, &format!("{} decides again", args.policy))
}
