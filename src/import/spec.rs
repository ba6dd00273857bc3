//! What an importer says about a spec, and how that is written as Lua.

use super::lua;
use super::workload::OutsideFake;

/// Stands in a case's code for the call that loads the policy.
pub(super) const LOAD: &str = "$load(";

/// A spec that is being put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    /// What stands in for modules: `prometheus = { query = … }`, as code.
    fakes: Vec<String>,
    /// Modules that the spec itself uses.
    modules: Vec<&'static str>,
    /// Locals of the spec.
    locals: Vec<String>,
    /// What `http.get` gives, as code.
    answer: Option<String>,
    /// Whoever runs the tasks, where setpoint does not.
    outside: Option<OutsideFake>,
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

    /// Has `http.get` give a value, as code.
    pub(super) fn answers(&mut self, value: &str) {
        self.answer = Some(value.to_owned());
    }

    /// Has somebody else run the tasks, beginning with as many as a case starts with.
    pub(super) fn outside(&mut self, fake: &OutsideFake) {
        self.local("local replicas = 0 -- how many tasks there are");
        self.modules.extend(fake.module);
        self.outside = Some(fake.clone());
    }

    /// The fake of `http`, if any is needed.
    fn http(&self) -> Option<String> {
        let answering = |value: &str| format!("return {{\n  json = function()\n    return {value}\n  end,\n}}\n");
        let scale = self.outside.as_ref().map(|fake| answering(&fake.answer));
        let (url, code) = match (scale, self.answer.as_deref().map(answering)) {
            (None, None) => return None,
            (None, Some(other)) => ("", other),
            (Some(scale), None) => ("", scale),
            (Some(scale), Some(other)) => {
                let scale = lua::indented(scale.trim_end(), 2);
                ("url", format!("if url:find(\"/scale\", 1, true) then\n  {scale}\nend\n{other}"))
            }
        };
        let mut table = format!("{{\n  get = function({url})\n    {}\n  end,\n", lua::indented(code.trim_end(), 4));
        if let Some(OutsideFake { verb, told, .. }) = &self.outside {
            table.push_str(&format!(
                "  {verb} = function(_, request)\n    replicas = {told}\n    return {{ ok = true }}\n  end,\n"
            ));
        }
        Some(format!("http = {table}}},"))
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
        text.push_str(&format!("--   setpoint test {name}_test.lua\n\n"));
        for module in &self.modules {
            text.push_str(&format!("local {module} = require(\"setpoint.{module}\")\n\n"));
        }
        text.push_str(&format!("describe({}, function()\n", lua::quote(name)));
        for local in &self.locals {
            text.push_str(&format!("  {local}\n"));
        }
        if !self.locals.is_empty() {
            text.push('\n');
        }
        let fakes: Vec<String> = self.fakes.iter().cloned().chain(self.http()).collect();
        if !fakes.is_empty() {
            text.push_str("  local function load(options)\n    options = options or {}\n");
            if self.outside.is_some() {
                text.push_str("    replicas = options.start or 0\n");
            }
            text.push_str("    options.fakes = {\n");
            for fake in &fakes {
                text.push_str(&format!("      {}\n", lua::indented(fake, 6)));
            }
            text.push_str("    }\n    return load_policy(options)\n  end\n\n");
        }
        for (at, (promise, code)) in self.cases.iter().enumerate() {
            if at > 0 {
                text.push('\n');
            }
            let load = if fakes.is_empty() { "load_policy(" } else { "load(" };
            let code = lua::indented(code.replace(LOAD, load).trim_end(), 4);
            text.push_str(&format!("  it({}, function()\n    {code}\n  end)\n", lua::quote(promise)));
        }
        text.push_str("end)\n");
        text
    }
}
