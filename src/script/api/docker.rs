//! `setpoint.docker`: containers that the policy does not own, what they use, and how to start more like them; and
//! the services of a Swarm.
//!
//! The host passes in who looks at engines ([`Containers`]); this is arguments and tables. Reading containers takes
//! the same permission as running them: `allow_backends` without `docker` refuses both. Services can be read where
//! either of `docker` and `swarm` is allowed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Table, Value};
use tokio::time::Instant;

use super::args::{Args, Options, Problem, check_backend, outside, text, waiting};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::{CallScope, HostShared};
use crate::script::containers::{
    COMPOSE_PROJECT, COMPOSE_SERVICE, ContainerQuery, ContainerRow, ContainerTemplate, Containers, ServiceRow,
};
use crate::script::ctx::set_figures;

/// Options that say which containers.
const WHICH: &[&str] = &["name", "label", "project", "service", "engine", "all"];

/// Options that say which services.
const WHICH_SERVICE: &[&str] = &["name", "label"];

/// Backends one of which must be allowed for a look at containers, and at services.
const FOR_CONTAINERS: &[&str] = &["docker"];
const FOR_SERVICES: &[&str] = &["docker", "swarm"];

/// Longest wait for figures that an engine has to be asked for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most containers, or services, that one call gives.
const MOST: usize = 10_000;

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "docker",
    doc: "Containers of the host's Docker engines, and services of their Swarm, that the policy need not own. An \
          engine that does not answer raises, because a part of a group would pass for all of it.",
    types: &[
        "@class (exact) setpoint.docker.Which",
        "@field name? string|string[] Names; `*` stands for anything, and one of them must match.",
        "@field label? string|string[]|table<string, string|true> `\"key\"` or `\"key=value\"`; all of them must hold.",
        "@field project? string A Compose project.",
        "@field service? string A Compose service.",
        "@field engine? string The host's name for an engine; all of them unless given.",
        "@field all? boolean Also those that do not run.",
        "@class (exact) setpoint.docker.Container",
        "@field id string",
        "@field name string",
        "@field image string",
        "@field labels table<string, string>",
        "@field project? string Of Compose.",
        "@field service? string Of Compose.",
        "@field state string The engine's word: `running`, `paused`, `exited` …",
        "@field engine string",
        "@class (exact) setpoint.docker.WhichService",
        "@field name? string|string[] Names; `*` stands for anything, and one of them must match.",
        "@field label? string|string[]|table<string, string|true> The service's own labels, not its containers'.",
        "@class (exact) setpoint.docker.Service",
        "@field id string",
        "@field name string",
        "@field labels table<string, string> Its own, not its containers'.",
        "@field replicas? integer The number of tasks that is wanted; nil where one runs on every node.",
        "@class (exact) setpoint.docker.Stats: setpoint.docker.Container",
        "@field cpu_percent? number Share of one core since the policy asked before, as `docker stats` has it.",
        "@field memory_bytes? integer In use, without idle page cache.",
        "@field memory_limit? integer Its limit, or the machine's memory.",
        "@field memory_percent? number Of the limit.",
        "@field network_received? integer Bytes since it started; nil without a network of its own.",
        "@field network_sent? integer",
        "@field block_read? integer Bytes since it started.",
        "@field block_written? integer",
        "@field pids? integer Processes and threads.",
    ],
    fields: &[],
    functions: &[
        FunctionDoc {
            name: "stats",
            params: &[("which?", "setpoint.docker.Which")],
            returns: &["setpoint.docker.Stats[]"],
            access: Access::Read,
            doc: "Running containers, by name, with what they use. A figure that is not known (yet) is nil: CPU needs \
                  two calls, and each policy has its own. While a file loads: an empty list.",
        },
        FunctionDoc {
            name: "containers",
            params: &[("which?", "setpoint.docker.Which")],
            returns: &["setpoint.docker.Container[]"],
            access: Access::Read,
            doc: "Containers, by name: those that run, or with `all` every one. While a file loads: an empty list.",
        },
        FunctionDoc {
            name: "template",
            params: &[("container", "string"), ("engine?", "string")],
            returns: &["table<string, any>?"],
            access: Access::Read,
            doc: "The words of a workload that start another container like this one, found by name or id: image, \
                  entrypoint, command, env, labels, limits, network, volumes, ports (published on free ones) … Not \
                  its health check and restart policy. nil when there is no such container. While a file loads: nil.",
        },
        FunctionDoc {
            name: "services",
            params: &[("which?", "setpoint.docker.WhichService")],
            returns: &["setpoint.docker.Service[]?"],
            access: Access::Read,
            doc: "Services of the Swarm whose manager the host knows, by name. nil when there is no Swarm. While a \
                  file loads: nil.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set(
        "stats",
        waiting(lua, "docker.stats", 1, |lua, scope, args| async move {
            let query = which(&args)?;
            if scope.trial {
                return lua.create_table();
            }
            // Half of the time is the script's own.
            let left = scope.deadline.saturating_duration_since(Instant::now()) / 2;
            let (caller, patience) = (scope.policy.clone(), left.min(PATIENCE));
            let rows = ask(&lua, &scope, "docker.stats", FOR_CONTAINERS, |containers| async move {
                containers.stats(caller, query, patience).await
            });
            rows_table(&lua, "docker.stats", &rows.await?, true)
        })?,
    )?;
    module.raw_set(
        "containers",
        waiting(lua, "docker.containers", 1, |lua, scope, args| async move {
            let query = which(&args)?;
            if scope.trial {
                return lua.create_table();
            }
            let list = |containers: Arc<dyn Containers>| async move { containers.list(query).await };
            let rows = ask(&lua, &scope, "docker.containers", FOR_CONTAINERS, list);
            rows_table(&lua, "docker.containers", &rows.await?, false)
        })?,
    )?;
    module.raw_set(
        "template",
        waiting(lua, "docker.template", 2, |lua, scope, args| async move {
            let container = args.text(1, "a container's name or id")?;
            let engine = args.text_if_given(2, "an engine's name")?;
            if scope.trial {
                return Ok(None);
            }
            let found = ask(&lua, &scope, "docker.template", FOR_CONTAINERS, |containers| async move {
                containers.template(container, engine).await
            });
            found.await?.map(|template| template_table(&lua, &template)).transpose()
        })?,
    )?;
    module.raw_set(
        "services",
        waiting(lua, "docker.services", 1, |lua, scope, args| async move {
            let query = named_and_labelled(&args.options(1, WHICH_SERVICE)?)?;
            if scope.trial {
                return Ok(None);
            }
            let services = |containers: Arc<dyn Containers>| async move { containers.services(query).await };
            let found = ask(&lua, &scope, "docker.services", FOR_SERVICES, services);
            found.await?.map(|rows| services_table(&lua, &rows)).transpose()
        })?,
    )?;
    Ok(module)
}

