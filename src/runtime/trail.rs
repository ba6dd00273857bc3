//! What a policy's ticks leave for the decision log: from the observation to what was carried out.
//!
//! ```text
//!   decide ─► begin ─► asked, settled … ─► finish ─► Entry
//! ```
//!
//! Invariant: an entry's state is the one that the entry before it led to, or the entry holds it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::core::decision::{Decision, Observation, PolicyState};
use crate::core::intent::Intent;
use crate::core::time::Timestamp;
use crate::log::{Asked, Entry, Identity, Keyframe, Outcome, Settled, Why};

/// After so many ticks a state is written although it follows from the one before.
const KEYFRAME_EVERY: u32 = 256;

/// A policy's part of the decision log.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// The tick that has been decided and not concluded.
    pending: Option<Box<Entry>>,
    /// Who decides; none until it is asked for.
    identity: Option<Arc<Identity>>,
    /// The log's epoch, and ticks until the next keyframe; none when the state does not follow from the last entry.
    chain: Option<(u64, u32)>,
}

impl Trail {
    /// The next entry builds on none before it.
    pub(crate) fn restart(&mut self) {
        self.identity = None;
        self.chain = None;
    }

    /// The state, where it is to be written. `key` spreads policies that began together.
    pub(crate) fn keyframe(&mut self, epoch: u64, key: usize, state: &PolicyState) -> Option<Keyframe> {
        // A tick that was decided and not concluded is in no entry.
        let broken = self.pending.take().is_some();
        let why = match &mut self.chain {
            Some((known, left)) if *known == epoch && !broken => {
                *left = left.saturating_sub(1);
                if 0 < *left {
                    return None;
                }
                *left = KEYFRAME_EVERY;
                Why::Periodic
            }
            chain => {
                let first = KEYFRAME_EVERY / 2 + (key % KEYFRAME_EVERY as usize) as u32;
                *chain = Some((epoch, first));
                Why::Start
            }
        };
        Some(Keyframe { why, state: state.clone() })
    }

    /// A tick has been decided. `identity` is asked for who decides, where that is not known yet.
    pub(crate) fn begin(
        &mut self,
        identity: impl FnOnce() -> Identity,
        keyframe: Option<Keyframe>,
        (tick, wall): (u64, SystemTime),
        observation: &Observation,
        decision: &Decision,
    ) {
        let identity = self.identity.get_or_insert_with(|| Arc::new(identity()));
        self.pending = Some(Box::new(Entry {
            policy: Arc::clone(identity),
            wall,
            tick,
            observation: observation.clone(),
            keyframe,
            decision: decision.clone(),
            outcome: Outcome::default(),
        }));
    }

    /// What a script or the default asks for.
    pub(crate) fn asked(&mut self, intents: &[Intent]) {
        if let Some(entry) = &mut self.pending {
            entry.outcome.asked = intents.iter().map(Asked::from).collect();
        }
    }

    /// What the state was told of what was carried out.
    pub(crate) fn settled(&mut self, at: Timestamp, launched: u32, killed: u32, to_min: u32) {
        match &mut self.pending {
            Some(entry) => entry.outcome.settled.push(Settled { at, launched, killed, to_min }),
            None => self.chain = None,
        }
    }

    /// The tick's entry, once it is over.
    pub(crate) fn finish(&mut self, decision: &Decision, acted: i64) -> Option<Box<Entry>> {
        let mut entry = self.pending.take()?;
        entry.outcome.adjustment = decision.adjustment;
        entry.outcome.acted = acted;
        let decided = entry.decision.reasons.len();
        entry.outcome.reasons = decision.reasons.get(decided..).unwrap_or_default().to_vec();
        Some(entry)
    }
}
