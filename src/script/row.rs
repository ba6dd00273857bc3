//! One policy's calls: arguments in, plain data out, `ctx.state` looked after.
//!
//! Invariants: calls of one policy never overlap; an error is never a number; what was asked for before an error has
//! been asked for; a state that cannot be kept leaves what was kept before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mlua::{AnyUserData, Function, Lua, MultiValue, Table, Thread, Value};

use crate::core::model::{PolicyName, Sample, TaskId};
use crate::core::policy::{PolicySpec, Target};

use super::call::CallScope;
use super::convert;
use super::ctx::{CtxCell, task_ids, task_row};
use super::error::{ScriptError, ScriptErrorKind};
use super::fault::Fault;
use super::fleet::Allowance;
use super::held::Held;
use super::state;
use super::table::Functions;
use super::vm::{Done, Job, Vm};
use super::{Acted, Ctx, Hook, Mode, Observed};

/// Wall time of `migrate`, which no tick waits for.
const MIGRATE_WALL: Duration = Duration::from_secs(10);

/// What a policy needs for its calls.
pub(super) struct Row {
    refs: Held<Refs>,
    cell: Arc<CtxCell>,
    spec: Arc<PolicySpec>,
    name: PolicyName,
    /// Calls of one policy never overlap.
    one: tokio::sync::Mutex<()>,
    saved: Mutex<Saved>,
    allowance: Option<Arc<Allowance>>,
    share: Mutex<Duration>,
}

/// The Lua values of a policy.
pub(super) struct Refs {
    thread: Thread,
    pub(super) ctx: AnyUserData,
    pub(super) functions: Functions,
    cell: Arc<CtxCell>,
}

impl Drop for Refs {
    fn drop(&mut self) {
        self.cell.clear();
    }
}

/// `ctx.state` as it was last seen to be sound.
#[derive(Debug, Default)]
struct Saved {
    json: Option<String>,
    changed: bool,
}

/// What a call is about.
pub(super) struct Visit {
    pub(super) hook: Hook,
    pub(super) mode: Mode,
    pub(super) ctx: Arc<Ctx>,
    pub(super) deadline: tokio::time::Instant,
}

impl Row {
    /// Makes a policy of a checked table. Only under the VM's turn.
    pub(super) fn new(
        vm: &Arc<Vm>,
        name: PolicyName,
        spec: Arc<PolicySpec>,
        functions: Functions,
        allowance: Option<Arc<Allowance>>,
    ) -> mlua::Result<Self> {
        let cell = Arc::new(CtxCell::default());
        cell.set_template(&spec.workload.template);
        let (thread, ctx) = (vm.new_thread()?, cell.object(&vm.lua)?);
        let refs = Held::new(Arc::clone(vm), Refs { thread, ctx, functions, cell: Arc::clone(&cell) });
        let (one, saved, share) = (tokio::sync::Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { refs, cell, spec, name, one, saved, allowance, share })
    }

