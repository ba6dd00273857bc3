//! A policy's functions called on the caller's own thread, to their end: for simulation, where nothing waits and a
//! change of threads would cost more than the call.
//!
//! What a script may do is the same as elsewhere, but for this: every function that would reach outside raises
//! `unavailable in simulate` unless a spec's fake stands before it, effects are recorded and not sent, and the limit of
//! CPU time is one of wall time, so generous that only a runaway script meets it (a run must not depend on how busy the
//! machine is).

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use mlua::{Function, IntoLuaMulti, Lua, MultiValue, Value};

use crate::core::model::{Sample, TaskId};
use crate::core::policy::Target;

use super::call::{CallScope, Outside, UNAVAILABLE};
use super::convert;
use super::ctx::{task_ids, task_row};
use super::error::{ScriptError, ScriptErrorKind};
use super::fault::Fault;
use super::meter::RUNAWAY;
use super::row::{Row, fail};
#[cfg(feature = "sim")]
use super::world::World;
use super::{Acted, Ctx, Hook, Mode, Observed};

/// How long a call's I/O may take; there is none.
const WALL: Duration = Duration::from_secs(86_400);

/// What `ctx.trace` and `ctx.plant` are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Simulated {
    /// The load.
    pub trace: f64,
    /// Requests that wait.
    pub queue: f64,
    /// Served in the last second.
    pub served: f64,
    /// Lost in the last second.
    pub lost: f64,
}

/// What a spec says instead of the policy's functions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// In place of what `metric` gives.
    pub sample: Option<Sample>,
    /// In place of what `target` gives.
    pub setpoint: Option<f64>,
}

/// The functions of one policy, called directly. Nothing else may call its file's functions meanwhile.
pub struct Direct {
    row: Arc<Row>,
    outside: Outside,
    scope: Arc<CallScope>,
    /// Whether `metric` is called where `simulate.metric` would take its place.
    own_metric: bool,
    /// What fakes see.
    #[cfg(feature = "sim")]
    world: Option<World>,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("policy", &self.scope.policy).finish_non_exhaustive()
    }
}

impl Direct {
    pub(super) fn new(row: Arc<Row>, outside: Outside) -> Self {
        let scope = Self::fresh(&row, outside);
        Self {
            #[cfg(feature = "sim")]
            world: World::in_vm(&row.vm().lua),
            row,
            outside,
            scope,
            own_metric: false,
        }
    }

    /// Calls the policy's own `metric` also where `simulate.metric` would take its place.
    #[must_use]
    pub fn with_own_metric(self, own_metric: bool) -> Self {
        Self { own_metric, ..self }
    }

    fn fresh(row: &Row, outside: Outside) -> Arc<CallScope> {
        let vm = row.vm();
        let mut scope = vm.scope(row.name().clone(), Hook::Metric, Mode::Record, SystemTime::UNIX_EPOCH, WALL);
        scope.outside = outside;
        Arc::new(scope)
    }

    /// The scope of the next call: the last one again, unless something still holds on to it.
    fn scope(&mut self, hook: Hook, now: SystemTime) -> Arc<CallScope> {
        if Arc::get_mut(&mut self.scope).is_none() {
            self.scope = Self::fresh(&self.row, self.outside);
        }
        if let Some(scope) = Arc::get_mut(&mut self.scope) {
            scope.hook = hook;
            scope.now = now;
            scope.output_left = AtomicUsize::new(self.row.vm().limits().output);
            scope.recorded.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
            scope.intents.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        }
        Arc::clone(&self.scope)
    }

    fn call<R>(
        &mut self,
        hook: Hook,
        ctx: &Ctx,
        function: &Function,
        arguments: impl IntoLuaMulti,
        finish: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
    ) -> (Result<R, Fault>, Arc<CallScope>) {
        let scope = self.scope(hook, ctx.now);
        let result = self.row.vm().call_here(function, &scope, ctx.tick, RUNAWAY, arguments, finish);
        (result, scope)
    }