/// Asks whoever the host has passed in, off the script's thread.
async fn ask<T, F>(
    lua: &Lua,
    scope: &CallScope,
    function: &'static str,
    backends: &[&str],
    question: impl FnOnce(Arc<dyn Containers>) -> F,
) -> mlua::Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let shared = HostShared::of(lua)?;
    check_backend(&shared, function, backends)?;
    let Some(containers) = shared.containers.clone() else {
        return Err(Problem::Failed("this host looks at no container engine".to_owned()).raise(function));
    };
    let question = question(containers);
    outside(&shared, scope, function, async move { question.await.map_err(Problem::Failed) }).await
}

fn which(args: &Args) -> mlua::Result<ContainerQuery> {
    let options = args.options(1, WHICH)?;
    let mut query = named_and_labelled(&options)?;
    for (key, label) in [("project", COMPOSE_PROJECT), ("service", COMPOSE_SERVICE)] {
        query.labels.extend(options.text(key, "a name")?.map(|value| (label.to_owned(), Some(value))));
    }
    query.engine = options.text("engine", "an engine's name")?;
    query.all = options.boolean("all")?.unwrap_or(false);
    Ok(query)
}

fn named_and_labelled(options: &Options) -> mlua::Result<ContainerQuery> {
    let names = options.texts("name", "a name or a list of names")?;
    Ok(ContainerQuery { names, labels: labels(options)?, ..ContainerQuery::default() })
}

fn labels(options: &Options) -> mlua::Result<Vec<(String, Option<String>)>> {
    let expected = "\"key\", \"key=value\", a list of these or a table of keys and values";
    let pair = |text: String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text, None),
    };
    if let Value::Table(table) = options.value("label")?
        && table.raw_len() == 0
    {
        let mut labels = Vec::new();
        for entry in table.pairs::<Value, Value>() {
            let (key, value) = entry?;
            let value = if value == Value::Boolean(true) { Some(None) } else { text(&value).map(Some) };
            let Some((key, value)) = text(&key).zip(value) else {
                return Err(options.wrong("label", expected, &Value::Table(table)));
            };
            labels.push((key, value));
        }
        if labels.is_empty() {
            return Err(options.wrong("label", expected, &Value::Table(table)));
        }
        return Ok(labels);
    }
    Ok(options.texts("label", expected)?.into_iter().map(pair).collect())
}

