//! `setpoint.prometheus`: instant queries of a Prometheus server, or of anything that speaks its API.
//!
//! No series is nil, which a metric passes on as missing; it is never 0. What the server refuses raises with its own
//! words. Requests go the way of `setpoint.http`, with its limits and allowed hosts.

use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Table};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::args::{Args, Problem, outside, quoted, waiting};
use super::http::{read_auth, read_headers, read_url};
use super::http_client::{self, Request};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::{CallScope, HostShared};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const OPTIONS: &[&str] = &["headers", "basic", "bearer", "timeout", "time", "reduce"];
const PARAMS: &[(&str, &str)] =
    &[("url", "string"), ("expression", "string"), ("options?", "setpoint.prometheus.Options")];

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "prometheus",
    doc: "Instant queries in PromQL.",
    types: &[
        "@class (exact) setpoint.prometheus.Options",
        "@field headers? table<string, string|setpoint.Secret>",
        "@field basic? setpoint.http.Basic",
        "@field bearer? string|setpoint.Secret",
        "@field timeout? string|number `\"5s\"` unless given; the tick's deadline holds anyway.",
        "@field time? number When to evaluate, in seconds since 1970; the server's now unless given.",
        "@field reduce? \"sum\"|\"avg\"|\"min\"|\"max\" What `query` makes of several series; without it they raise.",
        "@class (exact) setpoint.prometheus.Series",
        "@field labels table<string, string>",
        "@field value number NaN and infinities as the server gave them.",
        "@field time number When it was evaluated, in seconds since 1970.",
    ],
    fields: &[],
    functions: &[
        FunctionDoc {
            name: "query",
            params: PARAMS,
            returns: &["number?"],
            access: Access::Read,
            doc: "The one value of an expression; `url` is the server's, as in `\"http://127.0.0.1:9090\"`. Nil when \
                  there is no series. While a file loads: nil.",
        },
        FunctionDoc {
            name: "query_all",
            params: PARAMS,
            returns: &["setpoint.prometheus.Series[]"],
            access: Access::Read,
            doc: "All series of an expression, in the server's order. While a file loads: an empty list.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    let query = waiting(lua, "prometheus.query", 3, |lua, scope, args| async move {
        let reduce = read_reduce(&args)?;
        let series = ask(&lua, &scope, "prometheus.query", &args).await?;
        one(&args, &series, reduce)
    })?;
    module.raw_set("query", query)?;
    let query_all = waiting(lua, "prometheus.query_all", 3, |lua, scope, args| async move {
        let series = ask(&lua, &scope, "prometheus.query_all", &args).await?;
        let rows: Vec<Table> = series.into_iter().map(|series| series.table(&lua)).collect::<mlua::Result<_>>()?;
        lua.create_sequence_from(rows)
    })?;
    module.raw_set("query_all", query_all)?;
    Ok(module)
}

/// How several values become one.
#[derive(Clone, Copy, Debug)]
enum Reduce {
    Sum,
    Avg,
    Min,
    Max,
}

fn read_reduce(args: &Args) -> mlua::Result<Option<Reduce>> {
    let expected = "\"sum\", \"avg\", \"min\" or \"max\"";
    let options = args.options(3, OPTIONS)?;
    Ok(match options.text("reduce", expected)?.as_deref() {
        None => None,
        Some("sum") => Some(Reduce::Sum),
        Some("avg") => Some(Reduce::Avg),
        Some("min") => Some(Reduce::Min),
        Some("max") => Some(Reduce::Max),
        Some(_) => return Err(options.wrong("reduce", expected, &options.value("reduce")?)),
    })
}

fn one(args: &Args, series: &[Series], reduce: Option<Reduce>) -> mlua::Result<Option<f64>> {
    let values = || series.iter().map(|series| series.value);
    match (series, reduce) {
        ([], _) => Ok(None),
        ([only], _) => Ok(Some(only.value)),
        // `f64::min` and `max` would pass over NaN, which says that one of them is not known.
        (_, Some(Reduce::Min | Reduce::Max)) if values().any(f64::is_nan) => Ok(Some(f64::NAN)),
        (_, Some(Reduce::Min)) => Ok(values().reduce(f64::min)),
        (_, Some(Reduce::Max)) => Ok(values().reduce(f64::max)),
        (_, Some(Reduce::Sum)) => Ok(Some(values().sum())),
        (_, Some(Reduce::Avg)) => Ok(Some(values().sum::<f64>() / series.len() as f64)),
        (many, None) => Err(args.error(format!(
            "expected one series, got {}: aggregate in the expression, or give reduce = \"sum\", \"avg\", \"min\" or \
             \"max\"",
            many.len()
        ))),
    }
}

