//! What a record holds, and how it is written shortly: what is as it was at the policy's last tick is left out.
//!
//! Values are MessagePack with the names of their fields: floats keep their bits, later versions may add fields.
//!
//! Invariant: "as it was" is judged by the written bytes, so that −0 and 0 are two values and a NaN is itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::again::{Again, Last};
use super::frame;
use crate::core::decide::Config;
use crate::core::decision::{Bounds, Decision, InFlight, Observation, PolicyState, Reason, Scripted};
use crate::core::intent::Intent;
use crate::core::model::{Counts, Effect, PolicyName, Sample, TaskId};
use crate::core::policy::{Control, Interval};
use crate::core::time::Timestamp;

/// All of a policy that its decisions depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionConfig {
    /// Law and guards.
    pub control: Control,
    /// What more tasks do to the metric.
    pub effect: Effect,
    /// Fewest tasks.
    pub min: u32,
    /// Most tasks.
    pub max: u32,
    /// How often it ticks.
    pub interval: Interval,
    /// Whether a task stands against the metric.
    pub counter: bool,
    /// Whether it has a metric.
    pub metric: bool,
}

impl DecisionConfig {
    /// The same for `core::decide`.
    #[must_use]
    pub const fn config(&self) -> Config<'_> {
        Config {
            control: &self.control,
            effect: self.effect,
            min: self.min,
            max: self.max,
            interval: self.interval,
            counter: self.counter,
            metric: self.metric,
        }
    }
}

impl From<Config<'_>> for DecisionConfig {
    fn from(config: Config<'_>) -> Self {
        Self {
            control: config.control.clone(),
            effect: config.effect,
            min: config.min,
            max: config.max,
            interval: config.interval,
            counter: config.counter,
            metric: config.metric,
        }
    }
}

/// Who decided: one generation of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The policy's name.
    pub name: PolicyName,
    /// The path of its shadow, when it is that which decided.
    #[serde(default)]
    pub shadow: Option<String>,
    /// Counts up with each script that took effect.
    pub generation: u64,
    /// Its script's path.
    pub path: String,
    /// SHA-256 of its script, in hex.
    pub sha256: String,
    /// Law, guards and bounds.
    pub config: DecisionConfig,
}

/// One decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Who decided; the same pointer as long as nothing about it changes.
    pub policy: Arc<Identity>,
    /// The wall clock, to the millisecond.
    pub wall: SystemTime,
    /// Number of the tick.
    pub tick: u64,
    /// What `core::decide` was given.
    pub observation: Observation,
    /// The state that it was given, where it does not follow from the last one.
    pub keyframe: Option<Keyframe>,
    /// What it gave.
    pub decision: Decision,
    /// What came of it.
    pub outcome: Outcome,
}

impl Entry {
    /// The decision as it was carried out, with the reasons of those who carried it out.
    #[must_use]
    pub fn carried_out(&self) -> Decision {
        let mut decision = self.decision.clone();
        decision.reasons.extend(self.outcome.reasons.iter().cloned());
        decision.adjustment = self.outcome.adjustment;
        decision
    }
}

/// A policy's state as a decision was given it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keyframe {
    /// Why it is written.
    pub why: Why,
    /// The state.
    pub state: PolicyState,
}

/// Why a state is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// It does not follow from the last record: a start, a reload, records that were lost.
    Start,
    /// It does; so that reading may begin here.
    Periodic,
}

/// What came of a decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The adjustment as it was carried out.
    #[serde(rename = "n")]
    pub adjustment: i64,
    /// Tasks: + launched, − killed.
    #[serde(rename = "a")]
    pub acted: i64,
    /// Reasons of those who carried it out.
    #[serde(rename = "r", skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// What was asked for.
    #[serde(rename = "i", skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
    /// What the policy's state was told of it.
    #[serde(rename = "s", skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Settled>,
}

/// An intent, without what the tasks are: templates hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// Start tasks.
    Launch {
        /// How many.
        n: u32,
        /// Whether they are something else than the workload's own.
        other: bool,
        /// False for helpers.
        count: bool,
    },
    /// End as many tasks as this.
    Kill {
        /// How many.
        n: u32,
    },
    /// End these.
    KillTasks {
        /// Which ones.
        tasks: Vec<TaskId>,
    },
}

impl From<&Intent> for Asked {
    fn from(intent: &Intent) -> Self {
        match intent {
            Intent::Launch { n, template, count } => Self::Launch { n: *n, other: template.is_some(), count: *count },
            Intent::Kill { n } => Self::Kill { n: *n },
            Intent::KillTasks { tasks } => Self::KillTasks { tasks: tasks.clone() },
        }
    }
}

/// What `core::decide::settle` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// When.
    pub at: Timestamp,
    /// Tasks launched.
    pub launched: u32,
    /// Tasks killed, and replacements called off.
    pub killed: u32,
    /// How many of the launches only go up to min.
    pub to_min: u32,
}

