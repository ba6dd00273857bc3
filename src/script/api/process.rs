//! `setpoint.process`: the processes and the load of the machine that the host runs on. Linux only.
//!
//! Command lines can be matched and are not given out: they may hold what other users typed into them.

use mlua::{IntoLua, Lua, Table};

use super::args::{Args, Problem, blocking, text, waiting};
use super::proc::{self, CpuTimes, Process};
use super::{ModuleDoc, read};
use crate::script::call::HostShared;

/// Most processes that `list` gives.
const MOST_LISTED: usize = 10_000;

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "process",
    doc: "Processes and load of the machine that setpoint runs on (Linux). setpoint itself and zombies are left out.",
    types: &[
        "@class (exact) setpoint.process.Filter",
        "@field name? string The program's name as the kernel keeps it: its first 15 characters.",
        "@field command? string A part of the command line, as it is.",
        "@class (exact) setpoint.process.Process",
        "@field pid integer",
        "@field parent integer",
        "@field name string",
        "@field started number Seconds since 1970.",
        "@field cpu_seconds number CPU time used so far.",
        "@field memory integer Resident bytes.",
        "@class (exact) setpoint.process.Memory",
        "@field total integer Bytes, as all of these.",
        "@field available integer What can be had without swapping.",
        "@field used integer total − available.",
        "@field swap_total integer",
        "@field swap_free integer",
        "@field used_percent number",
        "@class (exact) setpoint.process.Load",
        "@field one number Over the last minute.",
        "@field five number Over five minutes.",
        "@field fifteen number Over fifteen minutes.",
    ],
    fields: &[],
    functions: &[
        read(
            "count",
            &[("filter?", "string|setpoint.process.Filter")],
            &["integer"],
            "How many processes there are whose command line holds a text, or that a filter names. While a file \
             loads: 0.",
        ),
        read(
            "list",
            &[("filter?", "string|setpoint.process.Filter")],
            &["setpoint.process.Process[]"],
            "Those processes, by pid; more than 10,000 raise. While a file loads: an empty list.",
        ),
        read(
            "cpu_percent",
            &[],
            &["number?"],
            "How busy all cores were, 0 to 100, since the policy file asked before (at least 0.2 s ago). The first \
             call gives nil.",
        ),
        read("loadavg", &[], &["setpoint.process.Load"], "The kernel's load averages. While a file loads: zeros."),
        read("memory", &[], &["setpoint.process.Memory"], "Memory of the machine. While a file loads: zeros."),
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set("count", query(lua, "process.count", 1, |filter| Ok(filter.find()?.len()), 0)?)?;
    module.raw_set("list", query(lua, "process.list", 1, Filter::list, Vec::new())?)?;
    module.raw_set("loadavg", query(lua, "process.loadavg", 0, |_| proc::loadavg().map(Load), Load::default())?)?;
    module.raw_set("memory", query(lua, "process.memory", 0, |_| proc::memory(), proc::Memory::default())?)?;
    module.raw_set(
        "cpu_percent",
        waiting(lua, "process.cpu_percent", 0, |lua, scope, _| async move {
            if scope.trial {
                return Ok(None);
            }
            let shared = HostShared::of(&lua)?;
            let now = blocking(&shared, &scope, "process.cpu_percent", proc::cpu_times).await?;
            Ok(cpu_percent(&lua, now))
        })?,
    )?;
    Ok(module)
}

/// Makes one function: read the filter, then do `work` off the script's thread; `stub` is for a trial.
fn query<T>(
    lua: &Lua,
    name: &'static str,
    most: usize,
    work: fn(&Filter) -> Result<T, Problem>,
    stub: T,
) -> mlua::Result<mlua::Function>
where
    T: IntoLua + Clone + Send + Sync + 'static,
{
    waiting(lua, name, most, move |lua, scope, args| {
        let stub = stub.clone();
        async move {
            let filter = Filter::read(&args)?;
            if scope.trial {
                return Ok(stub);
            }
            let shared = HostShared::of(&lua)?;
            blocking(&shared, &scope, name, move || work(&filter)).await
        }
    })
}

