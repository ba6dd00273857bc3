use super::super::decision::{Detail, InFlight, LawState, RampState, Scripted};
use super::super::model::{Counts, Sample};
use super::super::policy::{Confirm, FlapBudget, OnMissing, StepLimit, Tolerance, UpDown};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// A policy that heats one to one and holds its own number, so that raw = −sample.
fn heats() -> Control {
    Control::new(LawSpec::Proportional { per_task: 1.0 })
}

fn config(control: &Control) -> Config<'_> {
    Config {
        control,
        effect: Effect::Heats,
        min: 0,
        max: 100,
        interval: Interval::fixed(SECOND),
        counter: false,
        metric: true,
    }
}

/// `wanted` more tasks than the `running` ones, at second `second`.
fn observe(second: u64, running: u32, wanted: f64) -> Observation {
    Observation {
        now: at(second),
        sample: Sample::value(-wanted),
        setpoint: Some(0.0),
        counts: Counts { running, ready: running, ..Counts::default() },
        ..Observation::default()
    }
}

fn missing(second: u64, running: u32) -> Observation {
    Observation { sample: Sample::Missing, ..observe(second, running, 0.0) }
}

/// A policy that is fully obeyed.
struct Loop<'a> {
    config: Config<'a>,
    state: PolicyState,
    running: u32,
}

impl<'a> Loop<'a> {
    fn new(config: Config<'a>, running: u32) -> Self {
        Self { config, state: PolicyState::default(), running }
    }

    /// Decides and carries out.
    fn tick(&mut self, change: impl FnOnce(&mut Observation), second: u64, wanted: f64) -> Decision {
        let mut observation = observe(second, self.running, wanted);
        change(&mut observation);
        let (decision, state) = decide(&self.config, std::mem::take(&mut self.state), &observation);
        self.state = state;
        let launched = u32::try_from(decision.adjustment.max(0)).unwrap();
        let killed = u32::try_from((-decision.adjustment).max(0)).unwrap();
        settle(&mut self.state, observation.now, launched, killed, decision.to_min);
        self.running = self.running.saturating_add(launched).saturating_sub(killed);
        decision
    }

    /// The adjustment of a tick with a fresh sample.
    fn step(&mut self, second: u64, wanted: f64) -> i64 {
        self.tick(|_| (), second, wanted).adjustment
    }
}

fn guards(decision: &Decision) -> Vec<Guard> {
    decision.reasons.iter().map(|reason| reason.guard).collect()
}

#[test]
fn rule_1_raw_is_in_tasks_whatever_the_effect() {
    let control = heats();
    for (effect, sample, raw) in
        [(Effect::Heats, 3.0, -3), (Effect::Heats, -3.0, 3), (Effect::Cools, 3.0, 3), (Effect::Cools, -3.0, -3)]
    {
        let config = Config { effect, ..config(&control) };
        let observation = Observation { sample: Sample::value(sample), ..observe(0, 10, 0.0) };
        let (decision, _) = decide(&config, PolicyState::default(), &observation);
        assert_eq!((decision.raw, decision.adjustment, decision.reasons.len()), (raw, raw, 0));
    }
}

#[test]
fn never_a_scale_in_without_a_fresh_sample() {
    let mut control = Control::new(LawSpec::Decide);
    let samples = [
        Sample::Missing,
        Sample::Stale { value: -9.0, age: SECOND },
        Sample::Error { message: "raised".into() },
        Sample::value(f64::NAN),
        Sample::Value { value: 9.0, age: 4 * SECOND, reported: None },
    ];
    for law in [LawSpec::Decide, LawSpec::Count { n: 0, wait: None }, heats().law] {
        control.law = law;
        for on_missing in
            [OnMissing::Hold, OnMissing::Keep(60 * SECOND), OnMissing::Fallback { n: 2, after: Duration::ZERO }]
        {
            control.on_missing = on_missing;
            for sample in &samples {
                let mut looped = Loop::new(config(&control), 5);
                let scripted = |o: &mut Observation| {
                    o.sample = sample.clone();
                    o.scripted = Some(Scripted::Desired(0.0));
                };
                let last = Point { at: at(0), value: 9.0, setpoint: 0.0 };
                looped.state.last_good = Some(last);
                let decision = looped.tick(scripted, 1, 0.0);
                assert_eq!(decision.adjustment, 0, "{:?} {on_missing:?} {sample:?}", control.law);
                assert_eq!(decision.reasons[0].guard, Guard::Sample);
            }
        }
    }
}

