//! Relay's demo (A2, A3): jobs that live 5 to 10 s, a policy that ticks ten times a second and holds their number.
//!
//! Starvation (A6, A7) too: a backend that has no room, or room for some, for a while.

use std::time::Duration;

use fastrand::Rng;
use setpoint::core::decide::{Config, decide, settle};
use setpoint::core::decision::{InFlight, Observation, PolicyState};
use setpoint::core::model::{Counts, Effect, Sample};
use setpoint::core::policy::{Control, Gains, Interval, LawSpec, Tuning};
use setpoint::core::time::Timestamp;

/// Lags in samples.
const LAGS: [usize; 6] = [0, 1, 2, 5, 10, 20];

struct Demo {
    control: Control,
    /// The metric is the number of so many samples ago.
    lag: usize,
    /// Whether the policy was told of the lag: then the ledger counts what the metric does not show.
    told: bool,
    /// Whether jobs end by themselves.
    mortal: bool,
}

/// What was seen, sample by sample.
struct Seen {
    counts: Vec<u32>,
    launched: Vec<u32>,
}

impl Demo {
    fn new(law: LawSpec, lag: usize, told: bool) -> Self {
        Self { control: Control::new(law), lag, told, mortal: true }
    }

    /// `room`: how many launches are placed at that sample.
    fn run(&self, samples: usize, target: impl Fn(usize) -> f64, room: impl Fn(usize) -> u32) -> Seen {
        let config = Config {
            control: &self.control,
            effect: Effect::Heats,
            min: 0,
            max: 500,
            interval: Interval::fixed(Duration::from_millis(100)),
            counter: false,
            metric: true,
        };
        let mut rng = Rng::with_seed(7);
        let mut state = PolicyState::default();
        let mut ends: Vec<usize> = Vec::new();
        let mut seen = Seen { counts: Vec::new(), launched: Vec::new() };
        let mut refused = 0;
        for at in 0..samples {
            ends.retain(|end| at < *end);
            let running = ends.len() as u32;
            seen.counts.push(running);
            let shown = at.checked_sub(self.lag).map_or(0, |before| seen.counts[before]);
            let in_flight = if self.told {
                InFlight { launches: running.saturating_sub(shown), kills: shown.saturating_sub(running) }
            } else {
                InFlight::default()
            };
            let observation = Observation {
                now: Timestamp::from_millis(at as u64 * 100),
                sample: Sample::value(f64::from(shown)),
                setpoint: Some(target(at)),
                counts: Counts { running, ready: running, ..Counts::default() },
                in_flight,
                refused,
                ..Observation::default()
            };
            let (decision, next) = decide(&config, state, &observation);
            state = next;
            let asked = decision.adjustment.unsigned_abs() as u32;
            let (launched, killed) =
                if decision.adjustment > 0 { (asked.min(room(at)), 0) } else { (0, asked.min(running)) };
            refused = if decision.adjustment > 0 { asked - launched } else { 0 };
            for _ in 0..launched {
                ends.push(if self.mortal { at + 50 + rng.usize(0..=50) } else { usize::MAX });
            }
            ends.truncate(ends.len() - killed as usize);
            seen.launched.push(launched);
            settle(&mut state, observation.now, launched, killed, 0);
        }
        seen
    }
}

impl Seen {
    fn peak(&self) -> u32 {
        self.counts.iter().copied().max().unwrap_or(0)
    }

    /// The mean and the greatest distance from the target in the second half.
    fn settled(&self, target: f64) -> (f64, f64) {
        let half = &self.counts[self.counts.len() / 2..];
        let off = || half.iter().map(|count| (f64::from(*count) - target).abs());
        (off().sum::<f64>() / half.len() as f64, off().fold(0.0, f64::max))
    }
}

fn adaptive() -> LawSpec {
    LawSpec::Adaptive(Tuning { per_task: 1.0, season: None })
}

/// No derivative: at this gain the number of jobs is where it should be one sample later, and there is nothing to damp.
fn pid() -> LawSpec {
    LawSpec::Pid(Gains::new(1.0, None, 0.05, 0.0))
}

fn any(_: usize) -> u32 {
    u32::MAX
}

