//! A recorded past as [`Functions`]: samples and targets as they were, whatever the tasks of this run do about them.
//!
//! A sample holds until the next one and ages meanwhile, so that a gap in the record is an outage of the metric.

use std::time::Duration;

use crate::core::decision::Scripted as Answer;
use crate::core::model::{Sample, TaskId};
use crate::script::{Acted, Hook, Observed, ScriptError};

use super::{Functions, Standing, World, observed};

/// What was observed at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Time since the start.
    pub at: Duration,
    /// The sample.
    pub sample: Sample,
    /// The setpoint.
    pub setpoint: Option<f64>,
    /// The answer of `decide(ctx)`.
    pub scripted: Option<Answer>,
}

/// A recorded past, and functions for everything but the observation.
#[derive(Clone, Debug)]
pub struct Recorded<F> {
    past: Vec<Past>,
    next: usize,
    functions: F,
}

impl<F> Recorded<F> {
    /// What was observed, in the order of its times.
    pub const fn new(past: Vec<Past>, functions: F) -> Self {
        Self { past, next: 0, functions }
    }
}

impl<F: Functions> Functions for Recorded<F> {
    fn observe(&mut self, world: &World, _: &Standing<'_>) -> Observed {
        while self.past.get(self.next).is_some_and(|past| past.at <= world.at) {
            self.next += 1;
        }
        let Some(past) = self.next.checked_sub(1).and_then(|last| self.past.get(last)) else {
            return observed(Sample::Missing, None);
        };
        let mut sample = past.sample.clone();
        if let Sample::Value { age, .. } | Sample::Stale { age, .. } = &mut sample {
            *age = age.saturating_add(world.at.saturating_sub(past.at));
        }
        // The past had other tasks: how many there are now is this run's.
        let count = Some(world.running);
        Observed { scripted: past.scripted.clone(), count, ..observed(sample, past.setpoint) }
    }

    fn act(&mut self, hook: Hook, n: u32, standing: &Standing<'_>) -> Acted {
        self.functions.act(hook, n, standing)
    }

    fn victims(&mut self, n: u32, standing: &Standing<'_>) -> Result<Vec<TaskId>, ScriptError> {
        self.functions.victims(n, standing)
    }

    fn drain(&mut self, task: &TaskId, standing: &Standing<'_>) -> Result<bool, ScriptError> {
        self.functions.drain(task, standing)
    }

    fn stop(&mut self, standing: &Standing<'_>) -> Result<Option<i32>, ScriptError> {
        self.functions.stop(standing)
    }
}
