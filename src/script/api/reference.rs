//! The Lua reference, `docs/reference.md`: the tables that scripts are checked against, as prose for people.
//!
//! Whatever a table says is said there and nowhere else; a test holds the committed file equal to [`markdown`]. Here are
//! only the order of the chapters and what no table knows: what each law is, and what each guard does.

use std::fmt::Write as _;

use crate::core::decision::Guard;
use crate::script::Limits;

use super::types::{
    CLASSES, CONTROL_KEYS, CTX_KEYS, KeyDoc, LAUNCH_KEYS, POLICY_KEYS, SPEC, TAIL, TASK_KEYS, TEMPLATE_KEYS,
    WORKLOAD_KEYS,
};
use super::{FunctionDoc, ModuleDoc, modules};

/// The longest line of text; code and headings may be longer.
const WIDTH: usize = 118;

/// One law of `control.law`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LawDoc {
    /// Its name.
    pub name: &'static str,
    /// The keys of `control` that mean something to it alone.
    pub keys: &'static [&'static str],
    /// What it is.
    pub doc: &'static str,
}

const fn law(name: &'static str, keys: &'static [&'static str], doc: &'static str) -> LawDoc {
    LawDoc { name, keys, doc }
}

/// Every law.
pub const LAWS: [LawDoc; 8] = [
    law(
        "adaptive",
        &["per_task", "season"],
        "The default. Learns from history by how much one task moves the metric and how long that takes, and uses both; until \
         it has learned that it feels its way by `per_task`. For a metric that is an average over the tasks it forecasts the \
         load over the start-up time.",
    ),
    law("proportional", &["per_task"], "deviation / `per_task`, with what is in flight taken off."),
    law(
        "pid",
        &["per_task", "kp", "ki", "kd", "filter"],
        "Gains on the deviation, its integral and the filtered derivative of the sample. The integral stops where tasks could \
         not be had, and `lag` is made up for (a Smith predictor).",
    ),
    law(
        "ratio",
        &[],
        "The algorithm of the Kubernetes HPA: `ceil(tasks × sample / setpoint)`, its tolerance of 0.1, and its windows and \
         rate policies unless the policy gives its own. The setpoint is above 0.",
    ),
    law("relay", &["compat"], "Relay's formula; to the bit with `compat = true`."),
    law(
        "step",
        &["steps", "hysteresis"],
        "Thresholds, each of which launches or ends some tasks when the sample is beyond it.",
    ),
    law("count", &["n", "wait"], "A fixed number. Needs neither `metric` nor `target`."),
    law("decide", &[], "What the policy's own function `decide(ctx)` answers. Needs neither `metric` nor `target`."),
];

/// What each guard does, in their order, and the key that sets it.
const GUARDS: [(Guard, &str, &str); 17] = [
    (Guard::Law, "`law`", "The law itself, where it has something to say."),
    (Guard::Sample, "`on_missing`, `stale_after`", "A sample that is missing, stale or failed ends no task."),
    (Guard::Tolerance, "`tolerance`", "Deviations up to it are left alone."),
    (Guard::Confirmation, "`confirm`", "The direction has not been seen often enough."),
    (Guard::Ramp, "`ramp`", "The first adjustment is spread over the first samples."),
    (Guard::Stabilization, "`stabilization`", "The most careful proposal of the window counts."),
    (Guard::Step, "`step`", "Most change at once, or in a period."),
    (Guard::Cooldown, "`cooldown`", "Too soon after the last action."),
    (Guard::Flap, "`flap`", "The budget of starts and stops is used up."),
    (Guard::Min, "`workload.min`", "Fewest tasks, as an override has it."),
    (Guard::Max, "`workload.max`", "Most tasks, as an override has it."),
    (Guard::Budget, "`[budget]` of the host", "The budget of all policies together is used up."),
    (Guard::Pause, "`setpoint pause`", "An operator has paused decisions."),
    (Guard::DryRun, "`--dry-run`", "Nothing is carried out."),
    (Guard::Actuator, "`warmer`, `cooler`", "There is no function for this direction."),
    (Guard::Intent, "–", "What a function asked for was cut, or refused."),
    (Guard::Backoff, "`backoff`", "Tasks that fail are launched again later."),
];

/// The whole reference.
#[must_use]
pub fn markdown() -> String {
    let mut page = Page(String::new());
    page.0.push_str(HEAD);
    page.chapter("The policy table", "What a policy's file returns. A key that is not listed is an error.");
    page.keys(POLICY_KEYS);
    page.chapter("`workload`", "The tasks that the policy owns. The same words mean the same on every backend.");
    page.keys(WORKLOAD_KEYS);
    page.chapter("`control`", "The law, which proposes a number of tasks, and the guards, which limit it.");
    page.keys(CONTROL_KEYS);
    page.laws();
    page.guards();
    page.chapter("`ctx`", "What the functions of a policy see. It can only be read, but for what is in `ctx.state`.");
    page.keys(CTX_KEYS);
    page.chapter("Tasks", "One entry of `ctx.tasks`, and the argument of `drain` and `victims`: `setpoint.Task`.");
    page.keys(TASK_KEYS);
    let template: Vec<KeyDoc> = WORKLOAD_KEYS.iter().filter(|key| TEMPLATE_KEYS.contains(&key.name)).copied().collect();
    let names: Vec<String> = template.iter().map(|key| format!("`{}`", key.name)).collect();
    page.text(&format!(
        "`setpoint.Task.Template`, a task as `warmer` or `cooler`, has these keys of `workload`: {}. What `launch` takes, \
         `setpoint.Task.Launch`, has one more:",
        names.join(", ")
    ));
    page.keys(LAUNCH_KEYS);
    page.chapter("Types", "The tables that the keys above name.");
    for class in CLASSES {
        page.heading(class.name, class.doc);
        page.keys(class.keys);
    }
    page.chapter("`ctx.workload` and `setpoint`", TAIL_INTRO);
    page.annotated(TAIL);
    page.0.push_str(MODULES_HEAD);
    for module in modules() {
        page.module(module);
    }
    page.chapter("Specs", SPEC_INTRO);
    page.annotated(SPEC);
    page.limits();
    page.0
}

const HEAD: &str = "\
# Lua reference

<!-- Made by `setpoint types --reference`; changes here are lost. -->

After this page you can look up every key, function and type that a policy or a spec may use. It is generated from the
tables that setpoint checks scripts against; `setpoint types` writes the same for an editor with a Lua language server.
[tutorial.md](tutorial.md) is the place to begin.

Policies are Luau, within what it shares with Lua 5.1. `name?` may be left out, and a type
with `?` be nil; `A|B` is one or the other, `T[]` a list. Durations are text with a unit (`\"90s\"`, `\"1h30m\"`; ms, s, m, h,
d), and so are sizes (`\"64MiB\"`, `\"1GB\"`); where the type says `number`, too, that is seconds, or bytes.
";

const TAIL_INTRO: &str = "Methods of `ctx.workload` work in `warmer` and `cooler`; what they do is an intent that the host cuts \
                          to what is allowed and records before it acts. `require(\"setpoint\")` gives `setpoint`.";

const SPEC_INTRO: &str = "What a file that ends in `_test.lua` sees beside all of the above, under `setpoint test`. Time is virtual, \
                          and a module that is not given as a fake is not reached: it raises.";

const MODULES_HEAD: &str = "
## Modules

`local http = require(\"setpoint.http\")`. Each function carries a mark:

- *pure* only computes, and works everywhere;
- *read* reads from outside, and works in every function of a policy. While a file is loaded on trial nothing is read: the
  call gives the stub that its text names;
- *effect* changes something outside, and works in `warmer`, `cooler`, `drain` and `stop` only. In a dry run, in `eval` and
  on trial it is recorded and not sent, and gives the stub that its text names.

A call raises when an argument is of a wrong type (the message names the function, the argument, what was expected and what
came), when an option's key does not exist, when an effect is called where none is allowed, and in the cases that its text
names. An error that a function of a policy does not catch is a failed sample, or a failed hook: the policy holds its tasks,
and the log, `status`, `/readyz` and the page show the message with file, line and column.

`require(\"setpoint.params\")` is the function `setpoint.params`, `require(\"setpoint.host\")` the functions of a program that
setpoint is embedded in. Any other name is a file beside the policy: `require(\"lib.shared\")` is `lib/shared.lua`.
";

/// The text so far.
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn chapter(&mut self, title: &str, text: &str) {
        self.line(&format!("\n## {title}"));
        self.text(text);
    }

    /// A named type.
    fn heading(&mut self, name: &str, doc: &str) {
        self.line(&format!("\n### `{name}`"));
        if !doc.is_empty() {
            self.text(doc);
        }
    }

    /// A paragraph.
    fn text(&mut self, text: &str) {
        self.0.push('\n');
        self.wrapped("", text);
    }

    /// Breaks lines between words; what stands between backticks is one word.
    fn wrapped(&mut self, first: &str, text: &str) {
        let indent = " ".repeat(first.chars().count());
        let mut line = first.to_owned();
        let mut rest = text.trim();
        let mut is_empty = true;
        while !rest.is_empty() {
            let mut in_code = false;
            let end = rest.find(|c: char| {
                in_code ^= c == '`';
                c.is_whitespace() && !in_code
            });
            let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
            if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line.clone_from(&indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
            rest = behind.trim_start();
        }
        self.line(&line);
    }

    fn keys(&mut self, keys: &[KeyDoc]) {
        self.0.push('\n');
        for key in keys {
            self.entry(key.name, key.lua_type, key.doc);
        }
    }

    /// A key, a field or an argument: name, type, what it is. What may be absent is marked at its name.
    fn entry(&mut self, name: &str, lua_type: &str, doc: &str) {
        let (mark, lua_type) = match lua_type.strip_suffix('?') {
            Some(inner) if !inner.contains("fun(") || is_enclosed(inner) => ("?", inner),
            _ => ("", lua_type),
        };
        let lua_type = if is_enclosed(lua_type) { &lua_type[1..lua_type.len() - 1] } else { lua_type };
        let name = name.trim_end_matches('?');
        let doc = if doc.is_empty() { String::new() } else { format!(": {doc}") };
        self.wrapped("- ", &format!("`{name}{mark}` (`{lua_type}`){doc}"));
    }

    fn laws(&mut self) {
        self.line("\n### Laws\n");
        for law in LAWS {
            let keys: Vec<String> = law.keys.iter().map(|key| format!("`{key}`")).collect();
            let keys = if keys.is_empty() { String::new() } else { format!(" Its own keys: {}.", keys.join(", ")) };
            self.wrapped("- ", &format!("`{}`: {}{keys}", law.name, law.doc));
        }
    }

    fn guards(&mut self) {
        self.line("\n### Guards\n");
        let order = "In this order; each that changes the number leaves its name and a reason in the decision.";
        self.wrapped("", order);
        self.line("\n| guard | set by | what it does |\n|---|---|---|");
        for (guard, key, doc) in GUARDS {
            self.line(&format!("| `{}` | {key} | {doc} |", guard.as_str()));
        }
    }

    fn module(&mut self, module: &ModuleDoc) {
        self.heading(&format!("setpoint.{}", module.name), module.doc);
        if !module.fields.is_empty() {
            self.0.push('\n');
        }
        for (name, lua_type, doc) in module.fields {
            self.entry(&format!("{}.{name}", module.name), lua_type, doc);
        }
        for function in module.functions {
            self.function(module.name, function);
        }
        let types: Vec<String> = module.types.iter().map(|line| format!("---{line}")).collect();
        self.annotated(&types.join("\n"));
    }

    fn function(&mut self, module: &str, function: &FunctionDoc) {
        let name =
            if function.name.contains(':') { function.name.to_owned() } else { format!("{module}.{}", function.name) };
        let params: Vec<&str> = function.params.iter().map(|(name, _)| *name).collect();
        self.signature(&name, &params, &function.returns.join(", "), Some(function.access.as_str()));
        self.text(function.doc);
        if !function.params.is_empty() {
            self.0.push('\n');
        }
        for (name, lua_type) in function.params {
            self.entry(name, &optional(name, lua_type), "");
        }
    }

    fn signature(&mut self, name: &str, params: &[&str], returns: &str, mark: Option<&str>) {
        let arrow = if returns.is_empty() { String::new() } else { format!(" → `{returns}`") };
        let mark = mark.map(|mark| format!(" · *{mark}*")).unwrap_or_default();
        self.line(&format!("\n#### `{name}({})`{arrow}{mark}", params.join(", ")));
    }

    /// LuaCATS annotations as they stand in the editor types.
    fn annotated(&mut self, text: &str) {
        let mut item = Annotated::default();
        for line in text.lines() {
            if let Some(annotation) = line.strip_prefix("---@") {
                let (tag, rest) = annotation.split_once(' ').unwrap_or((annotation, ""));
                match tag {
                    "class" => self.class(rest, &mut item),
                    "field" => {
                        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                        let (lua_type, doc) = split_type(rest);
                        if !std::mem::replace(&mut item.in_list, true) {
                            self.0.push('\n');
                        }
                        self.entry(name, &optional(name, lua_type), doc);
                    }
                    "param" => {
                        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                        item.params.push((name, rest));
                    }
                    "return" => item.returns = rest,
                    _ => {}
                }
            } else if let Some(doc) = line.strip_prefix("---") {
                item.doc.push_str(doc);
                item.doc.push(' ');
            } else if let Some(function) = line.strip_prefix("function ") {
                self.annotated_function(function, &item);
                item = Annotated::default();
            } else {
                item = Annotated::default();
            }
        }
    }

    fn class<'a>(&mut self, rest: &'a str, item: &mut Annotated<'a>) {
        let rest = rest.strip_prefix("(exact) ").unwrap_or(rest);
        // `setpoint.A: setpoint.B What it is.`
        let (name, doc) = match rest.split_once(' ') {
            Some((name, rest)) if name.ends_with(':') => {
                let (parent, doc) = rest.split_once(' ').unwrap_or((rest, ""));
                item.doc.push_str(&format!("All of `{parent}`, and more. "));
                (name.trim_end_matches(':'), doc)
            }
            Some((name, doc)) => (name, doc),
            None => (rest, ""),
        };
        let doc = format!("{}{doc}", item.doc);
        self.heading(name, doc.trim());
        *item = Annotated::default();
    }

    fn annotated_function(&mut self, line: &str, item: &Annotated<'_>) {
        let name = line.split('(').next().unwrap_or(line);
        let params: Vec<&str> = item.params.iter().map(|(name, _)| *name).collect();
        let (returns, what) = split_type(item.returns);
        self.signature(name, &params, returns, None);
        // The prose begins with the result's name.
        let result = what.split_once(' ').map(|(_, said)| format!(" Result: {said}")).unwrap_or_default();
        let doc = format!("{}{result}", item.doc.trim());
        if !doc.trim().is_empty() {
            self.text(doc.trim());
        }
        if !item.params.is_empty() {
            self.0.push('\n');
        }
        for (name, rest) in &item.params {
            let (lua_type, doc) = split_type(rest);
            self.entry(name, &optional(name, lua_type), doc);
        }
    }

    fn limits(&mut self) {
        let limits = Limits::default();
        self.chapter("Limits", "Of each file's scripts, unless `[limits]` of the host's setpoint.toml says otherwise.");
        self.line("\n| key of `[limits]` | of what | default |\n|---|---|---|");
        let rows = [
            ("cpu", "CPU time of one call", format!("{} ms", limits.cpu.as_millis())),
            ("load_cpu", "CPU time of one load", format!("{} ms", limits.load_cpu.as_millis())),
            ("memory", "memory of one file's VM", bytes(limits.memory)),
            ("source", "a source file", bytes(limits.source)),
            ("output", "what one call may log", bytes(limits.output)),
            ("state", "`ctx.state` as JSON", bytes(limits.state)),
            ("body", "one HTTP body, file or command's output", bytes(limits.body)),
        ];
        for (key, what, value) in rows {
            let _infallible = writeln!(self.0, "| `{key}` | {what} | {value} |");
        }
        self.text(
            "A call also ends at its wall-clock deadline, which is the interval. A call over a limit is a failed one, and \
             its policy is backed off, up to 60 s. Nesting, strings and output have limits of their own that no setting moves.",
        );
    }
}

