//! Fleets: a file that finds its policies at run time, as rows of one VM.
//!
//! Rows that did not change keep their policy; when a row is gone comes to an end is the engine's to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use mlua::{Function, Lua, MultiValue, Table, Thread, Value};

use crate::core::model::PolicyName;

use super::checker::{Findings, Node};
use super::convert::{describe, quote};
use super::error::{ScriptError, ScriptErrorKind};
use super::held::Held;
use super::loader::vary;
use super::policy::Script;
use super::state::{to_json, to_lua};
use super::table::{Backends, policy};
use super::vm::{Done, Job, Vm};
use super::{Fleet, FleetRow, Hook, LoadedPolicy, Mode};

/// Most rows of one fleet.
const ROWS: usize = 10_000;

/// Bytes of all rows as JSON.
pub(super) const ROWS_BYTES: usize = 4 << 20;

const EVERY: Duration = Duration::from_secs(10);

/// A fleet's definition, checked.
pub(super) struct Definition {
    pub(super) discover: Function,
    pub(super) policy: Function,
    every: Duration,
}

/// A loaded fleet.
pub(super) struct FleetScript {
    inner: Arc<Inner>,
}

struct Inner {
    refs: Held<FleetRefs>,
    every: Duration,
    backends: Vec<String>,
    /// Keys of each row's `control` that are set to something else.
    control: Vec<(String, String)>,
    allowance: Arc<Allowance>,
    /// The rows of the last discovery. Held by one discovery at a time.
    rows: tokio::sync::Mutex<BTreeMap<String, Known>>,
}

struct FleetRefs {
    thread: Thread,
    discover: Function,
    policy: Function,
}

/// A row as it was when its policy was made.
struct Known {
    row: serde_json::Value,
    policy: Result<LoadedPolicy, ScriptError>,
}

/// CPU time that the rows of a fleet may use: half of the interval in each interval.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    used: Duration,
    rows: u32,
}

impl Allowance {
    /// Whether a row whose last call took `last` may be called: always while there is time left, else only a row that
    /// keeps to its share. A greedy row is held back alone.
    pub(super) fn admits(&self, interval: Duration, last: Duration) -> bool {
        let mut window = self.window(interval);
        let half = interval / 2;
        window.rows = window.rows.max(1);
        window.used < half || last <= half / window.rows
    }

    /// Counts a call's time.
    pub(super) fn add(&self, interval: Duration, cpu: Duration) {
        self.window(interval).used += cpu;
    }

    fn set_rows(&self, rows: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rows = u32::try_from(rows).unwrap_or(u32::MAX);
    }

    fn window(&self, interval: Duration) -> std::sync::MutexGuard<'_, Window> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.since.is_none_or(|since| since.elapsed() >= interval) {
            window.since = Some(Instant::now());
            window.used = Duration::ZERO;
        }
        window
    }
}

/// Reads what `setpoint.fleet{…}` was given.
pub(super) fn definition(table: &Table, found: &mut Findings) -> Option<Definition> {
    let node = Node::new(table, "", &["discover", "policy", "every"], found);
    for key in ["discover", "policy"] {
        if !node.has(key) {
            found.problem(key, "a fleet needs this function, got nil");
        }
    }
    let every = node.duration("every", found).unwrap_or(EVERY);
    if every < Duration::from_millis(100) {
        found.problem("every", format!("expected at least 100 ms, got {every:?}"));
    }
    let (discover, policy) = (node.function("discover", found), node.function("policy", found));
    Some(Definition { discover: discover?, policy: policy?, every })
}

impl FleetScript {
    /// Makes a fleet. Only under the VM's turn.
    pub(super) fn new(
        vm: &Arc<Vm>,
        definition: Definition,
        backends: Vec<String>,
        control: Vec<(String, String)>,
    ) -> mlua::Result<Self> {
        let Definition { discover, policy, every } = definition;
        let refs = Held::new(Arc::clone(vm), FleetRefs { thread: vm.new_thread()?, discover, policy });
        let (allowance, rows) = (Arc::default(), tokio::sync::Mutex::default());
        Ok(Self { inner: Arc::new(Inner { refs, every, backends, control, allowance, rows }) })
    }
}

#[async_trait]
impl Fleet for FleetScript {
    fn every(&self) -> Duration {
        self.inner.every
    }

    async fn discover(&self, deadline: Duration) -> Result<Vec<FleetRow>, ScriptError> {
        let deadline = tokio::time::Instant::now() + deadline;
        let inner = Arc::clone(&self.inner);
        let pool = Arc::clone(&inner.refs.vm().pool);
        match pool.spawn(async move { inner.discover(deadline).await }).await {
            Ok(result) => result,
            Err(error) => {
                let message = format!("the script host failed: {error}");
                Err(self.inner.refs.vm().error(Hook::Discover, ScriptErrorKind::Runtime, message))
            }
        }
    }
}

