//! What every format is read into: a tree whose nodes know their place, and sections whose keys are taken one by one, so
//! that what nobody took can be told.

use super::error::Problem;
use super::report::join;

/// Where in a text: line and column from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    /// The place of a byte in a text.
    pub(super) fn of_byte(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Self { line, column: before[begin..].chars().count() + 1 }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value as all formats have it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What it is, in a message.
    pub(super) fn described(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
            Value::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// On one line, as JSON has it.
    pub(super) fn compact(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
            Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(Self::compact).collect();
                format!("[{}]", items.join(","))
            }
            Value::Map(entries) => {
                let entries: Vec<_> = entries.iter().map(|(key, node)| format!("{key}: {}", node.compact())).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    /// A scalar as text.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(value) => Some(value.to_string()),
            // Nothing that a task is told can hold a NUL.
            Value::Text(text) => Some(text.replace('\0', "\u{fffd}")),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    fn wrong(&self, path: &str, expected: &str) -> Problem {
        Problem::at(self.place, format!("{path}: expected {expected}, got {}", self.described()))
    }

    /// A scalar as text, or a problem.
    pub(super) fn text(&self, path: &str) -> Result<String, Problem> {
        self.scalar().ok_or_else(|| self.wrong(path, "text"))
    }

    /// A finite number; also one that is written as text, as KEDA has them.
    pub(super) fn number(&self, path: &str) -> Result<f64, Problem> {
        let number = match &self.value {
            Value::Number(value) => Some(*value),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|value| value.is_finite()).ok_or_else(|| self.wrong(path, "a number"))
    }

    /// A whole number from 0 to a million.
    pub(super) fn whole(&self, path: &str) -> Result<u32, Problem> {
        let number = self.number(path).map_err(|_| self.wrong(path, "a whole number"))?;
        if number.fract() == 0.0 && (0.0..=1e6).contains(&number) {
            return Ok(number as u32);
        }
        Err(self.wrong(path, "a whole number from 0 to 1000000"))
    }

    /// True or false, also written as text.
    pub(super) fn flag(&self, path: &str) -> Result<bool, Problem> {
        match &self.value {
            Value::Bool(value) => Ok(*value),
            Value::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.wrong(path, "true or false")),
        }
    }

    /// The items of a list.
    pub(super) fn list(self, path: &str) -> Result<Vec<Self>, Problem> {
        match self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.wrong(path, "a list")),
        }
    }
}

/// A mapping whose keys are taken one by one.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) path: String,
    pub(super) place: Place,
    entries: Vec<(String, Node)>,
}

impl Section {
    /// A node as a section.
    pub(super) fn new(node: Node, path: impl Into<String>) -> Result<Self, Problem> {
        let path = path.into();
        match node.value {
            Value::Map(entries) => Ok(Self { path, place: node.place, entries }),
            // `key:` with nothing behind it.
            Value::Null => Ok(Self { path, place: node.place, entries: Vec::new() }),
            _ => {
                let named = if path.is_empty() { "the document".to_owned() } else { path };
                Err(node.wrong(&named, "a mapping"))
            }
        }
    }

    /// The path of a key.
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// A key that is not there.
    pub(super) fn missing(&self, key: &str, expected: &str) -> Problem {
        Problem::at(self.place, format!("{}: expected {expected}, got nothing", self.at(key)))
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(other, node)| other == key && !matches!(node.value, Value::Null))
    }

    /// Takes a key; one without a value is not there.
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(other, _)| other == key)?;
        let (_, node) = self.entries.remove(at);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// Takes every entry of a key: blocks of one name.
    pub(super) fn take_all(&mut self, key: &str) -> Vec<Node> {
        let (taken, left) = std::mem::take(&mut self.entries).into_iter().partition(|(other, _)| other == key);
        self.entries = left;
        let taken: Vec<(String, Node)> = taken;
        taken.into_iter().map(|(_, node)| node).collect()
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Problem> {
        let path = self.at(key);
        self.take(key).map(|node| node.text(&path)).transpose()
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, Problem> {
        let path = self.at(key);
        self.take(key).map(|node| node.number(&path)).transpose()
    }

    pub(super) fn whole(&mut self, key: &str) -> Result<Option<u32>, Problem> {
        let path = self.at(key);
        self.take(key).map(|node| node.whole(&path)).transpose()
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        let path = self.at(key);
        self.take(key).map(|node| node.flag(&path)).transpose()
    }

    pub(super) fn section(&mut self, key: &str) -> Result<Option<Self>, Problem> {
        let path = self.at(key);
        self.take(key).map(|node| Self::new(node, path)).transpose()
    }

    pub(super) fn list(&mut self, key: &str) -> Result<Vec<Node>, Problem> {
        let path = self.at(key);
        self.take(key).map_or(Ok(Vec::new()), |node| node.list(&path))
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, Problem> {
        let path = self.at(key);
        self.list(key)?.iter().map(|node| node.text(&path)).collect()
    }

    /// Text that must be there.
    pub(super) fn needed(&mut self, key: &str, expected: &str) -> Result<String, Problem> {
        self.text(key)?.ok_or_else(|| self.missing(key, expected))
    }

    /// The keys in their order.
    pub(super) fn keys(&self) -> Vec<String> {
        self.entries.iter().map(|(key, _)| key.clone()).collect()
    }

    /// What nobody took, with the section's path.
    pub(super) fn into_rest(self) -> (String, Vec<(String, Node)>) {
        (self.path, self.entries)
    }
}
