//! `setpoint override`: an operator's bounds in place of a policy's own.

use std::time::Duration;

use super::client::{Client, OverrideBody, ServerArgs, for_how_long};
use super::exit::{CliError, Exit};
use super::{answer, units};

/// What `override` takes.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").args(["min", "max", "clear"]).required(true).multiple(true)))]
pub(crate) struct Args {
    /// The policy.
    #[arg(value_name = "POLICY")]
    policy: String,

    /// At least this many tasks.
    #[arg(long, value_name = "N")]
    min: Option<u32>,

    /// At most this many tasks; above the policy's own max only with --force.
    #[arg(long, value_name = "N")]
    max: Option<u32>,

    /// Take the override back after this long.
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    for_: Option<Duration>,

    /// Allow a max above the policy's own.
    #[arg(long)]
    force: bool,

    /// Why, for whoever looks at it later.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Take the override back now.
    #[arg(long, conflicts_with_all = ["min", "max", "for_", "force", "reason"])]
    clear: bool,

    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) const EXAMPLES: &str = "\
It acts at once, whatever the sample says, and survives a restart of the host.

Examples:
  setpoint override queue --max 5 --for 2h
  setpoint override queue --min 10 --max 10 --reason 'load test'
  setpoint override queue --clear";

/// Asks the API.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let client = Client::new(&args.server)?;
    if args.clear {
        let reply = client.clear_override(&args.policy).await?;
        return answer(&reply, args.json, &format!("{} has its own bounds again", args.policy));
    }
    let body = OverrideBody {
        min: args.min,
        max: args.max,
        r#for: args.for_.map(units::exact),
        force: args.force,
        reason: args.reason.clone(),
    };
    let reply = client.override_bounds(&args.policy, &body).await?;
    let bound = |word, figure: Option<u32>| figure.map_or_else(String::new, |n| format!(" {word} {n}"));
    let said = format!(
        "{} now has{}{} {}",
        args.policy,
        bound("min", args.min),
        bound("max", args.max),
        for_how_long(args.for_)
    );
    answer(&reply, args.json, &said)
}
