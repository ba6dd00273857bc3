//! `setpoint.json`: text to values and back, within limits that hold against hostile text and hostile tables.
//!
//! Decoding builds Lua values straight away, so that the VM's own memory limit counts them. Encoding stops at
//! a depth, at a cycle and at a number of bytes; each visited value writes at least one byte, so the limit in
//! bytes also bounds the work.
//!
//! Arrays and objects: `null` is [`null`]. A decoded array carries a metatable that marks it, so that an empty
//! one is an array again when it is encoded; `json.array(t)` marks a table in the same way. An unmarked empty
//! table is an object. Numbers are doubles: integers beyond 2^53 lose their last digits.

use std::fmt;
use std::fmt::Write as _;

use mlua::{Lua, LuaSerdeExt, LuaString, Table, Value};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::args::{Args, describe, plain, quoted};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::HostShared;

/// The deepest nesting that is read or written.
const MOST_DEPTH: usize = 64;

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "json",
    doc: "JSON text to Lua values and back.",
    types: &[],
    fields: &[(
        "null",
        "lightuserdata",
        "JSON's null: what `decode` gives for it and `encode` takes for it. Not nil, and true in a condition.",
    )],
    functions: &[
        FunctionDoc {
            name: "decode",
            params: &[("text", "string")],
            returns: &["any"],
            access: Access::Pure,
            doc: "The value of a JSON text. Objects and arrays become tables, null becomes `json.null`. At most 64 levels deep and \
                  as long as the host's `body` limit; anything that is not JSON raises, with line and column.",
        },
        FunctionDoc {
            name: "encode",
            params: &[("value", "any")],
            returns: &["string"],
            access: Access::Pure,
            doc: "JSON without spaces, keys in order. A table with the keys 1 to n is an array, one with only string keys an object, \
                  an empty one an object unless `json.array` marked it. NaN, infinities, functions, handles, cycles and tables of \
                  mixed keys raise.",
        },
        FunctionDoc {
            name: "array",
            params: &[("list?", "table")],
            returns: &["table"],
            access: Access::Pure,
            doc: "Marks a table (or a new one) as an array, so that it is `[]` when it is empty. Returns the table.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set("null", null(lua))?;
    module.raw_set(
        "decode",
        plain(lua, "json.decode", 1, |lua, args| {
            let text = args.bytes(1, "JSON text")?;
            let most = HostShared::of(lua)?.limits.body;
            decode(lua, &text, most).map_err(|problem| args.error(problem))
        })?,
    )?;
    module.raw_set(
        "encode",
        plain(lua, "json.encode", 1, |lua, args| {
            if args.len() == 0 {
                return Err(args.error("argument 1: expected a value, got none"));
            }
            let most = HostShared::of(lua)?.limits.body;
            let text = encode(lua, &args.value(1), most).map_err(|problem| args.error(problem))?;
            lua.create_string(text)
        })?,
    )?;
    module.raw_set("array", plain(lua, "json.array", 1, array)?)?;
    Ok(module)
}

fn array(lua: &Lua, args: &Args) -> mlua::Result<Table> {
    let table = if args.value(1).is_nil() { lua.create_table()? } else { args.table(1, "a list")? };
    if table.is_readonly() {
        return Err(args.error("argument 1: expected a table that can be changed, got a read-only one"));
    }
    table.set_metatable(Some(lua.array_metatable()))?;
    Ok(table)
}

/// What stands for JSON's null in Lua.
pub(crate) fn null(lua: &Lua) -> Value {
    lua.null()
}

/// Reads JSON text of at most `most` bytes into Lua values.
///
/// # Errors
/// One line: what was expected and where, or which limit the text breaks.
pub(crate) fn decode(lua: &Lua, text: &[u8], most: usize) -> Result<Value, String> {
    if text.len() > most {
        return Err(format!("expected JSON of at most {most} bytes, got {}", text.len()));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let node = Node { lua, depth: 0 };
    let value = node.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| format!("expected JSON, got {}: {error}", excerpt(text)))
}

fn excerpt(text: &[u8]) -> String {
    // Only the beginning is shown, so only the beginning is looked at.
    let start = &text[..text.len().min(256)];
    if start.is_empty() { "an empty text".to_owned() } else { quoted(&String::from_utf8_lossy(start)) }
}

/// One value that is being read, at its depth.
#[derive(Clone, Copy)]
struct Node<'lua> {
    lua: &'lua Lua,
    depth: usize,
}

