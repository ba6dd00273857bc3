//! What can go wrong with an engine.

use std::time::Duration;

use bollard::errors::Error as Client;

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// It cannot be reached, or the connection broke.
    #[error("engine `{engine}` ({address}) is not available: {message}")]
    Unavailable {
        /// Its name.
        engine: String,
        /// Where it should be.
        address: String,
        /// What the system said.
        message: String,
    },
    /// It did not answer in time; whether it did what it was asked is not known.
    #[error("engine `{engine}` did not answer in {after:?} when asked to {what}")]
    Timeout {
        /// Its name.
        engine: String,
        /// What it was asked.
        what: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// What was named is not there.
    #[error("{message}")]
    NotFound {
        /// What the engine said.
        message: String,
    },
    /// What was asked goes against what is there: a name in use, a container that does not run.
    #[error("{message}")]
    Conflict {
        /// What the engine said.
        message: String,
    },
    /// The engine will not do it.
    #[error("{message}")]
    Refused {
        /// The answer's HTTP status; 0 where there was none.
        status: u16,
        /// What the engine said.
        message: String,
    },
    /// Certificates, or another setting, that cannot be used.
    #[error("engine `{engine}`: {message}")]
    Setting {
        /// Its name.
        engine: String,
        /// What is wrong.
        message: String,
    },
}

impl EngineError {
    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. })
    }

    /// Whether what was named is not there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether it goes against what is there.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// What the client library said, in our terms.
pub(super) fn translate(
    engine: &str,
    address: &str,
    what: &'static str,
    limit: Duration,
    error: &Client,
) -> EngineError {
    let setting = |message: String| EngineError::Setting { engine: engine.to_owned(), message };
    match error {
        Client::DockerResponseServerError { status_code, message } => answer(*status_code, message),
        Client::DockerStreamError { error } => EngineError::Refused { status: 0, message: one_line(error) },
        Client::RequestTimeoutError => EngineError::Timeout { engine: engine.to_owned(), what, after: limit },
        Client::CertPathError { path } => setting(format!("cannot read `{}`", path.display())),
        Client::CertParseError { path } => setting(format!("`{}` is no PEM file of the kind expected", path.display())),
        Client::CertMultipleKeys { path, .. } => setting(format!("`{}` holds more than one key", path.display())),
        Client::SocketNotFoundError(path) => EngineError::Unavailable {
            engine: engine.to_owned(),
            address: address.to_owned(),
            message: format!("there is no socket `{path}`"),
        },
        error => {
            EngineError::Unavailable { engine: engine.to_owned(), address: address.to_owned(), message: deepest(error) }
        }
    }
}

fn answer(status: u16, message: &str) -> EngineError {
    let message = one_line(message);
    match status {
        404 => EngineError::NotFound { message },
        409 => EngineError::Conflict { message },
        _ => EngineError::Refused { status, message },
    }
}

/// The engine's messages can have several lines; ours have one.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "no reason given".to_owned() } else { line }
}

/// The last cause: the layers above it only say that a request failed.
fn deepest(error: &Client) -> String {
    let mut cause: &dyn std::error::Error = error;
    // The client's own variants print what they wrap, and do not always name it as their source.
    let mut text = cause.to_string();
    while let Some(next) = cause.source() {
        cause = next;
        text = cause.to_string();
    }
    one_line(&text)
}
