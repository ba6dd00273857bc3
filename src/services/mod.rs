//! Service discovery: which tasks can be used now, and where, in the formats that other programs read.
//!
//! Everything in here is a pure function of what the engine has published. A *service* is a policy whose tasks have
//! ports; its *members* are the tasks that run, are ready and have their ports. Helpers are never members.
//!
//! Invariants:
//! - a task that is not running and ready is in no format, from the moment that the engine knows;
//! - a member's slot does not change while its task lives, and the next task gets the lowest free slot, so that a
//!   replacement stands in the lost one's place. Slots are the ledger's: with a state folder they outlive a restart,
//!   without one they begin anew;
//! - the same picture gives the same bytes.

pub mod legacy;
pub mod mcrouter;
pub mod prometheus;
pub mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::core::model::{PolicyName, TaskId, TaskState};
use crate::runtime::view::PolicySnapshot;
use crate::script::TaskView;

/// Where a task is reached whose backend names no host: the host's own processes.
const THIS_HOST: &str = "127.0.0.1";

/// A policy as others use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The policy.
    pub policy: PolicyName,
    /// Names of its ports, in the policy's order.
    pub ports: Vec<String>,
    /// Its tasks that can be used, by slot.
    pub members: Vec<Member>,
}

/// A task that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The task.
    pub id: TaskId,
    /// Its place in the service, from 0.
    pub slot: u32,
    /// Name or address of the machine.
    pub host: String,
    /// Port name → number outside.
    pub ports: BTreeMap<String, u16>,
    /// Container id, where there is one.
    pub container: Option<String>,
    /// When the task was asked for.
    pub started: SystemTime,
    /// Share of one core, in percent; none while unknown.
    pub cpu_percent: Option<f64>,
    /// Bytes of memory; none while unknown.
    pub memory_bytes: Option<u64>,
    /// Memory in percent of the task's limit; none while unknown, or without a limit.
    pub memory_percent: Option<f64>,
}

impl Member {
    /// `host:port` of one of its ports.
    #[must_use]
    pub fn address(&self, port: &str) -> Option<String> {
        let number = self.ports.get(port)?;
        Some(if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{number}", self.host)
        } else {
            format!("{}:{number}", self.host)
        })
    }
}

/// Every service, in the order of the policies' names.
#[must_use]
pub fn services(policies: &[Arc<PolicySnapshot>], tasks: &[TaskView]) -> Vec<Service> {
    let mut usable: BTreeMap<&PolicyName, Vec<&TaskView>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| is_usable(task)) {
        usable.entry(&task.policy).or_default().push(task);
    }
    let mut services = Vec::new();
    for policy in policies {
        let tasks = usable.remove(&policy.name).unwrap_or_default();
        let limit = policy.spec.as_ref().and_then(|spec| spec.workload.template.memory);
        let mut ports: Vec<String> = policy
            .spec
            .as_ref()
            .map_or_else(Vec::new, |spec| spec.workload.template.ports.iter().map(|port| port.name.clone()).collect());
        // A retired policy, or an older generation's tasks: what they have is what there is.
        for name in tasks.iter().flat_map(|task| task.placement.ports.keys()) {
            if !ports.contains(name) {
                ports.push(name.clone());
            }
        }
        if !ports.is_empty() {
            services.push(Service { policy: policy.name.clone(), ports, members: members(tasks, limit) });
        }
    }
    services
}

fn is_usable(task: &TaskView) -> bool {
    task.state == TaskState::Running && task.ready && !task.helper && !task.placement.ports.is_empty()
}

/// Gives each task its slot; one that has none, or one that an older task has, gets the lowest free one.
fn members(mut tasks: Vec<&TaskView>, limit: Option<u64>) -> Vec<Member> {
    tasks.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
    let mut taken = BTreeSet::new();
    let kept: Vec<bool> = tasks.iter().map(|task| task.slot.is_some_and(|slot| taken.insert(slot))).collect();
    let mut free = (0..).filter({
        let taken = taken.clone();
        move |slot| !taken.contains(slot)
    });
    let mut members: Vec<Member> = tasks
        .into_iter()
        .zip(kept)
        .map(|(task, kept)| {
            let slot = if kept { task.slot } else { free.next() };
            member(task, slot.unwrap_or(u32::MAX), limit)
        })
        .collect();
    members.sort_by_key(|member| member.slot);
    members
}

