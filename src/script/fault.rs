//! From mlua's errors to [`ScriptError`]: place, column, source line, call chain, hint.
//!
//! mlua and Luau put positions and stack traces into texts; this module takes them apart again. It keeps the sources
//! of a VM for that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::call::Refused;
use super::error::{Raised, ScriptError, ScriptErrorKind};
use super::meter::Trip;
use super::{Hook, Limits};

/// The chunk name of the prelude, which no report names.
pub(super) const PRELUDE: &str = "[setpoint]";

/// Most characters of a message.
const MESSAGE: usize = 300;

/// Most lines of a call chain.
const CALLS: usize = 16;

const TRACEBACK: &str = "stack traceback:";

impl From<Raised> for mlua::Error {
    fn from(raised: Raised) -> Self {
        Self::external(raised)
    }
}

/// Why a call failed, before it is told to a person.
#[derive(Debug)]
pub(super) enum Fault {
    /// Lua or the host raised.
    Lua(mlua::Error),
    /// A limit was broken; with the stack at that moment.
    Limit(Trip, Option<String>),
    /// The result is not what it should be: the message.
    Result(String),
}

/// The sources of a VM, by chunk name.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<BTreeMap<String, Arc<str>>>);

/// A place in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    chunk: String,
    line: u32,
}

/// A raised error in parts.
struct Parts {
    kind: ScriptErrorKind,
    message: String,
    hint: Option<String>,
    traceback: String,
}

impl Sources {
    /// Keeps a source.
    pub(super) fn insert(&self, chunk: &str, source: Arc<str>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk.to_owned(), source);
    }

    /// Tells a fault as its author can mend it.
    pub(super) fn explain(&self, main: &str, hook: Hook, fault: &Fault, limits: &Limits) -> ScriptError {
        match fault {
            Fault::Lua(error) => self.raised(main, hook, take_apart(error), limits),
            Fault::Limit(trip, trace) => {
                let (kind, message) = over_limit(*trip, hook, limits);
                let parts = Parts { kind, message, hint: None, traceback: trace.clone().unwrap_or_default() };
                self.raised(main, hook, parts, limits)
            }
            Fault::Result(message) => {
                let (message, hint) = split_hint(message);
                let mut error = ScriptError::new(main, hook, ScriptErrorKind::Type, shorten(&message));
                error.hint = hint;
                // No line of the script raised this; the key under which the function stands is the nearest place.
                self.locate(main, &[hook.as_str()], &mut error);
                error
            }
        }
    }

    fn raised(&self, main: &str, hook: Hook, parts: Parts, limits: &Limits) -> ScriptError {
        let (prefix, message) = self.strip_place(&parts.message);
        let frames = self.frames(&parts.traceback);
        // The prelude's own lines mean nothing to anyone; its caller's do.
        let place =
            prefix.filter(|place| place.chunk != PRELUDE).or_else(|| frames.first().map(|(place, _)| place.clone()));
        let (message, spoken_hint) = split_hint(&reword(message, limits));
        let kind = if message.starts_with("not enough memory") { ScriptErrorKind::Memory } else { parts.kind };
        let path = place.as_ref().map_or(main, |place| place.chunk.as_str());
        let mut error = ScriptError::new(path, hook, kind, shorten(&message));
        error.hint = parts.hint.or(spoken_hint);
        error.calls = frames.into_iter().map(|(_, text)| text).take(CALLS).collect();
        if let Some(place) = place {
            error.line = Some(place.line);
            error.source_line = self.line(&place);
            error.column = error.source_line.as_deref().and_then(|line| column(line, &error.message));
        }
        error
    }

    /// Takes `chunk:line:` off the front of a message, as often as it is there; the innermost place counts.
    fn strip_place<'a>(&self, message: &'a str) -> (Option<Place>, &'a str) {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut place, mut rest) = (None, message);
        'again: loop {
            for chunk in sources.keys().map(String::as_str).chain([PRELUDE]) {
                if let Some((line, after)) = after_place(rest, chunk) {
                    place = Some(Place { chunk: chunk.to_owned(), line });
                    rest = after;
                    continue 'again;
                }
            }
            return (place, rest);
        }
    }

    /// The frames of a stack trace that are in the user's files, innermost first.
    fn frames(&self, traceback: &str) -> Vec<(Place, String)> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        traceback
            .lines()
            .filter_map(|line| {
                let line = line.trim();
                let chunk = sources.keys().find(|chunk| after_place(line, chunk).is_some())?;
                let (number, rest) = after_place(line, chunk)?;
                Some((Place { chunk: chunk.clone(), line: number }, format!("{chunk}:{number} {rest}")))
            })
            .collect()
    }

    fn line(&self, place: &Place) -> Option<Arc<str>> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = sources.get(&place.chunk)?.lines().nth(place.line.checked_sub(1)? as usize)?;
        Some(line.chars().take(MESSAGE).collect::<String>().into())
    }

    /// The place of a key of the policy table: each part of its path is looked for after the one before.
    pub(super) fn locate(&self, chunk: &str, path: &[&str], error: &mut ScriptError) {
        let source = {
            let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sources.get(chunk).cloned()
        };
        let Some(source) = source else { return };
        let lines: Vec<&str> = source.lines().collect();
        let (mut at, mut from) = (None, (0, 0));
        for part in path {
            let Some(found) = find_key(&lines, from, part) else { break };
            at = Some(found);
            from = (found.0, found.1 + part.len());
        }
        let Some((line, offset)) = at else { return };
        error.line = u32::try_from(line + 1).ok();
        error.column = lines.get(line).and_then(|text| u32::try_from(text[..offset].chars().count() + 1).ok());
        error.source_line = lines.get(line).map(|text| text.chars().take(MESSAGE).collect::<String>().into());
    }
}

