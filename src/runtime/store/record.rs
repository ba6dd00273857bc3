//! Records as the database keeps them: their keys, their tables, their JSON.

use redb::TableDefinition;

use crate::core::model::{PolicyName, TaskId};
use crate::runtime::record::{PolicyRecord, Stored, Write};

/// The database's tables: key → digest and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// The seal and the clock.
    Meta,
    Policies,
    Tasks,
    Sources,
}

impl Table {
    /// All of them, in the order of their discriminants.
    pub(super) const ALL: [Self; 4] = [Self::Meta, Self::Policies, Self::Tasks, Self::Sources];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Policies => "policies",
            Self::Tasks => "tasks",
            Self::Sources => "sources",
        }
    }

    pub(super) const fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.name())
    }
}

/// Keys in [`Table::Meta`].
pub(super) const SEAL: &str = "seal";
const CLOCK: &str = "clock";

/// What a write is about; a later write under the same key takes the place of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Clock,
    Policy(PolicyName),
    Task(TaskId),
    Source(String),
}

impl Key {
    pub(super) fn of(write: &Write) -> Self {
        match write {
            Write::Clock(..) => Self::Clock,
            Write::Policy(name, _) | Write::RemovePolicy(name) => Self::Policy(name.clone()),
            Write::Task(task) => Self::Task(task.id.clone()),
            Write::RemoveTask(id) => Self::Task(id.clone()),
            Write::Source(path, _) | Write::RemoveSource(path) => Self::Source(path.clone()),
        }
    }

    pub(super) const fn table(&self) -> Table {
        match self {
            Self::Clock => Table::Meta,
            Self::Policy(_) => Table::Policies,
            Self::Task(_) => Table::Tasks,
            Self::Source(_) => Table::Sources,
        }
    }

    /// The key inside its table.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Clock => CLOCK,
            Self::Policy(name) => name.as_str(),
            Self::Task(id) => id.as_str(),
            Self::Source(path) => path,
        }
    }

    /// For messages: policy `web`.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Clock => "the clock".to_owned(),
            Self::Policy(name) => format!("policy `{name}`"),
            Self::Task(id) => format!("task `{id}`"),
            Self::Source(path) => format!("the source of `{path}`"),
        }
    }
}

/// A write's record as JSON; none removes the record. The error says what has no JSON form.
pub(super) fn encode(write: &Write) -> Result<Option<Vec<u8>>, String> {
    let json = match write {
        Write::RemovePolicy(_) | Write::RemoveTask(_) | Write::RemoveSource(_) => return Ok(None),
        Write::Clock(at, wall) => serde_json::to_vec(&(at, wall)),
        Write::Policy(_, record) => {
            require_finite(policy_numbers(record))?;
            serde_json::to_vec(record)
        }
        Write::Task(task) => {
            require_finite(task.template.cpus)?;
            serde_json::to_vec(task)
        }
        Write::Source(_, record) => serde_json::to_vec(record),
    };
    json.map(Some).map_err(|error| error.to_string())
}

/// JSON has no NaN and no infinity: written as `null`, they would make the record unreadable.
fn require_finite(numbers: impl IntoIterator<Item = f64>) -> Result<(), String> {
    match numbers.into_iter().find(|number| !number.is_finite()) {
        Some(number) => Err(format!("expected finite numbers, got {number}")),
        None => Ok(()),
    }
}

fn policy_numbers(record: &PolicyRecord) -> impl Iterator<Item = f64> {
    let states = std::iter::once(&record.state).chain(record.shadow.iter().map(|shadow| &shadow.state));
    let points = states.flat_map(|state| state.history.iter().chain(&state.last_good));
    points.flat_map(|point| [point.value, point.setpoint])
}

/// Puts a record that was read where it belongs. The error says what does not fit.
pub(super) fn decode(table: Table, key: &str, json: &[u8], stored: &mut Stored) -> Result<Key, serde_json::Error> {
    match table {
        Table::Policies => {
            let name = PolicyName::from(key);
            stored.policies.insert(name.clone(), serde_json::from_slice(json)?);
            Ok(Key::Policy(name))
        }
        Table::Tasks => {
            let id = TaskId::from(key);
            stored.tasks.insert(id.clone(), serde_json::from_slice(json)?);
            Ok(Key::Task(id))
        }
        Table::Sources => {
            stored.sources.insert(key.to_owned(), serde_json::from_slice(json)?);
            Ok(Key::Source(key.to_owned()))
        }
        Table::Meta => {
            stored.clock = Some(serde_json::from_slice(json)?);
            Ok(Key::Clock)
        }
    }
}
