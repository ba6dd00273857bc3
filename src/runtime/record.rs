//! What is durable: the records that the store keeps, and nothing about how.
//!
//! Records are JSON inside the store, so unknown fields of a newer version are ignored and missing ones get
//! their defaults.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::core::compare::Tally;
use crate::core::decision::PolicyState;
use crate::core::ledger::{LedgerState, Task};
use crate::core::model::{PolicyName, TaskId};
use crate::core::time::Timestamp;

/// Everything that a policy keeps over a restart besides its tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyRecord {
    /// History, timers, windows.
    pub state: PolicyState,
    /// Replacements that wait, failures, backoff.
    pub ledger: LedgerState,
    /// `ctx.state` as JSON.
    pub script_state: Option<String>,
    /// Ticks so far.
    pub ticks: u64,
    /// Generation of its script.
    pub generation: u64,
    /// A pause, if any.
    pub paused: Option<Pause>,
    /// An override, if any.
    pub bounds: Option<Override>,
    /// Why it ended, if it did.
    pub ended: Option<Ended>,
    /// The law, effect and kind that `state.law` belongs to; another one resets it.
    pub shape: String,
    /// The backend that its tasks are on.
    pub backend: String,
    /// Its shadow, if it has one.
    pub shadow: Option<ShadowRecord>,
}

/// What a shadow policy keeps over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShadowRecord {
    /// Its file, as the acting policy names it; another file begins anew.
    pub file: String,
    /// History, timers, windows.
    pub state: PolicyState,
    /// `ctx.state` as JSON.
    pub script_state: Option<String>,
    /// Generation of its script.
    pub generation: u64,
    /// The law, effect and kind that `state.law` belongs to.
    pub shape: String,
    /// How its decisions compare with the acting policy's.
    pub tally: Tally,
    /// The two scripts that were compared, by their digests; with others the comparison begins anew.
    pub compared: String,
}

/// Decisions are paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// When it ends by itself.
    pub until: Option<SystemTime>,
    /// Who paused it, and why, as given.
    pub reason: Option<String>,
}

/// An operator's bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// In place of min.
    pub min: Option<u32>,
    /// In place of max.
    pub max: Option<u32>,
    /// When it ends by itself.
    pub until: Option<SystemTime>,
    /// Who set it, and why, as given.
    pub reason: Option<String>,
}

/// Why a policy is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// `stop`, `max_failures`, `gone` (a fleet's row) or `retired` (no file).
    pub by: String,
    /// Its exit code.
    pub code: i32,
    /// In words.
    pub reason: String,
}

/// The last good text of a policy file, with the files that it required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceRecord {
    /// SHA-256 of `source`, in hex.
    pub sha256: String,
    /// The text.
    pub source: String,
}

/// Everything that a state folder held when it was opened.
#[derive(Debug, Default)]
pub struct Stored {
    /// Engine time when it was last written, and the wall clock then.
    pub clock: Option<(Timestamp, SystemTime)>,
    /// Policies by name.
    pub policies: BTreeMap<PolicyName, PolicyRecord>,
    /// Tasks by id.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Last good sources by path.
    pub sources: BTreeMap<String, SourceRecord>,
}

/// One change to what is stored.
#[derive(Clone, Debug)]
pub enum Write {
    /// The engine's clock.
    Clock(Timestamp, SystemTime),
    /// Insert or replace a policy.
    Policy(PolicyName, Box<PolicyRecord>),
    /// Forget a policy.
    RemovePolicy(PolicyName),
    /// Insert or replace a task.
    Task(Box<Task>),
    /// Forget a task.
    RemoveTask(TaskId),
    /// Insert or replace a source.
    Source(String, SourceRecord),
    /// Forget a source.
    RemoveSource(String),
}
