//! JSON and back, for `ctx.state` and for comparing fleet rows. Raw access only; sizes and depths are bounded.

use mlua::{Lua, Table, Value};
use serde_json::{Map, Number};

use super::convert::{describe, finite};

/// Deepest nesting.
const DEPTH: usize = 32;

/// A Lua value as JSON, at most about `limit` bytes of it. Tables whose keys are 1..n become arrays; an empty table
/// becomes an empty object. The error says where: `what.key.key`.
pub(super) fn to_json(what: &str, value: &Value, limit: usize) -> Result<serde_json::Value, String> {
    let mut walk = Walk { left: limit, limit, what: what.to_owned() };
    walk.value(value, 0)
}

/// JSON as a Lua value. Null becomes nil, and is left out of tables.
pub(super) fn to_lua(lua: &Lua, value: &serde_json::Value) -> mlua::Result<Value> {
    Ok(match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(flag) => Value::Boolean(*flag),
        serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::String(text) => Value::String(lua.create_string(text)?),
        serde_json::Value::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for item in items {
                table.raw_push(to_lua(lua, item)?)?;
            }
            Value::Table(table)
        }
        serde_json::Value::Object(fields) => Value::Table(object(lua, fields)?),
    })
}

/// Whether a table has no entry at all.
pub(super) fn is_empty(table: &Table) -> bool {
    table.pairs::<Value, Value>().next().is_none()
}

fn object(lua: &Lua, fields: &Map<String, serde_json::Value>) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, fields.len())?;
    for (key, value) in fields {
        table.raw_set(key.as_str(), to_lua(lua, value)?)?;
    }
    Ok(table)
}

struct Walk {
    left: usize,
    limit: usize,
    what: String,
}

impl Walk {
    fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            let root = self.what.split(['.', '[']).next().unwrap_or_default();
            let name = if root == "ctx" { "ctx.state" } else { root };
            format!("{name}: expected at most {} bytes as JSON, got more", self.limit)
        })?;
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<serde_json::Value, String> {
        match value {
            Value::Boolean(flag) => self.take(5).map(|()| (*flag).into()),
            Value::Integer(number) => self.take(20).map(|()| (*number).into()),
            Value::Number(number) => {
                self.take(20)?;
                // Whole numbers are written as such, so that what is compared and shown is `3`, not `3.0`.
                if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
                    return Ok((*number as i64).into());
                }
                Number::from_f64(*number)
                    .map(Into::into)
                    .ok_or_else(|| format!("{}: expected a finite number, got {number}", self.what))
            }
            Value::String(text) => {
                self.take(text.as_bytes().len() + 2)?;
                match text.to_str() {
                    Ok(text) => Ok(serde_json::Value::String((*text).to_owned())),
                    Err(_) => Err(format!("{}: expected text in UTF-8, got other bytes", self.what)),
                }
            }
            Value::Table(table) => self.table(table, depth),
            other => Err(format!("{}: expected a value that JSON can hold, got {}", self.what, describe(other))),
        }
    }

    fn table(&mut self, table: &Table, depth: usize) -> Result<serde_json::Value, String> {
        if depth >= DEPTH {
            return Err(format!("{}: expected at most {DEPTH} tables inside each other (a loop?)", self.what));
        }
        let (mut list, mut fields) = (Vec::new(), Map::new());
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(|error| format!("{}: {error}", self.what))?;
            self.take(4)?;
            let before = self.what.len();
            match &key {
                Value::String(name) => {
                    let name = name.to_string_lossy();
                    self.take(name.len())?;
                    self.what.push('.');
                    self.what.extend(name.chars().take(40));
                    let value = self.value(&value, depth + 1)?;
                    fields.insert(name, value);
                }
                Value::Integer(_) | Value::Number(_) => {
                    let index = finite(&key, "a key").unwrap_or(0.0);
                    if index.fract() != 0.0 || index < 1.0 {
                        return Err(self.odd_key(&key));
                    }
                    self.what.push_str(&format!("[{index}]"));
                    list.push((index as u64, self.value(&value, depth + 1)?));
                }
                other => return Err(format!("{}: expected keys of text, got {}", self.what, describe(other))),
            }
            self.what.truncate(before);
        }
        list.sort_by_key(|(index, _)| *index);
        if let Some(((hole, _), _)) = list.iter().zip(1..).find(|((index, _), expected)| index != expected) {
            return Err(self.odd_key(&Value::Number(*hole as f64)));
        }
        match (list.is_empty(), fields.is_empty()) {
            (false, false) => Err(format!("{}: expected a list or named fields, got both in one table", self.what)),
            (false, true) => Ok(serde_json::Value::Array(list.into_iter().map(|(_, value)| value).collect())),
            _ => Ok(serde_json::Value::Object(fields)),
        }
    }

    fn odd_key(&self, key: &Value) -> String {
        format!("{}: expected keys 1, 2, 3, … or text, got {}", self.what, describe(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(code: &str) -> Result<String, String> {
        let lua = Lua::new();
        let value: Value = lua.load(code).eval().unwrap();
        to_json("ctx.state", &value, 1000).map(|value| value.to_string())
    }

    #[test]
    fn lists_and_fields_come_back_as_they_were() {
        for (code, text) in [
            ("{}", "{}"),
            ("{ 1, 2, 'x' }", "[1,2,\"x\"]"),
            ("{ b = 1.5, a = { true } }", "{\"a\":[true],\"b\":1.5}"),
            ("setmetatable({ n = 1 }, { __index = error, __pairs = error, __iter = error })", "{\"n\":1}"),
        ] {
            assert_eq!(json(&format!("return {code}")).as_deref(), Ok(text), "{code}");
            let lua = Lua::new();
            let value = to_lua(&lua, &serde_json::from_str(text).unwrap()).unwrap();
            assert_eq!(to_json("x", &value, 1000).unwrap().to_string(), text);
        }
    }

    #[test]
    fn hostile_tables_are_refused_with_their_place() {
        for (code, message) in [
            ("return { f = print }", "ctx.state.f: expected a value that JSON can hold, got function"),
            ("return { a = { 0/0 } }", "ctx.state.a[1]: expected a finite number, got NaN"),
            ("return { 1, x = 2 }", "ctx.state: expected a list or named fields, got both in one table"),
            ("return { [3] = 1 }", "ctx.state: expected keys 1, 2, 3, … or text, got number 3"),
            ("return { [true] = 1 }", "ctx.state: expected keys of text, got boolean true"),
            ("local t = {} t.t = t return t", "tables inside each other"),
            ("return { x = ('y'):rep(2000) }", "ctx.state: expected at most 1000 bytes as JSON, got more"),
            ("return { x = '\\255' }", "ctx.state.x: expected text in UTF-8, got other bytes"),
        ] {
            let got = json(code).unwrap_err();
            assert!(got.contains(message), "{code}: {got}");
        }
    }
}
