//! The bundled policies on genuine things: real tasks, real files, a real Redis; and by-hour over a year.
//!
//! The loads are small here and grow with variables, as `tests/campaign policies` sets them: `SETPOINT_WINDOW` (seconds
//! over which the thermostat is measured), `SETPOINT_FILES`, `SETPOINT_JOBS`, `SETPOINT_OUTAGE` (seconds without Redis) and
//! `SETPOINT_DEATHS` (rounds in which tasks of `keep` are killed).

mod catalogue;
mod compose;
mod containers;
mod farm;
mod keep;
mod machine;
mod outside;
mod services;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::civil::{DateTime, Weekday};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use serde_json::Value;
use setpoint::core::decision::{Bounds, Scripted};
use setpoint::core::model::{PolicyName, Sample};
use setpoint::script::{
    Content, Ctx, Limits, LoadRequest, LoadedFile, Natives, Permissions, PolicyScript, ScriptError, ScriptHost,
};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use self::catalogue::CATALOGUE;
use crate::support::{Cluster, ClusterSpec, GENEROUS, Redis, Scratch, Setpoint, Ticks, setting, wait_until};

/// The loads of this module run one after the other: they measure, and share a machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The bundled policy's file.
fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name).with_extension("lua")
}

/// Sample and setpoint of the ticks that had both.
fn points(ticks: &[Value]) -> Vec<(f64, f64)> {
    ticks.iter().filter_map(|tick| Some((tick["sample"]["value"].as_f64()?, tick["setpoint"].as_f64()?))).collect()
}

fn mean(errors: &[f64]) -> f64 {
    assert!(!errors.is_empty(), "there was nothing to measure");
    errors.iter().sum::<f64>() / errors.len() as f64
}

/// Waits until the policies' samples have met their setpoints, then as long as is measured. Gives how long the first
/// took, and the ticks of the second.
async fn measured(ticks: &Ticks, policies: &[&str]) -> (Duration, Vec<Vec<Value>>) {
    let began = Instant::now();
    let window = Duration::from_secs(setting("SETPOINT_WINDOW", 15));
    let met = |policy: &&str| {
        let points = points(&ticks.all(policy));
        points.iter().skip(1).any(|(sample, setpoint)| (setpoint - sample).abs() <= 1.0)
    };
    wait_until(GENEROUS, "the samples meet the setpoints", async || policies.iter().all(met).then_some(())).await;
    let met = began.elapsed();
    let before: Vec<_> = policies.iter().map(|policy| ticks.all(policy).len()).collect();
    // What is measured is a stretch of time, not the coming of something.
    tokio::time::sleep(window).await;
    let seen = policies.iter().zip(before).map(|(policy, before)| ticks.all(policy).split_off(before)).collect();
    (met, seen)
}

/// The bound on the mean error: `strict` over a minute or more, or one that a busy machine keeps as well.
fn bound(strict: f64) -> f64 {
    if setting("SETPOINT_WINDOW", 15) >= 60 { strict } else { 1.5 }
}

#[tokio::test]
async fn thermostat_follows_its_target() {
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let mut setpoint = Setpoint::run(&scratch, ["thermostat"]);
    let ticks = Ticks::of(&mut setpoint).await;
    let (met, seen) = measured(&ticks, &["thermostat"]).await;
    let points = points(&seen[0]);
    let errors: Vec<_> = points.iter().map(|(sample, setpoint)| (setpoint - sample).abs()).collect();
    let error = mean(&errors);
    eprintln!("thermostat: met after {met:?}, mean |error| {error:.2} over {} samples", errors.len());
    assert!(error <= bound(0.7), "mean |error| is {error}");
    assert!(setting("SETPOINT_WINDOW", 15) < 60 || met < Duration::from_secs(15), "met its target after {met:?}");
    assert!(setpoint.stop().await.success());
    assert!(scratch.living_tasks().is_empty());
}

