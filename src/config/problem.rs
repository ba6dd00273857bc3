//! What is wrong with a configuration: every problem at once, each with its place.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that is wrong, or probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `setpoint.toml:3:9`, `SETPOINT_LISTEN`, `--listen`.
    pub place: String,
    /// One line: what was expected and what came.
    pub message: String,
    /// The line of the file, and the column (from 1, in characters) in it.
    pub source: Option<SourceLine>,
    /// What to do about it, e.g. a did-you-mean.
    pub hint: Option<String>,
    /// Well-formed, and not allowed.
    pub refused: bool,
}

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// Its number, from 1.
    pub line: u32,
    /// Where in it, from 1, in characters.
    pub column: u32,
    /// The line without its end.
    pub text: String,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// It says things that cannot be.
    #[error("{}", list(.problems))]
    Invalid {
        /// All of them; never empty.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The exit code: 74 for a file that cannot be read, 77 for what is well-formed and not allowed, 78 for a bad
    /// configuration.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } => 74,
            Self::Invalid { problems } if problems.iter().all(|problem| problem.refused) => 77,
            Self::Invalid { .. } => 78,
        }
    }
}

impl Problem {
    /// A problem of something that is not in a file.
    #[must_use]
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), source: None, hint: None, refused: false }
    }

    /// A problem at a byte of a file's text.
    pub(super) fn at(path: &Path, text: &str, byte: usize, message: impl Into<String>) -> Self {
        let source = SourceLine::at(text, byte);
        let place = format!("{}:{}:{}", path.display(), source.line, source.column);
        Self { place, message: message.into(), source: Some(source), hint: None, refused: false }
    }

    /// With something to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl SourceLine {
    /// The line that byte `byte` of a text is in.
    pub(super) fn at(text: &str, byte: usize) -> Self {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &text[..byte];
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: count(before.matches('\n').count() + 1),
            column: count(text[start..byte].chars().count() + 1),
            text: line.to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    /// The whole report: place and message, the source line with a caret, the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(SourceLine { line, column, text }) = &self.source {
            let gutter = line.to_string().len();
            let before = (*column as usize).saturating_sub(1);
            let text = text.replace('\t', " ");
            write!(f, "\n{:gutter$} |\n{line} | {text}\n{:gutter$} | {:before$}^", "", "", "")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// ` did you mean …?` for a name that is none of `known`, when one of them is near.
pub(super) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| format!("did you mean `{known}`?"))
}
