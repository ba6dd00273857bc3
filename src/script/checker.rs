//! Reading a table that a person wrote: typed fields, all problems at once, each with its path.
//!
//! Only raw access: metatables of a policy table mean nothing. What one table may make the host keep is bounded.

use std::time::Duration;

use mlua::{Function, Table, Value};

use crate::config::units;

use super::convert::{describe, did_you_mean, finite, quote, whole};

/// Bytes of text that one policy table may hold in all.
const TEXT: usize = 1 << 20;

/// Most entries of one list or map.
const ENTRIES: usize = 1_000;

/// Most problems that are told at once.
const PROBLEMS: usize = 20;

/// One thing that is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Where: `control.cooldown.dwon`; empty for the table itself.
    pub(super) path: String,
    /// What was expected and what came, with the path in front; may end in a did-you-mean.
    pub(super) message: String,
}

/// What is found out while tables are read.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    text_left: usize,
}

/// One table being read.
pub(super) struct Node<'a> {
    table: Option<&'a Table>,
    path: String,
}

impl Findings {
    pub(super) const fn new() -> Self {
        Self { problems: Vec::new(), warnings: Vec::new(), text_left: TEXT }
    }

    /// Adds a problem.
    pub(super) fn problem(&mut self, path: &str, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS {
            let message = message.into();
            let message = if path.is_empty() { message } else { format!("{path}: {message}") };
            self.problems.push(Problem { path: path.to_owned(), message });
        }
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }

    /// Takes a result apart: its error becomes a problem.
    pub(super) fn take<T, E: ToString>(&mut self, path: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problem(path, error.to_string())).ok()
    }

    fn text(&mut self, path: &str, text: &mlua::LuaString) -> Option<String> {
        let length = text.as_bytes().len();
        let Some(left) = self.text_left.checked_sub(length) else {
            self.problem(path, format!("expected at most {TEXT} bytes of text in a policy, got more"));
            return None;
        };
        self.text_left = left;
        match text.to_str() {
            Ok(text) if text.contains('\0') => {
                self.problem(path, "expected text without zero bytes");
                None
            }
            Ok(text) => Some((*text).to_owned()),
            Err(_) => {
                self.problem(path, "expected text in UTF-8, got other bytes");
                None
            }
        }
    }
}

impl<'a> Node<'a> {
    /// Starts to read a table; keys that are not in `known` are problems.
    pub(super) fn new(table: &'a Table, path: &str, known: &[&str], found: &mut Findings) -> Self {
        let node = Self { table: Some(table), path: path.to_owned() };
        for pair in table.pairs::<Value, Value>() {
            match pair {
                Ok((Value::String(key), _)) => {
                    let key = key.to_string_lossy();
                    if !known.contains(&key.as_str()) {
                        let shown: String = key.chars().take(60).collect();
                        let hint = did_you_mean(&key, known.iter().copied());
                        found.problem(&node.at(&shown), format!("unknown key{hint}"));
                    }
                }
                Ok((key, _)) => found.problem(path, format!("expected named keys, got {}", describe(&key))),
                Err(error) => found.problem(path, error.to_string()),
            }
            if found.problems.len() >= PROBLEMS {
                break;
            }
        }
        node
    }

    /// A table that is not there: every field has its default.
    pub(super) fn absent(path: &str) -> Self {
        Self { table: None, path: path.to_owned() }
    }

    /// The path of one of its keys.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A value as it is; nil when absent.
    pub(super) fn value(&self, key: &str) -> Value {
        self.table.and_then(|table| table.raw_get(key).ok()).unwrap_or(Value::Nil)
    }

    /// Whether a key is given.
    pub(super) fn has(&self, key: &str) -> bool {
        !self.value(key).is_nil()
    }

    fn wrong(&self, key: &str, expected: &str, value: &Value, found: &mut Findings) {
        found.problem(&self.at(key), format!("expected {expected}, got {}", describe(value)));
    }

