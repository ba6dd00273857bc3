//! A table of a TOML file, read key by key: every problem is kept with its place, and reading goes on.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, SourceLine, did_you_mean};
use super::settings::{Origin, Setting};

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) path: Arc<Path>,
    pub(super) text: &'a str,
    pub(super) problems: Vec<Problem>,
}

impl Document<'_> {
    pub(super) fn problem(&mut self, byte: usize, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem::at(&self.path, self.text, byte, message).with_hint(hint));
    }

    pub(super) fn origin(&self, byte: usize) -> Origin {
        Origin::File { path: Arc::clone(&self.path), line: SourceLine::at(self.text, byte).line }
    }
}

/// One table of it.
pub(super) struct Section<'d, 'a, 't> {
    document: &'d mut Document<'a>,
    /// Empty for the top table.
    name: String,
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'d, 'a, 't> Section<'d, 'a, 't> {
    pub(super) fn new(document: &'d mut Document<'a>, name: impl Into<String>, table: &'t DeTable<'t>) -> Self {
        Self { document, name: name.into(), table, known: Vec::new() }
    }

    /// One key, when it is there and is what it should be.
    pub(super) fn get<T, E: Display>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, E>,
    ) -> Option<Setting<T>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let at = value.span().start;
        match convert(value.get_ref()) {
            Ok(value) => Some(Setting::new(value, self.document.origin(at))),
            Err(error) => {
                let message = format!("`{}`: {error}", self.full(key));
                self.document.problem(at, message, None);
                None
            }
        }
    }

    /// Marks a key that is read elsewhere as known, and gives its table.
    pub(super) fn table(&mut self, key: &'static str) -> Option<&'t DeTable<'t>> {
        self.known.push(key);
        let value: &'t Spanned<DeValue<'t>> = self.table.get(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!("`{}`: expected a table, got {}", self.full(key), describe(value.get_ref()));
            self.document.problem(value.span().start, message, None);
        }
        table
    }

    /// Complains of every key that nobody asked for.
    pub(super) fn finish(self) {
        let Self { document, name, table, known } = self;
        for key in table.keys() {
            let found = key.get_ref().as_ref();
            if known.contains(&found) {
                continue;
            }
            let place = if name.is_empty() { "at the top level".to_owned() } else { format!("in `[{name}]`") };
            let hint = did_you_mean(found, known.iter().copied())
                .unwrap_or_else(|| format!("known keys {place}: {}", known.join(", ")));
            document.problem(key.span().start, format!("unknown key `{found}` {place}"), Some(hint));
        }
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// A value as a message shows it: the string `abc`, the integer 5.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let mut shown: String = text.chars().take(60).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            format!("the string `{shown}`")
        }
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the float {number}"),
        DeValue::Boolean(flag) => format!("{flag}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
