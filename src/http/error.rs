//! Errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::runtime::view::CommandError;

/// Longest piece of a request that an answer repeats.
const MAX_ECHO: usize = 128;

/// Longest name that is compared with others for a did-you-mean.
const MAX_COMPARED: usize = 128;

/// An error on its way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    allow: Option<&'static str>,
}

/// The members of RFC 9457 that are used. `type` is `about:blank`: the status says it all.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), allow: None }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn wrong_method(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// The methods that would have been right, for the `Allow` header.
    pub(super) fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// There is no `what` called `name`; `near` is the nearest one that there is.
    pub(super) fn missing(what: &str, name: &str, near: Option<&str>) -> Self {
        let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        Self::not_found(format!("there is no {what} `{}`{near}", shorten(name)))
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let status = match &error {
            CommandError::NotFound { .. } => StatusCode::NOT_FOUND,
            CommandError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CommandError::Conflict(_) => StatusCode::CONFLICT,
            CommandError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"setpoint\""));
        }
        response
    }
}

/// A piece of a request, short enough to be repeated.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The nearest of `candidates` to a name that is none of them, if one is near enough to have been meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_COMPARED {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["queue", "queues", "thermostat"];
        assert_eq!(nearest("qeue", names), Some("queue"));
        assert_eq!(nearest("thermostta", names), Some("thermostat"));
        assert_eq!(nearest("memcached", names), None);
        assert_eq!(nearest(&"q".repeat(100_000), names), None);
    }

    #[test]
    fn echoes_are_cut_between_characters() {
        assert_eq!(shorten("short"), "short");
        let cut = shorten(&"ö".repeat(1000));
        assert_eq!(cut.chars().count(), MAX_ECHO + 1);
    }
}