impl Inner {
    async fn discover(&self, deadline: tokio::time::Instant) -> Result<Vec<FleetRow>, ScriptError> {
        let vm = self.refs.vm();
        let late = |_| vm.error(Hook::Discover, ScriptErrorKind::Deadline, "the discovery before this one still runs");
        let mut known = tokio::time::timeout_at(deadline, self.rows.lock()).await.map_err(late)?;
        let read = |_: &Lua, values: MultiValue| match values.front() {
            Some(rows @ Value::Table(_)) => to_json("discover's rows", rows, ROWS_BYTES),
            other => {
                let got = describe(other.unwrap_or(&Value::Nil));
                Err(format!("discover returned: expected a list of rows, got {got}"))
            }
        };
        let arguments = |_: &Lua| Ok(MultiValue::new());
        let rows = self.call(Hook::Discover, &self.refs.get().discover, deadline, arguments, read).await?;
        let rows = list_of(rows).map_err(|message| vm.error(Hook::Discover, ScriptErrorKind::Type, message))?;
        self.allowance.set_rows(rows.len());
        let mut fresh = Vec::with_capacity(rows.len());
        let mut names = BTreeSet::new();
        for (at, row) in rows.into_iter().enumerate() {
            match name_of(&row, &mut names) {
                Ok(name) => {
                    let policy = self.policy(&name, row, &mut known, deadline).await;
                    fresh.push(FleetRow { name, policy });
                }
                Err(message) => {
                    // No row can be called so, and no two of these are called the same.
                    let error = vm.error(Hook::Discover, ScriptErrorKind::Type, format!("row {}: {message}", at + 1));
                    fresh.push(FleetRow { name: format!("#{}", at + 1), policy: Err(error) });
                }
            }
        }
        known.retain(|name, _| names.contains(name));
        Ok(fresh)
    }

    /// The row's policy: the one that there is while the row is the same, else a new one.
    async fn policy(
        &self,
        name: &str,
        row: serde_json::Value,
        known: &mut BTreeMap<String, Known>,
        deadline: tokio::time::Instant,
    ) -> Result<LoadedPolicy, ScriptError> {
        if let Some(same) = known.get(name)
            && same.row == row
            && !same.policy.as_ref().is_err_and(|error| error.kind.is_limit())
        {
            return same.policy.clone();
        }
        let policy = self.build(name, &row, deadline).await;
        known.insert(name.to_owned(), Known { row, policy: policy.clone() });
        policy
    }

    async fn build(
        &self,
        name: &str,
        row: &serde_json::Value,
        deadline: tokio::time::Instant,
    ) -> Result<LoadedPolicy, ScriptError> {
        let vm = self.refs.vm();
        let full_name = PolicyName::new(format!("{}/{name}", vm.name));
        let arguments = |lua: &Lua| Ok(MultiValue::from_vec(vec![to_lua(lua, row)?]));
        let read = |lua: &Lua, values: MultiValue| {
            let table = match values.front() {
                Some(Value::Table(table)) => table,
                other => {
                    let got = describe(other.unwrap_or(&Value::Nil));
                    return Err(format!("policy of row `{name}`: expected a policy table, got {got}"));
                }
            };
            vary(lua, table, &self.control).map_err(|error| error.to_string())?;
            let mut found = Findings::new();
            let allowed = vm.shared.permissions.allow_backends.as_deref();
            let (spec, functions) = policy(table, &Backends { known: &self.backends, allowed }, &mut found);
            if spec.shadow.is_some() {
                found.problem("shadow", "expected none in a fleet: only a file that is one policy has a shadow");
            }
            if let Some((first, more)) = found.problems.split_first() {
                let mut message = format!("policy of row `{name}`: {}", first.message);
                for problem in more.iter().take(3) {
                    message.push_str(", and ");
                    message.push_str(&problem.message);
                }
                return Err(message);
            }
            let spec = Arc::new(spec);
            let allowance = Some(Arc::clone(&self.allowance));
            let script = Script::new(vm, full_name, Arc::clone(&spec), functions, allowance)
                .map_err(|error| error.to_string())?;
            Ok(LoadedPolicy { spec, script: Arc::new(script) })
        };
        self.call(Hook::Row, &self.refs.get().policy, deadline, arguments, read).await
    }

    async fn call<R>(
        &self,
        hook: Hook,
        function: &Function,
        deadline: tokio::time::Instant,
        arguments: impl FnOnce(&Lua) -> mlua::Result<MultiValue>,
        read: impl FnOnce(&Lua, MultiValue) -> Result<R, String>,
    ) -> Result<R, ScriptError> {
        let vm = self.refs.vm();
        let mut scope = vm.scope(vm.name.clone(), hook, Mode::Record, SystemTime::now(), Duration::ZERO);
        scope.deadline = deadline;
        let cpu = vm.limits().cpu;
        let job = Job { thread: &self.refs.get().thread, function, scope: Arc::new(scope), cpu, tick: 0 };
        let Done { result, .. } = vm.call(job, arguments, read).await;
        result.map_err(|fault| vm.explain(hook, &fault))
    }
}