fn services_table(lua: &Lua, rows: &[ServiceRow]) -> mlua::Result<Table> {
    check_number("docker.services", "services", rows.len())?;
    let table = lua.create_table_with_capacity(rows.len(), 0)?;
    for row in rows {
        let one = lua.create_table_with_capacity(0, 4)?;
        one.raw_set("id", row.id.as_str())?;
        one.raw_set("name", row.name.as_str())?;
        one.raw_set("labels", labels_table(lua, &row.labels)?)?;
        one.raw_set("replicas", row.replicas)?;
        table.raw_push(one)?;
    }
    Ok(table)
}

fn labels_table(lua: &Lua, labels: &BTreeMap<String, String>) -> mlua::Result<Table> {
    lua.create_table_from(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn check_number(function: &str, what: &str, number: usize) -> mlua::Result<()> {
    if number > MOST {
        return Err(mlua::Error::runtime(format!("{function}: expected at most {MOST} {what}, got {number}")));
    }
    Ok(())
}

fn rows_table(lua: &Lua, function: &str, rows: &[ContainerRow], with_stats: bool) -> mlua::Result<Table> {
    check_number(function, "containers", rows.len())?;
    let table = lua.create_table_with_capacity(rows.len(), 0)?;
    for row in rows {
        let one = lua.create_table_with_capacity(0, 16)?;
        one.raw_set("id", row.id.as_str())?;
        one.raw_set("name", row.name.as_str())?;
        one.raw_set("image", row.image.as_str())?;
        one.raw_set("state", row.state.as_str())?;
        one.raw_set("engine", row.engine.as_str())?;
        one.raw_set("labels", labels_table(lua, &row.labels)?)?;
        for (key, label) in [("project", COMPOSE_PROJECT), ("service", COMPOSE_SERVICE)] {
            one.raw_set(key, row.labels.get(label).map(String::as_str))?;
        }
        if with_stats {
            set_stats(&one, row)?;
        }
        table.raw_push(one)?;
    }
    Ok(table)
}

fn set_stats(row: &Table, container: &ContainerRow) -> mlua::Result<()> {
    let stats = &container.stats;
    row.raw_set("cpu_percent", stats.cpu_percent)?;
    let share = stats.memory_bytes.zip(stats.memory_limit).map(|(used, limit)| 100.0 * used as f64 / limit as f64);
    row.raw_set("memory_percent", share)?;
    set_figures(row, "memory_bytes", stats)
}

/// Words that the container has nothing to say to are left out.
fn template_table(lua: &Lua, template: &ContainerTemplate) -> mlua::Result<Table> {
    let ContainerTemplate { blueprint, engine } = template;
    let table = lua.create_table()?;
    table.raw_set("image", blueprint.image.as_str())?;
    table.raw_set("engine", engine.as_str())?;
    let lists = [
        ("entrypoint", &blueprint.entrypoint),
        ("command", &blueprint.command),
        ("volumes", &blueprint.volumes),
        ("tmpfs", &blueprint.tmpfs),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        table.raw_set(key, list.clone())?;
    }
    for (key, map) in [("env", &blueprint.env), ("labels", &blueprint.labels)] {
        if !map.is_empty() {
            table.raw_set(key, map.clone())?;
        }
    }
    for (key, text) in [("cwd", &blueprint.cwd), ("user", &blueprint.user), ("network", &blueprint.network)] {
        table.raw_set(key, text.as_deref())?;
    }
    table.raw_set("cpus", blueprint.cpus)?;
    table.raw_set("memory", blueprint.memory.map(|bytes| format!("{bytes}B")))?;
    table.raw_set("pids", blueprint.pids)?;
    for (key, flag) in [("privileged", blueprint.privileged), ("init", blueprint.init)] {
        table.raw_set(key, flag.then_some(true))?;
    }
    if !blueprint.ports.is_empty() {
        let ports = lua.create_table()?;
        for (inside, protocol) in &blueprint.ports {
            let port = lua.create_table()?;
            port.raw_set("inside", *inside)?;
            port.raw_set("protocol", protocol.as_str())?;
            ports.raw_set(format!("{}{inside}", protocol.as_str()), port)?;
        }
        table.raw_set("ports", ports)?;
    }
    Ok(table)
}