/// Which processes are meant.
#[derive(Debug, Default)]
struct Filter {
    name: Option<String>,
    command: Option<String>,
}

impl Filter {
    fn read(args: &Args) -> mlua::Result<Self> {
        if let Some(command) = text(&args.value(1)) {
            return Ok(Self { name: None, command: Some(command) });
        }
        let options = args.options(1, &["name", "command"])?;
        // The kernel keeps 15 bytes of a name, so a longer one is compared by those.
        let name = options.text("name", "a program's name")?;
        let name = name.map(|name| {
            name.chars()
                .scan(0, |n, c| {
                    *n += c.len_utf8();
                    (*n <= 15).then_some(c)
                })
                .collect()
        });
        Ok(Self { name, command: options.text("command", "a part of a command line")? })
    }

    fn find(&self) -> Result<Vec<Process>, Problem> {
        let mut found = proc::processes()?;
        found.retain(|process| {
            self.name.as_ref().is_none_or(|name| process.name == *name)
                && self.command.as_ref().is_none_or(|part| process.command.contains(part.as_str()))
        });
        Ok(found)
    }

    fn list(&self) -> Result<Vec<Process>, Problem> {
        let found = self.find()?;
        if found.len() > MOST_LISTED {
            return Err(Problem::Failed(format!("expected at most {MOST_LISTED} processes, got {}", found.len())));
        }
        Ok(found)
    }
}

/// The last two readings, in a VM's app data, at least 0.2 s apart.
#[derive(Clone, Copy)]
struct CpuReadings {
    older: Option<CpuTimes>,
    newer: CpuTimes,
}

/// How busy the machine was since the newest reading that is old enough. Rows of a fleet that ask one right
/// after another thus get the same span, and not one of no length.
fn cpu_percent(lua: &Lua, now: CpuTimes) -> Option<f64> {
    let Some(readings) = lua.app_data_ref::<CpuReadings>().map(|readings| *readings) else {
        lua.set_app_data(CpuReadings { older: None, newer: now });
        return None;
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let shortest = (rustix::param::clock_ticks_per_second() * cores / 5).max(1);
    let since = |base: CpuTimes| now.total.saturating_sub(base.total);
    let base = if since(readings.newer) >= shortest {
        lua.set_app_data(CpuReadings { older: Some(readings.newer), newer: now });
        readings.newer
    } else {
        readings.older?
    };
    let total = since(base).max(1);
    let busy = now.busy.saturating_sub(base.busy).min(total);
    Some(100.0 * busy as f64 / total as f64)
}

impl IntoLua for Process {
    fn into_lua(self, lua: &Lua) -> mlua::Result<mlua::Value> {
        let table = lua.create_table()?;
        table.raw_set("pid", self.pid)?;
        table.raw_set("parent", self.parent)?;
        table.raw_set("name", self.name)?;
        table.raw_set("started", self.started)?;
        table.raw_set("cpu_seconds", self.cpu_seconds)?;
        table.raw_set("memory", self.memory)?;
        table.into_lua(lua)
    }
}

impl IntoLua for proc::Memory {
    fn into_lua(self, lua: &Lua) -> mlua::Result<mlua::Value> {
        let used = self.total.saturating_sub(self.available);
        let table = lua.create_table()?;
        table.raw_set("total", self.total)?;
        table.raw_set("available", self.available)?;
        table.raw_set("used", used)?;
        table.raw_set("swap_total", self.swap_total)?;
        table.raw_set("swap_free", self.swap_free)?;
        table.raw_set("used_percent", if self.total == 0 { 0.0 } else { 100.0 * used as f64 / self.total as f64 })?;
        table.into_lua(lua)
    }
}

/// Load averages over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Default)]
struct Load([f64; 3]);

impl IntoLua for Load {
    fn into_lua(self, lua: &Lua) -> mlua::Result<mlua::Value> {
        let table = lua.create_table()?;
        for (key, load) in ["one", "five", "fifteen"].into_iter().zip(self.0) {
            table.raw_set(key, load)?;
        }
        table.into_lua(lua)
    }
}
