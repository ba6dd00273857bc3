//! The laws on recorded loads: `SETPOINT_TEST_DATA=DIR cargo bench --bench laws_on_loads`.
//!
//! A task serves 40/s, starts 30 s after it is asked for and stops at once; the metric is the load for each running task,
//! 15 s old; ticks are 5 s apart (15 s for `ratio`); 1 to 400 tasks. Each law is swept over the setpoint, from 0.40 to
//! 0.95 of what a task serves in steps of 0.05. For each limit on the minutes over capacity the run with the fewest
//! task-hours counts, as a multiple of what a clairvoyant would take, who asks for each task 30 s early.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

use std::path::PathBuf;
use std::time::Duration;

use setpoint::core::policy::{Control, Gains, HPA_TOLERANCE, LawSpec, Side, StepTier, Tuning, UpDown};

#[path = "support/loads.rs"]
mod loads;

use loads::{Outcome, Plant, interpolate};

const PLANT: Plant = Plant { rate: 40.0, start: 30, age: 15, bounds: (1, 400) };

const LAWS: &[&str] = &["relay", "proportional", "pid", "step", "ratio", "adaptive", "season"];

const LOADS: &[(&str, f64, f64)] = &[
    ("worldcup98-week", 1.0, f64::MAX),
    ("aws-elb-requests", 500.0, f64::MAX),
    ("twitter-goog", 50.0, f64::MAX),
    ("nyc-taxi", 1.0, 30.0 * 86_400.0),
];

const LIMITS: [f64; 3] = [1.0, 10.0, 60.0];

fn main() {
    let Some(folder) = std::env::var_os("SETPOINT_TEST_DATA") else {
        println!("SETPOINT_TEST_DATA is not set: there are no recorded loads");
        return;
    };
    for (name, scale, until) in LOADS {
        let path = PathBuf::from(&folder).join("traces").join(format!("{name}.csv"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let rows: Vec<(f64, f64)> = text
            .lines()
            .filter_map(|line| line.split_once(','))
            .filter_map(|(at, value)| Some((at.trim().parse().ok()?, value.trim().parse().ok()?)))
            .collect();
        let load = interpolate(&rows, *scale, *until);
        let least = PLANT.clairvoyant(&load);
        println!("{name}: {} h, {least:.0} task-hours at least", load.len() / 3600);
        for law in LAWS {
            let runs = sweep(law, &load);
            print!("  {law:<13}");
            for limit in LIMITS {
                let best = runs
                    .iter()
                    .filter(|(_, run)| run.over <= limit)
                    .min_by(|(_, one), (_, two)| one.hours.total_cmp(&two.hours));
                if let Some((aim, Outcome { hours, changes, .. })) = best {
                    print!(" | ≤ {limit:2} min: {:5.3}× at {aim:.2}, {changes:6} changes", hours / least);
                } else {
                    let over = runs.iter().map(|(_, run)| run.over).fold(f64::MAX, f64::min);
                    print!(" | ≤ {limit:2} min: missed, {over:7.1} at best       ");
                }
            }
            println!();
        }
    }
}

fn sweep(law: &str, load: &[f64]) -> Vec<(f64, Outcome)> {
    let run = |step: u32| {
        let aim = 0.40 + 0.05 * f64::from(step);
        let every = if law == "ratio" { 15 } else { 5 };
        (aim, PLANT.run(load, &control(law, aim), every, aim))
    };
    std::thread::scope(|scope| {
        let run = &run;
        let half = scope.spawn(move || (0..6).map(run).collect::<Vec<_>>());
        let other: Vec<_> = (6..12).map(run).collect();
        half.join().expect("the first half of the sweep").into_iter().chain(other).collect()
    })
}

/// Each law as one would set it who knows the lag but not the load.
fn control(law: &str, aim: f64) -> Control {
    let lag = Duration::from_secs(PLANT.age as u64);
    let setpoint = aim * PLANT.rate;
    match law {
        "relay" => {
            let mut control = Control::new(LawSpec::Relay { compat: false });
            // Its default, 1000, would take a quarter of an hour for the same numbers.
            control.lookback = 100;
            control.lag = lag;
            control
        }
        "proportional" => {
            let mut control = Control::new(LawSpec::Proportional { per_task: 8.0 });
            control.lag = lag;
            control
        }
        "pid" => {
            let mut control = Control::new(LawSpec::Pid(Gains::new(8.0, None, 0.0, 0.25)));
            control.lag = lag;
            control
        }
        "step" => {
            let tier = |side, share: f64, adjust| StepTier { side, at: share * setpoint, adjust };
            let tiers = vec![
                tier(Side::Above, 1.0, 1),
                tier(Side::Above, 1.2, 3),
                tier(Side::Above, 1.5, 8),
                tier(Side::Below, 0.8, -1),
            ];
            let mut control = Control::new(LawSpec::Step { tiers, hysteresis: 0.0 });
            control.cooldown = UpDown { up: Duration::from_secs(30), down: Duration::from_secs(60) };
            control.lag = lag;
            control
        }
        "ratio" => Control::new(LawSpec::Ratio { tolerance: HPA_TOLERANCE }),
        _ => {
            // `adaptive`, once as it is and once told that days are alike.
            let season = (law == "season").then(|| Duration::from_secs(86_400));
            Control::new(LawSpec::Adaptive(Tuning { per_task: 1.0, season }))
        }
    }
}
