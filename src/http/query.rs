//! Query strings: `?policy=NAME`, as often as one likes, and what service discovery takes beside it.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::{Problem, nearest, shorten};
use super::services::Format;
use crate::config::units::parse_duration;

/// Which policies a request is about. A fleet's name stands for all of its rows. None named is all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyFilter(Vec<String>);

impl PolicyFilter {
    /// The names asked for.
    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether a policy is among them.
    pub(super) fn takes(&self, policy: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| covers(name, policy))
    }
}

/// Whether `name` is the policy's own, or that of its fleet.
pub(super) fn covers(name: &str, policy: &str) -> bool {
    policy.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl<S: Send + Sync> FromRequestParts<S> for PolicyFilter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs = pairs(parts, state, &["policy"]).await?;
        Ok(Self(pairs.into_iter().map(|(_, value)| value).collect()))
    }
}

/// What `GET /v1/services` is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct ServicesQuery {
    /// Whose services.
    pub(super) policies: PolicyFilter,
    /// How they are written.
    pub(super) format: Format,
    /// Which port, where a format has one for each task.
    pub(super) port: Option<String>,
    /// How long new tasks are warmed up.
    pub(super) warm_up: Option<Duration>,
}

impl<S: Send + Sync> FromRequestParts<S> for ServicesQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (key, value) in pairs(parts, state, &["policy", "format", "port", "warm_up"]).await? {
            match key.as_str() {
                "policy" => query.policies.0.push(value),
                "format" => query.format = format(&value)?,
                "port" => query.port = Some(value),
                _ => {
                    let duration = parse_duration(&value);
                    query.warm_up =
                        Some(duration.map_err(|error| Problem::bad_request(format!("`warm_up`: {error}")))?);
                }
            }
        }
        Ok(query)
    }
}

fn format(name: &str) -> Result<Format, Problem> {
    let known = Format::ALL.map(|(name, _)| name);
    let found = Format::ALL.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, format)| format).ok_or_else(|| {
        let text = format!("unknown format `{}`: expected one of {}", shorten(name), known.join(", "));
        Problem::bad_request(text)
    })
}

/// The parameters of a request, all of them known.
async fn pairs<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    known: &[&'static str],
) -> Result<Vec<(String, String)>, Problem> {
    let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
        .await
        .map_err(|rejection: QueryRejection| Problem::bad_request(rejection.body_text()))?;
    for (key, _) in &pairs {
        if !known.contains(&key.as_str()) {
            let near = nearest(key, known.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
            let near = near.unwrap_or_default();
            return Err(Problem::bad_request(format!("unknown query parameter `{}`{near}", shorten(key))));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_covers_its_rows_only() {
        assert!(covers("redis", "redis"));
        assert!(covers("redis", "redis/mail"));
        assert!(!covers("redis", "redis2"));
        assert!(!covers("redis/mail", "redis"));
        assert!(PolicyFilter::default().takes("anything"));
    }
}