#[tokio::test]
async fn thermostat_follows_every_shape() {
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(bundled("thermostat")).unwrap();
    let arguments = [bundled("thermostat"), scratch.policy("square", &text), scratch.policy("sine", &text)];
    let mut arguments: Vec<_> = arguments.iter().map(|path| path.to_str().unwrap()).collect();
    for set in ["thermostat.shape=fixed", "square.shape=square", "sine.shape=sine"] {
        arguments.extend(["--set", set]);
    }
    let mut setpoint = Setpoint::run(&scratch, arguments);
    let ticks = Ticks::of(&mut setpoint).await;
    let policies = ["thermostat", "square", "sine"];
    let (met, seen) = measured(&ticks, &policies).await;
    eprintln!("shapes: all met after {met:?}");
    for (policy, seen) in policies.iter().zip(&seen) {
        let points = points(seen);
        // A task that is launched at one sample shows in the next, so that is whose setpoint the loop can meet; and a
        // square's edge is a step of 30 tasks, which takes what it takes.
        let errors: Vec<_> = points
            .windows(11)
            .filter(|window| window.windows(2).all(|pair| (pair[0].1 - pair[1].1).abs() < 10.0))
            .map(|window| (window[9].1 - window[10].0).abs())
            .collect();
        let error = mean(&errors);
        eprintln!("shapes: {policy}: mean |error| {error:.2} over {} samples", errors.len());
        // The sine has 60 tasks on average, of which nearly one ends between two samples.
        assert!(error <= bound(1.0), "{policy}: mean |error| is {error}");
    }
    assert!(setpoint.stop().await.success());
    assert!(scratch.living_tasks().is_empty());
}

#[tokio::test]
async fn spool_does_each_job_once_while_workers_are_killed() {
    let _one = ONE_AT_A_TIME.lock().await;
    let jobs = setting("SETPOINT_FILES", 200);
    let scratch = Scratch::new();
    let contents = |job: u64| format!("job {job}, {}\n", "data ".repeat(job as usize % 500));
    for job in 0..jobs {
        scratch.write(&format!("spool/job {job}"), &contents(job));
    }
    // The first job of each worker waits until all workers have been seen.
    let command = "until [ -e ../go ]; do sleep 0.05; done; sha256sum <\"$1\"";
    let mut setpoint = Setpoint::run(&scratch, ["spool", "--set", &format!("command={command}")]);
    let ticks = Ticks::of(&mut setpoint).await;
    wait_until(GENEROUS, "a tick that sees all workers", async || (ticks.most_running("spool") == 8).then_some(()))
        .await;
    scratch.write("go", "");

    let began = Instant::now();
    let mut kills = 0;
    let every = (jobs / 40).max(1) as usize;
    let mut next = every;
    while next < jobs as usize {
        wait_until(GENEROUS, "jobs get done", async || (scratch.list("spool/done").len() >= next).then_some(())).await;
        let pids: Vec<_> = setpoint.tasks().await.iter().filter_map(|task| task["pid"].as_i64()).collect();
        if !pids.is_empty() {
            // One that has just ended by itself is as good.
            kills += i32::from(scratch.kill(pids[fastrand::usize(..pids.len())] as i32).is_ok());
        }
        next = scratch.list("spool/done").len() + every;
    }
    let all = || scratch.list("spool/done").len() + scratch.list("spool/failed").len();
    wait_until(GENEROUS, "all jobs are done", async || (all() >= jobs as usize).then_some(())).await;
    let took = began.elapsed();
    setpoint.running("spool", 0).await;
    let most = ticks.most_running("spool");
    eprintln!("spool: 0 → {most} → 0, {jobs} jobs in {took:?}, {kills} workers killed");
    assert!(kills > 0, "no worker was killed");
    assert_eq!(most, 8);

    let names: BTreeSet<_> = (0..jobs).map(|job| format!("job {job}")).collect();
    let done: BTreeSet<_> = scratch.list("spool/done").into_iter().collect();
    assert_eq!(done, names, "each job is done, and each is there once");
    assert_eq!(scratch.list("spool/out").into_iter().collect::<BTreeSet<_>>(), names, "one result for each job");
    for empty in ["spool/failed", "spool/work"] {
        assert!(scratch.list(empty).is_empty(), "{empty}: {:?}", scratch.list(empty));
    }
    let left: Vec<_> = scratch.list("spool").into_iter().filter(|name| names.contains(name)).collect();
    assert!(left.is_empty(), "still waiting: {left:?}");
    for job in 0..jobs {
        let result = scratch.read(&format!("spool/out/job {job}"));
        assert_eq!(result, format!("{:x}  -\n", Hex(&Sha256::digest(contents(job)))), "job {job}");
        assert_eq!(scratch.read(&format!("spool/done/job {job}")), contents(job), "job {job}");
    }
    assert!(setpoint.stop().await.success());
}

