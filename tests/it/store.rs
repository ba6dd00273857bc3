//! The durable store: what was acknowledged is there, whole, after whatever happens; what is damaged is refused.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use setpoint::core::decision::{LawState, PolicyState, RampState, UpDownCount};
use setpoint::core::intent::By;
use setpoint::core::ledger::{LedgerState, Task};
use setpoint::core::model::{Placement, Point, PolicyName, TaskId, TaskState};
use setpoint::core::policy::{Command as TaskCommand, PortSpec, TaskTemplate};
use setpoint::core::time::Timestamp;
use setpoint::runtime::record::{Ended, Override, Pause, PolicyRecord, SourceRecord, Stored, Write};
use setpoint::runtime::store::{Store, StoreError};
use tokio::sync::oneshot;

/// Far beyond what any wait in here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn wall(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000 + millis / 1000, (millis % 1000) as u32 * 1_000_001)
}

/// A policy with every field off its default, and floats that need all their digits.
fn policy(seed: u64) -> PolicyRecord {
    let at = Timestamp::from_millis(seed);
    let value = f64::from_bits(0x3FD5_5555_5555_5555 + seed);
    let points = [value, -0.0, f64::MAX, f64::MIN_POSITIVE / 4.0, 0.1 + 0.2];
    let history: VecDeque<Point> =
        points.iter().map(|value| Point { at, value: *value, setpoint: 1e-7 / 3.0 }).collect();
    PolicyRecord {
        state: PolicyState {
            last_good: history.back().copied(),
            history: Arc::new(history),
            law: LawState::Count { filling: true, from: at, beats: seed, free: 3 },
            ramp: RampState { seen: 3, wanted: -4, from: 1, over: 2 },
            last_launch: Some(at),
            last_change: Some(at + Duration::from_millis(1)),
            proposals: VecDeque::from([(at, 7)]),
            changes: VecDeque::from([(at, -3)]),
            directions: VecDeque::from([1, 0, -1]),
            confirmed: UpDownCount { up: 1, down: 2 },
            first: Some(Timestamp::ZERO),
        },
        ledger: LedgerState {
            waiting: VecDeque::from([at]),
            failures: 2,
            streak: 1,
            backoff_until: Some(at + Duration::from_secs(9)),
            departed: VecDeque::from([at]),
        },
        script_state: Some(format!("{{\"n\":{seed},\"text\":\"\\u0000 ü\"}}")),
        ticks: seed,
        generation: 4,
        paused: Some(Pause { until: Some(wall(seed)), reason: Some("maintenance".into()) }),
        bounds: Some(Override { min: Some(1), max: None, until: None, reason: None }),
        ended: Some(Ended { by: "stop".into(), code: -1, reason: "done".into() }),
        shape: "count/cools/jobs".into(),
        backend: "local".into(),
    }
}

fn task(id: &str, seed: u64) -> Task {
    let template = TaskTemplate {
        command: Some(TaskCommand::Argv(vec!["sh".into(), "-c".into(), format!("echo {seed}")])),
        env: BTreeMap::from([("A".to_owned(), "b\n\"".to_owned())]),
        cpus: Some(0.1),
        memory: Some(u64::MAX),
        ports: vec![PortSpec { name: "http".into(), inside: Some(8080) }],
        ..TaskTemplate::default()
    };
    Task {
        id: id.into(),
        policy: "web".into(),
        backend: "local".into(),
        template: Arc::new(template),
        state: TaskState::Running,
        by: By::Replacement,
        asked: Timestamp::from_millis(seed),
        started: wall(seed),
        since: Timestamp::from_millis(seed + 1),
        ready: None,
        grace: Duration::from_millis(10_500),
        killed: seed % 2 == 0,
        attempt: 3,
        placement: Placement {
            host: Some("127.0.0.1".into()),
            ports: BTreeMap::from([("http".to_owned(), 31_000)]),
            pid: Some(u32::MAX),
            container: None,
            token: Some("12345".into()),
        },
    }
}

