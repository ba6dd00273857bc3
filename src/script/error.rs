//! What a script did wrong, told so that its author can mend it: where, what was expected, what came.
//!
//! What the loop did instead is the loop's to add. Nothing in here names mlua.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Hook;

/// A fault of a script.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", self.headline())]
#[non_exhaustive]
pub struct ScriptError {
    /// Which file.
    pub path: PathBuf,
    /// Which function.
    pub hook: Hook,
    /// What sort of fault.
    pub kind: ScriptErrorKind,
    /// One line: what was expected and what came. Never longer than a few hundred characters.
    pub message: String,
    /// Line, from 1, where it is known.
    pub line: Option<u32>,
    /// Column, from 1, where it is known.
    pub column: Option<u32>,
    /// That line of the source.
    pub source_line: Option<Arc<str>>,
    /// The Lua call chain, innermost first: `file:line in function 'name'`.
    pub calls: Vec<String>,
    /// What to do about it, e.g. a did-you-mean.
    pub hint: Option<String>,
}

/// Sorts of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScriptErrorKind {
    /// The file cannot be read.
    Io,
    /// It does not compile.
    Syntax,
    /// It raised an error.
    Runtime,
    /// It gave a value of the wrong type or range.
    Type,
    /// The policy table is wrong.
    Shape,
    /// It used more CPU time than a call may.
    Cpu,
    /// It did not come back in time.
    Deadline,
    /// It used more memory than its file may.
    Memory,
    /// It asked for something that the host does not allow.
    Refused,
}

impl ScriptErrorKind {
    /// A stable word for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Syntax => "syntax",
            Self::Runtime => "runtime",
            Self::Type => "type",
            Self::Shape => "shape",
            Self::Cpu => "cpu",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Refused => "refused",
        }
    }

    /// Whether a limit was broken: the policy is then backed off.
    #[must_use]
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::Cpu | Self::Deadline | Self::Memory)
    }
}

impl ScriptError {
    /// A fault with no place yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, hook: Hook, kind: ScriptErrorKind, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            hook,
            kind,
            message: message.into(),
            line: None,
            column: None,
            source_line: None,
            calls: Vec::new(),
            hint: None,
        }
    }

    /// `policy.lua:12:18: metric: expected …, got …`, in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut text = self.place();
        if !matches!(self.hook, Hook::Load | Hook::Spec) {
            text.push_str(": ");
            text.push_str(self.hook.as_str());
        }
        text.push_str(": ");
        text.push_str(&self.message);
        text
    }

    /// `policy.lua:12:18`, as far as it is known.
    #[must_use]
    pub fn place(&self) -> String {
        let mut text = self.path.display().to_string();
        if let Some(line) = self.line {
            text.push_str(&format!(":{line}"));
            if let Some(column) = self.column {
                text.push_str(&format!(":{column}"));
            }
        }
        text
    }

    /// The whole report over several lines: headline, source line with a caret, call chain, hint.
    #[must_use]
    pub fn report(&self) -> String {
        Report(self).to_string()
    }
}

struct Report<'a>(&'a ScriptError);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.0;
        f.write_str(&error.headline())?;
        if let (Some(line), Some(source)) = (error.line, &error.source_line) {
            let gutter = line.to_string().len();
            let source = source.trim_end().replace('\t', " ");
            write!(f, "\n{:gutter$} |\n{line} | {source}\n{:gutter$} | ", "", "")?;
            let width = source.chars().count();
            if let Some(column) = error.column {
                let before = (column as usize).saturating_sub(1).min(width);
                write!(f, "{:before$}^", "")?;
            } else {
                let indent = source.chars().take_while(|c| c.is_whitespace()).count();
                write!(f, "{:indent$}{}", "", "^".repeat((width - indent).max(1)))?;
            }
        }
        for call in &error.calls {
            write!(f, "\n  at {call}")?;
        }
        if let Some(hint) = &error.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// What a host function raises when the sort of fault matters: `mlua::Error::external(Raised::refused(…))`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Raised {
    /// What sort of fault.
    pub(crate) kind: ScriptErrorKind,
    /// One line: what was expected and what came.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Raised {
    /// A value of the wrong type or range.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self { kind: ScriptErrorKind::Type, message: message.into(), hint: None }
    }

    /// Something that the host does not allow.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { kind: ScriptErrorKind::Refused, message: message.into(), hint: None }
    }
}
