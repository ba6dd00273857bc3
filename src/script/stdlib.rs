//! What the prelude stands on: the host functions behind the environment of policy files.
//!
//! The prelude (`prelude.lua`) decides what scripts see; this module gives it the clock, chance, output and the
//! checks that Luau's own library lacks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mlua::{AnyUserData, Function, Lua, LuaString, Table, UserData, Value, Variadic};
use once_cell::sync::OnceCell;

use super::call::CallScope;
use super::convert::{describe, did_you_mean};
use super::error::Raised;
use super::fault::text_of;
use super::meter::Meter;
use super::params::params;
use super::require::find_module;
use super::vm::load_prelude;

const SOURCE: &str = include_str!("prelude.lua");

/// Most steps of one pattern item over a subject: the work that Luau does without asking.
const PATTERN_WORK: usize = 200_000_000;

/// Metatables for the rows of `ctx.tasks` and `ctx.history`.
pub(super) struct RowMetas {
    pub(super) task: Table,
    pub(super) point: Table,
}

/// The function that makes an environment of modules that are there already and of further globals.
#[cfg_attr(not(feature = "sim"), expect(dead_code, reason = "specs make environments"))]
struct NewEnvironment(Function);

/// An environment with modules that are there already, by their full names, and with further globals.
#[cfg(feature = "sim")]
pub(super) fn new_environment(lua: &Lua, loaded: Table, globals: Table) -> mlua::Result<Table> {
    let new = lua.app_data_ref::<NewEnvironment>().map(|new| new.0.clone());
    let new = new.ok_or_else(|| mlua::Error::runtime("invariant: a VM can make environments"))?;
    new.call((loaded, globals))
}

/// What `setpoint.fleet{…}` returns.
pub(super) struct FleetTable(pub(super) Table);

impl UserData for FleetTable {}

/// Makes the environment of policy files in a fresh VM.
pub(super) fn environment(lua: &Lua, meter: &Arc<Meter>) -> mlua::Result<Table> {
    static COMPILED: OnceCell<Vec<u8>> = OnceCell::new();
    let host = lua.create_table()?;
    host.raw_set(
        "unknown",
        lua.create_function(|_, (what, key, names): (String, Value, Vec<String>)| Ok(unknown(&what, &key, &names)))?,
    )?;
    host.raw_set("sealed", lua.create_function(|_, (what, key): (String, Value)| Ok(sealed(&what, &key)))?)?;
    host.raw_set("check_pattern", lua.create_function(check_pattern)?)?;
    host.raw_set(
        "find_plain",
        lua.create_function(|_, (subject, needle, init): (LuaString, LuaString, Option<f64>)| {
            Ok(find_plain(&subject.as_bytes(), &needle.as_bytes(), init))
        })?,
    )?;
    host.raw_set("error_text", lua.create_function(|_, problem: Value| Ok(error_text(&problem)))?)?;
    host.raw_set("print", lua.create_function(print)?)?;
    host.raw_set("now", lua.create_function(|lua, ()| Ok(seconds(CallScope::current(lua)?.now)))?)?;
    host.raw_set("fleet", lua.create_function(fleet)?)?;
    host.raw_set("params", lua.create_function(params)?)?;
    host.raw_set("find_module", lua.create_function(find_module)?)?;
    chance(lua, &host, meter)?;
    let environment: Table = load_prelude(lua, SOURCE, &COMPILED)?.call(&host)?;
    let row_meta: Function = host.raw_get("row_meta")?;
    lua.set_app_data(RowMetas {
        task: row_meta.call(("a task", super::ctx::TASK_KEYS.to_vec()))?,
        point: row_meta.call(("a point of the history", super::ctx::POINT_KEYS.to_vec()))?,
    });
    lua.set_app_data(NewEnvironment(host.raw_get("new_environment")?));
    Ok(environment)
}

/// Seconds since 1970, with fractions.
pub(super) fn seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// Says that a name does not exist, and which one may have been meant.
pub(super) fn unknown(what: &str, key: &Value, names: &[String]) -> String {
    let name: String = match key {
        Value::String(text) => text.to_string_lossy().chars().take(60).collect(),
        other => return format!("{what} has no {}", describe(other)),
    };
    let hint = did_you_mean(&name, names.iter().map(String::as_str));
    if what == "global" { format!("undefined global `{name}`{hint}") } else { format!("{what} has no `{name}`{hint}") }
}

