//! A season that the load may have: what it was at this time of the last days (or whatever the period is).
//!
//! The period has [`SLOTS`] slots. Each keeps the highest load of its time, relative to the mean of the period it was
//! in, smoothed over the periods; the level is that of the last period. Load = level · slot: the multiplicative model of
//! P. R. Winters, "Forecasting Sales by Exponentially Weighted Moving Averages" (1960), without its trend. It is used
//! from the second period on, and only as a floor: it may have tasks started early, and never stops one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::time::Timestamp;

/// Slots of a period.
const SLOTS: usize = 96;

/// Stands for the load of a slot that was not seen.
const UNSEEN: f64 = -1.0;

/// The weight of the newest period.
const NEWEST: f64 = 0.5;

/// The profile of a period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Season {
    period: Duration,
    /// The load of each slot over the level; 0 where none was seen yet.
    profile: Vec<f64>,
    /// The highest load of each slot in the present period; [`UNSEEN`] where there was none.
    present: Vec<f64>,
    /// Which period it is, counted from engine time 0.
    count: u64,
    /// The mean load of the last whole period; 0 before there was one.
    level: f64,
}

impl Season {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, profile: vec![0.0; SLOTS], present: vec![UNSEEN; SLOTS], count: u64::MAX, level: 0.0 }
    }

    /// Takes in a load.
    pub(super) fn observe(&mut self, at: Timestamp, load: f64) {
        let (count, slot) = self.place(at);
        if self.count != count {
            self.close();
            self.count = count;
        }
        if let Some(present) = self.present.get_mut(slot) {
            *present = present.max(load);
        }
    }

    /// The highest load that the profile has from `now` until `span` later; 0 where it does not know.
    pub(super) fn ahead(&self, now: Timestamp, span: Duration) -> f64 {
        let ((first, from), (last, to)) = (self.place(now), self.place(now + span));
        let further = last.saturating_sub(first) as usize * SLOTS + to - from;
        let slots = self.profile.iter().cycle().skip(from).take(further.min(SLOTS - 1) + 1);
        self.level * slots.fold(0.0, |most, slot| slot.max(most))
    }

    fn place(&self, at: Timestamp) -> (u64, usize) {
        let period = (self.period.as_millis() as u64).max(1);
        let at = at.as_millis();
        (at / period, (at % period * SLOTS as u64 / period) as usize)
    }

    /// Takes the present period into the profile, if all of it was seen.
    fn close(&mut self) {
        let level = self.present.iter().sum::<f64>() / SLOTS as f64;
        if level > 0.0 && level.is_finite() && self.present.iter().all(|load| *load >= 0.0) {
            for (profile, present) in self.profile.iter_mut().zip(&self.present) {
                let seen = present / level;
                *profile = if *profile > 0.0 { *profile + NEWEST * (seen - *profile) } else { seen };
            }
            self.level = level;
        }
        self.present.fill(UNSEEN);
    }
}
