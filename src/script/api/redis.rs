//! `setpoint.redis`: lengths, values and commands of Redis servers.
//!
//! `connect` gives a handle and connects nothing: the first command does. Commands that only read are allowed
//! everywhere; all others are effects. Commands that would change the shared connection itself, or make it
//! wait, are refused. The connections are `redis_pool`'s.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Value as Reply};
use mlua::{IntoLua as _, Lua, MetaMethod, MultiValue, Table, UserData, UserDataMethods, Value};
use reqwest::Url;

use super::args::{Args, bytes, did_you_mean, outside, plain, quoted};
use super::redis_pool::{self, Server};
use super::{Access, FunctionDoc, ModuleDoc, hosts};
use crate::script::call::{CallScope, HostShared};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 6379;
/// Deepest nesting of a reply.
const MOST_DEPTH: usize = 16;

const fn count(name: &'static str, doc: &'static str) -> FunctionDoc {
    FunctionDoc { name, params: &[("key", "string")], returns: &["integer"], access: Access::Read, doc }
}

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "redis",
    doc: "Redis. Connections are shared and made again when they break. A server that cannot be reached or answers \
         with an error \
          raises; so does a host that the configuration does not allow.",
    types: &[
        "@class (exact) setpoint.redis.Options",
        "@field user? string",
        "@field password? string|setpoint.Secret",
        "@field timeout? string|number For connecting and each reply: `\"5s\"` unless given; the tick's deadline \
         holds anyway.",
        "@class (exact) setpoint.redis.SetOptions",
        "@field ex? string|number When the key expires, e.g. `\"60s\"`.",
        "@field nx? boolean Only when the key does not exist.",
    ],
    fields: &[],
    functions: &[
        FunctionDoc {
            name: "connect",
            params: &[("url", "string"), ("options?", "setpoint.redis.Options")],
            returns: &["setpoint.redis.Client"],
            access: Access::Pure,
            doc: "A handle of a server: `redis://host:port/database`. It connects at the first command.",
        },
        count("client:llen", "The length of a list; 0 when there is none. While a file loads: 0."),
        count("client:scard", "The number of members of a set; 0 when there is none. While a file loads: 0."),
        count("client:zcard", "The number of members of a sorted set; 0 when there is none. While a file loads: 0."),
        count("client:xlen", "The number of entries of a stream; 0 when there is none. While a file loads: 0."),
        count("client:hlen", "The number of fields of a hash; 0 when there is none. While a file loads: 0."),
        FunctionDoc {
            name: "client:exists",
            params: &[("key", "string")],
            returns: &["boolean"],
            access: Access::Read,
            doc: "Whether there is such a key. While a file loads: false.",
        },
        FunctionDoc {
            name: "client:get",
            params: &[("key", "string")],
            returns: &["string?"],
            access: Access::Read,
            doc: "A key's text, or nil. While a file loads: nil.",
        },
        FunctionDoc {
            name: "client:set",
            params: &[("key", "string"), ("value", "string|number"), ("options?", "setpoint.redis.SetOptions")],
            returns: &["boolean"],
            access: Access::Effect,
            doc: "Sets a key; false when `nx` kept it from that. In a dry run: true.",
        },
        FunctionDoc {
            name: "client:command",
            params: &[("name", "string"), ("...", "string|number")],
            returns: &["any"],
            access: Access::Effect,
            doc: "Any other command. Those that only read (LRANGE, HGET, ZCOUNT, INFO …) are reads; all others are \
                 effects, only for warmer, cooler, drain and stop, and give nil \
                  in a dry run. Commands that block, subscribe, change the connection or walk all keys are refused. \
                  Lists become \
                  tables, in which false stands for nil.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set("connect", plain(lua, "redis.connect", 2, connect)?)?;
    Ok(module)
}

fn connect(lua: &Lua, args: &Args) -> mlua::Result<Client> {
    let options = args.options(2, &["user", "password", "timeout"])?;
    let (host, port, database) = read_url(args)?;
    let user = options.text("user", "a user's name")?;
    let password = options.secret_text("password", "text or a secret")?;
    if user.is_some() && password.is_none() {
        return Err(args.error("expected a password with the user, got none"));
    }
    let server = Server { host, port, database, user, password };
    // On trial, what the host allows is not looked at: a file that asks for too much fails where it asks.
    if !CallScope::current(lua)?.trial {
        let shared = HostShared::of(lua)?;
        hosts::check(&shared.permissions, &server.host, server.port)
            .map_err(|problem| problem.raise("redis.connect"))?;
    }
    Ok(Client { server: Arc::new(server), timeout: options.duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT) })
}

