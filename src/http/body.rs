//! Request bodies: small JSON objects whose every key is known and checked.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use serde_json::{Map, Value};

use crate::config::units::parse_duration;

use super::error::{Problem, nearest, shorten};

/// Longest pause or override that has an end: ten years, so that adding it to a clock cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 86_400);

/// Longest reason, in characters.
const MAX_REASON: usize = 500;

/// The keys of a body; an empty body is an empty object.
#[derive(Clone, Debug)]
pub(super) struct Fields(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection: BytesRejection| Problem::new(rejection.status(), rejection.body_text()))?;
        Self::parse(&bytes)
    }
}

impl Fields {
    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(other) => Err(Problem::bad_request(format!("the body must be a JSON object, got {}", kind(&other)))),
            Err(error) => Err(Problem::bad_request(format!("the body is not JSON: {error}"))),
        }
    }

    /// Refuses keys that the call does not take.
    pub(super) fn only(self, known: &[&str]) -> Result<Self, Problem> {
        let Some(key) = self.0.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(self) };
        let near = nearest(key, known.iter().copied());
        let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        let takes = match known {
            [] => "this call takes no keys".to_owned(),
            known => format!("this call takes `{}`", known.join("`, `")),
        };
        Err(Problem::bad_request(format!("unknown key `{}`{near} ({takes})", shorten(key))))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A number of tasks.
    pub(super) fn count(&self, key: &str) -> Result<Option<u32>, Problem> {
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        self.get(key)
            .map(|value| number(value).ok_or_else(|| wrong(key, "a whole number of tasks from 0", value)))
            .transpose()
    }

    /// true or false; absent is false.
    pub(super) fn flag(&self, key: &str) -> Result<bool, Problem> {
        self.get(key).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong(key, "true or false", value)))
    }

    /// Text on one line; empty text is none.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong(key, "text", value))?.trim();
        if text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
            return Err(Problem::bad_request(format!("`{key}` must be one line of at most {MAX_REASON} characters")));
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// A duration with its unit, more than nothing.
    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let parsed = value.as_str().and_then(|text| parse_duration(text).ok());
        let duration =
            parsed.ok_or_else(|| wrong(key, "a duration with a unit, such as \"90s\", \"15m\" or \"1h30m\"", value))?;
        if duration.is_zero() || duration > MAX_DURATION {
            return Err(Problem::bad_request(format!("`{key}` must be more than 0 and at most 3650 days")));
        }
        Ok(Some(duration))
    }
}

fn wrong(key: &str, expected: &str, got: &Value) -> Problem {
    let got = match got {
        Value::Array(_) | Value::Object(_) => kind(got).to_owned(),
        scalar => format!("`{}`", shorten(&scalar.to_string())),
    };
    Problem::bad_request(format!("`{key}` must be {expected}, got {got}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_objects_with_known_keys() {
        let detail =
            |bytes: &[u8]| format!("{:?}", Fields::parse(bytes).and_then(|fields| fields.only(&["for", "reason"])));
        assert!(detail(b" \n").starts_with("Ok"));
        assert!(detail(b"{\"reason\":\"x\"}").starts_with("Ok"));
        assert!(detail(b"[]").contains("got a list"));
        assert!(detail(b"{").contains("not JSON"));
        assert!(detail(b"\xff\xfe").contains("not JSON"));
        assert!(detail(b"{\"reasn\":1}").contains("did you mean `reason`?"));
        assert!(detail("[".repeat(10_000).as_bytes()).contains("not JSON"));
    }

    #[test]
    fn values_say_what_was_expected() {
        let fields =
            Fields::parse(br#"{"min":-1,"max":4294967296,"for":"soon","force":1,"reason":"a\nb","n":null,"ok":7}"#)
                .unwrap();
        assert!(fields.count("min").is_err() && fields.count("max").is_err());
        assert!(fields.duration("for").is_err() && fields.flag("force").is_err() && fields.text("reason").is_err());
        assert_eq!((fields.count("n").unwrap(), fields.count("ok").unwrap()), (None, Some(7)));
    }
}
