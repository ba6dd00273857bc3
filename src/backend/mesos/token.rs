//! What the engine keeps of a task's place for us: its agent, and what constraints count there.
//!
//! `AGENT ATTRIBUTES`, the attributes as JSON; agents' ids have no blanks. Without the attributes, `unique` and `group_by` would
//! forget the tasks of an earlier run: an agent that is full sends no offer that would tell them.

use crate::core::offers::Attributes;
use crate::mesos::wire::AgentId;

/// As it is kept.
pub(super) fn write(agent: &AgentId, attributes: &Attributes) -> String {
    let known = Some(attributes).filter(|attributes| **attributes != Attributes::default());
    match known.and_then(|attributes| serde_json::to_string(attributes).ok()) {
        Some(attributes) => format!("{} {attributes}", agent.as_str()),
        None => agent.as_str().to_owned(),
    }
}

/// As it was meant; attributes that cannot be read are not known.
pub(super) fn read(token: &str) -> (AgentId, Attributes) {
    let (agent, attributes) = token.split_once(' ').unwrap_or((token, ""));
    (AgentId::new(agent), serde_json::from_str(attributes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::offers::Attribute;

    #[test]
    fn what_is_kept_is_read_again() {
        let agent = AgentId::new("f00-S1");
        let rack =
            [("rack".to_owned(), Attribute::Text("r 1".to_owned())), ("disks".to_owned(), Attribute::Scalar(2.5))];
        for attributes in [Attributes::default(), Attributes::new("a.example", rack)] {
            assert_eq!(read(&write(&agent, &attributes)), (agent.clone(), attributes));
        }
        assert_eq!(read("f00-S1 [[").1, Attributes::default());
    }
}
