//! `setpoint.mesos`: the host's Mesos cluster, and the tasks of any framework on it.
//!
//! The host passes in who looks at the cluster ([`ClusterView`]); this is arguments, sums and tables. Reading takes the same
//! permission as running tasks there: `allow_backends` without `mesos` refuses both.

use std::sync::Arc;

use mlua::{Lua, Table};

use super::args::{Args, Problem, check_backend, outside, waiting};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::{CallScope, HostShared};
use crate::script::cluster::{ClusterQuery, ClusterTask, ClusterTotals, ClusterView};

/// Options that say which tasks.
const WHICH: &[&str] = &["name", "framework", "role", "agent"];

/// Most tasks that one call gives.
const MOST: usize = 10_000;

const NO_MASTER: &str =
    "no Mesos master is known: set `master` in `[mesos]` of the configuration, or SETPOINT_MESOS_MASTER";

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "mesos",
    doc: "The Mesos cluster of the host's `[mesos]`: as a whole, and the tasks of every framework. What the master and \
          the agents say is shared for half a second after it came. A master or an agent that does not answer raises, because a part \
          would pass for the whole.",
    types: &[
        "@class (exact) setpoint.mesos.Cluster What is used is what was given out, by the master's books.",
        "@field leader? string `host:port` of the leading master.",
        "@field version string",
        "@field agents integer Active ones.",
        "@field frameworks integer Active ones.",
        "@field tasks integer Alive, of all frameworks.",
        "@field cpus number Cores of all active agents.",
        "@field cpus_used number",
        "@field cpus_percent? number nil when there are none; likewise below.",
        "@field memory number Bytes.",
        "@field memory_used number",
        "@field memory_percent? number",
        "@field disk number Bytes.",
        "@field disk_used number",
        "@field disk_percent? number",
        "@field gpus number",
        "@field gpus_used number",
        "@field gpus_percent? number",
        "@class (exact) setpoint.mesos.Which",
        "@field name? string|string[] Names of tasks; `*` stands for anything, and one of them must match.",
        "@field framework? string|string[] Names or ids of frameworks, likewise.",
        "@field role? string|string[] Likewise.",
        "@field agent? string|string[] Host names of agents, likewise.",
        "@class (exact) setpoint.mesos.Task",
        "@field id string",
        "@field name string",
        "@field framework string Its name.",
        "@field framework_id string",
        "@field state string `staging`, `starting`, `running` or `killing`.",
        "@field agent string The host name.",
        "@field role? string",
        "@field cpus number Cores that it was given.",
        "@field memory number Bytes that it was given.",
        "@field labels table<string, string>",
        "@field started? number Seconds since 1970.",
        "@class (exact) setpoint.mesos.Stats: setpoint.mesos.Task",
        "@field cpu_percent? number Share of one core since the policy asked before.",
        "@field memory_bytes? integer In use, without page cache.",
        "@field memory_limit? integer",
        "@field memory_percent? number Of the limit.",
        "@field shared_by integer Running tasks that are measured together, those of its executor: each has an equal part.",
        "@class (exact) setpoint.mesos.Usage",
        "@field tasks integer Alive.",
        "@field running integer",
        "@field measured integer Those that run and whose CPU is known.",
        "@field cpus number Cores that they were given.",
        "@field memory number Bytes that they were given.",
        "@field cpu_percent? number Of all that run together; nil while that of one is not known.",
        "@field cpu_percent_mean? number Of those whose CPU is known.",
        "@field memory_bytes? number Of all that run together; nil while that of one is not known.",
        "@field memory_bytes_mean? number Of those whose memory is known.",
    ],
    fields: &[],
    functions: &[
        FunctionDoc {
            name: "cluster",
            params: &[],
            returns: &["setpoint.mesos.Cluster"],
            access: Access::Read,
            doc: "The cluster as a whole. While a file loads: an empty cluster.",
        },
        FunctionDoc {
            name: "tasks",
            params: &[("which?", "setpoint.mesos.Which")],
            returns: &["setpoint.mesos.Task[]"],
            access: Access::Read,
            doc: "Tasks that are alive, by name; those on agents out of reach are left out. While a file loads: an \
                  empty list.",
        },
        FunctionDoc {
            name: "stats",
            params: &[("which?", "setpoint.mesos.Which")],
            returns: &["setpoint.mesos.Stats[]"],
            access: Access::Read,
            doc: "The same with what those that run use. A figure that is not known (yet) is nil: CPU needs two calls, \
                  and each policy has its own; agents do not measure what setpoint's executor has a container engine \
                  run. While a file loads: an empty list.",
        },
        FunctionDoc {
            name: "usage",
            params: &[("which?", "setpoint.mesos.Which")],
            returns: &["setpoint.mesos.Usage"],
            access: Access::Read,
            doc: "What tasks use together: the CPU of all instances of a service, for one. While a file loads: that of \
                  no tasks.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set(
        "cluster",
        waiting(lua, "mesos.cluster", 0, |lua, scope, _| async move {
            let totals = if scope.trial {
                ClusterTotals::default()
            } else {
                ask(&lua, &scope, "mesos.cluster", |view| async move { view.totals().await }).await?
            };
            totals_table(&lua, &totals)
        })?,
    )?;
    module.raw_set(
        "tasks",
        waiting(lua, "mesos.tasks", 1, |lua, scope, args| async move {
            let query = which(&args)?;
            if scope.trial {
                return lua.create_table();
            }
            let tasks = ask(&lua, &scope, "mesos.tasks", |view| async move { view.tasks(query).await }).await?;
            rows(&lua, &args, &tasks, false)
        })?,
    )?;
    module.raw_set(
        "stats",
        waiting(lua, "mesos.stats", 1, |lua, scope, args| async move {
            let query = which(&args)?;
            if scope.trial {
                return lua.create_table();
            }
            let tasks = stats(&lua, &scope, "mesos.stats", query).await?;
            rows(&lua, &args, &tasks, true)
        })?,
    )?;
    module.raw_set(
        "usage",
        waiting(lua, "mesos.usage", 1, |lua, scope, args| async move {
            let query = which(&args)?;
            let tasks = if scope.trial { Vec::new() } else { stats(&lua, &scope, "mesos.usage", query).await? };
            usage_table(&lua, &tasks)
        })?,
    )?;
    Ok(module)
}

