//! The log's format: what goes in comes out, bit for bit, whatever happens to the files in between.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::frame::{self, Next};
use super::record::{Decoder, Encoder, Told};
use super::*;
use crate::core::decision::{
    Bounds, Decision, Detail, Guard, InFlight, LawState, Observation, PolicyState, Reason, Scripted,
};
use crate::core::model::{Counts, Effect, Point, PolicyName, Sample};
use crate::core::policy::{Control, Interval, LawSpec, Tuning};
use crate::core::time::Timestamp;

fn identity(name: &str, law: LawSpec) -> Arc<Identity> {
    Arc::new(Identity {
        name: PolicyName::from(name),
        shadow: None,
        generation: 3,
        path: format!("{name}.lua"),
        sha256: "00".repeat(32),
        config: DecisionConfig {
            control: Control::new(law),
            effect: Effect::Cools,
            min: 0,
            max: 40,
            interval: Interval::fixed(Duration::from_secs(1)),
            counter: false,
            metric: true,
        },
    })
}

/// Every float there is: infinities, zeros of both signs, every NaN.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), Just(0.0), Just(-0.0), Just(f64::INFINITY), -1e3..1e3]
}

fn sample() -> impl Strategy<Value = Sample> {
    let age = any::<u32>().prop_map(|millis| Duration::from_millis(millis.into()));
    prop_oneof![
        4 => (float(), age.clone(), any::<Option<u32>>())
            .prop_map(|(value, age, reported)| Sample::Value { value, age, reported }),
        1 => Just(Sample::Missing),
        1 => (float(), age).prop_map(|(value, age)| Sample::Stale { value, age }),
        1 => ".{0,20}".prop_map(|message| Sample::Error { message: message.into() }),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    let detail = prop_oneof![
        (float(), float()).prop_map(|(deviation, tolerance)| Detail::Tolerance { deviation, tolerance }),
        any::<u32>().prop_map(|millis| Detail::Wait { left: Duration::from_millis(millis.into()) }),
        (any::<u32>(), any::<bool>()).prop_map(|(bound, overridden)| Detail::Bound { bound, overridden }),
        (any::<i64>(), any::<bool>())
            .prop_map(|(limit, per)| Detail::Limit { limit, per: per.then_some(Duration::from_secs(15)) }),
        Just(Detail::Unsure),
        ".{0,20}".prop_map(|text| Detail::Text(text.into())),
    ];
    (any::<i64>(), any::<i64>(), detail).prop_map(|(from, to, detail)| Reason { guard: Guard::Max, from, to, detail })
}

prop_compose! {
    fn observation()(
        now in any::<u64>(),
        sample in sample(),
        setpoint in proptest::option::of(float()),
        running in 0_u32..4,
        kills in any::<u32>(),
        refused in 0_u32..2,
        scripted in proptest::option::of(float()),
        bounds in proptest::option::of((any::<u32>(), any::<u32>())),
        budget in any::<Option<u32>>(),
        paused in any::<bool>(),
        dry_run in any::<bool>(),
    ) -> Observation {
        Observation {
            now: Timestamp::from_millis(now),
            sample,
            setpoint,
            counts: Counts { running, ready: running, ..Counts::default() },
            in_flight: InFlight { launches: 0, kills },
            refused,
            scripted: scripted.map(if paused { Scripted::Desired } else { Scripted::Adjust }),
            bounds: bounds.map(|(min, max)| Bounds { min, max }),
            budget,
            paused,
            dry_run,
        }
    }
}

prop_compose! {
    fn entry(policies: Arc<Vec<Arc<Identity>>>)(
        which in 0..policies.len(),
        wall in 0_u64..1 << 45,
        tick in any::<u64>(),
        observation in observation(),
        value in proptest::option::weighted(0.2, float()),
        start in any::<bool>(),
        (raw, adjustment, same) in (any::<i64>(), -2_i64..3, any::<bool>()),
        reasons in proptest::collection::vec(reason(), 0..3),
        extra in proptest::collection::vec(reason(), 0..2),
        acted in -2_i64..3,
    ) -> Entry {
        let state = |value| PolicyState {
            history: Arc::new([Point { at: Timestamp::ZERO, value, setpoint: value }].into()),
            law: LawState::Adaptive(Box::default()),
            ..PolicyState::default()
        };
        let at = observation.now;
        let settled = Settled { at, launched: 1, killed: 2, to_min: 3 };
        Entry {
            policy: Arc::clone(&policies[which]),
            wall: SystemTime::UNIX_EPOCH + Duration::from_millis(wall),
            tick,
            keyframe: value
                .map(|value| Keyframe { why: if start { Why::Start } else { Why::Periodic }, state: state(value) }),
            decision: Decision { at, desired: observation.counts.running, raw, adjustment, to_min: 0, reasons },
            outcome: Outcome {
                adjustment: if same { adjustment } else { acted },
                acted: if same { 0 } else { acted },
                reasons: extra,
                asked: if same { vec![] } else { vec![Asked::Kill { n: 1 }] },
                settled: if same { vec![] } else { vec![settled] },
            },
            observation,
        }
    }
}

fn laws() -> Arc<Vec<Arc<Identity>>> {
    let tuning = Tuning { per_task: 1.0, season: Some(Duration::from_secs(60)) };
    Arc::new(vec![
        identity("web", LawSpec::Adaptive(tuning)),
        identity("queue", LawSpec::Relay { compat: true }),
        identity("fixed", LawSpec::Count { n: 3, wait: None }),
    ])
}

fn same(a: &Entry, b: &Entry) -> bool {
    a.policy == b.policy
        && a.wall == b.wall
        && a.tick == b.tick
        && same_bits(&a.observation, &b.observation)
        && same_bits(&a.keyframe, &b.keyframe)
        && same_bits(&a.decision, &b.decision)
        && same_bits(&a.outcome, &b.outcome)
}

/// The entries of a row of frames.
fn decode(bytes: &[u8]) -> Vec<Entry> {
    let (mut decoder, mut at, mut entries) = (Decoder::default(), 0, Vec::new());
    while let Next::Record(payload, after) = frame::next(bytes, at) {
        at = after;
        if let Told::Decision(decoded) = decoder.take(payload) {
            entries.push(decoded.entry);
        }
    }
    assert_eq!(frame::next(bytes, at), Next::End);
    entries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_bit_for_bit(entries in proptest::collection::vec(entry(laws()), 1..20)) {
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        encoder.begin(false, &mut bytes);
        for (index, entry) in entries.iter().enumerate() {
            prop_assert!(encoder.push(entry.clone(), &mut bytes));
            if index % 7 == 6 {
                encoder.begin(true, &mut bytes);
            }
        }
        let read = decode(&bytes);
        prop_assert_eq!(read.len(), entries.len());
        for (read, written) in read.iter().zip(&entries) {
            prop_assert!(same(read, written), "{read:?}\n{written:?}");
        }
    }

    #[test]
    fn an_unchanged_tick_is_little_more_than_its_sample(
        first in entry(laws()),
        others in proptest::collection::vec((proptest::option::of(sample()), any::<u32>(), any::<u32>()), 1..20),
    ) {
        let outcome = Outcome { adjustment: first.decision.adjustment, ..Outcome::default() };
        let first = Entry { tick: first.tick >> 1, keyframe: None, outcome, ..first };
        let mut entries = vec![first];
        for (sample, wall, at) in &others {
            let mut next = entries[entries.len() - 1].clone();
            next.tick += 1;
            next.wall += Duration::from_millis((*wall).into());
            next.observation.now = next.observation.now + Duration::from_millis((*at).into());
            next.decision.at = next.observation.now;
            if let Some(sample) = sample {
                next.observation.sample = sample.clone();
            }
            entries.push(next);
        }
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        for (entry, other) in entries.iter().zip(std::iter::once(&(None, 0, 0)).chain(&others)) {
            let before = bytes.len();
            prop_assert!(encoder.push(entry.clone(), &mut bytes));
            if 0 < before && other.0.is_none() {
                prop_assert!(bytes.len() - before < 40, "{} bytes for nothing new", bytes.len() - before);
            }
        }
        let read = decode(&bytes);
        prop_assert_eq!(read.len(), entries.len());
        for (read, written) in read.iter().zip(&entries) {
            prop_assert!(same(read, written), "{read:?}\n{written:?}");
        }
    }

    #[test]
    fn damage_costs_the_records_that_it_hits_and_never_a_panic(
        lengths in proptest::collection::vec(0_usize..60, 1..12),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 0..4),
    ) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (index, length) in lengths.iter().enumerate() {
            prop_assert!(frame::push(&mut bytes, &vec![index as u8; *length]));
            ends.push(bytes.len());
        }
        let mut untouched = vec![true; lengths.len()];
        let clean = bytes.clone();
        for (at, flip) in hits {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        for (index, end) in ends.iter().enumerate() {
            let from = if index == 0 { 0 } else { ends[index - 1] };
            untouched[index] = bytes[from..*end] == clean[from..*end];
        }
        let (mut found, mut at) = (Vec::new(), 0);
        loop {
            match frame::next(&bytes, at) {
                Next::Record(payload, after) => {
                    found.push(payload.to_vec());
                    at = after;
                }
                Next::Damaged(after) => at = after,
                Next::Torn | Next::End => break,
            }
        }
        let kept = lengths.iter().enumerate().filter(|(index, _)| untouched[*index]);
        let kept: Vec<Vec<u8>> = kept.map(|(index, length)| vec![index as u8; *length]).collect();
        prop_assert_eq!(found, kept);
    }
}