#[test]
fn a_law_that_needs_no_sample_scales_in_without_a_metric() {
    let control = Control::new(LawSpec::Count { n: 2, wait: None });
    let config = Config { metric: false, ..config(&control) };
    let (decision, _) = decide(&config, PolicyState::default(), &missing(0, 5));
    assert_eq!((decision.adjustment, decision.reasons), (-3, vec![]));
    let failed = Observation { sample: Sample::Error { message: "count".into() }, ..missing(0, 5) };
    assert_eq!(decide(&config, PolicyState::default(), &failed).0.adjustment, 0);
}

#[test]
fn on_missing_hold_keep_and_fallback_act_upwards_only() {
    let mut control = heats();
    let mut seen = |on_missing, wanted: f64| {
        control.on_missing = on_missing;
        let mut looped = Loop::new(config(&control), 5);
        looped.state.last_good = Some(Point { at: at(0), value: -wanted, setpoint: 0.0 });
        [1, 10, 11, 30].map(|second| looped.tick(|o| o.sample = Sample::Missing, second, 0.0).adjustment)
    };
    assert_eq!(seen(OnMissing::Hold, 2.0), [0, 0, 0, 0]);
    assert_eq!(seen(OnMissing::Keep(10 * SECOND), 2.0), [2, 2, 0, 0]);
    assert_eq!(seen(OnMissing::Keep(10 * SECOND), -2.0), [0, 0, 0, 0]);
    assert_eq!(seen(OnMissing::Fallback { n: 8, after: 11 * SECOND }, -2.0), [0, 0, 3, 0]);
    assert_eq!(seen(OnMissing::Fallback { n: 3, after: Duration::ZERO }, 2.0), [0, 0, 0, 0]);
}

#[test]
fn tolerance_is_absolute_or_a_share_of_the_setpoint() {
    let mut control = heats();
    let mut adjust = |tolerance, setpoint: f64, deviation: f64| {
        control.tolerance = tolerance;
        let observation = Observation {
            sample: Sample::value(setpoint - deviation),
            setpoint: Some(setpoint),
            ..observe(0, 50, 0.0)
        };
        decide(&config(&control), PolicyState::default(), &observation).0.adjustment
    };
    assert_eq!(adjust(Tolerance::Absolute(2.0), 40.0, 2.0), 0);
    assert_eq!(adjust(Tolerance::Absolute(2.0), 40.0, -2.0), 0);
    assert_eq!(adjust(Tolerance::Absolute(2.0), 40.0, -3.0), -3);
    assert_eq!(adjust(Tolerance::Relative(0.1), 40.0, 4.0), 0);
    assert_eq!(adjust(Tolerance::Relative(0.1), -40.0, 5.0), 5);
    assert_eq!(adjust(Tolerance::Relative(0.1), 0.0, 1.0), 1);
}

#[test]
fn confirmation_counts_n_of_the_last_m_ticks_and_an_action_clears_it() {
    let control = Control { confirm: Some(Confirm::Window { n: 2, of: 3 }), ..heats() };
    let mut looped = Loop::new(config(&control), 10);
    let wanted = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, -1.0, -1.0];
    let seen: Vec<i64> = (0..).zip(wanted).map(|(second, wanted)| looped.step(second, wanted)).collect();
    assert_eq!(seen, [0, 0, 1, 0, 0, 0, 0, 0, -1]);
}

#[test]
fn a9_gocd_confirms_at_the_sixth_positive_poll_and_never_when_they_must_be_consecutive() {
    let polls = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0];
    let launches = |confirm, polls: &[f64]| -> Vec<u64> {
        let control = Control { confirm: Some(confirm), ..heats() };
        let mut looped = Loop::new(config(&control), 0);
        (1..).zip(polls).filter(|(poll, wanted)| looped.step(poll * 120, **wanted) > 0).map(|(poll, _)| poll).collect()
    };
    assert_eq!(launches(Confirm::Total { n: 6 }, &polls), [8]);
    assert_eq!(launches(Confirm::Window { n: 6, of: 6 }, &polls), [0; 0]);
    assert_eq!(launches(Confirm::Total { n: 6 }, &[1.0; 21]), [6, 12, 18]);
}

#[test]
fn a4_the_ramp_spreads_the_first_adjustment_over_the_first_samples() {
    let ramp = |wanted: f64| {
        let control = Control { ramp: 10, ..heats() };
        let mut looped = Loop::new(config(&control), 50);
        let seen: Vec<i64> = (0..10).map(|second| looped.step(second, wanted)).collect();
        // The eleventh sample is the law's again.
        assert_eq!(looped.step(10, 4.0), 4);
        seen
    };
    assert_eq!(ramp(15.0), [5, 0, 4, 0, 3, 0, 2, 0, 1, 0]);
    assert_eq!(ramp(-15.0), [-5, 0, -4, 0, -3, 0, -2, 0, -1, 0]);
    assert_eq!(ramp(7.0), [3, 0, 2, 0, 1, 0, 1, 0, 0, 0]);
    assert_eq!(ramp(0.0), [0; 10]);
}

