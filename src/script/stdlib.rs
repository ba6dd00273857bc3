//! What the prelude stands on: the host functions behind the environment of policy files.
//!
//! The prelude (`prelude.lua`) decides what scripts see; this module gives it the clock, chance, files, parameters and
//! the checks that Luau's own library lacks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use mlua::{AnyUserData, Function, Lua, LuaString, Table, UserData, Value, Variadic};

use super::call::{CallScope, HostShared};
use super::convert::{describe, did_you_mean, quote};
use super::error::Raised;
use super::fault::text_of;
use super::meter::Meter;
use super::vm::{compile, compile_prelude};
use super::{Hook, Param, ParamValue, api};

const SOURCE: &str = include_str!("prelude.lua");

/// Most steps of one pattern item over a subject: the work that Luau does without asking.
const PATTERN_WORK: usize = 200_000_000;

/// Parameters of a load: what is set from outside, and what the script declares.
#[derive(Debug, Default)]
pub(super) struct Params {
    given: BTreeMap<String, String>,
    declared: Mutex<Vec<Param>>,
    values: Mutex<Option<Table>>,
}

/// The files that a VM has loaded through `require`.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    required: Mutex<Vec<PathBuf>>,
    environment: Mutex<Option<Table>>,
}

/// Metatables for the rows of `ctx.tasks` and `ctx.history`.
pub(super) struct RowMetas {
    pub(super) task: Table,
    pub(super) point: Table,
}

/// What `setpoint.fleet{…}` returns.
pub(super) struct FleetTable(pub(super) Table);

impl UserData for FleetTable {}

impl Params {
    /// With what is set from outside.
    pub(super) fn new(given: BTreeMap<String, String>) -> Self {
        Self { given, ..Self::default() }
    }

    /// What the script has declared so far.
    pub(super) fn declared(&self) -> Vec<Param> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The table of values, read-only; none when nothing is declared.
    pub(super) fn values(&self) -> Option<Table> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Declares parameters with their defaults; returns the table of their values.
    pub(super) fn declare(&self, lua: &Lua, defaults: &Table) -> Result<Table, String> {
        let mut params = Vec::new();
        for pair in defaults.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(|error| error.to_string())?;
            let Value::String(name) = &key else {
                return Err(format!("setpoint.params: expected names as keys, got {}", describe(&key)));
            };
            let name = name.to_string_lossy();
            let well_named = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !well_named || name.is_empty() || name.len() > 63 {
                return Err(format!("setpoint.params: expected a name of letters, digits and _, got {}", quote(&name)));
            }
            if params.len() >= 256 {
                return Err("setpoint.params: expected at most 256 parameters, got more".to_owned());
            }
            let default = default_of(&name, &value)?;
            let value = match self.given.get(&name) {
                Some(text) => parse_param(&name, text, &default)?,
                None => default.clone(),
            };
            params.push(Param { name, default, value });
        }
        params.sort_by(|a, b| a.name.cmp(&b.name));
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        if !declared.is_empty() && *declared != params {
            return Err("setpoint.params: parameters are declared once, got a second table of them".to_owned());
        }
        let table = table_of(lua, &params).map_err(|error| error.to_string())?;
        *declared = params;
        *self.values.lock().unwrap_or_else(PoisonError::into_inner) = Some(table.clone());
        Ok(table)
    }
}

impl Files {
    /// For files in a folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, required: Mutex::default(), environment: Mutex::default() }
    }

    /// The files so far.
    pub(super) fn required(&self) -> Vec<PathBuf> {
        self.required.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds `name.lua` or `name/init.lua`; dots and slashes part folders.
    fn find(&self, name: &str) -> Result<PathBuf, String> {
        let parts: Vec<&str> = name.strip_prefix("./").unwrap_or(name).split(['.', '/']).collect();
        let well_formed =
            |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if name.len() > 200 || !parts.iter().all(well_formed) {
            return Err(format!(
                "require: expected a module below the policy's folder such as \"lib.util\", got {}",
                quote(name)
            ));
        }
        let stem: PathBuf = parts.iter().collect();
        let candidates = [stem.with_extension("lua"), stem.join("init.lua")];
        let Some(path) = candidates.iter().map(|path| self.folder.join(path)).find(|path| path.is_file()) else {
            return Err(format!(
                "require: no module {}: expected {} or {} in {}",
                quote(name),
                candidates[0].display(),
                candidates[1].display(),
                self.folder.display()
            ));
        };
        let real = |path: &Path| path.canonicalize().map_err(|error| format!("require: {}: {error}", path.display()));
        // Links inside the folder are fine (that is how mounted configuration looks), links out of it are not.
        if !real(&path)?.starts_with(real(&self.folder)?) {
            return Err(format!("require: {} leads out of the policy's folder, which is not allowed", path.display()));
        }
        Ok(path)
    }
}

/// Makes the environment of policy files in a fresh VM.
pub(super) fn environment(lua: &Lua, meter: &Arc<Meter>) -> mlua::Result<Table> {
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
    let environment: Table = compile_prelude(lua, SOURCE)?.call(&host)?;
    let row_meta: Function = host.raw_get("row_meta")?;
    lua.set_app_data(RowMetas {
        task: row_meta.call(("a task", super::ctx::TASK_KEYS.to_vec()))?,
        point: row_meta.call(("a point of the history", super::ctx::POINT_KEYS.to_vec()))?,
    });
    if let Some(files) = lua.app_data_ref::<Files>() {
        *files.environment.lock().unwrap_or_else(PoisonError::into_inner) = Some(environment.clone());
    }
    Ok(environment)
}

