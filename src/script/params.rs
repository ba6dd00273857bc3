//! Parameters: declared by a script with their defaults, set from outside, read-only once declared.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use mlua::{Lua, Table, Value};

use super::call::CallScope;
use super::convert::{describe, finite, quote};
use super::error::Raised;
use super::stdlib::unknown;
use super::{Hook, Param, ParamValue};

/// Parameters of a load: what is set from outside, and what the script declares.
#[derive(Debug, Default)]
pub(super) struct Params {
    given: BTreeMap<String, String>,
    /// Who set them, as far as it is known.
    origins: BTreeMap<String, String>,
    declared: Mutex<Vec<Param>>,
    values: Mutex<Option<Table>>,
}

impl Params {
    /// With what is set from outside for a policy; `origins` says who set what, by `key` and `policy.key`.
    pub(super) fn new(given: BTreeMap<String, String>, policy: &str, origins: &BTreeMap<String, String>) -> Self {
        let origin = |key: &String| origins.get(&format!("{policy}.{key}")).or_else(|| origins.get(key)).cloned();
        let origins = given.keys().filter_map(|key| Some((key.clone(), origin(key)?))).collect();
        Self { given, origins, ..Self::default() }
    }

    /// What the script has declared so far.
    pub(super) fn declared(&self) -> Vec<Param> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The table of values, read-only; an empty one, in which every key is an error, when nothing is declared.
    pub(super) fn values(&self, lua: &Lua) -> mlua::Result<Table> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = &*values {
            return Ok(table.clone());
        }
        let table = table_of(lua, &[])?;
        *values = Some(table.clone());
        Ok(table)
    }

    /// Whether a table is the one that `declare` returned.
    pub(super) fn gave(&self, table: &Table) -> bool {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(table)
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
                Some(text) => parse_param(text, &default).map_err(|wrong| {
                    let by = self.origins.get(&name).map(|origin| format!(" (set by {origin})")).unwrap_or_default();
                    format!("parameter `{name}`{by}: {wrong}")
                })?,
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

/// `require("setpoint.params")`.
pub(super) fn params(lua: &Lua, defaults: Value) -> mlua::Result<Table> {
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
        Value::Integer(_) | Value::Number(_) => finite(value, &format!("parameter `{name}`")).map(ParamValue::Number),
        Value::String(text) if text.as_bytes().len() <= 4096 => Ok(ParamValue::Text(text.to_string_lossy())),
        Value::String(_) => Err(format!("parameter `{name}`: expected at most 4096 bytes, got more")),
        other => Err(format!(
            "parameter `{name}`: expected a number, text or boolean as its default, got {}",
            describe(other)
        )),
    }
}

/// A parameter that came as text, as its default's type.
fn parse_param(text: &str, default: &ParamValue) -> Result<ParamValue, String> {
    match default {
        ParamValue::Text(_) => Ok(ParamValue::Text(text.to_owned())),
        ParamValue::Bool(_) => match text {
            "true" => Ok(ParamValue::Bool(true)),
            "false" => Ok(ParamValue::Bool(false)),
            other => Err(format!("expected true or false, got {}", quote(other))),
        },
        ParamValue::Number(_) => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(ParamValue::Number(number)),
            _ => Err(format!("expected a number, got {}", quote(text))),
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
