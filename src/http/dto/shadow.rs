//! A policy's shadow as JSON.

use serde::Serialize;

use crate::core::compare::Tally;
use crate::core::model::Sample;
use crate::runtime::view::ShadowSnapshot;

use super::{DecisionJson, SampleJson, ScriptJson};

/// A policy that is evaluated beside the acting one, on its ticks and its tasks, and never acts.
#[derive(Debug, Serialize)]
pub struct ShadowJson<'a> {
    /// Its script.
    pub script: ScriptJson<'a>,
    /// Counts up with each script of it that took effect.
    pub generation: u64,
    /// The acting policy's tick that it last decided on; null before the first.
    pub tick: Option<u64>,
    /// Its last sample.
    pub sample: SampleJson<'a>,
    /// Its last setpoint.
    pub setpoint: Option<f64>,
    /// Its last decision; `adjustment` is what it would have done.
    pub decision: Option<DecisionJson<'a>>,
    /// By how many tasks that differs from the acting policy's decision on that tick: + where it wanted more.
    pub difference: Option<i64>,
    /// Effects that its functions asked for, recorded and not sent, in words.
    pub effects: &'a [String],
    /// Ticks that it was not evaluated on, since the one before still ran.
    pub missed: u64,
    /// How both compare, since one of their scripts was last changed.
    pub compared: Tally,
}

impl<'a> From<&'a ShadowSnapshot> for ShadowJson<'a> {
    fn from(shadow: &'a ShadowSnapshot) -> Self {
        Self {
            script: (&shadow.script).into(),
            generation: shadow.generation,
            tick: shadow.tick,
            sample: shadow.sample.as_ref().unwrap_or(&Sample::Missing).into(),
            setpoint: shadow.setpoint,
            decision: shadow.decision.as_deref().map(Into::into),
            difference: shadow.difference,
            effects: &shadow.effects,
            missed: shadow.missed,
            compared: shadow.tally,
        }
    }
}