#[test]
fn rule_15_a_ramp_is_for_the_first_start_and_not_for_a_reload() {
    let control = Control { ramp: 3, ..heats() };
    let mut looped = Loop::new(config(&control), 50);
    assert_eq!([0, 1, 2, 3].map(|second| looped.step(second, 3.0)), [2, 1, 0, 3]);
    looped.state.reset_law();
    assert_eq!(looped.step(4, 3.0), 3);
    assert_eq!(looped.state.history.len(), 1, "a changed law starts a history of its own");
}

#[test]
fn a_missing_sample_does_not_use_up_the_ramp() {
    let control = Control { ramp: 3, ..heats() };
    let mut looped = Loop::new(config(&control), 50);
    assert_eq!(looped.tick(|o| o.sample = Sample::Missing, 0, 0.0).adjustment, 0);
    assert_eq!(looped.step(1, 3.0), 2);
    assert_eq!(looped.tick(|o| o.sample = Sample::Missing, 2, 0.0).adjustment, 0);
    assert_eq!([3, 4, 5].map(|second| looped.step(second, 3.0)), [1, 0, 3]);
}

#[test]
fn stabilization_takes_the_highest_on_the_way_down_and_the_lowest_on_the_way_up() {
    let windows = UpDown { up: 3 * SECOND, down: 5 * SECOND };
    let control = Control { stabilization: windows, ..heats() };
    let mut looped = Loop::new(config(&control), 10);
    // The window starts with the number as it is: 10.
    assert_eq!(looped.step(0, 4.0), 0);
    assert_eq!(looped.step(1, 2.0), 0);
    assert_eq!(looped.step(2, 4.0), 0);
    assert_eq!(looped.step(3, 4.0), 2, "12 was proposed at second 1");
    assert_eq!(looped.step(4, -6.0), 0, "16 was proposed at second 3");
    assert_eq!(looped.step(8, -6.0), -6);
    assert_eq!(looped.running, 6);
}

#[test]
fn step_limits_bound_one_decision_or_a_period() {
    let limit = |tasks, fraction, per| Some(StepLimit { tasks, fraction, per });
    let run = |step: UpDown<Option<StepLimit>>, running, wanted: f64| -> [i64; 4] {
        let control = Control { step, ..heats() };
        let mut looped = Loop::new(config(&control), running);
        [0, 5, 9, 10].map(|second| looped.step(second, wanted))
    };
    let up = |limit| UpDown { up: limit, down: None };
    let down = |limit| UpDown { up: None, down: limit };
    assert_eq!(run(up(limit(Some(2), None, None)), 10, 9.0), [2, 2, 2, 2]);
    assert_eq!(run(up(limit(Some(2), None, None)), 10, -3.0), [-3, -3, -3, -1]);
    assert_eq!(run(up(limit(Some(3), None, Some(10 * SECOND))), 10, 2.0), [2, 1, 0, 2]);
    assert_eq!(run(down(limit(Some(3), None, Some(10 * SECOND))), 10, -2.0), [-2, -1, 0, -2]);
    assert_eq!(run(up(limit(None, Some(0.5), None)), 10, 90.0), [5, 8, 12, 18]);
    assert_eq!(run(up(limit(None, Some(0.5), Some(10 * SECOND))), 10, 3.0), [3, 2, 0, 3]);
    assert_eq!(run(up(limit(None, Some(0.1), None)), 0, 9.0), [1, 1, 1, 1]);
    assert_eq!(run(up(limit(Some(4), Some(0.1), None)), 10, 9.0), [4, 4, 4, 4]);
    assert_eq!(run(up(limit(Some(0), None, None)), 10, 9.0), [0; 4]);
}

#[test]
fn rule_6_cooldowns_run_from_the_last_launch_and_from_the_last_change() {
    let control = Control { cooldown: UpDown { up: 3 * SECOND, down: 5 * SECOND }, ..heats() };
    let mut looped = Loop::new(config(&control), 10);
    let seen: Vec<i64> =
        [(0, 1.0), (2, 1.0), (3, 1.0), (4, -1.0), (7, -1.0), (8, -1.0), (9, -1.0), (9, 1.0), (13, -1.0)]
            .map(|(second, wanted)| looped.step(second, wanted))
            .into();
    assert_eq!(seen, [1, 0, 1, 0, 0, -1, 0, 1, 0]);
}

