//! The directions between modules, and the habits that the whole package keeps. ARCHITECTURE.md says why they are so;
//! this holds them.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::{Named, Source};

/// Names that may appear in some places only.
struct Confined {
    /// Beginnings of paths, or macros: `mlua` is `mlua` and `mlua::Lua`.
    names: &'static [&'static str],
    /// The folders and files that may name them.
    to: &'static [&'static str],
    because: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        names: &["mlua"],
        to: &["src/script"],
        because: "the rest of the crate sees policies through `PolicyScript`, so that the Lua engine can change",
    },
    Confined {
        names: &["bollard"],
        to: &["src/container"],
        because: "docker, swarm and the executor stand on one client of the engine",
    },
    Confined {
        names: &["axum", "prometheus_client"],
        to: &["src/http"],
        because: "the API is a view of the engine; leaving out the `http` feature must leave out nothing else",
    },
    Confined {
        names: &["clap", "clap_complete", "clap_mangen"],
        to: &["src/cli", "src/main.rs"],
        because: "an embedder brings its own command line",
    },
    Confined {
        names: &["tracing_subscriber"],
        to: &["src/cli", "src/main.rs", "src/telemetry.rs"],
        because: "a library emits events; who listens to them is the program's choice, made in one place",
    },
    Confined {
        names: &["zookeeper_client"],
        to: &["src/mesos"],
        because: "who leads a Mesos cluster is all that anybody here wants from ZooKeeper",
    },
    Confined {
        names: &["reqsign_aws_v4", "reqsign_core"],
        to: &["src/script/api/sqs.rs"],
        because: "signatures are for one service that scripts can ask",
    },
    Confined {
        names: &["redb"],
        to: &["src/runtime/store", "src/runtime/store.rs"],
        because: "what is durable is `runtime::record`; how it is kept is the store's business alone",
    },
    Confined {
        names: &["saphyr_parser", "hcl_edit"],
        to: &["src/import"],
        because: "what others write is read into a tree in one place, and goes no further",
    },
    Confined {
        names: &["rmp_serde", "crc32fast"],
        to: &["src/log"],
        because: "how the decision log is written is its own business",
    },
    Confined {
        names: &["std::env"],
        // A secret's variable is named by the operator's configuration and read when a script first uses it; what a child
        // inherits is passed on, and nothing is made of it.
        to: &["src/cli", "src/main.rs", "src/script/api/secret.rs", "src/backend/local/spawn.rs"],
        because: "ambient settings make a library behave differently for reasons that its caller cannot see",
    },
    Confined {
        names: &["std::process::exit", "process::exit", "std::process::abort", "process::abort"],
        to: &["src/cli", "src/main.rs"],
        because: "a library that ends the process takes its host with it",
    },
    Confined {
        names: &["print!", "println!", "eprint!", "eprintln!", "dbg!"],
        to: &["src/cli", "src/main.rs"],
        because: "standard output and error belong to the program; everything else logs through tracing",
    },
    Confined { names: &["todo!", "unimplemented!"], to: &[], because: "what is not there is left out, not promised" },
];

