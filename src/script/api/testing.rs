//! A bare VM for tests of the modules: `require`, a scope, an I/O runtime, and nothing of the script host.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mlua::{FromLuaMulti, Lua, Table};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::modules;
use crate::core::model::PolicyName;
use crate::script::call::{CallScope, HostShared, ScriptDir};
use crate::script::{Hook, Limits, Mode, Permissions};

/// A VM with its host.
pub(super) struct Bench {
    pub(super) lua: Lua,
    pub(super) runtime: Runtime,
    /// Which function the chunk stands for.
    pub(super) hook: Hook,
    pub(super) mode: Mode,
    pub(super) trial: bool,
    /// How long a chunk may wait.
    pub(super) deadline: Duration,
}

impl Bench {
    pub(super) fn new(permissions: Permissions) -> Self {
        Self::with_limits(permissions, Limits::default())
    }

    pub(super) fn with_limits(permissions: Permissions, limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let lua = Lua::new();
        lua.set_memory_limit(limits.memory).unwrap();
        lua.set_app_data(Arc::new(HostShared::new(
            limits,
            permissions,
            crate::script::Natives::default(),
            runtime.handle().clone(),
        )));
        let require = lua.create_function(|lua, name: String| {
            if let Ok(Some(module)) = lua.named_registry_value::<Option<Table>>(&name) {
                return Ok(module);
            }
            let module = modules().iter().find(|module| name == format!("setpoint.{}", module.name));
            let module = (module.expect("a module of that name").register)(lua)?;
            module.set_readonly(true);
            lua.set_named_registry_value(&name, &module)?;
            Ok(module)
        });
        lua.globals().set("require", require.unwrap()).unwrap();
        lua.sandbox(true).unwrap();
        let (hook, mode) = (Hook::Metric, Mode::Live);
        Self { lua, runtime, hook, mode, trial: false, deadline: Duration::from_secs(60) }
    }

    pub(super) fn folder(self, folder: &Path) -> Self {
        self.lua.set_app_data(ScriptDir(folder.to_owned()));
        self
    }

    pub(super) fn scope(&self) -> Arc<CallScope> {
        Arc::new(CallScope {
            policy: PolicyName::from("bench"),
            hook: self.hook,
            mode: self.mode,
            trial: self.trial,
            outside: crate::script::call::Outside::Open,
            now: SystemTime::UNIX_EPOCH + Duration::from_millis(1_780_000_000_500),
            deadline: Instant::now() + self.deadline,
            output_left: AtomicUsize::new(1024),
            recorded: Mutex::default(),
            intents: Mutex::default(),
        })
    }

    /// Runs a chunk as the hook, in the given scope.
    pub(super) fn run_in<R: FromLuaMulti>(&self, scope: &Arc<CallScope>, chunk: &str) -> mlua::Result<R> {
        let body = self.lua.load(chunk).set_name("=bench.lua").into_function()?;
        let thread = self.lua.create_thread(body)?;
        CallScope::set_current(&self.lua, Some(Arc::clone(scope)));
        let result = self.runtime.block_on(thread.into_async::<R>(())?);
        CallScope::set_current(&self.lua, None);
        result
    }

    /// Runs a chunk as the hook.
    pub(super) fn run<R: FromLuaMulti>(&self, chunk: &str) -> mlua::Result<R> {
        self.run_in(&self.scope(), chunk)
    }

    /// The first line of the error that a chunk raises, without where it was raised.
    pub(super) fn error(&self, chunk: &str) -> String {
        let error = self.run::<mlua::MultiValue>(chunk).expect_err("the chunk should raise");
        plain(&error)
    }
}

/// An error as its cause alone puts it.
pub(super) fn plain(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => plain(cause),
        mlua::Error::RuntimeError(text) => text.lines().next().unwrap_or_default().to_owned(),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
