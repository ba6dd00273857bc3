//! A policy as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::model::{Counts, Sample};
use crate::core::policy::PolicySpec;
use crate::runtime::record::{Ended, Override, Pause};
use crate::runtime::view::{Health, PolicySnapshot};

use super::{DecisionJson, ParamJson, SampleJson, ScriptJson, ShadowJson, Time};

/// The answer of `GET /v1/policies`.
#[derive(Debug, Serialize)]
pub struct PoliciesJson<'a> {
    /// Every policy, in the order of their names.
    pub policies: Vec<PolicyJson<'a>>,
    /// Backends that show something of themselves, by their names.
    pub backends: BTreeMap<&'a str, BackendJson<'a>>,
}

/// What a backend shows of itself: of Mesos the framework, its leader, since when it is subscribed …
#[derive(Debug, Serialize)]
pub struct BackendJson<'a> {
    /// null, or why it cannot be used fully at the moment.
    pub problem: Option<&'a str>,
    /// What it shows, in its own words.
    pub facts: &'a BTreeMap<&'static str, String>,
}

impl<'a> BackendJson<'a> {
    /// All of them.
    #[must_use]
    pub fn all(health: &'a Health) -> BTreeMap<&'a str, Self> {
        let shown = health.backends.iter().map(|(name, facts)| {
            let problem = health.problems.get(&format!("backend {name}")).map(String::as_str);
            (name.as_str(), Self { problem, facts })
        });
        shown.collect()
    }
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
    /// null, or the policy that is evaluated beside it and never acts.
    pub shadow: Option<ShadowJson<'a>>,
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
            shadow: policy.shadow.as_deref().map(Into::into),
        }
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
