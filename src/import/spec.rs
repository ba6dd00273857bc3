//! What an importer says about a spec, and how that is written as Lua.

use super::lua;

/// Stands in a case's code for the call that loads the policy.
pub(super) const LOAD: &str = "$load(";

/// A spec that is being put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    /// What stands in for modules: `prometheus = { query = … }`, as code.
    fakes: Vec<String>,
    /// Locals of the spec.
    locals: Vec<String>,
    cases: Vec<(String, String)>,
}

impl Spec {
    /// Adds a fake, or replaces that of the same module: its name and its table, as code that is indented from 0.
    pub(super) fn fake(&mut self, module: &str, table: &str) {
        let fake = format!("{module} = {table},");
        let begins = format!("{module} = ");
        match self.fakes.iter_mut().find(|other| other.starts_with(&begins)) {
            Some(there) => *there = fake,
            None => self.fakes.push(fake),
        }
    }

    /// Adds a line to what the cases share.
    pub(super) fn local(&mut self, line: &str) {
        if !self.locals.iter().any(|other| other == line) {
            self.locals.push(line.to_owned());
        }
    }

    /// Adds a case: what it promises, and its code, indented from 0.
    pub(super) fn case(&mut self, promise: &str, code: &str) {
        self.cases.push((promise.to_owned(), code.to_owned()));
    }

    /// The text of `NAME_test.lua`.
    pub(super) fn text(&self, name: &str) -> String {
        let mut text = lua::comment(&format!("{name}_test.lua: that it decides as what it was imported from did."), 0);
        text.push_str(&format!("--   setpoint test {name}_test.lua\n\ndescribe({}, function()\n", lua::quote(name)));
        for local in &self.locals {
            text.push_str(&format!("  {local}\n"));
        }
        if !self.locals.is_empty() {
            text.push('\n');
        }
        if !self.fakes.is_empty() {
            text.push_str("  local function load(options)\n    options = options or {}\n    options.fakes = {\n");
            for fake in &self.fakes {
                text.push_str(&format!("      {}\n", lua::indented(fake, 6)));
            }
            text.push_str("    }\n    return load_policy(options)\n  end\n\n");
        }
        for (at, (promise, code)) in self.cases.iter().enumerate() {
            if at > 0 {
                text.push('\n');
            }
            let load = if self.fakes.is_empty() { "load_policy(" } else { "load(" };
            let code = lua::indented(code.replace(LOAD, load).trim_end(), 4);
            text.push_str(&format!("  it({}, function()\n    {code}\n  end)\n", lua::quote(promise)));
        }
        text.push_str("end)\n");
        text
    }
}
