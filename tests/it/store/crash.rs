//! Processes that die, and disks that fill up: what was acknowledged stays, what was submitted comes.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use setpoint::runtime::record::{SourceRecord, Write};
use setpoint::runtime::store::{Store, StoreError};

use super::{database, number_of, numbered, source, submit_and_wait};

/// Set for the child processes of the tests below: the folder to work on.
const CHILD_DIR: &str = "SETPOINT_TEST_STORE_DIR";

/// Starts this test binary again with only the test `name` in it.
fn child(name: &str, dir: &Path, shell: Option<&str>) -> Child {
    let exe = std::env::current_exe().unwrap();
    let arguments = ["--exact", name, "--nocapture", "--include-ignored", "--test-threads=1"];
    let mut command = match shell {
        None => Command::new(exe),
        Some(prelude) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{prelude}; exec \"$0\" \"$@\"")).arg(exe);
            shell
        }
    };
    command.args(arguments).env(CHILD_DIR, dir).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().expect("the test binary starts")
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Not a test by itself: writes numbered batches and says which ones were acknowledged, until it is killed.
#[test]
fn child_that_writes() {
    let Some(dir) = child_dir() else { return };
    let (store, stored) = Store::open(&dir).expect("opened");
    let mut out = std::io::stdout();
    let first = number_of(&stored) + 1;
    writeln!(out, "\nopened {}", first - 1).unwrap();
    for n in first.. {
        // Some that nobody waits for, so that commits hold several batches.
        let sync = n.is_multiple_of(3);
        if sync {
            submit_and_wait(&store, numbered(n)).expect("written");
            writeln!(out, "acknowledged {n}").unwrap();
            out.flush().unwrap();
        } else {
            store.submit(numbered(n), false, None);
        }
    }
}

#[test]
fn a_kill_at_any_moment_keeps_every_acknowledged_batch_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(42);
    let mut highest = 0;
    for _ in 0..12 {
        let mut process = child("store::crash::child_that_writes", dir.path(), None);
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let numbered = |line: &str, word: &str| line.strip_prefix(word).and_then(|n| n.trim().parse::<u64>().ok());
        let opened = lines.find_map(|line| numbered(&line, "opened ")).expect("the child opens the store");
        assert!(opened >= highest, "{highest} had been acknowledged, and {opened} is there");
        // A few acknowledgements, and then some way into whatever comes next.
        let acknowledged = lines.by_ref().take(random.usize(..6));
        highest = acknowledged.filter_map(|line| numbered(&line, "acknowledged ")).last().unwrap_or(highest);
        let spin = Instant::now() + Duration::from_micros(random.u64(..4000));
        while Instant::now() < spin {
            std::hint::spin_loop();
        }
        process.kill().unwrap();
        process.wait().unwrap();
        highest = lines.filter_map(|line| numbered(&line, "acknowledged ")).last().unwrap_or(highest);
    }
    let (_store, stored) = Store::open(dir.path()).unwrap();
    assert!(number_of(&stored) >= highest);
    assert!(highest > 0);
}

/// Not a test by itself: runs under a file-size limit, which stands in for a full disk.
#[test]
fn child_on_a_full_disk() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Some(dir) = child_dir() else { return };
    let (store, _) = Store::open(&dir).expect("opened");
    submit_and_wait(&store, numbered(1)).expect("fits");
    let size = fs::metadata(database(&dir)).unwrap().len();
    let hard = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: Some(size), maximum: hard }).unwrap();

    let big = SourceRecord { source: "x".repeat(16 << 20), ..source(0) };
    let error = submit_and_wait(&store, vec![Write::Source("big".into(), big.clone())]).unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert!(store.failure().is_some());
    assert_eq!(number_of(&Store::open_read_only(&dir).unwrap()), 1, "what was there is there");
    // What comes meanwhile is kept, and what came first stays first.
    store.submit(numbered(2), false, None);

    setrlimit(Resource::Fsize, Rlimit { current: hard, maximum: hard }).unwrap();
    store.flush().expect("there is room again");
    assert!(store.failure().is_none());
    store.close().expect("closed");
    let stored = Store::open_read_only(&dir).unwrap();
    assert_eq!(number_of(&stored), 2);
    assert_eq!(stored.sources["big"], big);
    println!("\nfull disk done");
}

#[test]
fn a_full_disk_is_reported_and_nothing_is_lost_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    // An ignored signal stays ignored through exec: writes beyond the limit then fail instead of ending the process.
    let process = child("store::crash::child_on_a_full_disk", dir.path(), Some("trap '' XFSZ"));
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("full disk done"), "{text}");
}
