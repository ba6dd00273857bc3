//! Finding the tasks of an earlier run: which processes are which tasks, and which belong to nobody.
//!
//! A task is recognised by its pid and start time when both were recorded, else by the mark of the state
//! folder and its id in its first environment. Children inherit the environment, so the mark alone says "of
//! this run", not "a task": a task is the leader of a process group none of whose ancestors is marked. Where
//! several would do (a child that left its group outlived its parent), the oldest is the task.
//!
//! Reads `/proc`, decides, and signals nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::ports;
use super::procfs::{self, Stat, var};
use crate::backend::KnownTask;
use crate::backend::environment::TASK_ID;
use crate::core::model::TaskId;

/// A process that carries the mark.
#[derive(Clone, Debug)]
struct Marked {
    task: TaskId,
    ports: BTreeMap<String, u16>,
}

/// All processes at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    boot: Option<String>,
    stats: HashMap<i32, Stat>,
    marked: HashMap<i32, Marked>,
}

/// A known task's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) pid: i32,
    pub(super) start: u64,
    /// What its environment says, where the record says nothing.
    pub(super) ports: BTreeMap<String, u16>,
}

/// What became of everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Known tasks that run.
    pub(super) adopted: HashMap<TaskId, Found>,
    /// Process groups that carry the mark and belong to no adopted task.
    pub(super) strays: BTreeSet<i32>,
    /// Whether a task is missing whose pid was never recorded, so that its process may be on its way still.
    pub(super) missing: bool,
    /// Whether some process is just being started: it does not carry its mark yet.
    pub(super) unborn: bool,
}

impl Snapshot {
    /// Reads `/proc`. Without a mark nothing is looked for by mark.
    pub(super) fn take(mark: Option<&str>) -> Self {
        let stats: HashMap<i32, Stat> =
            procfs::all().into_iter().filter(Stat::is_alive).map(|stat| (stat.pid, stat)).collect();
        let marked = mark.map_or_else(HashMap::new, |mark| {
            stats.keys().filter_map(|pid| Some((*pid, read_mark(*pid, mark)?))).collect()
        });
        Self { boot: procfs::boot_id(), stats, marked }
    }

    /// Tells which process is which of `known`, and what else there is. `own_group` is never a stray.
    pub(super) fn plan(&self, known: &[KnownTask], own_group: i32) -> Plan {
        let mut plan = Plan { unborn: self.stats.values().any(|stat| stat.is_unborn), ..Plan::default() };
        for task in known {
            if let Some(found) = self.find(task) {
                plan.adopted.insert(task.id.clone(), found);
            } else if !is_recorded(task) {
                plan.missing = true;
            }
        }
        let groups: HashSet<i32> = plan.adopted.values().map(|found| found.pid).collect();
        for (pid, marked) in &self.marked {
            // What an adopted task has started outside its own group stays that task's business.
            let adopted = plan.adopted.contains_key(&marked.task);
            let Some(stat) = self.stats.get(pid) else { continue };
            let group = stat.pgrp;
            // A group whose leader runs and is not marked is somebody else's, whoever has joined it.
            let ours = self.marked.contains_key(&group) || !self.stats.contains_key(&group);
            if !adopted && ours && group != own_group && !groups.contains(&group) {
                plan.strays.insert(group);
            }
        }
        plan
    }

    fn find(&self, task: &KnownTask) -> Option<Found> {
        if is_recorded(task) {
            let pid = i32::try_from(task.placement.pid?).ok()?;
            let stat = self.stats.get(&pid)?;
            let same = task.placement.token.as_deref() == Some(&*procfs::token(stat.start, self.boot.as_deref()?));
            return same.then(|| Found { pid, start: stat.start, ports: task.placement.ports.clone() });
        }
        let leaders = self.marked.iter().filter(|(_, marked)| marked.task == task.id);
        let leaders = leaders.filter_map(|(pid, marked)| Some((self.stats.get(pid)?, marked)));
        let leaders = leaders.filter(|(stat, _)| stat.is_leader() && !self.has_marked_ancestor(stat));
        let (stat, marked) = leaders.min_by_key(|(stat, _)| (stat.start, stat.pid))?;
        Some(Found { pid: stat.pid, start: stat.start, ports: marked.ports.clone() })
    }

    /// Whether it descends from a process of the same task.
    fn has_marked_ancestor(&self, stat: &Stat) -> bool {
        let task = self.marked.get(&stat.pid).map(|marked| &marked.task);
        let mut seen = HashSet::new();
        let mut parent = stat.ppid;
        // Parents of one snapshot cannot form a ring, but `/proc` is not read in one moment.
        while seen.insert(parent) {
            let Some(stat) = self.stats.get(&parent) else { return false };
            if self.marked.get(&parent).map(|marked| &marked.task) == task {
                return true;
            }
            parent = stat.ppid;
        }
        false
    }
}

