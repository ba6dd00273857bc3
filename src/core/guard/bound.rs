//! The bounds and what is above a policy: min, max, room, the global budget, pause, dry run.
//!
//! A launch up to min obeys nothing before this file, and of this file only the room and the dry run. `min`
//! is met by what is alive and by the replacements that wait for their backoff, which are on their way there
//! already; tasks that are being killed do not count towards it, but take up room under `max`.

use std::sync::Arc;

use super::{Chain, most};
use crate::core::decide::{Config, room};
use crate::core::decision::{Bounds, Detail, Guard, Observation};

/// Brings the adjustment within min and max. `kills` says whether the sample allows a scale-in.
pub(in crate::core) fn apply(chain: &mut Chain, config: &Config<'_>, observation: &Observation, kills: bool) {
    let Bounds { min, max } = config.bounds(observation);
    let min_is_theirs = min != config.min;
    let max_is_theirs = max != config.max;
    let room = i64::from(room(config, observation));
    if config.counter && chain.adjustment < 0 && i64::from(min) <= chain.desired {
        chain.set(Guard::Max, chain.adjustment.max(-room), || Detail::Bound { bound: max, overridden: max_is_theirs });
        return;
    }
    let missing = i64::from(min) - chain.desired;
    if chain.adjustment < missing {
        chain.set(Guard::Min, missing, || Detail::Bound { bound: min, overridden: min_is_theirs });
    }
    let mut capped = chain.adjustment.min(i64::from(max) - chain.desired);
    // A bound that came by a reload waits for a fresh sample; an operator's does not.
    // Nor can what launches against the metric bring a number down.
    if capped < 0 && (config.counter || (!kills && !max_is_theirs)) {
        capped = 0;
    }
    chain.set(Guard::Max, capped, || Detail::Bound { bound: max, overridden: max_is_theirs });
    if room < chain.adjustment {
        let killing = observation.counts.killing;
        let text = format!("room for {room} under max {max} while {killing} tasks are still ending");
        chain.set(Guard::Max, room, || Detail::Text(Arc::from(text)));
    }
}

/// How much of the adjustment only brings the number up to min.
pub(in crate::core) fn to_min(chain: &Chain, bounds: Bounds) -> i64 {
    chain.adjustment.min(i64::from(bounds.min) - chain.desired).max(0)
}

/// The host's budget over all policies.
pub(in crate::core) fn budget(chain: &mut Chain, to_min: i64, budget: Option<u32>) {
    let Some(budget) = budget.map(i64::from) else { return };
    let to = if chain.adjustment > 0 { chain.adjustment.min(to_min + budget) } else { chain.adjustment.max(-budget) };
    chain.set(Guard::Budget, to, || most(budget, None));
}

/// A pause stops decisions; launches up to min go on.
pub(in crate::core) fn pause(chain: &mut Chain, to_min: i64, paused: bool) {
    if paused {
        chain.set(Guard::Pause, to_min, || Detail::None);
    }
}

/// A dry run stops everything.
pub(in crate::core) fn dry_run(chain: &mut Chain, dry_run: bool) {
    if dry_run {
        chain.set(Guard::DryRun, 0, || Detail::None);
    }
}