/// Seconds since 1970, with fractions.
pub(super) fn seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

fn unknown(what: &str, key: &Value, names: &[String]) -> String {
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

fn params(lua: &Lua, defaults: Value) -> mlua::Result<Table> {
    if CallScope::current(lua)?.hook != Hook::Load {
        return Err(Raised::wrong("setpoint.params: parameters are declared while the file is loaded").into());
    }
    let Value::Table(defaults) = defaults else {
        let got = describe(&defaults);
        return Err(Raised::wrong(format!("setpoint.params: expected a table of defaults, got {got}")).into());
    };
    let params = lua.app_data_ref::<Params>().ok_or_else(|| mlua::Error::runtime("invariant: a VM has parameters"))?;
    params.declare(lua, &defaults).map_err(|message| Raised::wrong(message).into())
}

fn default_of(name: &str, value: &Value) -> Result<ParamValue, String> {
    match value {
        Value::Boolean(flag) => Ok(ParamValue::Bool(*flag)),
        Value::Integer(_) | Value::Number(_) => {
            super::convert::finite(value, &format!("parameter `{name}`")).map(ParamValue::Number)
        }
        Value::String(text) if text.as_bytes().len() <= 4096 => Ok(ParamValue::Text(text.to_string_lossy())),
        Value::String(_) => Err(format!("parameter `{name}`: expected at most 4096 bytes, got more")),
        other => Err(format!(
            "parameter `{name}`: expected a number, text or boolean as its default, got {}",
            describe(other)
        )),
    }
}

/// A parameter that came as text, as its default's type.
fn parse_param(name: &str, text: &str, default: &ParamValue) -> Result<ParamValue, String> {
    match default {
        ParamValue::Text(_) => Ok(ParamValue::Text(text.to_owned())),
        ParamValue::Bool(_) => match text {
            "true" => Ok(ParamValue::Bool(true)),
            "false" => Ok(ParamValue::Bool(false)),
            other => Err(format!("parameter `{name}`: expected true or false, got {}", quote(other))),
        },
        ParamValue::Number(_) => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(ParamValue::Number(number)),
            _ => Err(format!("parameter `{name}`: expected a number, got {}", quote(text))),
        },
    }
}

fn table_of(lua: &Lua, params: &[Param]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, params.len())?;
    for param in params {
        match &param.value {
            ParamValue::Bool(flag) => table.raw_set(param.name.as_str(), *flag)?,
            ParamValue::Number(number) => table.raw_set(param.name.as_str(), *number)?,
            ParamValue::Text(text) => table.raw_set(param.name.as_str(), text.as_str())?,
        }
    }
    let names: Vec<String> = params.iter().map(|param| param.name.clone()).collect();
    let meta = lua.create_table()?;
    meta.raw_set(
        "__index",
        lua.create_function(move |_, (_, key): (Value, Value)| -> mlua::Result<()> {
            Err(Raised::wrong(unknown("params", &key, &names)).into())
        })?,
    )?;
    meta.raw_set("__metatable", false)?;
    table.set_metatable(Some(meta))?;
    table.set_readonly(true);
    Ok(table)
}

/// `require`: true and a module's table; true, nil and a compiled file; or false and why not.
fn find_module(lua: &Lua, name: String) -> mlua::Result<(bool, Value, Option<Function>)> {
    let refuse = |message: String| Ok((false, Value::String(lua.create_string(message)?), None));
    if let Some(short) = name.strip_prefix("setpoint.") {
        let modules = api::modules();
        if let Some(module) = modules.iter().find(|module| module.name == short) {
            return Ok((true, Value::Table((module.register)(lua)?), None));
        }
        if short == api::host::NAME {
            return Ok((true, Value::Table(api::host::register(lua)?), None));
        }
        let names = modules.iter().map(|module| module.name).chain(["params", api::host::NAME]);
        return refuse(format!("there is no module {}{}", quote(&name), did_you_mean(short, names)));
    }
    if CallScope::current(lua)?.hook != Hook::Load {
        return refuse(format!("require of {}: files are required while the policy loads, at its top", quote(&name)));
    }
    let files = lua.app_data_ref::<Files>().ok_or_else(|| mlua::Error::runtime("invariant: a VM has its files"))?;
    let path = match files.find(&name) {
        Ok(path) => path,
        Err(message) => return refuse(message),
    };
    let limit = HostShared::of(lua)?.limits.source;
    let source = match read_source(&path, limit) {
        Ok(source) => source,
        Err(message) => return refuse(message),
    };
    files.required.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let environment = files.environment.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(environment) = environment else {
        return refuse("invariant: a sealed VM has its environment".to_owned());
    };
    let chunk = path.display().to_string();
    if let Some(sources) = lua.app_data_ref::<Arc<super::fault::Sources>>() {
        sources.insert(&chunk, source.as_str().into());
    }
    let function = compile(lua, &environment, &chunk, &source)?;
    Ok((true, Value::Nil, Some(function)))
}

/// A source file's text.
pub(super) fn read_source(path: &Path, limit: usize) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(format!("cannot read {}: expected a file", path.display()));
    }
    if meta.len() > limit as u64 {
        return Err(format!("cannot read {}: expected at most {limit} bytes, got {}", path.display(), meta.len()));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| format!("cannot read {}: expected text in UTF-8", path.display()))
}
