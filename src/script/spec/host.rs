//! The host functions behind `spec.lua`, and what a spec leaves in the host while it runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use mlua::{Lua, MultiValue, Table, Value};

use crate::core::model::{Sample, TaskId};

use super::super::api;
use super::super::convert::{self, describe, finite, known_keys, whole};
use super::super::error::Raised;
use super::super::fault::text_of;
use super::super::params::Params;
use super::super::stdlib::unknown;
use super::super::vm::Vm;
use super::super::{Given, ScriptError, TaskView};
use super::golden::Goldens;
use super::load::{Loaded, Main, Refusal, duration, load};
use super::{Figures, Stage, Subject, Ticked};

/// Most rows of a timeline that are kept.
const ROWS: usize = 100_000;

/// Longest time between two ticks.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

const FIGURES: &[&str] =
    &["container", "cpu", "host", "memory", "memory_limit", "network_received", "network_sent", "pid", "pids", "ports"];

/// A policy under test, and its tasks as they were before the tick that it is in.
struct Entry {
    tested: Mutex<Tested>,
    shown: Mutex<(Vec<TaskView>, Duration)>,
}

/// A policy under test.
struct Tested {
    subject: Box<dyn Subject>,
    name: String,
    /// Its parameters while it is not being called.
    params: Option<Params>,
    stale_after: Duration,
    rows: Vec<Row>,
}

/// A tick in one line.
struct Row {
    time: String,
    text: String,
}

/// What a spec has in the host. Never locked while Lua runs.
pub(super) struct State {
    vm: Weak<Vm>,
    /// The policy that the spec belongs to.
    own: String,
    stage: Arc<dyn Stage>,
    backends: Vec<String>,
    coverage: bool,
    policies: BTreeMap<u64, Arc<Entry>>,
    next: u64,
    mains: Vec<Main>,
    hits: BTreeMap<String, BTreeMap<u32, bool>>,
    note: Option<String>,
    detail: Option<String>,
    pub(super) goldens: Goldens,
}

