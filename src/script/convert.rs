//! What came back from Lua, checked: numbers, samples, answers. Never a panic, never a guess.
//!
//! Only raw access: no metamethod runs in here, so nothing in here can loop or raise in Lua's stead.

use std::time::Duration;

use mlua::{MultiValue, Table, Value};

use crate::core::decision::Scripted;
use crate::core::model::Sample;

/// Longest string that a message quotes.
const QUOTED: usize = 40;

/// A value as a message names it: its type, and itself where it is short.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Boolean(flag) => format!("boolean {flag}"),
        Value::Integer(number) => format!("number {number}"),
        // Beyond this, digits say less than the exponent.
        Value::Number(number) if number.is_finite() && 1e15 <= number.abs() => format!("number {number:e}"),
        Value::Number(number) => format!("number {number}"),
        Value::String(text) => format!("string {}", quote(&text.to_string_lossy())),
        Value::Table(_) => "table".to_owned(),
        Value::Function(_) => "function".to_owned(),
        Value::Thread(_) => "coroutine".to_owned(),
        other => other.type_name().to_owned(),
    }
}

/// A text in quotes, cut where it is long.
pub(super) fn quote(text: &str) -> String {
    if text.chars().count() <= QUOTED {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(QUOTED).collect::<String>())
}

/// `; did you mean …?` where one of the known names is near.
pub(super) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| format!("; did you mean `{candidate}`?"))
        .unwrap_or_default()
}

/// A finite number.
pub(super) fn finite(value: &Value, what: &str) -> Result<f64, String> {
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Number(number) => *number,
        other => return Err(format!("{what}: expected a number, got {}", describe(other))),
    };
    if number.is_finite() { Ok(number) } else { Err(format!("{what}: expected a finite number, got {number}")) }
}

/// A whole number in a range.
pub(super) fn whole(value: &Value, what: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let (low, high) = (f64::from(*range.start()), f64::from(*range.end()));
    match finite(value, what) {
        Ok(number) if number.fract() == 0.0 && (low..=high).contains(&number) => Ok(number as u32),
        Ok(_) => Err(format!("{what}: expected a whole number from {low} to {high}, got {}", describe(value))),
        Err(message) => Err(message),
    }
}

/// What `metric` returned: `value`, nothing, `value, age` or `value, { age =, reported = }`.
pub(super) fn sample(results: &MultiValue, stale_after: Duration) -> Result<Sample, String> {
    let first = results.front().unwrap_or(&Value::Nil);
    if first.is_nil() {
        return Ok(Sample::Missing);
    }
    let value = finite(first, "metric returned")?;
    let (mut age, mut reported) = (Duration::ZERO, None);
    match results.get(1) {
        None | Some(Value::Nil) => {}
        Some(Value::Table(more)) => {
            known_keys(more, &["age", "reported"], "metric's second result")?;
            let get = |key| more.raw_get::<Value>(key).unwrap_or(Value::Nil);
            match get("age") {
                Value::Nil => {}
                given => age = age_of(&given)?,
            }
            match get("reported") {
                Value::Nil => {}
                given => reported = Some(whole(&given, "metric's `reported`", 0..=u32::MAX)?),
            }
        }
        Some(given) => age = age_of(given)?,
    }
    Ok(if age > stale_after { Sample::Stale { value, age } } else { Sample::Value { value, age, reported } })
}

fn age_of(value: &Value) -> Result<Duration, String> {
    let seconds = finite(value, "metric's age in seconds")?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("metric's age in seconds: expected at least 0, got {}", describe(value)))
}

/// What `decide` returned: `{ desired = n }` or `{ adjust = n }`.
pub(super) fn scripted(results: &MultiValue) -> Result<Scripted, String> {
    const WANTED: &str = "decide returned: expected { desired = n } or { adjust = n }";
    let table = match results.front() {
        Some(Value::Table(table)) => table,
        other => return Err(format!("{WANTED}, got {}", describe(other.unwrap_or(&Value::Nil)))),
    };
    known_keys(table, &["desired", "adjust"], "decide's result")?;
    let get = |key| table.raw_get::<Value>(key).unwrap_or(Value::Nil);
    match (get("desired"), get("adjust")) {
        (Value::Nil, Value::Nil) => Err(format!("{WANTED}, got a table with neither")),
        (desired, Value::Nil) => Ok(Scripted::Desired(finite(&desired, "decide's `desired`")?)),
        (Value::Nil, adjust) => Ok(Scripted::Adjust(finite(&adjust, "decide's `adjust`")?)),
        _ => Err(format!("{WANTED}, got a table with both")),
    }
}