/// Asks whoever the host has passed in, off the script's thread.
async fn ask<T, F>(
    lua: &Lua,
    scope: &CallScope,
    function: &'static str,
    question: impl FnOnce(Arc<dyn ClusterView>) -> F,
) -> mlua::Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let shared = HostShared::of(lua)?;
    check_backend(&shared, function, &["mesos"])?;
    // In a simulation there is no outside, whether or not there is a cluster.
    let question = shared.cluster.clone().map(question);
    outside(&shared, scope, function, async move {
        match question {
            Some(question) => question.await.map_err(Problem::Failed),
            None => Err(Problem::Failed(NO_MASTER.to_owned())),
        }
    })
    .await
}

async fn stats(
    lua: &Lua,
    scope: &CallScope,
    function: &'static str,
    query: ClusterQuery,
) -> mlua::Result<Vec<ClusterTask>> {
    let caller = scope.policy.clone();
    ask(lua, scope, function, |view| async move { view.stats(caller, query).await }).await
}

fn which(args: &Args) -> mlua::Result<ClusterQuery> {
    let options = args.options(1, WHICH)?;
    let texts = |key: &str| options.texts(key, "a name or a list of names");
    Ok(ClusterQuery {
        names: texts("name")?,
        frameworks: texts("framework")?,
        roles: texts("role")?,
        agents: texts("agent")?,
    })
}

