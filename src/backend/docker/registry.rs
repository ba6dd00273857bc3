//! The tasks that the backend looks after, and how their workers are reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::core::model::TaskId;

/// An order to end: the time between the signal and KILL.
pub(super) type Order = Option<Duration>;

/// Every task from its launch or adoption to its end.
#[derive(Debug, Default)]
pub(super) struct Registry {
    tasks: BTreeMap<TaskId, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The engine that it is on, once that is known.
    member: Option<usize>,
    /// Its container's id, once that is known.
    container: Option<String>,
    orders: watch::Sender<Order>,
    poke: Arc<Notify>,
}

/// What a task's worker hears by.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) orders: watch::Receiver<Order>,
    /// Something about the container may have changed.
    pub(super) poke: Arc<Notify>,
}

impl Registry {
    /// Takes a task in; none when it is there already.
    pub(super) fn insert(&mut self, id: &TaskId, member: Option<usize>, order: Order) -> Option<Ears> {
        if self.tasks.contains_key(id) {
            return None;
        }
        let (orders, receiver) = watch::channel(order);
        let poke = Arc::new(Notify::new());
        self.tasks.insert(id.clone(), Entry { member, container: None, orders, poke: Arc::clone(&poke) });
        Some(Ears { orders: receiver, poke })
    }

    pub(super) fn remove(&mut self, id: &TaskId) {
        self.tasks.remove(id);
    }

    pub(super) fn contains(&self, id: &TaskId) -> bool {
        self.tasks.contains_key(id)
    }

    pub(super) fn place(&mut self, id: &TaskId, member: usize) {
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.member = Some(member);
        }
    }

    /// Notes a task's container, for whoever samples it.
    pub(super) fn set_container(&mut self, id: &TaskId, container: Option<&String>) {
        if let Some(entry) = self.tasks.get_mut(id)
            && entry.container.as_ref() != container
        {
            entry.container = container.cloned();
        }
    }

    /// The containers of those of `tasks` that are on an engine.
    pub(super) fn containers(&self, tasks: &[TaskId], member: usize) -> BTreeMap<String, TaskId> {
        let entries = tasks.iter().filter_map(|id| Some((self.tasks.get(id)?, id)));
        let there = entries.filter(|(entry, _)| entry.member == Some(member));
        there.filter_map(|(entry, id)| Some((entry.container.clone()?, id.clone()))).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &TaskId> {
        self.tasks.keys()
    }

    /// How many tasks are on an engine.
    pub(super) fn load(&self, member: usize) -> usize {
        self.tasks.values().filter(|entry| entry.member == Some(member)).count()
    }

    /// Tells a task to end. False when it is not there.
    pub(super) fn end(&self, id: &TaskId, grace: Duration) -> bool {
        let Some(entry) = self.tasks.get(id) else { return false };
        order(entry, grace);
        true
    }

    pub(super) fn end_all(&self, grace: Duration) {
        self.tasks.values().for_each(|entry| order(entry, grace));
    }

    /// Has the worker of a task look at its container.
    pub(super) fn poke(&self, id: &TaskId) {
        if let Some(entry) = self.tasks.get(id) {
            entry.poke.notify_one();
        }
    }

    /// The same for all tasks that are, or may be, on an engine.
    pub(super) fn poke_all(&self, member: usize) {
        let there = self.tasks.values().filter(|entry| entry.member.is_none_or(|other| other == member));
        there.for_each(|entry| entry.poke.notify_one());
    }
}

/// The shortest grace counts.
fn order(entry: &Entry, grace: Duration) {
    entry.orders.send_if_modified(|order| {
        let shorter = order.is_none_or(|other| grace < other);
        if shorter {
            *order = Some(grace);
        }
        shorter
    });
}
