//! `ctx`: what a script sees of its policy, and `ctx.workload`, through which it asks for tasks.
//!
//! One object for each policy, made once: a tick swaps the [`Ctx`] behind it, and fields are looked up when they are
//! read, so a tick that reads two of them costs two of them. `ctx.history` and `ctx.tasks` are built when first read in
//! a call. Everything is read-only but for `ctx.state`; asking for tasks only records an [`Intent`].

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mlua::{AnyUserData, Lua, MetaMethod, Table, UserData, UserDataMethods, Value};

use crate::core::intent::Intent;
use crate::core::model::{Sample, TaskId, TaskStats};
use crate::core::policy::TaskTemplate;

use super::call::CallScope;
use super::convert::{describe, did_you_mean, quote, whole};
use super::error::Raised;
use super::params::Params;
use super::stdlib::{RowMetas, seconds};
use super::task_table::launch_options;
use super::{Ctx, Hook, Simulated, TaskView};

/// Fields of `ctx`, in the order of the documentation.
pub(super) const CTX_KEYS: &[&str] = &[
    "now",
    "tick",
    "policy",
    "params",
    "sample",
    "sample_kind",
    "setpoint",
    "deviation",
    "history",
    "tasks",
    "running",
    "in_flight",
    "desired",
    "min",
    "max",
    "state",
    "workload",
    "trace",
    "plant",
];

/// Fields of one of `ctx.tasks`.
pub(super) const TASK_KEYS: &[&str] = &[
    "id",
    "state",
    "ready",
    "helper",
    "host",
    "ports",
    "pid",
    "container",
    "uuid",
    "started",
    "age",
    "cpu",
    "memory",
    "memory_limit",
    "network_received",
    "network_sent",
    "block_read",
    "block_written",
    "pids",
    "by",
];

/// Fields of one of `ctx.history`: `at` is in seconds of the loop's own clock, of which only differences mean anything.
pub(super) const POINT_KEYS: &[&str] = &["at", "value", "setpoint"];

/// Most tasks that one `launch` may ask for.
const MOST_AT_ONCE: u32 = 100_000;

/// Most requests of one call.
const MOST_INTENTS: usize = 1_000;

/// What lies behind a policy's `ctx`; swapped before each call.
#[derive(Debug, Default)]
pub(super) struct CtxCell {
    inner: Mutex<Inner>,
    template: OnceLock<Arc<TaskTemplate>>,
}

#[derive(Debug, Default)]
struct Inner {
    ctx: Option<Arc<Ctx>>,
    /// This tick's sample and setpoint, once they are known.
    fresh: Option<(Sample, Option<f64>)>,
    /// The made-up world, in a simulation.
    simulated: Option<Simulated>,
    plant: Option<Table>,
    history: Option<Table>,
    tasks: Option<Table>,
    state: Option<Table>,
    /// Whether a script ever got hold of the state table.
    touched: bool,
    workload: Option<AnyUserData>,
}

/// The object that scripts call `ctx`.
struct CtxObject(Arc<CtxCell>);

/// `ctx.workload`.
struct WorkloadObject(Arc<CtxCell>);

impl CtxCell {
    /// Makes the object for this cell. Only under the VM's turn.
    pub(super) fn object(self: &Arc<Self>, lua: &Lua) -> mlua::Result<AnyUserData> {
        let workload = lua.create_userdata(WorkloadObject(Arc::clone(self)))?;
        self.lock().workload = Some(workload);
        lua.create_userdata(CtxObject(Arc::clone(self)))
    }

    /// What `ctx.workload:launch(n)` starts.
    pub(super) fn set_template(&self, template: &TaskTemplate) {
        self.template.get_or_init(|| Arc::new(template.clone()));
    }

    /// Puts a tick's context behind the object.
    pub(super) fn set(&self, ctx: Arc<Ctx>) {
        let mut inner = self.lock();
        let old = (inner.ctx.replace(ctx), inner.history.take(), inner.tasks.take(), inner.plant.take());
        inner.fresh = None;
        drop(inner);
        // Letting go of Lua values may wait for the VM, so not under the lock.
        drop(old);
    }

    /// Lets go of the context (not of Lua values, see `set`). As long as it is held, its history is shared, and the
    /// loop would have to copy the whole of it to add a point.
    pub(super) fn release(&self) {
        let old = self.lock().ctx.take();
        drop(old);
    }

    /// Shows a made-up world from now on.
    pub(super) fn set_simulated(&self, world: Simulated) {
        self.lock().simulated = Some(world);
    }

    /// Shows this tick's sample and setpoint from now on.
    pub(super) fn set_fresh(&self, sample: Sample, setpoint: Option<f64>) {
        self.lock().fresh = Some((sample, setpoint));
    }

