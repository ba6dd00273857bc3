//! Limits over time: step limits, cooldowns and the flap budget. All look at what was carried out.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Chain, most};
use crate::core::decision::{Detail, Guard, PolicyState};
use crate::core::policy::{Control, FlapBudget, StepLimit, UpDown};
use crate::core::time::Timestamp;

/// Forgets changes that no limit looks at any more.
pub(in crate::core) fn expire(control: &Control, changes: &mut VecDeque<(Timestamp, i64)>, now: Timestamp) {
    let step = |limit: Option<StepLimit>| limit.and_then(|limit| limit.per).unwrap_or_default();
    let flap = control.flap.map_or(Duration::ZERO, |flap| flap.per);
    super::expire(changes, now, step(control.step.up).max(step(control.step.down)).max(flap));
}

/// Step limits. A kill does not give back what launches have used up, nor the other way round.
pub(in crate::core) fn steps(
    chain: &mut Chain,
    limits: UpDown<Option<StepLimit>>,
    changes: &VecDeque<(Timestamp, i64)>,
    now: Timestamp,
) {
    let sign = chain.adjustment.signum();
    let Some(limit) = (if sign > 0 { limits.up } else { limits.down }) else { return };
    let recent = changes.iter().filter(|(at, _)| limit.per.is_some_and(|per| now.since(*at) < per));
    let (mut net, mut used) = (0_i64, 0_i64);
    for (_, change) in recent {
        net += change;
        if change.signum() == sign {
            used += change.abs();
        }
    }
    let fraction = limit.fraction.map(|fraction| part(fraction, (chain.desired - net).max(0)));
    let Some(allowed) = limit.tasks.map(i64::from).max(fraction) else { return };
    let left = (allowed - used).max(0);
    if left < chain.adjustment.abs() {
        chain.set(Guard::Step, sign * left, || most(allowed, limit.per));
    }
}

/// A share of a number of tasks, rounded up as the HPA does; at least one, lest nothing could ever start from 0.
fn part(fraction: f64, of: i64) -> i64 {
    if fraction > 0.0 { ((fraction * of as f64 - 1e-9).ceil() as i64).max(1) } else { 0 }
}

/// Cooldowns: launches wait after the last launch, kills after the last change in either direction.
pub(in crate::core) fn cooldown(chain: &mut Chain, cooldown: UpDown<Duration>, state: &PolicyState, now: Timestamp) {
    let (last, wait) = match chain.adjustment {
        0 => return,
        1.. => (state.last_launch, cooldown.up),
        _ => (state.last_change, cooldown.down),
    };
    let Some(last) = last else { return };
    let left = wait.saturating_sub(now.since(last));
    if !left.is_zero() {
        chain.set(Guard::Cooldown, 0, || Detail::Wait { left });
    }
}

/// The flap budget: starts and stops together.
pub(in crate::core) fn flap(
    chain: &mut Chain,
    budget: Option<FlapBudget>,
    changes: &VecDeque<(Timestamp, i64)>,
    now: Timestamp,
) {
    let Some(FlapBudget { changes: allowed, per }) = budget else { return };
    let used: i64 = changes.iter().filter(|(at, _)| now.since(*at) < per).map(|(_, change)| change.abs()).sum();
    let left = (i64::from(allowed) - used).max(0);
    if left < chain.adjustment.abs() {
        chain.set(Guard::Flap, chain.adjustment.signum() * left, || most(i64::from(allowed), Some(per)));
    }
}
