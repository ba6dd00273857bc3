//! The call that a VM is running: what API functions may know and do on its behalf.
//!
//! The pool sets a [`CallScope`] into the VM's app data each time it polls a call and takes it out afterwards,
//! so that two suspended calls of one VM never see each other's scope, nor does a coroutine that a script made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use mlua::Lua;
use tokio::time::Instant;

use crate::core::intent::Intent;
use crate::core::model::PolicyName;

use super::Natives;
use super::api::HostState;
use super::cluster::ClusterView;
use super::containers::Containers;
use super::{Hook, Limits, Mode, Permissions};

/// What a function says that would reach outside in a simulation.
pub(crate) const UNAVAILABLE: &str = "unavailable in simulate";

/// What lies outside of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// The world.
    Open,
    /// Nothing: it is a simulation.
    Simulated,
    /// Nothing: it is a spec, whose fakes take the modules' place.
    #[cfg(feature = "sim")]
    Spec,
}

/// The scope of one call of a hook.
#[derive(Debug)]
pub(crate) struct CallScope {
    /// On whose behalf.
    pub(crate) policy: PolicyName,
    /// Which function.
    pub(crate) hook: Hook,
    /// Whether effects happen.
    pub(crate) mode: Mode,
    /// True while a file is being loaded on trial: all I/O is stubbed, reads included.
    pub(crate) trial: bool,
    /// Whether there is an outside.
    pub(crate) outside: Outside,
    /// Wall clock of the tick: what `time.now()` and `os.time()` give.
    pub(crate) now: SystemTime,
    /// When the call must be over; I/O gives up then.
    pub(crate) deadline: Instant,
    /// Bytes that it may still log.
    pub(crate) output_left: AtomicUsize,
    /// Effects that were recorded and not sent.
    pub(crate) recorded: Mutex<Vec<String>>,
    /// What it asked of its workload, in order.
    pub(crate) intents: Mutex<Vec<Intent>>,
}

impl CallScope {
    /// The scope of the call that is running in this VM now.
    pub(crate) fn current(lua: &Lua) -> mlua::Result<Arc<Self>> {
        lua.app_data_ref::<Current>()
            .and_then(|current| current.0.clone())
            .ok_or_else(|| mlua::Error::runtime("no policy function is running"))
    }

    /// Sets or takes out the scope of a VM; gives back the one before.
    pub(crate) fn set_current(lua: &Lua, scope: Option<Arc<Self>>) -> Option<Arc<Self>> {
        lua.set_app_data(Current(scope)).and_then(|before| before.0)
    }

    /// Whether this function may have effects at all (warmer, cooler, drain, stop).
    pub(crate) const fn allows_effects(&self) -> bool {
        matches!(self.hook, Hook::Warmer | Hook::Cooler | Hook::Drain | Hook::Stop)
    }

    /// What an effect has to do: `Ok(true)`: carry it out; `Ok(false)`: it has been recorded, return the stub.
    /// Raises where effects are not allowed. `what` is in words, without secrets: `http.post http://…`.
    pub(crate) fn effect(&self, what: impl FnOnce() -> String) -> mlua::Result<bool> {
        if self.trial {
            return Ok(false);
        }
        if !self.allows_effects() {
            return Err(mlua::Error::runtime(format!(
                "{} has an effect; effects are allowed in warmer, cooler, drain and stop, not in {}",
                what(),
                self.hook.as_str()
            )));
        }
        match self.mode {
            Mode::Live => Ok(true),
            Mode::Record => {
                self.recorded.lock().unwrap_or_else(PoisonError::into_inner).push(what());
                Ok(false)
            }
        }
    }

    /// Takes `bytes` from the call's output budget; false when it is used up.
    pub(crate) fn take_output(&self, bytes: usize) -> bool {
        self.output_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

struct Current(Option<Arc<CallScope>>);

/// The folder of the file that a VM belongs to, in the VM's app data; absent for a file without one (a bundled
/// policy). `fs` reads below it and `exec` starts in it.
#[derive(Clone, Debug)]
pub(crate) struct ScriptDir(pub(crate) PathBuf);

/// The cause of an error that says "the host does not allow this": becomes `ScriptErrorKind::Refused`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

impl Refused {
    /// The error to raise.
    pub(crate) fn error(message: impl Into<String>) -> mlua::Error {
        mlua::Error::external(Self(message.into()))
    }
}

/// What all VMs of a host share; an `Arc` of it is in each VM's app data.
#[derive(Debug)]
pub(crate) struct HostShared {
    /// Limits on scripts.
    pub(crate) limits: Limits,
    /// What scripts may reach.
    pub(crate) permissions: Permissions,
    /// Where I/O of scripts runs: never on a script thread.
    pub(crate) io: tokio::runtime::Handle,
    /// The policy files' shared HTTP client, made when it is first needed.
    pub(crate) http: once_cell::sync::OnceCell<reqwest::Client>,
    /// Functions of the embedding program.
    pub(crate) natives: Natives,
    /// Who looks at containers, if anybody does.
    pub(crate) containers: Option<Arc<dyn Containers>>,
    /// Who looks at a Mesos cluster, if anybody does.
    pub(crate) cluster: Option<Arc<dyn ClusterView>>,
    /// Who set which parameter, by `key` and `policy.key`.
    pub(crate) param_origins: BTreeMap<String, String>,
    /// What else the modules keep for all VMs (connection pools).
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only connection pools are in it so far"))]
    pub(crate) api: HostState,
}

impl HostShared {
    /// A host whose scripts do their I/O on `io`.
    pub(crate) fn new(limits: Limits, permissions: Permissions, natives: Natives, io: tokio::runtime::Handle) -> Self {
        Self {
            limits,
            permissions,
            natives,
            containers: None,
            cluster: None,
            param_origins: BTreeMap::new(),
            io,
            http: once_cell::sync::OnceCell::new(),
            api: HostState::default(),
        }
    }

    /// The host that a VM belongs to.
    pub(crate) fn of(lua: &Lua) -> mlua::Result<Arc<Self>> {
        lua.app_data_ref::<Arc<Self>>()
            .map(|shared| Arc::clone(&shared))
            .ok_or_else(|| mlua::Error::runtime("invariant: a VM has its host in its app data"))
    }

    /// Runs `work` off the script threads and suspends the script meanwhile, until the call's deadline at most.
    pub(crate) async fn wait<T: Send + 'static>(
        self: &Arc<Self>,
        scope: &CallScope,
        what: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> mlua::Result<T> {
        match scope.outside {
            Outside::Open => {}
            Outside::Simulated => {
                return Err(mlua::Error::runtime(format!(
                    "{what}: {UNAVAILABLE}; `simulate = {{ metric = … }}` takes the metric's place there, `--fakes SPEC` the \
                     module's"
                )));
            }
            #[cfg(feature = "sim")]
            Outside::Spec => {
                return Err(mlua::Error::runtime(format!(
                    "{what}: unavailable in specs; give `load_policy` a fake of the module in `fakes`"
                )));
            }
        }
        let deadline = scope.deadline;
        match self.io.spawn(tokio::time::timeout_at(deadline, work)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(mlua::Error::runtime(format!("{what}: no answer before the tick's deadline"))),
            Err(error) => Err(mlua::Error::runtime(format!("{what}: {error}"))),
        }
    }
}