/// The text that a script sees of a host function's error that it caught.
pub(super) fn text_of(error: &mlua::Error) -> String {
    take_apart(error).message
}

fn take_apart(error: &mlua::Error) -> Parts {
    let plain = |kind, message: String| Parts { kind, message, hint: None, traceback: String::new() };
    match error {
        mlua::Error::CallbackError { traceback, cause } => {
            let mut parts = take_apart(cause);
            if parts.traceback.is_empty() {
                parts.traceback.clone_from(traceback);
            }
            parts
        }
        mlua::Error::WithContext { cause, .. } => take_apart(cause),
        mlua::Error::RuntimeError(text) => {
            let (message, traceback) = match text.rfind(TRACEBACK) {
                Some(at) => (text[..at].trim_end_matches('\n'), &text[at + TRACEBACK.len()..]),
                None => (text.as_str(), ""),
            };
            let traceback = traceback.to_owned();
            Parts { kind: ScriptErrorKind::Runtime, message: message.to_owned(), hint: None, traceback }
        }
        mlua::Error::SyntaxError { message, .. } => plain(ScriptErrorKind::Syntax, message.clone()),
        mlua::Error::MemoryError(_) => plain(ScriptErrorKind::Memory, "not enough memory".to_owned()),
        mlua::Error::BadArgument { to, pos, cause, .. } => {
            let mut parts = take_apart(cause);
            let of = to.as_deref().map(|name| format!(" to `{name}`")).unwrap_or_default();
            parts.message = format!("bad argument #{pos}{of}: {}", parts.message);
            parts
        }
        mlua::Error::FromLuaConversionError { from, to, message } => {
            let more = message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
            plain(ScriptErrorKind::Runtime, format!("expected {to}, got {from}{more}"))
        }
        mlua::Error::ExternalError(cause) => match cause.downcast_ref::<Raised>() {
            Some(raised) => {
                let hint = raised.hint.clone();
                Parts { kind: raised.kind, message: raised.message.clone(), hint, traceback: String::new() }
            }
            None if cause.is::<Refused>() => plain(ScriptErrorKind::Refused, cause.to_string()),
            None => plain(ScriptErrorKind::Runtime, cause.to_string()),
        },
        other => plain(ScriptErrorKind::Runtime, other.to_string()),
    }
}

fn over_limit(trip: Trip, hook: Hook, limits: &Limits) -> (ScriptErrorKind, String) {
    match trip {
        Trip::Cpu => {
            let limit = if hook == Hook::Load { limits.load_cpu } else { limits.cpu };
            (ScriptErrorKind::Cpu, format!("expected to be done within {} of CPU time, was stopped", short(limit)))
        }
        Trip::Deadline => {
            (ScriptErrorKind::Deadline, "expected to be done before the deadline, was stopped".to_owned())
        }
    }
}

/// Luau's words for a few things that policies run into, in ours.
fn reword(message: &str, limits: &Limits) -> String {
    let trimmed = message.trim();
    if trimmed == "not enough memory" {
        return format!("not enough memory: a file's scripts may hold {} in all", bytes(limits.memory));
    }
    if trimmed == "attempt to modify a readonly table" {
        return "this table is read-only; keep values of your own in `local` variables or in ctx.state".to_owned();
    }
    if trimmed.is_empty() {
        return "raised an empty message".to_owned();
    }
    if trimmed == "nil" {
        return "raised nil, expected a message".to_owned();
    }
    if let Some((kind, address)) = trimmed.split_once(": 0x")
        && matches!(kind, "table" | "function" | "thread" | "userdata" | "buffer")
        && address.chars().all(|c| c.is_ascii_hexdigit())
    {
        return format!("raised a {kind}, expected a message");
    }
    message.to_owned()
}

/// `x; did you mean `y`?` → the message and the hint.
fn split_hint(message: &str) -> (String, Option<String>) {
    match message.find("; did you mean ") {
        Some(at) => (message[..at].to_owned(), Some(message[at + 2..].to_owned())),
        None => (message.to_owned(), None),
    }
}