/// One record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Record {
    /// A run begins, or goes on in a new file: numbers of policies before it mean nothing after it.
    Run {
        /// Whether it went on.
        goes_on: bool,
        /// The version that writes.
        version: String,
    },
    /// The number that stands for a policy from here on.
    Policy {
        id: u32,
        /// Whether its next decision begins where its last one ended.
        goes_on: bool,
        policy: Arc<Identity>,
    },
    /// A decision.
    Tick(Box<Tick>),
    /// A decision like the policy's last one, in all but the sample.
    Again(Again),
    /// Decisions that could not be written.
    Lost { records: u64 },
}

/// A decision as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tick {
    #[serde(rename = "p")]
    policy: u32,
    #[serde(rename = "n")]
    tick: u64,
    /// Milliseconds since 1970.
    #[serde(rename = "w")]
    wall: i64,
    #[serde(rename = "t")]
    at: Timestamp,
    #[serde(rename = "s")]
    sample: Sample,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    rest: Option<Rest>,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    keyframe: Option<Keyframe>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    decided: Option<Decided>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

/// The rest of an observation.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rest {
    setpoint: Option<f64>,
    counts: Counts,
    in_flight: InFlight,
    refused: u32,
    scripted: Option<Scripted>,
    bounds: Option<Bounds>,
    budget: Option<u32>,
    paused: bool,
    dry_run: bool,
}

/// A decision without its time.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Decided {
    desired: u32,
    raw: i64,
    adjustment: i64,
    to_min: u32,
    reasons: Vec<Reason>,
}

/// The bytes of a value; none for one that cannot be written, which the types above leave no room for.
pub(super) fn bytes<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    rmp_serde::to_vec_named(value).ok()
}

/// Writes entries as records.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    known: HashMap<(PolicyName, bool), Known>,
    next: u32,
}

/// What the file says of a policy so far.
#[derive(Debug)]
struct Known {
    policy: Arc<Identity>,
    id: u32,
    /// This file has not named it yet.
    unnamed: bool,
    rest: Vec<u8>,
    decided: Vec<u8>,
    /// The last tick that was written.
    last: Option<Last>,
}

impl Encoder {
    /// What a run, or a file, begins with.
    pub(super) fn begin(&mut self, goes_on: bool, out: &mut Vec<u8>) {
        for known in self.known.values_mut() {
            known.unnamed = true;
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        write(&Record::Run { goes_on, version }, out);
    }

    /// What was written last did not get through: nothing that comes builds on it.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Tells of decisions that were lost.
    pub(super) fn lost(records: u64, out: &mut Vec<u8>) {
        write(&Record::Lost { records }, out);
    }

    /// Writes an entry; false when that could not be.
    pub(super) fn push(&mut self, entry: Entry, out: &mut Vec<u8>) -> bool {
        let Entry { policy, wall, tick, observation, keyframe, decision, outcome } = entry;
        let Observation {
            now,
            sample,
            setpoint,
            counts,
            in_flight,
            refused,
            scripted,
            bounds,
            budget,
            paused,
            dry_run,
        } = observation;
        let rest = Rest { setpoint, counts, in_flight, refused, scripted, bounds, budget, paused, dry_run };
        let Decision { desired, raw, adjustment, to_min, reasons, .. } = decision;
        let decided = Decided { desired, raw, adjustment, to_min, reasons };
        let (Some(rest_bytes), Some(decided_bytes)) = (bytes(&rest), bytes(&decided)) else { return false };

        let goes_on = keyframe.as_ref().is_none_or(|keyframe| keyframe.why == Why::Periodic);
        let key = (policy.name.clone(), policy.shadow.is_some());
        let before = self.known.get(&key);
        // With a keyframe everything is said anew, so that reading may begin there.
        let named =
            keyframe.is_none() && before.is_some_and(|known| !known.unnamed && Arc::ptr_eq(&known.policy, &policy));
        if !named {
            let id = before.map_or(self.next, |known| known.id);
            self.next = self.next.max(id.saturating_add(1));
            let goes_on = goes_on && before.is_some();
            if !write(&Record::Policy { id, goes_on, policy: Arc::clone(&policy) }, out) {
                return false;
            }
            let known = Known { policy, id, unnamed: false, rest: Vec::new(), decided: Vec::new(), last: None };
            self.known.insert(key.clone(), known);
        }
        let Some(known) = self.known.get_mut(&key) else { return false };
        let plain = Outcome { adjustment, ..Outcome::default() };
        let next = Last { tick, wall: millis(wall), at: now, sample };
        let rest = (known.rest != rest_bytes).then_some(rest);
        let decided = (known.decided != decided_bytes).then_some(decided);
        let outcome = (outcome != plain).then_some(outcome);
        let changed = rest.is_some() || decided.is_some() || outcome.is_some() || keyframe.is_some();
        let again = known.last.as_ref().filter(|_| !changed).and_then(|last| Again::new(known.id, last, &next));
        let record = again.map_or_else(
            || {
                let Last { tick, wall, at, sample } = next.clone();
                Record::Tick(Box::new(Tick {
                    policy: known.id,
                    tick,
                    wall,
                    at,
                    sample,
                    rest,
                    keyframe,
                    decided,
                    outcome,
                }))
            },
            Record::Again,
        );
        known.rest = rest_bytes;
        known.decided = decided_bytes;
        known.last = Some(next);
        write(&record, out)
    }
}

fn write(record: &Record, out: &mut Vec<u8>) -> bool {
    bytes(record).is_some_and(|payload| frame::push(out, &payload))
}

/// An entry as it was read.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) entry: Entry,
    /// Whether it begins where the policy's last one ended.
    pub(super) follows: bool,
}