/// Bytes that show as hex digits.
struct Hex<'a>(&'a [u8]);

impl std::fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How often each of a Redis list's jobs is in it.
fn tally(jobs: &[String]) -> BTreeMap<&str, u32> {
    let mut tally = BTreeMap::new();
    for job in jobs {
        *tally.entry(job.as_str()).or_default() += 1;
    }
    tally
}

#[tokio::test]
async fn queue_does_each_job_once_and_holds_while_redis_is_away() {
    const BURSTS: u64 = 5;
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(mut redis) = Redis::start_new() else { return };
    let jobs = setting("SETPOINT_JOBS", 500) / BURSTS * BURSTS;
    let scratch = Scratch::new();
    // The first job of each consumer waits until all consumers have been seen.
    let command = "command=until [ -e go ]; do sleep 0.05; done; read -r job; echo \"$job\" >>ran";
    let url = format!("url={}", redis.url());
    let mut setpoint = Setpoint::run(&scratch, ["queue", "--set", &url, "--set", "max=8", "--set", command]);
    let ticks = Ticks::of(&mut setpoint).await;
    setpoint.ticks("queue", 2).await;
    assert_eq!(ticks.most_running("queue"), 0, "there is nothing to do yet");

    let burst = jobs / BURSTS;
    let push = |redis: &Redis, n: u64| {
        let mut command = redis::cmd("RPUSH");
        command.arg("jobs");
        for job in n * burst..(n + 1) * burst {
            command.arg(format!("job-{job}\n"));
        }
        redis.query::<u64>(&command)
    };
    let done = |redis: &Redis| redis.query::<u64>(redis::cmd("LLEN").arg("jobs:done"));
    push(&redis, 0);
    setpoint.running("queue", 8).await;
    scratch.write("go", "");
    let began = Instant::now();
    for n in 1..BURSTS {
        let goal = n * burst - burst / 2;
        wait_until(GENEROUS * 5, "half of a burst is done", async || (done(&redis) >= goal).then_some(())).await;
        push(&redis, n);
        if n == BURSTS / 2 {
            let outage = setting("SETPOINT_OUTAGE", 3);
            let before = setpoint.policy("queue").await.unwrap()["tasks"].clone();
            redis.stop();
            let stopped = Instant::now();
            let failed = |policy: &Value| policy["sample"]["kind"] == "error";
            let first = setpoint.policy_until("queue", "the sample fails", failed).await["ticks"].as_u64();
            // Two ticks are a second.
            setpoint.ticks("queue", outage * 2).await;
            let mut during = ticks.all("queue");
            during.retain(|tick| tick["ticks"].as_u64() >= first);
            assert!(!during.is_empty(), "no tick was seen");
            let after = setpoint.policy("queue").await.unwrap()["tasks"].clone();
            redis.start();
            eprintln!("queue: Redis was away for {:?}: {before} → {after}", stopped.elapsed());
            assert_eq!(before["desired"], 8);
            for tick in &during {
                assert_eq!(tick["sample"]["kind"], "error", "{tick}");
                assert!(tick["acted"].as_i64() >= Some(0), "scaled in without a sample: {tick}");
                assert_eq!(tick["tasks"]["killing"], 0, "killed without a sample: {tick}");
            }
            assert_eq!((&after["desired"], &after["running"]), (&before["desired"], &before["running"]));
        }
    }
    wait_until(GENEROUS * 10, "all jobs are done", async || (done(&redis) >= jobs).then_some(())).await;
    let took = began.elapsed();
    setpoint.running("queue", 0).await;
    let most = ticks.most_running("queue");
    eprintln!("queue: 0 → {most} → 0, {jobs} jobs in {BURSTS} bursts in {took:?}");
    assert_eq!(most, 8);

    let once: BTreeMap<_, _> = (0..jobs).map(|job| (format!("job-{job}\n"), 1)).collect();
    let once: BTreeMap<_, _> = once.iter().map(|(job, times)| (job.as_str(), *times)).collect();
    let finished: Vec<String> = redis.query(redis::cmd("LRANGE").arg("jobs:done").arg(0).arg(-1));
    assert!(tally(&finished) == once, "not each job was finished once");
    let ran: Vec<_> = scratch.read("ran").lines().map(|job| format!("{job}\n")).collect();
    assert!(tally(&ran) == once, "not each job was run once");
    for empty in ["jobs", "jobs:failed", "jobs:work"] {
        assert!(!redis.query::<bool>(redis::cmd("EXISTS").arg(empty)), "{empty} is not empty");
    }
    assert!(setpoint.stop().await.success());
}