/// What follows `chunk:line:` at the start of a text. Luau cuts long chunk names at the front.
fn after_place<'a>(text: &'a str, chunk: &str) -> Option<(u32, &'a str)> {
    let rest = match text.strip_prefix("...") {
        Some(cut) => {
            let end = cut.find(':')?;
            chunk.ends_with(&cut[..end]).then(|| &cut[end..])?
        }
        None => text.strip_prefix(chunk)?,
    };
    let rest = rest.strip_prefix(':')?;
    let (number, rest) = rest.split_once(':')?;
    Some((number.parse().ok()?, rest.trim_start()))
}

/// The column of what a message quotes, when it stands in the line exactly once.
fn column(line: &str, message: &str) -> Option<u32> {
    let quoted = ['\'', '`', '"'].into_iter().flat_map(|mark| message.split(mark).skip(1).step_by(2));
    for word in quoted.filter(|word| !word.is_empty()) {
        let mut places = words(line, word);
        if let (Some(at), None) = (places.next(), places.next()) {
            return u32::try_from(line[..at].chars().count() + 1).ok();
        }
    }
    None
}

/// Where `word` stands in `line` as a whole word.
fn words<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let named = word.chars().all(part_of_name);
    line.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !named
            || (!line[..at].chars().next_back().is_some_and(part_of_name)
                && !line[at + word.len()..].chars().next().is_some_and(part_of_name))
    })
}

/// The first `key =` or `["key"] =` from a place on.
fn find_key(lines: &[&str], from: (usize, usize), key: &str) -> Option<(usize, usize)> {
    for (number, line) in lines.iter().enumerate().skip(from.0) {
        let start = if number == from.0 { from.1 } else { 0 };
        let code = line.split("--").next().unwrap_or(line);
        for at in words(code, key) {
            let after = code[at + key.len()..].trim_start_matches(['"', '\'', ']']).trim_start();
            let is_key = after.starts_with('=') && !after.starts_with("==");
            let is_function = code[..at].trim_end().ends_with("function");
            if at >= start && (is_key || is_function) {
                return Some((number, at));
            }
        }
    }
    None
}

fn shorten(message: &str) -> String {
    let message = message.trim().replace(['\n', '\r'], " ");
    if message.chars().count() <= MESSAGE {
        return message;
    }
    message.chars().take(MESSAGE - 1).chain(['…']).collect()
}

fn short(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs_f64())
    }
}

fn bytes(count: usize) -> String {
    if count >= 1 << 20 { format!("{} MiB", count >> 20) } else { format!("{} KiB", count >> 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        let sources = Sources::default();
        let text =
            "local x = 1\nreturn {\n  control = {\n    cooldown = { dwon = \"3s\" },\n  },\n  metric = foo(bar)\n}\n";
        sources.insert("dir/p.lua", text.into());
        sources
    }

    #[test]
    fn a_runtime_error_has_place_column_calls_and_hint() {
        let text = "dir/p.lua:6: undefined global `bar`; did you mean `bat`?\nstack traceback:\n\t[setpoint]:12: in \
                    function 'f'\n\tdir/p.lua:6: in function 'metric'\n\t[C]: in ?";
        let fault = Fault::Lua(mlua::Error::RuntimeError(text.to_owned()));
        let error = sources().explain("dir/p.lua", Hook::Metric, &fault, &Limits::default());
        assert_eq!(error.headline(), "dir/p.lua:6:16: metric: undefined global `bar`");
        assert_eq!(error.hint.as_deref(), Some("did you mean `bat`?"));
        assert_eq!(error.calls, ["dir/p.lua:6 in function 'metric'"]);
        assert_eq!(error.source_line.as_deref(), Some("  metric = foo(bar)"));
    }

    #[test]
    fn the_innermost_place_counts_and_the_preludes_never() {
        let sources = sources();
        assert_eq!(
            sources.strip_place("dir/p.lua:6: dir/p.lua:1: boom"),
            (Some(Place { chunk: "dir/p.lua".into(), line: 1 }), "boom")
        );
        let text = "[setpoint]:70: attempt to compare nil\nstack traceback:\n\tdir/p.lua:6: in function 'metric'";
        let fault = Fault::Lua(mlua::Error::RuntimeError(text.to_owned()));
        let error = sources.explain("dir/p.lua", Hook::Metric, &fault, &Limits::default());
        assert_eq!((error.line, error.message.as_str()), (Some(6), "attempt to compare nil"));
    }

    #[test]
    fn keys_of_the_table_are_found_in_the_source() {
        let mut error = ScriptError::new("dir/p.lua", Hook::Load, ScriptErrorKind::Shape, "unknown key");
        sources().locate("dir/p.lua", &["control", "cooldown", "dwon"], &mut error);
        assert_eq!((error.line, error.column), (Some(4), Some(18)));
    }

    #[test]
    fn cut_chunk_names_still_match() {
        assert_eq!(after_place("...long/p.lua:12: boom", "/very/long/p.lua"), Some((12, "boom")));
        assert_eq!(after_place("other.lua:12: boom", "p.lua"), None);
    }
}
