//! `load_policy`: a policy beside the spec, in the spec's VM, with fakes before the host's modules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mlua::{Function, MultiValue, Table, Value};

use crate::config::units;
use crate::core::model::PolicyName;

use super::super::call::{CallScope, Outside};
use super::super::checker::Findings;
use super::super::convert::{describe, did_you_mean, quote, whole};
use super::super::error::Raised;
use super::super::fault::Fault;
use super::super::fleet;
use super::super::loader::{declare_params, shape_errors};
use super::super::meter::RUNAWAY;
use super::super::params::Params;
use super::super::require::{Files, read_source};
use super::super::row::Row;
use super::super::state::{to_json, to_lua};
use super::super::stdlib::{FleetTable, new_environment};
use super::super::table::{Backends, policy};
use super::super::vm::Vm;
use super::super::{Direct, Hook, Mode, ScriptError};
use super::Opening;

/// The first of January 2026, when nothing else is said.
const WALL: u64 = 1_767_225_600;

/// Wall time of calls; nothing waits.
const NO_WALL: Duration = Duration::from_secs(86_400);

/// A policy that a spec has loaded.
pub(super) struct Loaded {
    pub(super) opening: Opening,
    /// Its parameters, which are the VM's own only while it is called.
    pub(super) params: Params,
    /// What it returned.
    pub(super) table: Table,
}

/// A file as its user names it, and as a function.
pub(super) type Main = (String, Function);

/// Why a policy did not load.
pub(super) enum Refusal {
    /// The call was wrong.
    Call(mlua::Error),
    /// The policy is.
    Policy(Vec<ScriptError>),
}

impl From<mlua::Error> for Refusal {
    fn from(error: mlua::Error) -> Self {
        Self::Call(error)
    }
}

/// A scope for a call of a spec, or of a policy while it loads.
pub(super) fn scope(vm: &Vm, hook: Hook) -> Arc<CallScope> {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL);
    let mut scope = vm.scope(vm.name.clone(), hook, Mode::Record, wall, NO_WALL);
    scope.outside = Outside::Spec;
    Arc::new(scope)
}

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal::Call(Raised::wrong(message).into())
}

/// A duration with a unit, or nothing.
pub(super) fn duration(value: &Value, what: &str) -> mlua::Result<Option<Duration>> {
    match value {
        Value::Nil => Ok(None),
        Value::String(text) => match units::parse_duration(&text.to_string_lossy()) {
            Ok(duration) => Ok(Some(duration)),
            Err(error) => Err(Raised::wrong(format!("{what}: {error}")).into()),
        },
        other => {
            let got = describe(other);
            Err(Raised::wrong(format!("{what}: expected a duration with a unit such as \"15s\", got {got}")).into())
        }
    }
}

/// Loads what `options` names; `fakes` are modules by their full names. With `coverage` its file goes to `mains`, also
/// when it refuses to load.
pub(super) fn load(
    vm: &Arc<Vm>,
    own: &str,
    backends: &[String],
    coverage: bool,
    options: &Table,
    fakes: Table,
    mains: &mut Vec<Main>,
) -> Result<Loaded, Refusal> {
    let lua = &vm.lua;
    let name = options.raw_get::<Option<String>>("name")?.unwrap_or_else(|| own.to_owned());
    let found = lua.app_data_ref::<Files>().map(|files| files.find(&name));
    let path = match found {
        Some(Ok(path)) => path,
        Some(Err(message)) => return Err(wrong(message.replacen("require", "load_policy", 1))),
        None => return Err(wrong("invariant: a VM has its files")),
    };
    let source: Arc<str> = match read_source(&path, vm.limits().source) {
        Ok(source) => source.into(),
        Err(reason) => return Err(wrong(format!("load_policy: cannot read {}: {reason}", path.display()))),
    };
    let environment = new_environment(lua, fakes, lua.create_table()?)?;
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let chunk = path.strip_prefix(".").unwrap_or(&path).display().to_string();
    let policy_vm = vm.sibling(chunk, PolicyName::from(stem.as_str()), environment, coverage);
    let given = params_of(options)?;
    let params = Params::new(given.clone(), &stem, &BTreeMap::new());
    let before = lua.set_app_data(params);
    let made = compile_and_make(&policy_vm, backends, options, &source, mains);
    let params = lua.remove_app_data::<Params>().unwrap_or_default();
    if let Some(before) = before {
        lua.set_app_data(before);
    }
    let (opening, table) = made?;
    let declared = params.declared();
    if let Some(unknown) = given.keys().find(|key| declared.iter().all(|param| param.name != **key)) {
        let hint = did_you_mean(unknown, declared.iter().map(|param| param.name.as_str()));
        return Err(wrong(format!("load_policy: params: {stem} declares no parameter {}{hint}", quote(unknown))));
    }
    Ok(Loaded { opening, params, table })
}

