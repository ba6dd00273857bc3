//! Simulation: the old systems' acceptance scenarios (A2 to A7, A10), outages of the metric, and `setpoint simulate`.

mod command;

use std::f64::consts::TAU;
use std::time::Duration;

use setpoint::core::model::{Effect, Kind, Sample};
use setpoint::core::policy::{
    Backoff, Control, Gains, Hooks, Interval, LawSpec, OnEnd, OnMissing, PolicySpec, Ready, Replace, Side, StepTier,
    Target, TaskTemplate, Tolerance, Tuning, UpDown, Workload,
};
use setpoint::sim::{Closures, Load, Outage, OutageKind, Plant, Report, Room, Setup, Shape, World, run};

use crate::support::setting;

const SECOND: Duration = Duration::from_secs(1);

fn spec(control: Control, kind: Kind, effect: Effect, max: u32, interval: Duration) -> PolicySpec {
    let workload = Workload {
        backend: "local".to_owned(),
        kind,
        effect,
        min: 0,
        max,
        template: TaskTemplate::default(),
        ready: Ready::Running,
        grace: SECOND,
        on_end: OnEnd::Stop,
        on_gone: OnEnd::Stop,
        replace: Replace::Keep,
    };
    PolicySpec {
        interval: Interval::fixed(interval),
        workload,
        control,
        max_failures: None,
        backoff: Backoff::default(),
        max_helpers: 0,
        shadow: None,
        hooks: Hooks { metric: true, target: Target::Function, ..Hooks::default() },
    }
}

fn proportional(per_task: f64) -> Control {
    Control::new(LawSpec::Proportional { per_task })
}

/// What the ticks of a run of own tasks showed: seconds, running tasks, target, what was carried out.
struct Seen {
    ticks: Vec<(f64, f64, f64, i64)>,
    report: Report,
}

impl Seen {
    /// Mean and largest |target − running| from a time on.
    fn errors(&self, from: f64) -> (f64, f64) {
        let errors: Vec<f64> =
            self.ticks.iter().filter(|tick| from <= tick.0).map(|tick| (tick.2 - tick.1).abs()).collect();
        (errors.iter().sum::<f64>() / errors.len() as f64, errors.iter().copied().fold(0.0, f64::max))
    }
}

/// A run whose metric is the number of its own tasks.
fn own(spec: &PolicySpec, setup: &Setup, target: impl Fn(f64) -> f64) -> Seen {
    let mut functions = Closures {
        metric: |world: &World| Sample::value(world.running.into()),
        target: |world: &World| target(world.at.as_secs_f64()),
    };
    let mut ticks = Vec::new();
    let report = run(spec, setup, &mut functions, |tick| {
        let target = tick.setpoint.unwrap_or_default();
        ticks.push((tick.at.as_secs_f64(), tick.counts.running.into(), target, tick.decision.adjustment));
    });
    Seen { ticks, report }
}

fn own_setup(seconds: u64, lifetime: (u32, u32)) -> Setup {
    Setup {
        start: Some(0),
        lifetime: Some((lifetime.0 * SECOND, lifetime.1 * SECOND)),
        seed: 11,
        ..Setup::new(Load::constant(0.0), Plant::Own, Duration::from_secs(seconds))
    }
}

#[test]
fn a2_own_tasks_of_random_lives_are_held() {
    let spec = spec(proportional(1.0), Kind::Jobs, Effect::Heats, 100, SECOND / 10);
    let seen = own(&spec, &own_setup(120, (5, 10)), |_| 20.0);
    assert_eq!(seen.ticks[0].3, 20, "all are launched at the first sample");
    let (mean, most) = seen.errors(15.0);
    assert!(mean <= 0.5 && most <= 3.0, "mean {mean}, most {most}");
    let swinging = own(&spec, &own_setup(120, (5, 10)), |at| 20.0 + 10.0 * (TAU * at / 30.0).sin());
    let (mean, _) = swinging.errors(15.0);
    assert!(mean <= 0.7, "oscillating: mean {mean}");
    let square = own(&spec, &own_setup(120, (5, 10)), |at| if at % 60.0 < 30.0 { 50.0 } else { 20.0 });
    let (mean, _) = square.errors(15.0);
    assert!(mean <= 1.0, "square: mean {mean}");
    let drop = square.ticks.iter().find(|tick| 30.0 <= tick.0).unwrap();
    assert!((-32..=-28).contains(&drop.3), "the drop is answered at once: {}", drop.3);
}

#[test]
fn a3_a_late_metric_does_not_wind_up() {
    for samples in [0, 1, 2, 5, 10, 20] {
        let lag = samples * SECOND / 10;
        let control = Control { lag, stale_after: Some(10 * SECOND), ..proportional(1.0) };
        let spec = spec(control, Kind::Service, Effect::Heats, 1000, SECOND / 10);
        let setup =
            Setup { start: Some(0), metric_lag: lag, ..Setup::new(Load::constant(0.0), Plant::Own, 60 * SECOND) };
        let seen = own(&spec, &setup, |_| 20.0);
        let peak = seen.ticks.iter().map(|tick| tick.1).fold(0.0, f64::max);
        assert!(peak <= 30.0, "lag {samples}: peak {peak}");
        assert!(seen.errors(20.0).1 < 1e-9, "lag {samples} settles");
        assert!(seen.report.settling_seconds.is_some());
    }
}

