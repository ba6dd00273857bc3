//! What can go wrong with a state folder, told so that its owner can mend it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A fault of the store. Cheap to clone: one failed commit is reported to everyone who waits for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process runs on this folder.
    #[error("state folder `{dir}` is in use{}", .pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// Who holds it; none when its holder has not written its pid yet.
        pid: Option<u32>,
    },
    /// What was given is not a folder.
    #[error("state folder `{dir}` is not a folder")]
    NotAFolder {
        /// The path that was given.
        dir: PathBuf,
    },
    /// There is nothing to read.
    #[error("state folder `{dir}` holds no store")]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried: `create`, `read`, `lock` …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: Arc<io::Error>,
    },
    /// The file is not what was written.
    #[error("store `{path}` is damaged: {why}; it was left as it is, nothing was started")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A newer setpoint wrote it.
    #[error("store `{path}` has schema {found}, and this version reads up to {known}; it was left as it is")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this version knows.
        known: u32,
    },
    /// A commit failed; what it held is kept in memory and tried again.
    #[error("cannot write to store `{path}`: {why}; it is tried again, and nothing is launched meanwhile")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the database said.
        why: String,
    },
    /// A record has no JSON form; it was left out, the rest was written.
    #[error("cannot store {record}: {why}; its last stored form was kept")]
    Unstorable {
        /// Which record.
        record: String,
        /// What does not fit.
        why: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn corrupt(path: &Path, why: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), why: why.into() }
    }

    /// The exit code of a run that cannot start because of it: 69 for a locked folder, else 74.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Locked { .. } => 69,
            _ => 74,
        }
    }

    /// What to do about it, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Locked { .. } => Some("stop that process, or give this run a `--state-dir` of its own".to_owned()),
            Self::NotAFolder { .. } => Some("`--state-dir` takes a folder; it is created when missing".to_owned()),
            Self::Missing { .. } => Some("`setpoint run --state-dir DIR` makes one".to_owned()),
            Self::Corrupt { path, .. } => Some(format!(
                "put a backup in its place, or move `{}` aside to start anew: policies then begin without their \
                 history, cooldowns, pauses, overrides and `ctx.state`, and local tasks that carry this folder's mark \
                 are ended at the start, because no record says that they are wanted",
                path.display()
            )),
            Self::Newer { .. } => Some("run the version of setpoint that wrote it, or a newer one".to_owned()),
            Self::Io { .. } | Self::Write { .. } | Self::Unstorable { .. } | Self::Closed => None,
        }
    }
}
