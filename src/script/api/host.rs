//! `setpoint.host`: functions of the program that setpoint is embedded in.
//!
//! Not in the table of modules, since its functions are the embedder's: each is a read that gives a number, or nil
//! for a missing sample, or raises. In a load's trial all of them give nil.

use std::sync::Arc;

use mlua::{Lua, Table};

use super::super::call::{CallScope, HostShared};

/// The name after `setpoint.`.
pub(in crate::script) const NAME: &str = "host";

/// Makes the module's table in a VM.
pub(in crate::script) fn register(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, native) in &HostShared::of(lua)?.natives.0 {
        let (name, native) = (name.clone(), Arc::clone(native));
        let what = format!("host.{name}");
        let function = lua.create_async_function(move |lua, ()| {
            let (what, native) = (what.clone(), Arc::clone(&native));
            async move {
                let scope = CallScope::current(&lua)?;
                if scope.trial {
                    return Ok(None);
                }
                let shared = HostShared::of(&lua)?;
                let answer = shared.wait(&scope, &what, async move { native().await }).await?;
                answer.map_err(|message| mlua::Error::runtime(format!("{what}: {message}")))
            }
        })?;
        table.raw_set(name, function)?;
    }
    Ok(table)
}
