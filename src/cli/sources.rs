//! Where policies come from: the PATHs of a command line, resolved to files, folders and bundled policies.
//!
//! Nothing is read in here but the file system's own facts; whether a file is a policy is the script host's to say.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::bundled::{Bundled, POLICIES};
use super::exit::{CliError, Exit};
use super::names::{POLICY_SUFFIX, SPEC_SUFFIX};

/// One PATH of a command line.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A policy file.
    File(PathBuf),
    /// A folder of policy files; new ones in it start by themselves.
    Dir(PathBuf),
    /// A policy that comes with the command.
    Bundled(&'static Bundled),
}

/// Resolves what was given, in its order. A file, or a folder with policies in it, wins over a bundled policy of the same
/// name; any other folder does not: that of the jobs of `spool` may well be called `spool`.
pub(crate) fn resolve(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    paths.iter().map(|path| one(path)).collect()
}

fn one(path: &Path) -> Result<Source, CliError> {
    let bundled = path.to_str().and_then(Bundled::find);
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return bundled.map(Source::Bundled).ok_or_else(|| not_found(path));
        }
        Err(error) => return Err(CliError::io(format!("cannot read `{}`", path.display()), error)),
    };
    if let Some(policy) = bundled {
        if meta.is_dir() && policies_in(path)?.is_empty() {
            return Ok(Source::Bundled(policy));
        }
        tracing::info!(path = %path.display(), "the file of that name is meant, not the bundled policy");
    }
    Ok(if meta.is_dir() { Source::Dir(path.to_owned()) } else { Source::File(path.to_owned()) })
}

fn not_found(path: &Path) -> CliError {
    let error = CliError::new(Exit::Io, format!("there is no file, folder or bundled policy `{}`", path.display()));
    let text = path.to_string_lossy();
    let near = POLICIES.iter().map(|policy| policy.name).find(|name| strsim::jaro_winkler(name, &text) > 0.8);
    let hint = near.map_or_else(
        || "`setpoint policies list` shows the bundled ones, `setpoint init` writes a first one".to_owned(),
        |near| format!("did you mean the bundled policy `{near}`?"),
    );
    error.hint(hint)
}

/// One file to load.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFile {
    /// The policy's name: the file's stem.
    pub(crate) name: String,
    /// The file; of a bundled policy, the name that errors show.
    pub(crate) path: PathBuf,
    /// The text of a bundled policy.
    pub(crate) source: Option<&'static str>,
}

impl PolicyFile {
    /// A policy that comes with the command. It lies nowhere, so its `require`s start from the present folder.
    pub(crate) fn bundled(policy: &'static Bundled) -> Self {
        let path = PathBuf::from(format!("{}{POLICY_SUFFIX}", policy.name));
        Self { name: policy.name.to_owned(), path, source: Some(policy.source) }
    }
}

/// Every policy file that the sources stand for now, folders listed in the order of their names.
pub(crate) fn files(sources: &[Source]) -> Result<Vec<PolicyFile>, CliError> {
    let mut files = Vec::new();
    for source in sources {
        match source {
            Source::Bundled(policy) => files.push(PolicyFile::bundled(policy)),
            Source::File(path) => files.push(PolicyFile { name: stem(path)?, path: path.clone(), source: None }),
            Source::Dir(path) => {
                for path in list(path)? {
                    files.push(PolicyFile { name: stem(&path)?, path, source: None });
                }
            }
        }
    }
    unique(&files)?;
    Ok(files)
}

fn policies_in(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed = |error| CliError::io(format!("cannot read the folder `{}`", folder.display()), error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_policy(&path) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = policies_in(folder)?;
    if paths.is_empty() {
        let text = format!("there is no policy in the folder `{}`", folder.display());
        return Err(CliError::new(Exit::Config, text)
            .hint(format!("a policy is a file that ends in `{POLICY_SUFFIX}` and not in `{SPEC_SUFFIX}`")));
    }
    paths.sort();
    Ok(paths)
}

fn is_policy(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.ends_with(POLICY_SUFFIX) && !name.ends_with(SPEC_SUFFIX) && !name.starts_with('.') && path.is_file()
}

fn stem(path: &Path) -> Result<String, CliError> {
    path.file_stem().and_then(OsStr::to_str).filter(|stem| !stem.is_empty()).map(str::to_owned).ok_or_else(|| {
        CliError::new(Exit::Config, format!("`{}` gives no policy name: it is not UTF-8", path.display()))
    })
}

/// A policy's name is its file's stem, so two equal stems would be two policies of one name.
fn unique(files: &[PolicyFile]) -> Result<(), CliError> {
    let mut seen = BTreeMap::new();
    for file in files {
        if let Some(other) = seen.insert(&file.name, &file.path) {
            let text = format!("two policies are called `{}`", file.name);
            let both = format!("{} and {}", Path::new(other).display(), file.path.display());
            return Err(CliError::new(Exit::Config, text).because(both).hint("rename one of the files"));
        }
    }
    Ok(())
}
