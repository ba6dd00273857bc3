//! The JSON shapes of the API: the only place where engine values become JSON.
//!
//! The keys of design.md's Contract are exactly here; others beside them may grow. Times are RFC 3339 in UTC with
//! milliseconds, durations are seconds, a number that is not finite becomes null.

mod decision;
mod policy;
mod script;
mod service;
mod shadow;
mod task;

use std::time::SystemTime;

use serde::{Serialize, Serializer};

pub use self::decision::{DecisionJson, ReasonJson, SampleJson};
pub use self::policy::{
    BackendJson, BoundsJson, EndedJson, OverrideJson, PauseJson, PoliciesJson, PolicyJson, SpecJson, TasksJson,
};
pub use self::script::{ParamJson, ScriptErrorJson, ScriptJson, ValueJson};
pub use self::service::{MemberJson, ServiceJson, ServicesJson};
pub use self::shadow::ShadowJson;
pub use self::task::{AllTasksJson, TaskJson};

/// A point in time that serialises as RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::try_from(self.0) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
            // Beyond the year 9999 there is no RFC 3339.
            Err(_) => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::core::model::Sample;

    use super::*;

    #[test]
    fn times_have_milliseconds_and_never_fail() {
        let text = |time| serde_json::to_string(&Time(time)).unwrap();
        assert_eq!(text(SystemTime::UNIX_EPOCH), r#""1970-01-01T00:00:00.000Z""#);
        assert_eq!(
            text(SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_225_600_123_999)),
            r#""2026-01-01T00:00:00.123Z""#
        );
        assert_eq!(text(SystemTime::UNIX_EPOCH - Duration::from_millis(1)), r#""1969-12-31T23:59:59.999Z""#);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert_eq!(text(far), "null");
    }

    #[test]
    fn only_figures_have_a_value() {
        let json = |sample: Sample| serde_json::to_value(SampleJson::from(&sample)).unwrap();
        assert_eq!(json(Sample::value(0.0)), serde_json::json!({ "kind": "value", "value": 0.0, "age_seconds": 0.0 }));
        assert_eq!(json(Sample::Missing), serde_json::json!({ "kind": "missing", "value": null, "age_seconds": null }));
        assert_eq!(
            json(Sample::Error { message: "no".into() }),
            serde_json::json!({ "kind": "error", "value": null, "age_seconds": null, "message": "no" })
        );
        assert_eq!(json(Sample::value(f64::NAN))["value"], serde_json::Value::Null);
    }
}