fn params_of(options: &Table) -> Result<BTreeMap<String, String>, Refusal> {
    let given = match options.raw_get::<Value>("params")? {
        Value::Nil => return Ok(BTreeMap::new()),
        Value::Table(given) => given,
        other => return Err(wrong(format!("load_policy: params: expected a table, got {}", describe(&other)))),
    };
    let mut params = BTreeMap::new();
    for pair in given.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let text = match &value {
            Value::Boolean(flag) => flag.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.to_string_lossy(),
            other => {
                let got = describe(other);
                return Err(wrong(format!("load_policy: params: expected numbers, texts and booleans, got {got}")));
            }
        };
        match &key {
            Value::String(key) => params.insert(key.to_string_lossy(), text),
            other => {
                return Err(wrong(format!("load_policy: params: expected names as keys, got {}", describe(other))));
            }
        };
    }
    Ok(params)
}

/// From the source to a policy at its start.
fn compile_and_make(
    vm: &Arc<Vm>,
    backends: &[String],
    options: &Table,
    source: &Arc<str>,
    mains: &mut Vec<Main>,
) -> Result<(Opening, Table), Refusal> {
    let told = |hook, fault: &Fault| Refusal::Policy(vec![vm.explain(hook, fault)]);
    let main = vm.compile(&vm.chunk, source).map_err(|error| told(Hook::Load, &Fault::Lua(error)))?;
    mains.push((vm.chunk.clone(), main.clone()));
    let values = call(vm, Hook::Load, &main, MultiValue::new())?;
    let (name, table) = match values.front() {
        Some(Value::Table(table)) => (vm.name.clone(), table.clone()),
        Some(Value::UserData(data)) if data.is::<FleetTable>() => {
            let fleet = data.borrow::<FleetTable>()?.0.clone();
            row(vm, &fleet, options)?
        }
        other => {
            let got = describe(other.unwrap_or(&Value::Nil));
            let message = format!("expected the file to return a policy table (`return {{ … }}`), got {got}");
            return Err(told(Hook::Load, &Fault::Result(message)));
        }
    };
    let mut found = Findings::new();
    declare_params(vm, &table, &mut found);
    let allowed = vm.shared.permissions.allow_backends.as_deref();
    let (spec, functions) = policy(&table, &Backends { known: backends, allowed }, &mut found);
    if !found.problems.is_empty() {
        return Err(Refusal::Policy(shape_errors(vm, &found)));
    }
    let whole_of = |key: &str| match options.raw_get::<Value>(key) {
        Ok(Value::Nil) => Ok(0),
        Ok(value) => whole(&value, &format!("load_policy: {key}"), 0..=100_000).map_err(wrong),
        Err(error) => Err(Refusal::Call(error)),
    };
    let time = |key: &str| -> Result<Duration, Refusal> {
        Ok(duration(&options.raw_get::<Value>(key)?, &format!("load_policy: {key}"))?.unwrap_or_default())
    };
    let spec = Arc::new(spec);
    let (start, startup, stop, wall) = (whole_of("start")?, time("startup")?, time("stop")?, wall(options)?);
    let row = Row::new(vm, name.clone(), Arc::clone(&spec), functions, None)?;
    let script = Direct::new(Arc::new(row), Outside::Spec);
    Ok((Opening { name, spec, script, start, startup, stop, wall }, table))
}

