//! Loading: from a path to a checked policy or fleet, on trial. Nothing that is running is touched by it.
//!
//! The chunk is compiled and run in a VM of its own with all I/O stubbed, and what it returns is checked as a whole. Only
//! syntax, shape and limits refuse a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mlua::{Lua, MultiValue, Table, Value};
use sha2::{Digest, Sha256};

use crate::core::model::PolicyName;

use super::call::{HostShared, ScriptDir};
use super::checker::Findings;
use super::convert::describe;
use super::error::{ScriptError, ScriptErrorKind};
use super::fault::Fault;
use super::fleet::{FleetScript, definition};
use super::params::Params;
use super::policy::Script;
use super::pool::Pool;
use super::require::{Files, Reads, read_source};
use super::stdlib::FleetTable;
use super::table::{Backends, policy};
use super::vm::{Done, Job, Vm};
use super::{Content, Hook, LoadRequest, LoadedFile, LoadedPolicy, Mode, Variation};

/// Wall time of a load. It waits for nothing, so this only matters on a machine that is overloaded.
const LOAD_WALL: Duration = Duration::from_secs(30);

/// Loads a file, on a script thread. What it reads is noted in `reads`.
pub(super) async fn load(
    shared: Arc<HostShared>,
    pool: Arc<Pool>,
    request: LoadRequest,
    reads: Reads,
    variation: Variation,
) -> Result<LoadedFile, Vec<ScriptError>> {
    let chunk = request.path.display().to_string();
    let single = |kind, message: String| vec![ScriptError::new(&chunk, Hook::Load, kind, message)];
    let limit = shared.limits.source;
    let source: Arc<str> = if let Some(text) = &request.source {
        text.as_str().into()
    } else {
        let read = read_source(&request.path, limit).map(Arc::<str>::from);
        reads.note(&request.path, read.as_ref().ok().cloned());
        read.map_err(|reason| single(ScriptErrorKind::Io, format!("cannot be read: {reason}")))?
    };
    if source.len() > limit {
        let message = format!("expected at most {limit} bytes of source, got {}", source.len());
        return Err(single(ScriptErrorKind::Syntax, message));
    }
    let folder = folder(&request.path);
    let name = PolicyName::from(request.name.as_str());
    let params = Params::new(request.params.clone(), &request.name, &shared.param_origins);
    let vm = Vm::new(shared, pool, chunk.clone(), name, params, Files::new(folder.clone(), reads))
        .map_err(|error| single(ScriptErrorKind::Runtime, format!("cannot make a VM: {error}")))?;
    vm.lua.set_app_data(ScriptDir(folder));
    #[cfg(feature = "sim")]
    let vm = match &variation.fakes {
        Some(fakes) => {
            let environment = vm.in_turn(|_| super::spec::environment(&vm, fakes)).await?;
            Arc::new(vm.within(environment))
        }
        None => vm,
    };
    run(&vm, &source, &request, &variation.control).await
}

/// Where the files of a file's `require`s are.
pub(super) fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

async fn run(
    vm: &Arc<Vm>,
    source: &Arc<str>,
    request: &LoadRequest,
    control: &[(String, String)],
) -> Result<LoadedFile, Vec<ScriptError>> {
    let told = |error: mlua::Error| vec![vm.explain(Hook::Load, &Fault::Lua(error))];
    let chunk = vm.compile(&vm.chunk, source).map_err(told)?;
    let thread = vm.new_thread().map_err(told)?;
    let scope = vm.scope(vm.name.clone(), Hook::Load, Mode::Record, SystemTime::now(), LOAD_WALL);
    let cpu = vm.limits().load_cpu;
    let job = Job { thread: &thread, function: &chunk, scope: Arc::new(scope), cpu, tick: 0 };
    let mut found = Findings::new();
    let arguments = |_: &Lua| Ok(MultiValue::new());
    let read = |_: &Lua, values: MultiValue| content(vm, &values, request, control, &mut found);
    let Done { result, .. } = vm.call(job, arguments, read).await;
    let mut problems = shape_errors(vm, &found);
    let content = match result {
        Ok(content) => content,
        Err(Fault::Result(message)) => {
            problems.push(vm.explain(Hook::Load, &Fault::Result(message)));
            for problem in &mut problems {
                problem.kind = ScriptErrorKind::Shape;
            }
            return Err(problems);
        }
        Err(fault) => return Err(vec![vm.explain(Hook::Load, &fault)]),
    };
    let Some(content) = content.filter(|_| problems.is_empty()) else { return Err(problems) };
    // What loading leaves behind is as large as what it makes; thousands of files would keep it all.
    vm.tidy().map_err(told)?;
    let required = vm.lua.app_data_ref::<Files>().map(|files| files.required()).unwrap_or_default();
    let params = vm.lua.app_data_ref::<Params>().map(|params| params.declared()).unwrap_or_default();
    Ok(LoadedFile {
        sha256: hex(&Sha256::digest(source.as_bytes())),
        source: Arc::clone(source),
        required,
        params,
        warnings: found.warnings,
        content,
    })
}

