//! What is checked before a request reaches its handler (semantics §30), and the headers of every answer.
//!
//! A page elsewhere on the web can make a browser send requests here. It cannot forge `Host` (so a rebound name is
//! refused), its changing requests carry its own `Origin`, and it cannot set a JSON content type without a
//! preflight that is never answered.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::{Problem, shorten};
use super::{HttpConfig, assets};

/// Headers that every answer carries.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// The checks, set up once.
#[derive(Debug)]
pub(super) struct Gate {
    /// Digest of the token: comparing digests takes the same time wherever they differ.
    token: Option<[u8; 32]>,
    hosts: Vec<String>,
}

impl Gate {
    pub(super) fn new(config: HttpConfig) -> Self {
        Self { token: config.token.map(|token| digest(token.as_bytes())), hosts: config.hosts }
    }

    fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = self.check_host(uri, headers)?;
        let public = uri.path() == "/healthz" || assets::is_asset(uri.path());
        if !public {
            self.check_token(headers)?;
        }
        if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            check_origin(host, headers)?;
            check_content_type(method, headers)?;
        }
        Ok(())
    }

    /// The request's host, once it is known to be one of ours.
    fn check_host<'a>(&self, uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Problem> {
        let mut named = headers.get_all(header::HOST).iter();
        let (first, second) = (named.next(), named.next());
        let host = match (first, second) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            (None, _) => uri.authority().map_or("", |authority| authority.as_str()),
            (Some(_), Some(_)) => "",
        };
        let target = uri.authority().map_or(host, |authority| authority.as_str());
        if self.knows(host) && self.knows(target) {
            return Ok(host);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "host `{}` is not one that this server answers for: use 127.0.0.1 or localhost, or add the name to its \
                 configured hosts",
                shorten(host)
            ),
        ))
    }

    fn knows(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let address = name.parse::<IpAddr>().ok();
        if address.is_some_and(|address| address.to_canonical().is_loopback()) {
            return true;
        }
        self.hosts.iter().any(|known| {
            known.eq_ignore_ascii_case(name)
                || (address.is_some() && known.trim_matches(['[', ']']).parse::<IpAddr>().ok() == address)
        })
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(expected) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        if given.is_some_and(|given| same(&digest(given), expected)) {
            return Ok(());
        }
        let what = if given.is_some() { "the bearer token is wrong" } else { "a bearer token is needed" };
        Err(Problem::new(StatusCode::UNAUTHORIZED, format!("{what}: send `Authorization: Bearer TOKEN`")))
    }
}

/// Lets a request in or answers it, and dresses the answer.
pub(super) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut response = match gate.admit(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The name in `name:port`, `[::1]:port` or either without a port.
fn host_name(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port_is_fine = rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (port_is_fine && !name.is_empty()).then_some(name)
}

/// A changing call comes from a page of our own or from no page at all.
fn check_origin(host: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let foreign_site =
        headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
    let same_origin = origins.peek().is_none()
        || origins.all(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        });
    if same_origin && !foreign_site {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "the request comes from a page of another origin, which may not change anything here",
    ))
}

/// A changing call is JSON. Only a DELETE may leave the type out: a browser never sends one unasked.
fn check_content_type(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let is_json = match given {
        Some(given) => given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"),
        None => *method == Method::DELETE,
    };
    if is_json {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!(
            "changing calls take `Content-Type: application/json`, also with an empty body; got {}",
            given.map_or_else(|| "none".to_owned(), |given| format!("`{}`", shorten(given)))
        ),
    ))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Equality in a time that does not depend on where the two differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_loopback_or_configured() {
        let gate =
            Gate::new(HttpConfig { hosts: vec!["scale.example".into(), "10.0.0.5".into()], ..HttpConfig::default() });
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.8.9.1",
            "[::1]:80",
            "[::1]",
            "[::ffff:127.0.0.1]:1",
            "scale.example:443",
            "Scale.Example",
            "10.0.0.5:8080",
        ] {
            assert!(gate.knows(host), "{host}");
        }
        for host in [
            "",
            ":8080",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:80:90",
            "localhost:99999",
            "[::1",
            "[::1]x",
            "10.0.0.6",
            "scale.example.",
            "user@localhost",
            "0.0.0.0",
        ] {
            assert!(!gate.knows(host), "{host}");
        }
    }

    #[test]
    fn bearer_tokens_are_read_strictly() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for wrong in [&b""[..], b"Bearer", b"Basic abc", b"abc", b"Bearerabc"] {
            assert_eq!(bearer(wrong), None);
        }
    }
}
