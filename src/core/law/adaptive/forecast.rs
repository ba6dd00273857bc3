//! Where the load will be by the time that a task launched now can serve, and how wrong that tends to be.
//!
//! The rise over the horizon h is regressed on three trends of the load: over two samples, over h, and over 4h, each
//! stretched to h. Recursive least squares with forgetting finds out how much of each goes on: all of a
//! straight climb, half of a ragged one, less than nothing of a spike that falls back. The error of each forecast, known
//! h samples later, moves the headroom: the [`QUANTILE`] of the errors, tracked by stochastic approximation
//! (H. Robbins, S. Monro, "A Stochastic Approximation Method", 1951), with steps in proportion to their mean size.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::FURTHEST;

/// How many trends there are.
const TRENDS: usize = 3;

/// The longest trend, as a multiple of the horizon.
const LONGEST: usize = 4;

/// How many loads are remembered.
const REMEMBERED: usize = (LONGEST + 1) * FURTHEST + 1;

/// The share of forecasts that the headroom is to cover.
const QUANTILE: f64 = 0.94;

/// What is left of old evidence at each sample.
const FORGET: f64 = 0.999;

/// The variance of each weight to start from, and of all together up to which old evidence is forgotten.
const WIDEST: f64 = 10.0;

/// The forecaster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Forecast {
    /// Measured loads, newest last.
    loads: VecDeque<f64>,
    /// What was forecast when each of the last ones was measured.
    forecasts: VecDeque<f64>,
    /// How much of each trend goes on.
    weights: [f64; TRENDS],
    covariance: [[f64; TRENDS]; TRENDS],
    /// Mean square of the rises over a horizon.
    rises: f64,
    /// Mean size of the errors.
    errors: f64,
    headroom: f64,
}

impl Default for Forecast {
    fn default() -> Self {
        let mut covariance = [[0.0; TRENDS]; TRENDS];
        for (at, row) in covariance.iter_mut().enumerate() {
            row[at] = WIDEST;
        }
        Self {
            loads: VecDeque::new(),
            forecasts: VecDeque::new(),
            weights: [0.5, 0.0, 0.0],
            covariance,
            rises: 0.0,
            errors: 0.0,
            headroom: 0.0,
        }
    }
}

impl Forecast {
    /// There is a hole before the next sample.
    pub(super) fn interrupt(&mut self) {
        self.loads.clear();
        self.forecasts.clear();
    }

    /// What forecasts are to be exceeded by.
    pub(super) fn headroom(&self) -> f64 {
        self.headroom
    }

    /// Takes in a load, for forecasts over `horizon` samples.
    pub(super) fn observe(&mut self, load: f64, horizon: usize) {
        while (LONGEST + 1) * horizon < self.loads.len() || REMEMBERED <= self.loads.len() {
            self.loads.pop_front();
        }
        self.loads.push_back(load);
        if let Some(before) = self.loads.len().checked_sub(1 + horizon) {
            self.learn(load - self.loads[before], horizon);
        }
        if let Some(made) = self.forecasts.len().checked_sub(horizon) {
            self.judge(load - self.forecasts[made]);
        }
        while horizon < self.forecasts.len() {
            self.forecasts.pop_front();
        }
        let forecast = self.ahead(horizon);
        self.forecasts.push_back(forecast);
    }

    /// The load `horizon` samples from the last one.
    pub(super) fn ahead(&self, horizon: usize) -> f64 {
        let Some(load) = self.loads.back() else { return 0.0 };
        let trends = self.trends(0, horizon);
        let rise = dot(&self.weights, &trends);
        // More than the steepest trend can only be an artefact of the regression.
        let most = 1.5 * trends[0].abs().max(trends[1].abs());
        let ahead = load + if rise.is_finite() { rise.clamp(-most, most) } else { 0.0 };
        if ahead.is_finite() { ahead.max(0.0) } else { *load }
    }

    /// The trends as they were `back` samples ago, stretched to the horizon.
    fn trends(&self, back: usize, horizon: usize) -> [f64; TRENDS] {
        let last = self.loads.len().saturating_sub(1 + back);
        let at = |back: usize| self.loads.get(last.saturating_sub(back)).copied().unwrap_or(0.0);
        let over = |samples: usize| (at(0) - at(samples)) * horizon as f64 / samples as f64;
        [over(2), over(horizon), over(LONGEST * horizon - horizon / 2)]
    }

    fn learn(&mut self, rise: f64, horizon: usize) {
        let trends = self.trends(horizon, horizon);
        if !rise.is_finite() || trends.iter().any(|trend| !trend.is_finite()) {
            return;
        }
        self.rises = finite(self.rises + 0.002 * (rise * rise - self.rises));
        let unit = self.rises.sqrt().max(f64::MIN_POSITIVE);
        let (rise, trends) = (rise / unit, trends.map(|trend| trend / unit));
        if trends.iter().all(|trend| *trend == 0.0) {
            return;
        }
        let gains = self.covariance.map(|row| dot(&row, &trends));
        let weight = 1.0 + dot(&gains, &trends);
        let surprise = rise - dot(&self.weights, &trends);
        let (mut weights, mut covariance) = (self.weights, self.covariance);
        for at in 0..TRENDS {
            weights[at] += gains[at] / weight * surprise;
            for other in 0..TRENDS {
                covariance[at][other] -= gains[at] * gains[other] / weight;
            }
        }
        let spread: f64 = (0..TRENDS).map(|at| covariance[at][at]).sum();
        if spread < WIDEST {
            covariance = covariance.map(|row| row.map(|entry| entry / FORGET));
        }
        if weights.iter().chain(covariance.iter().flatten()).all(|figure| figure.is_finite()) {
            (self.weights, self.covariance) = (weights, covariance);
        }
    }

    fn judge(&mut self, error: f64) {
        if !error.is_finite() {
            return;
        }
        self.errors = finite(self.errors + 0.002 * (error.abs() - self.errors));
        let step = 0.02 * self.errors;
        self.headroom = (self.headroom + step * if self.headroom < error { QUANTILE } else { QUANTILE - 1.0 }).max(0.0);
    }
}

fn dot(one: &[f64; TRENDS], two: &[f64; TRENDS]) -> f64 {
    one.iter().zip(two).map(|(one, two)| one * two).sum()
}

/// Sums of huge figures start anew instead of staying infinite.
fn finite(sum: f64) -> f64 {
    if sum.is_finite() { sum } else { 0.0 }
}