/// A3. `adaptive` is told nothing and finds the lag out; `pid` is told. The original peaks and never settles.
#[test]
fn a3_a_lag_leads_to_no_overshoot() {
    for lag in LAGS {
        for (name, law, told) in [("adaptive", adaptive(), false), ("adaptive", adaptive(), true), ("pid", pid(), true)]
        {
            let seen = Demo::new(law, lag, told).run(600, |_| 20.0, any);
            let (mean, worst) = seen.settled(20.0);
            println!("{name} (told: {told}) lag {lag}: peak {}, then {mean:.2} off, at most {worst}", seen.peak());
            assert!(seen.peak() <= 30 && mean <= 1.0 && worst <= 4.0, "{name} lag {lag}: {:?}", seen.counts);
        }
        let original = Demo::new(LawSpec::Relay { compat: true }, lag, false).run(600, |_| 20.0, any);
        let (mean, worst) = original.settled(20.0);
        println!("relay lag {lag}: peak {}, then {mean:.2} off, at most {worst}", original.peak());
        assert!(lag < 5 || (original.peak() > 80 && worst > 40.0), "the plant is no test: {}", original.peak());
    }
}

/// A2, with and without a lag: a wave is followed, and a step is met at once.
#[test]
fn a2_waves_and_steps_are_followed() {
    for (law, told) in [(adaptive(), false), (pid(), true)] {
        for lag in [0, 10] {
            let demo = Demo::new(law.clone(), lag, told);
            let wave = |at: usize| {
                let turn = at as f64 / 1000.0 * std::f64::consts::TAU;
                20.0 + 10.0 * turn.sin() + 5.0 * (3.0 * turn).sin()
            };
            let seen = demo.run(2000, wave, any);
            let off = seen.counts.iter().enumerate().skip(150).map(|(at, count)| (f64::from(*count) - wave(at)).abs());
            let mean = off.sum::<f64>() / (seen.counts.len() - 150) as f64;
            assert!(mean <= 0.7, "{law:?} lag {lag}: {mean} off");
            let square = demo.run(1200, |at| if at % 300 < 150 { 50.0 } else { 20.0 }, any);
            assert!(square.peak() <= 60, "{law:?} lag {lag}: peak {}", square.peak());
            assert!(square.counts[750 + lag + 2] <= 22, "{law:?} lag {lag}: 30 too many are killed at once");
        }
    }
}

/// A6: nothing is launched for a reason that has passed, and nothing has wound up where the reason is still there.
#[test]
fn a6_starvation_winds_nothing_up() {
    for lag in [0, 10] {
        for (law, told) in [(adaptive(), false), (pid(), true)] {
            let mut demo = Demo::new(law.clone(), lag, told);
            demo.mortal = false;
            // 60 s without room. Meanwhile the wish passes: the target comes down to what there is.
            let room = |at: usize| if at < 600 { 0 } else { u32::MAX };
            let seen = demo.run(1200, |at| if at < 500 { 30.0 } else { 0.0 }, room);
            assert_eq!(seen.launched.iter().sum::<u32>(), 0, "{law:?} lag {lag}: launched what nobody wants");
            // The wish is still there: exactly it, once.
            let seen = demo.run(1200, |_| 30.0, room);
            assert_eq!((seen.launched[600], seen.peak()), (30, 30), "{law:?} lag {lag}: {:?}", &seen.launched[595..]);
            assert_eq!(seen.launched.iter().sum::<u32>(), 30, "{law:?} lag {lag}");
        }
    }
}

/// A7: room for four of ten; the rest is asked for again, ten in all and never more.
#[test]
fn a7_a_partial_fit_is_completed() {
    for lag in [0, 10] {
        for (law, told) in [(adaptive(), false), (pid(), true)] {
            let mut demo = Demo::new(law.clone(), lag, told);
            demo.mortal = false;
            let room = |at| match at {
                0 => 4,
                1..100 => 0,
                _ => u32::MAX,
            };
            let seen = demo.run(900, |_| 10.0, room);
            assert_eq!(seen.launched[0], 4);
            assert_eq!((seen.peak(), seen.counts.last()), (10, Some(&10)), "{law:?} lag {lag}: {:?}", seen.counts);
        }
    }
}
