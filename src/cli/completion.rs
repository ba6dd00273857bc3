//! `setpoint completion`: what a shell needs to complete the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::exit::{CliError, Exit};
use super::{Cli, term};

/// What `completion` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  setpoint completion bash > ~/.local/share/bash-completion/completions/setpoint
  setpoint completion zsh > ~/.zfunc/_setpoint
  setpoint completion fish > ~/.config/fish/completions/setpoint.fish";

/// Prints the script.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "setpoint", &mut script);
    term::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
