//! Tests of the modules through Lua, in a bare VM, against real files, processes, servers.

mod commands;
mod compute;
mod files;
mod requests;
#[cfg(feature = "redis")]
mod stores;
mod table;
