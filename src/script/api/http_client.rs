//! One HTTP request of a script: allowed hosts, secrets, redirects, limits. Knows nothing of Lua.
//!
//! The client is one for all scripts of a host, so that connections to a server are used again. Redirects are
//! followed here and not in the client: each hop is checked against the allowed hosts, and credentials stay
//! with the origin that they were written for. Proxies of the environment are not used.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Client, Method, StatusCode, Url};

use super::args::Problem;
use super::hosts;
use super::secret::SecretText;
use crate::script::Permissions;
use crate::script::call::HostShared;

/// Most redirects of one request.
const MOST_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a request proves who sends it.
#[derive(Clone, Debug)]
pub(super) enum Auth {
    /// User and password.
    Basic(String, SecretText),
    /// A token.
    Bearer(SecretText),
}

/// A request, checked as far as that goes without looking anything up.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, SecretText)>,
    pub(super) auth: Option<Auth>,
    pub(super) body: Vec<u8>,
    /// For the whole of it, redirects included.
    pub(super) timeout: Duration,
    /// Most bytes of the answer's body.
    pub(super) most_body: usize,
    pub(super) follow: bool,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Where it came from in the end, as far as may be shown.
    pub(super) url: String,
    /// Names in lower case; repeated ones joined by `, `.
    pub(super) headers: BTreeMap<String, Vec<u8>>,
    pub(super) body: Vec<u8>,
}

/// A URL without its query, which may hold keys, for errors and records.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Refuses what scripts may not reach.
pub(super) fn check(permissions: &Permissions, url: &Url) -> Result<(), Problem> {
    let port = url.port_or_known_default().unwrap_or(0);
    hosts::check(permissions, url.host_str().unwrap_or_default(), port)
}

/// Sends a request, follows its redirects and reads the answer, within its limits.
pub(super) async fn send(shared: &HostShared, request: Request) -> Result<Response, Problem> {
    let client = shared.http.get_or_try_init(client)?;
    let (timeout, first) = (request.timeout, shown(&request.url));
    match tokio::time::timeout(timeout, follow(client, &shared.permissions, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Problem::Failed(format!("{first}: expected an answer within {timeout:?}, got none"))),
    }
}

fn client() -> Result<Client, Problem> {
    #[cfg(feature = "tls")]
    // Somebody else in the process may have chosen a provider already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = || {
        Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(8)
            .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")))
    };
    let client = builder().build();
    // A machine without any CA certificates can still speak plain HTTP.
    #[cfg(feature = "tls")]
    let client = client.or_else(|_| builder().tls_certs_only([]).build());
    client.map_err(|error| Problem::Failed(format!("cannot make an HTTP client: {}", cause(&error))))
}

async fn follow(client: &Client, permissions: &Permissions, mut request: Request) -> Result<Response, Problem> {
    for _ in 0..=MOST_REDIRECTS {
        check(permissions, &request.url)?;
        let answer = send_once(client, &request).await?;
        match next_hop(&request, answer.status(), answer.headers())? {
            Some(url) => redirect(&mut request, answer.status(), url),
            None => return read(&request, answer).await,
        }
    }
    Err(Problem::Failed(format!("{}: expected at most {MOST_REDIRECTS} redirects, got more", shown(&request.url))))
}

async fn send_once(client: &Client, request: &Request) -> Result<reqwest::Response, Problem> {
    let mut sent = client.request(request.method.clone(), request.url.clone()).headers(headers(request).await?);
    sent = match &request.auth {
        Some(Auth::Basic(user, password)) => sent.basic_auth(user, Some(password.reveal().await?)),
        Some(Auth::Bearer(token)) => sent.bearer_auth(token.reveal().await?),
        None => sent,
    };
    if !request.body.is_empty() {
        sent = sent.body(request.body.clone());
    }
    sent.send().await.map_err(|error| failed(&request.url, &error))
}

async fn headers(request: &Request) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    for (name, text) in &request.headers {
        let unfit = |_| Problem::Failed(format!("header {name}: expected printable text, got other characters"));
        let mut value = HeaderValue::from_str(&text.reveal().await?).map_err(unfit)?;
        value.set_sensitive(text.is_secret());
        headers.append(name, value);
    }
    Ok(headers)
}

/// Where an answer sends the request on to, if it does.
fn next_hop(request: &Request, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, Problem> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = headers.get(LOCATION).filter(|_| redirects && request.follow) else { return Ok(None) };
    let url = location.to_str().ok().and_then(|location| request.url.join(location).ok());
    match url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        Some(url) => Ok(Some(url)),
        None => Err(Problem::Failed(format!("{}: redirected to something that is no URL", shown(&request.url)))),
    }
}

fn redirect(request: &mut Request, status: StatusCode, url: Url) {
    let becomes_get = match status.as_u16() {
        303 => request.method != Method::HEAD,
        301 | 302 => request.method == Method::POST,
        _ => false,
    };
    if becomes_get {
        request.method = Method::GET;
        request.body.clear();
        request.headers.retain(|(name, _)| *name != CONTENT_TYPE && *name != CONTENT_LENGTH);
    }
    if url.origin() != request.url.origin() {
        request.auth = None;
        let private =
            |name: &HeaderName, text: &SecretText| text.is_secret() || *name == AUTHORIZATION || *name == COOKIE;
        request.headers.retain(|(name, text)| !private(name, text));
    }
    request.url = url;
}

async fn read(request: &Request, mut answer: reqwest::Response) -> Result<Response, Problem> {
    let most = request.most_body;
    let too_large =
        || Problem::Failed(format!("{}: expected a body of at most {most} bytes, got more", shown(&request.url)));
    let announced = answer.content_length().filter(|_| request.method != Method::HEAD);
    if announced.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failed(&request.url, &error))? {
        if body.len() + chunk.len() > most {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    let mut headers: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, value) in answer.headers() {
        let joined = headers.entry(name.as_str().to_owned()).or_default();
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    Ok(Response { status: answer.status().as_u16(), url: shown(&request.url), headers, body })
}

/// What went wrong with a request, in a few words.
fn failed(url: &Url, error: &reqwest::Error) -> Problem {
    let what = if error.is_timeout() {
        "expected a connection in time, got none".to_owned()
    } else if error.is_builder() {
        format!("cannot be sent: {}", cause(error))
    } else {
        cause(error)
    };
    Problem::Failed(format!("{}: {what}", shown(url)))
}

/// The innermost cause, which says most: `connection refused`, a TLS fault, a name that is not known.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    let mut is_tls = false;
    while let Some(source) = innermost.source() {
        innermost = source;
        is_tls |= innermost.to_string().contains("certificate");
    }
    if let Some(io) = innermost.downcast_ref::<std::io::Error>() {
        match io.kind() {
            std::io::ErrorKind::ConnectionRefused => return "connection refused".to_owned(),
            std::io::ErrorKind::ConnectionReset => return "connection reset".to_owned(),
            std::io::ErrorKind::UnexpectedEof => return "connection closed in the middle of the answer".to_owned(),
            _ => {}
        }
    }
    let text = innermost.to_string();
    // The cause comes from outside and ends up in a one-line error.
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if is_tls { format!("TLS: {line}") } else { line }
}
