//! What one decision costs, with each law: `cargo bench --bench laws`.
//!
//! Each is `decide` as a whole (sample read, law, every guard, state), with the guards at their defaults but for the
//! first, over and over with a new sample each time and a history that is full: 1,000 samples for `relay` (its default
//! window), 64 for the others.

use std::time::Duration;

use divan::{Bencher, black_box};
use setpoint::core::decide::{Config, decide};
use setpoint::core::decision::{Observation, PolicyState, Scripted};
use setpoint::core::model::{Counts, Effect, Sample};
use setpoint::core::policy::{
    Confirm, Control, FlapBudget, Gains, Interval, LawSpec, Side, StepLimit, StepTier, Tolerance, Tuning, UpDown,
};
use setpoint::core::time::Timestamp;

fn main() {
    divan::main();
}

#[divan::bench]
fn proportional(bencher: Bencher<'_, '_>) {
    bench(bencher, &Control::new(LawSpec::Proportional { per_task: 5.0 }));
}

/// Every guard at work.
#[divan::bench]
fn proportional_guarded(bencher: Bencher<'_, '_>) {
    let mut control = Control::new(LawSpec::Proportional { per_task: 5.0 });
    control.tolerance = Tolerance::Relative(0.05);
    control.cooldown = UpDown { up: Duration::from_secs(3), down: Duration::from_secs(30) };
    control.stabilization = UpDown { up: Duration::from_secs(5), down: Duration::from_secs(60) };
    let limit = StepLimit { tasks: Some(4), fraction: Some(0.5), per: Some(Duration::from_secs(60)) };
    control.step = UpDown { up: Some(limit), down: Some(limit) };
    control.confirm = Some(Confirm::Window { n: 2, of: 3 });
    control.flap = Some(FlapBudget { changes: 20, per: Duration::from_secs(60) });
    control.ramp = 10;
    bench(bencher, &control);
}

#[divan::bench]
fn pid(bencher: Bencher<'_, '_>) {
    bench(bencher, &Control::new(LawSpec::Pid(Gains::new(5.0, None, 0.01, 0.5))));
}

/// With the HPA's guards.
#[divan::bench]
fn ratio(bencher: Bencher<'_, '_>) {
    bench(bencher, &Control::new(LawSpec::Ratio { tolerance: 0.1 }));
}

#[divan::bench]
fn adaptive(bencher: Bencher<'_, '_>) {
    bench(bencher, &Control::new(LawSpec::Adaptive(Tuning { per_task: 5.0, season: None })));
}

#[divan::bench(args = [false, true])]
fn relay(bencher: Bencher<'_, '_>, compat: bool) {
    bench(bencher, &Control::new(LawSpec::Relay { compat }));
}

#[divan::bench]
fn step(bencher: Bencher<'_, '_>) {
    let tiers = vec![
        StepTier { side: Side::Above, at: 28.0, adjust: 2 },
        StepTier { side: Side::Above, at: 25.0, adjust: 1 },
        StepTier { side: Side::Below, at: 12.0, adjust: -1 },
    ];
    bench(bencher, &Control::new(LawSpec::Step { tiers, hysteresis: 2.0 }));
}

#[divan::bench]
fn count(bencher: Bencher<'_, '_>) {
    bench(bencher, &Control::new(LawSpec::Count { n: 7, wait: Some(Duration::from_secs(60)) }));
}

/// What is left of `decide(ctx)` once the script has answered.
#[divan::bench]
fn scripted(bencher: Bencher<'_, '_>) {
    bench(bencher, &Control::new(LawSpec::Decide));
}

fn bench(bencher: Bencher<'_, '_>, control: &Control) {
    let config = Config {
        control,
        effect: Effect::Cools,
        min: 0,
        max: 40,
        interval: Interval::fixed(Duration::from_secs(1)),
        counter: false,
        metric: true,
    };
    let mut tick = 0;
    let mut state = PolicyState::default();
    for _ in 0..=control.lookback {
        tick += 1;
        state = decide(&config, state, &observation(tick, control)).1;
    }
    bencher.bench_local(|| {
        tick += 1;
        let observation = observation(tick, control);
        let (decision, next) = decide(black_box(&config), std::mem::take(&mut state), black_box(&observation));
        state = next;
        decision
    });
}

/// A wave with noise that repeats after 97 ticks, a second apart.
fn observation(tick: u64, control: &Control) -> Observation {
    let noise = (tick * 37 % 97) as f64 / 97.0;
    let scripted = matches!(control.law, LawSpec::Decide).then_some(Scripted::Desired((tick % 40) as f64));
    Observation {
        now: Timestamp::from_millis(tick * 1000),
        sample: Sample::value(20.0 + 10.0 * (tick as f64 / 10.0).sin() + noise),
        setpoint: Some(20.0),
        counts: Counts { running: 7, ready: 7, ..Counts::default() },
        scripted,
        ..Observation::default()
    }
}