fn call(vm: &Vm, hook: Hook, function: &Function, arguments: MultiValue) -> Result<MultiValue, Refusal> {
    vm.call_here(function, &scope(vm, hook), 0, RUNAWAY, arguments, |_, values| Ok(values))
        .map_err(|fault| Refusal::Policy(vec![vm.explain(hook, &fault)]))
}

/// The policy of one row of a fleet, found by the fleet's own `discover`.
fn row(vm: &Vm, fleet: &Table, options: &Table) -> Result<(PolicyName, Table), Refusal> {
    let wrong_result = |hook, message: String| Refusal::Policy(vec![vm.explain(hook, &Fault::Result(message))]);
    let mut found = Findings::new();
    let Some(definition) = fleet::definition(fleet, &mut found).filter(|_| found.problems.is_empty()) else {
        return Err(Refusal::Policy(shape_errors(vm, &found)));
    };
    let answer = call(vm, Hook::Discover, &definition.discover, MultiValue::new())?;
    let rows = answer.front().cloned().unwrap_or(Value::Nil);
    let rows = to_json("discover's rows", &rows, fleet::ROWS_BYTES).and_then(fleet::list_of);
    let rows = rows.map_err(|message| wrong_result(Hook::Discover, message))?;
    let names: Vec<&str> = rows.iter().filter_map(|row| row.get("name")?.as_str()).collect();
    let wanted = options.raw_get::<Option<String>>("row")?;
    let Some(wanted) = wanted.or_else(|| names.first().map(|name| (*name).to_owned())) else {
        return Err(wrong("load_policy: this fleet found no rows: its `discover` gave an empty list"));
    };
    let Some(row) = rows.iter().find(|row| row.get("name").and_then(|name| name.as_str()) == Some(&wanted)) else {
        let found = names.join(", ");
        return Err(wrong(format!("load_policy: row: the fleet has no row {}, it found {found}", quote(&wanted))));
    };
    let argument = to_lua(&vm.lua, row)?;
    let values = call(vm, Hook::Row, &definition.policy, MultiValue::from_vec(vec![argument]))?;
    match values.front() {
        Some(Value::Table(table)) => Ok((PolicyName::new(format!("{}/{wanted}", vm.name)), table.clone())),
        other => {
            let got = describe(other.unwrap_or(&Value::Nil));
            Err(wrong_result(Hook::Row, format!("policy of row `{wanted}`: expected a policy table, got {got}")))
        }
    }
}

/// Wall time at the start: seconds since 1970, or a text with a time zone.
fn wall(options: &Table) -> Result<SystemTime, Refusal> {
    const WANTED: &str = "load_policy: now: expected seconds since 1970 or text such as \"2026-03-01T08:00:00Z\"";
    let seconds = match options.raw_get::<Value>("now")? {
        Value::Nil => WALL as f64,
        Value::Integer(seconds) => seconds as f64,
        Value::Number(seconds) => seconds,
        Value::String(text) => {
            let text = text.to_string_lossy();
            match text.parse::<jiff::Timestamp>() {
                Ok(time) => time.as_millisecond() as f64 / 1000.0,
                Err(_) => return Err(wrong(format!("{WANTED}, got {}", quote(&text)))),
            }
        }
        other => return Err(wrong(format!("{WANTED}, got {}", describe(&other)))),
    };
    if !(0.0..=1e11).contains(&seconds) {
        return Err(wrong(format!("{WANTED}, got {seconds}")));
    }
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis((seconds * 1000.0) as u64))
}
