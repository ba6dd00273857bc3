//! The meter of a VM: CPU time, wall time and time slices of the call that it runs now.
//!
//! Luau asks [`Meter::tick`] at every loop iteration, call and step of a pattern match. The answer is to go on, to
//! yield (the slice is used up: others may run), or to raise. Raising is sticky: from then on every question of that
//! call is answered so, and no `pcall` can outlive it.
//!
//! The fields are atomics only because mlua asks for `Sync`; a VM runs on one thread at a time.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long a call runs before others of the pool have their turn.
const SLICE: Duration = Duration::from_millis(1);

/// A call that nobody waits for is a runaway after so long.
pub(super) const RUNAWAY: Duration = Duration::from_secs(5);

/// The clock is read at every so-manieth question only: a question costs a few nanoseconds, a clock twenty.
const QUESTIONS_PER_LOOK: u32 = 16;

/// Which limit a call has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trip {
    /// CPU time.
    Cpu,
    /// Wall time.
    Deadline,
}

/// What a script is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Go on.
    Continue,
    /// Let others run.
    Yield,
    /// Raise. True the first time.
    Raise(Trip, bool),
}

/// What a call may use, and has used.
#[derive(Debug)]
pub(super) struct Budget {
    /// CPU time that it may use in all.
    pub(super) cpu: Duration,
    /// When it must be over.
    pub(super) deadline: Instant,
    /// CPU time that it has used.
    pub(super) spent: Duration,
    /// The limit that it broke.
    pub(super) tripped: Option<Trip>,
    /// Whether its last step ended, or may have ended, because its time slice was over.
    pub(super) yielded: bool,
    /// Its random numbers: the same for the same policy, tick and function.
    pub(super) random: fastrand::Rng,
}