fn totals_table(lua: &Lua, totals: &ClusterTotals) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("leader", totals.leader.as_deref())?;
    table.raw_set("version", totals.version.as_str())?;
    table.raw_set("agents", totals.agents)?;
    table.raw_set("frameworks", totals.frameworks)?;
    table.raw_set("tasks", totals.tasks)?;
    for (resource, key) in [("cpus", "cpus"), ("mem", "memory"), ("disk", "disk"), ("gpus", "gpus")] {
        let amount = totals.resources.get(resource).copied().unwrap_or_default();
        table.raw_set(key, amount.total)?;
        table.raw_set(format!("{key}_used"), amount.used)?;
        let percent = (0.0 < amount.total).then(|| 100.0 * amount.used / amount.total);
        table.raw_set(format!("{key}_percent"), percent)?;
    }
    Ok(table)
}

fn rows(lua: &Lua, args: &Args, tasks: &[ClusterTask], with_stats: bool) -> mlua::Result<Table> {
    if tasks.len() > MOST {
        return Err(args.error(format!("expected at most {MOST} tasks, got {}", tasks.len())));
    }
    let table = lua.create_table_with_capacity(tasks.len(), 0)?;
    for task in tasks {
        let row = lua.create_table_with_capacity(0, 16)?;
        for (key, text) in [
            ("id", &task.id),
            ("name", &task.name),
            ("framework", &task.framework),
            ("framework_id", &task.framework_id),
            ("state", &task.state),
            ("agent", &task.agent),
        ] {
            row.raw_set(key, text.as_str())?;
        }
        row.raw_set("role", task.role.as_deref())?;
        row.raw_set("cpus", task.cpus)?;
        row.raw_set("memory", task.memory as f64)?;
        row.raw_set("started", task.started)?;
        row.raw_set(
            "labels",
            lua.create_table_from(task.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())))?,
        )?;
        if with_stats {
            let stats = &task.stats;
            row.raw_set("cpu_percent", stats.cpu_percent)?;
            row.raw_set("memory_bytes", stats.memory_bytes.map(|bytes| bytes as f64))?;
            row.raw_set("memory_limit", stats.memory_limit.map(|bytes| bytes as f64))?;
            let limited = stats.memory_bytes.zip(stats.memory_limit.filter(|limit| *limit > 0));
            row.raw_set("memory_percent", limited.map(|(used, limit)| 100.0 * used as f64 / limit as f64))?;
            row.raw_set("shared_by", task.shared_by)?;
        }
        table.raw_push(row)?;
    }
    Ok(table)
}

fn usage_table(lua: &Lua, tasks: &[ClusterTask]) -> mlua::Result<Table> {
    let running: Vec<&ClusterTask> = tasks.iter().filter(|task| is_running(task)).collect();
    let cpu: Vec<f64> = running.iter().filter_map(|task| task.stats.cpu_percent).collect();
    let memory: Vec<f64> =
        running.iter().filter_map(|task| task.stats.memory_bytes).map(|bytes| bytes as f64).collect();
    let table = lua.create_table()?;
    table.raw_set("tasks", tasks.len())?;
    table.raw_set("running", running.len())?;
    table.raw_set("measured", cpu.len())?;
    table.raw_set("cpus", tasks.iter().map(|task| task.cpus).sum::<f64>())?;
    table.raw_set("memory", tasks.iter().map(|task| task.memory as f64).sum::<f64>())?;
    for (key, figures) in [("cpu_percent", cpu), ("memory_bytes", memory)] {
        let sum: f64 = figures.iter().sum();
        table.raw_set(key, (figures.len() == running.len()).then_some(sum))?;
        table.raw_set(format!("{key}_mean"), (!figures.is_empty()).then(|| sum / figures.len() as f64))?;
    }
    Ok(table)
}

/// One that is being killed runs until it does not.
fn is_running(task: &ClusterTask) -> bool {
    matches!(task.state.as_str(), "running" | "killing")
}
