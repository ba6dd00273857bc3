//! Confirmation: a direction is acted on when it was seen often enough.
//!
//! `Window`: in n of the last ticks, whatever came between. `Total`: n times in all since the last action, as
//! gocd-mesos did; ticks that ask for nothing neither count nor clear. An action clears both.

use super::Chain;
use crate::core::decision::{Detail, Guard, PolicyState};
use crate::core::policy::Confirm;

/// Counts this tick's direction and holds it until it is confirmed.
pub(in crate::core) fn apply(chain: &mut Chain, confirm: Option<Confirm>, state: &mut PolicyState) {
    let Some(confirm) = confirm else {
        state.forget_directions();
        return;
    };
    let direction = chain.adjustment.signum();
    let (seen, needed) = match confirm {
        Confirm::Window { n, of } => {
            state.directions.push_back(direction as i8);
            while state.directions.len() > of.max(n).max(1) as usize {
                state.directions.pop_front();
            }
            (state.directions.iter().filter(|seen| i64::from(**seen) == direction).count(), n)
        }
        Confirm::Total { n } => {
            let counter = if direction > 0 { &mut state.confirmed.up } else { &mut state.confirmed.down };
            *counter = counter.saturating_add(u32::from(direction != 0));
            (*counter as usize, n)
        }
    };
    if seen < needed as usize {
        let seen = u32::try_from(seen).unwrap_or(u32::MAX);
        chain.set(Guard::Confirmation, 0, || Detail::Confirmation { seen, needed });
    }
}
