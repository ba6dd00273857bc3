//! Checking of arguments and options, in one voice: `http.get: argument 1: expected a URL, got nil`.
//!
//! Invariants: no check calls back into the script (raw access only, no metamethods), and no message is longer
//! than a line or repeats more than a few dozen characters of a value.

use std::sync::Arc;
use std::time::Duration;

use mlua::{FromLua, Function, IntoLuaMulti, Lua, MultiValue, Table, Value};

use super::secret::{Secret, SecretText};
use crate::script::call::{CallScope, HostShared, Refused};

/// The arguments of one call of a module function.
pub(crate) struct Args {
    function: &'static str,
    values: Vec<Value>,
}

/// A table of options whose keys have been checked; no table is an empty one.
pub(crate) struct Options {
    function: &'static str,
    table: Option<Table>,
}

/// Makes a function that computes without waiting. `most` is how many arguments it takes.
pub(crate) fn plain<F, R>(lua: &Lua, name: &'static str, most: usize, body: F) -> mlua::Result<Function>
where
    F: Fn(&Lua, &Args) -> mlua::Result<R> + Send + 'static,
    R: IntoLuaMulti,
{
    lua.create_function(move |lua, values: MultiValue| body(lua, &Args::new(name, values, most)?))
}

/// Makes a function that waits for I/O. Its arguments are checked, and its scope is taken, before it first
/// suspends the script.
pub(crate) fn waiting<F, FR, R>(lua: &Lua, name: &'static str, most: usize, body: F) -> mlua::Result<Function>
where
    F: Fn(Lua, Arc<CallScope>, Args) -> FR + Send + 'static,
    FR: Future<Output = mlua::Result<R>> + Send + 'static,
    R: IntoLuaMulti,
{
    lua.create_async_function(move |lua, values: MultiValue| {
        let begun = CallScope::current(&lua).and_then(|scope| Ok((scope, Args::new(name, values, most)?)));
        let begun = begun.map(|(scope, args)| body(lua, scope, args));
        async move { begun?.await }
    })
}

impl Args {
    /// Takes a call's values; more than `most` of them are an error.
    pub(crate) fn new(function: &'static str, values: MultiValue, most: usize) -> mlua::Result<Self> {
        let values: Vec<Value> = values.into_iter().collect();
        if values.len() > most {
            let plural = if most == 1 { "" } else { "s" };
            let text = format!("{function}: expected at most {most} argument{plural}, got {}", values.len());
            return Err(mlua::Error::runtime(text));
        }
        Ok(Self { function, values })
    }

    /// How many arguments came.
    pub(crate) const fn len(&self) -> usize {
        self.values.len()
    }

    /// Argument `n`, from 1; nil when it was left out.
    pub(crate) fn value(&self, n: usize) -> Value {
        self.values.get(n - 1).cloned().unwrap_or(Value::Nil)
    }

    /// The error for argument `n`.
    pub(crate) fn wrong(&self, n: usize, expected: &str) -> mlua::Error {
        mlua::Error::runtime(format!(
            "{}: argument {n}: expected {expected}, got {}",
            self.function,
            describe(&self.value(n))
        ))
    }

    /// An error of this function that is not about one argument.
    pub(crate) fn error(&self, text: impl std::fmt::Display) -> mlua::Error {
        mlua::Error::runtime(format!("{}: {text}", self.function))
    }

    /// Argument `n` as UTF-8 text.
    pub(crate) fn text(&self, n: usize, expected: &str) -> mlua::Result<String> {
        text(&self.value(n)).ok_or_else(|| self.wrong(n, expected))
    }

    /// Argument `n` as UTF-8 text, when it is there.
    pub(crate) fn text_if_given(&self, n: usize, expected: &str) -> mlua::Result<Option<String>> {
        if self.value(n).is_nil() { Ok(None) } else { self.text(n, expected).map(Some) }
    }

    /// Argument `n` as a string of any bytes; a number is taken as its text.
    pub(crate) fn bytes(&self, n: usize, expected: &str) -> mlua::Result<Vec<u8>> {
        bytes(&self.value(n)).ok_or_else(|| self.wrong(n, expected))
    }

    /// Argument `n` as a finite number.
    pub(crate) fn number(&self, n: usize, expected: &str) -> mlua::Result<f64> {
        number(&self.value(n)).ok_or_else(|| self.wrong(n, expected))
    }

    /// Argument `n` as a table.
    pub(crate) fn table(&self, n: usize, expected: &str) -> mlua::Result<Table> {
        match self.value(n) {
            Value::Table(table) => Ok(table),
            _ => Err(self.wrong(n, expected)),
        }
    }

    /// Argument `n` as a table of options, where only `keys` are known; it may be left out.
    pub(crate) fn options(&self, n: usize, keys: &[&str]) -> mlua::Result<Options> {
        match self.value(n) {
            Value::Nil => Ok(Options { function: self.function, table: None }),
            Value::Table(table) => Options::new(self.function, table, keys),
            _ => Err(self.wrong(n, "a table of options")),
        }
    }
}

impl Options {
    fn new(function: &'static str, table: Table, keys: &[&str]) -> mlua::Result<Self> {
        for pair in table.pairs::<Value, Value>() {
            let key = pair?.0;
            if text(&key).is_none_or(|key| !keys.contains(&key.as_str())) {
                let near = text(&key).map(|key| did_you_mean(&key, keys.iter().copied())).unwrap_or_default();
                let known = keys.join(", ");
                let text = format!("{function}: unknown option {} (known: {known}){near}", describe(&key));
                return Err(mlua::Error::runtime(text));
            }
        }
        Ok(Self { function, table: Some(table) })
    }

    fn raw(&self, key: &str) -> mlua::Result<Value> {
        self.table.as_ref().map_or(Ok(Value::Nil), |table| table.raw_get(key))
    }

    fn get<T>(&self, key: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> mlua::Result<Option<T>> {
        match self.raw(key)? {
            Value::Nil => Ok(None),
            value => read(&value).map(Some).ok_or_else(|| self.wrong(key, expected, &value)),
        }
    }

    /// The error for one option.
    pub(crate) fn wrong(&self, key: &str, expected: &str, got: &Value) -> mlua::Error {
        let text = format!("{}: option {key}: expected {expected}, got {}", self.function, describe(got));
        mlua::Error::runtime(text)
    }

    /// A value as it is; nil when it was left out.
    pub(crate) fn value(&self, key: &str) -> mlua::Result<Value> {
        self.raw(key)
    }

    /// UTF-8 text.
    pub(crate) fn text(&self, key: &str, expected: &str) -> mlua::Result<Option<String>> {
        self.get(key, expected, text)
    }

    /// Any bytes; a number is taken as its text.
    pub(crate) fn bytes(&self, key: &str, expected: &str) -> mlua::Result<Option<Vec<u8>>> {
        self.get(key, expected, bytes)
    }

    /// A text, or a list of them that is not empty: an empty one would mean no restriction. Nothing gives an empty list.
    pub(crate) fn texts(&self, key: &str, expected: &str) -> mlua::Result<Vec<String>> {
        match self.raw(key)? {
            Value::Nil => Ok(Vec::new()),
            Value::Table(table) => match list::<String>(&table, text)? {
                Some(texts) if !texts.is_empty() => Ok(texts),
                _ => Err(self.wrong(key, expected, &Value::Table(table))),
            },
            value => text(&value).map(|text| vec![text]).ok_or_else(|| self.wrong(key, expected, &value)),
        }
    }

    /// true or false.
    pub(crate) fn boolean(&self, key: &str) -> mlua::Result<Option<bool>> {
        self.get(key, "true or false", Value::as_boolean)
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str, expected: &str) -> mlua::Result<Option<f64>> {
        self.get(key, expected, number)
    }

    /// A duration of more than nothing: `"1.5s"`, or a number of seconds.
    pub(crate) fn duration(&self, key: &str) -> mlua::Result<Option<Duration>> {
        self.get(key, "a duration such as \"5s\"", |value| duration(value).filter(|length| !length.is_zero()))
    }

    /// A number of bytes: `"64KiB"`, or a number; at most `most`.
    pub(crate) fn size(&self, key: &str, most: usize) -> mlua::Result<Option<usize>> {
        let expected = format!("a size of at most {most} bytes, such as \"64KiB\"");
        self.get(key, &expected, |value| size(value).filter(|size| *size <= most))
    }

    /// A table.
    pub(crate) fn table(&self, key: &str, expected: &str) -> mlua::Result<Option<Table>> {
        self.get(key, expected, |value| value.as_table().cloned())
    }

    /// Text, or a handle of `setpoint.secret`.
    pub(crate) fn secret_text(&self, key: &str, expected: &str) -> mlua::Result<Option<SecretText>> {
        self.get(key, expected, SecretText::of)
    }
}

/// A value as UTF-8 text, when it is a string.
pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_string().and_then(|text| text.to_str().ok().map(|text| text.to_owned()))
}

/// A string's bytes, or a number's text.
pub(crate) fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        _ => number(value).map(|number| number.to_string().into_bytes()),
    }
}

