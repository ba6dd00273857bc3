//! Stabilization windows, as the Kubernetes HPA has them: of all numbers that were proposed within the
//! window, the highest counts on the way down and the lowest on the way up.
//!
//! A window that is empty (the first tick, or the first after an outage as long as it) starts with the number
//! as it is, as the HPA's does. Equal proposals in a row are one entry that moves with the last of them, which
//! leaves every window's extremes as they are.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Chain, expire};
use crate::core::decision::{Detail, Guard};
use crate::core::policy::UpDown;
use crate::core::time::Timestamp;

/// Records this tick's proposal and takes the most careful one.
pub(in crate::core) fn apply(
    chain: &mut Chain,
    windows: UpDown<Duration>,
    proposals: &mut VecDeque<(Timestamp, u32)>,
    now: Timestamp,
) {
    expire(proposals, now, windows.up.max(windows.down));
    if windows.up.is_zero() && windows.down.is_zero() {
        return;
    }
    let proposed = count(chain.desired.saturating_add(chain.adjustment));
    if proposals.is_empty() {
        proposals.push_back((now, count(chain.desired)));
    }
    match proposals.back_mut() {
        Some((at, last)) if *last == proposed => *at = now,
        _ => proposals.push_back((now, proposed)),
    }
    let within =
        |window| proposals.iter().filter(move |(at, _)| now.since(*at) < window).map(|(_, proposed)| *proposed);
    let (guarded, window) = if chain.adjustment > 0 {
        let lowest = within(windows.up).min().unwrap_or(proposed);
        (i64::from(lowest).max(chain.desired), windows.up)
    } else {
        let highest = within(windows.down).max().unwrap_or(proposed);
        (i64::from(highest).min(chain.desired), windows.down)
    };
    chain.set(Guard::Stabilization, guarded - chain.desired, || Detail::Stabilization {
        proposed: count(guarded),
        window,
    });
}

fn count(tasks: i64) -> u32 {
    tasks.clamp(0, i64::from(u32::MAX)) as u32
}