fn is_recorded(task: &KnownTask) -> bool {
    task.placement.pid.is_some() && task.placement.token.is_some()
}

fn read_mark(pid: i32, mark: &str) -> Option<Marked> {
    let environment = procfs::environment(pid)?;
    if environment.get(var::RUN)? != mark {
        return None;
    }
    let ports = environment.get(var::PORTS).map(ports::from_text).unwrap_or_default();
    Some(Marked { task: TaskId::from(environment.get(TASK_ID)?), ports })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::model::{Placement, PolicyName, TaskState};

    /// Processes as `(pid, ppid, group, start, task that it is marked with)`.
    fn snapshot(processes: &[(i32, i32, i32, u64, Option<&str>)]) -> Snapshot {
        let mut snapshot = Snapshot { boot: Some("boot".into()), ..Snapshot::default() };
        for &(pid, ppid, group, start, task) in processes {
            let line = format!("{pid} (x) S {ppid} {group} 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0");
            snapshot.stats.insert(pid, Stat::parse(&line).unwrap());
            if let Some(task) = task {
                snapshot.marked.insert(pid, Marked { task: task.into(), ports: BTreeMap::new() });
            }
        }
        snapshot
    }

    fn known(id: &str, recorded: Option<(u32, &str)>) -> KnownTask {
        KnownTask {
            id: id.into(),
            policy: PolicyName::from("p"),
            state: TaskState::Running,
            placement: Placement {
                pid: recorded.map(|(pid, _)| pid),
                token: recorded.map(|(_, token)| token.to_owned()),
                ..Placement::default()
            },
            grace: Duration::ZERO,
        }
    }

    fn adopted(plan: &Plan) -> Vec<(String, i32)> {
        let mut all: Vec<_> = plan.adopted.iter().map(|(id, found)| (id.to_string(), found.pid)).collect();
        all.sort();
        all
    }

    #[test]
    fn a_recorded_task_is_its_pid_and_start_time() {
        let now = snapshot(&[(10, 1, 10, 500, Some("a")), (11, 1, 11, 501, None), (12, 1, 12, 502, None)]);
        let plan = now.plan(
            &[
                known("a", Some((10, "500@boot"))),
                // Its environment was overwritten, as daemons do to show a title.
                known("b", Some((11, "501@boot"))),
                // The pid is another process's by now, and so is that of an earlier boot.
                known("c", Some((12, "400@boot"))),
                known("d", Some((12, "502@earlier"))),
                known("e", Some((99, "1@boot"))),
            ],
            1,
        );
        assert_eq!(adopted(&plan), [("a".to_owned(), 10), ("b".to_owned(), 11)]);
        assert!(plan.strays.is_empty() && !plan.missing);
    }

    #[test]
    fn an_unrecorded_task_is_the_oldest_leader_without_marked_ancestors() {
        let now = snapshot(&[
            (20, 1, 20, 100, Some("a")),
            (21, 20, 20, 101, Some("a")),
            // A session of its own, started by a member of the task.
            (22, 21, 22, 90, Some("a")),
            // The same, left over from a parent that has ended.
            (23, 1, 23, 102, Some("a")),
            // A task that was started from inside another one of this run.
            (24, 20, 24, 103, Some("b")),
        ]);
        let plan = now.plan(&[known("a", None), known("b", None), known("c", None)], 1);
        assert_eq!(adopted(&plan), [("a".to_owned(), 20), ("b".to_owned(), 24)]);
        assert!(plan.strays.is_empty(), "they are an adopted task's");
        assert!(plan.missing);
    }

    #[test]
    fn marked_groups_of_no_adopted_task_are_strays() {
        let now = snapshot(&[
            (30, 1, 30, 100, Some("unknown")),
            (31, 30, 30, 100, Some("unknown")),
            // The leader is dead, and recorded as somebody who is not there any more.
            (41, 1, 40, 100, Some("dead")),
            // Groups of others: one whose leader is not marked, and our own.
            (50, 1, 50, 100, None),
            (51, 50, 50, 100, Some("unknown")),
            (60, 1, 60, 100, Some("unknown")),
        ]);
        let plan = now.plan(&[known("dead", Some((40, "99@boot")))], 60);
        assert!(plan.adopted.is_empty());
        assert_eq!(plan.strays, BTreeSet::from([30, 40]));
    }
}
