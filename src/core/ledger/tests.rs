use std::time::SystemTime;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn rules(kind: Kind) -> Rules {
    let backoff = Backoff { min: SECOND, max: 8 * SECOND };
    Rules { kind, ready: Ready::Running, backoff, lag: Duration::ZERO, warmer_jobs: false, cooler_jobs: false }
}

fn id(name: &str) -> TaskId {
    TaskId::from(name)
}

fn ask(ledger: &mut Ledger, name: &str, by: By, asked: Timestamp) {
    ledger.ask(Task {
        id: id(name),
        policy: PolicyName::from("p"),
        backend: Arc::from("local"),
        template: Arc::default(),
        state: TaskState::Asked,
        by,
        asked,
        started: SystemTime::UNIX_EPOCH,
        since: asked,
        ready: None,
        grace: SECOND,
        killed: false,
        withdrawn: false,
        attempt: 0,
        placement: Placement::default(),
        slot: None,
    });
}

fn to(ledger: &mut Ledger, name: &str, state: TaskState, now: Timestamp, rules: &Rules) -> Option<Change> {
    ledger.apply(&id(name), state, None, None, None, now, rules)
}

fn ends(ledger: &mut Ledger, name: &str, exit: Exit, now: Timestamp, rules: &Rules) -> Change {
    ledger.apply(&id(name), TaskState::Gone, None, None, Some(exit), now, rules).unwrap()
}

const FAILED: Exit = Exit::Code { code: 1 };
const FINISHED: Exit = Exit::Code { code: 0 };

#[test]
fn rule_3_only_a_service_task_that_had_been_running_and_was_not_told_to_end_is_replaced() {
    let cases = [
        // (kind, by, cooler is a task, state before, told to end, exit, replaced)
        (Kind::Service, By::Law, false, TaskState::Running, false, FINISHED, true),
        (Kind::Service, By::Min, false, TaskState::Running, false, FAILED, true),
        (Kind::Service, By::Law, false, TaskState::Running, false, Exit::Unknown, true),
        (Kind::Service, By::Law, false, TaskState::Running, true, FAILED, false),
        (Kind::Service, By::Law, false, TaskState::Killing, false, Exit::Signal { signal: 9 }, true),
        (Kind::Service, By::Law, false, TaskState::Staging, false, Exit::Unknown, false),
        (Kind::Service, By::Law, false, TaskState::Staging, false, FAILED, true),
        (Kind::Service, By::Law, false, TaskState::Asked, false, Exit::NotStarted { reason: "no".into() }, false),
        (Kind::Service, By::Cooler, false, TaskState::Running, false, FINISHED, true),
        (Kind::Service, By::Cooler, true, TaskState::Running, false, FINISHED, false),
        (Kind::Service, By::Warmer, true, TaskState::Running, false, FINISHED, true),
        (Kind::Service, By::Helper, false, TaskState::Running, false, FINISHED, false),
        (Kind::Jobs, By::Law, false, TaskState::Running, false, FAILED, false),
    ];
    for case in cases {
        let (kind, by, cooler_jobs, before, told, exit, replaced) = case.clone();
        let rules = Rules { cooler_jobs, ..rules(kind) };
        let mut ledger = Ledger::default();
        ask(&mut ledger, "a", by, at(0));
        if before > TaskState::Asked {
            to(&mut ledger, "a", before, at(1), &rules);
        }
        if told {
            assert!(ledger.kill(&id("a"), at(2)));
        }
        let change = ends(&mut ledger, "a", exit, at(9), &rules);
        assert_eq!(change.replaced, replaced, "{case:?}");
        assert_eq!(ledger.counts().waiting, u32::from(replaced), "{case:?}");
        assert_eq!(ledger.counts().desired(), u32::from(replaced), "{case:?}");
    }
}

