//! The world of a simulation as the fakes of a spec see it: the argument of the function that `fakes` is given.
//!
//! One object for each VM, made before the policy is loaded; what lies behind it changes at each tick. Before the first
//! one there is no world, and its fields are nil.

use std::sync::{Arc, Mutex, PoisonError};

use mlua::{AnyUserData, Lua, MetaMethod, UserData, UserDataMethods, Value};

use super::convert::{describe, did_you_mean};
use super::error::Raised;
use super::stdlib::seconds;
use super::{Ctx, Simulated};

/// Its fields, in the order of the documentation.
const KEYS: &[&str] = &["now", "trace", "running", "queue", "served", "lost"];

/// What a tick shows of it.
#[derive(Clone, Copy, Debug)]
struct Shown {
    now: f64,
    running: u32,
    simulated: Simulated,
}

/// What lies behind the object; in the VM's app data.
#[derive(Clone, Debug, Default)]
pub(super) struct World(Arc<Mutex<Option<Shown>>>);

/// The object that fakes get.
struct WorldObject(World);

impl World {
    /// The object of a VM, which is there from now on.
    pub(super) fn of(lua: &Lua) -> mlua::Result<AnyUserData> {
        let world = Self::default();
        lua.set_app_data(world.clone());
        lua.create_userdata(WorldObject(world))
    }

    /// The one that was made for a VM.
    pub(super) fn in_vm(lua: &Lua) -> Option<Self> {
        lua.app_data_ref::<Self>().map(|world| world.clone())
    }

    /// Shows a tick's world from now on.
    pub(super) fn show(&self, ctx: &Ctx, simulated: Simulated) {
        let shown = Shown { now: seconds(ctx.now), running: ctx.running, simulated };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }

    fn field(&self, key: &str) -> mlua::Result<Option<f64>> {
        let shown = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read: fn(Shown) -> f64 = match key {
            "now" => |shown| shown.now,
            "trace" => |shown| shown.simulated.trace,
            "running" => |shown| f64::from(shown.running),
            "queue" => |shown| shown.simulated.queue,
            "served" => |shown| shown.simulated.served,
            "lost" => |shown| shown.simulated.lost,
            other => {
                let hint = did_you_mean(other, KEYS.iter().copied());
                let name: String = other.chars().take(60).collect();
                return Err(Raised::wrong(format!("the world has no `{name}`{hint}")).into());
            }
        };
        Ok(shown.map(read))
    }
}

impl UserData for WorldObject {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Index, |_, this, key: Value| match &key {
            Value::String(key) => this.0.field(&key.to_string_lossy()),
            other => Err(Raised::wrong(format!("the world has no {}", describe(other))).into()),
        });
        methods.add_meta_method(MetaMethod::NewIndex, |_, _, (key, _): (Value, Value)| -> mlua::Result<()> {
            Err(Raised::wrong(format!("the world is read-only, {} cannot be set", describe(&key))).into())
        });
        methods.add_meta_method(MetaMethod::ToString, |_, _, ()| Ok("world"));
    }
}
