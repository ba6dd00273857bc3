//! The JSON shapes of the API: the only place where engine values become JSON.
//!
//! The keys of design.md's Contract are exactly here; others beside them may grow. Times are RFC 3339 in UTC with
//! milliseconds, durations are seconds, a number that is not finite becomes null.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::core::decision::{Decision, Reason};
use crate::core::model::{Counts, Sample};
use crate::core::policy::PolicySpec;
use crate::runtime::record::{Ended, Override, Pause};
use crate::runtime::view::{PolicySnapshot, ScriptView};
use crate::script::{Param, ParamValue, ScriptError, TaskView};

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

/// The answer of `GET /v1/policies`.
#[derive(Debug, Serialize)]
pub struct PoliciesJson<'a> {
    /// Every policy, in the order of their names.
    pub policies: Vec<PolicyJson<'a>>,
}

/// The answer of `GET /v1/tasks`.
#[derive(Debug, Serialize)]
pub struct AllTasksJson<'a> {
    /// Every task, in the order of their ids.
    pub tasks: Vec<TaskJson<'a>>,
}

/// One policy, as in `GET /v1/policies/NAME`.
#[derive(Debug, Serialize)]
pub struct PolicyJson<'a> {
    /// Its name, with a literal slash for a fleet's row.
    pub name: &'a str,
    /// Counts up with each script that took effect.
    pub generation: u64,
    /// Its script.
    pub script: ScriptJson<'a>,
    /// Ticks so far.
    pub ticks: u64,
    /// When the last one began.
    pub last_tick: Option<Time>,
    /// When the next one is due.
    pub next_tick: Option<Time>,
    /// The last sample; of kind `missing` before the first tick.
    pub sample: SampleJson<'a>,
    /// The last setpoint.
    pub setpoint: Option<f64>,
    /// Counts of its tasks.
    pub tasks: TasksJson,
    /// min and max in force.
    pub bounds: BoundsJson,
    /// The last decision; null before the first.
    pub decision: Option<DecisionJson<'a>>,
    /// What the last tick carried out: + launched, − killed.
    pub acted: i64,
    /// null, or the pause.
    pub paused: Option<PauseJson<'a>>,
    /// null, or the override.
    pub r#override: Option<OverrideJson<'a>>,
    /// null, or why it is over.
    pub ended: Option<EndedJson<'a>>,
    /// Whether it has missed three intervals.
    pub stalled: bool,
    /// Failures net of successes.
    pub failures: u32,
    /// What its table says, in short; null for a retired policy.
    pub spec: Option<SpecJson<'a>>,
    /// Declared parameters and their values.
    pub params: BTreeMap<&'a str, ParamJson<'a>>,
}

/// A policy's script.
#[derive(Debug, Serialize)]
pub struct ScriptJson<'a> {
    /// Its file.
    pub path: String,
    /// SHA-256 of what runs, in hex.
    pub sha256: &'a str,
    /// null, or the last error of a hook.
    pub error: Option<ScriptErrorJson<'a>>,
    /// null, or why the file on disk is not what runs.
    pub refused: Option<ScriptErrorJson<'a>>,
}

/// A fault of a script.
#[derive(Debug, Serialize)]
pub struct ScriptErrorJson<'a> {
    /// One line.
    pub message: &'a str,
    /// Which file.
    pub path: String,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Which function.
    pub hook: &'static str,
    /// What sort of fault.
    pub kind: &'static str,
    /// What to do about it.
    pub hint: Option<&'a str>,
    /// The whole report: headline, source line with a caret, call chain, hint.
    pub report: String,
}

/// A sample. `value` is null unless `kind` is `value` or `stale`.
#[derive(Debug, Serialize)]
pub struct SampleJson<'a> {
    /// `value`, `missing`, `stale` or `error`.
    pub kind: &'static str,
    /// The figure.
    pub value: Option<f64>,
    /// How old the figure was when it was read.
    pub age_seconds: Option<f64>,
    /// How many tasks it speaks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<u32>,
    /// What went wrong, for an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

/// How many tasks are in which state.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TasksJson {
    /// Running, ready or not.
    pub running: u32,
    /// Wanted and not ready.
    pub in_flight: u32,
    /// Told to end, not yet gone.
    pub killing: u32,
    /// Wanted.
    pub desired: u32,
    /// Running and ready.
    pub ready: u32,
    /// Recorded, not yet confirmed by the backend.
    pub asked: u32,
    /// Placed, not yet running.
    pub staging: u32,
    /// Replacements that wait for their backoff.
    pub waiting: u32,
}

/// min and max.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BoundsJson {
    /// Fewest tasks.
    pub min: u32,
    /// Most tasks.
    pub max: u32,
}