#[test]
fn a5_a_moving_target_is_followed() {
    let spec = spec(proportional(1.0), Kind::Jobs, Effect::Heats, 100, SECOND / 10);
    let target = |at: f64| 20.0 + 10.0 * (TAU * at / 60.0).sin() + 5.0 * (TAU * at / 17.0).sin();
    let (mean, most) = own(&spec, &own_setup(300, (5, 14)), target).errors(20.0);
    assert!(mean <= 2.0 && most <= 8.0, "mean {mean}, most {most}");
}

#[test]
fn a6_what_starvation_held_back_is_not_launched_when_it_is_over() {
    let spec = spec(proportional(1.0), Kind::Service, Effect::Heats, 100, SECOND);
    let starved = Room { from: Duration::ZERO, to: 60 * SECOND, n: 0 };
    let setup =
        Setup { start: Some(0), rooms: vec![starved], ..Setup::new(Load::constant(0.0), Plant::Own, 120 * SECOND) };
    let launched = |others: fn(Duration) -> f64| {
        let mut functions = Closures {
            metric: |world: &World| Sample::value(others(world.at) + f64::from(world.running)),
            target: |_: &World| 30.0,
        };
        run(&spec, &setup, &mut functions, |_| ()).starts
    };
    assert_eq!(launched(|at| if at < 50 * SECOND { 0.0 } else { 30.0 }), 0, "the target was reached meanwhile");
    assert_eq!(launched(|at| if at < 50 * SECOND { 0.0 } else { 25.0 }), 5, "what is missing now, once");
}

#[test]
fn a7_what_found_no_room_is_asked_for_anew_and_never_twice() {
    let spec = spec(proportional(1.0), Kind::Service, Effect::Heats, 100, SECOND);
    let few = Room { from: Duration::ZERO, to: 10 * SECOND, n: 4 };
    let setup = Setup {
        start: Some(0),
        startup: 3 * SECOND,
        rooms: vec![few],
        ..Setup::new(Load::constant(0.0), Plant::Own, 60 * SECOND)
    };
    let seen = own(&spec, &setup, |_| 10.0);
    let at = |second: f64| seen.ticks.iter().find(|tick| (tick.0 - second).abs() < 1e-9).unwrap().1;
    assert_eq!((at(5.0), at(9.0), at(20.0), at(59.0)), (4.0, 4.0, 10.0, 10.0));
    assert_eq!((seen.report.starts, seen.report.stops), (10, 0));
}

/// Two jobs at a time, filled up at multiples of a minute: room from 3 s, none around the next two multiples.
#[test]
fn a10_free_places_are_filled_after_the_wait_as_soon_as_there_is_room() {
    let control = Control::new(LawSpec::Count { n: 2, wait: Some(60 * SECOND) });
    let spec = spec(control, Kind::Jobs, Effect::Cools, 2, SECOND);
    let none = |from: u32, to: u32| Room { from: from * SECOND, to: to * SECOND, n: 0 };
    let setup = Setup { rooms: vec![none(0, 3), none(60, 76), none(120, 123)], ..own_setup(130, (15, 17)) };
    let seen = own(&spec, &setup, |_| 0.0);
    let filled: Vec<f64> = seen
        .ticks
        .windows(2)
        .filter(|pair| pair[0].1 < pair[1].1)
        .map(|pair| {
            assert!((pair[1].1 - 2.0).abs() < 1e-9, "both places at once: {pair:?}");
            pair[1].0
        })
        .collect();
    // A tick sees a task at the earliest when it runs, and at the latest a second later.
    for (at, due) in filled.iter().zip([3.0, 76.0, 123.0]) {
        assert!((due..=due + 1.0).contains(at), "filled at {filled:?}");
    }
    assert_eq!((filled.len(), seen.report.starts), (3, 6), "filled at {filled:?}");
    let idle = seen.ticks.iter().filter(|tick| 21.0 <= tick.0 && tick.0 < 60.0);
    assert!(idle.map(|tick| tick.1).sum::<f64>() < 1e-9, "room alone fills no place");
}