fn read_url(args: &Args) -> mlua::Result<(String, u16, i64)> {
    let expected = "a URL such as \"redis://127.0.0.1:6379/0\"";
    let url = Url::parse(&args.text(1, expected)?).map_err(|_| args.wrong(1, expected))?;
    if !url.username().is_empty() || url.password().is_some() {
        // The URL itself is left out: it holds a password.
        let text = "argument 1: expected a URL without user and password (give password = secret.get(…)), got one with";
        return Err(args.error(text));
    }
    if url.scheme() == "rediss" {
        return Err(args.error("argument 1: expected redis://, got rediss:// (Redis over TLS is not supported)"));
    }
    let database = match url.path().trim_matches('/') {
        "" => Some(0),
        number => number.parse().ok().filter(|number| (0..65_536).contains(number)),
    };
    match (url.scheme(), url.host_str(), database, url.query()) {
        ("redis", Some(host), Some(database), None) if !host.is_empty() => {
            Ok((host.to_ascii_lowercase(), url.port().unwrap_or(DEFAULT_PORT), database))
        }
        _ => Err(args.wrong(1, expected)),
    }
}

/// A handle of a server.
#[derive(Clone)]
struct Client {
    server: Arc<Server>,
    timeout: Duration,
}

/// A command of a script, before it is sent.
struct Request {
    command: Cmd,
    access: Access,
    /// For errors and records: the command and its key.
    shown: String,
    /// What the reply becomes.
    shape: Shape,
}

/// What a reply becomes.
#[derive(Clone, Copy)]
enum Shape {
    Integer,
    Truth,
    Set,
    Any,
}

/// A method: its name, its most arguments (the handle among them), and how it reads them.
type Method = (&'static str, usize, fn(&Args) -> mlua::Result<Request>);

/// The handle's methods.
const METHODS: &[Method] = &[
    ("client:llen", 2, |args| of_key(args, "LLEN", Shape::Integer)),
    ("client:scard", 2, |args| of_key(args, "SCARD", Shape::Integer)),
    ("client:zcard", 2, |args| of_key(args, "ZCARD", Shape::Integer)),
    ("client:xlen", 2, |args| of_key(args, "XLEN", Shape::Integer)),
    ("client:hlen", 2, |args| of_key(args, "HLEN", Shape::Integer)),
    ("client:exists", 2, |args| of_key(args, "EXISTS", Shape::Truth)),
    ("client:get", 2, |args| of_key(args, "GET", Shape::Any)),
    ("client:set", 4, set),
    ("client:command", 257, command),
];

impl UserData for Client {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        for (name, most, read) in METHODS {
            methods.add_async_function(name.trim_start_matches("client:"), move |lua, mut values: MultiValue| {
                // All of this happens before the script is suspended, while its coroutine can be told.
                let begun = CallScope::current(&lua).and_then(|scope| {
                    let client = values
                        .pop_front()
                        .as_ref()
                        .and_then(Value::as_userdata)
                        .and_then(|handle| handle.borrow::<Self>().ok().map(|client| client.clone()));
                    let Some(client) = client else {
                        return Err(mlua::Error::runtime(format!(
                            "{name}: expected a call with a colon, got one with a dot"
                        )));
                    };
                    let request = read(&Args::new(name, values, most - 1)?)?;
                    Ok((scope, client, request))
                });
                async move {
                    let (scope, client, request) = begun?;
                    client.carry_out(&lua, &scope, name, request).await
                }
            });
        }
        methods.add_meta_method(MetaMethod::ToString, |_, client, ()| Ok(client.server.to_string()));
        methods.add_meta_method(MetaMethod::Index, |_, _, key: Value| -> mlua::Result<Value> {
            let known = METHODS.iter().map(|(name, ..)| name.trim_start_matches("client:"));
            let name = super::args::text(&key).unwrap_or_default();
            let near = did_you_mean(&name, known);
            Err(mlua::Error::runtime(format!("a redis client has no method {}{near}", super::args::describe(&key))))
        });
    }
}