/// A finite number.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) if number.is_finite() => Some(*number),
        _ => None,
    }
}

fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::String(_) => crate::config::units::parse_duration(&text(value)?).ok(),
        _ => number(value).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    }
}

fn size(value: &Value) -> Option<usize> {
    match value {
        Value::String(_) => {
            crate::config::units::parse_size(&text(value)?).ok().and_then(|size| usize::try_from(size).ok())
        }
        _ => number(value).filter(|size| *size >= 0.0 && size.fract() == 0.0).map(|size| size as usize),
    }
}

/// A value in words, for "got …".
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(&text.to_string_lossy()),
        Value::Table(table) if table.raw_len() > 0 => format!("a list of {} values", table.raw_len()),
        Value::Table(_) => "a table".to_owned(),
        Value::Function(_) => "a function".to_owned(),
        Value::Thread(_) => "a coroutine".to_owned(),
        Value::LightUserData(_) => "json.null".to_owned(),
        Value::UserData(handle) if handle.is::<Secret>() => "a secret".to_owned(),
        Value::Error(_) => "an error".to_owned(),
        _ => "a handle".to_owned(),
    }
}

/// Text in quotes, cut to a few dozen characters, without control characters.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 48;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}

/// `; did you mean …?` when one of `known` is near `word`.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // A long word is never a slip of the finger, and comparing it with every key would cost time.
    if word.len() > 64 {
        return String::new();
    }
    let nearest = known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min();
    nearest.map(|(_, candidate)| format!("; did you mean `{candidate}`?")).unwrap_or_default()
}