#[test]
fn a_decision_that_nothing_came_of_starts_no_cooldown() {
    let control = Control { cooldown: UpDown { up: 60 * SECOND, down: 60 * SECOND }, ..heats() };
    let (decision, mut state) = decide(&config(&control), PolicyState::default(), &observe(0, 5, 3.0));
    assert_eq!(decision.adjustment, 3);
    settle(&mut state, at(0), 0, 0, 0);
    let (decision, mut state) = decide(&config(&control), state, &observe(1, 5, 3.0));
    assert_eq!(decision.adjustment, 3);
    settle(&mut state, at(1), 1, 0, 0);
    assert_eq!(decide(&config(&control), state, &observe(2, 6, 3.0)).0.adjustment, 0);
}

#[test]
fn the_flap_budget_counts_starts_and_stops() {
    let control = Control { flap: Some(FlapBudget { changes: 5, per: 10 * SECOND }), ..heats() };
    let mut looped = Loop::new(config(&control), 10);
    assert_eq!(
        [(0, 3.0), (1, -4.0), (2, 1.0), (10, -9.0), (11, 9.0)].map(|(s, w)| looped.step(s, w)),
        [3, -2, 0, -3, 2]
    );
}

#[test]
fn rule_6_launches_up_to_min_ignore_cooldown_sample_budget_and_pause_but_not_a_dry_run() {
    let hour = 3600 * SECOND;
    let control = Control {
        cooldown: UpDown { up: hour, down: hour },
        step: UpDown { up: Some(StepLimit { tasks: Some(0), fraction: None, per: None }), down: None },
        flap: Some(FlapBudget { changes: 0, per: hour }),
        confirm: Some(Confirm::Total { n: 9 }),
        ..heats()
    };
    let config = Config { min: 4, ..config(&control) };
    let first = Observation { budget: Some(0), paused: true, ..missing(0, 1) };
    let (decision, mut state) = decide(&config, PolicyState::default(), &first);
    assert_eq!((decision.adjustment, decision.to_min), (3, 3));
    assert_eq!(guards(&decision), [Guard::Sample, Guard::Min]);
    settle(&mut state, at(0), 3, 0, 3);
    assert_eq!((state.last_launch, state.last_change, state.changes.len()), (None, None, 0));
    let dry = Observation { dry_run: true, ..missing(1, 1) };
    let (decision, _) = decide(&config, state, &dry);
    assert_eq!((decision.adjustment, decision.to_min), (0, 0));
    assert_eq!(guards(&decision), [Guard::Sample, Guard::Min, Guard::DryRun]);
}

#[test]
fn only_the_part_beyond_min_starts_a_cooldown() {
    let control = heats();
    let mut looped = Loop::new(Config { min: 4, ..config(&control) }, 1);
    let decision = looped.tick(|o| o.budget = Some(2), 0, 9.0);
    assert_eq!((decision.adjustment, decision.to_min), (5, 3));
    assert_eq!(looped.state.changes, [(at(0), 2)]);
    assert_eq!(looped.state.last_launch, Some(at(0)));
}

#[test]
fn replacements_that_wait_are_not_launched_again_for_min() {
    let control = heats();
    let config = Config { min: 4, ..config(&control) };
    let mut observation = missing(0, 1);
    observation.counts.waiting = 3;
    assert_eq!(decide(&config, PolicyState::default(), &observation).0.adjustment, 0);
}

#[test]
fn rule_5_tasks_that_are_being_killed_take_up_room() {
    let control = heats();
    let config = Config { max: 10, ..config(&control) };
    let mut observation = observe(0, 5, 9.0);
    observation.counts.killing = 3;
    let (decision, _) = decide(&config, PolicyState::default(), &observation);
    assert_eq!(decision.adjustment, 2);
    assert_eq!(guards(&decision), [Guard::Max, Guard::Max]);
    let config = Config { min: 9, ..config };
    assert_eq!(decide(&config, PolicyState::default(), &observation).0.to_min, 2);
}