fn member(task: &TaskView, slot: u32, limit: Option<u64>) -> Member {
    let limit = task.stats.memory_limit.or(limit);
    let share = |bytes: u64| limit.filter(|limit| 0 < *limit).map(|limit| bytes as f64 / limit as f64 * 100.0);
    Member {
        id: task.id.clone(),
        slot,
        host: task.placement.host.clone().unwrap_or_else(|| THIS_HOST.to_owned()),
        ports: task.placement.ports.clone(),
        container: task.placement.container.clone(),
        started: task.started,
        cpu_percent: task.stats.cpu_percent,
        memory_bytes: task.stats.memory_bytes,
        memory_percent: task.stats.memory_bytes.and_then(share),
    }
}

impl Service {
    /// The port that is meant where none is named: the policy's first.
    #[must_use]
    pub fn main_port(&self) -> Option<&str> {
        self.ports.first().map(String::as_str)
    }

    /// A name of letters, digits, `_`, `.` and `-`, for formats that take no slash.
    #[must_use]
    pub fn plain_name(&self) -> String {
        self.policy.as_str().replace('/', "__")
    }
}

/// Plain values to test the formats with.
#[cfg(test)]
pub(crate) mod examples {
    use std::time::Duration;

    use super::*;

    /// The wall clock, in seconds.
    pub(crate) fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A member on port 31000 + `number`, started at second `number`.
    pub(crate) fn member(number: u16, slot: u32) -> Member {
        Member {
            id: TaskId::new(format!("cache.{number}")),
            slot,
            host: "127.0.0.1".into(),
            ports: BTreeMap::from([("memcached".to_owned(), 31_000 + number)]),
            container: None,
            started: at(number.into()),
            cpu_percent: Some(1.5),
            memory_bytes: Some(32 << 20),
            memory_percent: Some(50.0),
        }
    }

    /// The service `cache` with these (number, slot) members.
    pub(crate) fn service(members: &[(u16, u32)]) -> Service {
        Service {
            policy: "cache".into(),
            ports: vec!["memcached".into()],
            members: members.iter().map(|(number, slot)| member(*number, *slot)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::core::model::{Placement, TaskStats};

    use super::*;

    fn task(number: u64, state: TaskState, slot: Option<u32>) -> TaskView {
        TaskView {
            id: TaskId::new(format!("cache.{number}")),
            policy: "cache".into(),
            backend: "docker".into(),
            state,
            ready: state == TaskState::Running,
            helper: false,
            placement: Placement { ports: BTreeMap::from([("m".to_owned(), 1)]), ..Placement::default() },
            started: examples::at(number),
            stats: TaskStats::default(),
            by: "law",
            slot,
        }
    }

    fn slots(tasks: &[TaskView]) -> Vec<(String, u32)> {
        let usable = tasks.iter().filter(|task| is_usable(task)).collect();
        members(usable, None).into_iter().map(|member| (member.id.to_string(), member.slot)).collect()
    }

    #[test]
    fn only_tasks_that_can_be_used_are_members() {
        let mut waiting = task(4, TaskState::Running, Some(4));
        waiting.ready = false;
        let mut helper = task(5, TaskState::Running, None);
        helper.helper = true;
        let mut portless = task(6, TaskState::Running, Some(5));
        portless.placement.ports.clear();
        let tasks = [
            task(0, TaskState::Asked, Some(0)),
            task(1, TaskState::Staging, Some(1)),
            task(2, TaskState::Running, Some(2)),
            task(3, TaskState::Killing, Some(3)),
            waiting,
            helper,
            portless,
        ];
        assert_eq!(slots(&tasks), [("cache.2".to_owned(), 2)]);
    }

    #[test]
    fn slots_are_the_tasks_own_and_the_older_one_keeps_a_disputed_one() {
        let run = |number, slot| task(number, TaskState::Running, slot);
        let tasks = [run(5, Some(1)), run(3, Some(1)), run(4, None), run(6, Some(4))];
        let expected = [("cache.4", 0), ("cache.3", 1), ("cache.5", 2), ("cache.6", 4)];
        assert_eq!(slots(&tasks), expected.map(|(id, slot)| (id.to_owned(), slot)));
    }
}