/// What a folder may name of the crate's modules.
struct Wall {
    folder: &'static str,
    /// Paths after `crate::`.
    may_name: &'static [&'static str],
    because: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        folder: "src/core",
        may_name: &["core"],
        because: "the core is pure: replay and simulation depend on nothing else having a say in a decision",
    },
    Wall {
        folder: "src/script",
        // How durations and sizes are written is pure, and the same for settings and policies.
        may_name: &["core", "script", "config::units"],
        because: "a script asks, the engine acts; the host of scripts must not reach what carries requests out",
    },
    Wall {
        folder: "src/container",
        may_name: &["core", "container", "sample"],
        because: "it speaks to engines for whoever asks, and knows neither tasks' owners nor policies",
    },
    Wall {
        folder: "src/backend",
        may_name: &["core", "backend", "container", "sample", "mesos"],
        because: "a backend starts and ends tasks and knows neither policies nor scripts nor who asked",
    },
    Wall {
        folder: "src/executor",
        may_name: &["core", "backend", "mesos", "executor"],
        because: "it runs tasks for an agent with what runs them without one, and knows no policies",
    },
    Wall {
        folder: "src/sample",
        may_name: &["core", "sample"],
        because: "figures are read and computed the same for every backend; who asks and over which client is theirs",
    },
    Wall {
        folder: "src/mesos",
        may_name: &["mesos"],
        because: "the client of Mesos knows the protocol alone, and could be a crate of its own",
    },
    Wall {
        folder: "src/runtime",
        may_name: &["core", "script", "backend", "container", "mesos", "config", "log", "runtime", "telemetry"],
        because: "the engine must run without the API and the command line, inside another program",
    },
    Wall {
        folder: "src/log",
        may_name: &["core", "log"],
        because: "it records what was decided and calls the deciding function again; who decides is not its business",
    },
    Wall {
        folder: "src/import",
        may_name: &["import"],
        because: "text in, text out: an importer knows how policies are written, not what runs them",
    },
    Wall {
        folder: "src/services",
        may_name: &["core", "script", "runtime", "services"],
        because: "the formats of service discovery are pure functions of what the engine publishes",
    },
    Wall {
        folder: "src/http",
        may_name: &["core", "script", "runtime", "config", "services", "http", "telemetry"],
        because: "the API reads what the loop has published and sends it commands; it touches no backend",
    },
    Wall {
        folder: "src/config",
        may_name: &["core", "script", "config"],
        because: "settings are data that the engine is built from; they cannot depend on what is built",
    },
];

/// Modules of `src/backend` that are no backend: what is the same on several of them.
const SHARED_BY_BACKENDS: &[&str] = &["environment", "mark", "run", "words"];

/// Crates that the core may name.
const CORE_CRATES: &[&str] = &["serde", "rustfft", "regex_lite"];

/// Parts of std, and of clocks, that the core may not name.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::atomic",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime::now",
    "Instant::now",
    "SystemTime::now",
];

