//! Query strings: `?policy=NAME`, as often as one likes, and nothing else.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::{Problem, nearest, shorten};

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
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection: QueryRejection| Problem::bad_request(rejection.body_text()))?;
        let mut names = Vec::new();
        for (key, value) in pairs {
            if key != "policy" {
                let near = nearest(&key, ["policy"]).map(|near| format!(", did you mean `{near}`?"));
                let near = near.unwrap_or_default();
                return Err(Problem::bad_request(format!("unknown query parameter `{}`{near}", shorten(&key))));
            }
            names.push(value);
        }
        Ok(Self(names))
    }
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
