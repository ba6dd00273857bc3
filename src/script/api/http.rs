//! `setpoint.http`: requests of scripts. GET and HEAD are reads, everything else is an effect.
//!
//! Any answer is a response, whatever its status; but `response:json()` and `response:number()` raise unless
//! the status is 2xx, so that an error page never becomes a sample. The work is in `http_client`.

use std::time::Duration;

use mlua::{Lua, Table, Value};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use reqwest::{Method, Url};

use super::args::{Args, Options, describe, outside, plain, quoted, text, waiting};
use super::http_client::{self, Auth, Request, Response};
use super::secret::SecretText;
use super::{Access, FunctionDoc, ModuleDoc, json};
use crate::script::call::HostShared;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const OPTIONS: &[&str] = &["headers", "query", "body", "json", "basic", "bearer", "timeout", "max_body", "follow"];
const URL_PARAMS: &[(&str, &str)] = &[("url", "string"), ("options?", "setpoint.http.Options")];

const fn verb(name: &'static str, access: Access, doc: &'static str) -> FunctionDoc {
    FunctionDoc { name, params: URL_PARAMS, returns: &["setpoint.http.Response"], access, doc }
}

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "http",
    doc: "HTTP requests. Connections are kept and shared. A connection that fails, an answer that is late or too \
         large, and a host \
          that the configuration does not allow raise; a status never does by itself.",
    types: &[
        "@class (exact) setpoint.http.Options",
        "@field headers? table<string, string|setpoint.Secret>",
        "@field query? table<string, string|number|boolean> Added to the URL's own query, encoded.",
        "@field body? string",
        "@field json? any Sent as JSON, with its content type. Not together with `body`.",
        "@field basic? setpoint.http.Basic",
        "@field bearer? string|setpoint.Secret",
        "@field timeout? string|number For all of it, redirects too: `\"5s\"` unless given; the tick's deadline \
         holds anyway.",
        "@field max_body? string|number Most bytes of the answer, e.g. `\"64KiB\"`; the host's `body` limit (4 MiB) \
         unless given.",
        "@field follow? boolean Whether to follow redirects, at most 5; true unless given. Secrets stay with the \
         first origin.",
        "@class (exact) setpoint.http.Basic",
        "@field user string",
        "@field password string|setpoint.Secret",
        "@class (exact) setpoint.http.Response",
        "@field status integer",
        "@field ok boolean Whether the status is 2xx.",
        "@field headers table<string, string> Names in lower case.",
        "@field body string",
        "@field url string Where the answer came from, without its query.",
        "@field stub? boolean True when nothing was sent: in a dry run, or while a file loads.",
    ],
    fields: &[],
    functions: &[
        verb("get", Access::Read, "A GET request. While a file loads: status 200 and an empty body."),
        verb("head", Access::Read, "A HEAD request. While a file loads: status 200."),
        verb("post", Access::Effect, "A POST request. In a dry run: status 200, an empty body, `stub = true`."),
        verb("put", Access::Effect, "A PUT request. In a dry run: status 200, an empty body, `stub = true`."),
        verb("patch", Access::Effect, "A PATCH request. In a dry run: status 200, an empty body, `stub = true`."),
        verb("delete", Access::Effect, "A DELETE request. In a dry run: status 200, an empty body, `stub = true`."),
        FunctionDoc {
            name: "request",
            params: &[("method", "string"), ("url", "string"), ("options?", "setpoint.http.Options")],
            returns: &["setpoint.http.Response"],
            access: Access::Effect,
            doc: "A request by any of these methods, or OPTIONS. GET and HEAD are reads here too, the others only \
                 for warmer, cooler, drain and stop.",
        },
        FunctionDoc {
            name: "response:json",
            params: &[],
            returns: &["any"],
            access: Access::Pure,
            doc: "The body as JSON. Raises unless the status is 2xx. A stub gives an empty table.",
        },
        FunctionDoc {
            name: "response:number",
            params: &[],
            returns: &["number"],
            access: Access::Pure,
            doc: "The body as a finite number, white space around it ignored. Raises unless the status is 2xx. A \
                 stub gives 0.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let methods = lua.create_table()?;
    methods.raw_set("json", plain(lua, "response:json", 1, response_json)?)?;
    methods.raw_set("number", plain(lua, "response:number", 1, response_number)?)?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", methods)?;
    meta.raw_set("__metatable", false)?;
    for (name, method) in [
        ("http.get", Method::GET),
        ("http.head", Method::HEAD),
        ("http.post", Method::POST),
        ("http.put", Method::PUT),
        ("http.patch", Method::PATCH),
        ("http.delete", Method::DELETE),
    ] {
        let meta = meta.clone();
        let function = waiting(lua, name, 2, move |lua, scope, args| {
            let (method, meta) = (method.clone(), meta.clone());
            async move {
                let request = read_request(&lua, &args, method, 1)?;
                carry_out(lua, scope, name, request, meta).await
            }
        })?;
        module.raw_set(name.trim_start_matches("http."), function)?;
    }
    let request = waiting(lua, "http.request", 3, move |lua, scope, args| {
        let meta = meta.clone();
        async move {
            let method = read_method(&args)?;
            let request = read_request(&lua, &args, method, 2)?;
            carry_out(lua, scope, "http.request", request, meta).await
        }
    })?;
    module.raw_set("request", request)?;
    Ok(module)
}

async fn carry_out(
    lua: Lua,
    scope: std::sync::Arc<crate::script::call::CallScope>,
    name: &'static str,
    request: Request,
    meta: Table,
) -> mlua::Result<Table> {
    let is_read = request.method == Method::GET || request.method == Method::HEAD;
    if scope.trial {
        return stub(&lua, &request, &meta);
    }
    let shared = HostShared::of(&lua)?;
    // Refused before it is recorded: a dry run should tell what would not be allowed.
    http_client::check(&shared.permissions, &request.url).map_err(|problem| problem.raise(name))?;
    let in_words = || format!("{name} {} {}", request.method, http_client::shown(&request.url));
    if !is_read && !scope.effect(in_words)? {
        return stub(&lua, &request, &meta);
    }
    let host = std::sync::Arc::clone(&shared);
    let response = outside(&shared, &scope, name, async move { http_client::send(&host, request).await }).await?;
    table(&lua, response, &meta)
}

fn read_method(args: &Args) -> mlua::Result<Method> {
    let expected = "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";
    Ok(match args.text(1, expected)?.to_ascii_uppercase().as_str() {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        "OPTIONS" => Method::OPTIONS,
        _ => return Err(args.wrong(1, expected)),
    })
}

/// Reads a URL at argument `n` and the options after it.
fn read_request(lua: &Lua, args: &Args, method: Method, n: usize) -> mlua::Result<Request> {
    let most_body = HostShared::of(lua)?.limits.body;
    let options = args.options(n + 1, OPTIONS)?;
    let mut url = read_url(args, n)?;
    add_query(&mut url, &options)?;
    let mut headers = read_headers(args, &options)?;
    let auth = read_auth(args, &options)?;
    if auth.is_some() && headers.iter().any(|(name, _)| *name == AUTHORIZATION) {
        return Err(args.error("expected one of basic, bearer and an authorization header, got more"));
    }
    let mut body = options.bytes("body", "text")?;
    let value = options.value("json")?;
    if !value.is_nil() {
        if body.is_some() {
            return Err(args.error("expected body or json, got both"));
        }
        let text = json::encode(lua, &value, most_body);
        body = Some(text.map_err(|problem| args.error(format!("option json: {problem}")))?.into_bytes());
        if headers.iter().all(|(name, _)| *name != CONTENT_TYPE) {
            headers.push((CONTENT_TYPE, SecretText::Plain("application/json".to_owned())));
        }
    }
    Ok(Request {
        method,
        url,
        headers,
        auth,
        body: body.unwrap_or_default(),
        timeout: options.duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT),
        most_body: options.size("max_body", most_body)?.unwrap_or(most_body),
        follow: options.boolean("follow")?.unwrap_or(true),
    })
}