/// Seeded schedules of outages, of every form, while the load makes the policy scale: nothing is ever killed on one.
/// `SETPOINT_TEST_OUTAGES` says how many.
#[test]
fn no_outage_of_the_metric_scales_in() {
    let (mut ticks, mut kills) = ([0_u64; OutageKind::ALL.len()], 0_u64);
    for seed in 0..setting("SETPOINT_TEST_OUTAGES", 300) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (spec, setup) = schedule(seed, &mut random);
        let aim = 25.0;
        let mut functions = Closures {
            metric: |world: &World| Sample::value(world.load / f64::from(world.running.max(1))),
            target: |_: &World| aim,
        };
        run(&spec, &setup, &mut functions, |tick| {
            let out = setup.outages.iter().find(|outage| outage.from <= tick.at && tick.at < outage.to);
            if let Some(outage) = out {
                ticks[OutageKind::ALL.iter().position(|kind| *kind == outage.kind).unwrap()] += 1;
                let did = tick.decision.adjustment;
                assert!(0 <= did, "seed {seed} at {:?}: {did} on {:?}, {:?}", tick.at, outage.kind, tick.decision);
            } else {
                kills += u64::from(tick.decision.adjustment < 0);
            }
        });
    }
    eprintln!("{ticks:?} ticks in outages of {:?}, {kills} kills outside", OutageKind::ALL);
    assert!(ticks.iter().all(|ticks| 100 < *ticks) && 100 < kills, "{ticks:?} ticks in outages, {kills} kills outside");
}

fn schedule(seed: u64, random: &mut fastrand::Rng) -> (PolicySpec, Setup) {
    let law = match random.u8(0..6) {
        0 => LawSpec::Proportional { per_task: 2.0 },
        1 => LawSpec::Adaptive(Tuning { per_task: 2.0, season: None }),
        2 => LawSpec::Pid(Gains::new(2.0, Some(0.2), 0.1, 0.0)),
        3 => LawSpec::Ratio { tolerance: 0.1 },
        4 => LawSpec::Relay { compat: random.bool() },
        _ => LawSpec::Step {
            tiers: vec![
                StepTier { side: Side::Above, at: 28.0, adjust: 2 },
                StepTier { side: Side::Below, at: 20.0, adjust: -2 },
            ],
            hysteresis: 1.0,
        },
    };
    let on_missing = match random.u8(0..3) {
        0 => OnMissing::Hold,
        1 => OnMissing::Keep(60 * SECOND),
        _ => OnMissing::Fallback { n: random.u32(0..20), after: 10 * SECOND },
    };
    let window = random.u32(0..30) * SECOND;
    let control = Control {
        on_missing,
        tolerance: Tolerance::Relative(0.05),
        stabilization: UpDown { up: Duration::ZERO, down: window },
        lookback: 32,
        ..Control::new(law)
    };
    let mut spec = spec(control, Kind::Service, Effect::Cools, 60, 5 * SECOND);
    spec.workload.min = 1;
    let (low, high, period) = (100.0, 900.0, 120.0);
    let shape = if random.bool() { Shape::Square { low, high, period } } else { Shape::Sine { low, high, period } };
    let outages = (0..random.u32(1..6)).map(|_| {
        let from = random.u32(0..280) * SECOND;
        let kind = OutageKind::ALL[random.usize(0..OutageKind::ALL.len())];
        Outage { from, to: from + random.u32(1..60) * SECOND, kind }
    });
    let outages = outages.collect();
    let setup = Setup {
        startup: random.u32(0..20) * SECOND,
        noise: 0.05,
        outages,
        seed,
        ..Setup::new(Load::new(shape), Plant::Rate { per_task: 40.0 }, 300 * SECOND)
    };
    (spec, setup)
}

#[test]
fn figures_are_those_of_a_run_done_by_hand() {
    // Two tasks from the start; at 10 s the load doubles, the third tick (10 s) asks for two more, which serve from 15 s.
    let spec = spec(proportional(25.0), Kind::Service, Effect::Cools, 10, 5 * SECOND);
    let load = Load::new(Shape::Step { low: 50.0, high: 100.0, period: 10.0 });
    let setup = Setup { startup: 5 * SECOND, ..Setup::new(load, Plant::Rate { per_task: 25.0 }, 60 * SECOND) };
    let mut functions = Closures {
        metric: |world: &World| Sample::value(world.load - 25.0 * f64::from(world.running)),
        target: |_: &World| 0.0,
    };
    let report = run(&spec, &setup, &mut functions, |_| ());
    let hours = |tasks: f64| tasks / 3600.0;
    assert!((report.task_hours - hours(2.0 * 10.0 + 4.0 * 50.0)).abs() < 1e-9, "{report:?}");
    let least = report.clairvoyant_task_hours.unwrap();
    assert!((least - hours(2.0 * 5.0 + 4.0 * 55.0)).abs() < 1e-9, "{report:?}");
    assert!((report.minutes_over_capacity - 5.0 / 60.0).abs() < 1e-9, "{report:?}");
    let lost = 100.0 * 5.0 * 50.0 / (10.0 * 50.0 + 50.0 * 100.0);
    assert!((report.lost_percent - lost).abs() < 1e-9, "{report:?}");
    assert_eq!((report.starts, report.stops, report.changes, report.ticks), (2, 0, 2, 12));
}