impl Client {
    async fn carry_out(
        &self,
        lua: &Lua,
        scope: &CallScope,
        name: &'static str,
        request: Request,
    ) -> mlua::Result<Value> {
        if scope.trial {
            return Ok(request.shape.stub());
        }
        let shared = HostShared::of(lua)?;
        hosts::check(&shared.permissions, &self.server.host, self.server.port)
            .map_err(|problem| problem.raise(name))?;
        let is_read = request.access == Access::Read;
        if !is_read && !scope.effect(|| format!("{name} {} at {}", request.shown, self.server))? {
            return Ok(request.shape.stub());
        }
        let (host, server, timeout) = (Arc::clone(&shared), Arc::clone(&self.server), self.timeout);
        let work = async move { redis_pool::query(&host, &server, request.command, timeout, is_read).await };
        let reply = outside(&shared, scope, name, work).await?;
        request.shape.read(lua, name, reply)
    }
}

fn of_key(args: &Args, command: &str, shape: Shape) -> mlua::Result<Request> {
    let key = args.bytes(1, "a key")?;
    let shown = format!("{command} {}", quoted(&String::from_utf8_lossy(&key)));
    let mut cmd = ::redis::cmd(command);
    cmd.arg(key);
    Ok(Request { command: cmd, access: Access::Read, shown, shape })
}

fn set(args: &Args) -> mlua::Result<Request> {
    let mut request = of_key(args, "SET", Shape::Set)?;
    request.access = Access::Effect;
    request.command.arg(args.bytes(2, "text or a number")?);
    let options = args.options(3, &["ex", "nx"])?;
    if let Some(expiry) = options.duration("ex")? {
        request.command.arg("PX").arg(u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX).max(1));
    }
    if options.boolean("nx")? == Some(true) {
        request.command.arg("NX");
    }
    Ok(request)
}

/// Commands that change nothing and answer at once.
const READS: &[&str] = &[
    "BITCOUNT",
    "BITPOS",
    "DBSIZE",
    "ECHO",
    "EXISTS",
    "EXPIRETIME",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HRANDFIELD",
    "HSCAN",
    "HSTRLEN",
    "HVALS",
    "INFO",
    "LASTSAVE",
    "LINDEX",
    "LLEN",
    "LPOS",
    "LRANGE",
    "MGET",
    "PEXPIRETIME",
    "PFCOUNT",
    "PING",
    "PTTL",
    "ROLE",
    "SCAN",
    "SCARD",
    "SDIFF",
    "SINTER",
    "SINTERCARD",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SRANDMEMBER",
    "SSCAN",
    "STRLEN",
    "SUNION",
    "TIME",
    "TTL",
    "TYPE",
    "XINFO",
    "XLEN",
    "XPENDING",
    "XRANGE",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZLEXCOUNT",
    "ZMSCORE",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
];

/// Commands that a connection shared by many callers cannot have, or that hold up the whole server.
const REFUSED: &[&str] = &[
    "ASKING",
    "AUTH",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "CLIENT",
    "DEBUG",
    "DISCARD",
    "EXEC",
    "HELLO",
    "KEYS",
    "MIGRATE",
    "MONITOR",
    "MULTI",
    "PSUBSCRIBE",
    "PSYNC",
    "PUNSUBSCRIBE",
    "QUIT",
    "READONLY",
    "READWRITE",
    "REPLCONF",
    "RESET",
    "SELECT",
    "SHUTDOWN",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "SUNSUBSCRIBE",
    "SYNC",
    "UNSUBSCRIBE",
    "UNWATCH",
    "WAIT",
    "WAITAOF",
    "WATCH",
];

