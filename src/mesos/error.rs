//! What can go wrong between here and a cluster.

use reqwest::{StatusCode, Url};

/// A failure of the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MesosError {
    /// The place of the masters cannot be understood.
    #[error(
        "`{text}` is no place of Mesos masters: {problem}; expected `host:port`, a list of them, `http://host:port` or \
             `zk://host:port,host:port/path`"
    )]
    Masters {
        /// What was given, without its password.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The HTTP client cannot be made: most likely an unreadable certificate.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// `https://` in a build without TLS.
    #[error("`{url}` asks for TLS, which this build leaves out (feature `tls`)")]
    NoTls {
        /// The URL.
        url: String,
    },
    /// No answer came.
    #[error("{url}: {why}")]
    Unreachable {
        /// Who was asked.
        url: String,
        /// The innermost cause, such as `connection refused`.
        why: String,
    },
    /// No answer came in time.
    #[error("{url}: expected an answer within {within:?}, got none")]
    TimedOut {
        /// Who was asked.
        url: String,
        /// For how long.
        within: std::time::Duration,
    },
    /// An answer other than the one that was hoped for.
    #[error("{url}: answered {status}{}", text_after_colon(body))]
    Status {
        /// Who was asked.
        url: String,
        /// What came.
        status: StatusCode,
        /// The beginning of the answer's text.
        body: String,
    },
    /// A redirect that leads nowhere.
    #[error("{url}: redirected to `{location}`, {problem}")]
    Redirect {
        /// Who was asked.
        url: String,
        /// Where it pointed.
        location: String,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// Nobody leads the cluster at the moment, or nobody says who does.
    #[error("{masters}: expected a leading master, found none")]
    NoLeader {
        /// Where it was looked for.
        masters: String,
    },
    /// An agent that does not say where it answers.
    #[error("agent {agent}: expected an address, got `{pid}`")]
    NoAddress {
        /// Its id.
        agent: String,
        /// What it said.
        pid: String,
    },
    /// A message that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] super::wire::UnreadableMessage),
    /// There is no subscription at the moment, so there is nobody to call.
    #[error("not subscribed to a master")]
    NotSubscribed,
    /// The client has ended.
    #[error("the client has ended")]
    Ended,
}

impl MesosError {
    /// Whether credentials were missing, wrong, or not good enough.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status, .. } if matches!(status.as_u16(), 401 | 403))
    }

    /// Whether the same may work a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::NoLeader { .. } | Self::NotSubscribed => true,
            Self::Status { status, .. } => status.is_server_error() || status.is_redirection(),
            _ => false,
        }
    }
}

/// A URL without user, password, query, for errors and logs.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither can fail for a URL with a host, and one without has neither.
    url.set_username("").and_then(|()| url.set_password(None)).ok();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// The first characters of what came from outside, fit for one line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(800)];
    let text = String::from_utf8_lossy(head);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// The innermost cause, which says most.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(std::io::ErrorKind::ConnectionReset) => "connection reset".to_owned(),
        Some(std::io::ErrorKind::UnexpectedEof) => "connection closed in the middle of the answer".to_owned(),
        _ => excerpt(cause.to_string().as_bytes()),
    }
}

fn text_after_colon(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}
