//! Unchanged ticks: when all but the sample is as it was at the policy's last tick, little more than the sample is written.
//!
//! Invariant: what is left out is counted from the last tick (its number, both clocks) or is its sample, bit for bit.

use serde::{Deserialize, Serialize};

use super::record::bytes;
use crate::core::model::Sample;
use crate::core::time::Timestamp;

/// What the next tick may build on.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) tick: u64,
    /// Milliseconds since 1970.
    pub(super) wall: i64,
    pub(super) at: Timestamp,
    pub(super) sample: Sample,
}

/// One more tick, of which nothing has changed but the sample and the time.
///
/// Written without names: the policy's number, by how many milliseconds the wall clock and the engine's went on, the
/// sample's value where only that is another one, the sample where more of it is; neither where it is the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Again(pub(super) u32, i64, u64, Option<f64>, Option<Sample>);

impl Again {
    /// The tick as what it adds to the last one; none where it does not follow that one.
    pub(super) fn new(policy: u32, last: &Last, next: &Last) -> Option<Self> {
        let wall = next.wall.checked_sub(last.wall)?;
        let at = next.at.as_millis().checked_sub(last.at.as_millis())?;
        if last.tick.checked_add(1)? != next.tick {
            return None;
        }
        let (value, sample) = match (value_of(&last.sample), value_of(&next.sample)) {
            _ if same(&last.sample, &next.sample) => (None, None),
            (Some(_), Some(value)) if same(&with_value(&last.sample, value), &next.sample) => (Some(value), None),
            _ => (None, Some(next.sample.clone())),
        };
        Some(Self(policy, wall, at, value, sample))
    }

    /// The tick that comes after `last`; none where there is no such one.
    pub(super) fn after(self, last: &Last) -> Option<Last> {
        let Self(_, wall, at, value, sample) = self;
        Some(Last {
            tick: last.tick.checked_add(1)?,
            wall: last.wall.checked_add(wall)?,
            at: Timestamp::from_millis(last.at.as_millis().checked_add(at)?),
            sample: match (value, sample) {
                (_, Some(sample)) => sample,
                (Some(value), None) => with_value(&last.sample, value),
                (None, None) => last.sample.clone(),
            },
        })
    }
}

/// The number of a sample that may be another one while the rest of it stays.
const fn value_of(sample: &Sample) -> Option<f64> {
    match sample {
        Sample::Value { value, .. } => Some(*value),
        _ => None,
    }
}

fn with_value(sample: &Sample, value: f64) -> Sample {
    match sample {
        Sample::Value { age, reported, .. } => Sample::Value { value, age: *age, reported: *reported },
        other => other.clone(),
    }
}

/// Whether two samples are the same in every bit.
fn same(a: &Sample, b: &Sample) -> bool {
    match (a, b) {
        // The common case, without writing it out.
        (
            Sample::Value { value: a, age: age_a, reported: reported_a },
            Sample::Value { value: b, age: age_b, reported: reported_b },
        ) => a.to_bits() == b.to_bits() && age_a == age_b && reported_a == reported_b,
        _ => bytes(a).is_some_and(|a| Some(a) == bytes(b)),
    }
}
