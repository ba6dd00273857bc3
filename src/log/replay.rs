//! Replay: a log's decisions made again, by the same function, and compared by their bits.

use std::collections::HashMap;

use super::record::{DecisionConfig, Entry, Settled, Why, bytes};
use crate::core::decide::{decide, settle};
use crate::core::decision::{Decision, PolicyState};
use crate::core::model::PolicyName;

/// What replaying one decision showed.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The same, bit for bit.
    Identical,
    /// The state that it begins from is not in the log.
    Unknown,
    /// Something else came out now.
    Different(Box<Decision>),
    /// The decision is the same, and the state that the log has for it is not the one that the decision before led to.
    OtherState,
}

/// Goes through a log, decision by decision.
#[derive(Debug, Default)]
pub struct Replay {
    states: HashMap<(PolicyName, bool), PolicyState>,
}

impl Replay {
    /// Makes a decision again. `follows` is what the reader said.
    pub fn take(&mut self, entry: &Entry, follows: bool) -> Verdict {
        let key = (entry.policy.name.clone(), entry.policy.shadow.is_some());
        let carried = self.states.remove(&key).filter(|_| follows);
        let (state, apart) = match (&entry.keyframe, carried) {
            (Some(keyframe), carried) => {
                let compared = carried.filter(|_| keyframe.why == Why::Periodic);
                let apart = compared.is_some_and(|carried| !same_bits(&carried, &keyframe.state));
                (keyframe.state.clone(), apart)
            }
            (None, Some(carried)) => (carried, false),
            (None, None) => return Verdict::Unknown,
        };
        let (decision, mut state) = decide(&entry.policy.config.config(), state, &entry.observation);
        settle_all(&mut state, &entry.outcome.settled);
        self.states.insert(key, state);
        if !same_bits(&decision, &entry.decision) {
            Verdict::Different(Box::new(decision))
        } else if apart {
            Verdict::OtherState
        } else {
            Verdict::Identical
        }
    }
}

/// Another configuration in the place of a recorded policy's: what it would have decided, tick by tick, in the world as
/// it was.
#[derive(Debug)]
pub struct Alternative {
    config: DecisionConfig,
    state: Option<PolicyState>,
}

impl Alternative {
    /// One that has seen nothing yet.
    #[must_use]
    pub const fn new(config: DecisionConfig) -> Self {
        Self { config, state: None }
    }

    /// What it would have decided; none as long as nothing is known of the past. It starts from the recorded state, but
    /// for the law's own memory where the law is another one.
    pub fn take(&mut self, entry: &Entry) -> Option<Decision> {
        let recorded = || {
            let mut state = entry.keyframe.as_ref()?.state.clone();
            if entry.policy.config.control.law.name() != self.config.control.law.name() {
                state.reset_law();
            }
            Some(state)
        };
        let state = self.state.take().or_else(recorded)?;
        let (decision, mut state) = decide(&self.config.config(), state, &entry.observation);
        settle_all(&mut state, &entry.outcome.settled);
        self.state = Some(state);
        Some(decision)
    }
}

fn settle_all(state: &mut PolicyState, settled: &[Settled]) {
    for Settled { at, launched, killed, to_min } in settled {
        settle(state, *at, *launched, *killed, *to_min);
    }
}

/// Whether two values are the same in every bit.
#[must_use]
pub fn same_bits<T: serde::Serialize>(a: &T, b: &T) -> bool {
    match (bytes(a), bytes(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}