    /// `ctx.state` as JSON, when it changed since this was last asked.
    pub(super) fn take_changed_state(&self) -> Option<String> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut saved.changed) {
            return None;
        }
        Some(saved.json.clone().unwrap_or_else(|| "{}".to_owned()))
    }

    /// `ctx.state` as JSON.
    pub(super) fn state(&self) -> Option<String> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).json.clone()
    }

    /// The VM that the policy lives in.
    pub(super) fn vm(&self) -> &Arc<Vm> {
        self.refs.vm()
    }

    pub(super) fn cell(&self) -> &CtxCell {
        &self.cell
    }

    pub(super) fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    pub(super) fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Looks whether `ctx.state` could be kept, without keeping it.
    pub(super) fn check_state(&self, hook: Hook) -> Option<ScriptError> {
        let (Some(table), true) = self.cell.state() else { return None };
        let made = state::to_json("ctx.state", &Value::Table(table), self.vm().limits().state);
        made.err().map(|message| self.vm().error(hook, ScriptErrorKind::Type, message))
    }

    pub(super) fn refs(&self) -> &Refs {
        self.refs.get()
    }

    /// Waits until no other call of this policy runs. A call before this one is bounded, but may outlast the deadline.
    async fn alone(
        &self,
        hook: Hook,
        deadline: tokio::time::Instant,
    ) -> Result<tokio::sync::MutexGuard<'_, ()>, ScriptError> {
        let waited = tokio::time::timeout_at(deadline, self.one.lock()).await;
        waited.map_err(|_| {
            self.vm().error(
                hook,
                ScriptErrorKind::Deadline,
                "expected the call before this one to be over by the deadline",
            )
        })
    }

    /// One call, from arguments to plain data.
    async fn call<R>(
        &self,
        visit: &Visit,
        function: &Function,
        arguments: impl FnOnce(&Lua) -> mlua::Result<MultiValue>,
        finish: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
    ) -> (Result<R, Fault>, Arc<CallScope>, Duration) {
        let mut scope =
            self.vm().scope(visit.ctx.policy.clone(), visit.hook, visit.mode, visit.ctx.now, Duration::ZERO);
        scope.deadline = visit.deadline;
        let scope = Arc::new(scope);
        let cpu = self.vm().limits().cpu;
        let job = Job { thread: &self.refs().thread, function, scope: Arc::clone(&scope), cpu, tick: visit.ctx.tick };
        let Done { result, cpu } = self.vm().call(job, arguments, finish).await;
        (result, scope, cpu)
    }

    fn with_ctx(&self) -> impl FnOnce(&Lua) -> mlua::Result<MultiValue> + use<> {
        let ctx = self.refs().ctx.clone();
        move |_| Ok(MultiValue::from_vec(vec![Value::UserData(ctx)]))
    }

    /// Refuses a call when the fleet's rows have used up their time and this row is one of those that did.
    fn admit(&self, hook: Hook) -> Result<(), ScriptError> {
        let Some(allowance) = &self.allowance else { return Ok(()) };
        let used = *self.share.lock().unwrap_or_else(PoisonError::into_inner);
        if allowance.admits(self.spec.interval.min, used) {
            return Ok(());
        }
        let message = "the fleet's policies have used half of the interval as CPU time, this one more than its share";
        Err(self.vm().error(hook, ScriptErrorKind::Cpu, message))
    }

    fn account(&self, cpu: Duration) {
        if let Some(allowance) = &self.allowance {
            allowance.add(self.spec.interval.min, cpu);
            *self.share.lock().unwrap_or_else(PoisonError::into_inner) = cpu;
        }
    }

    pub(super) async fn observe(&self, ctx: Arc<Ctx>, deadline: tokio::time::Instant) -> Observed {
        let mut seen = Observed {
            sample: Sample::Missing,
            setpoint: match self.spec.hooks.target {
                Target::Number(number) => Some(number),
                Target::Absent | Target::Function => None,
            },
            count: None,
            scripted: None,
            errors: Vec::new(),
            cpu: Duration::ZERO,
        };
        let admitted = match self.admit(Hook::Metric) {
            Ok(()) => self.alone(Hook::Metric, deadline).await,
            Err(error) => Err(error),
        };
        let _alone = match admitted {
            Ok(alone) => alone,
            Err(error) => {
                fail(&mut seen, error);
                return seen;
            }
        };
        self.cell.set(Arc::clone(&ctx));
        let mut visit = Visit { hook: Hook::Metric, mode: Mode::Record, ctx, deadline };
        self.observe_hooks(&mut visit, &mut seen).await;
        seen.errors.extend(self.keep_state(&visit).await);
        self.cell.release();
        self.account(seen.cpu);
        seen
    }

    async fn observe_hooks(&self, visit: &mut Visit, seen: &mut Observed) {
        let functions = &self.refs().functions;
        let control = &self.spec.control;
        let stale_after = control.stale_after.unwrap_or(self.spec.interval.min * 3);
        // The number comes first: `ctx.running` in the other functions is what it gives.
        let mut uncounted = None;
        if let Some(count) = &functions.count {
            let read = |_: &Lua, values: MultiValue| {
                convert::whole(values.front().unwrap_or(&Value::Nil), "count returned", 0..=u32::MAX)
            };
            match self.ask(visit, Hook::Count, count, read, &mut seen.cpu).await {
                Ok(count) => {
                    seen.count = Some(count);
                    visit.ctx = Arc::new(Ctx { running: count, ..(*visit.ctx).clone() });
                    self.cell.set(Arc::clone(&visit.ctx));
                }
                Err(error) => uncounted = Some(error),
            }
        }
        if let Some(metric) = &functions.metric {
            let read = move |_: &Lua, values| convert::sample(&values, stale_after);
            match self.ask(visit, Hook::Metric, metric, read, &mut seen.cpu).await {
                Ok(sample) => seen.sample = sample,
                Err(error) => fail(seen, error),
            }
        }
        if let Some(error) = uncounted {
            fail(seen, error);
        }
        if let Some(target) = &functions.target {
            self.cell.set_fresh(seen.sample.clone(), None);
            let read =
                |_: &Lua, values: MultiValue| convert::finite(values.front().unwrap_or(&Value::Nil), "target returned");
            match self.ask(visit, Hook::Target, target, read, &mut seen.cpu).await {
                Ok(setpoint) => seen.setpoint = Some(setpoint),
                Err(error) => fail(seen, error),
            }
        }
        if let Some(decide) = &functions.decide {
            self.cell.set_fresh(seen.sample.clone(), seen.setpoint);
            let read = |_: &Lua, values| convert::scripted(&values);
            match self.ask(visit, Hook::Decide, decide, read, &mut seen.cpu).await {
                Ok(scripted) => seen.scripted = Some(scripted),
                Err(error) => seen.errors.push(error),
            }
        }
    }

    /// One function of an observation.
    async fn ask<R>(
        &self,
        visit: &mut Visit,
        hook: Hook,
        function: &Function,
        read: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
        cpu: &mut Duration,
    ) -> Result<R, ScriptError> {
        visit.hook = hook;
        let (result, _, used) = self.call(visit, function, self.with_ctx(), read).await;
        *cpu += used;
        result.map_err(|fault| self.vm().explain(hook, &fault))
    }

    pub(super) async fn act(&self, visit: Visit, n: u32) -> Acted {
        let mut acted =
            Acted { intents: Vec::new(), accepted: None, recorded: Vec::new(), error: None, cpu: Duration::ZERO };
        let hook = visit.hook;
        let functions = &self.refs().functions;
        let function = match hook {
            Hook::Warmer => functions.warmer.as_ref(),
            Hook::Cooler => functions.cooler.as_ref(),
            _ => None,
        };
        let Some(function) = function else {
            let message = format!("the policy has no function {}", hook.as_str());
            acted.error = Some(self.vm().error(hook, ScriptErrorKind::Shape, message));
            return acted;
        };
        let _alone = match self.alone(hook, visit.deadline).await {
            Ok(alone) => alone,
            Err(error) => {
                acted.error = Some(error);
                return acted;
            }
        };
        self.cell.set(Arc::clone(&visit.ctx));
        let ctx = self.refs().ctx.clone();
        let arguments = move |_: &Lua| Ok(MultiValue::from_vec(vec![Value::Number(n.into()), Value::UserData(ctx)]));
        let read = |_: &Lua, values| convert::accepted(&values, hook.as_str());
        let (result, scope, cpu) = self.call(&visit, function, arguments, read).await;
        // What was asked for before an error has been asked for.
        acted.intents = std::mem::take(&mut *scope.intents.lock().unwrap_or_else(PoisonError::into_inner));
        acted.recorded = std::mem::take(&mut *scope.recorded.lock().unwrap_or_else(PoisonError::into_inner));
        acted.cpu = cpu;
        match result {
            Ok(accepted) => acted.accepted = accepted,
            Err(fault) => acted.error = Some(self.vm().explain(hook, &fault)),
        }
        let kept = self.keep_state(&visit).await;
        acted.error = acted.error.or(kept);
        self.account(cpu);
        acted
    }

    pub(super) async fn victims(&self, visit: Visit, n: u32) -> Result<Vec<TaskId>, ScriptError> {
        let Some(function) = &self.refs().functions.victims else { return Ok(Vec::new()) };
        let _alone = self.alone(visit.hook, visit.deadline).await?;
        self.cell.set(Arc::clone(&visit.ctx));
        let (object, ctx) = (self.refs().ctx.clone(), Arc::clone(&visit.ctx));
        let arguments = move |lua: &Lua| {
            let tasks = lua.create_table_with_capacity(ctx.tasks.len(), 0)?;
            for task in ctx.tasks.iter() {
                tasks.raw_push(task_row(lua, task, &ctx)?)?;
            }
            Ok(MultiValue::from_vec(vec![Value::Table(tasks), Value::Number(n.into()), Value::UserData(object)]))
        };
        let ctx = Arc::clone(&visit.ctx);
        let read = move |_: &Lua, values: MultiValue| {
            task_ids(values.front().unwrap_or(&Value::Nil), &ctx, "victims returned")
        };
        self.finish(&visit, function, arguments, read).await
    }

    pub(super) async fn drain(&self, visit: Visit, task: TaskId) -> Result<bool, ScriptError> {
        let Some(function) = &self.refs().functions.drain else { return Ok(true) };
        let Some(at) = visit.ctx.tasks.iter().position(|other| other.id == task) else { return Ok(true) };
        let _alone = self.alone(visit.hook, visit.deadline).await?;
        self.cell.set(Arc::clone(&visit.ctx));
        let (object, ctx) = (self.refs().ctx.clone(), Arc::clone(&visit.ctx));
        let arguments = move |lua: &Lua| {
            let row = task_row(lua, &ctx.tasks[at], &ctx)?;
            Ok(MultiValue::from_vec(vec![Value::Table(row), Value::UserData(object)]))
        };
        self.finish(&visit, function, arguments, |_, values| convert::drained(&values)).await
    }

    pub(super) async fn stop(&self, visit: Visit) -> Result<Option<i32>, ScriptError> {
        let Some(function) = &self.refs().functions.stop else { return Ok(None) };
        let _alone = self.alone(visit.hook, visit.deadline).await?;
        self.cell.set(Arc::clone(&visit.ctx));
        self.finish(&visit, function, self.with_ctx(), |_, values| convert::exit_code(&values)).await
    }

    /// A call with one answer, and the state after it.
    async fn finish<R>(
        &self,
        visit: &Visit,
        function: &Function,
        arguments: impl FnOnce(&Lua) -> mlua::Result<MultiValue>,
        read: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
    ) -> Result<R, ScriptError> {
        let (result, _, cpu) = self.call(visit, function, arguments, read).await;
        self.account(cpu);
        let kept = self.keep_state(visit).await;
        let answer = result.map_err(|fault| self.vm().explain(visit.hook, &fault))?;
        kept.map_or(Ok(answer), Err)
    }

    pub(super) async fn restore(&self, json: Option<String>, migrate: bool) -> Result<(), ScriptError> {
        let vm = self.vm();
        let deadline = tokio::time::Instant::now() + MIGRATE_WALL;
        let _alone = self.alone(Hook::Migrate, deadline).await?;
        let Some(json) = json else {
            vm.in_turn(|_| self.cell.set_state(None)).await;
            *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Saved::default();
            return Ok(());
        };
        let parsed: serde_json::Value = serde_json::from_str(&json).map_err(|error| {
            vm.error(Hook::Migrate, ScriptErrorKind::Type, format!("the stored ctx.state is no JSON: {error}"))
        })?;
        let wrong = |message: String| vm.error(Hook::Migrate, ScriptErrorKind::Type, message);
        let migration = self.refs().functions.migrate.as_ref().filter(|_| migrate);
        let (table, json) = match migration {
            None => {
                let made = vm.in_turn(|lua| table_of(lua, &parsed)).await;
                (made.map_err(|error| wrong(format!("the stored ctx.state does not fit: {error}")))?, json)
            }
            Some(function) => self.migrate(function, parsed, deadline).await?,
        };
        let changed = migration.is_some();
        vm.in_turn(|_| self.cell.set_state(Some(table))).await;
        let json = Some(json).filter(|json| json != "{}");
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Saved { json, changed };
        Ok(())
    }

    /// Calls `migrate(old)`; gives the new state as a table and as JSON.
    async fn migrate(
        &self,
        function: &Function,
        old: serde_json::Value,
        deadline: tokio::time::Instant,
    ) -> Result<(Table, String), ScriptError> {
        let vm = self.vm();
        let mut scope = vm.scope(self.name.clone(), Hook::Migrate, Mode::Record, SystemTime::now(), MIGRATE_WALL);
        scope.deadline = deadline;
        let limits = vm.limits();
        let job = Job { thread: &self.refs().thread, function, scope: Arc::new(scope), cpu: limits.cpu, tick: 0 };
        let arguments = move |lua: &Lua| Ok(MultiValue::from_vec(vec![Value::Table(table_of(lua, &old)?)]));
        let limit = limits.state;
        let read = move |lua: &Lua, values: MultiValue| {
            let table = match values.into_iter().next() {
                Some(Value::Table(table)) => table,
                None | Some(Value::Nil) => lua.create_table().map_err(|error| error.to_string())?,
                Some(other) => {
                    return Err(format!("migrate returned: expected a table, got {}", convert::describe(&other)));
                }
            };
            let json = state::to_json("ctx.state", &Value::Table(table.clone()), limit)?;
            Ok((table, json.to_string()))
        };
        let Done { result, .. } = vm.call(job, arguments, read).await;
        result.map_err(|fault| vm.explain(Hook::Migrate, &fault))
    }

    /// Looks whether the call changed `ctx.state`. A state that cannot be kept is told; what was kept stays.
    async fn keep_state(&self, visit: &Visit) -> Option<ScriptError> {
        let (Some(table), true) = self.cell.state() else { return None };
        let vm = self.vm();
        let limit = vm.limits().state;
        let json = vm
            .in_turn(move |_| {
                let json = if state::is_empty(&table) {
                    Ok(None)
                } else {
                    state::to_json("ctx.state", &Value::Table(table.clone()), limit).map(|json| Some(json.to_string()))
                };
                drop(table);
                json
            })
            .await;
        match json {
            Ok(json) => {
                let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
                if saved.json != json {
                    saved.json = json;
                    saved.changed = true;
                }
                None
            }
            Err(message) => Some(vm.error(visit.hook, ScriptErrorKind::Type, message)),
        }
    }
}

fn table_of(lua: &Lua, json: &serde_json::Value) -> mlua::Result<Table> {
    match state::to_lua(lua, json)? {
        Value::Table(table) => Ok(table),
        _ => lua.create_table(),
    }
}

/// A failed metric, target or count is a failed sample.
pub(super) fn fail(seen: &mut Observed, error: ScriptError) {
    if !matches!(seen.sample, Sample::Error { .. }) {
        seen.sample = Sample::Error { message: error.headline().into() };
    }
    seen.errors.push(error);
}