    /// A text.
    pub(super) fn text(&self, key: &str, found: &mut Findings) -> Option<String> {
        match self.value(key) {
            Value::Nil => None,
            Value::String(text) => found.text(&self.at(key), &text),
            other => {
                self.wrong(key, "text", &other, found);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], found: &mut Findings) -> Option<T> {
        let text = self.text(key, found)?;
        let choice = words.iter().find(|(word, _)| *word == text);
        if choice.is_none() {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let hint = did_you_mean(&text, words.iter().map(|(word, _)| *word));
            found.problem(&self.at(key), format!("expected {}, got {}{hint}", all.join(" or "), quote(&text)));
        }
        choice.map(|(_, value)| *value)
    }

    /// A boolean.
    pub(super) fn flag(&self, key: &str, found: &mut Findings) -> Option<bool> {
        match self.value(key) {
            Value::Nil => None,
            Value::Boolean(flag) => Some(flag),
            other => {
                self.wrong(key, "true or false", &other, found);
                None
            }
        }
    }

    /// A whole number.
    pub(super) fn whole(&self, key: &str, range: std::ops::RangeInclusive<u32>, found: &mut Findings) -> Option<u32> {
        match self.value(key) {
            Value::Nil => None,
            value => {
                let checked = whole(&value, "", range).map_err(|text| text.trim_start_matches(": ").to_owned());
                found.take(&self.at(key), checked)
            }
        }
    }

    /// A finite number of at least `low`, or more than it when it is `above`.
    pub(super) fn number(&self, key: &str, low: f64, above: bool, found: &mut Findings) -> Option<f64> {
        let value = self.value(key);
        if value.is_nil() {
            return None;
        }
        let checked = finite(&value, "").map_err(|text| text.trim_start_matches(": ").to_owned());
        let number = found.take(&self.at(key), checked)?;
        if number < low || (above && number <= low) {
            let bound = if above { "more than" } else { "at least" };
            self.wrong(key, &format!("{bound} {low}"), &value, found);
            return None;
        }
        Some(number)
    }

    /// A duration such as `"15s"`.
    pub(super) fn duration(&self, key: &str, found: &mut Findings) -> Option<Duration> {
        duration(&self.value(key), &self.at(key), found)
    }

    /// A size such as `"64MiB"`.
    pub(super) fn size(&self, key: &str, found: &mut Findings) -> Option<u64> {
        match self.value(key) {
            Value::Nil => None,
            Value::String(text) => found.take(&self.at(key), units::parse_size(&text.to_string_lossy())),
            number @ (Value::Integer(_) | Value::Number(_)) => {
                self.wrong(key, "a size with a unit such as \"64MiB\"", &number, found);
                None
            }
            other => {
                self.wrong(key, "a size such as \"64MiB\"", &other, found);
                None
            }
        }
    }

    /// A function.
    pub(super) fn function(&self, key: &str, found: &mut Findings) -> Option<Function> {
        match self.value(key) {
            Value::Nil => None,
            Value::Function(function) => Some(function),
            other => {
                self.wrong(key, "a function", &other, found);
                None
            }
        }
    }

    /// A table.
    pub(super) fn table(&self, key: &str, found: &mut Findings) -> Option<Table> {
        match self.value(key) {
            Value::Nil => None,
            Value::Table(table) => Some(table),
            other => {
                self.wrong(key, "a table", &other, found);
                None
            }
        }
    }

    /// A map of text to text; numbers and booleans are written out.
    pub(super) fn texts(&self, key: &str, found: &mut Findings) -> Option<Vec<(String, String)>> {
        let table = self.table(key, found)?;
        let at = self.at(key);
        let mut texts = Vec::new();
        for pair in table.pairs::<Value, Value>() {
            let (name, value) = found.take(&at, pair)?;
            let Value::String(name) = &name else {
                found.problem(&at, format!("expected names as keys, got {}", describe(&name)));
                return None;
            };
            let name = found.text(&at, name)?;
            if texts.len() >= ENTRIES {
                found.problem(&at, format!("expected at most {ENTRIES} entries, got more"));
                return None;
            }
            let value = match &value {
                Value::String(text) => found.text(&at, text)?,
                Value::Integer(_) | Value::Number(_) => {
                    let number = found.take(&at, finite(&value, &name))?;
                    number.to_string()
                }
                Value::Boolean(flag) => flag.to_string(),
                other => {
                    found.problem(&format!("{at}.{name}"), format!("expected text, got {}", describe(other)));
                    return None;
                }
            };
            texts.push((name, value));
        }
        texts.sort();
        Some(texts)
    }
}

/// A list of texts at a path.
pub(super) fn text_list(table: &Table, path: &str, found: &mut Findings) -> Option<Vec<String>> {
    let mut list = Vec::new();
    for item in items(table, path, found)? {
        match item {
            Value::String(text) => list.push(found.text(path, &text)?),
            Value::Integer(_) | Value::Number(_) => list.push(found.take(path, finite(&item, "item"))?.to_string()),
            other => {
                found.problem(path, format!("expected a list of text, got {} in it", describe(&other)));
                return None;
            }
        }
    }
    Some(list)
}

/// The items of a list; a table with other keys than 1, 2, 3, … is a problem.
pub(super) fn items(table: &Table, path: &str, found: &mut Findings) -> Option<Vec<Value>> {
    let length = table.raw_len();
    if length > ENTRIES {
        found.problem(path, format!("expected at most {ENTRIES} entries, got {length}"));
        return None;
    }
    let keys = table.pairs::<Value, Value>().take(ENTRIES + 1).count();
    if keys != length {
        found.problem(path, "expected a list, got a table with other keys than 1, 2, 3, …");
        return None;
    }
    (1..=length).map(|index| found.take(path, table.raw_get::<Value>(index))).collect()
}

/// A duration at a path; a bare number is a problem that says to write a unit.
pub(super) fn duration(value: &Value, path: &str, found: &mut Findings) -> Option<Duration> {
    match value {
        Value::Nil => None,
        Value::String(text) => found.take(path, units::parse_duration(&text.to_string_lossy())),
        Value::Integer(_) | Value::Number(_) => {
            found.problem(path, format!("expected a duration with a unit such as \"15s\", got {}", describe(value)));
            None
        }
        other => {
            found.problem(path, format!("expected a duration such as \"15s\", got {}", describe(other)));
            None
        }
    }
}
