//! The loop for specs: time goes on when the spec says so, and each tick is asked for.
//!
//! Tasks start, end and are replaced as in a simulation; there is no load. What the policy's functions give can be given
//! in their place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::model::{Exit, TaskId, TaskState};
use crate::script::spec::{Figures, Opening, Stage, Subject, Ticked};
use crate::script::{Acted, Ctx, Direct, Given, Hook, Observed, ScriptError, TaskView};

use super::run::Body;
use super::scripted::view;
use super::tasks::millis;
use super::{Functions, Load, Plant, Setup, Standing, World};

/// Most moments between two ticks at which something happens to tasks.
const MOST_MOMENTS: u32 = 1_000_000;

/// What plays the world for specs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpecStage;

impl Stage for SpecStage {
    fn open(&self, opening: Opening) -> Box<dyn Subject> {
        let Opening { name, spec, script, start, startup, stop, wall } = opening;
        let setup = Setup {
            name,
            startup,
            stop,
            wall,
            start: Some(start),
            ..Setup::new(Load::constant(0.0), Plant::Own, Duration::ZERO)
        };
        let hands = Hands { script, given: Given::default(), figures: BTreeMap::new() };
        Box::new(Session { body: Body::new(spec, Arc::new(setup)).0, hands, tick_at: 0 })
    }
}

struct Session {
    body: Body,
    hands: Hands,
    tick_at: u64,
}

impl Subject for Session {
    fn now(&self) -> Duration {
        Duration::from_millis(self.body.now)
    }

    fn due(&self) -> Option<Duration> {
        self.body.ended.is_none().then(|| Duration::from_millis(self.tick_at.max(self.body.now)))
    }

    fn ended(&self) -> Option<&str> {
        self.body.ended.as_deref()
    }

    fn go(&mut self, to: Duration) {
        let to = millis(to).max(self.body.now);
        for _ in 0..MOST_MOMENTS {
            self.body.settle_events();
            let next = self.body.tasks.next().min(self.body.wake());
            if to < next {
                break;
            }
            self.body.pass(next.max(self.body.now));
        }
        self.body.pass(to);
    }

    fn tick(&mut self, given: Given, figures: BTreeMap<TaskId, Figures>) -> Ticked {
        self.hands.given = given;
        self.hands.figures = figures;
        self.body.settle_events();
        let before = self.body.ledger.counts();
        let mut seen = None;
        self.body.tick(&mut self.hands, &mut |tick| {
            seen = Some(Ticked {
                at: tick.at,
                sample: tick.sample.clone(),
                setpoint: tick.setpoint,
                decision: tick.decision.clone(),
                before: tick.counts,
                after: tick.counts,
                launched: tick.launched,
                killed: tick.killed,
                recorded: tick.recorded.to_vec(),
                errors: tick.errors.to_vec(),
            });
        });
        self.body.settle_events();
        self.tick_at = self.body.now.saturating_add(millis(self.body.interval).max(1));
        let mut ticked = seen.expect("invariant: a tick is watched");
        (ticked.before, ticked.after) = (before, self.body.ledger.counts());
        ticked
    }

    fn tasks(&self) -> Vec<TaskView> {
        let show = |task| self.hands.shown(view(task));
        self.body.ledger.tasks().map(show).collect()
    }

    fn finish(&mut self, n: u32, code: i32) -> u32 {
        let running = self.body.ledger.tasks().filter(|task| task.state == TaskState::Running);
        let ids: Vec<_> = running.take(n as usize).map(|task| task.id.clone()).collect();
        for id in &ids {
            self.body.end(id, Exit::Code { code });
        }
        self.body.settle_events();
        ids.len() as u32
    }
}

/// The policy's functions, and what is given in their place.
struct Hands {
    script: Direct,
    given: Given,
    figures: BTreeMap<TaskId, Figures>,
}

impl Hands {
    /// A task with the figures that the spec gives it.
    fn shown(&self, mut task: TaskView) -> TaskView {
        if let Some(figures) = self.figures.get(&task.id) {
            task.stats = figures.stats;
            let place = &figures.placement;
            task.placement.host.clone_from(&place.host);
            task.placement.ports.clone_from(&place.ports);
            task.placement.pid = place.pid;
            task.placement.container.clone_from(&place.container);
        }
        task
    }

    fn ctx(&self, standing: &Standing<'_>) -> Arc<Ctx> {
        let counts = standing.counts;
        Arc::new(Ctx {
            policy: standing.name.clone(),
            now: standing.wall,
            tick: standing.tick,
            sample: standing.sample.cloned(),
            setpoint: standing.setpoint,
            history: Arc::clone(&standing.state.history),
            tasks: Arc::new(standing.ledger.tasks().map(|task| self.shown(view(task))).collect()),
            running: counts.running,
            in_flight: counts.in_flight(),
            desired: counts.desired(),
            bounds: standing.bounds,
        })
    }
}

impl Functions for Hands {
    fn observe(&mut self, _: &World, standing: &Standing<'_>) -> Observed {
        let ctx = self.ctx(standing);
        self.script.observe_spec(ctx, &self.given)
    }

    fn act(&mut self, hook: Hook, n: u32, standing: &Standing<'_>) -> Acted {
        let ctx = self.ctx(standing);
        self.script.act(hook, n, ctx)
    }

    fn victims(&mut self, n: u32, standing: &Standing<'_>) -> Result<Vec<TaskId>, ScriptError> {
        let ctx = self.ctx(standing);
        self.script.victims(n, ctx)
    }

    fn drain(&mut self, task: &TaskId, standing: &Standing<'_>) -> Result<bool, ScriptError> {
        let ctx = self.ctx(standing);
        self.script.drain(task, ctx)
    }

    fn stop(&mut self, standing: &Standing<'_>) -> Result<Option<i32>, ScriptError> {
        let ctx = self.ctx(standing);
        self.script.stop(ctx)
    }
}