/// The rows of a discovery, one by one.
pub(super) fn list_of(rows: serde_json::Value) -> Result<Vec<serde_json::Value>, String> {
    match rows {
        serde_json::Value::Array(rows) if rows.len() <= ROWS => Ok(rows),
        serde_json::Value::Array(rows) => {
            Err(format!("discover returned: expected at most {ROWS} rows, got {}", rows.len()))
        }
        // An empty table is an empty object.
        serde_json::Value::Object(fields) if fields.is_empty() => Ok(Vec::new()),
        _ => Err("discover returned: expected a list of rows, got a table with named fields".to_owned()),
    }
}

/// The row's name, when it has a good one that no row before it had.
fn name_of(row: &serde_json::Value, names: &mut BTreeSet<String>) -> Result<String, String> {
    let name = match row.get("name") {
        Some(serde_json::Value::String(name)) => name,
        Some(other) => return Err(format!("expected text as `name`, got {other}")),
        None => return Err("expected a table with a `name`, got none".to_owned()),
    };
    let well_formed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || name.len() > 63 || !name.chars().all(well_formed) {
        return Err(format!("expected a `name` of 1 to 63 letters, digits, `_`, `.` or `-`, got {}", quote(name)));
    }
    if !names.insert(name.clone()) {
        return Err(format!("expected unique names, got {} again", quote(name)));
    }
    Ok(name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_holds_back_those_that_used_it_up() {
        let allowance = Allowance::default();
        let interval = Duration::from_secs(3600);
        allowance.set_rows(10);
        assert!(allowance.admits(interval, Duration::from_secs(1000)));
        allowance.add(interval, Duration::from_secs(1800));
        assert!(!allowance.admits(interval, Duration::from_secs(1000)), "a greedy row waits");
        assert!(allowance.admits(interval, Duration::from_millis(1)), "the others go on");
        assert!(allowance.admits(Duration::ZERO, Duration::ZERO), "a new interval, a new allowance");
    }

    #[test]
    fn names_are_checked_and_unique() {
        let mut names = BTreeSet::new();
        let mut check = |json: &str| name_of(&serde_json::from_str(json).unwrap(), &mut names);
        assert_eq!(check(r#"{"name":"a.b-c_1"}"#), Ok("a.b-c_1".to_owned()));
        for json in [r#"{"name":"a.b-c_1"}"#, r#"{"name":"a/b"}"#, r#"{"name":""}"#, r#"{"name":3}"#, "{}", "3"] {
            assert!(check(json).is_err(), "{json}");
        }
    }

    #[tokio::test]
    async fn rows_that_come_and_go_a_thousand_times_leave_nothing() {
        let vm = crate::script::vm::tests::vm(&Arc::new(crate::script::pool::Pool::new(1).unwrap()));
        let source = "local n, alive = 0, setmetatable({}, { __mode = 'k' })
            return {
              discover = function()
                n = n + 1
                return { { name = 'always' }, { name = 'row' .. n, n = n }, { name = 'other', n = n } }
              end,
              policy = function(row)
                local kept = {}
                alive[kept] = true
                return {
                  workload = { command = 'x', max = 1 },
                  metric = function(ctx) kept[#kept + 1] = ctx ctx.state.n = #ctx.tasks return #ctx.history end,
                  target = 1,
                }
              end,
              alive = function() local count = 0 for _ in pairs(alive) do count = count + 1 end return count end,
            }";
        let table: Table = vm.in_turn(|_| vm.compile("p.lua", &source.into()).unwrap().call(()).unwrap()).await;
        let alive: Function = table.raw_get("alive").unwrap();
        table.raw_remove("alive").unwrap();
        let definition = definition(&table, &mut Findings::new()).unwrap();
        let fleet = FleetScript::new(&vm, definition, vec!["local".to_owned()], Vec::new()).unwrap();
        let ctx = Arc::new(crate::script::Ctx {
            policy: "p/x".into(),
            now: SystemTime::UNIX_EPOCH,
            tick: 1,
            sample: None,
            setpoint: None,
            history: Arc::default(),
            tasks: Arc::default(),
            running: 0,
            in_flight: 0,
            desired: 0,
            bounds: crate::core::decision::Bounds { min: 0, max: 1 },
        });
        let wall = Duration::from_secs(60);
        for _ in 0..1000 {
            for row in fleet.discover(wall).await.unwrap() {
                let seen = row.policy.unwrap().script.observe(Arc::clone(&ctx), wall).await;
                assert_eq!(seen.sample.fresh(), Some(0.0), "{:?}", seen.errors);
            }
        }
        // Rows are let go of on the pool, soon after they are dropped.
        let mut left = u32::MAX;
        for _ in 0..1000 {
            let (vm, alive) = (Arc::clone(&vm), alive.clone());
            let count = async move {
                vm.in_turn(|lua| {
                    lua.gc_collect().and_then(|()| lua.gc_collect()).and_then(|()| alive.call(())).unwrap()
                })
                .await
            };
            left = fleet.inner.refs.vm().pool.spawn(count).await.unwrap();
            if left == 3 {
                break;
            }
        }
        assert_eq!(left, 3, "only the rows of the last discovery are left");
        // Two thousand rows at 3 KB and more each would be beyond this.
        assert!(vm.memory() < 4 << 20, "{} bytes", vm.memory());
    }
}
