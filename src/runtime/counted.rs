//! A workload on a count backend, as the control loop holds it: what was observed, and the number that is on its way.
//!
//! ```text
//!   unknown ──observed──► settled ──intent recorded──► on its way ──taken──► settled
//!                            ▲                            │ somebody else changed it, it was refused: it lapses
//!                            └────────────────────────────┘ no answer: the next observation tells
//! ```
//!
//! Pure bookkeeping, without I/O. The tasks themselves are in the ledger, as a picture of what the backend says.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::backend::CountStatus;
use crate::core::decision::InFlight;
use crate::core::model::{Counts, TaskId};

/// How often an intent is tried again under a new version, while the number is still what it was decided on.
const TRIES: u32 = 3;

/// An absolute number that is on its way to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountIntent {
    /// The number that it was decided on.
    pub(crate) from: u32,
    /// The number that is wanted.
    pub(crate) to: u32,
    /// How often it was sent.
    pub(crate) sent: u32,
}

/// What is known of one policy's workload on one count backend.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Version, number and hindrance as last observed; none before the first time.
    pub(crate) seen: Option<Seen>,
    /// The number on its way.
    pub(crate) intent: Option<CountIntent>,
    /// A call runs; one at a time.
    pub(crate) calling: bool,
    /// A number was sent whose answer is awaited.
    pub(crate) sending: bool,
    /// The last number was refused: why, and until when no other is sent.
    pub(crate) refused: Option<(Instant, String)>,
    /// The workload is to be removed.
    pub(crate) removing: bool,
    /// Tasks that moved here from another backend: the number begins with so many.
    pub(crate) carried: u32,
    /// Tasks that had ended when last looked at.
    pub(crate) buried: BTreeSet<TaskId>,
}

/// What the last observation said beside the tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) version: u64,
    pub(crate) desired: u32,
    pub(crate) busy: Option<String>,
}

/// What becomes of an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// There is none, or it waits for an answer.
    None,
    /// The backend has taken it.
    Taken(CountIntent),
    /// It is sent again, under the new version.
    Again,
    /// It is given up: the number is no longer what it was decided on, or cannot be changed.
    Lapsed(CountIntent),
}

impl Counted {
    /// The number that is wanted, as far as it is known.
    pub(crate) fn desired(&self) -> Option<u32> {
        let intent = self.intent.as_ref().map(|intent| intent.to);
        intent.or(self.seen.as_ref().map(|seen| seen.desired))
    }

    /// Why no new number can be sent now.
    pub(crate) fn hindrance(&self, now: Instant) -> Option<String> {
        if self.removing {
            return Some("the workload is being removed".to_owned());
        }
        match (&self.seen, &self.intent) {
            (None, _) => Some("its backend has not answered yet".to_owned()),
            (_, Some(intent)) => Some(format!("the change to {} is still on its way", intent.to)),
            (Some(seen), None) => {
                let refused = self.refused.as_ref().filter(|(until, _)| now < *until);
                seen.busy.clone().or(refused.map(|(_, why)| why.clone()))
            }
        }
    }

    /// Takes in an observation; what that makes of the intent.
    pub(crate) fn observe(&mut self, status: &CountStatus) -> Fate {
        let seen = Seen { version: status.version, desired: status.desired, busy: status.busy.clone() };
        let unchanged =
            |intent: &CountIntent| seen.desired == intent.from && seen.busy.is_none() && intent.sent < TRIES;
        let fate = match self.intent.take() {
            None => Fate::None,
            Some(intent) if intent.to == seen.desired => Fate::Taken(intent),
            Some(intent) if unchanged(&intent) => {
                self.intent = Some(intent);
                Fate::Again
            }
            Some(intent) => Fate::Lapsed(intent),
        };
        self.seen = Some(seen);
        fate
    }

    /// Makes the ledger's counts those of the workload: places without a task are asked for, tasks beyond the number
    /// are on their way out, the newest first.
    pub(crate) fn adjust(&self, counts: &mut Counts) {
        let Some(desired) = self.desired() else { return };
        counts.asked += desired.saturating_sub(counts.alive());
        let mut beyond = counts.alive().saturating_sub(desired);
        counts.killing += beyond;
        for state in [&mut counts.asked, &mut counts.staging, &mut counts.running] {
            let taken = beyond.min(*state);
            *state -= taken;
            beyond -= taken;
        }
        counts.ready = counts.ready.min(counts.running);
    }

    /// The same for what the sample does not show yet.
    pub(crate) fn adjust_in_flight(&self, ledger: Counts, in_flight: &mut InFlight) {
        let Some(desired) = self.desired() else { return };
        in_flight.launches += desired.saturating_sub(ledger.alive());
        let beyond = ledger.alive().saturating_sub(desired);
        let unshown = beyond.min(in_flight.launches);
        in_flight.launches -= unshown;
        in_flight.kills += beyond - unshown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: u64, desired: u32) -> CountStatus {
        CountStatus { version, desired, ..CountStatus::default() }
    }

    fn intent(from: u32, to: u32) -> CountIntent {
        CountIntent { from, to, sent: 1 }
    }

    #[test]
    fn an_intent_is_taken_sent_again_or_lapses() {
        let mut counted = Counted::default();
        assert!(counted.hindrance(Instant::now()).is_some(), "nothing is known yet");
        assert_eq!(counted.observe(&status(7, 2)), Fate::None);
        assert_eq!((counted.desired(), counted.hindrance(Instant::now())), (Some(2), None));

        counted.intent = Some(intent(2, 4));
        assert_eq!(counted.desired(), Some(4), "what is on its way counts");
        assert!(counted.hindrance(Instant::now()).is_some_and(|text| text.contains("to 4")));
        assert_eq!(counted.observe(&status(9, 2)), Fate::Again, "another version, the same number");
        assert!(matches!(counted.observe(&status(10, 4)), Fate::Taken(_)));

        counted.intent = Some(intent(4, 5));
        assert!(matches!(counted.observe(&status(11, 9)), Fate::Lapsed(_)), "somebody else set another number");
        assert_eq!(counted.desired(), Some(9));
        counted.intent = Some(intent(9, 10));
        let busy = CountStatus { busy: Some("an update is in progress".into()), ..status(12, 9) };
        assert!(matches!(counted.observe(&busy), Fate::Lapsed(_)));
        assert_eq!(counted.hindrance(Instant::now()).as_deref(), Some("an update is in progress"));
    }

    #[test]
    fn counts_follow_the_number_whatever_the_tasks_are() {
        let counted = |desired| Counted { seen: Some(Seen { version: 1, desired, busy: None }), ..Counted::default() };
        let ledger = Counts { staging: 1, running: 2, ready: 2, ..Counts::default() };
        let adjusted = |desired| {
            let mut counts = ledger;
            counted(desired).adjust(&mut counts);
            counts
        };
        for desired in 0..6 {
            assert_eq!(adjusted(desired).desired(), desired);
        }
        assert_eq!(adjusted(5), Counts { asked: 2, ..ledger });
        assert_eq!(adjusted(1), Counts { running: 1, ready: 1, killing: 2, ..Counts::default() });
        let in_flight = |desired| {
            let mut in_flight = InFlight { launches: 1, kills: 0 };
            counted(desired).adjust_in_flight(ledger, &mut in_flight);
            in_flight
        };
        assert_eq!(in_flight(5), InFlight { launches: 3, kills: 0 });
        assert_eq!(in_flight(1), InFlight { launches: 0, kills: 1 }, "the one that never showed is not missed");
    }
}
