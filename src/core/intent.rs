//! Intents: what a script asks for, before the host has validated and recorded it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::model::TaskId;
use super::policy::TaskTemplate;

/// One request of a warmer or cooler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Start tasks.
    Launch {
        /// How many.
        n: u32,
        /// What to start; none is the workload's own template.
        template: Option<Arc<TaskTemplate>>,
        /// False for a helper: outside desired, min and max.
        count: bool,
    },
    /// End as many tasks as this; which ones is for `victims` or the default order.
    Kill {
        /// How many.
        n: u32,
    },
    /// End these tasks.
    KillTasks {
        /// Which ones.
        tasks: Vec<TaskId>,
    },
}

/// Who asked for a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A decision, through the default action.
    #[default]
    Law,
    /// The lower bound.
    Min,
    /// It stands in for one that ended.
    Replacement,
    /// The script's warmer, as a function or a task.
    Warmer,
    /// The script's cooler, as a function or a task.
    Cooler,
    /// A helper, outside desired, min and max.
    Helper,
}
