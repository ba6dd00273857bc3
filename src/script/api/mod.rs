//! The modules that scripts `require("setpoint.<name>")`: one file each, and this table of all of them.
//!
//! The table is what is registered, what `scripts/types/` is generated from and what a test holds the two
//! equal by. Every function is marked read or effect (see [`Access`]).

use mlua::{Lua, Table};

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

/// One module.
#[derive(Clone, Copy)]
pub struct ModuleDoc {
    /// What comes after `setpoint.`.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Further LuaCATS lines (classes of options and handles), without the leading `---`.
    pub types: &'static [&'static str],
    /// Its functions.
    pub functions: &'static [FunctionDoc],
    /// Makes the module's table in a VM.
    pub register: fn(&Lua) -> mlua::Result<Table>,
}

/// Every module, in the order of their names.
#[must_use]
pub const fn modules() -> &'static [ModuleDoc] {
    &[]
}

/// What the modules keep for all VMs of a host.
#[derive(Debug, Default)]
pub(crate) struct HostState {}