/// Argument `n` as a URL to send something to.
pub(super) fn read_url(args: &Args, n: usize) -> mlua::Result<Url> {
    let expected = "a URL such as \"http://127.0.0.1:8080/metrics\"";
    let url = Url::parse(&args.text(n, expected)?).map_err(|_| args.wrong(n, expected))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(args.wrong(n, expected));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The URL itself is left out: it holds a password.
        return Err(args.error(format!(
            "argument {n}: expected a URL without user and password (give basic = {{ user = …, password = … }}), got \
             one with"
        )));
    }
    if url.scheme() == "https" && cfg!(not(feature = "tls")) {
        return Err(args.error(format!("argument {n}: this build has no TLS, so https:// is not available")));
    }
    Ok(url)
}

fn add_query(url: &mut Url, options: &Options) -> mlua::Result<()> {
    let Some(query) = options.table("query", "a table")? else { return Ok(()) };
    let mut pairs = Vec::new();
    for pair in query.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let value = match &value {
            Value::Boolean(truth) => Some(truth.to_string()),
            Value::String(_) => text(&value),
            other => super::args::number(other).map(|number| number.to_string()),
        };
        match (text(&key), value) {
            (Some(key), Some(value)) => pairs.push((key, value)),
            _ => return Err(options.wrong("query", "names with text, numbers or booleans", &key)),
        }
    }
    // In order, so that the same call makes the same URL.
    pairs.sort();
    url.query_pairs_mut().extend_pairs(pairs);
    Ok(())
}

