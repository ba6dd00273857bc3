//! The modules that scripts `require("setpoint.<name>")`: one file each, and this table of all of them.
//!
//! The table is what is registered, what `scripts/types/` and `docs/reference.md` are generated from, and what a test
//! holds them equal by. Every function is marked read or effect (see [`Access`]).
//!
//! Rules that every module keeps:
//! - arguments are checked by `args`, so that an error names the function, the argument, what was expected
//!   and what came; unknown option keys are errors;
//! - a function that waits does its I/O through `HostShared::wait`, never on a script thread, and only in the
//!   hook's own coroutine;
//! - on a file's trial nothing leaves the process and reads give the stub that their documentation names;
//! - what comes from outside has a limit in bytes before it is read.

use mlua::{Lua, Table};

pub(crate) mod args;
mod docker;
mod exec;
mod fs;
mod glob;
pub(super) mod host;
mod hosts;
mod http;
mod http_client;
pub(crate) mod json;
pub(crate) mod log;
mod math;
mod memcached;
mod mesos;
mod proc;
mod process;
mod prometheus;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redis_pool;
pub mod reference;
pub(crate) mod secret;
#[cfg(feature = "sqs")]
mod sqs;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
pub mod types;
mod xml;

/// Whether a function changes anything outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Computes only; works everywhere, on trial too.
    Pure,
    /// Reads from outside; allowed in every hook.
    Read,
    /// Changes something outside; allowed in warmer, cooler, drain and stop.
    Effect,
}

impl Access {
    /// The lower-case word of the documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Read => "read",
            Self::Effect => "effect",
        }
    }
}

/// One function of a module, as scripts see it.
#[derive(Clone, Copy, Debug)]
pub struct FunctionDoc {
    /// Its name; `name:method` for a method of a handle that the module gives out (`client:llen`).
    pub name: &'static str,
    /// Its parameters in LuaCATS: `("url", "string")`, `("options?", "setpoint.http.Options")`, `("...", "any")`.
    pub params: &'static [(&'static str, &'static str)],
    /// Its results in LuaCATS.
    pub returns: &'static [&'static str],
    /// Whether it changes anything.
    pub access: Access,
    /// What it does, in one or two sentences: units, errors, and for effects what it returns in a dry run.
    pub doc: &'static str,
}

/// A function that reads.
const fn read(
    name: &'static str,
    params: &'static [(&'static str, &'static str)],
    returns: &'static [&'static str],
    doc: &'static str,
) -> FunctionDoc {
    FunctionDoc { name, params, returns, access: Access::Read, doc }
}

/// One module.
#[derive(Clone, Copy, Debug)]
pub struct ModuleDoc {
    /// What comes after `setpoint.`.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Further LuaCATS lines (classes of options and handles), without the leading `---`.
    pub types: &'static [&'static str],
    /// Its fields that are not functions: name, LuaCATS type, what it is.
    pub fields: &'static [(&'static str, &'static str, &'static str)],
    /// Its functions.
    pub functions: &'static [FunctionDoc],
    /// Makes the module's table in a VM.
    pub register: fn(&Lua) -> mlua::Result<Table>,
}

/// Every module, in the order of their names.
#[must_use]
pub const fn modules() -> &'static [ModuleDoc] {
    MODULES
}

const MODULES: &[ModuleDoc] = &[
    docker::MODULE,
    exec::MODULE,
    fs::MODULE,
    http::MODULE,
    json::MODULE,
    log::MODULE,
    math::MODULE,
    memcached::MODULE,
    mesos::MODULE,
    process::MODULE,
    prometheus::MODULE,
    #[cfg(feature = "redis")]
    redis::MODULE,
    secret::MODULE,
    #[cfg(feature = "sqs")]
    sqs::MODULE,
    time::MODULE,
    xml::MODULE,
];

/// What the modules keep for all VMs of a host.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    #[cfg(feature = "redis")]
    redis: redis_pool::Pool,
}