#[test]
fn states_move_forwards_only_and_a_repeated_update_says_nothing() {
    let rules = rules(Kind::Service);
    let mut ledger = Ledger::default();
    ask(&mut ledger, "a", By::Law, at(0));
    ask(&mut ledger, "a", By::Min, at(5));
    assert_eq!(ledger.get(&id("a")).unwrap().by, By::Law, "a known id is left as it is");
    assert_eq!(to(&mut ledger, "a", TaskState::Running, at(1), &rules).unwrap().before, TaskState::Asked);
    assert_eq!(to(&mut ledger, "a", TaskState::Running, at(2), &rules), None);
    assert_eq!(to(&mut ledger, "a", TaskState::Staging, at(2), &rules), None);
    assert!(ledger.kill(&id("a"), at(3)));
    assert!(!ledger.kill(&id("a"), at(4)), "told once");
    assert_eq!(to(&mut ledger, "a", TaskState::Running, at(4), &rules), None);
    assert_eq!(ledger.counts(), Counts { killing: 1, ..Counts::default() });
    let change = ends(&mut ledger, "a", FAILED, at(5), &rules);
    assert_eq!((change.task.state, change.before, change.failed), (TaskState::Gone, TaskState::Killing, false));
    assert_eq!(ledger.apply(&id("a"), TaskState::Gone, None, None, None, at(6), &rules), None);
    assert!(ledger.is_empty());
}

#[test]
fn rule_4_in_flight_is_the_desired_number_less_what_the_sample_shows() {
    let rules = Rules { lag: 10 * SECOND, ready: Ready::After(2 * SECOND), ..rules(Kind::Jobs) };
    let mut ledger = Ledger::default();
    let net = |ledger: &mut Ledger, second| {
        ledger.advance(at(second), &rules);
        ledger.in_flight(at(second), &rules).net()
    };
    ask(&mut ledger, "long", By::Law, at(0));
    ask(&mut ledger, "short", By::Law, at(0));
    ask(&mut ledger, "helper", By::Helper, at(0));
    assert_eq!(net(&mut ledger, 0), 2);
    for name in ["long", "short", "helper"] {
        to(&mut ledger, name, TaskState::Running, at(1), &rules);
    }
    assert_eq!(ledger.counts().in_flight(), 2, "running, not ready");
    assert_eq!(net(&mut ledger, 3), 2, "ready, and not in the sample yet");
    assert_eq!(ledger.counts().in_flight(), 0);
    ends(&mut ledger, "short", FINISHED, at(6), &rules);
    assert_eq!(net(&mut ledger, 6), 1, "the short one was never in the sample");
    assert_eq!(net(&mut ledger, 13), -1, "both show now, one of them is gone");
    assert!(ledger.kill(&id("long"), at(14)));
    assert_eq!(net(&mut ledger, 14), -2);
    ends(&mut ledger, "long", FINISHED, at(15), &rules);
    assert_eq!(net(&mut ledger, 16), -1, "the end of the short one shows");
    assert_eq!(net(&mut ledger, 25), 0);
    assert!(ledger.state().departed.is_empty());
}

/// A metric takes its time: what becomes ready or goes meanwhile is not in its sample, however short that was.
#[test]
fn a_sample_shows_the_moment_in_which_it_was_begun() {
    for lag in [Duration::ZERO, SECOND * 5] {
        let rules = Rules { lag, ..rules(Kind::Service) };
        let mut ledger = Ledger::default();
        for name in ["runs", "ends", "starts", "flashes"] {
            ask(&mut ledger, name, By::Law, at(1));
        }
        for name in ["runs", "ends"] {
            to(&mut ledger, name, TaskState::Running, at(2), &rules);
        }
        let now = at(20);
        ledger.advance(now, &rules);
        ledger.look(now);
        assert_eq!(ledger.in_flight_of_sample(now, &rules), InFlight { launches: 2, kills: 0 });
        for name in ["starts", "flashes"] {
            to(&mut ledger, name, TaskState::Running, now, &rules);
        }
        for name in ["ends", "flashes"] {
            ledger.kill(&id(name), now);
            ends(&mut ledger, name, FINISHED, now, &rules);
        }
        assert_eq!(ledger.counts().desired(), 2);
        assert_eq!(
            ledger.in_flight_of_sample(now, &rules),
            InFlight { launches: 1, kills: 1 },
            "two were in the sample"
        );
        ledger.look(at(40));
        ledger.advance(at(40), &rules);
        assert_eq!(ledger.in_flight_of_sample(at(41), &rules), InFlight::default(), "the next one shows it all");
    }
}

#[test]
fn a8_failures_count_up_and_successes_down() {
    let rules = rules(Kind::Jobs);
    let mut ledger = Ledger::default();
    let mut seen = Vec::new();
    for (second, exit) in (1..).zip([&FAILED, &FAILED, &FINISHED, &Exit::Unknown, &FAILED, &FAILED]) {
        ask(&mut ledger, "a", By::Law, at(second));
        to(&mut ledger, "a", TaskState::Running, at(second), &rules);
        ends(&mut ledger, "a", exit.clone(), at(second), &rules);
        seen.push(ledger.state().failures);
    }
    assert_eq!(seen, [1, 2, 1, 1, 2, 3]);
}