fn source(seed: u64) -> SourceRecord {
    SourceRecord { sha256: format!("{seed:064x}"), source: format!("return {{ target = {seed} }} -- ü\r\n") }
}

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    clock: Option<(Timestamp, SystemTime)>,
    policies: BTreeMap<PolicyName, PolicyRecord>,
    tasks: BTreeMap<TaskId, Task>,
    sources: BTreeMap<String, SourceRecord>,
}

impl Model {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Clock(at, wall) => self.clock = Some((at, wall)),
            Write::Policy(name, record) => drop(self.policies.insert(name, *record)),
            Write::RemovePolicy(name) => drop(self.policies.remove(&name)),
            Write::Task(task) => drop(self.tasks.insert(task.id.clone(), *task)),
            Write::RemoveTask(id) => drop(self.tasks.remove(&id)),
            Write::Source(path, record) => drop(self.sources.insert(path, record)),
        }
    }
}

impl From<Stored> for Model {
    fn from(stored: Stored) -> Self {
        let Stored { clock, policies, tasks, sources } = stored;
        Self { clock, policies, tasks, sources }
    }
}

/// Everything of every kind, `n` of each.
fn everything(n: u64) -> Vec<Write> {
    let mut writes = vec![Write::Clock(Timestamp::from_millis(u64::MAX), wall(999))];
    for i in 0..n {
        writes.push(Write::Policy(format!("web/row-{i}").as_str().into(), Box::new(policy(i))));
        writes.push(Write::Task(Box::new(task(&format!("web~{i}.01J"), i))));
        writes.push(Write::Source(format!("/etc/setpoint/{i} ü.lua"), source(i)));
    }
    writes
}

fn model_of(writes: &[Write]) -> Model {
    let mut model = Model::default();
    writes.iter().cloned().for_each(|write| model.apply(write));
    model
}

fn submit_and_wait(store: &Store, writes: Vec<Write>) -> Result<(), StoreError> {
    let (done, answer) = oneshot::channel();
    store.submit(writes, true, Some(done));
    answer.blocking_recv().expect("the writer answers")
}

fn database(dir: &Path) -> PathBuf {
    dir.join("setpoint.redb")
}

#[test]
fn everything_comes_back_as_it_was() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("a/state");
    let (store, stored) = Store::open(&dir).expect("a new store");
    assert_eq!(Model::from(stored), Model::default());
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);

    let writes = everything(20);
    let model = model_of(&writes);
    submit_and_wait(&store, writes).expect("written");
    assert!(store.failure().is_none());
    // Another process may look while this one holds the folder.
    assert_eq!(Model::from(Store::open_read_only(&dir).expect("read")), model);
    store.close().expect("closed");
    assert_eq!(Model::from(Store::open_read_only(&dir).expect("read")), model);

    let (store, stored) = Store::open(&dir).expect("an old store");
    assert_eq!(Model::from(stored), model);
    // Nobody waits for these, and dropping the store writes them all the same.
    store.submit(vec![Write::RemovePolicy("web/row-0".into()), Write::RemoveTask("web~0.01J".into())], false, None);
    drop(store);
    let stored = Model::from(Store::open_read_only(&dir).expect("read"));
    assert_eq!(stored.policies.len(), 19);
    assert_eq!(stored.tasks.len(), 19);
}

#[test]
fn writes_that_nobody_waits_for_become_durable_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.submit(everything(1), false, None);
    let until = Instant::now() + LIMIT;
    while Store::open_read_only(dir.path()).unwrap().policies.is_empty() {
        assert!(Instant::now() < until, "still not written");
        std::thread::yield_now();
    }
    // An empty submission is answered once everything before it is there.
    store.submit(vec![Write::Source("a.lua".into(), source(7))], false, None);
    store.flush().unwrap();
    assert!(Store::open_read_only(dir.path()).unwrap().sources.contains_key("a.lua"));
}

#[test]
fn a_record_without_a_json_form_does_not_spoil_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    submit_and_wait(&store, everything(1)).unwrap();
    let mut odd = policy(5);
    Arc::make_mut(&mut odd.state.history)[0].value = f64::NAN;
    let writes = vec![Write::Policy("web/row-0".into(), Box::new(odd)), Write::RemoveTask("web~0.01J".into())];
    let error = submit_and_wait(&store, writes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot store policy `web/row-0`: expected finite numbers, got NaN; its last stored form was kept"
    );
    assert!(store.failure().is_none());
    store.close().unwrap();
    let stored = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(stored.policies[&PolicyName::from("web/row-0")], policy(0));
    assert!(stored.tasks.is_empty());
}