fn command(args: &Args) -> mlua::Result<Request> {
    let expected = "the name of a command, such as \"LRANGE\"";
    let name = args.text(1, expected)?.to_ascii_uppercase();
    if name.is_empty()
        || name.len() > 64
        || !name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
    {
        return Err(args.wrong(1, expected));
    }
    let mut words = Vec::new();
    for n in 2..=args.len() {
        words.push(bytes(&args.value(n)).ok_or_else(|| args.wrong(n, "text or a number"))?);
    }
    let blocks = name.starts_with("XREAD") && words.iter().any(|word| word.eq_ignore_ascii_case(b"BLOCK"));
    if blocks || REFUSED.contains(&name.as_str()) {
        let instead = if name == "KEYS" { " (use SCAN)" } else { "" };
        return Err(args
            .error(format!("expected a command that neither blocks nor changes the connection, got {name}{instead}")));
    }
    let access = if READS.binary_search(&name.as_str()).is_ok() { Access::Read } else { Access::Effect };
    let key = words.first().map(|key| format!(" {}", quoted(&String::from_utf8_lossy(key)))).unwrap_or_default();
    let mut command = ::redis::cmd(&name);
    for word in words {
        command.arg(word);
    }
    Ok(Request { command, access, shown: format!("{name}{key}"), shape: Shape::Any })
}

impl Shape {
    /// What a command gives that is not sent.
    fn stub(self) -> Value {
        match self {
            Self::Integer => Value::Integer(0),
            Self::Truth => Value::Boolean(false),
            Self::Set => Value::Boolean(true),
            Self::Any => Value::Nil,
        }
    }

    fn read(self, lua: &Lua, name: &str, reply: Reply) -> mlua::Result<Value> {
        match (self, reply) {
            (Self::Integer, Reply::Int(number)) => Ok(Value::Number(number as f64)),
            (Self::Truth, Reply::Int(number)) => Ok(Value::Boolean(number != 0)),
            (Self::Set, Reply::Okay) => Ok(Value::Boolean(true)),
            (Self::Set, Reply::Nil) => Ok(Value::Boolean(false)),
            (Self::Any, reply) => any(lua, name, reply, 0),
            (_, other) => {
                let got = redis_pool::line(&format!("{other:?}"));
                Err(mlua::Error::runtime(format!("{name}: expected the reply of a Redis server, got {got}")))
            }
        }
    }
}

fn any(lua: &Lua, name: &str, reply: Reply, depth: usize) -> mlua::Result<Value> {
    if depth > MOST_DEPTH {
        return Err(mlua::Error::runtime(format!("{name}: expected a reply of at most {MOST_DEPTH} levels, got more")));
    }
    match reply {
        Reply::Nil => Ok(Value::Nil),
        Reply::Int(number) => Ok(Value::Number(number as f64)),
        Reply::Double(number) => Ok(Value::Number(number)),
        Reply::Boolean(truth) => Ok(Value::Boolean(truth)),
        Reply::Okay => "OK".into_lua(lua),
        Reply::SimpleString(text) | Reply::VerbatimString { text, .. } => text.into_lua(lua),
        Reply::BulkString(bytes) | Reply::BigNumber(bytes) => lua.create_string(bytes).map(Value::String),
        Reply::Array(elements) | Reply::Set(elements) => {
            let table = lua.create_table()?;
            for element in elements {
                // A hole would end the list, so false stands for nil.
                let value = any(lua, name, element, depth + 1)?;
                table.raw_push(if value.is_nil() { Value::Boolean(false) } else { value })?;
            }
            Ok(Value::Table(table))
        }
        Reply::Map(entries) => {
            let table = lua.create_table()?;
            for (key, value) in entries {
                let key = any(lua, name, key, depth + 1)?;
                table.raw_set(key, any(lua, name, value, depth + 1)?)?;
            }
            Ok(Value::Table(table))
        }
        Reply::ServerError(error) => Err(mlua::Error::runtime(format!("{name}: {}", redis_pool::server_error(&error)))),
        _ => Err(mlua::Error::runtime(format!("{name}: expected a plain reply, got another kind"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_reads_is_sorted_and_no_read_is_refused() {
        assert!(READS.is_sorted());
        assert!(READS.iter().all(|name| !REFUSED.contains(name)));
    }
}