#[test]
fn the_backoff_doubles_with_each_failure_in_a_row_and_starts_anew_after_a_long_life() {
    let rules = rules(Kind::Service);
    let mut ledger = Ledger::default();
    let mut now = 0;
    let mut delays = Vec::new();
    for life in [0, 0, 0, 0, 0, 100, 0] {
        ask(&mut ledger, "a", By::Law, at(now));
        to(&mut ledger, "a", TaskState::Running, at(now), &rules);
        now += life;
        ends(&mut ledger, "a", FAILED, at(now), &rules);
        let due = ledger.next_due().unwrap();
        delays.push(due.since(at(now)).as_secs());
        assert_eq!(ledger.take_due(due - SECOND / 2, 9), 0);
        assert_eq!(ledger.take_due(due, 9), 1);
        now = due.as_millis() / 1000;
    }
    assert_eq!(delays, [1, 2, 4, 8, 8, 1, 2]);
}

#[test]
fn what_is_lost_with_its_machine_is_back_soon_however_often() {
    let (mut ledger, rules) = (Ledger::default(), rules(Kind::Service));
    let lost = |ledger: &mut Ledger, n: u64, exit: Exit| {
        let name = format!("t{n}");
        ask(ledger, &name, By::Law, at(100 * n));
        ends(ledger, &name, exit, at(100 * n), &rules);
        ledger.backed_off(at(100 * n)).unwrap().as_secs()
    };
    let away = || Exit::Lost { reason: "its agent is gone".into() };
    let waits: Vec<u64> = (1..7).map(|n| lost(&mut ledger, n, away())).collect();
    assert_eq!(waits, [1, 2, 4, 4, 4, 4]);
    let failed = || Exit::Code { code: 1 };
    assert_eq!(
        [lost(&mut ledger, 7, failed()), lost(&mut ledger, 8, failed()), lost(&mut ledger, 9, away())],
        [8, 8, 8]
    );
}

#[test]
fn a_batch_that_fails_together_is_one_failure_in_a_row() {
    let rules = rules(Kind::Service);
    let mut ledger = Ledger::default();
    let names: Vec<String> = (0..20).map(|n| format!("{n:02}")).collect();
    for name in &names {
        ask(&mut ledger, name, By::Law, at(0));
        to(&mut ledger, name, TaskState::Running, at(0), &rules);
    }
    for name in &names {
        ends(&mut ledger, name, FAILED, at(1), &rules);
    }
    assert_eq!((ledger.state().streak, ledger.state().failures), (1, 20));
    assert_eq!(ledger.backed_off(at(1)), Some(SECOND));
    assert_eq!(ledger.take_due(at(2), 3), 3, "as many as there is room for");
    assert_eq!(ledger.counts().waiting, 17);
    assert_eq!(ledger.cancel_waiting(20), 17);
}

#[test]
fn a_service_that_ends_well_at_once_is_held_back_and_a_job_is_not() {
    for (kind, held) in [(Kind::Service, true), (Kind::Jobs, false)] {
        let rules = rules(kind);
        let mut ledger = Ledger::default();
        ask(&mut ledger, "a", By::Law, at(0));
        to(&mut ledger, "a", TaskState::Running, at(0), &rules);
        assert!(!ends(&mut ledger, "a", FINISHED, at(1), &rules).failed);
        assert_eq!(ledger.backed_off(at(1)).is_some(), held);
    }
}

#[test]
fn only_what_was_asked_before_and_not_placed_lapses() {
    let rules = rules(Kind::Service);
    let mut ledger = Ledger::default();
    ask(&mut ledger, "a", By::Law, at(1));
    ask(&mut ledger, "b", By::Law, at(1));
    to(&mut ledger, "b", TaskState::Staging, at(1), &rules);
    ask(&mut ledger, "c", By::Law, at(2));
    assert_eq!(ledger.lapsed(at(2)), [id("a")]);
    // What is to take a lost task's place is not a decision that the next one makes anew.
    let mut ledger = Ledger::default();
    ask(&mut ledger, "again", By::Replacement, at(1));
    assert_eq!(ledger.lapsed(at(100)), []);
}

