//! The list of mesos-memcached: one object, by task id, with the keys that its clients know.
//!
//! ```json
//! {"Memcache-0":{"TaskID":"Memcache-0","CPU":0.01,"Memory":0.04,"Hostname":"slave1","Port":31000}}
//! ```
//!
//! `CPU` and `Memory` are percentages of a core and of the task's memory limit. They are null while they are unknown:
//! where the old one waited for its first figures before it listed a task, this one lists a task as soon as it can be
//! used. The dead, which the old one kept for ever, are not in it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Member, Service};

/// One task, under the old names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry<'a> {
    /// The task's id.
    #[serde(rename = "TaskID")]
    pub task_id: &'a str,
    /// Percent of one core.
    #[serde(rename = "CPU")]
    pub cpu: Option<f64>,
    /// Percent of its memory limit.
    pub memory: Option<f64>,
    /// The machine.
    pub hostname: &'a str,
    /// The policy's first port.
    pub port: u16,
}

/// The whole list.
#[must_use]
pub fn listing(services: &[Service]) -> BTreeMap<&str, Entry<'_>> {
    let entries = services.iter().flat_map(|service| {
        let port = service.main_port();
        service.members.iter().filter_map(move |member| Some((member.id.as_str(), entry(member, port?)?)))
    });
    entries.collect()
}

fn entry<'a>(member: &'a Member, port: &str) -> Option<Entry<'a>> {
    Some(Entry {
        task_id: member.id.as_str(),
        cpu: member.cpu_percent,
        memory: member.memory_percent,
        hostname: &member.host,
        port: *member.ports.get(port)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::examples::service;
    use super::*;

    #[test]
    fn the_shape_is_the_old_one() {
        let mut service = service(&[(0, 0), (1, 1)]);
        service.members[1].cpu_percent = None;
        service.members[1].memory_percent = None;
        assert_eq!(
            serde_json::to_string(&listing(&[service])).unwrap(),
            "{\"cache.0\":{\"TaskID\":\"cache.0\",\"CPU\":1.5,\"Memory\":50.0,\"Hostname\":\"127.0.0.1\",\"Port\":31000},\
             \"cache.1\":{\"TaskID\":\"cache.1\",\"CPU\":null,\"Memory\":null,\"Hostname\":\"127.0.0.1\",\"Port\":31001}}"
        );
        assert_eq!(serde_json::to_string(&listing(&[])).unwrap(), "{}");
    }
}
