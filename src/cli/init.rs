//! `setpoint init`: a first policy with its spec, and what an editor needs to help with it.

use std::path::PathBuf;

use super::exit::{CliError, Exit};
use super::files::{self, NewFile};
use super::names::{LUARC_FILE, POLICY_SUFFIX, SPEC_SUFFIX, TYPES_FOLDER};
use super::{term, types};

/// What `init` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder; made when it is not there.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// The policy's name.
    #[arg(long, value_name = "NAME", default_value = "queue", value_parser = policy_name)]
    name: String,

    /// Overwrite files that are there.
    #[arg(long)]
    force: bool,
}

pub(crate) const EXAMPLES: &str = "\
Writes a commented policy, its spec, .luarc.json and types/setpoint.lua, so that an editor with the Lua language \
server completes and checks what you write. Nothing that is there is overwritten.

Examples:
  setpoint init
  setpoint init policies --name mail";

const POLICY: &str = include_str!("templates/policy.lua");
const SPEC: &str = include_str!("templates/spec.lua");
const LUARC: &str = include_str!("templates/luarc.json");

/// Writes the files.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let Args { dir, name, force } = args;
    let policy = dir.join(format!("{name}{POLICY_SUFFIX}"));
    let named = |template: &str| template.replace("NAME", name);
    let own = [
        NewFile { path: policy.clone(), text: named(POLICY) },
        NewFile { path: dir.join(format!("{name}{SPEC_SUFFIX}")), text: named(SPEC) },
        NewFile { path: dir.join(LUARC_FILE), text: LUARC.to_owned() },
    ];
    let said = files::list(&own);
    let files: Vec<_> = own.into_iter().chain(types::files(dir)).collect();
    files::write_all(&files, *force)?;
    let (path, types) = (policy.display(), dir.join(TYPES_FOLDER));
    let types = types.display();
    term::print(&format!("{said}wrote {types}/\n\nnext: setpoint check {path}\n      setpoint run {path}\n"))?;
    Ok(Exit::Ok)
}

/// A policy's name is its file's stem and part of its tasks' ids.
pub(super) fn policy_name(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.is_empty() || text.len() > 63 || !text.chars().all(known) || text.ends_with("_test") {
        return Err("expected 1 to 63 letters, digits, `_` or `-`, not ending in `_test`".to_owned());
    }
    Ok(text.to_owned())
}
