//! What the engine keeps of a task's place for us: its agent, what constraints count there, and the executor of ours.
//!
//! `AGENT KEPT`, the latter as JSON; agents' ids have no blanks. Without the attributes, `unique` and `group_by` would forget the
//! tasks of an earlier run: an agent that is full sends no offer that would tell them. Without the executor, each run would start
//! another one beside it: an agent adds tasks only to one that is named in the very words of its first task.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::offers::Attributes;
use crate::mesos::wire::{AgentId, ExecutorInfo};

/// What is kept beside the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// Of the agent.
    pub(super) attributes: Arc<Attributes>,
    /// The executor of ours that runs the task, with its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) executor: Option<(Arc<str>, ExecutorInfo)>,
}

/// As it is kept.
pub(super) fn write(agent: &AgentId, kept: &Kept) -> String {
    match serde_json::to_string(kept) {
        Ok(text) if *kept != Kept::default() => format!("{} {text}", agent.as_str()),
        _ => agent.as_str().to_owned(),
    }
}

/// As it was meant; what cannot be read is not known.
pub(super) fn read(token: &str) -> (AgentId, Kept) {
    let (agent, kept) = token.split_once(' ').unwrap_or((token, ""));
    (AgentId::new(agent), serde_json::from_str(kept).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::offers::Attribute;
    use crate::mesos::wire::{CommandInfo, ExecutorId, Resource};

    #[test]
    fn what_is_kept_is_read_again() {
        let agent = AgentId::new("f00-S1");
        let rack =
            [("rack".to_owned(), Attribute::Text("r 1".to_owned())), ("disks".to_owned(), Attribute::Scalar(2.5))];
        let info = ExecutorInfo {
            executor_id: ExecutorId::new("setpoint.p.1"),
            command: Some(CommandInfo::argv(vec!["/a b".to_owned(), "executor".to_owned()])),
            resources: vec![Resource::scalar("cpus", 0.01), Resource::scalar("mem", 32.0)],
            ..ExecutorInfo::default()
        };
        let attributes = Arc::new(Attributes::new("a.example", rack));
        for kept in [
            Kept::default(),
            Kept { attributes: Arc::clone(&attributes), executor: None },
            Kept { attributes, executor: Some(("kind".into(), info)) },
        ] {
            assert_eq!(read(&write(&agent, &kept)), (agent.clone(), kept));
        }
        assert_eq!(read("f00-S1 [["), (agent, Kept::default()));
    }
}
