//! What the engine shows, and what it can be told: the whole surface that the HTTP API, the terminal and an
//! embedder use. Nobody outside the control loop sees its state but through these published values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::core::compare::Tally;
use crate::core::decision::{Bounds, Decision};
use crate::core::model::{Counts, PolicyName, Sample, TaskId};
use crate::core::policy::PolicySpec;
use crate::script::{Param, ScriptError, TaskView};

use super::record::{Ended, Override, Pause};

/// One policy as it was at the end of its last event. Cheap to clone: the big parts are shared.
#[derive(Clone, Debug)]
pub struct PolicySnapshot {
    /// Its name.
    pub name: PolicyName,
    /// Counts up with each script that took effect.
    pub generation: u64,
    /// Its script.
    pub script: ScriptView,
    /// The checked table; none for a policy that is retired.
    pub spec: Option<Arc<PolicySpec>>,
    /// Declared parameters and their values.
    pub params: Arc<Vec<Param>>,
    /// Ticks so far.
    pub ticks: u64,
    /// When the last one began.
    pub last_tick: Option<SystemTime>,
    /// When the next one is due.
    pub next_tick: Option<SystemTime>,
    /// The last sample.
    pub sample: Option<Sample>,
    /// The last setpoint.
    pub setpoint: Option<f64>,
    /// Counts of its tasks.
    pub counts: Counts,
    /// min and max in force.
    pub bounds: Bounds,
    /// The last decision.
    pub decision: Option<Arc<Decision>>,
    /// What the last tick carried out: + launched, − killed.
    pub acted: i64,
    /// Decisions are paused.
    pub paused: Option<Pause>,
    /// An operator's bounds.
    pub bounds_override: Option<Override>,
    /// Why it is over.
    pub ended: Option<Ended>,
    /// Whether it has missed three intervals.
    pub stalled: bool,
    /// Failures net of successes.
    pub failures: u32,
    /// The policy that is evaluated beside it.
    pub shadow: Option<Arc<ShadowSnapshot>>,
}

/// A policy that is evaluated beside the acting one and never acts.
#[derive(Clone, Debug)]
pub struct ShadowSnapshot {
    /// Its script; `error` is the last tick's.
    pub script: ScriptView,
    /// Counts up with each script of it that took effect.
    pub generation: u64,
    /// The tick of the acting policy that it last decided on.
    pub tick: Option<u64>,
    /// Its last sample.
    pub sample: Option<Sample>,
    /// Its last setpoint.
    pub setpoint: Option<f64>,
    /// Its last decision, with the reasons of what its intents would have been cut to.
    pub decision: Option<Arc<Decision>>,
    /// By how many tasks that differs from what the acting policy decided on that tick: + where it wanted more.
    pub difference: Option<i64>,
    /// Effects of its warmer or cooler that were recorded and not sent, in words.
    pub effects: Arc<Vec<String>>,
    /// Ticks of the acting policy that it was not evaluated on, since the one before still ran.
    pub missed: u64,
    /// How its decisions compare with the acting policy's, since one of their scripts was last changed.
    pub tally: Tally,
}

/// A policy's script and how it fares.
#[derive(Clone, Debug)]
pub struct ScriptView {
    /// Its file.
    pub path: PathBuf,
    /// SHA-256 of what runs, in hex.
    pub sha256: Arc<str>,
    /// The last error of a hook; cleared by a tick without one.
    pub error: Option<Arc<ScriptError>>,
    /// Why the file on disk is not what runs.
    pub refused: Option<Arc<ScriptError>>,
}