    /// The state table as it is, and whether a script ever had it.
    pub(super) fn state(&self) -> (Option<Table>, bool) {
        let inner = self.lock();
        (inner.state.clone(), inner.touched)
    }

    /// Replaces the state table.
    pub(super) fn set_state(&self, state: Option<Table>) {
        let old = std::mem::replace(&mut self.lock().state, state);
        drop(old);
    }

    /// Lets go of every Lua value: they would hold each other for as long as the VM lives.
    pub(super) fn clear(&self) {
        let old = std::mem::take(&mut *self.lock());
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ctx(&self) -> mlua::Result<Arc<Ctx>> {
        self.lock().ctx.clone().ok_or_else(|| Raised::wrong("ctx means nothing outside a policy's functions").into())
    }

    fn state_table(&self, lua: &Lua) -> mlua::Result<Table> {
        let known = {
            let mut inner = self.lock();
            inner.touched = true;
            inner.state.clone()
        };
        if let Some(table) = known {
            return Ok(table);
        }
        let table = lua.create_table()?;
        self.lock().state = Some(table.clone());
        Ok(table)
    }

    fn sample(&self, ctx: &Ctx) -> (Option<Sample>, Option<f64>) {
        match &self.lock().fresh {
            Some((sample, setpoint)) => (Some(sample.clone()), *setpoint),
            None => (ctx.sample.clone(), ctx.setpoint),
        }
    }

    fn field(&self, lua: &Lua, key: &str) -> mlua::Result<Value> {
        let ctx = self.ctx()?;
        let number = |number: f64| Ok(Value::Number(number));
        let optional = |number: Option<f64>| Ok(number.map_or(Value::Nil, Value::Number));
        match key {
            "now" => number(seconds(ctx.now)),
            "tick" => number(ctx.tick as f64),
            "policy" => Ok(Value::String(lua.create_string(ctx.policy.as_str())?)),
            "params" => match lua.app_data_ref::<Params>() {
                Some(params) => Ok(Value::Table(params.values(lua)?)),
                None => Ok(Value::Table(sealed_table(lua)?)),
            },
            "sample" => optional(self.sample(&ctx).0.as_ref().and_then(Sample::fresh)),
            "sample_kind" => match self.sample(&ctx).0 {
                Some(sample) => Ok(Value::String(lua.create_string(sample.kind())?)),
                None => Ok(Value::Nil),
            },
            "setpoint" => optional(self.sample(&ctx).1),
            "deviation" => {
                let (sample, setpoint) = self.sample(&ctx);
                optional(
                    sample.as_ref().and_then(Sample::fresh).zip(setpoint).map(|(value, setpoint)| setpoint - value),
                )
            }
            "history" => self.history(lua, &ctx),
            "tasks" => self.tasks(lua, &ctx),
            "running" => number(f64::from(ctx.running)),
            "in_flight" => number(f64::from(ctx.in_flight)),
            "desired" => number(f64::from(ctx.desired)),
            "min" => number(f64::from(ctx.bounds.min)),
            "max" => number(f64::from(ctx.bounds.max)),
            "state" => Ok(Value::Table(self.state_table(lua)?)),
            "workload" => Ok(self.lock().workload.clone().map_or(Value::Nil, Value::UserData)),
            // Only `simulate` has a trace and a plant.
            "trace" => optional(self.lock().simulated.map(|world| world.trace)),
            "plant" => self.plant(lua),
            other => {
                let hint = did_you_mean(other, CTX_KEYS.iter().copied());
                Err(Raised::wrong(format!("ctx has no `{}`{hint}", other.chars().take(60).collect::<String>())).into())
            }
        }
    }

    fn history(&self, lua: &Lua, ctx: &Ctx) -> mlua::Result<Value> {
        if let Some(table) = &self.lock().history {
            return Ok(Value::Table(table.clone()));
        }
        let meta = row_metas(lua, |metas| metas.point.clone())?;
        let list = lua.create_table_with_capacity(ctx.history.len(), 0)?;
        for point in ctx.history.iter() {
            let row = lua.create_table_with_capacity(0, 3)?;
            row.raw_set("at", point.at.as_millis() as f64 / 1000.0)?;
            row.raw_set("value", point.value)?;
            row.raw_set("setpoint", point.setpoint)?;
            list.raw_push(seal(row, &meta)?)?;
        }
        list.set_readonly(true);
        self.lock().history = Some(list.clone());
        Ok(Value::Table(list))
    }

    fn plant(&self, lua: &Lua) -> mlua::Result<Value> {
        let (made, world) = {
            let inner = self.lock();
            (inner.plant.clone(), inner.simulated)
        };
        if let Some(table) = made {
            return Ok(Value::Table(table));
        }
        let Some(world) = world else { return Ok(Value::Nil) };
        let table = lua.create_table_with_capacity(0, 3)?;
        table.raw_set("queue", world.queue)?;
        table.raw_set("served", world.served)?;
        table.raw_set("lost", world.lost)?;
        table.set_readonly(true);
        self.lock().plant = Some(table.clone());
        Ok(Value::Table(table))
    }

    fn tasks(&self, lua: &Lua, ctx: &Ctx) -> mlua::Result<Value> {
        if let Some(table) = &self.lock().tasks {
            return Ok(Value::Table(table.clone()));
        }
        let list = lua.create_table_with_capacity(ctx.tasks.len(), 0)?;
        for task in ctx.tasks.iter() {
            list.raw_push(task_row(lua, task, ctx)?)?;
        }
        list.set_readonly(true);
        self.lock().tasks = Some(list.clone());
        Ok(Value::Table(list))
    }

    fn launch(&self, lua: &Lua, n: &Value, options: &Value) -> mlua::Result<u32> {
        let scope = actuating(lua, "launch")?;
        let n = whole(n, "ctx.workload:launch", 0..=MOST_AT_ONCE).map_err(Raised::wrong)?;
        let (template, count) = match options {
            Value::Nil => (None, true),
            Value::Table(options) => {
                let base = self.template.get().map(Arc::as_ref).cloned().unwrap_or_default();
                launch_options(options, base).map_err(Raised::wrong)?
            }
            other => {
                let got = describe(other);
                return Err(
                    Raised::wrong(format!("ctx.workload:launch: expected a table of options, got {got}")).into()
                );
            }
        };
        record(&scope, Intent::Launch { n, template: template.map(Arc::new), count }, n > 0)?;
        Ok(n)
    }

    fn kill(&self, lua: &Lua, which: &Value) -> mlua::Result<u32> {
        let scope = actuating(lua, "kill")?;
        let ctx = self.ctx()?;
        if let Value::Integer(_) | Value::Number(_) = which {
            let n = whole(which, "ctx.workload:kill", 0..=u32::MAX).map_err(Raised::wrong)?;
            record(&scope, Intent::Kill { n }, n > 0)?;
            return Ok(n);
        }
        let tasks = task_ids(which, &ctx, "ctx.workload:kill").map_err(Raised::wrong)?;
        let n = tasks.len() as u32;
        record(&scope, Intent::KillTasks { tasks }, n > 0)?;
        Ok(n)
    }
}

impl UserData for CtxObject {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Index, |lua, this, key: Value| match &key {
            Value::String(key) => match key.to_str() {
                Ok(key) => this.0.field(lua, &key),
                Err(_) => Err(Raised::wrong("ctx has no such field").into()),
            },
            other => Err(Raised::wrong(format!("ctx has no {}", describe(other))).into()),
        });
        methods.add_meta_method(MetaMethod::NewIndex, |_, _, (key, _): (Value, Value)| -> mlua::Result<()> {
            let key = describe(&key);
            Err(Raised::wrong(format!("ctx is read-only, {key} cannot be set; keep values of your own in ctx.state"))
                .into())
        });
        methods.add_meta_method(MetaMethod::ToString, |_, _, ()| Ok("ctx"));
    }
}

