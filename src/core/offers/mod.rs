//! Matching of resource offers with the tasks that want them. Pure: offers and demands in, answers out.
//!
//! What an offer is here is what a cluster's master hands out: a bundle of resources of one agent, allocated to one
//! role, to be answered once. The matcher takes all offers and all demands of every policy at once:
//!
//! ```text
//!   offers ──► pots (one for each agent and role) ─┐
//!                                                  ├─► one task at a time, the policy whose turn it is ─► Answers
//!   demands, by policy ────────────────────────────┘
//! ```
//!
//! Whose turn it is: the highest priority, then the policy with the fewest tasks relative to those it wants, then the
//! oldest intent. Within a pot, amounts are summed over reservations; what a task takes is told piece by piece, so that
//! the pieces of one pot add up to no more than what was offered.
//!
//! Invariants, held by properties in `tests.rs`: every offer is in exactly one answer; no resource is given out twice;
//! offers that are accepted together share agent and role; a task is placed at most once, and only where its
//! constraints allow it; an offer is declined as [`Why::NoDemand`] only when no demand could have been for its role.
//!
//! It knows no wire format, holds no offers from one call to the next, and does not know how long a declined offer
//! should stay away.

mod constraint;
mod matching;
mod pot;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::model::{PolicyName, TaskId};

pub use constraint::{Attribute, Attributes, BadPattern, Constraint, Pattern, Rule};
pub use matching::answer;

/// An amount of a scalar resource, in thousandths: clusters count no finer, and whole numbers do not drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milli(u64);

impl Milli {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The nearest number of thousandths; nothing for what is not a positive number.
    #[must_use]
    pub fn of(amount: f64) -> Self {
        // The cast saturates, and makes nothing of NaN.
        Self((amount * 1000.0).round() as u64)
    }

    /// As a number of whole units.
    #[must_use]
    pub fn units(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left, and nothing when `other` is more.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// A resource's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So much of it: cores, megabytes.
    Scalar(Milli),
    /// Numbers, as ranges with both ends included: ports.
    Ranges(Vec<(u64, u64)>),
    /// Named items.
    Set(BTreeSet<String>),
}

/// One resource of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `cpus`, `mem`, `disk`, `ports`, or what the cluster calls it.
    pub name: String,
    /// How much.
    pub amount: Amount,
    /// Whether it is set aside for the role; such resources are used first.
    pub reserved: bool,
}

/// Resources of one agent that one role may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The agent's id.
    pub agent: String,
    /// The role that it is allocated to.
    pub role: String,
    /// The agent's attributes, its host name among them.
    pub attributes: Arc<Attributes>,
    /// What is in it.
    pub resources: Vec<Resource>,
}

/// One number of a range resource that a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// Any number.
    Any,
    /// This one.
    Exact(u64),
    /// One of these, both ends included.
    Within(u64, u64),
}

/// What a task needs of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// So much of a scalar.
    Scalar(Milli),
    /// Numbers of a range, in the order in which they are told.
    Numbers(Vec<Pick>),
    /// These items, and so many others.
    Items {
        /// By name.
        named: BTreeSet<String>,
        /// By count.
        any: u32,
    },
}

/// What a task needs, by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs(pub Vec<(String, Need)>);

/// Where tasks go when there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// On as few agents as will do, the fullest first: room for large tasks is kept.
    #[default]
    Pack,
    /// On the agents with the fewest tasks of the policy.
    Spread,
}

/// Tasks of one policy that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Whose tasks they are.
    pub policy: PolicyName,
    /// Policies of a higher number go first.
    pub priority: i32,
    /// The role whose offers it may use.
    pub role: String,
    /// What each task needs.
    pub needs: Needs,
    /// The executor that the first of them on an agent brings along, and the others share.
    pub executor: Option<Executor>,
    /// Where they may go.
    pub constraints: Vec<Constraint>,
    /// Where they go when there is a choice.
    pub packing: Packing,
    /// The tasks, each with a number that is smaller for older ones.
    pub tasks: Vec<(TaskId, u64)>,
}

/// What runs a policy's tasks on an agent, and takes something for itself there.
#[derive(Clone, Debug, PartialEq)]
pub struct Executor {
    /// Tasks of a policy whose executors are of one kind share one on each agent. The first one's role pays for it, so tasks of
    /// different roles should have executors of different kinds.
    pub kind: Arc<str>,
    /// What it takes.
    pub needs: Needs,
}

/// A task that has its place already: it counts for constraints, spreading and fairness.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Whose it is.
    pub policy: PolicyName,
    /// Its agent's id.
    pub agent: String,
    /// Its agent's attributes.
    pub attributes: Arc<Attributes>,
    /// The kind of the executor that runs it, which takes nothing more when it gets another task.
    pub executor: Option<Arc<str>>,
}

/// A part of an offered resource that a task takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The index of the offer.
    pub offer: usize,
    /// The index of the resource in the offer.
    pub resource: usize,
    /// How much of it.
    pub amount: Amount,
}

/// A task that got a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which one.
    pub task: TaskId,
    /// What it takes.
    pub pieces: Vec<Piece>,
    /// What its executor takes, when it is the first on the agent that uses it.
    pub executor: Vec<Piece>,
    /// For each of its range resources the numbers, in the order of the picks.
    pub numbers: Vec<(String, Vec<u64>)>,
}

/// Offers that are accepted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Indices of the offers; they share agent and role.
    pub offers: Vec<usize>,
    /// What is launched with them.
    pub launches: Vec<Launch>,
}

/// Why an offer is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No policy wants anything of its role.
    NoDemand,
    /// Everything that was wanted of its role has got a place elsewhere.
    Enough,
    /// What is wanted does not fit, or may not go there.
    Unfit,
}

/// Why a task got no place, as far as one reason can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Miss {
    /// No offer for its role.
    NoOffer,
    /// Offers, but none that its constraints allow.
    Constraint,
    /// Offers that are allowed, but too small, or used up.
    Resources,
}

/// The answers to all offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Those that are used.
    pub accepts: Vec<Accept>,
    /// Those that are not: the index of each, and why.
    pub declines: Vec<(usize, Why)>,
    /// Tasks that got no place.
    pub missed: Vec<(TaskId, Miss)>,
}