/// What stands before a class's fields, or before a function.
#[derive(Default)]
struct Annotated<'a> {
    doc: String,
    params: Vec<(&'a str, &'a str)>,
    returns: &'a str,
    in_list: bool,
}

/// Whether the first bracket closes at the very end.
fn is_enclosed(lua_type: &str) -> bool {
    let mut depth = 0_u32;
    let closes = lua_type.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(at)
    });
    lua_type.starts_with('(') && closes == Some(lua_type.len() - 1)
}

/// A type, with the mark of an optional name.
fn optional(name: &str, lua_type: &str) -> String {
    let is_function = lua_type.contains("fun(") && !is_enclosed(lua_type.trim_end_matches('?'));
    if !name.ends_with('?') || lua_type.ends_with('?') && !is_function {
        lua_type.to_owned()
    } else if lua_type.contains('|') || is_function {
        format!("({lua_type})?")
    } else {
        format!("{lua_type}?")
    }
}

/// A type and the prose behind it. The type ends at a blank outside of brackets that no `:`, `,` or `|` stands before.
fn split_type(text: &str) -> (&str, &str) {
    let (mut depth, mut before) = (0_u32, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '(' | '<' | '[' | '{' => depth += 1,
            ')' | '>' | ']' | '}' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && !matches!(before, ':' | ',' | '|') => return (&text[..at], text[at..].trim()),
            _ => {}
        }
        before = c;
    }
    (text, "")
}

