//! `setpoint.fs` on real folders, and every way out of them that came to mind.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::super::testing::Bench;
use crate::script::{Limits, Permissions};

/// `policy/` is the policy's folder, `shared/` may be read, `private/` may not.
fn world() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["policy/spool/sub", "shared", "private"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    for (file, text) in [
        ("policy/spool/b.job", "one\r\ntwo\n\nthree"),
        ("policy/spool/a.job", ""),
        ("policy/spool/.c.job", "hidden"),
        ("policy/spool/d.txt", "text"),
        ("shared/figure", "42\n"),
        ("private/key", "hunter2"),
    ] {
        fs::write(root.path().join(file), text).unwrap();
    }
    root
}

fn bench(root: &Path) -> Bench {
    let read_dirs = vec![root.join("shared"), root.join("not there")];
    let limits = Limits { body: 64, ..Limits::default() };
    Bench::with_limits(Permissions { read_dirs, ..Permissions::default() }, limits).folder(&root.join("policy"))
}

#[test]
fn counts_lists_and_reads() {
    let root = world();
    let bench = bench(root.path());
    let shared = root.path().join("shared").display().to_string();
    let chunk = format!(
        r#"
        local fs = require("setpoint.fs")
        assert(fs.count("spool") == 3 and fs.count("spool", "*.job") == 2 and fs.count("spool", ".*") == 1)
        assert(fs.count("spool", "*", {{ kind = "folder" }}) == 1 and fs.count("spool", "*", {{ kind = "any" }}) == 4)
        assert(table.concat(fs.list("spool", "[ab].*"), " ") == "a.job b.job")
        assert(table.concat(fs.lines("spool/b.job"), "|") == "one|two||three" and #fs.lines("spool/a.job") == 0)
        assert(fs.exists("spool/a.job") and fs.exists("spool") and not fs.exists("spool/z.job"))
        assert(fs.size("spool/d.txt") == 4 and fs.mtime("spool/d.txt") > 1.6e9)
        assert(fs.read("{shared}/figure") == "42\n" and fs.read("spool/../spool/d.txt") == "text")
        return true
        "#
    );
    assert!(bench.run::<bool>(&chunk).unwrap());
}

#[test]
fn nothing_leads_out() {
    let root = world();
    let policy = root.path().join("policy");
    let private = root.path().join("private");
    symlink(private.join("key"), policy.join("link")).unwrap();
    symlink(&private, policy.join("folder")).unwrap();
    symlink("../../private/key", policy.join("spool/relative")).unwrap();
    symlink("loop", policy.join("loop")).unwrap();
    let bench = bench(root.path());
    let absolute = private.join("key").display().to_string();
    for path in [
        "../private/key",
        "spool/../../private/key",
        "link",
        "folder/key",
        "folder/../private/key",
        "spool/relative",
        "loop",
        "/etc/passwd",
        "/proc/self/environ",
        // The same answer for what is there and what is not.
        "../private/no such key",
        "/no such place",
        absolute.as_str(),
        "/",
        "",
        "..",
    ] {
        for call in ["read", "exists", "size", "mtime", "lines", "list", "count"] {
            // The policy's own folder may be listed, and is no file.
            if path.is_empty() {
                continue;
            }
            let error = bench.error(&format!("require('setpoint.fs').{call}('{path}')"));
            assert!(error.contains("got one outside"), "{call} {path}: {error}");
            assert!(!error.contains("hunter2") && error.len() < 300, "{call} {path}: {error}");
        }
    }
    assert!(fs::read_to_string(absolute).is_ok(), "the file is there: only the rule keeps it");
}

#[test]
fn limits_and_wrong_arguments_are_told() {
    let root = world();
    fs::write(root.path().join("policy/large"), vec![b'x'; 65]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("policy/pipe"), rustix::fs::Mode::RUSR).unwrap();
    let bench = bench(root.path());
    for (call, expected) in [
        ("read('large')", "fs.read: \"large\": expected at most 64 bytes, got more"),
        ("read('spool/d.txt', { max = 3 })", "fs.read: \"spool/d.txt\": expected at most 3 bytes, got more"),
        (
            "read('spool/d.txt', { max = '1GiB' })",
            "fs.read: option max: expected a size of at most 64 bytes, such as \"64KiB\", got \"1GiB\"",
        ),
        ("read('pipe')", "fs.read: \"pipe\": expected a file, got something else"),
        ("read('spool')", "fs.read: \"spool\": expected a file, got something else"),
        ("read('spool/none')", "fs.read: \"spool/none\": does not exist"),
        ("size('spool')", "fs.size: \"spool\": expected a file, got something else"),
        ("read()", "fs.read: argument 1: expected a path, got nil"),
        ("count({})", "fs.count: argument 1: expected a folder, got a table"),
        ("count('spool', 'a/b')", "fs.count: argument 2: expected a pattern of one name, without a slash, got \"a/b\""),
        (
            "count('spool', '*', { kind = 'x' })",
            "fs.count: option kind: expected \"file\", \"folder\" or \"any\", got \"x\"",
        ),
        ("exists('a', 'b')", "fs.exists: expected at most 1 argument, got 2"),
    ] {
        assert_eq!(bench.error(&format!("require('setpoint.fs').{call}")), expected, "{call}");
    }
    let homeless = Bench::new(Permissions::default());
    let error = homeless.error("require('setpoint.fs').read('x')");
    assert_eq!(error, "fs.read: \"x\": expected an absolute path, since this policy has no folder of its own");
}
