//! The writer: a thread of its own that commits what has been submitted.
//!
//! Submissions meet in one map, newest write for each key, and each commit takes the whole map: order is kept
//! between commits, no submission is ever half in one, and the map is bounded by the number of records however long
//! a disk is full. When a commit is due is up to the submissions ([`Pace`]): the most urgent one counts, and a crash
//! loses at most a second of what nobody waited for.
//!
//! A commit that failed is put back under what came since, and tried again once a second.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::runtime::record::Write;

use super::disk::Disk;
use super::error::StoreError;
use super::record::Key;

/// How long writes that nobody waits for may wait for company.
const LINGER: Duration = Duration::from_secs(1);

/// The time from one commit to the next where somebody waits who can: of a burst the first one is committed at once, and
/// the others together.
const GATHER: Duration = Duration::from_millis(50);

/// The least time between two tries on a disk that does not take writes.
const RETRY: Duration = Duration::from_secs(1);

/// How long a submission may wait for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Not at all.
    Now,
    /// Until [`GATHER`] after the last commit.
    Soon,
    /// For [`LINGER`].
    Later,
}

impl Pace {
    /// When what was submitted now is to be committed.
    fn due(self, now: Instant, last: Option<Instant>) -> Instant {
        match self {
            Self::Now => now,
            Self::Soon => last.map_or(now, |last| now.max(last + GATHER)),
            Self::Later => now + LINGER,
        }
    }
}

/// Who waits for a commit.
#[derive(Debug)]
pub(super) enum Done {
    /// A worker of the runtime.
    Async(oneshot::Sender<Result<(), StoreError>>),
    /// A thread that blocks.
    Blocking(mpsc::Sender<Result<(), StoreError>>),
}

/// What submitters and the writer share.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something was submitted, or the queue was closed.
    submitted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    writes: BTreeMap<Key, Write>,
    waiting: Vec<Done>,
    /// When the next commit is due by what was submitted.
    wanted: Option<Instant>,
    /// When the last commit began, and then when it was over.
    last: Option<Instant>,
    closed: bool,
    failure: Option<StoreError>,
    /// When the last commit failed.
    failed_at: Option<Instant>,
}

/// What the writer takes out at once.
struct Batch {
    writes: BTreeMap<Key, Write>,
    waiting: Vec<Done>,
}

impl Queue {
    pub(super) fn submit(&self, writes: Vec<Write>, pace: Pace, done: Option<Done>) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            answer(done, &Err(StoreError::Closed));
            return;
        }
        state.writes.extend(writes.into_iter().map(|write| (Key::of(&write), write)));
        state.waiting.extend(done);
        if state.is_empty() {
            return;
        }
        // Without a write there is nothing to gather.
        let pace = if state.writes.is_empty() { Pace::Now } else { pace };
        let wanted = pace.due(Instant::now(), state.last);
        let earlier = state.wanted.is_none_or(|before| wanted < before);
        if earlier {
            state.wanted = Some(wanted);
        }
        drop(state);
        // The writer sleeps until then otherwise.
        if earlier {
            self.submitted.notify_one();
        }
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.lock().failure.clone()
    }

    /// Lets the writer commit what is there and end; later submissions are refused.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.submitted.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a commit is due; none when the queue is closed and empty.
    fn next(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.due(now) {
                Due::Now => return Some(state.take()),
                Due::Never if state.closed => return None,
                Due::Never => state = self.submitted.wait(state).unwrap_or_else(PoisonError::into_inner),
                Due::In(left) => {
                    let woken = self.submitted.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                    state = woken.0;
                }
            }
        }
    }

    /// Notes how a commit went. Writes that failed go back under the ones that came since.
    fn settle(&self, batch: Batch, outcome: Result<Vec<StoreError>, StoreError>) {
        let Batch { mut writes, waiting } = batch;
        let result = {
            let mut state = self.lock();
            state.last = Some(Instant::now());
            match outcome {
                Ok(left_out) => {
                    state.failure = None;
                    state.failed_at = None;
                    left_out.into_iter().next().map_or(Ok(()), Err)
                }
                Err(error) => {
                    writes.append(&mut state.writes);
                    // Tried again as soon as that is allowed.
                    state.wanted = Some(Instant::now());
                    state.writes = writes;
                    state.failure = Some(error.clone());
                    state.failed_at = Some(Instant::now());
                    Err(error)
                }
            }
        };
        for done in waiting {
            answer(Some(done), &result);
        }
    }
}

enum Due {
    Now,
    In(Duration),
    Never,
}

impl State {
    fn due(&self, now: Instant) -> Due {
        if self.is_empty() {
            return Due::Never;
        }
        let wanted = self.wanted.filter(|_| !self.closed).unwrap_or(now);
        let allowed = match self.failed_at {
            // On the way out one last try is made at once.
            Some(failed) if !self.closed => failed + RETRY,
            _ => now,
        };
        match wanted.max(allowed).checked_duration_since(now) {
            Some(left) if !left.is_zero() => Due::In(left),
            _ => Due::Now,
        }
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.waiting.is_empty()
    }

    fn take(&mut self) -> Batch {
        self.wanted = None;
        // What comes while this commit runs gathers, too; once it is over, that counts.
        self.last = Some(Instant::now());
        Batch { writes: mem::take(&mut self.writes), waiting: mem::take(&mut self.waiting) }
    }
}

fn answer(done: Option<Done>, result: &Result<(), StoreError>) {
    // Whoever asked may have gone; the writes stand all the same.
    match done {
        Some(Done::Async(done)) => drop(done.send(result.clone())),
        Some(Done::Blocking(done)) => drop(done.send(result.clone())),
        None => {}
    }
}

/// The writer's life: commits until the queue is closed and empty, or the last try failed.
pub(super) fn run(queue: &Arc<Queue>, mut disk: Disk) {
    while let Some(batch) = queue.next() {
        // With nothing to write there is nothing to commit: all that came before is durable already.
        let outcome = if batch.writes.is_empty() { Ok(Vec::new()) } else { disk.commit(&batch.writes) };
        report(queue, &outcome);
        let failed = outcome.is_err();
        queue.settle(batch, outcome);
        if failed && queue.lock().closed {
            break;
        }
    }
    disk.close();
}

fn report(queue: &Queue, outcome: &Result<Vec<StoreError>, StoreError>) {
    let failing = queue.failure().is_some();
    match outcome {
        Ok(left_out) => {
            for error in left_out {
                tracing::error!(error = %error, "a record was not stored");
            }
            if failing {
                tracing::info!("the store takes writes again");
            }
        }
        Err(error) if !failing => tracing::error!(error = %error, "the store does not take writes"),
        Err(_) => {}
    }
}
