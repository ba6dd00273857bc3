//! `setpoint.time`: the tick's clock, dates, and durations.
//!
//! `now` is the tick's wall-clock time, not the moment of the call: all policies of a tick agree on it, and a
//! virtual clock can stand in. Time zones come from the data in the binary, so that a policy decides alike on
//! every machine. Times are seconds since 1970, with fractions.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use mlua::{Lua, Table};
use once_cell::sync::Lazy;

use super::args::{Args, did_you_mean, plain, quoted};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::CallScope;

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "time",
    doc: "The tick's clock, dates in a time zone, and durations. Times are seconds since 1970, with fractions.",
    types: &[
        "@class (exact) setpoint.time.Date",
        "@field year integer",
        "@field month integer 1 to 12.",
        "@field day integer 1 to 31.",
        "@field hour integer 0 to 23.",
        "@field minute integer 0 to 59.",
        "@field second integer 0 to 59.",
        "@field weekday integer 1 is Monday, 7 is Sunday.",
        "@field yday integer Day of the year, from 1.",
        "@field offset integer Seconds east of UTC.",
        "@field zone string Abbreviation in force, e.g. `CEST`.",
    ],
    fields: &[],
    functions: &[
        FunctionDoc {
            name: "now",
            params: &[],
            returns: &["number"],
            access: Access::Pure,
            doc: "When this tick began, in seconds since 1970; the same as `ctx.now`.",
        },
        FunctionDoc {
            name: "iso",
            params: &[("seconds?", "number")],
            returns: &["string"],
            access: Access::Pure,
            doc: "`2026-01-01T00:00:00.000Z` for a time, or for now.",
        },
        FunctionDoc {
            name: "parse",
            params: &[("text", "string")],
            returns: &["number"],
            access: Access::Pure,
            doc: "Seconds since 1970 of an RFC 3339 text such as `2026-01-01T01:00:00+01:00`. Raises when it is not \
                 one.",
        },
        FunctionDoc {
            name: "zoned",
            params: &[("seconds?", "number"), ("zone?", "string")],
            returns: &["setpoint.time.Date"],
            access: Access::Pure,
            doc: "The date and time of day of a time (nil is now) in an IANA time zone such as `Europe/Berlin` (UTC \
                 unless given).",
        },
        FunctionDoc {
            name: "duration",
            params: &[("text", "string")],
            returns: &["number"],
            access: Access::Pure,
            doc: "Seconds of a duration such as `\"90s\"` or `\"1h30m\"`; units are ms, s, m, h and d.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set("now", plain(lua, "time.now", 0, |lua, args| Ok(seconds(moment(lua, args)?)))?)?;
    module.raw_set("iso", plain(lua, "time.iso", 1, |lua, args| Ok(format!("{:.3}", moment(lua, args)?)))?)?;
    module.raw_set(
        "parse",
        plain(lua, "time.parse", 1, |_, args| {
            let text = args.text(1, "an RFC 3339 time")?;
            let time: Result<Timestamp, _> = text.parse();
            time.map(seconds).map_err(|_| args.wrong(1, "an RFC 3339 time such as \"2026-01-01T00:00:00Z\""))
        })?,
    )?;
    module.raw_set("zoned", plain(lua, "time.zoned", 2, zoned)?)?;
    module.raw_set(
        "duration",
        plain(lua, "time.duration", 1, |_, args| {
            let text = args.text(1, "a duration such as \"90s\"")?;
            let duration = crate::config::units::parse_duration(&text);
            duration
                .map(|duration| duration.as_secs_f64())
                .map_err(|problem| args.error(format!("argument 1: {problem}")))
        })?,
    )?;
    Ok(module)
}

/// Argument 1 as a time; the tick's when it was left out.
fn moment(lua: &Lua, args: &Args) -> mlua::Result<Timestamp> {
    if args.value(1).is_nil() {
        let now = CallScope::current(lua)?.now;
        return Timestamp::try_from(now).map_err(|error| args.error(error));
    }
    let expected = "seconds since 1970";
    let millis = args.number(1, expected)? * 1000.0;
    // A cast saturates, and beyond the year 9999 there is no date, so that the conversion below refuses it.
    Timestamp::from_millisecond(millis.round() as i64).map_err(|_| args.wrong(1, expected))
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

fn zoned(lua: &Lua, args: &Args) -> mlua::Result<Table> {
    let zone = match args.text_if_given(2, "a time zone such as \"Europe/Berlin\"")? {
        Some(name) => find_zone(&name).map_err(|problem| args.error(format!("argument 2: {problem}")))?,
        None => TimeZone::UTC,
    };
    let date = moment(lua, args)?.to_zoned(zone);
    let table = lua.create_table()?;
    let fields = [
        ("year", i32::from(date.year())),
        ("month", i32::from(date.month())),
        ("day", i32::from(date.day())),
        ("hour", i32::from(date.hour())),
        ("minute", i32::from(date.minute())),
        ("second", i32::from(date.second())),
        ("weekday", i32::from(date.weekday().to_monday_one_offset())),
        ("yday", i32::from(date.day_of_year())),
        ("offset", date.offset().seconds()),
    ];
    for (key, value) in fields {
        table.raw_set(key, value)?;
    }
    table.raw_set("zone", date.strftime("%Z").to_string())?;
    Ok(table)
}

fn find_zone(name: &str) -> Result<TimeZone, String> {
    static ZONES: Lazy<TimeZoneDatabase> = Lazy::new(TimeZoneDatabase::bundled);
    ZONES.get(name).map_err(|_| {
        let known: Vec<String> = ZONES.available().map(|zone| zone.to_string()).collect();
        let near = did_you_mean(name, known.iter().map(String::as_str));
        format!("expected an IANA time zone such as \"Europe/Berlin\", got {}{near}", quoted(name))
    })
}