/// The meter of one VM.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    questions: AtomicU32,
    /// Nanoseconds since `origin` at which the clocks are looked at in earnest.
    look_at: AtomicU64,
    deadline: AtomicU64,
    /// CPU time of the thread at which the budget is used up.
    cpu_end: AtomicU64,
    tripped: AtomicU8,
    yielded: AtomicBool,
    /// Where the call was when it broke a limit.
    trace: Mutex<Option<String>>,
    random: Mutex<fastrand::Rng>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            questions: AtomicU32::new(0),
            look_at: AtomicU64::new(u64::MAX),
            deadline: AtomicU64::new(u64::MAX),
            cpu_end: AtomicU64::new(u64::MAX),
            tripped: AtomicU8::new(0),
            yielded: AtomicBool::new(false),
            trace: Mutex::new(None),
            random: Mutex::new(fastrand::Rng::with_seed(0)),
        }
    }

    /// Runs `work`, one step of a call, on this thread, under what is left of the call's budget.
    pub(super) fn run<R>(&self, budget: &mut Budget, work: impl FnOnce() -> R) -> R {
        let start = thread_cpu();
        self.questions.store(0, Ordering::Relaxed);
        self.look_at.store(self.now().saturating_add(nanos(SLICE)), Ordering::Relaxed);
        self.deadline.store(nanos(budget.deadline.saturating_duration_since(self.origin)), Ordering::Relaxed);
        let left = budget.cpu.saturating_sub(budget.spent);
        self.cpu_end.store(nanos(start).saturating_add(nanos(left)), Ordering::Relaxed);
        self.tripped.store(encode(budget.tripped), Ordering::Relaxed);
        self.yielded.store(false, Ordering::Relaxed);
        self.swap_random(&mut budget.random);
        let result = work();
        self.swap_random(&mut budget.random);
        budget.yielded = self.yielded.load(Ordering::Relaxed);
        budget.tripped = decode(self.tripped.load(Ordering::Relaxed));
        self.tripped.store(0, Ordering::Relaxed);
        // Host code that runs in between (conversions) is not the script's.
        self.look_at.store(u64::MAX, Ordering::Relaxed);
        budget.spent += thread_cpu().saturating_sub(start);
        if budget.spent > budget.cpu && budget.tripped.is_none() {
            budget.tripped = Some(Trip::Cpu);
        }
        result
    }

    /// Runs a whole call on this thread, which nobody else waits for: it is never asked to yield, and is stopped after
    /// `limit`. It may be made from within another one, whose own limits hold again afterwards.
    pub(super) fn run_here<R>(&self, seed: u64, limit: Duration, work: impl FnOnce() -> R) -> (R, Option<Trip>) {
        let end = self.now().saturating_add(nanos(limit));
        let mut random = fastrand::Rng::with_seed(seed);
        self.questions.store(0, Ordering::Relaxed);
        let look_at = self.look_at.swap(end, Ordering::Relaxed);
        let deadline = self.deadline.swap(end, Ordering::Relaxed);
        let cpu_end = self.cpu_end.swap(u64::MAX, Ordering::Relaxed);
        let tripped = self.tripped.swap(0, Ordering::Relaxed);
        self.swap_random(&mut random);
        let result = work();
        self.swap_random(&mut random);
        self.look_at.store(look_at, Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
        self.cpu_end.store(cpu_end, Ordering::Relaxed);
        (result, decode(self.tripped.swap(tripped, Ordering::Relaxed)))
    }

    /// The answer to the VM's question whether it may go on.
    pub(super) fn tick(&self) -> Answer {
        if let Some(trip) = decode(self.tripped.load(Ordering::Relaxed)) {
            return Answer::Raise(trip, false);
        }
        let questions = self.questions.load(Ordering::Relaxed).wrapping_add(1);
        self.questions.store(questions, Ordering::Relaxed);
        if !questions.is_multiple_of(QUESTIONS_PER_LOOK) {
            return Answer::Continue;
        }
        let now = self.now();
        if now < self.look_at.load(Ordering::Relaxed) {
            return Answer::Continue;
        }
        let trip = if nanos(thread_cpu()) >= self.cpu_end.load(Ordering::Relaxed) {
            Trip::Cpu
        } else if now >= self.deadline.load(Ordering::Relaxed) {
            Trip::Deadline
        } else {
            self.look_at.store(now.saturating_add(nanos(SLICE)), Ordering::Relaxed);
            self.yielded.store(true, Ordering::Relaxed);
            return Answer::Yield;
        };
        self.tripped.store(encode(Some(trip)), Ordering::Relaxed);
        Answer::Raise(trip, true)
    }

    /// Keeps where the call was when it broke a limit.
    pub(super) fn keep_trace(&self, trace: Option<String>) {
        *self.trace.lock().unwrap_or_else(PoisonError::into_inner) = trace;
    }

    /// Where the last call that broke a limit was.
    pub(super) fn take_trace(&self) -> Option<String> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The running call's random numbers.
    pub(super) fn random<R>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> R) -> R {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap_random(&self, other: &mut fastrand::Rng) {
        self.random(|own| std::mem::swap(own, other));
    }

    fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const fn encode(trip: Option<Trip>) -> u8 {
    match trip {
        None => 0,
        Some(Trip::Cpu) => 1,
        Some(Trip::Deadline) => 2,
    }
}

const fn decode(byte: u8) -> Option<Trip> {
    match byte {
        1 => Some(Trip::Cpu),
        2 => Some(Trip::Deadline),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(cpu: Duration, wall: Duration) -> Budget {
        Budget {
            cpu,
            deadline: Instant::now() + wall,
            spent: Duration::ZERO,
            tripped: None,
            yielded: false,
            random: fastrand::Rng::with_seed(7),
        }
    }

    #[test]
    fn a_loop_yields_first_and_is_raised_at_its_budget() {
        let meter = Meter::new();
        let mut budget = budget(Duration::from_millis(10), Duration::from_secs(600));
        let yields = meter.run(&mut budget, || {
            let mut yields = 0;
            loop {
                match meter.tick() {
                    Answer::Continue => {}
                    Answer::Yield => yields += 1,
                    Answer::Raise(Trip::Cpu, true) => break yields,
                    other @ Answer::Raise(..) => panic!("{other:?}"),
                }
            }
        });
        assert!(yields >= 1);
        assert_eq!(budget.tripped, Some(Trip::Cpu));
        let again = meter.run(&mut budget, || meter.tick());
        assert_eq!(again, Answer::Raise(Trip::Cpu, false), "sticky over steps of one call");
    }

    #[test]
    fn random_numbers_belong_to_the_call() {
        let meter = Meter::new();
        let mut first = budget(Duration::from_secs(1), Duration::from_secs(600));
        let mut second = budget(Duration::from_secs(1), Duration::from_secs(600));
        let draw = |budget: &mut Budget| meter.run(budget, || meter.random(|random| random.u64(..)));
        let (a1, b1, a2, b2) = (draw(&mut first), draw(&mut second), draw(&mut first), draw(&mut second));
        assert_eq!((a1, a2), (b1, b2));
        assert_ne!(a1, a2);
    }
}
