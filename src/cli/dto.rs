//! What the API answers, as far as the verbs show it. Unknown fields are ignored and missing ones are empty, so a
//! command and a host of different versions still understand each other.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use setpoint::core::compare::Tally;

/// `GET /v1/policies`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PolicyList {
    pub(crate) policies: Vec<Policy>,
    pub(crate) backends: BTreeMap<String, Backend>,
}

/// What a backend shows of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Backend {
    pub(crate) problem: Option<String>,
    pub(crate) facts: BTreeMap<String, String>,
}

/// One policy.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) script: Script,
    pub(crate) ticks: u64,
    #[serde(deserialize_with = "time")]
    pub(crate) last_tick: Option<Timestamp>,
    pub(crate) sample: Option<Sample>,
    pub(crate) setpoint: Option<f64>,
    pub(crate) tasks: Tasks,
    pub(crate) decision: Option<Decision>,
    pub(crate) acted: i64,
    pub(crate) paused: Option<Operator>,
    #[serde(rename = "override")]
    pub(crate) bounds_override: Option<Operator>,
    pub(crate) ended: Option<Ended>,
    pub(crate) stalled: bool,
    pub(crate) shadow: Option<Shadow>,
}

/// The policy that is evaluated beside it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Shadow {
    pub(crate) script: Script,
    pub(crate) sample: Option<Sample>,
    pub(crate) setpoint: Option<f64>,
    pub(crate) decision: Option<Decision>,
    pub(crate) difference: Option<i64>,
    pub(crate) compared: Tally,
}

/// Its script.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Script {
    pub(crate) path: String,
    pub(crate) sha256: String,
    /// The last error of a function.
    pub(crate) error: Option<ScriptError>,
    /// Why the file on disk is not what runs.
    pub(crate) refused: Option<ScriptError>,
}

/// A fault of a script.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ScriptError {
    /// Several lines: where, what, the source line, the calls, a hint.
    pub(crate) report: String,
}

/// An operator's pause or override.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Operator {
    pub(crate) min: Option<u32>,
    pub(crate) max: Option<u32>,
    #[serde(deserialize_with = "time")]
    pub(crate) until: Option<Timestamp>,
    pub(crate) reason: Option<String>,
}

/// Why a policy is over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ended {
    pub(crate) by: String,
    pub(crate) code: i32,
    pub(crate) reason: String,
}

/// Its last sample.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Sample {
    pub(crate) kind: String,
    pub(crate) value: Option<f64>,
    pub(crate) age_seconds: Option<f64>,
    /// What went wrong, for an error.
    pub(crate) message: Option<String>,
}

/// Its tasks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tasks {
    pub(crate) running: u32,
    pub(crate) in_flight: u32,
    pub(crate) killing: u32,
    pub(crate) desired: Option<u32>,
    pub(crate) ready: u32,
    pub(crate) asked: u32,
    pub(crate) staging: u32,
    pub(crate) waiting: u32,
}

/// Its last decision.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Decision {
    pub(crate) desired: u32,
    pub(crate) raw: i64,
    pub(crate) adjustment: i64,
    pub(crate) reasons: Vec<Reason>,
}

/// One link of its chain of reasons.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reason {
    pub(crate) guard: String,
    pub(crate) text: String,
}

/// `GET /v1/tasks`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TaskList {
    pub(crate) tasks: Vec<Task>,
}

/// One task.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) policy: String,
    pub(crate) state: String,
    pub(crate) host: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    #[serde(deserialize_with = "time")]
    pub(crate) started: Option<Timestamp>,
}

/// An error as the API gives it (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) title: Option<String>,
    pub(crate) detail: Option<String>,
}

/// A time that cannot be read is not worth a failure: nothing is decided by it.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}