#[test]
fn rule_6_a_lowered_max_scales_in_on_a_fresh_sample_or_by_an_override_only() {
    let control = heats();
    let config = Config { max: 4, ..config(&control) };
    let adjust = |observation: Observation| decide(&config, PolicyState::default(), &observation).0.adjustment;
    let theirs = |min, max| Some(Bounds { min, max });
    assert_eq!(adjust(missing(0, 10)), 0);
    assert_eq!(adjust(observe(0, 10, 3.0)), -6);
    assert_eq!(adjust(Observation { bounds: theirs(0, 7), ..missing(0, 10) }), -3);
    assert_eq!(adjust(Observation { bounds: theirs(1, 4), ..missing(0, 10) }), 0, "it set min only");
    assert_eq!(adjust(Observation { bounds: theirs(20, 30), ..missing(0, 10) }), 10);
    assert_eq!(adjust(Observation { bounds: theirs(9, 7), ..missing(0, 10) }), -3, "where they cross, max wins");
    assert_eq!(adjust(Observation { bounds: theirs(0, 7), paused: true, ..missing(0, 10) }), 0);
}

#[test]
fn rule_7_the_order_of_the_guards_shows_in_the_reasons() {
    let control = Control {
        ramp: 2,
        stabilization: UpDown { up: SECOND, down: Duration::ZERO },
        step: UpDown { up: Some(StepLimit { tasks: Some(9), fraction: None, per: None }), down: None },
        ..Control::new(LawSpec::Decide)
    };
    let config = Config { max: 18, ..config(&control) };
    let mut state = PolicyState { proposals: [(at(0), 30)].into(), ..PolicyState::default() };
    state.ramp = RampState { seen: 1, wanted: 40, from: 0, over: 2 };
    let observation = Observation {
        now: at(0),
        scripted: Some(Scripted::Adjust(25.5)),
        budget: Some(5),
        paused: true,
        dry_run: true,
        ..observe(0, 10, 0.0)
    };
    let (decision, _) = decide(&config, state, &observation);
    let chain: Vec<(Guard, i64, i64)> =
        decision.reasons.iter().map(|reason| (reason.guard, reason.from, reason.to)).collect();
    assert_eq!(
        chain,
        [
            (Guard::Law, 26, 26),
            (Guard::Ramp, 26, 13),
            (Guard::Step, 13, 9),
            (Guard::Max, 9, 8),
            (Guard::Budget, 8, 5),
            (Guard::Pause, 5, 0),
        ]
    );
    assert!(matches!(decision.reasons[0].detail, Detail::Text(_)));
}

#[test]
fn nothing_overflows_at_the_ends_of_the_range() {
    let laws = [
        heats().law,
        LawSpec::Relay { compat: true },
        LawSpec::Relay { compat: false },
        LawSpec::Count { n: u32::MAX, wait: Some(Duration::from_nanos(1)) },
        LawSpec::Decide,
    ];
    let all = u32::MAX;
    let counts = Counts { waiting: all, asked: all, staging: all, running: all, ready: all, killing: all };
    for law in laws {
        let control = Control {
            ramp: all,
            lookback: 8,
            step: UpDown {
                up: Some(StepLimit { tasks: None, fraction: Some(1e308), per: Some(Duration::MAX) }),
                down: Some(StepLimit { tasks: Some(all), fraction: Some(1e-308), per: Some(Duration::MAX) }),
            },
            flap: Some(FlapBudget { changes: all, per: Duration::MAX }),
            cooldown: UpDown { up: Duration::ZERO, down: Duration::ZERO },
            ..Control::new(law)
        };
        for max in [0, all] {
            let config = Config { max, min: all, ..config(&control) };
            let mut looped = Loop::new(config, 0);
            for (second, wanted) in (0..).zip([f64::MAX, -f64::MAX, 1e308, -1e308, f64::MIN_POSITIVE, 0.0]) {
                let decision = looped.tick(
                    |o| {
                        o.counts = if second % 2 == 0 { counts } else { Counts::default() };
                        o.setpoint = Some(wanted);
                        o.scripted = Some(Scripted::Adjust(wanted));
                        o.in_flight = InFlight { launches: u32::MAX, kills: 0 };
                    },
                    second,
                    wanted,
                );
                let count = i64::from(decision.desired) + decision.adjustment;
                assert!((0..=i64::from(all)).contains(&count));
            }
        }
    }
}

#[test]
fn a_changed_law_forgets_its_own_state_and_keeps_the_timers() {
    let timers = PolicyState {
        last_launch: Some(at(1)),
        last_change: Some(at(2)),
        changes: [(at(1), 3), (at(2), -1)].into(),
        proposals: [(at(2), 7)].into(),
        ..PolicyState::default()
    };
    let mut state = PolicyState {
        law: LawState::Step { on: vec![true] },
        history: Arc::new([Point { at: at(0), value: 1.0, setpoint: 2.0 }].into()),
        directions: [1, 1].into(),
        ..timers.clone()
    };
    state.reset_law();
    assert_eq!(state, timers);
}