/// What goes out on `/v1/events`, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// A tick ended.
    Tick(Arc<PolicySnapshot>),
    /// A tick's decision changed something, or a new reason held it.
    Decision(Arc<PolicySnapshot>),
    /// A task changed its state.
    Task(Box<TaskView>, Option<String>),
    /// A script was reloaded, or a reload was refused.
    Reload {
        /// The file's policy or fleet.
        policy: PolicyName,
        /// The generation that now runs.
        generation: u64,
        /// Why the new one was refused.
        error: Option<Arc<ScriptError>>,
    },
    /// A hook failed; `held` says what the loop did instead.
    Error {
        /// The policy.
        policy: PolicyName,
        /// The error.
        error: Arc<ScriptError>,
        /// What the loop did instead.
        held: Arc<str>,
    },
    /// A policy appeared, ended, retired or went.
    Policy(Arc<PolicySnapshot>),
}

/// Whether the engine does its work.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// False while a policy is stalled, a backend lost, or recovery has not ended.
    pub ready: bool,
    /// Script errors and files that differ from what runs.
    pub degraded: bool,
    /// What is wrong, by policy, backend or `engine`.
    pub problems: BTreeMap<String, String>,
    /// What backends show of themselves, by their names.
    pub backends: BTreeMap<String, BTreeMap<&'static str, String>>,
}

/// Counters of the whole engine since it started.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Ticks by policy are in the snapshots; this is over all.
    pub ticks: u64,
    /// Ticks that were skipped because the one before still ran.
    pub missed: u64,
    /// Tasks launched.
    pub launched: u64,
    /// Tasks told to end.
    pub killed: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Policy files that are known now, whether they load or not.
    pub sources: u64,
    /// Reloads that took effect.
    pub reloads: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// Script errors by (hook, kind).
    pub script_errors: BTreeMap<(&'static str, &'static str), u64>,
    /// Lag of ticks: upper bounds in seconds and counts at or below each, cumulative; the last is +Inf.
    pub lag: Vec<(f64, u64)>,
    /// Sum of all lags in seconds.
    pub lag_sum: f64,
    /// Decisions that are not in the decision log, since it could not be written or its writer was behind.
    pub decisions_lost: u64,
    /// Changes of reasons by guard: how often each guard changed an adjustment.
    pub restricted: BTreeMap<&'static str, u64>,
}

/// What the engine can be told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Stop deciding; replacement goes on.
    Pause {
        /// Which policy.
        policy: PolicyName,
        /// For how long; none is until resumed.
        for_: Option<Duration>,
        /// As given by the operator.
        reason: Option<String>,
    },
    /// Decide again.
    Resume {
        /// Which policy.
        policy: PolicyName,
    },
    /// Replace min, max or both, at once.
    Override {
        /// Which policy.
        policy: PolicyName,
        /// In place of min.
        min: Option<u32>,
        /// In place of max.
        max: Option<u32>,
        /// For how long; none is until cleared.
        for_: Option<Duration>,
        /// Allow a max above the policy's own.
        force: bool,
        /// As given by the operator.
        reason: Option<String>,
    },
    /// Take an override back.
    ClearOverride {
        /// Which policy.
        policy: PolicyName,
    },
    /// Read files again: one policy's, or all.
    Reload {
        /// Which one.
        policy: Option<PolicyName>,
    },
    /// Run one tick now without carrying anything out, and answer with what it would have been.
    Evaluate {
        /// Which policy.
        policy: PolicyName,
    },
    /// Give a retired policy's tasks and state to another.
    Adopt {
        /// The retired one.
        old: PolicyName,
        /// The one that takes them.
        new: PolicyName,
    },
    /// End a retired policy's tasks and forget it.
    Remove {
        /// The retired one.
        policy: PolicyName,
    },
    /// End one task; a service replaces it.
    KillTask {
        /// Which task.
        task: TaskId,
    },
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such policy or task.
    #[error("there is no {what} `{name}`{}", .near.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    NotFound {
        /// `policy` or `task`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The nearest one that exists.
        near: Option<String>,
    },
    /// The request contradicts the policy or itself.
    #[error("{0}")]
    Invalid(String),
    /// Not in this state.
    #[error("{0}")]
    Conflict(String),
    /// The engine is on its way out.
    #[error("the engine is stopping")]
    Stopping,
}