#[tokio::test]
async fn queue_gives_the_job_of_a_killed_consumer_to_another() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(redis) = Redis::start_new() else { return };
    let scratch = Scratch::new();
    redis.query::<u64>(redis::cmd("RPUSH").arg("jobs").arg("a job"));
    let url = format!("url={}", redis.url());
    let command = "command=until [ -e go ]; do sleep 0.05; done";
    let mut setpoint = Setpoint::run(&scratch, ["queue", "--set", &url, "--set", command]);
    let holder = async || redis.query::<Vec<String>>(redis::cmd("HKEYS").arg("jobs:work")).pop();
    let first = wait_until(GENEROUS, "a consumer has the job", holder).await;
    let tasks = setpoint.tasks().await;
    let pid = tasks.iter().find(|task| task["id"] == first.as_str()).unwrap()["pid"].as_i64().unwrap();
    scratch.kill(pid as i32).unwrap();
    let another = async || holder().await.filter(|holder| *holder != first);
    wait_until(GENEROUS, "another consumer has the job", another).await;
    scratch.write("go", "");
    setpoint.running("queue", 0).await;
    assert_eq!(redis.query::<Vec<String>>(redis::cmd("LRANGE").arg("jobs:done").arg(0).arg(-1)), ["a job"]);
    assert!(setpoint.stop().await.success());
}

/// A10 of the prior systems, its variant: a place that becomes free after a tick that found all busy is filled at once, the
/// next one at the tick after. That one of the jobs has failed changes nothing of it.
#[tokio::test]
async fn a10_jobs_fills_up_after_a_wait_and_outlives_a_job_that_fails() {
    let _one = ONE_AT_A_TIME.lock().await;
    a10(&Scratch::new(), &[]).await;
}

/// The same on a genuine cluster, under our executor and under the cluster's.
#[tokio::test(flavor = "multi_thread")]
async fn a10_jobs_does_the_same_on_a_cluster() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let _one = ONE_AT_A_TIME.lock().await;
    for executor in ["executor=setpoint", "executor="] {
        let scratch = Scratch::new();
        scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
        a10(&scratch, &["--set", "backend=mesos", "--set", executor]).await;
    }
}

