//! The nouns that every module shares: samples, tasks and their counts.
//!
//! Plain values without behaviour beyond their own invariants; no I/O, no clocks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// A policy's name: its file's stem, or `file/row` for a fleet's row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyName(Arc<str>);

/// The name that both setpoint and the backend know a task by. It ends in its intent's ULID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Arc<str>);

macro_rules! string_id {
    ($name:ident) => {
        impl $name {
            /// Wraps a string that the caller has checked.
            #[must_use]
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
    };
}

string_id!(PolicyName);
string_id!(TaskId);

impl TaskId {
    /// The ULID that the id ends in, written as a UUID: an identity for systems that only take those. None when the id
    /// is not one of the host's own.
    #[must_use]
    pub fn uuid(&self) -> Option<String> {
        let (_, ulid) = self.0.rsplit_once('.')?;
        let bits = crockford(ulid)?;
        let hex = format!("{bits:032x}");
        Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
    }
}

/// The 128 bits of a ULID: 26 digits of Crockford's base 32, the first of them at most 7.
fn crockford(ulid: &str) -> Option<u128> {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    if ulid.len() != 26 || !matches!(ulid.as_bytes()[0], b'0'..=b'7') {
        return None;
    }
    ulid.bytes().try_fold(0, |bits: u128, digit| {
        let value = DIGITS.iter().position(|known| *known == digit.to_ascii_uppercase())?;
        Some(bits << 5 | value as u128)
    })
}

/// What `metric` gave this tick. An error is never a number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Sample {
    /// A finite number, at most `stale_after` old.
    Value {
        /// The metric, in its own unit.
        value: f64,
        /// How old the figure already was when it was read.
        age: Duration,
        /// How many tasks it speaks for, where the metric says so (`ratio` fills in the others).
        reported: Option<u32>,
    },
    /// `metric` returned nil.
    #[default]
    Missing,
    /// Too old to act on, or the clock jumped.
    Stale {
        /// The figure, for display only.
        value: f64,
        /// Its age.
        age: Duration,
    },
    /// `metric` or `target` raised, overran its deadline, or gave something that is not a finite number.
    Error {
        /// One line that says what went wrong.
        message: Arc<str>,
    },
}

impl Sample {
    /// A fresh value with no age.
    #[must_use]
    pub const fn value(value: f64) -> Self {
        Self::Value { value, age: Duration::ZERO, reported: None }
    }

    /// The value when, and only when, it may be acted on.
    #[must_use]
    pub const fn fresh(&self) -> Option<f64> {
        match self {
            Self::Value { value, .. } => Some(*value),
            _ => None,
        }
    }

    /// `value`, `missing`, `stale` or `error`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Value { .. } => "value",
            Self::Missing => "missing",
            Self::Stale { .. } => "stale",
            Self::Error { .. } => "error",
        }
    }
}

/// What more tasks do to the metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// More tasks raise the metric (their own count, throughput).
    Heats,
    /// More tasks lower it (a queue's length, CPU per task).
    #[default]
    Cools,
}

/// What the end of a task means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The desired number is held: a task that ends is replaced, with backoff.
    #[default]
    Service,
    /// A task that ends is simply gone.
    Jobs,
}

/// A task's life as the ledger sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Its intent is recorded; the backend has not confirmed it.
    Asked,
    /// The backend has placed it; it does not run yet.
    Staging,
    /// It runs.
    Running,
    /// It was told to end.
    Killing,
    /// It is over.
    Gone,
}

impl TaskState {
    /// The lower-case word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Staging => "staging",
            Self::Running => "running",
            Self::Killing => "killing",
            Self::Gone => "gone",
        }
    }
}

/// How many tasks of a policy are in which state. Helper tasks are not in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Replacements of ended service tasks that wait for their backoff.
    pub waiting: u32,
    /// Recorded, not yet confirmed by the backend.
    pub asked: u32,
    /// Placed, not yet running.
    pub staging: u32,
    /// Running, ready or not.
    pub running: u32,
    /// Of those running, the ones that are ready.
    pub ready: u32,
    /// Told to end, not yet gone.
    pub killing: u32,
}

impl Counts {
    /// Tasks that exist and are meant to stay: asked + staging + running. `min` is compared with this.
    #[must_use]
    pub const fn alive(&self) -> u32 {
        self.asked.saturating_add(self.staging).saturating_add(self.running)
    }

    /// Tasks that take up room: those alive and those being killed. A launch is allowed while this is below `max`.
    #[must_use]
    pub const fn occupied(&self) -> u32 {
        self.alive().saturating_add(self.killing)
    }

    /// The desired number: what is alive plus the replacements that are still wanted.
    #[must_use]
    pub const fn desired(&self) -> u32 {
        self.alive().saturating_add(self.waiting)
    }

    /// `in_flight` of the API and of `ctx`: wanted and not ready.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.desired().saturating_sub(if self.ready < self.running { self.ready } else { self.running })
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Exit {
    /// It returned this exit code.
    Code {
        /// The process's exit code; 0 is success.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// It ran out of memory.
    OutOfMemory,
    /// It could not be started.
    NotStarted {
        /// Why not, in one line.
        reason: Arc<str>,
    },
    /// Where it ran is gone, and it with it.
    Lost {
        /// What happened, in one line.
        reason: Arc<str>,
    },
    /// It ended while nobody watched: neither failure nor success.
    Unknown,
}

impl Exit {
    /// Whether this counts towards `max_failures` and starts a backoff.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        match self {
            Self::Code { code } => *code != 0,
            Self::Signal { .. } | Self::OutOfMemory | Self::NotStarted { .. } | Self::Lost { .. } => true,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { code } => write!(f, "exit code {code}"),
            Self::Signal { signal } => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::NotStarted { reason } => write!(f, "not started: {reason}"),
            Self::Lost { reason } => write!(f, "lost: {reason}"),
            Self::Unknown => f.write_str("ended unwatched"),
        }
    }
}

/// What one task uses. Every figure that could not be had is none, never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskStats {
    /// Share of one core over the last sampling period, in percent; none until two samples exist.
    pub cpu_percent: Option<f64>,
    /// Memory in bytes: resident, or in a container without the page cache that is not in use.
    pub memory_bytes: Option<u64>,
    /// The most memory that it may use, in bytes.
    pub memory_limit: Option<u64>,
    /// Bytes received over the network since it started; none where it has no network of its own.
    pub network_received: Option<u64>,
    /// Bytes sent, likewise.
    pub network_sent: Option<u64>,
    /// Bytes read from block devices since it started.
    pub block_read: Option<u64>,
    /// Bytes written to block devices, likewise.
    pub block_written: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Where a task runs, as its backend reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Host name or address.
    pub host: Option<String>,
    /// Port name → number outside.
    pub ports: BTreeMap<String, u16>,
    /// Process id, on the local backend.
    pub pid: Option<u32>,
    /// Container id, where there is one.
    pub container: Option<String>,
    /// What the backend needs to recognise it again after a restart (local: the process's start time).
    pub token: Option<String>,
}

/// One sample that the loop remembers, oldest first in a history.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it was taken.
    pub at: Timestamp,
    /// The sample's value.
    pub value: f64,
    /// The setpoint of that tick.
    pub setpoint: f64,
}

impl Point {
    /// setpoint − value. Positive: too cold. Negative: too hot.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        self.setpoint - self.value
    }
}
