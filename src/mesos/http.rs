//! The requests: where they go, with which credentials, over which TLS.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, LOCATION};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};

use super::error::{MesosError, excerpt, innermost, shown};

/// The header that names a subscription.
pub(super) const STREAM_ID: HeaderName = HeaderName::from_static("mesos-stream-id");

/// Most bytes of an answer that says what went wrong.
const MOST_PROBLEM: usize = 4096;

/// How we prove who we are.
#[derive(Clone)]
pub enum Credentials {
    /// HTTP basic authentication, as Mesos's `basic` authenticator wants it.
    Basic {
        /// The principal.
        principal: String,
        /// Its secret.
        secret: String,
    },
    /// A token, for other authenticators; executors get one from their agent.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { principal, .. } => {
                f.debug_struct("Basic").field("principal", principal).finish_non_exhaustive()
            }
            Self::Bearer(_) => f.write_str("Bearer(…)"),
        }
    }
}

/// A certificate of ours, those of its issuers, and its private key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(pub Vec<u8>);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// What requests have in common.
#[derive(Clone, Debug, Default)]
pub struct HttpConfig {
    /// Who asks, where that is asked for.
    pub credentials: Option<Credentials>,
    /// Certificates, in PEM, that are trusted besides those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether any certificate will do: only for an agent on this machine, and only where its cluster has it so.
    pub accept_any_certificate: bool,
    /// What we show to those who want to see a certificate of ours.
    pub identity: Option<Identity>,
    /// Limit of making a connection; none means 5 s.
    pub connect_timeout: Option<Duration>,
    /// Limit of a call, from its beginning to its answer; none means 10 s.
    pub call_timeout: Option<Duration>,
}

/// An HTTP client with its credentials.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client,
    credentials: Option<Credentials>,
    call_timeout: Duration,
}

impl Http {
    pub(super) fn new(config: &HttpConfig) -> Result<Self, MesosError> {
        Ok(Self::with(config, client(config).map_err(MesosError::Client)?))
    }

    /// One for a single peer. For a plain one no certificates are read, which is half of a short program's start.
    pub(super) fn to(peer: &Url, config: &HttpConfig) -> Result<Self, MesosError> {
        if peer.scheme() == "https" {
            return Self::new(config);
        }
        let builder = builder(config);
        #[cfg(feature = "tls")]
        let builder = builder.tls_certs_only([]);
        Ok(Self::with(config, builder.build().map_err(MesosError::Client)?))
    }

    fn with(config: &HttpConfig, client: Client) -> Self {
        let call_timeout = config.call_timeout.unwrap_or(Duration::from_secs(10));
        Self { client, credentials: config.credentials.clone(), call_timeout }
    }

    /// Refuses what this build cannot do.
    pub(super) fn check(url: &Url) -> Result<(), MesosError> {
        if url.scheme() == "https" && !cfg!(feature = "tls") {
            return Err(MesosError::NoTls { url: shown(url) });
        }
        Ok(())
    }

    /// Sends a call and waits for the head of its answer, for as long as that takes.
    pub(super) async fn post(&self, url: &Url, stream_id: Option<&str>, body: Vec<u8>) -> Result<Response, MesosError> {
        let mut request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(id) = stream_id {
            request = request.header(STREAM_ID, id);
        }
        let request = self.authorized(request).header(ACCEPT, "application/json").body(body);
        request.send().await.map_err(|error| unreachable(url, &error))
    }

    /// Sends a call that answers no more than whether it was taken.
    pub(super) async fn call(&self, url: &Url, stream_id: Option<&str>, body: Vec<u8>) -> Result<(), MesosError> {
        let sent = self.limited(url, self.post(url, stream_id, body)).await?;
        if sent.status().is_success() { Ok(()) } else { Err(self.problem(url, sent).await) }
    }

    /// Reads a whole JSON answer of at most `most` bytes.
    pub(super) async fn get(&self, url: &Url, most: usize) -> Result<Vec<u8>, MesosError> {
        let request = self.authorized(self.client.get(url.clone())).header(ACCEPT, "application/json");
        let reading = async {
            let answer = request.send().await.map_err(|error| unreachable(url, &error))?;
            if !answer.status().is_success() {
                return Err(self.problem(url, answer).await);
            }
            read(url, answer, most).await
        };
        self.limited(url, reading).await
    }

    /// What an answer says went wrong.
    pub(super) async fn problem(&self, url: &Url, answer: Response) -> MesosError {
        let status = answer.status();
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let body = if let Some(location) = location.filter(|_| status.is_redirection()) {
            location
        } else {
            let reading = read(url, answer, MOST_PROBLEM);
            let text = tokio::time::timeout(self.call_timeout, reading).await.ok().and_then(Result::ok);
            excerpt(&text.unwrap_or_default())
        };
        MesosError::Status { url: shown(url), status, body: in_words(status, body) }
    }

    async fn limited<T>(&self, url: &Url, work: impl Future<Output = Result<T, MesosError>>) -> Result<T, MesosError> {
        let timed_out = |_| MesosError::TimedOut { url: shown(url), within: self.call_timeout };
        tokio::time::timeout(self.call_timeout, work).await.map_err(timed_out)?
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.credentials {
            Some(Credentials::Basic { principal, secret }) => request.basic_auth(principal, Some(secret)),
            Some(Credentials::Bearer(token)) => request.bearer_auth(token),
            None => request,
        }
    }
}

fn unreachable(url: &Url, error: &reqwest::Error) -> MesosError {
    MesosError::Unreachable { url: shown(url), why: innermost(error) }
}

async fn read(url: &Url, mut answer: Response, most: usize) -> Result<Vec<u8>, MesosError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(url, &error))? {
        let room = most.saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(body)
}

/// Mesos answers a refusal of credentials with an empty body or a page; this says what it means.
fn in_words(status: StatusCode, body: String) -> String {
    match status.as_u16() {
        401 => "the master does not accept these credentials (principal and secret), or wants some".to_owned(),
        403 if body.is_empty() => "the principal may not do this".to_owned(),
        _ => body,
    }
}

fn builder(config: &HttpConfig) -> ClientBuilder {
    #[cfg(feature = "tls")]
    // Somebody else in the process may have chosen a provider already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.connect_timeout.unwrap_or(Duration::from_secs(5)))
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(60))
        .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")))
}

#[cfg(not(feature = "tls"))]
fn client(config: &HttpConfig) -> Result<Client, reqwest::Error> {
    builder(config).build()
}

#[cfg(feature = "tls")]
fn client(config: &HttpConfig) -> Result<Client, reqwest::Error> {
    let identity = config.identity.as_ref().map(|Identity(pem)| reqwest::Identity::from_pem(pem)).transpose()?;
    let begin = || {
        let builder = builder(config).tls_danger_accept_invalid_certs(config.accept_any_certificate);
        match &identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        }
    };
    if let Some(pem) = &config.ca_pem {
        let certificates = reqwest::Certificate::from_pem_bundle(pem)?;
        return begin()
            .tls_certs_merge(certificates.clone())
            .build()
            .or_else(|_| begin().tls_certs_only(certificates).build());
    }
    // A machine without any CA certificates can still speak plain HTTP.
    begin().build().or_else(|_| begin().tls_certs_only([]).build())
}