/// Reads records back to entries.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    known: HashMap<u32, Read>,
}

#[derive(Debug)]
struct Read {
    policy: Arc<Identity>,
    follows: bool,
    last: Option<(Rest, Decided, Last)>,
}

/// What a record says.
#[derive(Debug)]
pub(super) enum Told {
    Decision(Box<Decoded>),
    Lost(u64),
    /// Nothing by itself.
    Nothing,
    /// It builds on a record that is not there.
    Unreadable,
}

impl Decoder {
    /// Forgets everything: what comes next may build on what is damaged.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    pub(super) fn take(&mut self, payload: &[u8]) -> Told {
        match rmp_serde::from_slice(payload) {
            Ok(Record::Run { .. }) => {
                self.known.clear();
                Told::Nothing
            }
            Ok(Record::Policy { id, goes_on, policy }) => {
                self.known.insert(id, Read { policy, follows: goes_on, last: None });
                Told::Nothing
            }
            Ok(Record::Lost { records }) => Told::Lost(records),
            Ok(Record::Tick(tick)) => {
                self.entry(*tick).map_or(Told::Unreadable, |decoded| Told::Decision(Box::new(decoded)))
            }
            Ok(Record::Again(again)) => self
                .again(again)
                .and_then(|tick| self.entry(tick))
                .map_or(Told::Unreadable, |decoded| Told::Decision(Box::new(decoded))),
            Err(_) => Told::Unreadable,
        }
    }

    /// An unchanged tick, written out.
    fn again(&self, again: Again) -> Option<Tick> {
        let policy = again.0;
        let (_, _, last) = self.known.get(&policy)?.last.as_ref()?;
        let Last { tick, wall, at, sample } = again.after(last)?;
        Some(Tick { policy, tick, wall, at, sample, rest: None, keyframe: None, decided: None, outcome: None })
    }

    fn entry(&mut self, tick: Tick) -> Option<Decoded> {
        let known = self.known.get_mut(&tick.policy)?;
        let (rest, decided) = match (tick.rest, tick.decided, known.last.take()) {
            (Some(rest), Some(decided), _) => (rest, decided),
            (rest, decided, Some((last_rest, last_decided, _))) => {
                (rest.unwrap_or(last_rest), decided.unwrap_or(last_decided))
            }
            _ => return None,
        };
        let last = Last { tick: tick.tick, wall: tick.wall, at: tick.at, sample: tick.sample.clone() };
        known.last = Some((rest.clone(), decided.clone(), last));
        let Rest { setpoint, counts, in_flight, refused, scripted, bounds, budget, paused, dry_run } = rest;
        let Decided { desired, raw, adjustment, to_min, reasons } = decided;
        let (now, sample) = (tick.at, tick.sample);
        let observation = Observation {
            now,
            sample,
            setpoint,
            counts,
            in_flight,
            refused,
            scripted,
            bounds,
            budget,
            paused,
            dry_run,
        };
        let entry = Entry {
            policy: Arc::clone(&known.policy),
            wall: time(tick.wall),
            tick: tick.tick,
            observation,
            keyframe: tick.keyframe,
            decision: Decision { at: now, desired, raw, adjustment, to_min, reasons },
            outcome: tick.outcome.unwrap_or(Outcome { adjustment, ..Outcome::default() }),
        };
        let starts = entry.keyframe.as_ref().is_some_and(|keyframe| keyframe.why == Why::Start);
        let follows = std::mem::replace(&mut known.follows, true) && !starts;
        Some(Decoded { entry, follows })
    }
}

fn millis(wall: SystemTime) -> i64 {
    let count = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match wall.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => count(since),
        Err(before) => -count(before.duration()),
    }
}

fn time(millis: i64) -> SystemTime {
    let span = Duration::from_millis(millis.unsigned_abs());
    let time =
        if millis < 0 { SystemTime::UNIX_EPOCH.checked_sub(span) } else { SystemTime::UNIX_EPOCH.checked_add(span) };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
