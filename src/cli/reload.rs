//! `setpoint reload`: read policy files again now.

use super::answer;
use super::client::{Client, ServerArgs, read};
use super::dto::Policy;
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
Saved files take effect by themselves; this is for when one does not want to wait for the file system to tell. \
A file that is wrong never replaces the version that runs.

Examples:
  setpoint reload
  setpoint reload queue";

/// Asks the API.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let reply = Client::new(&args.server)?.reload(args.policy.as_deref()).await?;
    let Some(name) = &args.policy else { return answer(&reply, args.json, "all files were read again") };
    if reply.is_null() {
        return answer(&reply, args.json, &format!("{name} was read again"));
    }
    let policy: Policy = read(reply.clone())?;
    if let Some(error) = policy.script.refused {
        return Err(CliError::new(Exit::Config, format!("{name} keeps generation {}", policy.generation))
            .because(error.report)
            .hint("mend the file: it is read again as soon as it is saved"));
    }
    answer(&reply, args.json, &format!("{name} runs generation {}", policy.generation))
}
