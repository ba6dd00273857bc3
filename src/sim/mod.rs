//! Simulation: a policy against a made-up world, under a virtual clock, through the code that decides in earnest.
//!
//! ```text
//!   load ─► plant (a rate, a queue, the tasks themselves) ─► metric, `lag` later ─► core::decide ─► plan ─► ledger
//!             ▲                                                                                          │
//!             └──────────── tasks: start-up time, failures, lifetimes, room ◄────────────────────────────┘
//! ```
//!
//! Decision, settling, plan and ledger are the control loop's own; what is made up is time, the load, how long tasks
//! take, and what goes wrong. The policy's functions come in through [`Functions`]: Rust closures here
//! ([`Closures`]), the script's in `setpoint simulate` ([`Scripted`]), or a recorded past ([`Recorded`]).
//!
//! `setpoint test` drives the same loop from a spec, a tick at a time ([`SpecStage`]).
//!
//! Invariants: the same set-up and seed give the same run to the byte (no clock is read, no hash order looked at, each
//! source of chance has its own stream); nothing outside the process is touched.

mod clairvoyant;
mod fault;
mod load;
mod plant;
mod random;
mod recorded;
mod report;
mod run;
mod scripted;
mod session;
mod tasks;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::core::decision::{Bounds, Decision, PolicyState};
use crate::core::ledger::Ledger;
use crate::core::model::{Counts, PolicyName, Sample, TaskId};
use crate::core::time::Timestamp;
use crate::script::{Acted, Hook, Observed, ScriptError};

pub use clairvoyant::{needed, with_startup};
pub use fault::{Outage, OutageKind};
pub use load::{Load, Shape, TraceError};
pub use plant::{Plant, Reading};
pub use recorded::{Past, Recorded};
pub use report::Report;
pub use run::run;
pub use scripted::Scripted;
pub use session::SpecStage;
pub use tasks::{Failures, Room};

/// The first of January 2026, in seconds since 1970.
const WALL: u64 = 1_767_225_600;

/// Everything about a run but the policy.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The policy's name, which its tasks' ids begin with.
    pub name: PolicyName,
    /// What comes in.
    pub load: Load,
    /// What tasks do about it.
    pub plant: Plant,
    /// How long to run.
    pub duration: Duration,
    /// From asked to running.
    pub startup: Duration,
    /// From told to end to gone.
    pub stop: Duration,
    /// Wall time at the start.
    pub wall: SystemTime,
    /// Age of the metric.
    pub metric_lag: Duration,
    /// Standard deviation of the metric's relative noise (0.05 is 5 %).
    pub noise: f64,
    /// What goes wrong with tasks.
    pub failures: Failures,
    /// How long a task lives before it ends by itself, drawn evenly from between the two; none is for ever.
    pub lifetime: Option<(Duration, Duration)>,
    /// Times in which the backend has room for few tasks, or none.
    pub rooms: Vec<Room>,
    /// Times in which the metric cannot be had.
    pub outages: Vec<Outage>,
    /// Tasks that run at the start; none is the clairvoyant number.
    pub start: Option<u32>,
    /// Seed of every chance in the run.
    pub seed: u64,
}

impl Setup {
    /// A run in which nothing takes time and nothing goes wrong.
    #[must_use]
    pub fn new(load: Load, plant: Plant, duration: Duration) -> Self {
        Self {
            name: PolicyName::from("simulated"),
            load,
            plant,
            duration,
            startup: Duration::ZERO,
            stop: Duration::ZERO,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(WALL),
            metric_lag: Duration::ZERO,
            noise: 0.0,
            failures: Failures::default(),
            lifetime: None,
            rooms: Vec::new(),
            outages: Vec::new(),
            start: None,
            seed: 0,
        }
    }
}

/// The world as a metric sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct World {
    /// Time since the start.
    pub at: Duration,
    /// The load.
    pub load: f64,
    /// Tasks that run.
    pub running: u32,
    /// What the plant shows.
    pub plant: Reading,
}

