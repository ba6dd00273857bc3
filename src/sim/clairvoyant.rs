//! The fewest tasks that could have served a load, had it been known: what a run is measured against.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::decision::Bounds;

use super::load::Load;

/// Tasks needed in each second of a load.
#[must_use]
pub fn needed(load: &Load, per_task: f64, bounds: Bounds, seconds: u64) -> Vec<u32> {
    let mut hint = 0;
    (0..seconds)
        .map(|second| {
            // A task too many for a rounding error would not be the minimum.
            let tasks = (load.at(second as f64, &mut hint) / per_task - 1e-9).ceil();
            (tasks as u32).clamp(bounds.min.min(bounds.max), bounds.max)
        })
        .collect()
}

/// The fewest tasks that must exist in each second, when each takes `startup` to start and none to stop: as many as are
/// needed at any time up to `startup` later.
#[must_use]
pub fn with_startup(needed: &[u32], startup: Duration) -> Vec<u32> {
    let ahead = startup.as_secs() as usize;
    let mut most: VecDeque<usize> = VecDeque::new();
    let mut next = 0;
    (0..needed.len())
        .map(|second| {
            while next < needed.len() && next <= second.saturating_add(ahead) {
                while most.back().is_some_and(|before| needed[*before] <= needed[next]) {
                    most.pop_back();
                }
                most.push_back(next);
                next += 1;
            }
            while most.front().is_some_and(|before| *before < second) {
                most.pop_front();
            }
            most.front().map_or(0, |at| needed[*at])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_started_as_early_as_they_take() {
        let load = Load::parse("0,30\n1,41\n2,80\n3,200\n4,0\n", true).unwrap();
        let needed = needed(&load, 40.0, Bounds { min: 1, max: 4 }, 6);
        assert_eq!(needed, [1, 2, 2, 4, 1, 1]);
        assert_eq!(with_startup(&needed, Duration::ZERO), needed);
        assert_eq!(with_startup(&needed, Duration::from_secs(2)), [2, 4, 4, 4, 1, 1]);
        assert_eq!(with_startup(&needed, Duration::from_secs(60)), [4, 4, 4, 4, 1, 1]);
    }
}