impl UserData for WorkloadObject {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("launch", |lua, this, (n, options): (Value, Value)| this.0.launch(lua, &n, &options));
        methods.add_method("kill", |lua, this, which: Value| this.0.kill(lua, &which));
        methods.add_meta_method(MetaMethod::Index, |_, _, key: Value| -> mlua::Result<()> {
            let (name, hint) = match &key {
                Value::String(key) => {
                    let key = key.to_string_lossy();
                    let hint = did_you_mean(&key, ["launch", "kill"]);
                    (quote(&key), hint)
                }
                other => (describe(other), String::new()),
            };
            Err(Raised::wrong(format!("ctx.workload has no {name}, only `launch` and `kill`{hint}")).into())
        });
        methods.add_meta_method(MetaMethod::NewIndex, |_, _, _: (Value, Value)| -> mlua::Result<()> {
            Err(Raised::wrong("ctx.workload is read-only").into())
        });
        methods.add_meta_method(MetaMethod::ToString, |_, _, ()| Ok("ctx.workload"));
    }
}

/// The ids that a value names: a task, an id, or a list of those. Every one must be a task of this policy.
pub(super) fn task_ids(value: &Value, ctx: &Ctx, what: &str) -> Result<Vec<TaskId>, String> {
    if let Value::Table(table) = value
        && table.raw_get::<Value>("id").is_ok_and(|id| id.is_nil())
    {
        let length = table.raw_len();
        if length > ctx.tasks.len() {
            return Err(format!("{what}: expected at most {} tasks, got {length}", ctx.tasks.len()));
        }
        return (1..=length)
            .map(|index| table.raw_get::<Value>(index).map_err(|error| format!("{what}: {error}")))
            .map(|item| task_id(&item?, ctx, what))
            .collect();
    }
    task_id(value, ctx, what).map(|id| vec![id])
}