#[test]
fn what_is_withdrawn_goes_without_a_trace_or_stays_as_if_nothing_had_been() {
    let rules = rules(Kind::Service);
    let mut ledger = Ledger::default();
    for name in ["gone", "placed", "ended"] {
        ask(&mut ledger, name, By::Law, at(1));
        assert!(ledger.withdraw(&id(name)));
        assert!(!ledger.withdraw(&id(name)), "{name}: once");
    }
    // Its backend may have placed it a moment ago: what is decided before its word does not make up for it.
    let in_flight = ledger.in_flight(at(3), &rules);
    assert_eq!((ledger.counts().asked, in_flight.launches, in_flight.kills, ledger.lapsed(at(3)).len()), (3, 3, 0, 0));
    // Nobody could be told of it: it lapses anew.
    assert!(ledger.keep_asking(&id("gone")) && !ledger.keep_asking(&id("gone")));
    assert_eq!(ledger.lapsed(at(3)), [id("gone")]);
    assert!(ledger.withdraw(&id("gone")));
    let change = ends(&mut ledger, "gone", Exit::Unknown, at(3), &rules);
    assert_eq!((change.before, change.replaced, change.failed), (TaskState::Asked, false, false));
    let change = to(&mut ledger, "placed", TaskState::Staging, at(3), &rules).unwrap();
    assert_eq!((change.task.state, change.task.killed), (TaskState::Staging, false));
    assert!(!ledger.keep_asking(&id("placed")) && !ledger.withdraw(&id("placed")), "it has a place");
    to(&mut ledger, "placed", TaskState::Running, at(4), &rules);
    assert!(ends(&mut ledger, "placed", FAILED, at(5), &rules).replaced, "it is a task like any other");
    // Told to end after all: whatever its backend says, it goes.
    assert!(ledger.kill(&id("ended"), at(3)));
    to(&mut ledger, "ended", TaskState::Staging, at(4), &rules);
    assert_eq!(ledger.get(&id("ended")).unwrap().state, TaskState::Killing);
    assert!(!ends(&mut ledger, "ended", FAILED, at(5), &rules).failed);
    assert_eq!(ledger.state().failures, 1, "that of the one that was placed");
    assert_eq!(ledger.tasks().count(), 0);
}

#[test]
fn readiness_follows_the_health_check_where_there_is_one() {
    let rules = Rules { ready: Ready::Healthy, ..rules(Kind::Service) };
    let mut ledger = Ledger::default();
    ask(&mut ledger, "a", By::Law, at(0));
    let mut tell = |healthy| {
        ledger.apply(&id("a"), TaskState::Running, healthy, None, None, at(1), &rules);
        ledger.counts().ready
    };
    assert_eq!([None, Some(true), None, Some(false), Some(true)].map(&mut tell), [0, 1, 1, 0, 1]);
}

#[test]
fn a_restored_ledger_is_the_one_that_was_stored() {
    let rules = Rules { lag: SECOND, ..rules(Kind::Service) };
    let mut ledger = Ledger::default();
    for name in ["a", "b"] {
        ask(&mut ledger, name, By::Law, at(0));
        to(&mut ledger, name, TaskState::Running, at(1), &rules);
    }
    ends(&mut ledger, "a", FAILED, at(2), &rules);
    let state = serde_json::from_str(&serde_json::to_string(ledger.state()).unwrap()).unwrap();
    let tasks: Vec<Task> =
        ledger.tasks().map(|task| serde_json::from_str(&serde_json::to_string(task).unwrap()).unwrap()).collect();
    assert_eq!(Ledger::restore(state, tasks), ledger);
}

#[test]
fn a_replacement_gets_the_place_of_the_lost_task() {
    let (mut ledger, rules) = (Ledger::default(), rules(Kind::Service));
    let add = |ledger: &mut Ledger, name: &str| {
        let slot = ledger.free_slots().next();
        ask(ledger, name, By::Law, Timestamp::ZERO);
        ledger.tasks.get_mut(&id(name)).unwrap().slot = slot;
        slot.unwrap()
    };
    let slots: Vec<u32> = ["a", "b", "c"].iter().map(|name| add(&mut ledger, name)).collect();
    assert_eq!(slots, [0, 1, 2]);
    ledger.kill(&id("b"), Timestamp::ZERO);
    assert_eq!(ledger.free_slots().next(), Some(3), "a task on its way out still stands in its place");
    ends(&mut ledger, "b", FINISHED, Timestamp::ZERO, &rules);
    assert_eq!([add(&mut ledger, "d"), add(&mut ledger, "e")], [1, 3]);
}