/// An entry whose decision is the one that `core::decide` makes.
fn decided(policy: &Arc<Identity>, second: u64, value: f64, state: &mut PolicyState, first: bool) -> Box<Entry> {
    let observation = Observation {
        now: Timestamp::from_millis(second * 1000),
        sample: Sample::value(value),
        setpoint: Some(0.0),
        counts: Counts { running: 2, ready: 2, ..Counts::default() },
        ..Observation::default()
    };
    let keyframe = first.then(|| Keyframe { why: Why::Start, state: state.clone() });
    let (decision, after) = crate::core::decide::decide(&policy.config.config(), std::mem::take(state), &observation);
    *state = after;
    Box::new(Entry {
        policy: Arc::clone(policy),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + second),
        tick: second,
        observation,
        keyframe,
        outcome: Outcome { adjustment: decision.adjustment, ..Outcome::default() },
        decision,
    })
}

#[derive(Debug, Default, PartialEq)]
struct Found {
    decisions: Vec<u64>,
    identical: usize,
    unknown: usize,
    lost: u64,
    torn: usize,
}

fn find(path: &Path) -> Found {
    let (mut found, mut replay) = (Found::default(), Replay::default());
    Log::find(path)
        .unwrap()
        .read(|item| match item {
            Item::Decision { entry, follows } => {
                found.decisions.push(entry.tick);
                match replay.take(&entry, follows) {
                    Verdict::Identical => found.identical += 1,
                    Verdict::Unknown => found.unknown += 1,
                    other => panic!("tick {}: {other:?}", entry.tick),
                }
            }
            Item::Lost(records) => found.lost += records,
            Item::Torn { bytes, .. } => found.torn += bytes,
            other => panic!("{other:?}"),
        })
        .unwrap();
    found
}

