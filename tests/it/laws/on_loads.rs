//! The bench `laws_on_loads` in small: two days of a ragged load made up here, and of a recorded one where there is data.

use std::time::Duration;

use setpoint::core::policy::{Control, HPA_TOLERANCE, LawSpec, Tuning};

#[path = "../../../benches/support/loads.rs"]
mod loads;

use loads::{Outcome, Plant, interpolate};

const PLANT: Plant = Plant { rate: 40.0, start: 30, age: 15, bounds: (1, 400) };
const HOURS: usize = 24;

/// A day's wave, a knot every five minutes, and a surge now and then.
fn ragged() -> Vec<f64> {
    let mut rng = fastrand::Rng::with_seed(3);
    let rows: Vec<(f64, f64)> = (0..=HOURS * 12)
        .map(|row| {
            let wave = 500.0 + 300.0 * (row as f64 / 288.0 * std::f64::consts::TAU).sin();
            let surge = if rng.u32(0..24) == 0 { 400.0 } else { 0.0 };
            (row as f64 * 300.0, wave * (0.9 + 0.2 * rng.f64()) + surge)
        })
        .collect();
    interpolate(&rows, 1.0, f64::MAX)
}

fn recorded() -> Option<Vec<f64>> {
    let folder = std::env::var_os("SETPOINT_TEST_DATA")?;
    let text = std::fs::read_to_string(std::path::Path::new(&folder).join("traces/aws-elb-requests.csv")).ok()?;
    let rows: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| line.split_once(','))
        .filter_map(|(at, value)| Some((at.parse().ok()?, value.parse().ok()?)))
        .collect();
    Some(interpolate(&rows, 500.0, HOURS as f64 * 3600.0))
}

/// The cheapest of a few aims with at most so many minutes over capacity.
fn cheapest(load: &[f64], control: &Control, every: usize, limit: f64) -> Option<Outcome> {
    [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
        .into_iter()
        .map(|aim| PLANT.run(load, control, every, aim))
        .filter(|run| run.over <= limit)
        .min_by(|one, two| one.hours.total_cmp(&two.hours))
}

/// At most half of the HPA's excess over the clairvoyant, in each minute's limit that the bench has, taken for a day.
#[test]
fn adaptive_takes_half_of_the_hpas_excess() {
    let ratio = Control::new(LawSpec::Ratio { tolerance: HPA_TOLERANCE });
    let adaptive = Control::new(LawSpec::Adaptive(Tuning { per_task: 1.0, season: None }));
    for (name, load) in [("ragged", Some(ragged())), ("aws-elb-requests", recorded())] {
        let Some(load) = load else { continue };
        let least = PLANT.clairvoyant(&load);
        for limit in [1.0, 5.0] {
            let ours = cheapest(&load, &adaptive, 5, limit);
            let Some(theirs) = cheapest(&load, &ratio, 15, limit) else {
                println!("{name}, ≤ {limit} min: the HPA misses it, adaptive {ours:?}");
                continue;
            };
            let ours = ours.unwrap_or_else(|| panic!("{name}: adaptive misses ≤ {limit} min"));
            println!("{name}, ≤ {limit} min, {least:.0} h at least: adaptive {ours:?}, the HPA {theirs:?}");
            let excess = |run: Outcome| run.hours / least - 1.0;
            assert!(excess(ours) <= excess(theirs) * 0.6, "{name}, ≤ {limit} min");
            assert!(ours.changes <= theirs.changes, "{name}, ≤ {limit} min");
        }
    }
}

/// Mornings that come at once: with a season the tasks are there from the third day on, and at no time fewer than without.
#[test]
fn a_season_has_tasks_ready_for_the_morning() {
    let day = |second: usize| if (8 * 3600..18 * 3600).contains(&(second % 86_400)) { 3000.0 } else { 400.0 };
    let load: Vec<f64> = (0..4 * 86_400).map(day).collect();
    let run = |season: Option<Duration>, days: usize| {
        let control = Control::new(LawSpec::Adaptive(Tuning { per_task: 1.0, season }));
        PLANT.run(&load[..days * 86_400], &control, 5, 0.8)
    };
    let season = Some(Duration::from_secs(86_400));
    let (without, with) = (run(None, 4), run(season, 4));
    println!("four days: without a season {without:?}, with one {with:?}");
    // The first two days teach it: the first one need not be whole.
    let learnt = run(season, 2);
    assert!(with.over <= learnt.over + 0.1 && without.over >= learnt.over * 1.5, "{learnt:?}");
    assert!(without.hours <= with.hours && with.hours <= without.hours * 1.1, "{without:?} {with:?}");
}
