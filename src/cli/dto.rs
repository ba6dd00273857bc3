//! What the API answers, as far as the verbs show it. Unknown fields are ignored and missing ones are empty, so a
//! command and a host of different versions still understand each other.

use serde::Deserialize;
use serde_json::Value;

/// `GET /v1/policies`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PolicyList {
    pub(crate) policies: Vec<Policy>,
}

/// One policy.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) script: Script,
    pub(crate) ticks: u64,
    pub(crate) last_tick: Option<String>,
    pub(crate) sample: Option<Sample>,
    pub(crate) setpoint: Option<f64>,
    pub(crate) tasks: Tasks,
    pub(crate) decision: Option<Decision>,
    pub(crate) paused: Option<Value>,
    #[serde(rename = "override")]
    pub(crate) bounds_override: Option<Value>,
    pub(crate) ended: Option<Value>,
    pub(crate) stalled: bool,
}

/// Its script.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Script {
    pub(crate) path: String,
    pub(crate) sha256: String,
    pub(crate) error: Option<Value>,
}

/// Its last sample.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Sample {
    pub(crate) kind: String,
    pub(crate) value: Option<f64>,
}

/// Its tasks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tasks {
    pub(crate) running: u32,
    pub(crate) in_flight: u32,
    pub(crate) killing: u32,
    pub(crate) desired: Option<u32>,
}

/// Its last decision.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Decision {
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
    pub(crate) started: Option<String>,
}

/// An error as the API gives it (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) title: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

/// The words of a value that is text, or an object that has some: an error, a pause, an end.
pub(crate) fn words(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    ["report", "headline", "message", "reason"]
        .iter()
        .find_map(|key| value.get(key).and_then(Value::as_str))
        .map_or_else(|| value.to_string(), str::to_owned)
}
