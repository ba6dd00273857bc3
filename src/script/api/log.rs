//! `setpoint.log`: lines from scripts into the host's log, under the policy's name.
//!
//! A call may write so many bytes (`Limits::output`); the first line beyond that is replaced by one that says
//! so, and the rest of the call is silent. Control characters are written as escapes: a script cannot forge a
//! line nor drive a terminal.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use mlua::{Lua, Table, Value};

use super::args::{Args, describe, number, plain, text};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::CallScope;

const PARAMS: &[(&str, &str)] = &[("message", "string"), ("fields?", "table<string, string|number|boolean>")];

/// All four functions are alike.
const fn level(name: &'static str, doc: &'static str) -> FunctionDoc {
    FunctionDoc { name, params: PARAMS, returns: &[], access: Access::Pure, doc }
}

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "log",
    doc: "Lines in the host's log, with the policy's name. Fields are written as `key=value` after the message. A call may log \
          16 KiB unless the host says otherwise; what goes beyond is dropped, which the log says once.",
    types: &[],
    fields: &[],
    functions: &[
        level("debug", "Details for a closer look (`-v`)."),
        level("info", "Something worth knowing happened."),
        level("warn", "Something is odd; the policy goes on."),
        level("error", "Something failed."),
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    for (name, level) in [
        ("log.debug", tracing::Level::DEBUG),
        ("log.info", tracing::Level::INFO),
        ("log.warn", tracing::Level::WARN),
        ("log.error", tracing::Level::ERROR),
    ] {
        let function = plain(lua, name, 2, move |lua, args| {
            let line = line(args)?;
            write(&*CallScope::current(lua)?, level, &line);
            Ok(())
        })?;
        module.raw_set(name.trim_start_matches("log."), function)?;
    }
    Ok(module)
}

fn line(args: &Args) -> mlua::Result<String> {
    let message = args.bytes(1, "text")?;
    let mut line = String::from_utf8_lossy(&message).into_owned();
    if args.value(2).is_nil() {
        return Ok(line);
    }
    let mut fields = Vec::new();
    for pair in args.table(2, "a table of fields")?.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let expected = || args.error(format!("argument 2: expected text keys, got {}", describe(&key)));
        let key = text(&key).ok_or_else(expected)?;
        let value = match &value {
            Value::Boolean(truth) => truth.to_string(),
            Value::String(text) => text.to_string_lossy(),
            other => number(other).map(|number| number.to_string()).ok_or_else(|| {
                let got = describe(other);
                args.error(format!("argument 2: field {key}: expected text, a number or a boolean, got {got}"))
            })?,
        };
        fields.push((key, value));
    }
    fields.sort();
    for (key, value) in fields {
        // Writing to a string cannot fail.
        let _infallible = write!(line, " {key}={value}");
    }
    Ok(line)
}

/// Writes one line on behalf of a call, cleaned, within its budget.
pub(crate) fn write(scope: &CallScope, level: tracing::Level, message: &str) {
    // Whatever escaping adds counts too: it is written after all. Far too long lines are not even escaped.
    let fits = message.len() <= scope.output_left.load(Ordering::Relaxed);
    let clean = if fits { clean(message) } else { String::new() };
    if fits && scope.take_output(clean.len() + 1) {
        emit(scope, level, &clean);
    } else if scope.output_left.swap(0, Ordering::Relaxed) > 0 {
        emit(scope, tracing::Level::WARN, "this call has logged as much as it may; the rest of it is dropped");
    }
}

fn clean(message: &str) -> String {
    let mut clean = String::with_capacity(message.len());
    for c in message.chars() {
        // Besides control characters, the marks that turn the direction of text round can make a line lie.
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

fn emit(scope: &CallScope, level: tracing::Level, line: &str) {
    let (policy, hook) = (scope.policy.as_str(), scope.hook.as_str());
    // The macros need the level at compile time.
    match level {
        tracing::Level::ERROR => tracing::error!(target: "setpoint::script", policy, hook, "{line}"),
        tracing::Level::WARN => tracing::warn!(target: "setpoint::script", policy, hook, "{line}"),
        tracing::Level::INFO => tracing::info!(target: "setpoint::script", policy, hook, "{line}"),
        _ => tracing::debug!(target: "setpoint::script", policy, hook, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_escapes() {
        assert_eq!(clean("a\nb\x1b[31mc\u{202e}d\u{9b}ü"), "a\\nb\\u{1b}[31mc\\u{202e}d\\u{9b}ü");
    }
}
