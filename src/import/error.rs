//! Why a text could not be imported, and where.

use super::tree::Place;

/// A text that could not be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ImportError {
    /// The file's name, as the caller gave it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was expected, and what came.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ImportError {
    pub(super) fn new(file: &str, problem: Problem) -> Self {
        let Problem { place, message, hint } = problem;
        Self { file: file.to_owned(), line: place.line, column: place.column, message, hint }
    }
}

/// The same before it is known which file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    place: Place,
    message: String,
    hint: Option<String>,
}

impl Problem {
    pub(super) fn new(line: usize, column: usize, message: impl Into<String>) -> Self {
        Self::at(Place { line, column }, message)
    }

    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
