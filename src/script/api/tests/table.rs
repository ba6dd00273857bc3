//! The table of modules, what is registered, and what editors are told: all the same.

use std::collections::BTreeSet;

use mlua::{Table, Value};

use super::super::testing::Bench;
use super::super::{Access, modules};
use crate::script::{Hook, Mode, Permissions};

#[test]
fn every_module_registers_just_what_its_table_says() {
    let bench = Bench::new(Permissions::default());
    for module in modules() {
        let table: Table = bench.run(&format!("return require('setpoint.{}')", module.name)).unwrap();
        let mut registered = BTreeSet::new();
        for pair in table.pairs::<String, Value>() {
            let (key, value) = pair.unwrap();
            let kind = if value.is_function() { "function" } else { "field" };
            registered.insert((key, kind));
        }
        let functions = module.functions.iter().filter(|function| !function.name.contains(':'));
        let mut documented: BTreeSet<_> = functions.map(|function| (function.name.to_owned(), "function")).collect();
        documented.extend(module.fields.iter().map(|(name, ..)| ((*name).to_owned(), "field")));
        assert_eq!(registered, documented, "setpoint.{}", module.name);
    }
}

#[test]
fn methods_of_handles_are_there() {
    let mut bench = Bench::new(Permissions::default());
    bench.trial = true;
    let handles = [
        ("redis", "client", "require('setpoint.redis').connect('redis://127.0.0.1')"),
        ("http", "response", "require('setpoint.http').get('http://127.0.0.1')"),
    ];
    for module in modules() {
        for (handle, method) in module.functions.iter().filter_map(|function| function.name.split_once(':')) {
            let made =
                handles.iter().find(|known| (known.0, known.1) == (module.name, handle)).expect("a way to make it").2;
            let kind: String = bench.run(&format!("local handle = {made} return type(handle.{method})")).unwrap();
            assert_eq!(kind, "function", "{}.{handle}:{method}", module.name);
        }
    }
}

#[test]
fn effects_are_refused_where_only_reading_is_allowed_and_recorded_in_a_dry_run() {
    let calls = [
        "require('setpoint.http').post('http://127.0.0.1:1/hook?key=hidden')",
        "require('setpoint.http').request('delete', 'http://127.0.0.1:1/')",
        "require('setpoint.exec').run({ 'false' })",
        #[cfg(feature = "redis")]
        "require('setpoint.redis').connect('redis://127.0.0.1:1'):set('a', 'b')",
        #[cfg(feature = "redis")]
        "require('setpoint.redis').connect('redis://127.0.0.1:1'):command('incr', 'a')",
    ];
    let mut bench = Bench::new(Permissions { exec: true, ..Permissions::default() });
    for call in calls {
        (bench.hook, bench.mode) = (Hook::Metric, Mode::Live);
        let error = bench.error(call);
        assert!(error.ends_with("effects are allowed in warmer, cooler, drain and stop, not in metric"), "{error}");
        assert!(!error.contains("hidden"), "{error}");

        (bench.hook, bench.mode) = (Hook::Warmer, Mode::Record);
        let scope = bench.scope();
        bench.run_in::<mlua::MultiValue>(&scope, call).unwrap();
        let recorded = scope.recorded.lock().unwrap().clone();
        assert_eq!(recorded.len(), 1, "{call}");
        assert!(!recorded[0].contains("hidden"), "{}", recorded[0]);
    }
}

#[test]
fn a_trial_leaves_the_process_for_nothing() {
    // Nothing listens on these ports, and the files do not exist: whatever tried would raise.
    let mut bench = Bench::new(Permissions::default());
    bench.trial = true;
    let chunk = r"
        local http, fs, process = require('setpoint.http'), require('setpoint.fs'), require('setpoint.process')
        assert(http.get('http://127.0.0.1:1').stub and http.post('http://127.0.0.1:1', { json = {} }).ok)
        assert(next(http.get('http://127.0.0.1:1'):json()) == nil and http.get('http://127.0.0.1:1'):number() == 0)
        assert(fs.count('/nowhere') == 0 and #fs.list('/nowhere') == 0 and fs.read('/nowhere') == '')
        assert(#fs.lines('/nowhere') == 0 and fs.size('/nowhere') == 0 and fs.mtime('/nowhere') == 0)
        assert(fs.exists('/') == false)
        assert(process.count() == 0 and #process.list() == 0 and process.memory().total == 0)
        assert(process.loadavg().one == 0 and process.cpu_percent() == nil)
        local exec = require('setpoint.exec')
        assert(exec.read({ 'false' }).code == 0 and exec.run({ 'false' }).stub)
        local secret = require('setpoint.secret').get('not configured here')
        assert(tostring(secret) == 'secret(not configured here)')
        return true
    ";
    assert!(bench.run::<bool>(chunk).unwrap());
    #[cfg(feature = "redis")]
    assert!(
        bench
            .run::<bool>(
                "local c = require('setpoint.redis').connect('redis://127.0.0.1:1')
                 return c:llen('a') == 0 and c:exists('a') == false and c:get('a') == nil and c:set('a', 1)"
            )
            .unwrap()
    );
}

#[test]
fn documentation_says_what_an_effect_gives_in_a_dry_run_and_a_read_on_trial() {
    for module in modules() {
        for function in module.functions {
            let place = format!("{}.{}", module.name, function.name);
            let needle = match function.access {
                Access::Effect if place != "http.request" => "n a dry run",
                Access::Read if place != "process.cpu_percent" => "While a file loads",
                _ => continue,
            };
            assert!(function.doc.contains(needle), "{place}");
        }
    }
}

#[test]
fn the_editors_files_are_lua() {
    let bench = Bench::new(Permissions::default());
    for (name, text) in super::super::types::files() {
        let compiled = bench.lua.load(&text).set_name(format!("={name}")).into_function();
        assert!(compiled.is_ok(), "{compiled:?}");
    }
}
