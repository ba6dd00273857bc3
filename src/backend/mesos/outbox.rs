//! Calls on their way to the master, in order, and what has to be durable before each.
//!
//! A launch is sent when the engine has its place on the disk: a host that is killed right after it then knows the host and
//! the ports of what runs. What comes behind it waits with it, so that no KILL or RECONCILE overtakes the launch that it is about.
//!
//! Pure: what is durable and the time go in, calls come out.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::mesos::wire::scheduler::Call;

/// How long a launch waits: its offers are nobody else's meanwhile, and a store that is away may stay away.
pub(super) const WAIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Waiting {
    call: Call,
    /// Serials of what is not durable yet.
    after: BTreeSet<u64>,
    /// Given up then.
    until: Duration,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
}

impl Outbox {
    /// A call to be sent after those before it, and after these serials.
    pub(super) fn push(&mut self, now: Duration, call: Call, after: BTreeSet<u64>) {
        self.waiting.push_back(Waiting { call, after, until: now + WAIT });
    }

    /// What this serial stands for is durable.
    pub(super) fn durable(&mut self, serial: u64) {
        for waiting in &mut self.waiting {
            waiting.after.remove(&serial);
        }
    }

    /// The calls whose turn it is.
    pub(super) fn ready(&mut self) -> Vec<Call> {
        let ready = self.waiting.iter().take_while(|waiting| waiting.after.is_empty()).count();
        self.waiting.drain(..ready).map(|waiting| waiting.call).collect()
    }

    /// The launches that wait in vain; they are not sent. Where one does, those behind it do as well: they may count on what
    /// it brings, an executor.
    pub(super) fn overdue(&mut self, now: Duration) -> Vec<Call> {
        let is_over = |waiting: &Waiting| !waiting.after.is_empty() && waiting.until <= now;
        if self.waiting.iter().any(is_over) { self.give_up() } else { Vec::new() }
    }

    /// All launches, which are not sent.
    fn give_up(&mut self) -> Vec<Call> {
        let is_launch = |waiting: &Waiting| matches!(waiting.call, Call::Accept(_));
        let (launches, others) = std::mem::take(&mut self.waiting).into_iter().partition(is_launch);
        self.waiting = others;
        launches.into_iter().map(|waiting: Waiting| waiting.call).collect()
    }

    /// The same where the stream is over: what else was to be said is said anew in the next one, or not true any more.
    pub(super) fn clear(&mut self) -> Vec<Call> {
        let launches = self.give_up();
        self.waiting.clear();
        launches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::wire::scheduler::{Accept, Kill, Reconcile};
    use crate::mesos::wire::{OfferId, TaskId};

    fn accept(offer: &str) -> Call {
        Call::Accept(Accept { offer_ids: vec![OfferId::new(offer)], operations: Vec::new(), filters: None })
    }

    #[test]
    fn a_launch_waits_for_its_place_and_what_is_behind_it_with_it() {
        let mut outbox = Outbox::default();
        let now = Duration::from_secs(1);
        outbox.push(now, Call::Reconcile(Reconcile::default()), BTreeSet::new());
        outbox.push(now, accept("a"), BTreeSet::from([1, 2]));
        let kill = Call::Kill(Kill { task_id: TaskId::new("t"), agent_id: None, kill_policy: None });
        outbox.push(now, kill.clone(), BTreeSet::new());
        outbox.push(now + WAIT / 2, accept("b"), BTreeSet::from([3]));
        assert_eq!(outbox.ready(), [Call::Reconcile(Reconcile::default())]);
        for serial in [3, 1, 7] {
            outbox.durable(serial);
            assert_eq!(outbox.ready(), [], "{serial}");
        }
        outbox.durable(2);
        assert_eq!(outbox.ready(), [accept("a"), kill.clone(), accept("b")]);
        // One whose place cannot be written holds up nothing for long, and takes those with it that may count on it.
        outbox.push(now, accept("c"), BTreeSet::from([4]));
        outbox.push(now, kill.clone(), BTreeSet::new());
        outbox.push(now + WAIT / 2, accept("d"), BTreeSet::from([5]));
        assert_eq!(outbox.overdue(now + WAIT / 2), []);
        assert_eq!(outbox.overdue(now + WAIT), [accept("c"), accept("d")]);
        assert_eq!(outbox.ready(), std::slice::from_ref(&kill));
        outbox.durable(4);
        assert_eq!((outbox.ready(), outbox.overdue(now + WAIT * 9)), (Vec::new(), Vec::new()));
        outbox.push(now, accept("e"), BTreeSet::from([6]));
        outbox.push(now, kill, BTreeSet::new());
        assert_eq!((outbox.clear(), outbox.ready()), (vec![accept("e")], Vec::new()));
    }
}