/// What a warmer or cooler returned: nothing, or how many an outside system accepted.
pub(super) fn accepted(results: &MultiValue, hook: &str) -> Result<Option<u32>, String> {
    match results.front() {
        None | Some(Value::Nil) => Ok(None),
        Some(value) => whole(value, &format!("{hook} returned"), 0..=u32::MAX).map(Some),
    }
}

/// What `drain` returned: done unless it is false.
pub(super) fn drained(results: &MultiValue) -> Result<bool, String> {
    match results.front() {
        None | Some(Value::Nil) => Ok(true),
        Some(Value::Boolean(done)) => Ok(*done),
        Some(other) => Err(format!("drain returned: expected true, false or nothing, got {}", describe(other))),
    }
}

/// What `stop` returned: nothing or false to go on, an exit code to end.
pub(super) fn exit_code(results: &MultiValue) -> Result<Option<i32>, String> {
    match results.front() {
        None | Some(Value::Nil | Value::Boolean(false)) => Ok(None),
        Some(value) => {
            let code = whole(value, "stop returned", 0..=255)?;
            Ok(i32::try_from(code).ok())
        }
    }
}

/// Refuses keys that mean nothing.
pub(super) fn known_keys(table: &Table, known: &[&str], what: &str) -> Result<(), String> {
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair.map_err(|error| format!("{what}: {error}"))?;
        match &key {
            Value::String(name) => {
                let name = name.to_string_lossy();
                if !known.contains(&name.as_str()) {
                    let hint = did_you_mean(&name, known.iter().copied());
                    return Err(format!("{what}: unknown key {}{hint}", quote(&name)));
                }
            }
            other => return Err(format!("{what}: unknown key {}", describe(other))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(code: &str) -> MultiValue {
        let lua = mlua::Lua::new();
        let values = lua.load(code).eval::<MultiValue>().unwrap();
        // The values keep a weak reference to their VM only.
        std::mem::forget(lua);
        values
    }

    fn metric(code: &str) -> Result<Sample, String> {
        sample(&values(code), Duration::from_secs(45))
    }

    #[test]
    fn samples_take_every_documented_form_and_no_other() {
        let aged = |seconds, reported| Sample::Value { value: 7.0, age: Duration::from_secs(seconds), reported };
        assert_eq!(metric("return 7"), Ok(Sample::value(7.0)));
        assert_eq!(metric("return"), Ok(Sample::Missing));
        assert_eq!(metric("return nil, 3"), Ok(Sample::Missing));
        assert_eq!(metric("return 7, 45"), Ok(aged(45, None)));
        assert_eq!(metric("return 7, { age = 2, reported = 3 }"), Ok(aged(2, Some(3))));
        assert_eq!(metric("return 7, 46"), Ok(Sample::Stale { value: 7.0, age: Duration::from_secs(46) }));
        assert_eq!(metric("return -0"), Ok(Sample::value(-0.0)));
        for (code, message) in [
            ("return '80%'", "metric returned: expected a number, got string \"80%\""),
            ("return 0/0", "metric returned: expected a finite number, got NaN"),
            ("return -1/0", "metric returned: expected a finite number, got -inf"),
            ("return {}", "metric returned: expected a number, got table"),
            ("return true", "metric returned: expected a number, got boolean true"),
            ("return 1, -1", "metric's age in seconds: expected at least 0, got number -1"),
            ("return 1, 1e300", "metric's age in seconds: expected at least 0, got number 1e300"),
            ("return 1, { aeg = 1 }", "metric's second result: unknown key \"aeg\"; did you mean `age`?"),
            (
                "return 1, { reported = 1.5 }",
                "metric's `reported`: expected a whole number from 0 to 4294967295, got number 1.5",
            ),
        ] {
            let got = metric(code).unwrap_err();
            assert_eq!(got, message, "{code}");
        }
    }

    #[test]
    fn decide_must_say_which_of_the_two_it_means() {
        assert_eq!(scripted(&values("return { desired = 3 }")), Ok(Scripted::Desired(3.0)));
        assert_eq!(scripted(&values("return { adjust = -2 }")), Ok(Scripted::Adjust(-2.0)));
        for code in
            ["return 3", "return {}", "return { desired = 1, adjust = 1 }", "return { desired = '3' }", "return"]
        {
            assert!(scripted(&values(code)).is_err(), "{code}");
        }
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        assert_eq!(did_you_mean("dwon", ["up", "down"]), "; did you mean `down`?");
        assert_eq!(did_you_mean("elephant", ["up", "down"]), "");
    }
}