/// A decision with the chain of reasons that led to it.
#[derive(Debug, Serialize)]
pub struct DecisionJson<'a> {
    /// The desired number before.
    pub desired: u32,
    /// What the law wanted, in tasks: + launches, − kills.
    pub raw: i64,
    /// What was left of it after the guards.
    pub adjustment: i64,
    /// How much of it only brings the number up to min.
    pub to_min: u32,
    /// Who changed it, in order.
    pub reasons: Vec<ReasonJson<'a>>,
}

/// One link of the chain.
#[derive(Debug, Serialize)]
pub struct ReasonJson<'a> {
    /// Who.
    pub guard: &'static str,
    /// In words.
    pub text: String,
    /// The adjustment before.
    pub from: i64,
    /// The adjustment after.
    pub to: i64,
    /// The figures.
    pub detail: &'a crate::core::decision::Detail,
}

/// A pause.
#[derive(Debug, Serialize)]
pub struct PauseJson<'a> {
    /// When it ends by itself; null is never.
    pub until: Option<Time>,
    /// As given.
    pub reason: Option<&'a str>,
}

/// An operator's bounds.
#[derive(Debug, Serialize)]
pub struct OverrideJson<'a> {
    /// In place of min.
    pub min: Option<u32>,
    /// In place of max.
    pub max: Option<u32>,
    /// When it ends by itself; null is never.
    pub until: Option<Time>,
    /// As given.
    pub reason: Option<&'a str>,
}

/// Why a policy is over.
#[derive(Debug, Serialize)]
pub struct EndedJson<'a> {
    /// `stop`, `max_failures`, `gone` or `retired`.
    pub by: &'a str,
    /// Its exit code.
    pub code: i32,
    /// In words.
    pub reason: &'a str,
}

/// What a policy table says, in short.
#[derive(Debug, Serialize)]
pub struct SpecJson<'a> {
    /// Name of the backend.
    pub backend: &'a str,
    /// `service` or `jobs`.
    pub kind: crate::core::model::Kind,
    /// `heats` or `cools`.
    pub effect: crate::core::model::Effect,
    /// Name of the law.
    pub law: &'static str,
    /// Shortest time between ticks.
    pub interval_seconds: f64,
    /// Longest time between ticks.
    pub interval_max_seconds: f64,
    /// The policy's own min and max.
    pub bounds: BoundsJson,
}

/// A parameter's value and default.
#[derive(Debug, Serialize)]
pub struct ParamJson<'a> {
    /// Its value.
    pub value: ValueJson<'a>,
    /// Its default.
    pub default: ValueJson<'a>,
}

/// A value of a parameter.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ValueJson<'a> {
    /// true or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(&'a str),
}

/// One task, as in `GET /v1/tasks`.
#[derive(Debug, Serialize)]
pub struct TaskJson<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its policy.
    pub policy: &'a str,
    /// Name of its backend.
    pub backend: &'a str,
    /// `asked`, `staging`, `running`, `killing` or `gone`.
    pub state: &'static str,
    /// Whether it is ready.
    pub ready: bool,
    /// Where it runs.
    pub host: Option<&'a str>,
    /// Port name → number outside.
    pub ports: &'a BTreeMap<String, u16>,
    /// Process id, on the local backend.
    pub pid: Option<u32>,
    /// Container id, where there is one.
    pub container: Option<&'a str>,
    /// Share of one core, in percent.
    pub cpu_percent: Option<f64>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// When it was asked for.
    pub started: Time,
    /// Who asked for it.
    pub by: &'static str,
    /// Whether it is a helper.
    pub helper: bool,
}

impl<'a> From<&'a PolicySnapshot> for PolicyJson<'a> {
    fn from(policy: &'a PolicySnapshot) -> Self {
        Self {
            name: policy.name.as_str(),
            generation: policy.generation,
            script: (&policy.script).into(),
            ticks: policy.ticks,
            last_tick: policy.last_tick.map(Time),
            next_tick: policy.next_tick.map(Time),
            sample: policy.sample.as_ref().unwrap_or(&Sample::Missing).into(),
            setpoint: policy.setpoint,
            tasks: policy.counts.into(),
            bounds: BoundsJson { min: policy.bounds.min, max: policy.bounds.max },
            decision: policy.decision.as_deref().map(Into::into),
            acted: policy.acted,
            paused: policy.paused.as_ref().map(Into::into),
            r#override: policy.bounds_override.as_ref().map(Into::into),
            ended: policy.ended.as_ref().map(Into::into),
            stalled: policy.stalled,
            failures: policy.failures,
            spec: policy.spec.as_deref().map(Into::into),
            params: policy.params.iter().map(|param| (param.name.as_str(), param.into())).collect(),
        }
    }
}

