//! A workload in miniature for the laws: tasks that serve a rate, under a load by the second, through `decide`.
//!
//! Whoever includes it says what a task serves, how long it takes to start and how old the metric is. No Lua and
//! no events in it: one second after the other, so that weeks pass in well under a second.

use std::collections::VecDeque;
use std::time::Duration;

use setpoint::core::decide::{Config, decide, settle};
use setpoint::core::decision::{InFlight, Observation, PolicyState};
use setpoint::core::model::{Counts, Effect, Sample};
use setpoint::core::policy::{Control, Interval};
use setpoint::core::time::Timestamp;

/// What there is to scale.
#[derive(Clone, Copy)]
pub(crate) struct Plant {
    /// What one task serves, a second.
    pub(crate) rate: f64,
    /// Seconds from asked for to serving.
    pub(crate) start: usize,
    /// Age of the metric, in seconds.
    pub(crate) age: usize,
    /// Fewest and most tasks.
    pub(crate) bounds: (u32, u32),
}

/// What came of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Task-hours, those that were starting included.
    pub(crate) hours: f64,
    /// Minutes in which there was more load than the tasks could serve.
    pub(crate) over: f64,
    /// Starts and stops.
    pub(crate) changes: u64,
}

/// A load by the second, from rows of seconds and values.
pub(crate) fn interpolate(rows: &[(f64, f64)], scale: f64, until: f64) -> Vec<f64> {
    let end = rows.last().map_or(0.0, |row| row.0).min(until) as usize;
    let mut at = 0;
    let mut load = Vec::with_capacity(end + 1);
    for second in 0..=end {
        let second = second as f64;
        while at + 2 < rows.len() && rows[at + 1].0 <= second {
            at += 1;
        }
        let ((from, low), (to, high)) = (rows[at], rows[at + 1]);
        load.push((low + (high - low) * (second - from) / (to - from)) * scale);
    }
    load
}

impl Plant {
    fn needed(&self, load: f64) -> u32 {
        ((load / self.rate - 1e-9).ceil().max(0.0) as u32).clamp(self.bounds.0, self.bounds.1)
    }

    /// Task-hours of one who knows the future and asks for each task just in time.
    pub(crate) fn clairvoyant(&self, load: &[f64]) -> f64 {
        let mut ahead: VecDeque<(usize, u32)> = VecDeque::new();
        let (mut next, mut sum) = (0, 0.0);
        for second in 0..load.len() {
            while next < load.len() && next <= second + self.start {
                let needed = self.needed(load[next]);
                while ahead.back().is_some_and(|(_, less)| *less <= needed) {
                    ahead.pop_back();
                }
                ahead.push_back((next, needed));
                next += 1;
            }
            while ahead.front().is_some_and(|(at, _)| *at < second) {
                ahead.pop_front();
            }
            sum += ahead.front().map_or(0.0, |(_, most)| f64::from(*most));
        }
        sum / 3600.0
    }

    /// Runs a law over a load; the metric is the load for each running task, the setpoint `aim` of what one serves.
    pub(crate) fn run(&self, load: &[f64], control: &Control, every: usize, aim: f64) -> Outcome {
        let config = Config {
            control,
            effect: Effect::Cools,
            min: self.bounds.0,
            max: self.bounds.1,
            interval: Interval::fixed(Duration::from_secs(every as u64)),
            counter: false,
            metric: true,
        };
        let mut state = PolicyState::default();
        let mut running = self.needed(load[0]);
        let mut past: VecDeque<u32> = std::iter::repeat_n(running, self.age + 1).collect();
        let mut starting: VecDeque<(usize, u32)> = VecDeque::new();
        let (mut seconds, mut over, mut changes) = (0_u64, 0_u64, 0_u64);
        for second in 0..load.len() {
            while let Some((_, tasks)) = starting.front().copied().filter(|(due, _)| *due <= second) {
                running += tasks;
                starting.pop_front();
            }
            past.push_front(running);
            past.truncate(self.age + 1);
            if second % every == 0 {
                let staging = starting.iter().map(|(_, tasks)| tasks).sum();
                let shown = f64::from(past.back().copied().unwrap_or(1).max(1));
                let observation = Observation {
                    now: Timestamp::from_millis(second as u64 * 1000),
                    sample: Sample::Value {
                        value: load[second.saturating_sub(self.age)] / shown,
                        age: Duration::from_secs(self.age as u64),
                        reported: None,
                    },
                    setpoint: Some(aim * self.rate),
                    counts: Counts { staging, running, ready: running, ..Counts::default() },
                    in_flight: in_flight(running + staging, past.back().copied(), control, staging),
                    ..Observation::default()
                };
                let (decision, next) = decide(&config, state, &observation);
                state = next;
                let asked = decision.adjustment.unsigned_abs() as u32;
                changes += u64::from(asked);
                if decision.adjustment > 0 {
                    starting.push_back((second + self.start, asked));
                    settle(&mut state, observation.now, asked, 0, decision.to_min);
                } else if decision.adjustment < 0 {
                    running -= stop(&mut starting, asked);
                    settle(&mut state, observation.now, 0, asked, 0);
                }
            }
            seconds += u64::from(running + starting.iter().map(|(_, tasks)| tasks).sum::<u32>());
            over += u64::from(load[second] > f64::from(running) * self.rate + 1e-6);
        }
        Outcome { hours: seconds as f64 / 3600.0, over: over as f64 / 60.0, changes }
    }
}

/// As the ledger has it: with a lag, whatever the sample does not show; without, what is not ready.
fn in_flight(desired: u32, shown: Option<u32>, control: &Control, staging: u32) -> InFlight {
    let shown = shown.filter(|_| !control.lag.is_zero()).unwrap_or(desired - staging);
    InFlight { launches: desired.saturating_sub(shown), kills: shown.saturating_sub(desired) }
}

/// Stops so many, the youngest first; how many of those were running.
fn stop(starting: &mut VecDeque<(usize, u32)>, mut tasks: u32) -> u32 {
    while let Some((_, young)) = starting.back_mut().filter(|_| tasks > 0) {
        let less = tasks.min(*young);
        *young -= less;
        tasks -= less;
        if *young == 0 {
            starting.pop_back();
        }
    }
    tasks
}
