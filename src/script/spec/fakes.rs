//! The fakes of a spec for a policy that is simulated: both live in one VM, each file in an environment of its own.

use std::path::PathBuf;
use std::sync::Arc;

use mlua::{Table, Value};

use crate::core::model::PolicyName;

use super::super::call::ScriptDir;
use super::super::error::{ScriptError, ScriptErrorKind};
use super::super::fault::Fault;
use super::super::meter::RUNAWAY;
use super::super::params::Params;
use super::super::require::{Files, Reads, read_source};
use super::super::stdlib::new_environment;
use super::super::vm::Vm;
use super::super::world::World;
use super::super::{Hook, loader};
use super::golden::Goldens;
use super::host::Shared;
use super::load::scope;
use super::run::{Described, describe};
use super::{Fakes, SPEC_SUFFIX};

/// What is said of a file without any.
const WANTED: &str = "gives no fakes: expected `fakes { redis = { … } }`, or `fakes(function(world) return { … } end)`";

/// An environment for the policy in which the spec's fakes stand before the host's modules. Only under the VM's turn, and
/// before the VM has loaded anything.
pub(in super::super) fn environment(vm: &Arc<Vm>, fakes: &Fakes) -> Result<Table, Vec<ScriptError>> {
    let chunk = fakes.path.display().to_string();
    let single = |kind, message: String| vec![ScriptError::new(&chunk, Hook::Load, kind, message)];
    let source: Arc<str> = match read_source(&fakes.path, vm.limits().source) {
        Ok(source) => source.into(),
        Err(reason) => return Err(single(ScriptErrorKind::Io, format!("cannot be read: {reason}"))),
    };
    let lua_failed = |error: mlua::Error| single(ScriptErrorKind::Runtime, error.to_string());
    let file = fakes.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let own = file.strip_suffix(SPEC_SUFFIX).unwrap_or(&file).to_owned();
    let bare = vm.lua.create_table().map_err(lua_failed)?;
    let spec = vm.sibling(chunk.clone(), PolicyName::from(own.as_str()), bare, false);
    let loaded = in_folder(vm, loader::folder(&fakes.path), || {
        let stage = Arc::clone(&fakes.stage);
        let state = Shared::new(&spec, own, stage, Vec::new(), false, Goldens::default());
        let made = modules(&spec, &source, &state);
        // What is left holds the VM, which holds it.
        state.forget(0);
        made
    });
    match loaded {
        Ok(Some(loaded)) => {
            let nothing = vm.lua.create_table().map_err(lua_failed)?;
            new_environment(&vm.lua, loaded, nothing).map_err(lua_failed)
        }
        Ok(None) => Err(single(ScriptErrorKind::Shape, WANTED.to_owned())),
        Err(fault) => Err(vec![spec.explain(Hook::Load, &fault)]),
    }
}

/// The modules that the spec gives, by their full names.
fn modules(spec: &Arc<Vm>, source: &Arc<str>, state: &Shared) -> Result<Option<Table>, Fault> {
    let Described { fakes, .. } = describe(spec, source, state, 0, RUNAWAY)?;
    let world = World::of(&spec.lua).map_err(Fault::Lua)?;
    let mut made = None;
    spec.call_here(&fakes, &scope(spec, Hook::Spec), 0, RUNAWAY, world, |_, values| {
        if let Some(Value::Table(modules)) = values.into_iter().next() {
            made = Some(modules);
        }
        Ok(())
    })?;
    Ok(made)
}

/// Does something while files are looked for in another folder, with parameters of its own.
fn in_folder<R>(vm: &Vm, folder: PathBuf, work: impl FnOnce() -> R) -> R {
    let params = vm.lua.set_app_data(Params::default());
    let files = vm.lua.set_app_data(Files::new(folder.clone(), Reads::default()));
    let dir = vm.lua.set_app_data(ScriptDir(folder));
    let done = work();
    if let Some(params) = params {
        vm.lua.set_app_data(params);
    }
    if let Some(files) = files {
        vm.lua.set_app_data(files);
    }
    if let Some(dir) = dir {
        vm.lua.set_app_data(dir);
    }
    done
}