impl<'a> From<&'a ScriptView> for ScriptJson<'a> {
    fn from(script: &'a ScriptView) -> Self {
        Self {
            path: script.path.display().to_string(),
            sha256: &script.sha256,
            error: script.error.as_deref().map(Into::into),
            refused: script.refused.as_deref().map(Into::into),
        }
    }
}

impl<'a> From<&'a ScriptError> for ScriptErrorJson<'a> {
    fn from(error: &'a ScriptError) -> Self {
        Self {
            message: &error.message,
            path: error.path.display().to_string(),
            line: error.line,
            column: error.column,
            hook: error.hook.as_str(),
            kind: error.kind.as_str(),
            hint: error.hint.as_deref(),
            report: error.report(),
        }
    }
}

impl<'a> From<&'a Sample> for SampleJson<'a> {
    fn from(sample: &'a Sample) -> Self {
        let (value, age, reported, message) = match sample {
            Sample::Value { value, age, reported } => (Some(*value), Some(*age), *reported, None),
            Sample::Stale { value, age } => (Some(*value), Some(*age), None, None),
            Sample::Missing => (None, None, None, None),
            Sample::Error { message } => (None, None, None, Some(&**message)),
        };
        Self { kind: sample.kind(), value, age_seconds: age.as_ref().map(Duration::as_secs_f64), reported, message }
    }
}

impl From<Counts> for TasksJson {
    fn from(counts: Counts) -> Self {
        Self {
            running: counts.running,
            in_flight: counts.in_flight(),
            killing: counts.killing,
            desired: counts.desired(),
            ready: counts.ready,
            asked: counts.asked,
            staging: counts.staging,
            waiting: counts.waiting,
        }
    }
}

impl<'a> From<&'a Decision> for DecisionJson<'a> {
    fn from(decision: &'a Decision) -> Self {
        Self {
            desired: decision.desired,
            raw: decision.raw,
            adjustment: decision.adjustment,
            to_min: decision.to_min,
            reasons: decision.reasons.iter().map(Into::into).collect(),
        }
    }
}

impl<'a> From<&'a Reason> for ReasonJson<'a> {
    fn from(reason: &'a Reason) -> Self {
        Self {
            guard: reason.guard.as_str(),
            text: reason.to_string(),
            from: reason.from,
            to: reason.to,
            detail: &reason.detail,
        }
    }
}

impl<'a> From<&'a Pause> for PauseJson<'a> {
    fn from(pause: &'a Pause) -> Self {
        Self { until: pause.until.map(Time), reason: pause.reason.as_deref() }
    }
}

impl<'a> From<&'a Override> for OverrideJson<'a> {
    fn from(given: &'a Override) -> Self {
        Self { min: given.min, max: given.max, until: given.until.map(Time), reason: given.reason.as_deref() }
    }
}

impl<'a> From<&'a Ended> for EndedJson<'a> {
    fn from(ended: &'a Ended) -> Self {
        Self { by: &ended.by, code: ended.code, reason: &ended.reason }
    }
}

impl<'a> From<&'a PolicySpec> for SpecJson<'a> {
    fn from(spec: &'a PolicySpec) -> Self {
        Self {
            backend: &spec.workload.backend,
            kind: spec.workload.kind,
            effect: spec.workload.effect,
            law: spec.control.law.name(),
            interval_seconds: spec.interval.min.as_secs_f64(),
            interval_max_seconds: spec.interval.max.as_secs_f64(),
            bounds: BoundsJson { min: spec.workload.min, max: spec.workload.max },
        }
    }
}

impl<'a> From<&'a Param> for ParamJson<'a> {
    fn from(param: &'a Param) -> Self {
        Self { value: (&param.value).into(), default: (&param.default).into() }
    }
}

impl<'a> From<&'a ParamValue> for ValueJson<'a> {
    fn from(value: &'a ParamValue) -> Self {
        match value {
            ParamValue::Bool(value) => Self::Bool(*value),
            ParamValue::Number(value) => Self::Number(*value),
            ParamValue::Text(value) => Self::Text(value),
        }
    }
}

impl<'a> From<&'a TaskView> for TaskJson<'a> {
    fn from(task: &'a TaskView) -> Self {
        Self {
            id: task.id.as_str(),
            policy: task.policy.as_str(),
            backend: &task.backend,
            state: task.state.as_str(),
            ready: task.ready,
            host: task.placement.host.as_deref(),
            ports: &task.placement.ports,
            pid: task.placement.pid,
            container: task.placement.container.as_deref(),
            cpu_percent: task.stats.cpu_percent,
            memory_bytes: task.stats.memory_bytes,
            started: Time(task.started),
            by: task.by,
            helper: task.helper,
        }
    }
}

#[cfg(test)]
mod tests {
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