/// A handle on it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn new(
        vm: &Arc<Vm>,
        own: String,
        stage: Arc<dyn Stage>,
        backends: Vec<String>,
        coverage: bool,
        goldens: Goldens,
    ) -> Self {
        Self(Arc::new(Mutex::new(State {
            vm: Arc::downgrade(vm),
            own,
            stage,
            backends,
            coverage,
            policies: BTreeMap::new(),
            next: 1,
            mains: Vec::new(),
            hits: BTreeMap::new(),
            note: None,
            detail: None,
            goldens,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next policy, to go back to with `forget`.
    pub(super) fn mark(&self) -> u64 {
        self.lock().next
    }

    /// Lets go of the policies since a mark, and of what was said about them.
    pub(super) fn forget(&self, mark: u64) {
        let mut state = self.lock();
        let gone = state.policies.split_off(&mark);
        let mains = std::mem::take(&mut state.mains);
        (state.note, state.detail) = (None, None);
        drop(state);
        // Outside of the lock: these let go of Lua values.
        drop(gone);
        let mut hits = BTreeMap::new();
        for (chunk, main) in &mains {
            let lines: &mut BTreeMap<u32, bool> = hits.entry(chunk.clone()).or_default();
            main.coverage(|info| {
                for (line, hits) in info.hits.iter().enumerate().filter(|(_, hits)| 0 <= **hits) {
                    *lines.entry(line as u32).or_default() |= 0 < *hits;
                }
            });
        }
        let mut state = self.lock();
        for (chunk, lines) in hits {
            let known = state.hits.entry(chunk).or_default();
            for (line, hit) in lines {
                *known.entry(line).or_default() |= hit;
            }
        }
    }

    /// The lines of each policy's file that can run, and whether they did.
    pub(super) fn take_hits(&self) -> BTreeMap<String, BTreeMap<u32, bool>> {
        std::mem::take(&mut self.lock().hits)
    }

    /// The note and the details of a failure.
    pub(super) fn told(&self) -> (Option<String>, Option<String>) {
        let state = self.lock();
        (state.note.clone(), state.detail.clone())
    }

    /// The timelines of the policies that are there.
    pub(super) fn timelines(&self) -> Vec<(String, Vec<String>)> {
        let policies: Vec<_> = self.lock().policies.values().cloned().collect();
        let told = |policy: &Arc<Entry>| {
            let policy = policy.tested.lock().unwrap_or_else(PoisonError::into_inner);
            (policy.name.clone(), lines(&policy.rows))
        };
        policies.iter().map(told).filter(|(_, rows)| !rows.is_empty()).collect()
    }

    fn entry(&self, number: u64) -> mlua::Result<Arc<Entry>> {
        let entry = self.lock().policies.get(&number).cloned();
        entry.ok_or_else(|| {
            Raised::wrong("this policy is gone: it was loaded in another case, or in an earlier run of for_all").into()
        })
    }

    /// A policy's tasks and its time: as they were when its tick began, while it is in one.
    fn tasks(&self, number: u64) -> mlua::Result<(Vec<TaskView>, Duration)> {
        let entry = self.entry(number)?;
        match entry.tested.try_lock() {
            Ok(policy) => Ok((policy.subject.tasks(), policy.subject.now())),
            Err(_) => Ok(entry.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    /// Does something with a policy, which must not be in the middle of a tick.
    fn with<R>(&self, number: u64, work: impl FnOnce(&mut Tested) -> mlua::Result<R>) -> mlua::Result<R> {
        let entry = self.entry(number)?;
        match entry.tested.try_lock() {
            Ok(mut policy) => work(&mut policy),
            Err(TryLockError::Poisoned(poisoned)) => work(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(Raised::wrong("this policy is in the middle of a tick; fakes may ask for its tasks only").into())
            }
        }
    }
}

/// The functions that `spec.lua` gets.
pub(super) fn functions(lua: &Lua, shared: &Shared, seed: u64) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    let modules: Vec<&str> = api::modules().iter().map(|module| module.name).chain([api::host::NAME]).collect();
    host.raw_set("modules", modules)?;
    host.raw_set("seed", seed as f64)?;
    host.raw_set(
        "unknown",
        lua.create_function(|_, (what, key, names): (String, Value, Vec<String>)| Ok(unknown(&what, &key, &names)))?,
    )?;
    host.raw_set("error_text", lua.create_function(|_, problem: Value| Ok(error_text(&problem)))?)?;
    host.raw_set(
        "milliseconds",
        lua.create_function(|_, value: Value| {
            let given = duration(&value, "policy:advance")?;
            let given = given.ok_or_else(|| Raised::wrong("policy:advance: expected a duration, got nil"))?;
            Ok(given.min(LONGEST).as_millis() as f64)
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "fail",
        lua.create_function(move |_, message: String| -> mlua::Result<()> {
            let mut state = state.lock();
            // What is longer would be cut.
            if 250 < message.chars().count() && state.detail.is_none() {
                state.detail = Some(message.clone());
            }
            Err(Raised::wrong(message).into())
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "note",
        lua.create_function(move |_, text: String| {
            state.lock().note = Some(text);
            Ok(())
        })?,
    )?;
    let state = shared.clone();
    host.raw_set("mark", lua.create_function(move |_, ()| Ok(state.mark() as f64))?)?;
    let state = shared.clone();
    host.raw_set(
        "forget",
        lua.create_function(move |_, mark: f64| {
            state.forget(mark as u64);
            Ok(())
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "golden",
        lua.create_function(move |_, (name, text): (String, String)| {
            if name.trim() != name || name.is_empty() || name.contains('\n') {
                return Err(Raised::wrong("to_match_golden: expected a name in one line").into());
            }
            let mut state = state.lock();
            let Some(difference) = state.goldens.compare(&name, &text) else { return Ok((None, None)) };
            state.detail = difference.detail;
            Ok((Some(difference.expected), Some(difference.got)))
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "load_policy",
        lua.create_function(move |_, (options, fakes): (Table, Table)| load_policy(&state, &options, fakes))?,
    )?;
    policies(lua, &host, shared)?;
    Ok(host)
}

/// The functions about a policy that has been loaded.
fn policies(lua: &Lua, host: &Table, shared: &Shared) -> mlua::Result<()> {
    let millis = |duration: Duration| duration.as_millis() as f64;
    let state = shared.clone();
    host.raw_set(
        "now",
        lua.create_function(move |_, number: u64| state.with(number, |policy| Ok(millis(policy.subject.now()))))?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "due",
        lua.create_function(move |_, number: u64| {
            state.with(number, |policy| Ok(policy.subject.due().map_or(f64::INFINITY, millis)))
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "ended",
        lua.create_function(move |_, number: u64| {
            state.with(number, |policy| Ok(policy.subject.ended().map(str::to_owned)))
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "go",
        lua.create_function(move |_, (number, by): (u64, Value)| {
            let by = duration(&by, "policy:tick: advance")?;
            state.with(number, |policy| {
                let now = policy.subject.now();
                let to = by.map_or_else(|| policy.subject.due().unwrap_or(now), |by| now + by.min(LONGEST));
                policy.subject.go(to);
                Ok(())
            })
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "go_to",
        lua.create_function(move |_, (number, to): (u64, f64)| {
            state.with(number, |policy| {
                policy.subject.go(Duration::from_millis(to as u64));
                Ok(())
            })
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "tasks",
        lua.create_function(move |lua, number: u64| {
            let (tasks, now) = state.tasks(number)?;
            let list = lua.create_table_with_capacity(tasks.len(), 0)?;
            for task in &tasks {
                list.raw_push(task_table(lua, task, now)?)?;
            }
            Ok(list)
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "finish",
        lua.create_function(move |_, (number, n, code): (u64, Value, Value)| {
            let n = whole(&n, "policy:finish", 0..=u32::MAX).map_err(Raised::wrong)?;
            let code = whole(&code, "policy:finish: the exit code", 0..=255).map_err(Raised::wrong)?;
            state.with(number, |policy| Ok(policy.subject.finish(n, code.cast_signed())))
        })?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "timeline",
        lua.create_function(move |_, number: u64| state.with(number, |policy| Ok(lines(&policy.rows).join("\n"))))?,
    )?;
    let state = shared.clone();
    host.raw_set(
        "tick",
        lua.create_function(move |lua, (number, options, figures): (u64, Table, Option<Table>)| {
            *state.entry(number)?.shown.lock().unwrap_or_else(PoisonError::into_inner) = state.tasks(number)?;
            let ticked = state.with(number, |policy| tick(lua, policy, &options, figures))?;
            decision_table(lua, &ticked)
        })?,
    )
}

fn load_policy(shared: &Shared, options: &Table, fakes: Table) -> mlua::Result<(f64, Table)> {
    let (vm, own, stage, backends, coverage) = {
        let state = shared.lock();
        let vm = state.vm.upgrade();
        (vm, state.own.clone(), Arc::clone(&state.stage), state.backends.clone(), state.coverage)
    };
    let only = "load_policy: expected to be called by a test, and a fake in a simulation is none";
    let vm = vm.ok_or_else(|| Raised::wrong(only))?;
    let mut mains = Vec::new();
    let loaded = load(&vm, &own, &backends, coverage, options, fakes, &mut mains);
    if coverage {
        shared.lock().mains.append(&mut mains);
    }
    let Loaded { opening, params, table } = match loaded {
        Ok(loaded) => loaded,
        Err(Refusal::Call(error)) => return Err(error),
        Err(Refusal::Policy(errors)) => {
            let reports: Vec<_> = errors.iter().map(ScriptError::report).collect();
            shared.lock().detail = Some(reports.join("\n"));
            let first = errors.first().map(ScriptError::headline).unwrap_or_default();
            return Err(Raised::wrong(format!("load_policy: {first}")).into());
        }
    };
    let (name, interval) = (opening.name.to_string(), opening.spec.interval.min);
    let stale_after = opening.spec.control.stale_after.unwrap_or(interval * 3);
    let subject = stage.open(opening);
    let tested = Tested { subject, name, params: Some(params), stale_after, rows: Vec::new() };
    let mut state = shared.lock();
    let number = state.next;
    state.next += 1;
    state.policies.insert(number, Arc::new(Entry { tested: Mutex::new(tested), shown: Mutex::default() }));
    Ok((number as f64, table))
}

fn tick(lua: &Lua, policy: &mut Tested, options: &Table, figures: Option<Table>) -> mlua::Result<Ticked> {
    if let Some(why) = policy.subject.ended() {
        return Err(Raised::wrong(format!("policy:tick: the policy has ended: {why}")).into());
    }
    let given = given(options, policy.stale_after)?;
    let shown = figures.map_or_else(|| Ok(BTreeMap::new()), |table| figures_of(&table))?;
    // The parameters are the VM's, so the policy's own take their place while it is called.
    let before = policy.params.take().and_then(|params| lua.set_app_data(params));
    let ticked = policy.subject.tick(given, shown);
    policy.params = match before {
        Some(before) => lua.set_app_data(before),
        None => lua.remove_app_data::<Params>(),
    };
    if policy.rows.len() < ROWS {
        policy.rows.push(row(&ticked));
    }
    Ok(ticked)
}

/// What the spec says instead of the policy's functions.
fn given(options: &Table, stale_after: Duration) -> mlua::Result<Given> {
    let mut given = Given::default();
    let (metric, age) = (options.raw_get::<Value>("metric")?, options.raw_get::<Value>("age")?);
    let age = match duration(&age, "policy:tick: age")? {
        Some(age) => Value::Number(age.as_secs_f64()),
        None => Value::Nil,
    };
    if !metric.is_nil() {
        let values = MultiValue::from_vec(vec![metric, age]);
        let sample = convert::sample(&values, stale_after);
        given.sample = Some(sample.unwrap_or_else(|message| Sample::Error { message: message.into() }));
    } else if !age.is_nil() {
        return Err(Raised::wrong("policy:tick: expected `metric` beside `age`").into());
    }
    if options.raw_get::<Option<bool>>("missing")?.unwrap_or(false) {
        given.sample = Some(Sample::Missing);
    }
    if let Some(message) = options.raw_get::<Option<String>>("error")? {
        given.sample = Some(Sample::Error { message: message.into() });
    }
    match options.raw_get::<Value>("target")? {
        Value::Nil => {}
        target => given.setpoint = Some(finite(&target, "policy:tick: target").map_err(Raised::wrong)?),
    }
    Ok(given)
}

/// What tasks show, by their ids.
fn figures_of(table: &Table) -> mlua::Result<BTreeMap<TaskId, Figures>> {
    let mut all = BTreeMap::new();
    for pair in table.pairs::<String, Value>() {
        let (id, shows) = pair?;
        let shows = match shows {
            Value::Nil => continue,
            Value::Table(shows) => shows,
            other => {
                let got = describe(&other);
                return Err(Raised::wrong(format!("task: expected a table of figures, got {got}")).into());
            }
        };
        known_keys(&shows, FIGURES, "task").map_err(Raised::wrong)?;
        let number = |key: &str| -> mlua::Result<Option<f64>> {
            match shows.raw_get::<Value>(key)? {
                Value::Nil => Ok(None),
                value => Ok(Some(finite(&value, &format!("task: {key}")).map_err(Raised::wrong)?)),
            }
        };
        let bytes = |key: &str| number(key).map(|figure| figure.map(|figure| figure as u64));
        let mut figures = Figures::default();
        figures.stats.cpu_percent = number("cpu")?;
        figures.stats.memory_bytes = bytes("memory")?;
        figures.stats.memory_limit = bytes("memory_limit")?;
        figures.stats.network_received = bytes("network_received")?;
        figures.stats.network_sent = bytes("network_sent")?;
        figures.stats.pids = bytes("pids")?;
        figures.placement.host = shows.raw_get("host")?;
        figures.placement.container = shows.raw_get("container")?;
        figures.placement.pid = shows.raw_get("pid")?;
        figures.placement.ports = shows.raw_get::<Option<BTreeMap<String, u16>>>("ports")?.unwrap_or_default();
        all.insert(TaskId::new(id), figures);
    }
    Ok(all)
}

fn task_table(lua: &Lua, task: &TaskView, now: Duration) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 10)?;
    table.raw_set("id", task.id.as_str())?;
    table.raw_set("uuid", task.id.uuid())?;
    table.raw_set("state", task.state.as_str())?;
    table.raw_set("ready", task.ready)?;
    table.raw_set("helper", task.helper)?;
    table.raw_set("by", task.by)?;
    table.raw_set("now", now.as_secs_f64())?;
    table.raw_set("host", task.placement.host.as_deref())?;
    table.raw_set("container", task.placement.container.as_deref())?;
    Ok(table)
}

/// What `policy:tick()` gives.
fn decision_table(lua: &Lua, ticked: &Ticked) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 16)?;
    table.raw_set("kind", "decision")?;
    table.raw_set("at", ticked.at.as_secs_f64())?;
    table.raw_set("sample", ticked.sample.fresh())?;
    table.raw_set("sample_kind", ticked.sample.kind())?;
    table.raw_set("setpoint", ticked.setpoint)?;
    table.raw_set("raw", ticked.decision.raw as f64)?;
    table.raw_set("adjustment", ticked.decision.adjustment as f64)?;
    table.raw_set("launched", ticked.launched)?;
    table.raw_set("killed", ticked.killed)?;
    table.raw_set("running", ticked.after.running)?;
    table.raw_set("in_flight", ticked.after.in_flight())?;
    table.raw_set("desired", ticked.after.desired())?;
    let reasons = lua.create_table()?;
    for reason in &ticked.decision.reasons {
        let row = lua.create_table_with_capacity(0, 4)?;
        row.raw_set("guard", reason.guard.as_str())?;
        row.raw_set("text", reason.to_string())?;
        row.raw_set("from", reason.from as f64)?;
        row.raw_set("to", reason.to as f64)?;
        reasons.raw_push(row)?;
    }
    table.raw_set("reasons", reasons)?;
    let errors: Vec<String> = ticked.errors.iter().map(ScriptError::headline).collect();
    table.raw_set("errors", errors)?;
    table.raw_set("requests", ticked.recorded.as_slice())?;
    Ok(table)
}

/// Rows as they are shown: of those that say the same only the first, and until when.
fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for same in rows.chunk_by(|a, b| a.text == b.text) {
        let shown = |row: &Row| format!("{:>6}  {}", row.time, row.text);
        match same {
            [first, _, .., last] => lines.extend([shown(first), format!("     …  the same until {}", last.time)]),
            few => lines.extend(few.iter().map(shown)),
        }
    }
    lines
}

fn row(ticked: &Ticked) -> Row {
    let Ticked { sample, setpoint, decision, before, launched, killed, .. } = ticked;
    let seen = match sample {
        Sample::Value { value, .. } => rounded(*value),
        other => other.kind().to_owned(),
    };
    let wanted = setpoint.map(|setpoint| format!(" of {}", rounded(setpoint))).unwrap_or_default();
    let time = format!("{}s", rounded(ticked.at.as_secs_f64()));
    let tasks = format!("{}+{}", before.running, before.in_flight());
    let done = match (launched, killed) {
        (0, 0) => "held".to_owned(),
        (launched, 0) => format!("launched {launched}"),
        (0, killed) => format!("killed {killed}"),
        (launched, killed) => format!("launched {launched}, killed {killed}"),
    };
    let reasons = decision.reasons.iter().map(ToString::to_string);
    let said = match sample {
        Sample::Error { message } => &**message,
        _ => "",
    };
    let untold = ticked.errors.iter().filter(|error| !said.contains(&error.message));
    let errors = untold.map(|error| format!("error: {}", error.message));
    let why: Vec<String> = reasons.chain(errors).collect();
    let why = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
    let text = format!("{seen}{wanted}  tasks {tasks}  raw {:+}  {done}{why}", decision.raw);
    Row { time, text }
}

/// Three digits are enough for people, and the same everywhere.
fn rounded(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn error_text(problem: &Value) -> String {
    match problem {
        Value::Error(error) => text_of(error),
        Value::String(text) => text.to_string_lossy(),
        other => describe(other),
    }
}