/// The policy's own situation, for its functions.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The policy.
    pub name: &'a PolicyName,
    /// Engine time.
    pub at: Timestamp,
    /// Time since the start.
    pub since: Duration,
    /// Wall time, which goes with engine time.
    pub wall: SystemTime,
    /// Number of the tick, from 1.
    pub tick: u64,
    /// The last sample.
    pub sample: Option<&'a Sample>,
    /// The last setpoint.
    pub setpoint: Option<f64>,
    /// What decisions remember.
    pub state: &'a PolicyState,
    /// The tasks.
    pub ledger: &'a Ledger,
    /// How many there are: by the ledger, or of a workload that others run by what `workload.count` said.
    pub counts: Counts,
    /// Changes when a task does.
    pub version: u64,
    /// min and max.
    pub bounds: Bounds,
}

/// The functions of a policy.
pub trait Functions {
    /// `metric` of `world`, and `workload.count`, `target` and `decide`.
    fn observe(&mut self, world: &World, standing: &Standing<'_>) -> Observed;

    /// `warmer` or `cooler`; called only where the policy has it as a function.
    fn act(&mut self, hook: Hook, n: u32, standing: &Standing<'_>) -> Acted {
        let _ = (hook, n, standing);
        Acted { intents: Vec::new(), accepted: None, recorded: Vec::new(), error: None, cpu: Duration::ZERO }
    }

    /// `victims`; called only where the policy has it.
    ///
    /// # Errors
    /// The function failed: nothing is killed.
    fn victims(&mut self, n: u32, standing: &Standing<'_>) -> Result<Vec<TaskId>, ScriptError> {
        let _ = (n, standing);
        Ok(Vec::new())
    }

    /// `drain`; called only where the policy has it. False asks again at the next tick.
    ///
    /// # Errors
    /// The function failed: the task ends at once.
    fn drain(&mut self, task: &TaskId, standing: &Standing<'_>) -> Result<bool, ScriptError> {
        let _ = (task, standing);
        Ok(true)
    }

    /// `stop`; called only where the policy has it.
    ///
    /// # Errors
    /// The function failed: the policy goes on.
    fn stop(&mut self, standing: &Standing<'_>) -> Result<Option<i32>, ScriptError> {
        let _ = standing;
        Ok(None)
    }
}

/// Functions in Rust: a metric and a target.
#[derive(Clone, Debug)]
pub struct Closures<M, T> {
    /// What is.
    pub metric: M,
    /// What should be.
    pub target: T,
}

impl<M: FnMut(&World) -> Sample, T: FnMut(&World) -> f64> Functions for Closures<M, T> {
    fn observe(&mut self, world: &World, standing: &Standing<'_>) -> Observed {
        // The metric may be late; what should be is known now.
        let now = World { at: standing.since, ..*world };
        observed((self.metric)(world), Some((self.target)(&now)))
    }
}

/// An observation of nothing but a sample and its setpoint.
const fn observed(sample: Sample, setpoint: Option<f64>) -> Observed {
    Observed { sample, setpoint, count: None, scripted: None, errors: Vec::new(), cpu: Duration::ZERO }
}

/// One tick, for who watches the run.
#[derive(Clone, Copy, Debug)]
pub struct Tick<'a> {
    /// Time since the start.
    pub at: Duration,
    /// The load now.
    pub load: f64,
    /// The tasks before the decision.
    pub counts: Counts,
    /// What was seen.
    pub sample: &'a Sample,
    /// What should be.
    pub setpoint: Option<f64>,
    /// What was decided; its adjustment is what was carried out.
    pub decision: &'a Decision,
    /// The script's errors of this tick.
    pub errors: &'a [ScriptError],
    /// Tasks that were launched.
    pub launched: u32,
    /// Tasks that were told to end, and replacements that were given up.
    pub killed: u32,
    /// Effects that the script had recorded, in words.
    pub recorded: &'a [String],
}

/// A message of a made-up failure.
fn words(text: &str) -> Arc<str> {
    Arc::from(text)
}
