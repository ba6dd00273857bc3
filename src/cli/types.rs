//! `setpoint types`: the editor types of everything that a policy may use.

use std::path::{Path, PathBuf};

use setpoint::script::api::reference;
use setpoint::script::api::types::{self, luacats};

use super::exit::{CliError, Exit};
use super::files::{self, NewFile};
use super::names::TYPES_FOLDER;
use super::term;

/// What `types` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The policy folder; the types go into `types/` below it. Standard output when left out.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the reference of all of it for people, in Markdown.
    #[arg(long, conflicts_with = "dir")]
    reference: bool,
}

pub(crate) const EXAMPLES: &str = "\
The files are generated and belong to this version of setpoint, so older ones are overwritten.

Examples:
  setpoint types .       writes ./types/setpoint.lua and what it needs
  setpoint types | less
  setpoint types --reference > reference.md";

/// Writes the file, or prints it.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    match &args.dir {
        None if args.reference => term::print(&reference::markdown())?,
        None => term::print(&luacats())?,
        Some(dir) => {
            let files = files(dir);
            files::write_all(&files, true)?;
            term::print(&files::list(&files))?;
        }
    }
    Ok(Exit::Ok)
}

/// All files of the types, below `types/` of a policy folder.
pub(crate) fn files(dir: &Path) -> Vec<NewFile> {
    let folder = dir.join(TYPES_FOLDER);
    types::files().into_iter().map(|(name, text)| NewFile { path: folder.join(name), text }).collect()
}