/// What the chunk returned, checked. Problems go to `found`; the error is for what is no policy at all.
fn content(
    vm: &Arc<Vm>,
    values: &MultiValue,
    request: &LoadRequest,
    control: &[(String, String)],
    found: &mut Findings,
) -> Result<Option<Content>, String> {
    let lua_failed = |error: mlua::Error| error.to_string();
    match values.front() {
        Some(Value::Table(table)) => {
            let allowed = vm.shared.permissions.allow_backends.as_deref();
            let backends = Backends { known: &request.backends, allowed };
            vary(&vm.lua, table, control).map_err(lua_failed)?;
            declare_params(vm, table, found);
            let (spec, functions) = policy(table, &backends, found);
            if !found.problems.is_empty() {
                return Ok(None);
            }
            let spec = Arc::new(spec);
            let script = Script::new(vm, vm.name.clone(), Arc::clone(&spec), functions, None).map_err(lua_failed)?;
            Ok(Some(Content::Policy(LoadedPolicy { spec, script: Arc::new(script) })))
        }
        Some(Value::UserData(data)) if data.is::<FleetTable>() => {
            let table = data.borrow::<FleetTable>().map_err(lua_failed)?.0.clone();
            let Some(definition) = definition(&table, found).filter(|_| found.problems.is_empty()) else {
                return Ok(None);
            };
            let backends = request.backends.clone();
            let fleet = FleetScript::new(vm, definition, backends, control.to_vec()).map_err(lua_failed)?;
            Ok(Some(Content::Fleet(Arc::new(fleet))))
        }
        other => {
            let got = describe(other.unwrap_or(&Value::Nil));
            Err(format!("expected the file to return a policy table (`return {{ … }}`), got {got}"))
        }
    }
}

/// Sets keys of `control`, dots leading into tables. A value that stands for both directions stays that of the other one.
pub(super) fn vary(lua: &Lua, table: &Table, control: &[(String, String)]) -> mlua::Result<()> {
    for (path, text) in control {
        let mut at = table.clone();
        let mut keys = std::iter::once("control").chain(path.split('.')).peekable();
        while let Some(key) = keys.next() {
            if keys.peek().is_none() {
                match text.parse::<f64>() {
                    Ok(number) => at.raw_set(key, number)?,
                    Err(_) => at.raw_set(key, text.as_str())?,
                }
            } else {
                let inner = match at.raw_get::<Value>(key)? {
                    Value::Table(inner) => inner,
                    Value::Nil => lua.create_table()?,
                    both => {
                        let inner = lua.create_table()?;
                        if keys.peek().is_some_and(|side| matches!(*side, "up" | "down")) {
                            inner.raw_set("up", &both)?;
                            inner.raw_set("down", &both)?;
                        }
                        inner
                    }
                };
                at.raw_set(key, &inner)?;
                at = inner;
            }
        }
    }
    Ok(())
}

/// The table's own `params`: the declared ones, or defaults that are declared here.
pub(super) fn declare_params(vm: &Vm, table: &Table, found: &mut Findings) {
    let given = match table.raw_get::<Value>("params") {
        Ok(Value::Table(given)) => given,
        Ok(Value::Nil) | Err(_) => return,
        Ok(other) => {
            found.problem("params", format!("expected a table of defaults, got {}", describe(&other)));
            return;
        }
    };
    let Some(params) = vm.lua.app_data_ref::<Params>() else { return };
    if params.gave(&given) {
        return;
    }
    if let Err(message) = params.declare(&vm.lua, &given) {
        found.problem("params", message);
    }
}

/// The problems of a table as errors, in the order of the file.
pub(super) fn shape_errors(vm: &Vm, found: &Findings) -> Vec<ScriptError> {
    let mut errors: Vec<ScriptError> = found
        .problems
        .iter()
        .map(|problem| {
            let mut error = vm.explain(Hook::Load, &Fault::Result(problem.message.clone()));
            error.kind = ScriptErrorKind::Shape;
            let path: Vec<&str> = problem.path.split(['.', '[', ']']).filter(|part| !part.is_empty()).collect();
            vm.sources.locate(&vm.chunk, &path, &mut error);
            error
        })
        .collect();
    errors.sort_by_key(|error| (error.line, error.column));
    errors
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
