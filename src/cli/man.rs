//! `setpoint man`: the manual pages, made from the same texts as the help.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::exit::{CliError, Exit};
use super::files::{self, NewFile};
use super::{Cli, term};

/// What `man` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder for one page a verb; the main page goes to standard output when left out.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  setpoint man | man -l -
  setpoint man ~/.local/share/man/man1";

/// Prints the main page, or writes all pages.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.dir else {
        term::print(&page(command)?)?;
        return Ok(Exit::Ok);
    };
    let mut files = Vec::new();
    collect(&command, &mut |name, command| {
        files.push(NewFile { path: dir.join(format!("{name}.1")), text: page(command)? });
        Ok(())
    })?;
    files::write_all(&files, true)?;
    term::print(&files::list(&files))?;
    Ok(Exit::Ok)
}

/// Calls `each` for a command and all below it, with its page's name: `setpoint-policies-copy`.
fn collect(
    command: &clap::Command,
    each: &mut impl FnMut(&str, clap::Command) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    each(&name, command.clone())?;
    command.get_subcommands().filter(|verb| verb.get_name() != "help").try_for_each(|verb| collect(verb, each))
}

fn page(command: clap::Command) -> Result<String, CliError> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text).map_err(|error| CliError::io("cannot make the manual page", error))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