async fn a10(scratch: &Scratch, place: &[&str]) {
    const WAIT: f64 = 8.0;
    // Each job works until it is told how to end.
    let told = format!("{}/$SETPOINT_TASK_ID", scratch.folder().display());
    let command = format!("cmd=until [ -s {told} ]; do sleep 0.05; done; exit $(cat {told})");
    let wait = format!("wait={WAIT}");
    let sets = ["jobs", "--set", &command, "--set", "maxtasks=2", "--set", &wait];
    // The wait counts from the policy's start, which comes between this moment and the first job's.
    let before = Timestamp::now().as_millisecond() as f64 / 1000.0;
    let mut setpoint = Setpoint::run(scratch, sets.iter().chain(place));
    let ticks = Ticks::of(&mut setpoint).await;
    setpoint.running("jobs", 2).await;
    let jobs = async |setpoint: &mut Setpoint| {
        let tasks = setpoint.tasks().await;
        let alive = tasks.iter().filter(|task| task["state"] != "gone");
        let row = |task: &Value| {
            let since = task["started"].as_str()?.parse::<Timestamp>().ok()?;
            Some((task["id"].as_str()?.to_owned(), since.as_millisecond() as f64 / 1000.0))
        };
        alive.filter_map(row).collect::<BTreeMap<String, f64>>()
    };
    let first = jobs(&mut setpoint).await;
    let began = first.values().copied().fold(f64::INFINITY, f64::min);
    let [one, two] = <[&String; 2]>::try_from(first.keys().collect::<Vec<_>>()).unwrap();
    // The tick finds both at work.
    let past = || Timestamp::now().as_millisecond() as f64 / 1000.0 >= began + WAIT + 1.5;
    wait_until(GENEROUS, "the wait is over", async || past().then_some(())).await;
    setpoint.ticks("jobs", 1).await;
    let seen = ticks.all("jobs").len();
    scratch.write(one, "3");
    let refilled = async |setpoint: &mut Setpoint, without: &str| {
        let now = jobs(setpoint).await;
        (now.len() == 2 && !now.contains_key(without)).then_some(now)
    };
    let second =
        wait_until(GENEROUS, "the failed job's place is filled", async || refilled(&mut setpoint, one).await).await;
    let free = ticks.all("jobs")[seen..].iter().filter(|tick| tick["tasks"]["desired"] == 1).count();
    assert!(free <= 3, "filled only after {free} ticks");
    assert!(second.contains_key(two), "the other job goes on");

    // All are at work again: the next place waits for the next tick.
    let filled = second.iter().find(|(id, _)| !first.contains_key(*id)).map(|(_, at)| *at).unwrap();
    scratch.write(two, "0");
    let third = wait_until(GENEROUS, "the next place is filled", async || refilled(&mut setpoint, two).await).await;
    let last = third.iter().find(|(id, _)| !second.contains_key(*id)).map(|(_, at)| *at).unwrap();
    let due = before + WAIT * ((filled - before) / WAIT).ceil();
    assert!(due - 0.5 <= last, "filled at {last}, due at {due}, filled before at {filled}, began after {before}");
    eprintln!("jobs: began, filled again after {:.1} s, and after {:.1} s", filled - began, last - began);
    assert!(setpoint.stop().await.success());

    // Told to, it ends with the first failure.
    let ends = ["jobs", "--set", "cmd=exit 3", "--set", "maxtasks=1", "--set", "max_failures=1"];
    let mut setpoint = Setpoint::run(scratch, ends.iter().chain(place));
    assert_eq!(setpoint.exit(GENEROUS).await.code(), Some(1), "{}", setpoint.stderr());
}

/// One window of a plan, as a person would write it down again.
struct Window {
    days: &'static [Weekday],
    hours: (i64, i64),
    tasks: u32,
}

/// What a plan asks for at a local time: the first window that began today or yesterday and is not over.
fn planned(windows: &[Window], otherwise: u32, local: DateTime) -> u32 {
    let open = |window: &&Window| {
        [0, 1].into_iter().any(|days| {
            let day = local.date().checked_sub(days.days()).unwrap();
            let midnight = day.to_datetime(jiff::civil::Time::midnight());
            let at = |hours: i64| midnight.checked_add(SignedDuration::from_hours(hours)).unwrap();
            window.days.contains(&day.weekday()) && at(window.hours.0) <= local && local < at(window.hours.1)
        })
    };
    windows.iter().find(open).map_or(otherwise, |window| window.tasks)
}

/// by-hour with parameters, in a script host of its own.
async fn by_hour(params: &[(&str, &str)]) -> Arc<dyn PolicyScript> {
    let limits = Limits { cpu: Duration::from_secs(2), load_cpu: Duration::from_secs(5), ..Limits::default() };
    let runtime = tokio::runtime::Handle::current();
    let host = ScriptHost::new(limits, Permissions::default(), Natives::default(), runtime, 1).unwrap();
    let request = LoadRequest {
        path: bundled("by-hour"),
        name: "by-hour".to_owned(),
        source: None,
        params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        backends: vec!["local".to_owned()],
    };
    match host.load(request).await {
        Ok(LoadedFile { content: Content::Policy(policy), .. }) => policy.script,
        Ok(_) => panic!("by-hour is a fleet"),
        Err(errors) => panic!("{}", errors.iter().map(ScriptError::report).collect::<Vec<_>>().join("\n")),
    }
}

/// What the policy asks for at a moment.
async fn asked(script: &Arc<dyn PolicyScript>, now: Timestamp, tick: u64) -> f64 {
    let ctx = Ctx {
        policy: PolicyName::from("by-hour"),
        now: SystemTime::from(now),
        tick,
        sample: Some(Sample::Missing),
        setpoint: None,
        history: Arc::new(VecDeque::new()),
        tasks: Arc::new(Vec::new()),
        running: 0,
        in_flight: 0,
        desired: 0,
        bounds: Bounds { min: 0, max: 20 },
    };
    let observed = script.observe(Arc::new(ctx), GENEROUS).await;
    match observed.scripted {
        Some(Scripted::Desired(count)) => count,
        other => panic!("{now}: {other:?}, {:?}", observed.errors),
    }
}

