//! The modules of scripts as an embedder and an editor see them. Their behaviour is tested beside them.

use std::fs;
use std::path::{Path, PathBuf};

use setpoint::script::api::{Access, modules, reference, types};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/types")
}

/// `SETPOINT_WRITE_TYPES=1 cargo test --test it script_api` writes the files again.
#[cfg(all(feature = "redis", feature = "sqs"))]
#[test]
fn committed_types_are_what_the_tables_say() {
    let expected = types::files();
    if std::env::var_os("SETPOINT_WRITE_TYPES").is_some() {
        for (name, text) in &expected {
            let path = folder().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    for (name, text) in &expected {
        let committed = fs::read_to_string(folder().join(name)).unwrap_or_default();
        assert!(
            committed == *text,
            "scripts/types/{name} is not what `types::files` makes: set SETPOINT_WRITE_TYPES=1 to write it"
        );
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    if std::env::var_os("SETPOINT_WRITE_TYPES").is_some() {
        fs::write(&committed, reference::markdown()).unwrap();
    }
    assert!(
        fs::read_to_string(committed).unwrap_or_default() == reference::markdown(),
        "docs/reference.md is not what `reference::markdown` makes: set SETPOINT_WRITE_TYPES=1 to write it"
    );
    let entries = fs::read_dir(folder().join("setpoint")).unwrap();
    let mut committed: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    committed.sort();
    let named = expected.iter().filter_map(|(name, _)| name.strip_prefix("setpoint/").map(str::to_owned));
    let mut named: Vec<String> = named.collect();
    named.sort();
    assert_eq!(committed, named, "no file of a module that is gone");
}

#[test]
fn every_type_that_is_named_is_defined() {
    let text = types::luacats();
    let defined: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("---@class "))
        .map(|line| line.trim_start_matches("(exact) ").split([' ', ':']).next().unwrap())
        .collect();
    for line in text.lines().filter(|line| line.starts_with("---@") && !line.starts_with("---@class")) {
        for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_')) {
            let name = word.trim_end_matches('.');
            // Prose names modules' functions; types begin with a capital after the last dot.
            let is_type =
                name.starts_with("setpoint.") && name.rsplit('.').next().unwrap().starts_with(char::is_uppercase);
            assert!(!is_type || defined.contains(&name), "{name} in `{line}`");
        }
    }
    let unique: std::collections::BTreeSet<_> = defined.iter().collect();
    assert_eq!(unique.len(), defined.len(), "no class is defined twice");
}

#[test]
fn key_tables_have_no_key_twice_and_templates_are_workloads_keys() {
    for keys in [types::POLICY_KEYS, types::WORKLOAD_KEYS, types::CONTROL_KEYS, types::CTX_KEYS, types::TASK_KEYS] {
        let unique: std::collections::BTreeSet<_> = types::names(keys).collect();
        assert_eq!(unique.len(), keys.len());
    }
    for key in types::TEMPLATE_KEYS {
        assert!(types::names(types::WORKLOAD_KEYS).any(|name| name == *key), "{key}");
    }
}

#[test]
fn modules_are_in_order_and_every_function_is_documented() {
    assert!(modules().is_sorted_by_key(|module| module.name));
    for function in modules().iter().flat_map(|module| module.functions) {
        assert!(function.doc.ends_with(['.', ')']), "{}: a sentence", function.name);
        let returns_something = !function.returns.is_empty();
        assert!(returns_something || function.access == Access::Pure, "{} returns something", function.name);
    }
}