#[test]
fn modules_keep_their_directions() {
    let sources = without_test_modules(rust_files(&["src"]));
    assert!(sources.len() > 20, "the scan found only {} files", sources.len());
    let crates = dependencies();
    let found: Vec<_> = sources.iter().flat_map(|source| directions(source, &crates)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn files_keep_their_habits() {
    let sources = without_test_modules(rust_files(&["src", "tests", "examples", "benches"]));
    let mut found: Vec<_> = sources.iter().flat_map(rust_habits).collect();
    for path in text_files() {
        found.extend(no_trailing_blanks(&path, &fs::read_to_string(root().join(&path)).unwrap()));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn planted_violations_are_found() {
    let crates = BTreeSet::from(["mlua".to_owned(), "serde".to_owned(), "tokio".to_owned()]);
    let directed = |path: &str, text: &str| directions(&Source::new(path, text), &crates).len();
    let planted = [
        ("src/core/decide.rs", "use tokio::sync::mpsc;"),
        ("src/core/decide.rs", "use super::super::backend::Backend;"),
        ("src/core/decide.rs", "fn f() { let now = Instant::now(); }"),
        ("src/core/law/mod.rs", "use std::{fmt, fs::File};"),
        ("src/runtime/engine.rs", "fn f(lua: &mlua::Lua) {}"),
        ("src/runtime/engine.rs", "use crate::{core::model::Sample, http::api};"),
        ("src/runtime/engine.rs", "fn f() { println!(\"x\"); }"),
        ("src/script/pool.rs", "use crate::runtime::view::Command;"),
        ("src/script/pool.rs", "fn f() { todo!() }"),
        ("src/http/api.rs", "use crate::script::api::MODULES;"),
        ("src/http/api.rs", "use crate::backend::Backend;"),
        ("src/backend/local/mod.rs", "use super::docker::Docker;"),
        ("src/backend/local/mod.rs", "use crate::script::Ctx;"),
        ("src/config/mod.rs", "use std::env; fn f() { env::var_os(\"A\"); }"),
        ("src/config/mod.rs", "use std::process; fn f() { process::exit(1); }"),
    ];
    for (path, text) in planted {
        assert_eq!(directed(path, text), 1, "{path}: {text}");
    }
    let allowed = [
        (
            "src/core/decide.rs",
            "use serde::Serialize; use std::time::{Duration, SystemTime}; use super::model::Sample;",
        ),
        ("src/script/pool.rs", "use mlua::Lua; use crate::core::intent::Intent; use super::{Limits, api::time};"),
        ("src/http/api.rs", "use crate::script::{ScriptError, TaskView}; // println!(\"x\")"),
        (
            "src/backend/local/mod.rs",
            "use super::{TaskBackend, local::ports}; #[cfg(test)] mod tests { use mlua::Lua; }",
        ),
        ("src/cli/run.rs", "fn f() { println!(\"{:?}\", std::env::args()); std::process::exit(0); }"),
    ];
    for (path, text) in allowed {
        assert_eq!(directed(path, text), 0, "{path}: {text}");
    }
    let habits = |text: &str| rust_habits(&Source::new("src/a.rs", text)).len();
    assert_eq!(habits("//! What it is.\nfn f() { a.expect(\"invariant: a is there\"); }\n"), 0);
    for text in ["fn f() {}\n", "//! A.\n#[ignore]\nfn f() {}\n", "//! A.\nfn f() { a.expect(\"x\"); }\n"] {
        assert_eq!(habits(text), 1, "{text}");
    }
    assert_eq!(no_trailing_blanks("a.md", "one\ntwo \n\tthree\t\n").len(), 2);
}

/// Everything in one file of `src` that goes against a direction.
fn directions(source: &Source, crates: &BTreeSet<String>) -> Vec<String> {
    let report =
        |named: &Named, because: &str| format!("{}:{}: names `{}`, but {because}", source.path, named.line, named.path);
    let mut found = Vec::new();
    for named in source.paths().iter().chain(&source.macros()) {
        for rule in CONFINED {
            let may = rule.to.iter().any(|place| source.is_in(place));
            if !may && rule.names.iter().any(|name| begins_with(&named.path, name)) {
                found.push(report(named, rule.because));
            }
        }
        for wall in WALLS.iter().filter(|wall| source.is_in(wall.folder)) {
            let inner = named.path.strip_prefix("crate::").filter(|inner| is_module(inner));
            if inner.is_some_and(|inner| !wall.may_name.iter().any(|name| begins_with(inner, name))) {
                found.push(report(named, wall.because));
            }
        }
        if let Some(because) = impure(source, named, crates) {
            found.push(report(named, because));
        }
        if let Some(because) = neighbour(source, named) {
            found.push(report(named, because));
        }
    }
    found
}

/// What makes the core impure, besides other modules.
fn impure(source: &Source, named: &Named, crates: &BTreeSet<String>) -> Option<&'static str> {
    if !source.is_in("src/core") {
        return None;
    }
    let head = named.path.split("::").next()?;
    if crates.contains(head) && !CORE_CRATES.contains(&head) && !CONFINED.iter().any(|rule| rule.names.contains(&head))
    {
        return Some("the core names no outside crate but serde and pure functions");
    }
    // What `std::env` is has been said already.
    let impure = IMPURE.iter().filter(|name| **name != "std::env").any(|name| begins_with(&named.path, name));
    impure.then_some("the core does no I/O, reads no clock and shares no state, and so it cannot fail")
}

/// Reaching into a module that stands beside one's own.
fn neighbour(source: &Source, named: &Named) -> Option<&'static str> {
    if source.is_in("src/http") {
        let inner = named.path.strip_prefix("crate::script::")?.split("::").next()?;
        return (is_module(inner) && inner != "error")
            .then_some("the API may name the types in script/mod.rs and nothing behind them");
    }
    let own = source.path.strip_prefix("src/backend/")?.split(['/', '.']).next()?;
    let other = named.path.strip_prefix("crate::backend::")?.split("::").next()?;
    // What every task's environment holds is the same on all of them.
    let shared = SHARED_BY_BACKENDS.contains(&other);
    (own != "mod" && is_module(other) && other != own && !shared)
        .then_some("backends do not know each other: each can be left out, and an embedder brings its own")
}

/// What every Rust file keeps to, tests too.
fn rust_habits(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.text.starts_with("//!") {
        found.push(format!("{}:1: begins without `//!`: a module says first what it is for", source.path));
    }
    for (offset, _) in source.code.match_indices("#[ignore") {
        let line = source.line(offset);
        found.push(format!("{}:{line}: an ignored test is one that nobody runs: take it out or mend it", source.path));
    }
    if source.is_in("src") {
        for (offset, call) in source.code.match_indices(".expect(") {
            if !source.text[offset + call.len()..].trim_start().starts_with("\"invariant: ") {
                let line = source.line(offset);
                found.push(format!("{}:{line}: `expect` must name the `invariant: …` that it relies on", source.path));
            }
        }
    }
    found
}

fn no_trailing_blanks(path: &str, text: &str) -> Vec<String> {
    let bad = text.lines().enumerate().filter(|(_, line)| line.ends_with([' ', '\t']));
    bad.map(|(index, _)| format!("{path}:{}: ends in blanks, which only make noise in changes", index + 1)).collect()
}

/// Whether `path` is `name` or goes on from it.
fn begins_with(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Modules are in lower case; types, functions of a module's own and constants do not come right after `crate::`.
fn is_module(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_lowercase())
}

/// The crates that Cargo.toml depends on, as code names them.
fn dependencies() -> BTreeSet<String> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let table = manifest["dependencies"].as_table().unwrap();
    table.keys().map(|name| name.replace('-', "_")).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folders: &[&str]) -> Vec<Source> {
    let files = folders.iter().flat_map(|folder| walk(folder)).filter(|path| extension(path) == Some("rs"));
    let read = |path: String| Source::new(path.as_str(), fs::read_to_string(root().join(&path)).unwrap());
    files.map(read).collect()
}

/// The sources without those that are compiled for tests alone: those may name and do what tests do.
fn without_test_modules(mut sources: Vec<Source>) -> Vec<Source> {
    let tests: Vec<_> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    sources.retain(|source| !tests.iter().any(|module| source.is_in(module)));
    sources
}

/// The files that people write: code, scripts, prose and settings.
fn text_files() -> Vec<String> {
    let top = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file());
    let mut files: Vec<_> = top.map(|entry| entry.file_name().into_string().unwrap()).collect();
    files.extend(
        ["src", "tests", "examples", "benches", "scripts", "docs", ".ci"].iter().flat_map(|folder| walk(folder)),
    );
    // Files without an extension are shell scripts and licences.
    let extensions = ["rs", "lua", "md", "toml", "sh", "py", "css", "js", "html"];
    files.retain(|path| extension(path).is_none_or(|extension| extensions.contains(&extension)));
    files
}

fn extension(path: &str) -> Option<&str> {
    Path::new(path).extension()?.to_str()
}

/// Every file below a folder of the package, sorted; none when the folder is not there.
fn walk(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(folder)) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap()).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let files = names.into_iter().flat_map(|entry| {
        let path = format!("{folder}/{}", entry.file_name().to_str().expect("file names are plain"));
        if entry.file_type().unwrap().is_dir() { walk(&path) } else { vec![path] }
    });
    files.collect()
}
