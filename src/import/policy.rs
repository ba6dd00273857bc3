//! What an importer says about a policy, and how that is written as Lua.

use std::collections::BTreeSet;

use super::Imported;
use super::lua::{self, Field, Lua};
use super::report::Report;
use super::spec::Spec;

/// Longest text that a parameter may have as its default.
const LONGEST_PARAM: usize = 4096;

/// A policy that is being put together.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    /// What it is, in a sentence: the rest of the file's first line.
    title: String,
    /// Paragraphs below it.
    about: Vec<String>,
    modules: BTreeSet<&'static str>,
    params: Vec<Field>,
    /// Blocks of code between the parameters and the table.
    code: Vec<String>,
    fields: Vec<Field>,
    pub(super) report: Report,
}

impl Policy {
    pub(super) fn new(name: impl Into<String>, title: impl Into<String>, report: Report) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            about: Vec::new(),
            modules: BTreeSet::new(),
            params: Vec::new(),
            code: Vec::new(),
            fields: Vec::new(),
            report,
        }
    }

    /// Adds a paragraph to its head.
    pub(super) fn about(&mut self, text: impl Into<String>) {
        self.about.push(text.into());
    }

    /// Makes a module available under its name.
    pub(super) fn module(&mut self, name: &'static str) {
        self.modules.insert(name);
    }

    /// Adds a parameter, and gives the expression that reads it. A name that is taken gets a number.
    pub(super) fn param(&mut self, name: &str, value: Lua, note: &str) -> String {
        let taken = |params: &[Field], name: &str| params.iter().any(|param| param.is_called(name));
        let mut free = name.to_owned();
        let mut number = 2;
        while taken(&self.params, &free) {
            free = format!("{name}_{number}");
            number += 1;
        }
        if let Lua::Text(text) = &value
            && text.len() > LONGEST_PARAM
        {
            let local = format!("{}_text", free.to_uppercase());
            self.code.push(format!("local {local} = {}\n", value.write(0, 0, 0)));
            return local;
        }
        self.params.push(Field::new(&free, value).noted(note));
        format!("p.{free}")
    }

    /// A parameter that several places may read: one that is there already, under the name and with the same default.
    pub(super) fn shared_param(&mut self, name: &str, value: Lua, note: &str) -> String {
        match self.params.iter().find(|param| param.holds(name, &value)) {
            Some(param) => format!("p.{}", param.key()),
            None => self.param(name, value, note),
        }
    }

    /// Adds code before the table.
    pub(super) fn code(&mut self, code: impl Into<String>) {
        self.code.push(code.into());
    }

    /// Adds code that several places need, once.
    pub(super) fn shared_code(&mut self, code: &str) {
        if !self.code.iter().any(|other| other == code) {
            self.code(code);
        }
    }

    /// Adds an entry to the table.
    pub(super) fn field(&mut self, field: Field) {
        self.fields.push(field);
    }

    /// Writes it, with its spec.
    pub(super) fn finish(self, spec: Spec) -> Imported {
        let policy = self.text();
        Imported { spec: spec.text(&self.name), policy, name: self.name, report: self.report }
    }

    fn text(&self) -> String {
        let mut text = head(&self.name, &self.title, &self.about, &self.report);
        text.push('\n');
        for module in &self.modules {
            text.push_str(&format!("local {module} = require(\"setpoint.{module}\")\n"));
        }
        if !self.modules.is_empty() {
            text.push('\n');
        }
        if !self.params.is_empty() {
            text.push_str(&format!(
                "local p = require(\"setpoint.params\")({{\n{}}})\n\n",
                lua::fields_text(&self.params, 2)
            ));
        }
        for code in &self.code {
            text.push_str(code.trim_end());
            text.push_str("\n\n");
        }
        text.push_str(&format!("---@type setpoint.Policy\nreturn {{\n{}}}\n", lua::fields_text(&self.fields, 2)));
        text
    }
}

/// The comment that a file begins with.
pub(super) fn head(name: &str, title: &str, about: &[String], report: &Report) -> String {
    let mut text = lua::comment(&format!("{name}.lua: {title}"), 0);
    text.push_str(&format!("--   setpoint check {name}.lua\n--   setpoint test {name}_test.lua\n"));
    text.push_str(&format!("--   setpoint run {name}.lua --dry-run\n"));
    for paragraph in about {
        text.push_str("--\n");
        text.push_str(&lua::comment(paragraph, 0));
    }
    if !report.fill_in.is_empty() {
        text.push_str("--\n-- To fill in, or to look at:\n");
        for what in &report.fill_in {
            text.push_str(&lua::item(what));
        }
    }
    if !report.lost.is_empty() {
        text.push_str("--\n-- Not carried over:\n");
        for lost in &report.lost {
            let line = if lost.line == 0 { String::new() } else { format!("line {}: ", lost.line) };
            text.push_str(&lua::item(&format!("{line}{} ({})", lost.what, lost.why)));
        }
    }
    text
}
