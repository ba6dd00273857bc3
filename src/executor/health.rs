//! Health checks that the executor makes itself: of commands all of them, of containers those that their engine has not.
//!
//! ```text
//!   running ─ delay ─► check ─ interval ─► check …        a check: a command, a page or a connection (`probe`)
//!                        │
//!                        └─► Findings ─► told, when that says something new
//! ```
//!
//! It says what it found; what follows from it is its caller's to decide.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::probe::Probe;
use crate::core::model::TaskId;
use crate::mesos::wire::TaskInfo;

/// What Mesos takes when a task does not say.
const DELAY: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(10);
const FAILURES: u32 = 3;

/// Least time between two checks, and that one is given.
const LEAST: Duration = Duration::from_millis(50);

/// How a task's health is found out.
#[derive(Clone, Debug)]
pub(super) struct Check {
    probe: Probe,
    delay: Duration,
    interval: Duration,
    timeout: Duration,
    grace: Duration,
    failures: u32,
    every: bool,
}

/// What is to be said of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) id: TaskId,
    pub(super) healthy: bool,
    /// As many failures in a row as make Mesos's own executors end a task.
    pub(super) exhausted: bool,
}

/// A check that goes on until this is dropped.
#[derive(Debug)]
pub(super) struct Checking(JoinHandle<()>);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Check {
    /// The check of a task that the executor has to make; none when it has none, or its engine makes it. Commands run in
    /// that folder and environment. `every` tells a task unhealthy at its first failure, as Mesos's own executors do.
    pub(super) fn of(info: &TaskInfo, env: &BTreeMap<String, String>, folder: &Path, every: bool) -> Option<Self> {
        let check = info.health_check.as_ref()?;
        let seconds = |given: Option<f64>, default: Duration| {
            given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(default)
        };
        Some(Self {
            probe: Probe::of(check, info.container.as_ref(), env, folder)?,
            delay: seconds(check.delay_seconds, DELAY),
            interval: seconds(check.interval_seconds, INTERVAL).max(LEAST),
            timeout: seconds(check.timeout_seconds, TIMEOUT).max(LEAST),
            grace: seconds(check.grace_period_seconds, GRACE),
            failures: check.consecutive_failures.unwrap_or(FAILURES).max(1),
            every,
        })
    }

    /// Checks until it is dropped, and says when the task is found healthy or not and was not found so before.
    pub(super) fn start(self, id: TaskId, found: mpsc::Sender<Finding>) -> Checking {
        Checking(tokio::spawn(async move {
            let began = Instant::now();
            tokio::time::sleep(self.delay).await;
            let mut findings = Findings::default();
            loop {
                let trying = tokio::time::timeout(self.timeout, self.probe.passes(&id));
                let passed = trying.await.unwrap_or_else(|_| {
                    tracing::debug!(task = %id, limit = ?self.timeout, "a health check took too long");
                    false
                });
                let says = findings.take(passed, began.elapsed() <= self.grace, self.failures, self.every);
                if let Some((healthy, exhausted)) = says {
                    // The executor ends when nobody takes it.
                    found.send(Finding { id: id.clone(), healthy, exhausted }).await.ok();
                }
                tokio::time::sleep(self.interval).await;
            }
        }))
    }
}

/// What the checks of a task have given so far.
#[derive(Debug, Default)]
struct Findings {
    /// Whether one has passed.
    passed: bool,
    told: Option<bool>,
    failures: u32,
}

impl Findings {
    /// Takes in the outcome of a check; whether the task is healthy, and whether its failures are as many as `most`, when
    /// that is worth telling.
    const fn take(&mut self, passed: bool, in_grace: bool, most: u32, every: bool) -> Option<(bool, bool)> {
        if passed {
            self.passed = true;
            self.failures = 0;
        } else if !self.passed && in_grace {
            // It may still be on its way to its first success.
            return None;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        let exhausted = most <= self.failures;
        let healthy = if passed {
            true
        } else if every || exhausted {
            false
        } else {
            return None;
        };
        let is_new = match self.told {
            Some(told) => told != healthy,
            None => true,
        };
        self.told = Some(healthy);
        if is_new || self.failures == most { Some((healthy, exhausted)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row of outcomes, passed (`+`) or not (`-`), leads to; so many of the first are within the grace period.
    fn told(outcomes: &str, in_grace: usize, every: bool) -> Vec<Option<(bool, bool)>> {
        let mut findings = Findings::default();
        let outcomes = outcomes.chars().enumerate();
        outcomes.map(|(at, outcome)| findings.take(outcome == '+', at < in_grace, 3, every)).collect()
    }

    #[test]
    fn health_is_told_when_it_changes_and_failures_count_in_a_row() {
        let (well, unwell, over) = (Some((true, false)), Some((false, false)), Some((false, true)));
        assert_eq!(told("++", 0, false), [well, None]);
        assert_eq!(told("---+", 2, false), [None, None, None, well], "the grace period forgives what came first");
        assert_eq!(told("+---", 9, false), [well, None, None, over], "but nothing after the first success");
        assert_eq!(told("+--+---", 0, false), [well, None, None, None, None, None, over]);
        assert_eq!(told("---+", 0, false), [None, None, over, well]);
        assert_eq!(told("----", 0, false), [None, None, over, None], "once");
        assert_eq!(told("+--+---", 0, true), [well, unwell, None, well, unwell, None, over], "as Mesos tells it");
    }
}
