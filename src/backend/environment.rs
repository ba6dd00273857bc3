//! The environment that every task has, whatever runs it.
//!
//! Pure: which variables, not how they get there. What a backend adds for itself (its mark) is its own business.

use std::collections::BTreeMap;

use crate::core::model::{PolicyName, TaskId};
use crate::core::policy::TaskTemplate;

/// The variable that names the task.
pub const TASK_ID: &str = "SETPOINT_TASK_ID";

/// The variable that names its policy.
pub const POLICY: &str = "SETPOINT_POLICY";

/// A task's environment: what its template says, then `PORT_<NAME>` for each of `ports`, and its names. Ours come last: a
/// template cannot hide a task from the run that has to find it again.
#[must_use]
pub fn of_task(
    id: &TaskId,
    policy: &PolicyName,
    template: &TaskTemplate,
    ports: &BTreeMap<String, u16>,
) -> BTreeMap<String, String> {
    let mut environment = template.env.clone();
    environment.extend(ports.iter().map(|(name, port)| (variable("PORT", name), port.to_string())));
    if let (Some(name), Some(uuid)) = (&template.uuid_env, id.uuid()) {
        environment.insert(name.clone(), uuid);
    }
    environment.insert(TASK_ID.to_owned(), id.to_string());
    environment.insert(POLICY.to_owned(), policy.to_string());
    environment
}

/// `PORT_<NAME>` for a port's name, `RESOURCE_<NAME>` for a resource's.
pub(super) fn variable(what: &str, name: &str) -> String {
    let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    what.chars().chain(['_']).chain(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_told_its_names_and_ports_and_cannot_be_given_others() {
        let id = TaskId::from("web~a.01ARZ3NDEKTSV4RRFFQ69G5FAV");
        let template = TaskTemplate {
            env: [("A", "1"), (TASK_ID, "mine")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            uuid_env: Some("GO_AGENT_UUID".to_owned()),
            ..TaskTemplate::default()
        };
        let ports = [("http", 31000), ("my-admin.port", 31001)].map(|(name, port)| (name.to_owned(), port)).into();
        let environment = of_task(&id, &PolicyName::from("web/a"), &template, &ports);
        let expected = [
            ("A", "1"),
            // The bits of that ULID by an independent decoder.
            ("GO_AGENT_UUID", "01563e3a-b5d3-d676-4c61-efb99302bd5b"),
            ("PORT_HTTP", "31000"),
            ("PORT_MY_ADMIN_PORT", "31001"),
            (POLICY, "web/a"),
            (TASK_ID, "web~a.01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(environment, BTreeMap::from(expected));
        assert_eq!(TaskId::from("web").uuid(), None);
        assert_eq!(TaskId::from("web.8ZZZZZZZZZZZZZZZZZZZZZZZZZ").uuid(), None, "more than 128 bits");
    }
}