    fn ask<R>(
        &mut self,
        hook: Hook,
        ctx: &Ctx,
        function: &Function,
        finish: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
    ) -> Result<R, ScriptError> {
        let row = Arc::clone(&self.row);
        let (result, _) = self.call(hook, ctx, function, &row.refs().ctx, finish);
        result.map_err(|fault| row.vm().explain(hook, &fault))
    }

    /// `workload.count`, `simulate.metric` or `metric`, `target` and `decide`. A `workload.count` that would reach outside
    /// is stood in for by the number of made-up tasks, which `ctx.running` is.
    pub fn observe(&mut self, ctx: Arc<Ctx>, world: Simulated) -> Observed {
        self.row.cell().set_simulated(world);
        #[cfg(feature = "sim")]
        if let Some(shown) = &self.world {
            shown.show(&ctx, world);
        }
        self.observe_given(ctx, true, &Given::default())
    }

    /// `metric`, `target` and `decide`, as far as what they give is not given: for specs.
    pub fn observe_spec(&mut self, ctx: Arc<Ctx>, given: &Given) -> Observed {
        self.observe_given(ctx, false, given)
    }

    fn observe_given(&mut self, ctx: Arc<Ctx>, simulated: bool, given: &Given) -> Observed {
        let row = Arc::clone(&self.row);
        let mut seen = Observed {
            sample: Sample::Missing,
            setpoint: given.setpoint.or(match row.spec().hooks.target {
                Target::Number(number) => Some(number),
                Target::Absent | Target::Function => None,
            }),
            count: None,
            scripted: None,
            errors: Vec::new(),
            cpu: Duration::ZERO,
        };
        let (functions, cell) = (&row.refs().functions, row.cell());
        let spec = row.spec();
        let stale_after = spec.control.stale_after.unwrap_or(spec.interval.min * 3);
        cell.set(Arc::clone(&ctx));
        let mut ctx = ctx;
        let mut uncounted = None;
        if let Some(count) = &functions.count {
            let read = |_: &Lua, values: MultiValue| {
                convert::whole(values.front().unwrap_or(&Value::Nil), "count returned", 0..=u32::MAX)
            };
            match self.ask(Hook::Count, &ctx, count, read) {
                Ok(count) => seen.count = Some(count),
                Err(error) if simulated && error.message.contains(UNAVAILABLE) => seen.count = Some(ctx.running),
                Err(error) => uncounted = Some(error),
            }
            if let Some(count) = seen.count {
                ctx = Arc::new(Ctx { running: count, ..(*ctx).clone() });
                cell.set(Arc::clone(&ctx));
            }
        }
        let made_up = functions.simulated_metric.as_ref().filter(|_| simulated && !self.own_metric);
        if let Some(sample) = &given.sample {
            seen.sample = sample.clone();
        } else if let Some(metric) = made_up.or(functions.metric.as_ref()) {
            let read = move |_: &Lua, values: MultiValue| convert::sample(&values, stale_after);
            match self.ask(Hook::Metric, &ctx, metric, read) {
                Ok(sample) => seen.sample = sample,
                Err(error) => fail(&mut seen, error),
            }
        }
        if let Some(error) = uncounted {
            fail(&mut seen, error);
        }
        if let (Some(target), None) = (&functions.target, given.setpoint) {
            cell.set_fresh(seen.sample.clone(), None);
            let read =
                |_: &Lua, values: MultiValue| convert::finite(values.front().unwrap_or(&Value::Nil), "target returned");
            match self.ask(Hook::Target, &ctx, target, read) {
                Ok(setpoint) => seen.setpoint = Some(setpoint),
                Err(error) => fail(&mut seen, error),
            }
        }
        if let Some(decide) = &functions.decide {
            cell.set_fresh(seen.sample.clone(), seen.setpoint);
            let read = |_: &Lua, values: MultiValue| convert::scripted(&values);
            match self.ask(Hook::Decide, &ctx, decide, read) {
                Ok(scripted) => seen.scripted = Some(scripted),
                Err(error) => seen.errors.push(error),
            }
        }
        seen.errors.extend(row.check_state(Hook::Metric));
        cell.release();
        seen
    }

