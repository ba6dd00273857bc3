//! `setpoint types`: the editor types of everything that a policy may use.

use std::path::PathBuf;

use setpoint::script::api::types::luacats;

use super::exit::{CliError, Exit};
use super::files::{self, NewFile};
use super::names::TYPES_FILE;
use super::term;

/// What `types` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The policy folder; the types go into `types/` below it. Standard output when left out.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) const EXAMPLES: &str = "\
The file is generated and belongs to this version of setpoint, so an older one is overwritten.

Examples:
  setpoint types .       writes ./types/setpoint.lua
  setpoint types | less";

/// Writes the file, or prints it.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    match &args.dir {
        None => term::print(&luacats())?,
        Some(dir) => {
            let files = [NewFile { path: dir.join(TYPES_FILE), text: luacats() }];
            files::write_all(&files, true)?;
            term::print(&files::list(&files))?;
        }
    }
    Ok(Exit::Ok)
}
