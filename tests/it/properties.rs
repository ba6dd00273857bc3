//! Random schedules through the ledger, `decide` and `settle`: every numbered rule of the semantics, §2 to §7.
//!
//! A schedule is a policy's life of forty ticks: fresh, missing, stale and failed samples, deaths, reloads that
//! change the policy, overrides, pauses, a global budget, outages and slow backends, kills that take long,
//! restarts and clock jumps. [`world`] plays host and backend, and keeps books of its own; [`rules`] compares
//! those with what the core says.
//!
//! `SETPOINT_CASES` is the number of schedules, `SETPOINT_SEED` the first one's seed; a failure names its own.

mod draw;
mod rules;
mod world;

use std::collections::BTreeMap;

use setpoint::core::decision::Guard;

use world::World;

const TICKS: u32 = 40;

/// Names the schedule when a check, or the core itself, panics in it.
struct Case(u64);

impl Drop for Case {
    #[expect(clippy::print_stderr, reason = "the seed belongs beside the panic's own message")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("schedule {seed}: SETPOINT_SEED={seed} SETPOINT_CASES=1 runs it alone", seed = self.0);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the campaign sets the number of cases from outside")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number of schedules, or a seed"))
}

/// How often each guard changed or held an adjustment.
type Fired = BTreeMap<Guard, u64>;

fn run(seeds: impl Iterator<Item = u64>) -> Fired {
    let mut fired = Fired::new();
    for seed in seeds {
        let case = Case(seed);
        let mut world = World::new(case.0);
        for _ in 0..TICKS {
            let decision = world.tick();
            for reason in &decision.reasons {
                *fired.entry(reason.guard).or_default() += 1;
            }
        }
    }
    fired
}

#[test]
fn every_rule_holds_over_random_schedules() {
    let cases = setting("SETPOINT_CASES", 2_000);
    let first = setting("SETPOINT_SEED", 1);
    let half = cases / 2;
    let fired = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(first + half..first + cases));
        let mut fired = run(first..first + half);
        for (guard, times) in other.join().expect("the other half passes") {
            *fired.entry(guard).or_default() += times;
        }
        fired
    });
    // A rule that no schedule puts to the test would hold of anything.
    if cases >= 1_000 {
        use Guard::{
            Budget, Confirmation, Cooldown, DryRun, Flap, Law, Max, Min, Pause, Ramp, Sample, Stabilization, Step,
            Tolerance,
        };
        for guard in [
            Law,
            Sample,
            Tolerance,
            Confirmation,
            Ramp,
            Stabilization,
            Step,
            Cooldown,
            Flap,
            Min,
            Max,
            Budget,
            Pause,
            DryRun,
        ] {
            assert!(fired.get(&guard).is_some_and(|times| *times > cases / 100), "{guard:?} hardly fired: {fired:?}");
        }
    }
    println!("{cases} schedules from seed {first}: {fired:?}");
}