/// One step of a random schedule: a batch of writes, or a new start.
#[derive(Clone, Debug)]
enum Step {
    Submit { writes: Vec<(u8, u8, u16)>, sync: bool },
    Flush,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let writes = prop::collection::vec((0..6_u8, 0..8_u8, any::<u16>()), 0..12);
    prop_oneof![
        6 => (writes, any::<bool>()).prop_map(|(writes, sync)| Step::Submit { writes, sync }),
        1 => Just(Step::Flush),
        2 => Just(Step::Reopen),
    ]
}

fn write_of((kind, key, value): (u8, u8, u16)) -> Write {
    let seed = u64::from(value);
    match kind {
        0 => Write::Clock(Timestamp::from_millis(seed), wall(seed)),
        1 => Write::Policy(format!("p{key}").as_str().into(), Box::new(policy(seed))),
        2 => Write::RemovePolicy(format!("p{key}").as_str().into()),
        3 => Write::Task(Box::new(task(&format!("t{key}"), seed))),
        4 => Write::RemoveTask(format!("t{key}").as_str().into()),
        // Long enough to need pages of its own now and then.
        _ => Write::Source(format!("s{key}"), SourceRecord { source: "x".repeat(usize::from(value)), ..source(seed) }),
    }
}

#[test]
fn random_batches_with_restarts_equal_a_map() {
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let schedules = prop::collection::vec(step(), 1..40);
    let outcome = runner.run(&schedules, |steps| {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Submit { writes, sync } => {
                    let writes: Vec<Write> = writes.into_iter().map(write_of).collect();
                    writes.iter().cloned().for_each(|write| model.apply(write));
                    store.submit(writes, sync, None);
                }
                Step::Flush => {
                    store.flush().unwrap();
                    prop_assert_eq!(&Model::from(Store::open_read_only(dir.path()).unwrap()), &model);
                }
                Step::Reopen => {
                    drop(store);
                    let (again, stored) = Store::open(dir.path()).unwrap();
                    prop_assert_eq!(&Model::from(stored), &model);
                    store = again;
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_folder_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    let me = std::process::id();
    assert!(matches!(&error, StoreError::Locked { pid: Some(pid), .. } if *pid == me), "{error}");
    assert_eq!(error.to_string(), format!("state folder `{}` is in use by process {me}", dir.path().display()));
    assert_eq!(error.exit_code(), 69);
    drop(store);
    Store::open(dir.path()).expect("the lock has gone with its holder");
}

#[test]
fn what_is_no_state_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NotAFolder { .. }), "{error}");
        assert_eq!(error.exit_code(), 74);
    }
    let error = Store::open_read_only(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "reading leaves nothing behind");
}

/// Opens a damaged store: it must give `models` exactly or refuse, and refusing must leave the file as it is.
fn open_damaged(dir: &Path, models: &[&Model], what: &str) -> bool {
    let before = fs::read(database(dir)).unwrap();
    match Store::open(dir) {
        Ok((store, stored)) => {
            drop(store);
            let stored = Model::from(stored);
            assert!(models.contains(&&stored), "{what}: opened with other data");
            true
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error}");
            assert!(error.hint().is_some());
            assert!(fs::read(database(dir)).unwrap() == before, "{what}: the file was changed");
            false
        }
    }
}

