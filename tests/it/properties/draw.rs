//! Random policies and samples.

use std::time::Duration;

use fastrand::Rng;
use setpoint::core::decision::{Bounds, Scripted};
use setpoint::core::model::{Effect, Kind, Sample};
use setpoint::core::policy::{
    Actuator, Backoff, Confirm, Control, FlapBudget, Gains, Hooks, Interval, LawSpec, OnEnd, OnMissing, PolicySpec,
    Ready, Replace, Side, StepLimit, StepTier, TaskTemplate, Tolerance, Tuning, UpDown, Workload,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// True once in `n` times.
pub(super) fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(0..n) == 0
}

fn seconds(rng: &mut Rng, most: u64) -> Duration {
    // Not whole seconds, so that windows do not end exactly at ticks every time.
    Duration::from_millis(rng.u64(0..=most * 2) * 500)
}

fn up_down<T>(rng: &mut Rng, mut draw: impl FnMut(&mut Rng) -> T) -> UpDown<T> {
    UpDown { up: draw(rng), down: draw(rng) }
}

/// A policy. `ready` and `lag` stay the same over a schedule, since what was ready under one lag is not under another.
pub(super) fn spec(rng: &mut Rng, ready: &Ready, lag: Duration) -> PolicySpec {
    let law = law(rng);
    let max = rng.u32(0..12);
    PolicySpec {
        interval: Interval::fixed(SECOND),
        workload: Workload {
            backend: "local".to_owned(),
            kind: if rng.bool() { Kind::Service } else { Kind::Jobs },
            effect: if rng.bool() { Effect::Heats } else { Effect::Cools },
            min: rng.u32(0..=max.min(4)),
            max,
            template: TaskTemplate::default(),
            ready: ready.clone(),
            grace: SECOND,
            on_end: OnEnd::Stop,
            on_gone: OnEnd::Stop,
            replace: Replace::Keep,
        },
        hooks: Hooks {
            metric: law.needs_sample() || rng.bool(),
            cooler: if once_in(rng, 8) { Actuator::Task(TaskTemplate::default().into()) } else { Actuator::Absent },
            ..Hooks::default()
        },
        control: control(rng, law, lag),
        max_failures: None,
        backoff: Backoff { min: SECOND, max: 8 * SECOND },
        max_helpers: 2,
        shadow: None,
    }
}

fn control(rng: &mut Rng, law: LawSpec, lag: Duration) -> Control {
    let mut control = Control::new(law);
    control.lag = lag;
    control.lookback = rng.usize(1..24);
    if once_in(rng, 3) {
        control.tolerance =
            if rng.bool() { Tolerance::Absolute(rng.f64() * 8.0) } else { Tolerance::Relative(rng.f64() * 0.3) };
    }
    if rng.bool() {
        control.cooldown = up_down(rng, |rng| seconds(rng, 12));
    }
    if once_in(rng, 3) {
        control.stabilization = up_down(rng, |rng| seconds(rng, 9));
    }
    if once_in(rng, 3) {
        control.step = up_down(rng, step_limit);
    }
    if once_in(rng, 4) {
        let n = rng.u32(1..4);
        control.confirm =
            Some(if rng.bool() { Confirm::Total { n } } else { Confirm::Window { n, of: n + rng.u32(0..3) } });
    }
    if once_in(rng, 4) {
        control.ramp = rng.u32(0..9);
    }
    if once_in(rng, 4) {
        control.flap = Some(FlapBudget { changes: rng.u32(0..8), per: seconds(rng, 15) });
    }
    if once_in(rng, 4) {
        control.stale_after = Some(seconds(rng, 6));
    }
    control.on_missing = match rng.u32(0..4) {
        0 => OnMissing::Keep(seconds(rng, 9)),
        1 => OnMissing::Fallback { n: rng.u32(0..9), after: seconds(rng, 9) },
        _ => OnMissing::Hold,
    };
    control
}

fn step_limit(rng: &mut Rng) -> Option<StepLimit> {
    rng.bool().then(|| StepLimit {
        tasks: rng.bool().then(|| rng.u32(0..4)),
        fraction: rng.bool().then(|| rng.f64()),
        per: rng.bool().then(|| seconds(rng, 9)),
    })
}

fn law(rng: &mut Rng) -> LawSpec {
    match rng.u32(0..16) {
        0..3 => LawSpec::Proportional { per_task: [1.0, 5.0, 0.1, 1e-300][rng.usize(0..4)] },
        3 => LawSpec::Relay { compat: rng.bool() },
        4 | 5 => LawSpec::Step {
            tiers: (0..rng.u32(0..4))
                .map(|_| StepTier {
                    side: if rng.bool() { Side::Above } else { Side::Below },
                    at: f64::from(rng.i32(-20..20)),
                    adjust: rng.i64(-3..4),
                })
                .collect(),
            hysteresis: rng.f64() * 5.0,
        },
        6 => LawSpec::Count { n: rng.u32(0..12), wait: rng.bool().then(|| seconds(rng, 20)) },
        7 | 8 => LawSpec::Decide,
        9 | 10 => {
            let gain = |rng: &mut Rng| [0.0, 0.2, 3.0, 1e300][rng.usize(0..4)];
            let kp = rng.bool().then(|| gain(rng));
            LawSpec::Pid(Gains::new([1.0, 5.0, 1e-300][rng.usize(0..3)], kp, gain(rng), gain(rng)))
        }
        11 | 12 => LawSpec::Ratio { tolerance: rng.f64() * 0.2 },
        _ => LawSpec::Adaptive(Tuning {
            per_task: [1.0, 5.0, 0.1, 1e-300][rng.usize(0..4)],
            season: rng.bool().then(|| Duration::from_secs(rng.u64(60..4000))),
        }),
    }
}

/// What `metric` gives: mostly a small deviation, at times a huge one, none, or one that is too old.
pub(super) fn sample(rng: &mut Rng) -> Sample {
    let value = match rng.u32(0..24) {
        0 => 1e308,
        1 => -f64::MAX,
        2 => f64::MIN_POSITIVE,
        _ => f64::from(rng.i32(-60..60)) / 2.0,
    };
    match rng.u32(0..12) {
        0 => Sample::Missing,
        1 => Sample::Stale { value, age: 9 * SECOND },
        2 => Sample::Error { message: "raised".into() },
        3 => Sample::Value { value, age: seconds(rng, 6), reported: rng.bool().then(|| rng.u32(0..12)) },
        _ => Sample::value(value),
    }
}

/// What `target` gives.
pub(super) fn setpoint(rng: &mut Rng) -> Option<f64> {
    match rng.u32(0..16) {
        0 => None,
        1 => Some(-1e308),
        2..9 => Some(0.0),
        _ => Some(f64::from(rng.i32(-20..20))),
    }
}

/// What `decide(ctx)` gives.
pub(super) fn scripted(rng: &mut Rng) -> Option<Scripted> {
    match rng.u32(0..16) {
        0 => None,
        1 => Some(Scripted::Adjust(-1e308)),
        2 => Some(Scripted::Desired(2.5)),
        3..9 => Some(Scripted::Desired(f64::from(rng.i32(-2..14)))),
        _ => Some(Scripted::Adjust(f64::from(rng.i32(-5..6)))),
    }
}

/// An operator's bounds over `own`.
pub(super) fn bounds(rng: &mut Rng, own: Bounds) -> Bounds {
    let max = if rng.bool() { own.max } else { rng.u32(0..12) };
    let min = if rng.bool() { own.min } else { rng.u32(0..6) };
    Bounds { min, max }
}
