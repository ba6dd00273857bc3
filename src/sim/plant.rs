//! What tasks do about the load, a second at a time.

use super::random::Random;

/// More events a second than this are drawn as numbers instead of one by one.
const MOST_EVENTS: f64 = 2000.0;

/// Parts of a second that numbers are drawn for.
const LEAPS: u32 = 10;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plant {
    /// Each running task serves so much a second; what is beyond that is lost.
    Rate {
        /// Load that one task serves.
        per_task: f64,
    },
    /// Requests wait in one queue (M/M/c: they come at random with the load as rate, and each takes a random time of
    /// mean 1/`per_task`).
    Queue {
        /// Requests that one task serves a second.
        per_task: f64,
        /// Most that wait; further ones are lost.
        limit: Option<u64>,
    },
    /// There is no load: the number of tasks is what is controlled.
    Own,
}

impl Plant {
    /// The load that one task serves, where there is a load.
    #[must_use]
    pub const fn per_task(&self) -> Option<f64> {
        match self {
            Self::Rate { per_task } | Self::Queue { per_task, .. } => Some(*per_task),
            Self::Own => None,
        }
    }
}

/// What a plant shows: `ctx.plant`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests that wait.
    pub queue: f64,
    /// Served in the last second.
    pub served: f64,
    /// Lost in the last second.
    pub lost: f64,
}

/// A plant at work.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    plant: Plant,
    /// Requests in the system, those that are being served included.
    inside: u64,
    reading: Reading,
    random: Random,
}

/// One second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    pub(super) offered: f64,
    pub(super) lost: f64,
    pub(super) over: bool,
}

impl Machine {
    pub(super) fn new(plant: Plant, seed: u64) -> Self {
        Self { plant, inside: 0, reading: Reading::default(), random: Random::new(seed, 1) }
    }

    pub(super) const fn reading(&self) -> Reading {
        self.reading
    }

    /// A second with this load and so many tasks.
    pub(super) fn second(&mut self, load: f64, running: u32) -> Second {
        let load = load.max(0.0);
        match self.plant {
            Plant::Own => Second::default(),
            Plant::Rate { per_task } => {
                let served = load.min(per_task * f64::from(running));
                let lost = load - served;
                self.reading = Reading { queue: 0.0, served, lost };
                Second { offered: load, lost, over: 0.0 < lost }
            }
            Plant::Queue { per_task, limit } => {
                let capacity = per_task * f64::from(running);
                let limit = limit.map_or(u64::MAX, |limit| limit.saturating_add(running.into()));
                let (offered, served, lost) = if load + capacity < MOST_EVENTS {
                    self.one_by_one(load, per_task, running, limit)
                } else {
                    self.in_leaps(load, per_task, running, limit)
                };
                let queue = self.inside.saturating_sub(running.into());
                self.reading = Reading { queue: queue as f64, served: served as f64, lost: lost as f64 };
                Second { offered: offered as f64, lost: lost as f64, over: capacity < load }
            }
        }
    }

    /// Exactly (Gillespie, 1977): the time to the next event, then which one it is.
    fn one_by_one(&mut self, load: f64, per_task: f64, running: u32, limit: u64) -> (u64, u64, u64) {
        let (mut offered, mut served, mut lost, mut time) = (0, 0, 0, 0.0);
        loop {
            let serving = per_task * self.inside.min(running.into()) as f64;
            let rate = load + serving;
            if rate <= 0.0 {
                break;
            }
            time += self.random.exponential(1.0 / rate);
            if 1.0 <= time {
                break;
            }
            if self.random.unit() * rate < load {
                offered += 1;
                if limit <= self.inside {
                    lost += 1;
                } else {
                    self.inside += 1;
                }
            } else {
                self.inside -= 1;
                served += 1;
            }
        }
        (offered, served, lost)
    }

    /// Nearly: arrivals and ends of a tenth of a second are drawn at once, as if the tasks' business did not change
    /// within it.
    fn in_leaps(&mut self, load: f64, per_task: f64, running: u32, limit: u64) -> (u64, u64, u64) {
        let (mut offered, mut served, mut lost) = (0, 0, 0);
        for _ in 0..LEAPS {
            let come = self.random.poisson(load / f64::from(LEAPS));
            let taken = come.min(limit.saturating_sub(self.inside));
            let busy = (self.inside + taken / 2).min(running.into()) as f64;
            self.inside += taken;
            let done = self.random.poisson(per_task * busy / f64::from(LEAPS)).min(self.inside);
            self.inside -= done;
            offered += come;
            lost += come - taken;
            served += done;
        }
        (offered, served, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean number that waits in M/M/c, by Erlang's C formula.
    fn erlang(load: f64, per_task: f64, tasks: u32) -> f64 {
        let a = load / per_task;
        let blocked = (1..=tasks).fold(1.0, |b, n| a * b / (f64::from(n) + a * b));
        let use_of = a / f64::from(tasks);
        let waits = blocked / (1.0 - use_of * (1.0 - blocked));
        waits * use_of / (1.0 - use_of)
    }

    #[test]
    fn the_queue_is_as_long_as_theory_says() {
        // (load, per task, tasks): the last is beyond what is drawn one by one.
        for (load, per_task, tasks) in [(8.0, 1.0, 10), (45.0, 10.0, 5), (4500.0, 1000.0, 5)] {
            let mut machine = Machine::new(Plant::Queue { per_task, limit: None }, 3);
            let seconds = 40_000;
            let waiting: f64 = (0..seconds)
                .map(|_| {
                    machine.second(load, tasks);
                    machine.reading().queue
                })
                .sum();
            let (mean, theory) = (waiting / f64::from(seconds), erlang(load, per_task, tasks));
            // What is drawn in leaps lets a queue that is shorter than a leap's work seem longer or shorter.
            let within = if load < 1000.0 { 0.12 * theory } else { 300.0 };
            assert!((mean - theory).abs() < within, "{load}: {mean} instead of {theory}");
        }
    }

    #[test]
    fn what_cannot_wait_is_lost() {
        let mut machine = Machine::new(Plant::Queue { per_task: 1.0, limit: Some(5) }, 3);
        let lost: f64 = (0..1000).map(|_| machine.second(10.0, 2).lost).sum();
        assert!((7_000.0..9_000.0).contains(&lost), "{lost}");
        assert!(machine.reading().queue <= 5.0);
        let mut machine = Machine::new(Plant::Rate { per_task: 40.0 }, 0);
        let second = machine.second(100.0, 2);
        assert_eq!((second.lost, second.over, machine.reading().served), (20.0, true, 80.0));
    }
}