fn sealed(what: &str, key: &Value) -> String {
    let name: String = match key {
        Value::String(text) => text.to_string_lossy().chars().take(60).collect(),
        other => describe(other),
    };
    if what == "global" {
        format!("assignment to the global `{name}`: write `local {name}` or `local function {name}`")
    } else {
        format!("{what} is read-only, and `{name}` cannot be set")
    }
}

/// Refuses patterns whose single steps would take long: a set is walked for each character without a question.
fn check_pattern(_: &Lua, (subject, pattern): (LuaString, LuaString)) -> mlua::Result<()> {
    let pattern = pattern.as_bytes();
    let (mut longest, mut start) = (1, None);
    for (at, byte) in pattern.iter().enumerate() {
        match (byte, start) {
            (b'[', None) => start = Some(at),
            (b']', Some(from)) if at > from + 1 => {
                longest = longest.max(at - from);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        longest = longest.max(pattern.len() - from);
    }
    if longest.saturating_mul(subject.as_bytes().len()) > PATTERN_WORK {
        let size = subject.as_bytes().len();
        return Err(Raised::wrong(format!(
            "the pattern has a set of {longest} characters, too many for a text of {size} bytes"
        ))
        .into());
    }
    Ok(())
}

/// `string.find(s, p, init, true)` in linear time.
fn find_plain(subject: &[u8], needle: &[u8], init: Option<f64>) -> (Option<f64>, Option<f64>) {
    let length = subject.len() as f64;
    let init = init.unwrap_or(1.0).trunc();
    let from = if init < 0.0 { (length + init).max(0.0) } else { (init - 1.0).max(0.0) };
    if from > length {
        return (None, None);
    }
    let from = from as usize;
    let first = memchr::memmem::find(&subject[from..], needle).map(|at| from + at + 1);
    (first.map(|first| first as f64), first.map(|first| (first + needle.len() - 1) as f64))
}

fn error_text(problem: &Value) -> String {
    match problem {
        Value::Error(error) => text_of(error),
        Value::UserData(_) => "userdata".to_owned(),
        other => describe(other),
    }
}

/// `print`: a line in the log, within the call's output budget.
fn print(lua: &Lua, text: LuaString) -> mlua::Result<()> {
    let scope = CallScope::current(lua)?;
    if !scope.take_output(text.as_bytes().len() + 1) {
        return Err(Raised::wrong("this call has printed and logged more than it may").into());
    }
    tracing::info!(policy = %scope.policy, hook = scope.hook.as_str(), "{}", text.to_string_lossy());
    Ok(())
}

fn chance(lua: &Lua, host: &Table, meter: &Arc<Meter>) -> mlua::Result<()> {
    let drawn = Arc::clone(meter);
    let random = lua.create_function(move |_, bounds: Variadic<f64>| {
        let range = match bounds.as_slice() {
            [] => return Ok(drawn.random(fastrand::Rng::f64)),
            [high] => (1.0, *high),
            [low, high, ..] => (*low, *high),
        };
        let (low, high) = (range.0.floor(), range.1.floor());
        // 2^53: the range in which every whole number exists.
        if !(low <= high && low.abs() <= 9_007_199_254_740_992.0 && high.abs() <= 9_007_199_254_740_992.0) {
            return Err(Raised::wrong(format!("math.random: expected m <= n, got {low} and {high}")).into());
        }
        Ok(drawn.random(|random| random.i64(low as i64..=high as i64)) as f64)
    })?;
    let seeded = Arc::clone(meter);
    let randomseed = lua.create_function(move |_, seed: f64| {
        seeded.random(|random| random.seed(seed.to_bits()));
        Ok(())
    })?;
    host.raw_set("random", random)?;
    host.raw_set("randomseed", randomseed)
}

fn fleet(lua: &Lua, table: Value) -> mlua::Result<AnyUserData> {
    match table {
        Value::Table(table) => lua.create_userdata(FleetTable(table)),
        other => Err(Raised::wrong(format!("setpoint.fleet: expected a table, got {}", describe(&other))).into()),
    }
}