    /// `warmer` or `cooler`.
    pub fn act(&mut self, hook: Hook, n: u32, ctx: Arc<Ctx>) -> Acted {
        let mut acted =
            Acted { intents: Vec::new(), accepted: None, recorded: Vec::new(), error: None, cpu: Duration::ZERO };
        let row = Arc::clone(&self.row);
        let functions = &row.refs().functions;
        let function = if hook == Hook::Warmer { functions.warmer.as_ref() } else { functions.cooler.as_ref() };
        let Some(function) = function else {
            let message = format!("the policy has no function {}", hook.as_str());
            acted.error = Some(row.vm().error(hook, ScriptErrorKind::Shape, message));
            return acted;
        };
        row.cell().set(Arc::clone(&ctx));
        let read = |_: &Lua, values: MultiValue| convert::accepted(&values, hook.as_str());
        let (result, scope) = self.call(hook, &ctx, function, (n, &row.refs().ctx), read);
        acted.intents = std::mem::take(&mut *scope.intents.lock().unwrap_or_else(PoisonError::into_inner));
        acted.recorded = std::mem::take(&mut *scope.recorded.lock().unwrap_or_else(PoisonError::into_inner));
        match result {
            Ok(accepted) => acted.accepted = accepted,
            Err(fault) => acted.error = Some(row.vm().explain(hook, &fault)),
        }
        acted.error = acted.error.or(row.check_state(hook));
        row.cell().release();
        acted
    }

    /// `victims`: ids in the order in which they should go.
    ///
    /// # Errors
    /// The function failed.
    pub fn victims(&mut self, n: u32, ctx: Arc<Ctx>) -> Result<Vec<TaskId>, ScriptError> {
        let row = Arc::clone(&self.row);
        let Some(function) = &row.refs().functions.victims else { return Ok(Vec::new()) };
        row.cell().set(Arc::clone(&ctx));
        let tasks = row.vm().lua.create_table().and_then(|tasks| {
            for task in ctx.tasks.iter() {
                tasks.raw_push(task_row(&row.vm().lua, task, &ctx)?)?;
            }
            Ok(tasks)
        });
        let tasks = tasks.map_err(|error| row.vm().explain(Hook::Victims, &Fault::Lua(error)))?;
        let read =
            |_: &Lua, values: MultiValue| task_ids(values.front().unwrap_or(&Value::Nil), &ctx, "victims returned");
        let (result, _) = self.call(Hook::Victims, &ctx, function, (tasks, n, &row.refs().ctx), read);
        row.cell().release();
        result.map_err(|fault| row.vm().explain(Hook::Victims, &fault))
    }

    /// `drain`: whether the task may end now; one that is not there may.
    ///
    /// # Errors
    /// The function failed.
    pub fn drain(&mut self, task: &TaskId, ctx: Arc<Ctx>) -> Result<bool, ScriptError> {
        let row = Arc::clone(&self.row);
        let Some(function) = &row.refs().functions.drain else { return Ok(true) };
        let Some(shown) = ctx.tasks.iter().find(|other| other.id == *task) else { return Ok(true) };
        row.cell().set(Arc::clone(&ctx));
        let table = task_row(&row.vm().lua, shown, &ctx);
        let table = table.map_err(|error| row.vm().explain(Hook::Drain, &Fault::Lua(error)))?;
        let read = |_: &Lua, values: MultiValue| convert::drained(&values);
        let (result, _) = self.call(Hook::Drain, &ctx, function, (table, &row.refs().ctx), read);
        row.cell().release();
        result.map_err(|fault| row.vm().explain(Hook::Drain, &fault))
    }

    /// `stop`: an exit code ends the policy.
    ///
    /// # Errors
    /// The function failed.
    pub fn stop(&mut self, ctx: Arc<Ctx>) -> Result<Option<i32>, ScriptError> {
        let row = Arc::clone(&self.row);
        let Some(function) = &row.refs().functions.stop else { return Ok(None) };
        row.cell().set(Arc::clone(&ctx));
        let answer = self.ask(Hook::Stop, &ctx, function, |_, values| convert::exit_code(&values));
        row.cell().release();
        answer
    }
}
