//! What one task does to the sample, and after how long.
//!
//! From one sample to the next, a model that knows the lag j predicts the move m of the sample from the change of the
//! number of tasks j samples before: linear m = b · Δn, ratio m = y · (n/n' − 1). With the move δ that came, it was
//! better than predicting no move by δ² − (δ − m)² = m (2δ − m). That gain, summed with forgetting over all changes of
//! the number, is compared with the energy Σm²: it comes to Σm² for the right model and to −Σm² for one whose effect is not
//! there. Where nothing changes, nothing is learned and nothing forgotten.
//!
//! The model with the most gain is believed when its gain is more than half of its energy, and well above
//! what the sample's own noise could have given (a likelihood ratio of e³). It is dropped below a quarter.
//!
//! b is learned for each lag by recursive least squares with forgetting, from a prior of `per_task`; one that comes out
//! with the wrong sign for the policy's `effect` is never believed.
//!
//! Source of the estimator: K. J. Åström, B. Wittenmark, "Adaptive Control" (2nd ed., 1995), chapter 2 (RLS with exponential
//! forgetting); a bank of models, one for each delay, is the usual way around a delay's non-linearity.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::LONGEST_LAG;
use crate::core::time::Timestamp;

/// How many numbers of tasks are remembered: the longest lag on top of a sample's own age.
const REMEMBERED: usize = LONGEST_LAG + 32;

/// What is left of old evidence at each new change.
const FORGET: f64 = 0.97;

/// Gain over noise from which a model can be believed: twice the logarithm of the likelihood ratio.
const EVIDENT: f64 = 6.0;

/// The model that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Model {
    /// The sample is a load divided by the number of tasks.
    Ratio {
        /// In samples.
        lag: usize,
    },
    /// One task moves the sample by `gain`.
    Linear {
        /// In samples.
        lag: usize,
        /// In metric units.
        gain: f64,
    },
}

/// What speaks for one model at one lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Evidence {
    gain: f64,
    energy: f64,
}

impl Evidence {
    fn add(&mut self, predicted: f64, moved: f64) {
        let energy = predicted * predicted;
        if !energy.is_finite() {
            return;
        }
        // One wild sample must not outweigh all the others.
        let gain = (predicted * (2.0 * moved - predicted)).clamp(-3.0 * energy, energy);
        self.gain = finite(FORGET * self.gain + gain);
        self.energy = finite(FORGET * self.energy + energy);
    }

    fn share(&self) -> f64 {
        if self.energy > 0.0 { self.gain / self.energy } else { 0.0 }
    }
}

/// The linear model at one lag: least squares through the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Line {
    evidence: Evidence,
    xy: f64,
    xx: f64,
}

impl Line {
    /// The move for each task, from a prior that weighs as much as the change of one task.
    fn slope(&self, prior: f64) -> f64 {
        let slope = (self.xy + prior) / (self.xx + 1.0);
        // Never against what the policy says that tasks do.
        if slope.is_finite() && slope * prior > 0.0 { slope } else { 0.0 }
    }

    fn learn(&mut self, change: f64, moved: f64) {
        self.xy = finite(FORGET * self.xy + change * moved);
        self.xx = finite(FORGET * self.xx + change * change);
    }
}

/// The learner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Response {
    /// Tasks that the sample would show without a lag, newest last.
    shown: VecDeque<(Timestamp, u32)>,
    /// How many of them are newer than the last sample.
    newer: usize,
    last: Option<f64>,
    /// Mean square of the sample's moves that no change of the number explains.
    noise: f64,
    ratios: Vec<Evidence>,
    lines: Vec<Line>,
    model: Option<Model>,
}

impl Response {
    /// The model that is believed, if any.
    pub(super) fn model(&self) -> Option<Model> {
        self.model
    }

    /// Takes in how many tasks there are to be seen at `now`.
    pub(super) fn record(&mut self, now: Timestamp, tasks: u32) {
        while REMEMBERED <= self.shown.len() {
            self.shown.pop_front();
        }
        self.shown.push_back((now, tasks));
        self.newer = (self.newer + 1).min(self.shown.len() - 1);
    }

    /// The number that the last sample shows, if it lags by so many samples.
    pub(super) fn shown(&self, lag: usize) -> u32 {
        let at = self.shown.len().saturating_sub(1 + self.newer + lag);
        self.shown.get(at).map_or(0, |(_, tasks)| *tasks)
    }

    /// There is a hole before the next sample.
    pub(super) fn interrupt(&mut self) {
        self.last = None;
    }

    /// Learns from a sample. `prior` is what one task is worth, with its sign; `ratio` whether that model could hold.
    pub(super) fn learn(&mut self, measured: Timestamp, sample: f64, prior: f64, ratio: bool) {
        self.newer = self.shown.iter().rev().take_while(|(at, _)| measured < *at).count().min(self.shown.len() - 1);
        let Some(last) = self.last.replace(sample) else { return };
        let moved = sample - last;
        if !moved.is_finite() {
            return;
        }
        self.ratios.resize(LONGEST_LAG + 1, Evidence::default());
        self.lines.resize(LONGEST_LAG + 1, Line::default());
        let newest = self.shown.len() - 1 - self.newer;
        let (mut now, mut quiet) = (f64::from(self.shown[newest].1), true);
        for lag in 0..=LONGEST_LAG.min(newest.saturating_sub(1)) {
            let Some((_, before)) = newest.checked_sub(lag + 1).and_then(|at| self.shown.get(at)) else { break };
            let before = f64::from(*before);
            let change = now - before;
            if change != 0.0 {
                quiet = false;
                let line = &mut self.lines[lag];
                line.evidence.add(line.slope(prior) * change, moved);
                line.learn(change, moved);
                if ratio && now > 0.0 && before > 0.0 {
                    self.ratios[lag].add(last * (before / now - 1.0), moved);
                }
            }
            now = before;
        }
        if quiet {
            self.noise = finite(self.noise + (moved * moved - self.noise) / 32.0);
        }
        self.believe(prior, ratio);
    }

    /// Chooses the model with the most gain.
    fn believe(&mut self, prior: f64, ratio: bool) {
        let mut best = (0.0, Evidence::default(), None);
        if ratio {
            for (lag, evidence) in self.ratios.iter().enumerate() {
                if best.0 < evidence.gain {
                    best = (evidence.gain, *evidence, Some(Model::Ratio { lag }));
                }
            }
        }
        for (lag, line) in self.lines.iter().enumerate() {
            let gain = line.slope(prior);
            // A line bends to fit where a ratio would have to be right, so it must be clearly better.
            if gain != 0.0 && best.0 < line.evidence.gain / if ratio { 1.2 } else { 1.0 } {
                best = (line.evidence.gain, line.evidence, Some(Model::Linear { lag, gain }));
            }
        }
        let same = matches!(
            (self.model, best.2),
            (Some(Model::Ratio { .. }), Some(Model::Ratio { .. }))
                | (Some(Model::Linear { .. }), Some(Model::Linear { .. }))
        );
        let enough = if same { 0.25 } else { 0.5 };
        if enough < best.1.share() && (same || EVIDENT * self.noise < best.1.gain) {
            self.model = best.2;
        } else if best.1.share() < 0.25 {
            self.model = None;
        }
    }
}

/// Sums of huge figures start anew instead of staying infinite.
fn finite(sum: f64) -> f64 {
    if sum.is_finite() { sum } else { 0.0 }
}
