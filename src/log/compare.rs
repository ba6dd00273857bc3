//! A shadow's decisions beside those of the policy that acted, as a log has them.

use super::record::Entry;
use crate::core::compare::{Tally, intended};

/// One tick on which both decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// What the acting policy decided.
    pub acting: Entry,
    /// What its shadow did.
    pub shadow: Entry,
    /// By how many tasks they differ: + where the shadow wanted more.
    pub difference: i64,
}

/// Goes through a policy's decisions and its shadow's, in the order of the log.
#[derive(Debug, Default)]
pub struct Comparison {
    tally: Tally,
    /// The acting policy's last decision, until its shadow's comes.
    acting: Option<Box<Entry>>,
    alone: u64,
}

impl Comparison {
    /// Takes in the next entry; the pair, once both halves are there.
    pub fn take(&mut self, entry: Box<Entry>) -> Option<Pair> {
        if entry.policy.shadow.is_none() {
            self.alone += u64::from(self.acting.replace(entry).is_some());
            return None;
        }
        let acting =
            self.acting.take_if(|acting| acting.policy.name == entry.policy.name && acting.tick == entry.tick)?;
        let difference = self.tally.add(intended(&acting.decision), intended(&entry.decision));
        Some(Pair { acting: *acting, shadow: *entry, difference })
    }

    /// The ticks so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Ticks on which only the acting policy decided.
    #[must_use]
    pub fn alone(&self) -> u64 {
        self.alone + u64::from(self.acting.is_some())
    }
}
