//! `count`: a fixed number of tasks, with the wait-and-refill of mesos-http-scheduler.
//!
//! ```text
//!             the launch that fills the last free slot
//!   filling ──────────────────────────────────────────► full
//!      ▲                                                  │
//!      └──────────────────────────────────────────────────┘
//!             a multiple of `wait` since the start, or a launch that lapsed
//! ```
//!
//! While filling, every free slot is asked for. Once full, slots that become free stay so until the next
//! multiple of `wait`. Where that finds all slots taken, the first one that becomes free is refilled at once.
//! Without `wait` it is always filling.

use std::time::Duration;

use super::Input;
use crate::core::decision::LawState;

/// The proposed number.
pub(super) fn propose(n: u32, wait: Option<Duration>, state: &mut LawState, input: &Input<'_>) -> u32 {
    let Some(wait) = wait.map(|wait| wait.as_millis()).filter(|wait| *wait > 0) else { return n };
    if !matches!(state, LawState::Count { .. }) {
        *state = LawState::Count { filling: true, from: input.now, beats: 0, free: 0 };
    }
    let LawState::Count { filling, from, beats, free } = state else { return n };
    let beat = u64::try_from(input.now.since(*from).as_millis() / wait).unwrap_or(u64::MAX);
    if *beats < beat {
        *beats = beat;
        *filling = true;
    }
    if input.refused > 0 {
        *filling = true;
    }
    *free = if *filling { n.saturating_sub(input.desired) } else { 0 };
    if *filling || n < input.desired { n } else { input.desired }
}

/// Takes in how many were launched of the free slots.
pub(super) fn settle(state: &mut LawState, launched: u32) {
    if let LawState::Count { filling, free, .. } = state
        && *free > 0
        && *free <= launched
    {
        *filling = false;
        *free = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::fixture::input;
    use super::*;
    use crate::core::model::Effect;
    use crate::core::time::Timestamp;

    /// A backend that only places what is asked for at the seconds of its offers, one tick a second. What it
    /// does not place lapses. Gives the seconds at which tasks were launched.
    fn run(n: u32, wait: u64, offers: &[u64], ends: &[u64], seconds: u64) -> Vec<(u64, u32)> {
        let mut state = LawState::Empty;
        let (mut alive, mut refused, mut launches) = (0, 0, Vec::new());
        let none = VecDeque::new();
        for second in 0..=seconds {
            alive -= u32::try_from(ends.iter().filter(|end| **end == second).count()).unwrap();
            let now = Timestamp::from_millis(second * 1000);
            let input = Input { now, refused, ..input(&none, Effect::Cools, alive) };
            let asked = propose(n, Some(Duration::from_secs(wait)), &mut state, &input) - alive;
            settle(&mut state, asked);
            refused = 0;
            if asked > 0 && offers.contains(&second) {
                alive += asked;
                launches.push((second, asked));
            } else {
                refused = asked;
            }
        }
        launches
    }

    #[test]
    fn a10_fills_at_3_s_declines_at_30_s_refills_at_76_s_and_at_123_s() {
        let offers = [3, 30, 76, 90, 123];
        let ends = [18, 20, 95, 96];
        assert_eq!(run(2, 60, &offers, &ends, 130), [(3, 2), (76, 2), (123, 2)]);
    }

    #[test]
    fn a10_variant_a_slot_that_frees_after_a_tick_that_found_all_busy_is_refilled_at_once() {
        let every: Vec<u64> = (0..200).collect();
        assert_eq!(run(2, 60, &every, &[70, 80], 125), [(0, 2), (70, 1), (120, 1)]);
    }

    #[test]
    fn a_partial_fill_goes_on() {
        let mut state = LawState::Empty;
        let none = VecDeque::new();
        let wait = Some(Duration::from_secs(60));
        let at = |second: u64, desired| Input {
            now: Timestamp::from_millis(second * 1000),
            ..input(&none, Effect::Cools, desired)
        };
        assert_eq!(propose(10, wait, &mut state, &at(0, 0)), 10);
        settle(&mut state, 4);
        assert_eq!(propose(10, wait, &mut state, &at(1, 4)), 10, "6 slots are still free");
        settle(&mut state, 6);
        assert_eq!(propose(10, wait, &mut state, &at(2, 9)), 9, "full once, so the free slot waits");
        assert_eq!(propose(3, wait, &mut state, &at(3, 9)), 3, "fewer are wanted at once");
    }

    #[test]
    fn without_a_wait_the_number_is_held() {
        let none = VecDeque::new();
        for desired in [0, 5, 9] {
            for wait in [None, Some(Duration::ZERO)] {
                assert_eq!(propose(5, wait, &mut LawState::Empty, &input(&none, Effect::Cools, desired)), 5);
            }
        }
    }
}