impl Node<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MOST_DEPTH {
            return Err(E::custom(format_args!("nested more than {MOST_DEPTH} levels deep")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(null(self.lua))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Boolean(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.lua.create_string(text).map(Value::String).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let node = self.deeper()?;
        let table = self.lua.create_table().map_err(A::Error::custom)?;
        while let Some(value) = elements.next_element_seed(node)? {
            table.raw_push(value).map_err(A::Error::custom)?;
        }
        table.set_metatable(Some(self.lua.array_metatable())).map_err(A::Error::custom)?;
        Ok(Value::Table(table))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let node = self.deeper()?;
        let table = self.lua.create_table().map_err(A::Error::custom)?;
        while let Some(key) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            let value = entries.next_value_seed(node)?;
            table.raw_set(key.as_ref(), value).map_err(A::Error::custom)?;
        }
        Ok(Value::Table(table))
    }
}

/// Writes a Lua value as JSON of at most `most` bytes.
///
/// # Errors
/// One line: where in the value, what was expected and what is there.
pub(crate) fn encode(lua: &Lua, value: &Value, most: usize) -> Result<String, String> {
    let mut writer =
        Writer { out: String::new(), most, open: Vec::new(), path: Vec::new(), arrays: lua.array_metatable() };
    writer.value(value).map_err(|problem| writer.place(&problem))?;
    Ok(writer.out)
}

/// The state of one encoding.
struct Writer {
    out: String,
    most: usize,
    /// Identities of the tables that are being written, outermost first.
    open: Vec<usize>,
    /// The keys that lead to the value that is being written, for errors.
    path: Vec<String>,
    arrays: Table,
}

impl Writer {
    fn place(&self, problem: &str) -> String {
        if self.path.is_empty() { problem.to_owned() } else { format!("at {}: {problem}", self.path.join(".")) }
    }

    fn push(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > self.most {
            return Err(format!("expected a value of at most {} bytes as JSON, got more", self.most));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Nil => self.push("null"),
            value if value.is_null() => self.push("null"),
            Value::Boolean(truth) => self.push(if *truth { "true" } else { "false" }),
            Value::Integer(number) => self.push(&number.to_string()),
            Value::Number(number) => self.number(*number),
            Value::String(text) => self.text(text),
            Value::Table(table) => self.table(table),
            other => Err(format!("expected nil, a boolean, number, string or table, got {}", describe(other))),
        }
    }

    fn number(&mut self, number: f64) -> Result<(), String> {
        if !number.is_finite() {
            return Err(format!("expected a finite number, got {number}"));
        }
        // Doubles hold integers exactly up to here; written without a fraction they read back as integers.
        if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
            return self.push(&(number as i64).to_string());
        }
        let text = serde_json::to_string(&number).map_err(|error| error.to_string())?;
        self.push(&text)
    }

    fn text(&mut self, text: &LuaString) -> Result<(), String> {
        let text = text.to_str().map_err(|_| "expected UTF-8 text, got other bytes".to_owned())?;
        if self.out.len() + text.len() > self.most {
            return self.push(&text);
        }
        let escaped = serde_json::to_string(&*text).map_err(|error| error.to_string())?;
        self.push(&escaped)
    }

    fn table(&mut self, table: &Table) -> Result<(), String> {
        let identity = table.to_pointer() as usize;
        if self.open.contains(&identity) {
            return Err("expected a tree, got a table that contains itself".to_owned());
        }
        if self.open.len() >= MOST_DEPTH {
            return Err(format!("expected at most {MOST_DEPTH} levels, got more"));
        }
        self.open.push(identity);
        if table.metatable().is_some_and(|marker| marker == self.arrays) || table.raw_len() > 0 {
            self.array(table)?;
        } else {
            self.object(table)?;
        }
        self.open.pop();
        Ok(())
    }

    fn array(&mut self, table: &Table) -> Result<(), String> {
        let length = table.raw_len();
        let mut n_keys = 0_usize;
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair.map_err(|error| error.to_string())?;
            let index = key.as_usize().filter(|index| (1..=length).contains(index));
            if index.is_none() {
                return Err(format!("expected the keys 1 to {length} of an array, got also {}", describe(&key)));
            }
            n_keys += 1;
        }
        if n_keys != length {
            return Err(format!("expected an array without holes, got {n_keys} values with the last at {length}"));
        }
        self.push("[")?;
        for index in 1..=length {
            if index > 1 {
                self.push(",")?;
            }
            let value: Value = table.raw_get(index).map_err(|error| error.to_string())?;
            self.path.push(index.to_string());
            self.value(&value)?;
            self.path.pop();
        }
        self.push("]")
    }

    fn object(&mut self, table: &Table) -> Result<(), String> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(|error| error.to_string())?;
            match super::args::text(&key) {
                Some(key) => entries.push((key, value)),
                None => return Err(format!("expected text keys of an object, got {}", describe(&key))),
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        self.push("{")?;
        for (index, (key, value)) in entries.iter().enumerate() {
            let mut head = String::new();
            if index > 0 {
                head.push(',');
            }
            // Writing to a string cannot fail.
            write!(head, "{}:", serde_json::Value::from(key.as_str())).map_err(|error| error.to_string())?;
            self.push(&head)?;
            self.path.push(short(key));
            self.value(value)?;
            self.path.pop();
        }
        self.push("}")
    }
}

/// A key as it stands in an error's path.
fn short(key: &str) -> String {
    key.chars().take(24).filter(|c| !c.is_control()).collect()
}
