//! Writing the files that `init`, `types`, `policies copy` and `man` leave behind. Never over a file that is there,
//! unless that is asked for.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::exit::{CliError, Exit};

/// A file to write.
#[derive(Debug)]
pub(crate) struct NewFile {
    /// Where.
    pub(crate) path: PathBuf,
    /// What.
    pub(crate) text: String,
}

/// How many files an error names.
const NAMED: usize = 3;

/// Writes all of the files or, when one of them is in the way and `force` is not set, none.
pub(crate) fn write_all(files: &[NewFile], force: bool) -> Result<(), CliError> {
    let there: Vec<_> = files.iter().filter(|file| file.path.symlink_metadata().is_ok()).collect();
    if !force && !there.is_empty() {
        let mut names: Vec<_> = there.iter().take(NAMED).map(|file| format!("`{}`", file.path.display())).collect();
        if there.len() > NAMED {
            names.push(format!("{} more", there.len() - NAMED));
        }
        let text = format!("already there, so nothing was written: {}", names.join(", "));
        return Err(CliError::new(Exit::Io, text).hint("--force overwrites"));
    }
    for file in files {
        write(file, force).map_err(|error| CliError::io(format!("cannot write `{}`", file.path.display()), error))?;
    }
    Ok(())
}

fn write(file: &NewFile, force: bool) -> std::io::Result<()> {
    if let Some(folder) = file.path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    // `create_new` closes the gap between the look above and now.
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(&file.path)?.write_all(file.text.as_bytes())
}

/// The list of what was written.
pub(crate) fn list(files: &[NewFile]) -> String {
    let mut text = String::new();
    for file in files {
        text.push_str(&format!("wrote {}\n", file.path.display()));
    }
    text
}