/// Runs `damage` on copies of a clean and of an unclean (never closed) store.
fn damage_both(rounds: u64, damage: impl Fn(&mut Vec<u8>, u64) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    submit_and_wait(&store, everything(30)).unwrap();
    let last = vec![Write::Source("last".into(), source(1)), Write::RemoveTask("web~3.01J".into())];
    submit_and_wait(&store, last.clone()).unwrap();
    let mut model = model_of(&everything(30));
    last.into_iter().for_each(|write| model.apply(write));
    let unclean = (fs::read(database(dir.path())).unwrap(), fs::read(dir.path().join("setpoint.mark")).unwrap());
    store.close().unwrap();
    let clean = (fs::read(database(dir.path())).unwrap(), fs::read(dir.path().join("setpoint.mark")).unwrap());

    for (name, (bytes, mark)) in [("clean", clean), ("unclean", unclean)] {
        let (mut refused, mut opened) = (0, 0);
        for round in 0..rounds {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = bytes.clone();
            let what = damage(&mut bytes, round);
            fs::write(database(dir.path()), bytes).unwrap();
            fs::write(dir.path().join("setpoint.mark"), &mark).unwrap();
            if open_damaged(dir.path(), &[&model], &format!("{name}, {what}")) { opened += 1 } else { refused += 1 }
        }
        println!("{name}: {refused} refused, {opened} opened with exactly the committed data");
        assert!(refused > 0);
    }
}

#[test]
fn flipped_bytes_give_the_committed_data_or_are_refused() {
    // Every byte of the header that matters, then bytes all over the file.
    damage_both(900, |bytes, round| {
        let at = if round < 400 { round as usize } else { fastrand::Rng::with_seed(round).usize(..bytes.len()) };
        let mask = fastrand::Rng::with_seed(round ^ 0xABCD).u8(1..);
        bytes[at] ^= mask;
        format!("byte {at} ^ {mask:#04x}")
    });
}

#[test]
fn overwritten_runs_give_the_committed_data_or_are_refused() {
    damage_both(150, |bytes, round| {
        let mut random = fastrand::Rng::with_seed(round);
        let at = random.usize(..bytes.len());
        let len = random.usize(1..9000).min(bytes.len() - at);
        let zero = random.bool();
        for byte in &mut bytes[at..at + len] {
            *byte = if zero { 0 } else { random.u8(..) };
        }
        format!("{len} bytes from {at}")
    });
}

#[test]
fn truncated_files_give_the_committed_data_or_are_refused() {
    damage_both(150, |bytes, round| {
        let len = match round {
            0 => 0,
            1 => 1,
            2..100 => bytes.len() * round as usize / 100,
            _ => bytes.len() - 1 - fastrand::Rng::with_seed(round).usize(..bytes.len()),
        };
        bytes.truncate(len);
        format!("cut to {len} bytes")
    });
}

#[test]
fn an_older_file_put_in_place_of_the_store_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    submit_and_wait(&store, everything(1)).unwrap();
    let older = fs::read(database(dir.path())).unwrap();
    submit_and_wait(&store, vec![Write::Source("later".into(), source(1))]).unwrap();
    drop(store);
    fs::write(database(dir.path()), &older).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("had been written"), "{error}");
    assert!(fs::read(database(dir.path())).unwrap() == older);
    // A store moved aside is a new start, whatever the old one's mark says.
    fs::rename(database(dir.path()), dir.path().join("aside")).unwrap();
    let (_store, stored) = Store::open(dir.path()).unwrap();
    assert_eq!(Model::from(stored), Model::default());
}

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

/// Batch `n`: everything in it says `n`, so that a half one shows.
fn numbered(n: u64) -> Vec<Write> {
    let mut writes: Vec<Write> = (0..5).map(|i| Write::Task(Box::new(task(&format!("t{i}"), n)))).collect();
    writes.push(Write::Policy("web".into(), Box::new(policy(n))));
    writes.push(Write::Source("web.lua".into(), source(n)));
    writes.push(Write::Source(format!("only-{}", n % 7), source(n)));
    writes
}

/// The number that a store of numbered batches is at; panics when it is at two.
fn number_of(stored: &Stored) -> u64 {
    let Some(policy) = stored.policies.get(&PolicyName::from("web")) else { return 0 };
    let n = policy.ticks;
    assert_eq!(stored.sources["web.lua"], source(n));
    assert_eq!(stored.tasks.len(), 5);
    for task in stored.tasks.values() {
        assert_eq!(task.asked, Timestamp::from_millis(n));
    }
    assert_eq!(stored.sources[&format!("only-{}", n % 7)], source(n));
    n
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
        let sync = n % 3 == 0;
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
        let mut process = child("store::child_that_writes", dir.path(), None);
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
    let process = child("store::child_on_a_full_disk", dir.path(), Some("trap '' XFSZ"));
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("full disk done"), "{text}");
}
