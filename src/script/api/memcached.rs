//! `setpoint.memcached`: what a memcached server counts.
//!
//! Each call is a connection of its own: servers come and go with the policy's tasks, and one line a tick needs no
//! pool.

use std::time::Duration;

use mlua::{Lua, Table};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::args::{Problem, outside, quoted, waiting};
use super::{Access, FunctionDoc, ModuleDoc, hosts};
use crate::script::call::HostShared;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of an answer; a real one has about two thousand.
const MOST_ANSWER: u64 = 64 << 10;

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "memcached",
    doc: "What memcached servers count. A server that cannot be reached or does not answer raises.",
    types: &[
        "@class (exact) setpoint.memcached.Options",
        "@field timeout? string|number For the connection and the answer together: `\"1s\"` unless given; the tick's \
         deadline holds anyway.",
    ],
    fields: &[],
    functions: &[FunctionDoc {
        name: "stats",
        params: &[("host", "string"), ("port", "integer"), ("options?", "setpoint.memcached.Options")],
        returns: &["table<string, number|string>"],
        access: Access::Read,
        doc: "The server's `stats` by name (`cmd_get`, `cmd_set`, `bytes`, `curr_items`, `evictions` …): what is a number \
              is one. Counters begin anew when the server does. While a file loads: an empty table.",
    }],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    const NAME: &str = "memcached.stats";
    let module = lua.create_table()?;
    let stats = waiting(lua, NAME, 3, |lua, scope, args| async move {
        let host = args.text(1, "a host's name or address")?;
        let expected = "a port from 1 to 65535";
        let port = args.number(2, expected)?;
        if port.fract() != 0.0 || !(1.0..=65535.0).contains(&port) {
            return Err(args.wrong(2, expected));
        }
        let options = args.options(3, &["timeout"])?;
        let timeout = options.duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT);
        if scope.trial {
            return lua.create_table();
        }
        let shared = HostShared::of(&lua)?;
        let port = port as u16;
        hosts::check(&shared.permissions, &host, port).map_err(|problem| problem.raise(NAME))?;
        let work = async move {
            let place = format!("{host}:{port}");
            match tokio::time::timeout(timeout, ask(host.trim_matches(['[', ']']), port)).await {
                Ok(Ok(stats)) => Ok(stats),
                Ok(Err(what)) => Err(Problem::Failed(format!("{place}: {what}"))),
                Err(_) => Err(Problem::Failed(format!("{place}: expected an answer within {timeout:?}, got none"))),
            }
        };
        let stats = outside(&shared, &scope, NAME, work).await?;
        let table = lua.create_table()?;
        for (name, value) in stats {
            match value.parse::<f64>() {
                Ok(number) if number.is_finite() => table.raw_set(name, number)?,
                _ => table.raw_set(name, value)?,
            }
        }
        Ok(table)
    })?;
    module.raw_set("stats", stats)?;
    Ok(module)
}

async fn ask(host: &str, port: u16) -> Result<Vec<(String, String)>, String> {
    let told = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::ConnectionRefused {
            "connection refused".to_owned()
        } else {
            error.to_string()
        }
    };
    let mut stream = TcpStream::connect((host, port)).await.map_err(told)?;
    stream.write_all(b"stats\r\n").await.map_err(told)?;
    let mut reader = BufReader::new(stream.take(MOST_ANSWER));
    let mut stats = Vec::new();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).await.map_err(told)?;
        let text = String::from_utf8_lossy(&line);
        match text.trim_end() {
            "END" => return Ok(stats),
            "" => return Err("expected the answer's end, got the connection's".to_owned()),
            line => {
                let stat = line.strip_prefix("STAT ").and_then(|stat| stat.split_once(' '));
                let (name, value) = stat.ok_or_else(|| format!("expected a line of stats, got {}", quoted(line)))?;
                stats.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}
