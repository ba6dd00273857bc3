//! The durable store: what was acknowledged is there, whole, after whatever happens; what is damaged is refused.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests panic and print as tests do")]

mod crash;
mod damage;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use setpoint::core::compare::Tally;
use setpoint::core::decision::{LawState, PolicyState, RampState, UpDownCount};
use setpoint::core::intent::By;
use setpoint::core::ledger::{Departed, LedgerState, Task};
use setpoint::core::model::{Placement, Point, PolicyName, TaskId, TaskState};
use setpoint::core::policy::{Command as TaskCommand, PortSpec, TaskTemplate};
use setpoint::core::time::Timestamp;
use setpoint::runtime::record::{Ended, Override, Pause, PolicyRecord, ShadowRecord, SourceRecord, Stored, Write};
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
            failed_at: Some(at),
            departed: VecDeque::from([Departed { ready: at, gone: at + Duration::from_millis(2) }]),
        },
        script_state: Some(format!("{{\"n\":{seed},\"text\":\"\\u0000 ü\"}}")),
        ticks: seed,
        generation: 4,
        paused: Some(Pause { until: Some(wall(seed)), reason: Some("maintenance".into()) }),
        bounds: Some(Override { min: Some(1), max: None, until: None, reason: None }),
        ended: Some(Ended { by: "stop".into(), code: -1, reason: "done".into() }),
        shape: "count/cools/jobs".into(),
        backend: "local".into(),
        shadow: Some(ShadowRecord {
            file: "next.lua".into(),
            state: PolicyState { last_launch: Some(at), ..PolicyState::default() },
            script_state: Some("{}".into()),
            generation: 2,
            shape: "relay heats jobs".into(),
            tally: Tally { ticks: seed, ..Tally::default() },
            compared: "a b".into(),
        }),
    }
}

fn task(id: &str, seed: u64) -> Task {
    let template = TaskTemplate {
        command: Some(TaskCommand::Argv(vec!["sh".into(), "-c".into(), format!("echo {seed}")])),
        env: BTreeMap::from([("A".to_owned(), "b\n\"".to_owned())]),
        cpus: Some(0.1),
        memory: Some(u64::MAX),
        ports: vec![PortSpec { name: "http".into(), inside: Some(8080), ..PortSpec::default() }],
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
        killed: seed.is_multiple_of(2),
        withdrawn: false,
        attempt: 3,
        placement: Placement {
            host: Some("127.0.0.1".into()),
            ports: BTreeMap::from([("http".to_owned(), 31_000)]),
            pid: Some(u32::MAX),
            container: None,
            token: Some("12345".into()),
        },
        slot: Some(3),
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
            Write::RemoveSource(path) => drop(self.sources.remove(&path)),
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
    let writes = prop::collection::vec((0..7_u8, 0..8_u8, any::<u16>()), 0..12);
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
        5 => Write::RemoveSource(format!("s{key}")),
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
    // Here not even root may make a file.
    let error = Store::open(Path::new("/proc/self")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert_eq!(error.exit_code(), 74);
    let error = Store::open_read_only(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "reading leaves nothing behind");
}

#[test]
fn a_reader_beside_a_busy_writer_sees_whole_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    submit_and_wait(&store, numbered(1)).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (2..).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                submit_and_wait(&store, numbered(n)).unwrap();
            }
        });
        let mut last = 0;
        for _ in 0..40 {
            let n = Store::open_read_only(dir.path()).map(|stored| number_of(&stored)).expect("a whole store");
            assert!(n >= last, "{n} after {last}");
            last = n;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
