//! A policy's script as [`Functions`]: called on the caller's own thread, with the made-up world behind `ctx`.

use std::sync::Arc;

use crate::core::intent::By;
use crate::core::ledger::Task;
use crate::core::model::{TaskId, TaskState, TaskStats};
use crate::runtime::by_word;
use crate::script::{Acted, Ctx, Direct, Hook, Observed, ScriptError, Simulated, TaskView};

use super::{Functions, Standing, World};

/// The functions of a loaded policy.
#[derive(Debug)]
pub struct Scripted {
    script: Direct,
    views: Arc<Vec<TaskView>>,
    /// The tasks that `views` shows.
    version: Option<u64>,
}

impl Scripted {
    /// The functions of a policy.
    #[must_use]
    pub fn new(script: Direct) -> Self {
        Self { script, views: Arc::default(), version: None }
    }

    fn ctx(&mut self, standing: &Standing<'_>, running: u32) -> Arc<Ctx> {
        if self.version != Some(standing.version) {
            self.version = Some(standing.version);
            self.views = Arc::new(standing.ledger.tasks().map(view).collect());
        }
        let counts = standing.counts;
        Arc::new(Ctx {
            policy: standing.name.clone(),
            now: standing.wall,
            tick: standing.tick,
            sample: standing.sample.cloned(),
            setpoint: standing.setpoint,
            history: Arc::clone(&standing.state.history),
            tasks: Arc::clone(&self.views),
            running,
            in_flight: counts.in_flight(),
            desired: counts.desired(),
            bounds: standing.bounds,
        })
    }

    fn ctx_now(&mut self, standing: &Standing<'_>) -> Arc<Ctx> {
        self.ctx(standing, standing.counts.running)
    }
}

impl Functions for Scripted {
    fn observe(&mut self, world: &World, standing: &Standing<'_>) -> Observed {
        let ctx = self.ctx(standing, world.running);
        let plant = world.plant;
        self.script
            .observe(ctx, Simulated { trace: world.load, queue: plant.queue, served: plant.served, lost: plant.lost })
    }

    fn act(&mut self, hook: Hook, n: u32, standing: &Standing<'_>) -> Acted {
        let ctx = self.ctx_now(standing);
        self.script.act(hook, n, ctx)
    }

    fn victims(&mut self, n: u32, standing: &Standing<'_>) -> Result<Vec<TaskId>, ScriptError> {
        let ctx = self.ctx_now(standing);
        self.script.victims(n, ctx)
    }

    fn drain(&mut self, task: &TaskId, standing: &Standing<'_>) -> Result<bool, ScriptError> {
        let ctx = self.ctx_now(standing);
        self.script.drain(task, ctx)
    }

    fn stop(&mut self, standing: &Standing<'_>) -> Result<Option<i32>, ScriptError> {
        let ctx = self.ctx_now(standing);
        self.script.stop(ctx)
    }
}

pub(super) fn view(task: &Task) -> TaskView {
    TaskView {
        id: task.id.clone(),
        policy: task.policy.clone(),
        backend: Arc::clone(&task.backend),
        state: task.state,
        ready: task.state == TaskState::Running && task.ready.is_some(),
        helper: task.by == By::Helper,
        placement: task.placement.clone(),
        started: task.started,
        stats: TaskStats::default(),
        by: by_word(task.by),
        slot: task.slot,
    }
}
