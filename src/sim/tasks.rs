//! A made-up backend: tasks that take their time to start, fail, end by themselves, and find no room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::model::{Exit, TaskId};

use super::random::Random;
use super::{Setup, words};

/// What goes wrong with tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Failures {
    /// Probability that a task does not start.
    pub start: f64,
    /// Mean time after which a running task fails; none is never.
    pub mean_life: Option<Duration>,
}

/// A time in which the backend places `n` tasks and no more. Those that find no room wait until it is over, or until the
/// loop withdraws them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// From when on, since the start.
    pub from: Duration,
    /// Until then.
    pub to: Duration,
    /// How many tasks find room in it.
    pub n: u32,
}

/// Something that happens to a task.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// It starts to run, or fails to.
    Starts(TaskId),
    /// It ends by itself.
    Ends(TaskId, Exit),
    /// It has done as it was told.
    Gone(TaskId),
    /// A time without room is over.
    Room,
}

/// The backend. Times are milliseconds since the start.
#[derive(Debug)]
pub(super) struct Tasks {
    setup: Arc<Setup>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    next: u64,
    left: Vec<u32>,
    waiting: Vec<TaskId>,
    random: Random,
}

impl Tasks {
    pub(super) fn new(setup: Arc<Setup>) -> Self {
        let mut tasks = Self {
            events: BTreeMap::new(),
            serial: 0,
            next: u64::MAX,
            left: setup.rooms.iter().map(|room| room.n).collect(),
            waiting: Vec::new(),
            random: Random::new(setup.seed, 2),
            setup,
        };
        for at in 0..tasks.setup.rooms.len() {
            tasks.at(millis(tasks.setup.rooms[at].to), Event::Room);
        }
        tasks
    }

    /// Whether tasks may find no room.
    pub(super) fn queues(&self) -> bool {
        !self.setup.rooms.is_empty()
    }

    /// When something happens next.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// What has happened by `now`, one at a time.
    pub(super) fn take(&mut self, now: u64) -> Option<Event> {
        if now < self.next {
            return None;
        }
        let (_, event) = self.events.pop_first()?;
        self.next = self.events.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        Some(event)
    }

    /// Places a task; false when it has to wait for room.
    pub(super) fn place(&mut self, id: &TaskId, now: u64) -> bool {
        let time = Duration::from_millis(now);
        let room = self.setup.rooms.iter().position(|room| room.from <= time && time < room.to);
        if let Some(room) = room {
            let Some(left) = self.left[room].checked_sub(1) else {
                self.waiting.push(id.clone());
                return false;
            };
            self.left[room] = left;
        }
        self.at(now + millis(self.setup.startup), Event::Starts(id.clone()));
        true
    }

    /// Tasks that waited for room.
    pub(super) fn waiting(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether a task fails to start.
    pub(super) fn fails(&mut self) -> Option<Exit> {
        let fails = 0.0 < self.setup.failures.start && self.random.unit() < self.setup.failures.start;
        fails.then(|| Exit::NotStarted { reason: words("simulated failure") })
    }

    /// A task runs from now on: draws when it ends.
    pub(super) fn live(&mut self, id: &TaskId, now: u64) {
        let own = self.setup.lifetime.map(|(least, most)| {
            let life = (most.saturating_sub(least)).mul_f64(self.random.unit()) + least;
            (millis(life), Exit::Code { code: 0 })
        });
        let failed = self.setup.failures.mean_life.map(|mean| {
            let life = self.random.exponential(mean.as_secs_f64() * 1000.0);
            (life as u64, Exit::Code { code: 1 })
        });
        let first = own.into_iter().chain(failed).min_by_key(|(life, _)| *life);
        if let Some((life, exit)) = first {
            self.at(now.saturating_add(life.max(1)), Event::Ends(id.clone(), exit));
        }
    }

    /// Tells a task to end.
    pub(super) fn kill(&mut self, id: TaskId, now: u64) {
        self.at(now + millis(self.setup.stop), Event::Gone(id));
    }

    fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.next = self.next.min(at);
        self.events.insert((at, self.serial), event);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