#[test]
fn a_torn_record_is_cut_at_every_byte_and_nothing_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let policy = identity("web", LawSpec::Proportional { per_task: 5.0 });
    let write = |range: std::ops::Range<u64>| {
        let log = DecisionLog::open(LogConfig::new(folder.path())).unwrap();
        let mut state = PolicyState::default();
        for second in range.clone() {
            let first = second == range.start;
            assert!(log.submit(decided(&policy, second, second as f64 * 3.0, &mut state, first)));
        }
        assert!(matches!(DecisionLog::open(LogConfig::new(folder.path())), Err(LogError::Locked(_))));
        log.close();
    };
    let file = folder.path().join("00000001.dlog");
    write(1..4);
    let short = std::fs::read(&file).unwrap().len();
    write(4..5);
    let full = std::fs::read(&file).unwrap();
    let whole = find(folder.path());
    assert_eq!((whole.decisions.as_slice(), whole.identical, whole.torn), ([1, 2, 3, 4].as_slice(), 4, 0));
    for cut in 0..full.len() {
        std::fs::write(&file, &full[..cut]).unwrap();
        let before = find(folder.path()).decisions;
        if short <= cut {
            assert_eq!(before, [1, 2, 3], "cut at {cut} of {}", full.len());
        }
        write(7..8);
        let after = find(folder.path());
        assert_eq!((after.torn, after.unknown), (0, 0), "cut at {cut}");
        assert_eq!(after.decisions, before.into_iter().chain([7]).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[test]
fn files_are_closed_by_size_and_age_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let policy = identity("web", LawSpec::Proportional { per_task: 5.0 });
    let config = LogConfig { max_size: 4 << 10, keep: 3, ..LogConfig::new(folder.path()) };
    let mut state = PolicyState::default();
    for run in 0..40 {
        // One run each, so that the writer has looked at the file's size in between.
        let log = DecisionLog::open(config.clone()).unwrap();
        for second in 1..10 {
            let first = run == 0 && second == 1;
            log.submit(decided(&policy, run * 10 + second, f64::from(second as u32), &mut state, first));
        }
        log.close();
    }
    let files = Log::find(folder.path()).unwrap().files().to_vec();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(folder.path().join("00000001.dlog").metadata().is_err());
    assert!(files.iter().all(|file| file.metadata().unwrap().len() < 16 << 10));
    let kept = find(folder.path());
    assert_eq!(kept.decisions.last(), Some(&399));
    assert_eq!(kept.identical, 0, "each run begins without a keyframe, so nothing follows");

    let aged = LogConfig { max_age: Duration::from_nanos(1), ..config };
    let before = files.last().cloned();
    let log = DecisionLog::open(aged).unwrap();
    log.submit(decided(&policy, 500, 1.0, &mut state, true));
    log.close();
    assert_ne!(Log::find(folder.path()).unwrap().files().last().cloned(), before);
}

#[test]
fn what_is_lost_is_told_and_what_is_foreign_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Log::find(folder.path()), Err(LogError::NoLog(_))));
    let policy = identity("web", LawSpec::Proportional { per_task: 5.0 });
    std::fs::write(folder.path().join("00000007.dlog"), "something of somebody else's").unwrap();
    let log = DecisionLog::open(LogConfig::new(folder.path())).unwrap();
    log.lose(3);
    assert!(log.submit(decided(&policy, 1, 1.0, &mut PolicyState::default(), true)));
    assert_eq!(log.lost(), 3);
    log.close();
    let found = find(&folder.path().join("00000008.dlog"));
    assert_eq!((found.lost, found.identical), (3, 1));
    let foreign = Log::find(folder.path()).unwrap().read(|_| {});
    assert!(matches!(foreign, Err(LogError::Foreign(_))));
    let text = std::fs::read_to_string(folder.path().join("00000007.dlog")).unwrap();
    assert_eq!(text, "something of somebody else's");
}