/// One value with its labels.
#[derive(Debug)]
struct Series {
    labels: Vec<(String, String)>,
    value: f64,
    time: f64,
}

impl Series {
    fn table(self, lua: &Lua) -> mlua::Result<Table> {
        let table = lua.create_table()?;
        table.raw_set("labels", lua.create_table_from(self.labels)?)?;
        table.raw_set("value", self.value)?;
        table.raw_set("time", self.time)?;
        Ok(table)
    }
}

async fn ask(lua: &Lua, scope: &Arc<CallScope>, name: &'static str, args: &Args) -> mlua::Result<Vec<Series>> {
    let options = args.options(3, OPTIONS)?;
    let base = read_url(args, 1)?;
    let expression = args.text(2, "an expression in PromQL")?;
    let time = options.number("time", "seconds since 1970")?;
    let shared = HostShared::of(lua)?;
    let request = Request {
        method: Method::GET,
        url: endpoint(base, &expression, time),
        headers: read_headers(args, &options)?,
        auth: read_auth(args, &options)?,
        body: Vec::new(),
        timeout: options.duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT),
        most_body: shared.limits.body,
        follow: true,
    };
    if scope.trial {
        return Ok(Vec::new());
    }
    http_client::check(&shared.permissions, &request.url).map_err(|problem| problem.raise(name))?;
    let host = Arc::clone(&shared);
    let work = async move {
        let place = http_client::shown(&request.url);
        let response = http_client::send(&host, request).await?;
        read_answer(response.status, &response.body).map_err(|problem| Problem::Failed(format!("{place}: {problem}")))
    };
    outside(&shared, scope, name, work).await
}

fn endpoint(mut url: Url, expression: &str, time: Option<f64>) -> Url {
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.query_pairs_mut().append_pair("query", expression);
    if let Some(time) = time {
        url.query_pairs_mut().append_pair("time", &time.to_string());
    }
    url
}

/// The server's answer, as far as it matters.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct VectorElement {
    metric: std::collections::BTreeMap<String, String>,
    value: Point,
}

/// Time in seconds, and the value as text.
type Point = (f64, String);

fn read_answer(status: u16, body: &[u8]) -> Result<Vec<Series>, String> {
    let shown = || quoted(&String::from_utf8_lossy(&body[..body.len().min(128)]));
    // Errors of the API come with a status and a body that says more.
    let answer: Answer = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(_) if status != 200 => return Err(format!("expected status 200, got {status}: {}", shown())),
        Err(error) => return Err(format!("expected the answer of a Prometheus API, got {}: {error}", shown())),
    };
    let Some(data) = answer.data.filter(|_| status == 200 && answer.status == "success") else {
        let (kind, text) = (answer.error_type.unwrap_or_default(), answer.error.unwrap_or_else(shown));
        return Err(format!("the query failed ({status} {kind}): {}", quoted(&text)));
    };
    let malformed = |error: serde_json::Error| format!("expected a {} as result, got {error}", data.kind);
    match data.kind.as_str() {
        "scalar" => {
            let point = serde_json::from_value::<Point>(data.result).map_err(malformed)?;
            Ok(vec![series(Vec::new(), &point)?])
        }
        "vector" => {
            let elements = serde_json::from_value::<Vec<VectorElement>>(data.result).map_err(malformed)?;
            elements.into_iter().map(|element| series(element.metric.into_iter().collect(), &element.value)).collect()
        }
        kind => Err(format!("expected an expression that gives a scalar or an instant vector, got a {kind}")),
    }
}

fn series(labels: Vec<(String, String)>, (time, value): &Point) -> Result<Series, String> {
    // The server writes NaN, +Inf and -Inf, all of which are floats to Rust too.
    let value = value.parse().map_err(|_| format!("expected a number as value, got {}", quoted(value)))?;
    Ok(Series { labels, value, time: *time })
}
