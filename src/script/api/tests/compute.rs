//! Modules that only compute: json, math, log, time, secret.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::super::testing::Bench;
use crate::script::{Limits, Permissions, SecretSource};

fn bench() -> Bench {
    Bench::new(Permissions::default())
}

#[test]
fn json_goes_there_and_back() {
    let chunk = r#"
        local json = require("setpoint.json")
        local text = [[{"a":[1,2.5,-3e2,[],{}],"b":null,"c":"\u00fc\n","d":true}]]
        local value = json.decode(text)
        assert(value.b == json.null and value.c == "ü\n" and value.a[3] == -300 and #value.a[4] == 0)
        assert(json.encode(json.array()) == "[]" and json.encode({}) == "{}" and json.encode({ 1, 2 }) == "[1,2]")
        assert(json.encode(2 ^ 53) == "9007199254740992" and json.encode(-0.5) == "-0.5" and json.decode(json.encode(1e300)) == 1e300)
        assert(json.decode("17") == 17 and json.decode('"x"') == "x")
        return json.encode(value)
    "#;
    let text: String = bench().run(chunk).unwrap();
    assert_eq!(text, r#"{"a":[1,2.5,-300,[],{}],"b":null,"c":"ü\n","d":true}"#);
}

#[test]
fn json_refuses_what_is_not_json_and_what_is_hostile() {
    let bench = Bench::with_limits(Permissions::default(), Limits { body: 4096, ..Limits::default() });
    for (call, expected) in [
        ("json.decode()", "json.decode: argument 1: expected JSON text, got nil"),
        ("json.decode('{')", "json.decode: expected JSON, got \"{\": EOF while parsing an object at line 1 column 1"),
        (
            "json.decode('')",
            "json.decode: expected JSON, got an empty text: EOF while parsing a value at line 1 column 0",
        ),
        ("json.decode('NaN')", "json.decode: expected JSON, got \"NaN\": expected value at line 1 column 1"),
        ("json.decode(('x'):rep(5000))", "json.decode: expected JSON of at most 4096 bytes, got 5000"),
        ("json.encode(0/0)", "json.encode: expected a finite number, got NaN"),
        (
            "json.encode({ a = { 1, print } })",
            "json.encode: at a.2: expected nil, a boolean, number, string or table, got a function",
        ),
        ("json.encode({ 1, x = 2 })", "json.encode: expected the keys 1 to 1 of an array, got also \"x\""),
        ("json.encode({ [1.5] = 2 })", "json.encode: expected text keys of an object, got 1.5"),
        ("json.encode('\\255')", "json.encode: expected UTF-8 text, got other bytes"),
        (
            "local t = {} t.t = { t } json.encode(t)",
            "json.encode: at t.1: expected a tree, got a table that contains itself",
        ),
        ("local t = {} for i = 1, 100 do t = { t } end json.encode(t)", "expected at most 64 levels, got more"),
        // A small graph that is a huge tree: the limit in bytes bounds the work.
        (
            "local t = {} for i = 1, 40 do t = { a = t, b = t } end json.encode(t)",
            "expected a value of at most 4096 bytes as JSON, got more",
        ),
        ("json.encode()", "json.encode: argument 1: expected a value, got none"),
    ] {
        let error = bench.error(&format!("local json = require('setpoint.json') {call}"));
        assert!(error.contains(expected), "{call}: {error}");
        assert!(error.len() < 1000, "{call}: {error}");
    }
    let deep = "[".repeat(2000) + &"]".repeat(2000);
    let error = bench.error(&format!("require('setpoint.json').decode('{deep}')"));
    assert!(error.contains("nested more than 64 levels deep"), "{error}");
}

#[test]
fn decoding_counts_against_the_memory_of_the_vm() {
    let limits = Limits { memory: 4 << 20, ..Limits::default() };
    let bench = Bench::with_limits(Permissions::default(), limits);
    let error = bench.error("require('setpoint.json').decode('[' .. ('[],'):rep(400000) .. '[]]')");
    assert!(error.contains("memory"), "{error}");
    // Luau collects nothing by itself when memory runs out, so the host does after each failed call.
    bench.lua.gc_collect().unwrap();
    assert!(bench.run::<bool>("return true").unwrap(), "what was decoded is gone");
}

#[test]
fn math_answers_and_refuses() {
    let bench = bench();
    let chunk = r"
        local math = require('setpoint.math')
        assert(math.mean({}) == nil and math.ewma({}, 0.5) == nil and math.percentile({}, 50) == nil)
        assert(math.mean({ { value = 1 }, { value = 3 } }) == 2)
        assert(math.clamp(7, 0, 5) == 5 and math.lerp(10, 20, 0.25) == 12.5 and math.round(2.5) == 3)
        assert(math.round(2.345, 2) == 2.35 or math.round(2.345, 2) == 2.34)
        -- Relay's targets: a square of 50 and 20 for 150 samples each, sines around 60 and 20.
        assert(math.square(0) == 50 and math.square(149) == 50 and math.square(150) == 20 and math.square(300) == 50)
        assert(math.round(math.sine(50), 9) == 110 and math.round(math.sine(150), 9) == 10)
        local low, high = 1e9, -1e9
        for t = 0, 999 do
            local x = math.oscillating(t)
            low, high = math.clamp(x, -1e9, low), math.clamp(x, high, 1e9)
        end
        return math.round(low, 2), math.round(high, 2)
    ";
    let (low, high): (f64, f64) = bench.run(chunk).unwrap();
    assert_eq!((low, high), (9.24, 30.76), "the range that Relay's documentation gives");
    for (call, expected) in [
        ("mean({ 1, 'x' })", "math.mean: argument 1: expected a list of numbers, got \"x\" at 2"),
        ("mean({ 0/0 })", "math.mean: argument 1: expected a list of numbers, got NaN at 1"),
        ("clamp(1, 5, 2)", "math.clamp: argument 3: expected at least 5, got 2"),
        ("ewma({ 1 }, 0)", "math.ewma: argument 2: expected a weight above 0 and at most 1, got 0"),
        ("percentile({ 1 }, 101)", "math.percentile: argument 2: expected a percentage from 0 to 100, got 101"),
        ("lerp(1e308, -1e308, 5)", "math.lerp: expected a finite result, got -inf"),
        (
            "sine(1, { perod = 5 })",
            "math.sine: unknown option \"perod\" (known: period, base, amplitude, phase); did you mean `period`?",
        ),
        ("sine(1, { period = 0 })", "math.sine: option period: expected a number above 0, got 0"),
        ("round(1, 2, 3)", "math.round: expected at most 2 arguments, got 3"),
    ] {
        assert_eq!(bench.error(&format!("require('setpoint.math').{call}")), expected, "{call}");
    }
}

#[test]
fn time_is_the_ticks_and_zones_have_their_summers() {
    let bench = bench();
    let chunk = r"
        local time = require('setpoint.time')
        assert(time.now() == 1780000000.5 and time.now() == time.now())
        assert(time.iso() == '2026-05-28T20:26:40.500Z' and time.iso(0) == '1970-01-01T00:00:00.000Z')
        assert(time.parse('2026-01-01T01:00:00+01:00') == time.parse('2026-01-01T00:00:00Z'))
        assert(time.duration('1m30s') == 90)
        local winter = time.zoned(time.parse('2026-03-29T00:59:59Z'), 'Europe/Berlin')
        local summer = time.zoned(time.parse('2026-03-29T01:00:00Z'), 'Europe/Berlin')
        assert(winter.hour == 1 and winter.offset == 3600 and winter.zone == 'CET' and winter.weekday == 7)
        assert(summer.hour == 3 and summer.offset == 7200 and summer.zone == 'CEST' and summer.yday == 88)
        local utc = time.zoned()
        return ('%d-%d-%d %d:%d:%d'):format(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second)
    ";
    assert_eq!(bench.run::<String>(chunk).unwrap(), "2026-5-28 20:26:40");
    for (call, expected) in [
        (
            "zoned(0, 'Europe/Berlim')",
            "expected an IANA time zone such as \"Europe/Berlin\", got \"Europe/Berlim\"; did you mean `Europe/Berlin`?",
        ),
        ("zoned(1e300)", "time.zoned: argument 1: expected seconds since 1970, got"),
        ("zoned(0/0)", "time.zoned: argument 1: expected seconds since 1970, got NaN"),
        ("parse('yesterday')", "time.parse: argument 1: expected an RFC 3339 time such as"),
        ("duration('90')", "time.duration: argument 1: expected a duration with a unit such as"),
    ] {
        let error = bench.error(&format!("require('setpoint.time').{call}"));
        assert!(error.contains(expected), "{call}: {error}");
    }
}

#[test]
fn logging_is_bounded_and_takes_fields() {
    let bench = bench();
    let scope = bench.scope();
    let chunk = "local log = require('setpoint.log') log.info('scaled', { n = 3, ok = true }) for i = 1, 1e4 do log.debug('x') end";
    bench.run_in::<()>(&scope, chunk).unwrap();
    assert_eq!(scope.output_left.load(Ordering::Relaxed), 0);
    let scope = bench.scope();
    bench.run_in::<()>(&scope, "require('setpoint.log').info('scaled', { n = 3, ok = true })").unwrap();
    assert_eq!(scope.output_left.load(Ordering::Relaxed), 1024 - "scaled n=3 ok=true\n".len());
    let error = bench.error("require('setpoint.log').warn('x', { f = {} })");
    assert_eq!(error, "log.warn: argument 2: field f: expected text, a number or a boolean, got a table");
}

#[test]
fn secrets_are_handles_that_say_only_their_name() {
    let secrets = BTreeMap::from([("token".to_owned(), SecretSource::File("/nonexistent/token".into()))]);
    let bench = Bench::new(Permissions { secrets, ..Permissions::default() });
    let chunk = "local s = require('setpoint.secret').get('token') return tostring(s), type(s), pcall(function() return s.value end)";
    let (shown, kind, readable): (String, String, bool) = bench.run(chunk).unwrap();
    assert_eq!((shown.as_str(), kind.as_str(), readable), ("secret(token)", "userdata", false));
    let get = "local s = require('setpoint.secret').get('token') ";
    assert!(bench.error(&format!("{get} return 'x' .. s")).contains("concatenate"));
    let error = bench.error(&format!("{get} return require('setpoint.json').encode({{ s }})"));
    assert!(error.ends_with("got a secret"), "{error}");
    let error = bench.error("require('setpoint.secret').get('tokem')");
    assert_eq!(error, "secret.get: the host has no secret \"tokem\"; did you mean `token`?");
}

#[test]
fn xml_becomes_plain_tables() {
    let chunk = r#"
        local xml = require("setpoint.xml")
        local root = xml.decode([==[<?xml version="1.0" encoding="UTF-8"?>
          <!DOCTYPE scheduledJobs>
          <s:jobs xmlns:s="urn:s" n="1 &amp; &#x32;">
            <job id='6'><resources><resource>linux</resource><resource><![CDATA[a<b]]></resource></resources></job>
            text <!-- none of this --> here &lt;
            <job id="7"/>
          </s:jobs>]==])
        assert(root.name == "jobs" and root.attributes.n == "1 & 2" and #root.children == 2)
        assert(root.text:find("^text%s+here <$"), root.text)
        local jobs = xml.find_all(root, "job")
        assert(#jobs == 2 and jobs[1].attributes.id == "6" and #jobs[2].children == 0 and jobs[2].text == "")
        local names = {}
        for _, resource in ipairs(xml.find_all(root, "*/resources/resource")) do names[#names + 1] = resource.text end
        assert(xml.find(root, "job/resources/resource").text == "linux" and xml.find(root, "job/none") == nil)
        return table.concat(names, " ")
    "#;
    let text: String = bench().run(chunk).unwrap();
    assert_eq!(text, "linux a<b");
}

#[test]
fn xml_refuses_what_is_not_xml_and_what_is_hostile() {
    let bench = Bench::with_limits(Permissions::default(), Limits { body: 8192, ..Limits::default() });
    for (call, expected) in [
        ("decode()", "xml.decode: argument 1: expected XML text in UTF-8, got nil"),
        ("decode('')", "xml.decode: expected XML, got \"\""),
        ("decode('no')", "xml.decode: expected XML, got text outside of the root element at line 1 column 1"),
        ("decode('<a>\\n<b></a>')", "xml.decode: expected XML: ill-formed document"),
        ("decode('<a><b>')", "xml.decode: expected XML, got its end before the end of <b>"),
        ("decode('<a/><b/>')", "xml.decode: expected XML, got a second root element at line 1 column 5"),
        ("decode('<a>&lol;</a>')", "xml.decode: expected XML, got the unknown entity \"lol\" at line 1 column 4"),
        ("decode('<a x=1/>')", "xml.decode: expected XML, got "),
        ("decode(('<a>'):rep(100))", "xml.decode: expected XML, got elements more than 64 levels deep"),
        ("decode(('x'):rep(9000))", "xml.decode: expected XML of at most 8192 bytes, got 9000"),
        ("find({}, 'a')", "xml.find: expected an element with children, got nil there"),
        (
            "find(require('setpoint.xml').decode('<a/>'), 'a//b')",
            "xml.find: argument 2: expected a path such as \"job/resources/resource\", got \"a//b\"",
        ),
    ] {
        let error = bench.error(&format!("return require('setpoint.xml').{call}"));
        assert!(error.starts_with(expected) && error.len() < 250, "{call}: {error}");
    }
}