fn task_id(value: &Value, ctx: &Ctx, what: &str) -> Result<TaskId, String> {
    let named = match value {
        Value::String(id) => id.to_string_lossy(),
        Value::Table(task) => match task.raw_get::<Value>("id") {
            Ok(Value::String(id)) => id.to_string_lossy(),
            _ => return Err(format!("{what}: expected a task of ctx.tasks or its id, got a table without `id`")),
        },
        other => {
            return Err(format!("{what}: expected a number, a task, an id or a list of them, got {}", describe(other)));
        }
    };
    match ctx.tasks.iter().find(|task| task.id.as_str() == named) {
        Some(task) => Ok(task.id.clone()),
        None => Err(format!("{what}: this policy has no task {}", quote(&named))),
    }
}

/// One task as a table.
pub(super) fn task_row(lua: &Lua, task: &TaskView, ctx: &Ctx) -> mlua::Result<Table> {
    let meta = row_metas(lua, |metas| metas.task.clone())?;
    let row = lua.create_table_with_capacity(0, TASK_KEYS.len())?;
    row.raw_set("id", task.id.as_str())?;
    row.raw_set("state", task.state.as_str())?;
    row.raw_set("ready", task.ready)?;
    row.raw_set("helper", task.helper)?;
    row.raw_set("host", task.placement.host.as_deref())?;
    let ports = lua.create_table_with_capacity(0, task.placement.ports.len())?;
    for (name, port) in &task.placement.ports {
        ports.raw_set(name.as_str(), *port)?;
    }
    ports.set_readonly(true);
    row.raw_set("ports", ports)?;
    row.raw_set("pid", task.placement.pid)?;
    row.raw_set("container", task.placement.container.as_deref())?;
    row.raw_set("uuid", task.id.uuid())?;
    row.raw_set("started", seconds(task.started))?;
    row.raw_set("age", (seconds(ctx.now) - seconds(task.started)).max(0.0))?;
    row.raw_set("cpu", task.stats.cpu_percent)?;
    set_figures(&row, "memory", &task.stats)?;
    row.raw_set("by", task.by)?;
    seal(row, &meta)
}

/// Puts into a row what something uses, all but its share of CPU; what is not known is nil. Scripts call the memory in
/// use by different names.
pub(super) fn set_figures(row: &Table, memory: &str, stats: &TaskStats) -> mlua::Result<()> {
    let figures = [
        (memory, stats.memory_bytes),
        ("memory_limit", stats.memory_limit),
        ("network_received", stats.network_received),
        ("network_sent", stats.network_sent),
        ("block_read", stats.block_read),
        ("block_written", stats.block_written),
        ("pids", stats.pids),
    ];
    for (key, figure) in figures {
        row.raw_set(key, figure.map(|figure| figure as f64))?;
    }
    Ok(())
}

fn seal(row: Table, meta: &Table) -> mlua::Result<Table> {
    row.set_metatable(Some(meta.clone()))?;
    row.set_readonly(true);
    Ok(row)
}

fn sealed_table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set_readonly(true);
    Ok(table)
}

fn row_metas<R>(lua: &Lua, pick: impl FnOnce(&RowMetas) -> R) -> mlua::Result<R> {
    let metas = lua.app_data_ref::<RowMetas>();
    metas.map(|metas| pick(&metas)).ok_or_else(|| mlua::Error::runtime("invariant: a VM has its row metatables"))
}

/// The scope of a call that may ask for tasks.
fn actuating(lua: &Lua, method: &str) -> mlua::Result<Arc<CallScope>> {
    let scope = CallScope::current(lua)?;
    if matches!(scope.hook, Hook::Warmer | Hook::Cooler) {
        return Ok(scope);
    }
    Err(Raised::refused(format!(
        "ctx.workload:{method} is allowed in warmer and cooler, not in {}",
        scope.hook.as_str()
    ))
    .into())
}

fn record(scope: &CallScope, intent: Intent, something: bool) -> mlua::Result<()> {
    if !something {
        return Ok(());
    }
    let mut intents = scope.intents.lock().unwrap_or_else(PoisonError::into_inner);
    if intents.len() >= MOST_INTENTS {
        return Err(Raised::wrong(format!("expected at most {MOST_INTENTS} requests in one call, got more")).into());
    }
    intents.push(intent);
    Ok(())
}