/// The elements of a list of finite numbers, or of points (`{ value = … }`, as in `ctx.history`).
pub(crate) fn numbers(args: &Args, n: usize) -> mlua::Result<Vec<f64>> {
    let expected = "a list of numbers";
    let list = args.table(n, expected)?;
    let mut numbers = Vec::new();
    for (index, value) in list.sequence_values::<Value>().enumerate() {
        let value = match value? {
            Value::Table(point) => point.raw_get("value")?,
            value => value,
        };
        let Some(value) = number(&value) else {
            let text = format!("argument {n}: expected {expected}, got {} at {}", describe(&value), index + 1);
            return Err(args.error(text));
        };
        numbers.push(value);
    }
    Ok(numbers)
}

/// The elements of a list of `T`s; none when an element is something else or the table is not a list.
pub(crate) fn list<T: FromLua>(table: &Table, read: impl Fn(&Value) -> Option<T>) -> mlua::Result<Option<Vec<T>>> {
    let mut elements = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (_, value) = pair?;
        match read(&value) {
            Some(value) => elements.push(value),
            None => return Ok(None),
        }
    }
    Ok((elements.len() == table.raw_len()).then_some(elements))
}

/// Why something outside could not be done; becomes the error that the script sees.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The host does not allow it.
    Refused(String),
    /// It was tried and did not work, or could not be tried.
    Failed(String),
}

impl Problem {
    /// The error of `function`.
    pub(crate) fn raise(self, function: &str) -> mlua::Error {
        match self {
            Self::Refused(text) => Refused::error(format!("{function}: {text}")),
            Self::Failed(text) => mlua::Error::runtime(format!("{function}: {text}")),
        }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

/// Refuses what takes the same permission as one of these backends, when the host allows none of them.
pub(crate) fn check_backend(shared: &HostShared, function: &str, backends: &[&str]) -> mlua::Result<()> {
    match &shared.permissions.allow_backends {
        Some(allowed) if !allowed.iter().any(|name| backends.contains(&name.as_str())) => {
            let backends: Vec<String> = backends.iter().map(|name| format!("\"{name}\"")).collect();
            let text = format!("the host does not allow the backend {}", backends.join(" or "));
            Err(Problem::Refused(text).raise(function))
        }
        _ => Ok(()),
    }
}

/// Does `work` on the I/O runtime while the script is suspended.
pub(crate) async fn outside<T: Send + 'static>(
    shared: &Arc<HostShared>,
    scope: &CallScope,
    function: &str,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> mlua::Result<T> {
    shared.wait(scope, function, work).await?.map_err(|problem| problem.raise(function))
}

/// Does blocking `work` on the I/O runtime's threads for that, while the script is suspended.
pub(crate) async fn blocking<T: Send + 'static>(
    shared: &Arc<HostShared>,
    scope: &CallScope,
    function: &str,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> mlua::Result<T> {
    let work = async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(Problem::Failed(error.to_string())))
    };
    outside(shared, scope, function, work).await
}