fn bytes(n: usize) -> String {
    if n.is_multiple_of(1 << 20) { format!("{} MiB", n >> 20) } else { format!("{} KiB", n >> 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_ends_where_its_prose_begins() {
        for (text, lua_type, prose) in [
            ("string? The policy.", "string?", "The policy."),
            ("table<string, string|true> Its own.", "table<string, string|true>", "Its own."),
            ("T[]|fun(a: A): B? What it shows.", "T[]|fun(a: A): B?", "What it shows."),
            ("integer", "integer", ""),
        ] {
            assert_eq!(split_type(text), (lua_type, prose));
        }
        assert_eq!(optional("n?", "string|number"), "(string|number)?");
        assert_eq!(optional("n?", "integer"), "integer?");
        assert_eq!(optional("n", "integer"), "integer");
        assert_eq!(optional("n?", "fun(): A?"), "(fun(): A?)?", "the mark behind a function is its result's");
        assert!(is_enclosed("(a|b)") && is_enclosed("(fun(a: A): B)"));
        assert!(!is_enclosed("(a)|(b)") && !is_enclosed("fun(a: A)"));
    }

    #[test]
    fn every_law_of_the_types_is_explained_and_every_guard_stands_in_its_place() {
        let types = CONTROL_KEYS.iter().find(|key| key.name == "law").unwrap().lua_type;
        let names: Vec<&str> = types.split('"').skip(1).step_by(2).collect();
        assert_eq!(LAWS.map(|law| law.name).to_vec(), names);
        for key in LAWS.iter().flat_map(|law| law.keys) {
            assert!(CONTROL_KEYS.iter().any(|known| known.name == *key), "{key}");
        }
        assert!(GUARDS.is_sorted_by_key(|(guard, ..)| *guard));
    }
}
