//! The tasks that a backend watches over, and the ids of those that have ended.
//!
//! Invariant: an id is taken in once, so a launch that is repeated, even after its task has ended, starts
//! nothing. Ids end in a ULID and are never used for another task, so forgetting the oldest ends is harmless.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant as Moment;

use rustix::param::{clock_ticks_per_second, page_size};
use tokio::sync::watch;
use tokio::time::Instant;

use super::procfs::Usage;
use crate::core::model::{TaskId, TaskStats};
use crate::sample::CpuMeter;

/// How many ended ids are remembered: a repeated launch comes soon or not at all.
const REMEMBERED: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Registry {
    live: HashMap<TaskId, Entry>,
    ended: HashSet<TaskId>,
    order: VecDeque<TaskId>,
}

#[derive(Debug)]
struct Entry {
    /// When the task is to be killed for good; none while it may run.
    orders: watch::Sender<Option<Instant>>,
    group: Option<i32>,
    /// The most memory that it may use.
    memory_limit: Option<u64>,
    cpu: CpuMeter,
    first_read: Option<Moment>,
}

impl Registry {
    /// Takes in a task, with an order to end it if there is one already. None when the id was seen before.
    pub(super) fn insert(&mut self, id: &TaskId, order: Option<Instant>) -> Option<watch::Receiver<Option<Instant>>> {
        if self.live.contains_key(id) || self.ended.contains(id) {
            return None;
        }
        let (orders, mut inbox) = watch::channel(order);
        if order.is_some() {
            inbox.mark_changed();
        }
        self.live.insert(
            id.clone(),
            Entry { orders, group: None, memory_limit: None, cpu: CpuMeter::default(), first_read: None },
        );
        Some(inbox)
    }

    /// Notes the process group of a task, and the memory that its control group allows.
    pub(super) fn set_group(&mut self, id: &TaskId, group: i32, memory_limit: Option<u64>) {
        if let Some(entry) = self.live.get_mut(id) {
            entry.group = Some(group);
            entry.memory_limit = memory_limit;
        }
    }

    /// Orders a task's end by `deadline`; an earlier one stands. False when there is no such task.
    pub(super) fn end(&self, id: &TaskId, deadline: Instant) -> bool {
        let Some(entry) = self.live.get(id) else { return false };
        entry.orders.send_modify(|order| *order = Some(order.map_or(deadline, |order| order.min(deadline))));
        true
    }

    /// Orders every task's end.
    pub(super) fn end_all(&self, deadline: Instant) {
        for id in self.live.keys() {
            self.end(id, deadline);
        }
    }

    /// A task has ended.
    pub(super) fn remove(&mut self, id: &TaskId) {
        self.live.remove(id);
        if self.ended.insert(id.clone()) {
            self.order.push_back(id.clone());
        }
        if REMEMBERED < self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    /// The process groups of those of `tasks` that run.
    pub(super) fn groups(&self, tasks: Vec<TaskId>) -> Vec<(TaskId, i32)> {
        tasks
            .into_iter()
            .filter_map(|id| {
                let group = self.live.get(&id)?.group?;
                Some((id, group))
            })
            .collect()
    }

    /// Turns what process groups have used into the tasks' figures.
    pub(super) fn measure(
        &mut self,
        now: Moment,
        groups: Vec<(TaskId, i32)>,
        usage: &HashMap<i32, Usage>,
    ) -> BTreeMap<TaskId, TaskStats> {
        let (tick, page) = (1_000_000_000 / clock_ticks_per_second().max(1), page_size() as u64);
        groups
            .into_iter()
            .filter_map(|(id, group)| {
                let usage = usage.get(&group)?;
                let entry = self.live.get_mut(&id)?;
                let span = now.saturating_duration_since(*entry.first_read.get_or_insert(now));
                let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
                let stats = TaskStats {
                    cpu_percent: entry.cpu.read(usage.ticks.saturating_mul(tick), span, 1),
                    memory_bytes: Some(usage.pages.saturating_mul(page)),
                    memory_limit: entry.memory_limit,
                    pids: Some(usage.threads),
                    ..TaskStats::default()
                };
                Some((id, stats))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_id_is_taken_in_once() {
        let mut registry = Registry::default();
        let id = TaskId::from("a");
        assert!(registry.insert(&id, None).is_some());
        assert!(registry.insert(&id, None).is_none());
        registry.remove(&id);
        assert!(registry.insert(&id, None).is_none());
        assert!(!registry.end(&id, Instant::now()));
        for n in 0..=REMEMBERED {
            registry.remove(&TaskId::new(n.to_string()));
        }
        assert_eq!((registry.ended.len(), registry.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn the_earliest_order_stands() {
        let mut registry = Registry::default();
        let (id, now) = (TaskId::from("a"), Instant::now());
        let mut orders = registry.insert(&id, None).unwrap();
        let later = now + Duration::from_secs(9);
        assert!(!orders.has_changed().unwrap());
        for deadline in [later, now, later] {
            assert!(registry.end(&id, deadline));
        }
        assert_eq!(*orders.borrow_and_update(), Some(now));
        assert!(registry.insert(&"b".into(), Some(now)).unwrap().has_changed().unwrap());
    }
}
