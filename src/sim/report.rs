//! What came of a run, in figures.

use std::time::Duration;

use serde::Serialize;

/// The figures of a run. Those that mean nothing for it (a plant without a load, a setpoint of 0) are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Hours of tasks, from placed to gone.
    pub task_hours: f64,
    /// The fewest that could have served the load, each task started just early enough.
    pub clairvoyant_task_hours: Option<f64>,
    /// The former by the latter.
    pub ratio: Option<f64>,
    /// Minutes in which the load was more than the tasks could serve.
    pub minutes_over_capacity: f64,
    /// Share of the load that was lost.
    pub lost_percent: f64,
    /// starts + stops.
    pub changes: u64,
    /// Tasks started, replacements included.
    pub starts: u64,
    /// Tasks told to end.
    pub stops: u64,
    /// |setpoint − sample|: 95 of 100 ticks had no more.
    pub p95_deviation: Option<f64>,
    /// The mean of it.
    pub mean_deviation: Option<f64>,
    /// Seconds until the deviation stayed within 5 % of the setpoint; none when it did not.
    pub settling_seconds: Option<f64>,
    /// How far the sample went beyond the setpoint, away from where it came from, as a share of the setpoint.
    pub overshoot: Option<f64>,
    /// Length of the run.
    pub seconds: f64,
    /// Ticks.
    pub ticks: u64,
    /// Ticks without a fresh sample.
    pub ticks_without_sample: u64,
    /// Errors of the script's functions.
    pub script_errors: u64,
    /// Why the policy ended before the run did.
    pub ended: Option<String>,
}

/// Counts while the run goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    at: u64,
    task_millis: u64,
    pub(super) over_seconds: u64,
    pub(super) offered: f64,
    pub(super) lost: f64,
    pub(super) starts: u64,
    pub(super) stops: u64,
    pub(super) ticks: u64,
    pub(super) unseen: u64,
    pub(super) script_errors: u64,
    deviations: Vec<f64>,
    /// When the deviation was last out of its band.
    unsettled: Option<Duration>,
    settled: bool,
    /// The sign of the first deviation.
    side: f64,
    beyond: Option<f64>,
}

impl Meter {
    /// Time went on to `now` with so many tasks.
    pub(super) fn pass(&mut self, now: u64, tasks: u32) {
        self.task_millis += (now - self.at) * u64::from(tasks);
        self.at = now;
    }

    /// A fresh sample.
    pub(super) fn deviate(&mut self, at: Duration, value: f64, setpoint: f64) {
        let deviation = setpoint - value;
        self.deviations.push(deviation.abs());
        self.settled = deviation.abs() <= 0.05 * setpoint.abs() + 1e-9;
        if !self.settled {
            self.unsettled = Some(at);
        }
        if self.side == 0.0 {
            self.side = if deviation == 0.0 { 0.0 } else { deviation.signum() };
        }
        if setpoint != 0.0 {
            let beyond = -deviation * self.side / setpoint.abs();
            self.beyond = Some(self.beyond.unwrap_or(0.0).max(beyond));
        }
    }

    /// The figures.
    pub(super) fn report(mut self, minimum: Option<f64>, ended: Option<String>) -> Report {
        let task_hours = self.task_millis as f64 / 3_600_000.0;
        self.deviations.sort_by(f64::total_cmp);
        let n = self.deviations.len();
        let p95 = (n * 95).div_ceil(100).saturating_sub(1);
        Report {
            task_hours,
            clairvoyant_task_hours: minimum,
            ratio: minimum.filter(|minimum| 0.0 < *minimum).map(|minimum| task_hours / minimum),
            minutes_over_capacity: self.over_seconds as f64 / 60.0,
            lost_percent: if 0.0 < self.offered { 100.0 * self.lost / self.offered } else { 0.0 },
            changes: self.starts + self.stops,
            starts: self.starts,
            stops: self.stops,
            p95_deviation: self.deviations.get(p95).copied(),
            mean_deviation: (0 < n).then(|| self.deviations.iter().sum::<f64>() / n as f64),
            settling_seconds: self.settled.then(|| self.unsettled.map_or(0.0, |at| at.as_secs_f64())),
            overshoot: self.beyond,
            seconds: self.at as f64 / 1000.0,
            ticks: self.ticks,
            ticks_without_sample: self.unseen,
            script_errors: self.script_errors,
            ended,
        }
    }
}
