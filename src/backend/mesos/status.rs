//! What a task's status means.
//!
//! Partition-aware: a task that cannot be reached is held, one that is gone, dropped or lost is gone. FAILED and LOST are
//! failures, and so is KILLED for its health; KILLED without our asking is neither failure nor success. ERROR, a task that the cluster refuses, is a
//! failure: it would be refused for ever, at full speed.

use std::sync::Arc;

use crate::core::model::{Exit, Placement};
use crate::mesos::wire::{StatusReason, TaskState, TaskStatus};

/// The label of a status in which our executor tells the process id of its task.
const PID_LABEL: &str = "setpoint.pid";

/// The signal that asks a process to end.
const TERM: i32 = 15;

/// What follows from a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is there.
    Alive {
        /// It runs; otherwise it is on its way.
        running: bool,
        /// It has been told to end.
        killing: bool,
    },
    /// Its agent cannot be reached; it may run.
    Unreachable,
    /// The master does not know it.
    Denied,
    /// It is over.
    Gone(Exit),
}

/// Reads a status.
pub(super) fn verdict(status: &TaskStatus) -> Verdict {
    let alive = |running, killing| Verdict::Alive { running, killing };
    match &status.state {
        TaskState::Staging | TaskState::Starting => alive(false, false),
        TaskState::Running => alive(true, false),
        TaskState::Killing => alive(true, true),
        TaskState::Unreachable => Verdict::Unreachable,
        TaskState::Finished => Verdict::Gone(Exit::Code { code: 0 }),
        TaskState::Failed => Verdict::Gone(failed(status)),
        // The cluster's own executors end what is unhealthy.
        TaskState::Killed if status.healthy == Some(false) => Verdict::Gone(Exit::Signal { signal: TERM }),
        TaskState::Killed => Verdict::Gone(Exit::Unknown),
        TaskState::Error => Verdict::Gone(Exit::NotStarted { reason: told(status) }),
        // The offer was taken back on the way, which says nothing of the task: it is asked for anew.
        TaskState::Dropped | TaskState::Lost if status.reason == Some(StatusReason::InvalidOffers) => {
            Verdict::Gone(Exit::Unknown)
        }
        // Older masters have no other word for a task that they do not know.
        TaskState::Lost if status.reason == Some(StatusReason::Reconciliation) => Verdict::Denied,
        TaskState::Dropped | TaskState::Lost | TaskState::Gone | TaskState::GoneByOperator => {
            Verdict::Gone(Exit::Lost { reason: told(status) })
        }
        // A state that this version does not know is no reason to give a task up, nor to take it for running.
        _ => Verdict::Denied,
    }
}

fn told(status: &TaskStatus) -> Arc<str> {
    let state = status.state.as_str().trim_start_matches("TASK_").to_lowercase();
    match status.message.as_deref().map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => message.into(),
        None => match &status.reason {
            Some(reason) => format!("{state}, {reason}").into(),
            None => state.into(),
        },
    }
}

/// How a task failed: by the words that Mesos's executors use.
fn failed(status: &TaskStatus) -> Exit {
    if status.reason == Some(StatusReason::ContainerLimitationMemory) {
        return Exit::OutOfMemory;
    }
    let message = status.message.as_deref().unwrap_or_default();
    let number = |after: &str| {
        let rest = &message[message.find(after)? + after.len()..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest[..digits].parse::<i32>().ok()
    };
    if let Some(code) = number("exited with status ") {
        return Exit::Code { code };
    }
    if let Some(signal) = number("terminated with signal ") {
        return Exit::Signal { signal };
    }
    let reason = told(status);
    match &status.reason {
        Some(StatusReason::ContainerLaunchFailed | StatusReason::TaskInvalid | StatusReason::TaskUnauthorized) => {
            Exit::NotStarted { reason }
        }
        Some(
            StatusReason::ExecutorTerminated | StatusReason::ExecutorUnregistered | StatusReason::CommandExecutorFailed,
        ) => Exit::Lost { reason },
        _ => Exit::Code { code: 1 },
    }
}

/// Adds to a placement what a status says of the container.
pub(super) fn enrich(placement: &mut Placement, status: &TaskStatus) {
    if let Some(pid) = status.labels.as_ref().and_then(|labels| labels.get(PID_LABEL)?.parse().ok()) {
        placement.pid = Some(pid);
    }
    let Some(container) = &status.container_status else { return };
    if let Some(id) = &container.container_id {
        placement.container = Some(id.value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: TaskState, reason: Option<StatusReason>, message: &str) -> Verdict {
        let message = Some(message.to_owned()).filter(|message| !message.is_empty());
        verdict(&TaskStatus { state, message, reason, ..TaskStatus::default() })
    }

    #[test]
    fn what_counts_as_a_failure() {
        let failure = |verdict: Verdict| match verdict {
            Verdict::Gone(exit) => exit.is_failure(),
            other => panic!("{other:?}"),
        };
        let reason = || Some(StatusReason::ExecutorTerminated);
        assert!(failure(of(TaskState::Failed, None, "")));
        assert!(failure(of(TaskState::Lost, reason(), "")));
        assert!(failure(of(TaskState::Error, None, "no such thing")));
        assert!(!failure(of(TaskState::Killed, None, "")));
        let unwell = TaskStatus { state: TaskState::Killed, healthy: Some(false), ..TaskStatus::default() };
        assert!(failure(verdict(&unwell)));
        assert!(!failure(of(TaskState::Finished, None, "")));
        assert!(!failure(of(TaskState::Dropped, Some(StatusReason::InvalidOffers), "")));
    }

    #[test]
    fn exits_are_read_from_what_executors_say() {
        let gone = |message, reason| of(TaskState::Failed, reason, message);
        assert_eq!(gone("Command exited with status 3", None), Verdict::Gone(Exit::Code { code: 3 }));
        assert_eq!(
            gone("Command terminated with signal 9 (core dumped)", None),
            Verdict::Gone(Exit::Signal { signal: 9 })
        );
        let oom = Some(StatusReason::ContainerLimitationMemory);
        assert_eq!(gone("Memory limit exceeded", oom), Verdict::Gone(Exit::OutOfMemory));
        assert_eq!(gone("exited with status", None), Verdict::Gone(Exit::Code { code: 1 }));
    }

    #[test]
    fn what_cannot_be_reached_or_read_is_not_given_up() {
        assert_eq!(of(TaskState::Unreachable, None, ""), Verdict::Unreachable);
        assert_eq!(of(TaskState::Unknown, None, ""), Verdict::Denied);
        assert_eq!(of(TaskState::from("TASK_NEW"), None, ""), Verdict::Denied);
    }
}