/// The option `headers`.
pub(super) fn read_headers(args: &Args, options: &Options) -> mlua::Result<Vec<(HeaderName, SecretText)>> {
    let mut headers = Vec::new();
    let Some(table) = options.table("headers", "a table")? else { return Ok(headers) };
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let name = text(&key).and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let Some(name) = name else { return Err(options.wrong("headers", "names of headers", &key)) };
        let value =
            SecretText::of(&value).or_else(|| super::args::number(&value).map(|n| SecretText::Plain(n.to_string())));
        let Some(value) = value else {
            return Err(args.error(format!("option headers: {name}: expected text or a secret")));
        };
        headers.push((name, value));
    }
    headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    Ok(headers)
}

/// The options `basic` and `bearer`, of which there may be one.
pub(super) fn read_auth(args: &Args, options: &Options) -> mlua::Result<Option<Auth>> {
    let bearer = options.secret_text("bearer", "text or a secret")?;
    let Some(basic) = options.table("basic", "{ user = …, password = … }")? else {
        return Ok(bearer.map(Auth::Bearer));
    };
    let user = text(&basic.raw_get("user")?);
    let password = SecretText::of(&basic.raw_get("password")?);
    match (user, password, bearer) {
        (Some(user), Some(password), None) => Ok(Some(Auth::Basic(user, password))),
        (_, _, Some(_)) => Err(args.error("expected basic or bearer, got both")),
        _ => Err(args.error("option basic: expected { user = text, password = text or a secret }")),
    }
}

fn table(lua: &Lua, response: Response, meta: &Table) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("status", response.status)?;
    table.raw_set("ok", (200..300).contains(&response.status))?;
    table.raw_set("url", response.url)?;
    table.raw_set("body", lua.create_string(response.body)?)?;
    let headers = lua.create_table()?;
    for (name, value) in response.headers {
        headers.raw_set(name, lua.create_string(value)?)?;
    }
    table.raw_set("headers", headers)?;
    table.set_metatable(Some(meta.clone()))?;
    Ok(table)
}

fn stub(lua: &Lua, request: &Request, meta: &Table) -> mlua::Result<Table> {
    let url = http_client::shown(&request.url);
    let answer = Response { status: 200, url, headers: std::collections::BTreeMap::new(), body: Vec::new() };
    let table = table(lua, answer, meta)?;
    table.raw_set("stub", true)?;
    Ok(table)
}

/// The body of the response that a method was called on; none for a stub.
fn body_of(args: &Args, wanted: &str) -> mlua::Result<Option<Vec<u8>>> {
    let expected = "a response (call it with a colon)";
    let response = args.table(1, expected)?;
    if response.raw_get::<Option<bool>>("stub")? == Some(true) {
        return Ok(None);
    }
    let status = super::args::number(&response.raw_get("status")?).ok_or_else(|| args.wrong(1, expected))?;
    let body: Value = response.raw_get("body")?;
    let Some(body) = super::args::bytes(&body) else { return Err(args.wrong(1, expected)) };
    if !(200.0..300.0).contains(&status) {
        let url: Value = response.raw_get("url")?;
        let got = quoted(&String::from_utf8_lossy(&body[..body.len().min(128)]));
        return Err(
            args.error(format!("expected {wanted} with status 2xx, got {status} from {}: {got}", describe(&url)))
        );
    }
    Ok(Some(body))
}

fn response_json(lua: &Lua, args: &Args) -> mlua::Result<Value> {
    match body_of(args, "JSON")? {
        None => lua.create_table().map(Value::Table),
        Some(body) => {
            let most = HostShared::of(lua)?.limits.body;
            json::decode(lua, &body, most).map_err(|problem| args.error(problem))
        }
    }
}

fn response_number(_: &Lua, args: &Args) -> mlua::Result<f64> {
    let Some(body) = body_of(args, "a number")? else { return Ok(0.0) };
    let text = String::from_utf8_lossy(&body[..body.len().min(256)]);
    let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| args.error(format!("expected a finite number, got {}", quoted(&text))))
}
