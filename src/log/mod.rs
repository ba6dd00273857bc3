//! The decision log: every decision with all that it depended on, so that it can be explained and made again.
//!
//! ```text
//!   control loop ─► Entry ─► queue (bounded) ─► writer thread ─► 00000001.dlog, 00000002.dlog, …
//!                                                                          │
//!                          explain: words ◄── Entry ◄── reader ◄───────────┤
//!                          replay: core::decide once more, compared by bits ◄┘
//! ```
//!
//! A record is framed with its length and a checksum, and holds what has changed since the policy's last one. The state
//! that a decision began from is written now and then (a keyframe); in between it follows from the one before, by the
//! same functions that the loop called.
//!
//! What it doesn't do: it never decides, and it is no store. What is in it may be lost up to the last second, without
//! harm to anything but the record of it.
//!
//! Invariants: the loop never waits for it; what could not be written is counted and told in the log itself; floats
//! are kept by their bits; a file that ends in the middle of a record loses that record and none before it.

mod again;
mod compare;
mod files;
mod frame;
mod reader;
mod record;
mod replay;
mod words;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use compare::{Comparison, Pair};
pub use reader::{Item, Log};
pub use record::{Asked, DecisionConfig, Entry, Identity, Keyframe, Outcome, Settled, Why};
pub use replay::{Alternative, Replay, Verdict, same_bits};
pub use words::{
    difference_in_words, outcome_in_words, say, sentence, setting_in_words, tally_in_words, would_in_words,
};
pub use writer::DecisionLog;

/// Where below a state folder the log is kept when nobody says otherwise.
pub const FOLDER: &str = "decisions";

/// Where the log is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Its folder; made when it is not there.
    pub folder: PathBuf,
    /// Bytes from which on a file is closed and the next one begun.
    pub max_size: u64,
    /// Age from which on it is.
    pub max_age: Duration,
    /// How many files are kept, the one that is written included.
    pub keep: usize,
}

impl LogConfig {
    /// 64 MiB or a day in a file, and sixteen files.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_size: 64 << 20, max_age: Duration::from_secs(86_400), keep: 16 }
    }
}

/// Why a log cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A file or folder.
    #[error("cannot {what} `{}` of the decision log", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Another process writes to it.
    #[error("another setpoint writes to the decision log in `{}`", .0.display())]
    Locked(PathBuf),
    /// Nothing there is a log.
    #[error("expected a decision log (`*.{}` files) at `{}`, found none", files::SUFFIX, .0.display())]
    NoLog(PathBuf),
    /// A file that is something else, or of a later version.
    #[error("`{}` is no decision log of this version", .0.display())]
    Foreign(PathBuf),
}

impl LogError {
    fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source: Arc::new(source) }
    }
}
