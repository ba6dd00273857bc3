//! A spec from its file to its report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Function, MultiValue, Table};
use once_cell::sync::OnceCell;

use crate::core::model::PolicyName;

use super::super::call::{HostShared, ScriptDir};
use super::super::error::{ScriptError, ScriptErrorKind};
use super::super::fault::Fault;
use super::super::params::Params;
use super::super::pool::Pool;
use super::super::require::{Files, Reads, read_source};
use super::super::stdlib::new_environment;
use super::super::vm::{Vm, load_prelude};
use super::super::{Hook, loader};
use super::golden::Goldens;
use super::host::{Shared, functions};
use super::load::scope;
use super::{Case, Failure, FileCoverage, Outcome, SPEC_SUFFIX, SpecReport, SpecRequest, Stage};

const SOURCE: &str = include_str!("spec.lua");

/// A case as `spec.lua` collects it.
struct Collected {
    names: Vec<String>,
    line: u32,
    skipped: bool,
    run: Function,
}

/// Runs a spec. On a script thread, which nothing else uses meanwhile.
pub(super) async fn run(
    shared: Arc<HostShared>,
    pool: Arc<Pool>,
    request: SpecRequest,
    stage: Arc<dyn Stage>,
) -> Result<SpecReport, Vec<ScriptError>> {
    let chunk = request.path.display().to_string();
    let single = |kind, message: String| vec![ScriptError::new(&chunk, Hook::Load, kind, message)];
    let source: Arc<str> = match read_source(&request.path, shared.limits.source) {
        Ok(source) => source.into(),
        Err(reason) => return Err(single(ScriptErrorKind::Io, format!("cannot be read: {reason}"))),
    };
    let goldens = Goldens::beside(&request.path, request.update)
        .map_err(|error| single(ScriptErrorKind::Io, format!("its golden timelines cannot be read: {error}")))?;
    let folder = loader::folder(&request.path);
    let file = request.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let own = file.strip_suffix(SPEC_SUFFIX).unwrap_or(&file).to_owned();
    let files = Files::new(folder.clone(), Reads::default());
    let name = PolicyName::from(own.as_str());
    let vm = Vm::new(shared, pool, chunk.clone(), name, Params::default(), files)
        .map_err(|error| single(ScriptErrorKind::Runtime, format!("cannot make a VM: {error}")))?;
    vm.lua.set_app_data(ScriptDir(folder));
    let state = Shared::new(&vm, own, stage, request.backends.clone(), request.coverage, goldens);
    vm.in_turn(|_| {
        let report = carry_out(&vm, &request, &source, &state);
        // What is left holds the VM, which holds it.
        state.forget(0);
        report
    })
    .await
}

fn carry_out(
    vm: &Arc<Vm>,
    request: &SpecRequest,
    source: &Arc<str>,
    state: &Shared,
) -> Result<SpecReport, Vec<ScriptError>> {
    let told = |fault: &Fault| vec![vm.explain(Hook::Load, fault)];
    let cases = collect(vm, request, source, state).map_err(|fault| told(&fault))?;
    let mut all = request.filter.is_none();
    let base = state.mark();
    let mut report = Vec::with_capacity(cases.len());
    for (index, case) in cases.into_iter().enumerate() {
        let full = case.names.join(" ");
        if request.filter.as_ref().is_some_and(|part| !full.contains(part.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let outcome = if case.skipped { Outcome::Skipped } else { attempt(vm, request, state, &case, index as u64) };
        state.forget(base);
        all &= matches!(outcome, Outcome::Passed);
        report.push(Case { names: case.names, line: case.line, outcome, elapsed: begun.elapsed() });
    }
    state.forget(0);
    let goldens = std::mem::take(&mut state.lock().goldens);
    Ok(SpecReport {
        path: request.path.clone(),
        cases: report,
        coverage: state.take_hits().into_iter().map(|(path, lines)| coverage(path, &lines)).collect(),
        golden: goldens.written(all),
    })
}

/// What a spec has said of itself while it was loaded.
pub(super) struct Described {
    cases: Table,
    /// Gives the modules of its fakes in a world; nil where it has none.
    pub(super) fakes: Function,
}

/// Loads a spec, whose file the VM is named after.
pub(super) fn describe(
    vm: &Arc<Vm>,
    source: &Arc<str>,
    state: &Shared,
    seed: u64,
    limit: Duration,
) -> Result<Described, Fault> {
    static COMPILED: OnceCell<Vec<u8>> = OnceCell::new();
    let lua = &vm.lua;
    let prelude = load_prelude(lua, SOURCE, &COMPILED).map_err(Fault::Lua)?;
    let host = functions(lua, state, seed).map_err(Fault::Lua)?;
    let (globals, cases, done, fakes): (Table, Table, Function, Function) = prelude.call(host).map_err(Fault::Lua)?;
    let nothing = lua.create_table().map_err(Fault::Lua)?;
    let environment = new_environment(lua, nothing, globals).map_err(Fault::Lua)?;
    let own = vm.sibling(vm.chunk.clone(), vm.name.clone(), environment, false);
    let main = own.compile(&vm.chunk, source).map_err(Fault::Lua)?;
    vm.call_here(&main, &scope(vm, Hook::Load), 0, limit, (), |_, _| Ok(()))?;
    done.call::<()>(()).map_err(Fault::Lua)?;
    Ok(Described { cases, fakes })
}

/// The cases that the spec describes.
fn collect(vm: &Arc<Vm>, request: &SpecRequest, source: &Arc<str>, state: &Shared) -> Result<Vec<Collected>, Fault> {
    let Described { cases, .. } = describe(vm, source, state, request.seed, request.limit)?;
    let read = |case: Table| -> mlua::Result<Collected> {
        Ok(Collected {
            names: case.raw_get("names")?,
            line: case.raw_get("line")?,
            skipped: case.raw_get("skipped")?,
            run: case.raw_get("run")?,
        })
    };
    cases.sequence_values::<Table>().map(|case| read(case?)).collect::<mlua::Result<_>>().map_err(Fault::Lua)
}

fn attempt(vm: &Vm, request: &SpecRequest, state: &Shared, case: &Collected, index: u64) -> Outcome {
    let scope = scope(vm, Hook::Spec);
    let result = vm.call_here(&case.run, &scope, index, request.limit, MultiValue::new(), |_, _| Ok(()));
    let Err(fault) = result else { return Outcome::Passed };
    let mut error = vm.explain(Hook::Spec, &fault);
    if matches!(fault, Fault::Limit(..)) {
        error.message = format!("expected the case to be done within {:?}, was stopped", request.limit);
    }
    let (note, detail) = state.told();
    Outcome::Failed(Box::new(Failure { error, detail, note, timelines: state.timelines() }))
}

fn coverage(path: String, lines: &BTreeMap<u32, bool>) -> FileCoverage {
    FileCoverage {
        path: PathBuf::from(path),
        lines: lines.len() as u32,
        missed: lines.iter().filter(|(_, hit)| !**hit).map(|(line, _)| *line).collect(),
    }
}