/// Every hour of the year, and every quarter of an hour of the days on which the clocks change.
fn moments(year: i16, zone: &str) -> Vec<Zoned> {
    let first = jiff::civil::date(year, 1, 1).in_tz(zone).unwrap();
    let hours = (0..366 * 24).map(|hour| first.checked_add(SignedDuration::from_hours(hour)).unwrap());
    let hours: Vec<_> = hours.take_while(|hour| hour.year() == year).collect();
    let changes: Vec<_> = hours.windows(2).filter(|pair| pair[0].offset() != pair[1].offset()).collect();
    assert_eq!(changes.len(), 2, "{zone} has two clock changes");
    let quarters = changes.iter().flat_map(|pair| {
        let midnight = pair[0].start_of_day().unwrap();
        (0..30 * 4).map(move |quarter| midnight.checked_add(SignedDuration::from_mins(15 * quarter)).unwrap())
    });
    let quarters: Vec<_> = quarters.collect();
    hours.into_iter().chain(quarters).collect()
}

#[tokio::test]
async fn by_hour_over_a_year_with_both_clock_changes() {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    const WORKDAYS: &[Weekday] = &[Monday, Tuesday, Wednesday, Thursday, Friday];
    let usual = [
        Window { days: WORKDAYS, hours: (8, 18), tasks: 10 },
        Window { days: WORKDAYS, hours: (18, 22), tasks: 4 },
        Window { days: &[Saturday], hours: (9, 14), tasks: 2 },
    ];
    // The last two are about the hours that the changes skip and repeat.
    let nightly = [
        Window { days: &[Friday], hours: (19, 26), tasks: 20 },
        Window { days: &[Sunday], hours: (2, 3), tasks: 7 },
        Window { days: &[Sunday], hours: (1, 2), tasks: 5 },
        Window { days: &[Saturday, Sunday, Monday], hours: (22, 25), tasks: 3 },
    ];
    let plan = ("plan", "fri 19:00-02:00 20; sun 02:00-03:00 7; SUN 1:00-02:00 5; sat-mon 22:00-01:00 3");
    for zone in ["Europe/Berlin", "America/New_York"] {
        for (windows, plan, otherwise) in [(&usual[..], None, 1), (&nightly, Some(plan), 0)] {
            let otherwise_ = otherwise.to_string();
            let params = [("zone", zone), ("otherwise", &otherwise_)].into_iter().chain(plan);
            let script = by_hour(&params.collect::<Vec<_>>()).await;
            let moments = moments(2026, zone);
            for (tick, moment) in (1..).zip(&moments) {
                let asked = asked(&script, moment.timestamp(), tick).await;
                let planned = f64::from(planned(windows, otherwise, moment.datetime()));
                assert!((asked - planned).abs() < 1e-9, "{moment}: asked for {asked}, planned {planned}");
            }
            eprintln!("by-hour: {zone}: {} moments of the year are right", moments.len());
        }
    }
}

#[tokio::test]
async fn bundled_policies_are_clean_and_say_what_can_be_set() {
    let scratch = Scratch::new();
    for name in CATALOGUE.iter().map(|entry| entry.name) {
        for path in [name, bundled(name).to_str().unwrap()] {
            let checked = Setpoint::output(&scratch, ["check", path, "--json"]).await;
            assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
            let found: Value = serde_json::from_str(&checked.stdout).unwrap();
            assert!(!checked.stdout.contains("\"message\""), "{found:#}");
        }
        let shown = Setpoint::output(&scratch, ["policies", "show", name]).await;
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        let (text, parameters) = shown.stdout.split_once("Parameters (--set name=value)\n").unwrap();
        assert!(text.starts_with(&format!("{name}.lua: ")) && text.contains(&format!("setpoint run {name}")), "{text}");
        let listed: BTreeSet<_> = parameters.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(listed, declared(name), "{name}");
    }
}

/// The parameters that a bundled policy's source declares.
fn declared(name: &str) -> BTreeSet<&'static str> {
    let source = std::fs::read_to_string(bundled(name)).unwrap().leak();
    let (_, table) = source.split_once("require(\"setpoint.params\")({\n").unwrap();
    let (table, _) = table.split_once("})").unwrap();
    table.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim()).collect()
}
