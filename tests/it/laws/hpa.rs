//! `ratio` against the HPA's algorithm, stated here pod by pod as the Kubernetes documentation describes it.

use std::time::Duration;

use fastrand::Rng;
use setpoint::core::decide::{Config, decide};
use setpoint::core::decision::{InFlight, Observation, PolicyState};
use setpoint::core::model::{Counts, Effect, Sample};
use setpoint::core::policy::{Control, Interval, LawSpec, UpDown};
use setpoint::core::time::Timestamp;

use crate::support::setting;

/// A pod, and what it says.
#[derive(Clone, Copy, Debug)]
enum Pod {
    Ready(f64),
    Silent,
    NotReady,
}

/// The number that the HPA would want, from the documentation's words.
fn wanted(pods: &[Pod], target: f64, tolerance: f64) -> u32 {
    let current = pods.len() as u32;
    let heard: Vec<f64> =
        pods.iter().filter_map(|pod| if let Pod::Ready(use_) = pod { Some(*use_) } else { None }).collect();
    let mean = heard.iter().sum::<f64>() / heard.len() as f64;
    let first = mean / target;
    // "… skips scaling if the ratio is sufficiently close to 1.0, within a tolerance".
    if (first - 1.0).abs() <= tolerance {
        return current;
    }
    let up = first > 1.0;
    // "If there were any missing metrics, the control plane recomputes the average more conservatively, assuming those
    // Pods were consuming 100% of the desired value in case of a scale down, and 0% in case of a scale up." Pods that are not
    // yet ready are taken at 0% when scaling up, and set aside when scaling down.
    let mut figures = heard;
    for pod in pods {
        match pod {
            Pod::Silent => figures.push(if up { 0.0 } else { target }),
            Pod::NotReady if up => figures.push(0.0),
            _ => {}
        }
    }
    // "If the newly calculated ratio reverses the scale direction, or is within the tolerance, the controller doesn't take
    // any scaling action."
    let second = figures.iter().sum::<f64>() / figures.len() as f64 / target;
    if (second - 1.0).abs() <= tolerance || (second > 1.0) != up {
        return current;
    }
    let number = (second * figures.len() as f64 - 1e-9).ceil() as u32;
    // … and likewise if the number that comes of it would go the other way.
    if (up && number < current) || (!up && number > current) { current } else { number }
}

#[test]
fn ratio_is_the_hpas_algorithm() {
    let cases = setting("SETPOINT_CASES", 100_000);
    let mut rng = Rng::with_seed(setting("SETPOINT_SEED", 1));
    let (mut moved, mut filled) = (0_u64, 0_u64);
    for case in 0..cases {
        // None that a ratio of tenths could fall on: which side of it rounding puts that would be chance.
        let target = [1.0, 0.8, 50.0, 1234.5][rng.usize(0..4)];
        let tolerance = [0.0101, 0.0999, 0.1001, 0.2501][rng.usize(0..4)];
        // Shares of the target that give whole products too.
        let level = f64::from(rng.u32(0..=40)) / 10.0;
        let mut pods: Vec<Pod> = (0..rng.usize(1..30))
            .map(|_| match rng.u32(0..12) {
                0 | 1 => Pod::Silent,
                2 | 3 => Pod::NotReady,
                _ => Pod::Ready(target * level * if rng.bool() { 1.0 } else { rng.f64() * 2.0 }),
            })
            .collect();
        // Without a single figure there is no metric.
        pods.push(Pod::Ready(target * level));
        let heard: Vec<f64> =
            pods.iter().filter_map(|pod| if let Pod::Ready(figure) = pod { Some(*figure) } else { None }).collect();
        let value = heard.iter().sum::<f64>() / heard.len() as f64;
        let ready = pods.iter().filter(|pod| !matches!(pod, Pod::NotReady)).count() as u32;
        let staging = pods.len() as u32 - ready;
        let silent = ready - heard.len() as u32;

        let mut control = Control::new(LawSpec::Ratio { tolerance });
        control.stabilization.down = Duration::ZERO;
        control.step = UpDown { up: None, down: None };
        let config = Config {
            control: &control,
            effect: Effect::Cools,
            min: 0,
            max: 100_000,
            interval: Interval::fixed(Duration::from_secs(15)),
            counter: false,
            metric: true,
        };
        let observation = Observation {
            now: Timestamp::from_millis(case * 15_000),
            sample: Sample::Value { value, age: Duration::ZERO, reported: (silent > 0).then_some(heard.len() as u32) },
            setpoint: Some(target),
            counts: Counts { staging, running: ready, ready, ..Counts::default() },
            in_flight: InFlight { launches: staging, kills: 0 },
            ..Observation::default()
        };
        let (decision, _) = decide(&config, PolicyState::default(), &observation);
        let expected = i64::from(wanted(&pods, target, tolerance)) - i64::from(staging + ready);
        assert_eq!(decision.raw, expected, "case {case}: {value} for {target} ± {tolerance}: {pods:?}");
        moved += u64::from(expected != 0);
        filled += u64::from(expected != 0 && (silent > 0 || staging > 0));
    }
    println!("{cases} cases, {moved} with a change, {filled} of them with figures filled in");
    assert!(
        cases < 1_000 || (moved > cases / 4 && filled > cases / 10),
        "{moved}, {filled}: nothing is put to the test"
    );
}
