//! How the command ends: its exit codes, and the error that leads to one.

use std::error::Error;
use std::fmt::Write as _;

use super::term::Paint;

/// The exit codes. A policy's `stop` may end `setpoint run` with any other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All is well.
    Ok = 0,
    /// It ran, and found or failed something.
    Findings = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A service cannot be had: no setpoint at the address, the state folder is locked.
    Unavailable = 69,
    /// A bug in setpoint.
    Bug = 70,
    /// A file or a socket failed.
    Io = 74,
    /// Not allowed: a wrong token, or a command that the engine refuses.
    Refused = 77,
    /// A policy or the configuration is wrong.
    Config = 78,
}

impl Exit {
    /// Every code, in the order of the numbers.
    const ALL: [Self; 8] =
        [Self::Ok, Self::Findings, Self::Usage, Self::Unavailable, Self::Bug, Self::Io, Self::Refused, Self::Config];

    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The code that a part of the library asks for.
    pub(crate) fn of_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Findings)
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "all is well",
            Self::Findings => "it ran, and found or failed something",
            Self::Usage => "the command line is wrong",
            Self::Unavailable => "a service is not available: no setpoint at the address, a locked state folder",
            Self::Bug => "a bug in setpoint",
            Self::Io => "a file or a socket failed",
            Self::Refused => {
                "refused: a wrong token, a bind beyond loopback without one, a command that is not allowed now"
            }
            Self::Config => "a policy or the configuration is wrong",
        }
    }

    /// The table of all codes, for the long help.
    pub(crate) fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            let (code, meaning) = (exit.code(), exit.meaning());
            writeln!(text, "  {code:>2}  {meaning}").expect("invariant: writing to a string cannot fail");
        }
        text
    }
}

/// A failure of a verb: what went wrong, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CliError {
    /// How the process ends.
    pub(crate) exit: Exit,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CliError {
    /// An error with nothing behind it.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, source: None }
    }

    /// A file that could not be read or written.
    pub(crate) fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        Self::new(Exit::Io, what).because(error)
    }

    /// Adds what it was caused by.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The whole report: the error, its causes, the hint.
    pub(crate) fn report(&self, paint: Paint) -> String {
        let mut text = format!("{} {}\n", paint.red("error:"), self.message);
        let mut cause = self.source();
        let mut said = self.message.clone();
        while let Some(error) = cause {
            let line = error.to_string();
            // Some libraries repeat their cause in their own text; saying it twice helps nobody.
            if !said.contains(&line) {
                text.push_str(&format!("  caused by: {}\n", line.replace('\n', "\n    ")));
            }
            said = line;
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{} {hint}\n", paint.bold("hint:")));
        }
        text
    }
}
