//! KEDA's triggers: what each reads, how many tasks that is worth, and when it is active.

use crate::import::Backend;
use crate::import::cron::{self, WITHIN};
use crate::import::error::Problem;
use crate::import::lua::{Lua, number, quote};
use crate::import::metric::{self, Figure, Metric, Reading};
use crate::import::policy::Policy;
use crate::import::quantity::{of_node, quantity};
use crate::import::report::Report;
use crate::import::spec::Spec;
use crate::import::tree::{Node, Section};
use crate::import::trigger::Trigger;
use crate::import::workload::Task;

/// A trigger that can be carried over.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Figures of the tasks.
    Figure(Metric),
    Prometheus {
        server: String,
        query: String,
        empty_is_zero: bool,
        worth: Worth,
    },
    Redis {
        url: String,
        list: String,
        user: Option<String>,
        secret: Option<String>,
        worth: Worth,
    },
    Api {
        url: String,
        path: Vec<String>,
        worth: Worth,
    },
    Cron {
        zone: String,
        start: String,
        end: String,
        desired: u32,
    },
}

/// What a value is worth.
#[derive(Clone, Debug)]
pub(super) struct Worth {
    /// The value that one task is for.
    threshold: f64,
    /// Above it, the trigger is active.
    activation: f64,
    /// Whether the value is one task's (`metricType: Value`), and not that of all.
    each: bool,
}

/// Reads `spec.triggers`. What has no counterpart is told and left out.
pub(super) fn read(spec: &mut Section, backend: Backend, report: &mut Report) -> Result<Vec<Source>, Problem> {
    let path = spec.at("triggers");
    let nodes = spec.list("triggers")?;
    if nodes.is_empty() {
        return Err(spec.missing("triggers", "at least one trigger"));
    }
    let mut sources = Vec::new();
    for (at, node) in nodes.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        if let Some(source) = one(node, &path, backend, report)? {
            report.carried(path, source.about());
            sources.push(source);
        }
    }
    Ok(sources)
}

fn one(node: Node, path: &str, backend: Backend, report: &mut Report) -> Result<Option<Source>, Problem> {
    let whole = node.clone();
    let mut section = Section::new(node, path)?;
    let kind = section.needed("type", "a trigger's type")?;
    report.lost_key(&mut section, "name", "triggers are called by what they ask");
    let metric_type = section.text("metricType")?;
    if let Some(node) = section.take("authenticationRef") {
        report.lost_value(&section.at("authenticationRef"), &node, "give the policy a secret of setpoint.toml instead");
    }
    let metadata = section.section("metadata")?;
    let mut metadata = metadata.ok_or_else(|| section.missing("metadata", "the trigger's settings"))?;
    report.rest(section);
    let each = metric_type.as_deref() == Some("Value");
    let source = match kind.as_str() {
        "cpu" | "memory" if backend == Backend::None => {
            report.lost_value(path, &whole, "the figures of tasks that others run are not known; query them");
            return Ok(None);
        }
        "cpu" | "memory" => figure(&kind, metric_type, &mut metadata)?,
        "prometheus" => prometheus(&mut metadata, each, report)?,
        "redis" => redis(&mut metadata, each, report)?,
        "metrics-api" => match api(&mut metadata, each, report)? {
            Some(source) => source,
            None => return Ok(None),
        },
        "cron" => cron(&mut metadata)?,
        _ => {
            report.lost_value(path, &whole, "the importer knows cpu, memory, prometheus, redis, cron and metrics-api");
            return Ok(None);
        }
    };
    report.rest(metadata);
    Ok(Some(source))
}

fn figure(kind: &str, metric_type: Option<String>, metadata: &mut Section) -> Result<Source, Problem> {
    // `metadata.type` is how older versions had it.
    let older = metadata.text("type")?;
    let kind_of_value = metric_type.or(older).unwrap_or_else(|| "Utilization".to_owned());
    let path = metadata.at("value");
    let value = metadata.take("value").ok_or_else(|| metadata.missing("value", "a quantity above 0"))?;
    let value = of_node(&value, &path)?;
    let of = metadata.text("containerName")?.map_or_else(String::new, |name| format!(" of the container {name}"));
    let figure = if kind == "cpu" { Figure::Cpu } else { Figure::Memory };
    Ok(Source::Figure(if kind_of_value == "AverageValue" {
        metric::mean(figure, value, &of)
    } else {
        let about = format!("{kind}{of}: {} % of what a task requests", number(value));
        Metric { reading: Reading::Utilization(figure), target: value, about }
    }))
}

fn worth(metadata: &mut Section, keys: (&str, &str), default: Option<f64>, each: bool) -> Result<Worth, Problem> {
    let path = metadata.at(keys.0);
    let threshold = match metadata.take(keys.0) {
        Some(node) => of_node(&node, &path)?,
        None => default.ok_or_else(|| metadata.missing(keys.0, "a number above 0"))?,
    };
    let activation = match metadata.take(keys.1) {
        None => 0.0,
        Some(node) => {
            let value = node.scalar().and_then(|text| quantity(&text));
            value.filter(|value| value.abs() < 1e18).ok_or_else(|| {
                let (path, got) = (metadata.at(keys.1), node.described());
                Problem::at(node.place, format!("{path}: expected a number, got {got}"))
            })?
        }
    };
    Ok(Worth { threshold, activation, each })
}

fn prometheus(metadata: &mut Section, each: bool, report: &mut Report) -> Result<Source, Problem> {
    let server = metadata.needed("serverAddress", "the address of Prometheus")?;
    let query = metadata.needed("query", "an expression")?;
    report.lost_key(metadata, "metricName", "KEDA itself uses it no more");
    let empty_is_zero = metadata.flag("ignoreNullValues")?.unwrap_or(true);
    let worth = worth(metadata, ("threshold", "activationThreshold"), None, each)?;
    Ok(Source::Prometheus { server, query, empty_is_zero, worth })
}

fn redis(metadata: &mut Section, each: bool, report: &mut Report) -> Result<Source, Problem> {
    if metadata.has("address") {
        for key in ["host", "port"] {
            report.lost_key(metadata, key, "the address is given, and counts");
        }
    }
    let address = match (metadata.text("address")?, metadata.text("host")?, metadata.text("port")?) {
        (Some(address), _, _) => address,
        (None, Some(host), port) => format!("{host}:{}", port.unwrap_or_else(|| "6379".to_owned())),
        (None, None, _) => {
            report.fill_in("redis: the address of Redis; the input takes it from the container's environment");
            "127.0.0.1:6379".to_owned()
        }
    };
    for key in ["addressFromEnv", "hostFromEnv", "portFromEnv", "usernameFromEnv"] {
        if let Some(node) = metadata.take(key) {
            report.lost_value(
                &metadata.at(key),
                &node,
                "the container's environment is not the policy's; see params.redis",
            );
        }
    }
    let list = metadata.needed("listName", "the list's name")?;
    let database = metadata.whole("databaseIndex")?.unwrap_or(0);
    let user = metadata.text("username")?;
    let has_password = [metadata.take("password"), metadata.take("passwordFromEnv")].iter().any(Option::is_some);
    let secret = has_password.then(|| "redis".to_owned());
    if has_password {
        report.fill_in("the secret `redis` of setpoint.toml: the password of Redis, which a policy never holds");
    }
    let tls = metadata.flag("enableTLS")?.unwrap_or(false);
    if tls {
        report.lost(
            format!("{} = true", metadata.at("enableTLS")),
            metadata.place.line,
            "connections to Redis are plain",
        );
    }
    let worth = worth(metadata, ("listLength", "activationListLength"), Some(5.0), each)?;
    Ok(Source::Redis { url: format!("redis://{address}/{database}"), list, user, secret, worth })
}

fn api(metadata: &mut Section, each: bool, report: &mut Report) -> Result<Option<Source>, Problem> {
    let url = metadata.needed("url", "an address")?;
    let location = metadata.needed("valueLocation", "where the value is, such as components.worker.tasks")?;
    let format = metadata.text("format")?.unwrap_or_else(|| "json".to_owned());
    if format != "json" {
        let (path, line) = (metadata.at("format"), metadata.place.line);
        report.lost(
            format!("{path} = {format}, and with it the trigger of {url}"),
            line,
            "the importer reads JSON alone",
        );
        return Ok(None);
    }
    let path: Vec<String> = location.split('.').map(str::to_owned).collect();
    if location.contains(['#', '|', '@', '(', '*', '?']) {
        let what = format!("{} = {location}", metadata.at("valueLocation"));
        report.lost(
            what,
            metadata.place.line,
            "only names and positions with dots between them; see the function `pick`",
        );
    }
    let worth = worth(metadata, ("targetValue", "activationTargetValue"), None, each)?;
    Ok(Some(Source::Api { url, path, worth }))
}

fn cron(metadata: &mut Section) -> Result<Source, Problem> {
    let place = metadata.place;
    let mut expression = |key: &str| -> Result<String, Problem> {
        let text = metadata.needed(key, "a cron expression of five fields")?;
        let told = || {
            format!("{}: expected a cron expression of five fields such as 0 8 * * 1-5, got {text:?}", metadata.at(key))
        };
        cron::plain(&text).ok_or_else(|| Problem::at(place, told()))
    };
    let (start, end) = (expression("start")?, expression("end")?);
    let zone = metadata.needed("timezone", "a time zone such as Europe/London")?;
    let zoned = jiff::tz::TimeZoneDatabase::bundled().get(&zone).is_ok();
    if !zoned {
        let text = format!("{}: expected a time zone such as Europe/London, got {zone:?}", metadata.at("timezone"));
        return Err(Problem::at(place, text));
    }
    let desired =
        metadata.whole("desiredReplicas")?.ok_or_else(|| metadata.missing("desiredReplicas", "a whole number"))?;
    Ok(Source::Cron { zone, start, end, desired })
}

/// Walks from a value to what is in it.
const PICK: &str = "\
-- The number at a path of names and positions (from 0) in an answer; nil: there is none.
local function pick(value, path)
  for _, name in ipairs(path) do
    if type(value) ~= \"table\" then
      return nil
    end
    local position = tonumber(name)
    value = value[name] or position and value[position + 1]
  end
  return tonumber(value)
end
";

impl Worth {
    /// The number of tasks as an expression of a value.
    fn tasks(&self, value: &str, threshold: &str) -> String {
        let all = if self.each { " * math.max(ctx.running, 1)" } else { "" };
        format!("{value} / {threshold}{all}")
    }

    fn returned(&self, value: &str, threshold: &str, sure: bool) -> String {
        let (tasks, activation) = (self.tasks(value, threshold), number(self.activation));
        let guard = if sure { String::new() } else { format!("{value} and ") };
        format!("return {guard}{tasks}, {guard}{value} > {activation}")
    }
}

impl Source {
    /// What it is, for comments.
    fn about(&self) -> String {
        let per = |worth: &Worth, what: &str| {
            let each = if worth.each { "on average" } else { "for each task" };
            format!("{what}: {} {each}, active above {}", number(worth.threshold), number(worth.activation))
        };
        match self {
            Self::Figure(metric) => metric.about.clone(),
            Self::Prometheus { query, worth, .. } => per(worth, &format!("prometheus, {query}")),
            Self::Redis { list, worth, .. } => per(worth, &format!("redis, the length of {list}")),
            Self::Api { url, path, worth } => per(worth, &format!("metrics-api, {} of {url}", path.join("."))),
            Self::Cron { zone, start, end, desired } => {
                format!("cron, from `{start}` to `{end}` in {zone}: {desired} tasks")
            }
        }
    }

    /// The same as an HPA's metric, where it is one.
    pub(super) fn as_metric(&self) -> Option<Metric> {
        match self {
            Self::Figure(metric) => Some(metric.clone()),
            _ => None,
        }
    }

    /// A value that is worth so many tasks, where a spec can give one.
    pub(super) fn worth(&self, tasks: f64) -> Option<f64> {
        match self {
            Self::Prometheus { worth, .. } | Self::Redis { worth, .. } | Self::Api { worth, .. } if !worth.each => {
                let value = (worth.threshold * tasks).max(worth.activation + worth.threshold);
                Some(value.ceil())
            }
            _ => None,
        }
    }

    /// Writes it as a function.
    pub(super) fn trigger(&self, policy: &mut Policy, spec: &mut Spec, task: &Task) -> Trigger {
        let about = self.about();
        match self {
            Self::Figure(metric) => figure_trigger(metric, policy, task),
            Self::Prometheus { server, query, empty_is_zero, worth } => {
                let query = metric::query(query, Some(server.as_str()), policy, spec);
                let threshold = policy.param("threshold", Lua::Number(worth.threshold), "of the query, for each task");
                let empty = if *empty_is_zero { " or 0" } else { "" };
                let told = worth.returned("value", &threshold, *empty_is_zero);
                let body = format!("local value = {query}{empty}\n{told}");
                Trigger { about, body, simulated: Some(worth.returned("ctx.trace", &threshold, true)) }
            }
            Self::Redis { url, list, user, secret, worth } => {
                policy.module("redis");
                let url = policy.param("redis", Lua::text(url), "where Redis is");
                let list = policy.param("list", Lua::text(list), "its list");
                let name = url.replace("p.redis", "queue");
                let access = access(user.as_deref(), secret.as_deref(), policy, spec);
                policy.code(format!("local {name} = redis.connect({url}{access})\n"));
                spec.local("local value = 0 -- what the sources of the metric say");
                spec.fake(
                    "redis",
                    "{\n  connect = function()\n    return {\n      llen = function()\n        return value\n      end,\n    \
                     }\n  end,\n}",
                );
                let threshold = policy.param("list_length", Lua::Number(worth.threshold), "entries for each task");
                let body = format!("local value = {name}:llen({list})\n{}", worth.returned("value", &threshold, true));
                Trigger { about, body, simulated: Some(worth.returned("ctx.trace", &threshold, true)) }
            }
            Self::Api { url, path, worth } => {
                policy.module("http");
                let url = policy.param("url", Lua::text(url), "what is asked for the value");
                policy.shared_code(PICK);
                spec.local("local value = 0 -- what the sources of the metric say");
                spec.answers(&answer(path));
                let threshold =
                    policy.param("target_value", Lua::Number(worth.threshold), "of the value, for each task");
                let path = Lua::texts(path.clone()).write(4, 60, 1);
                let told = worth.returned("value", &threshold, false);
                let body = format!("local value = pick(http.get({url}):json(), {path})\n{told}");
                Trigger { about, body, simulated: Some(worth.returned("ctx.trace", &threshold, true)) }
            }
            Self::Cron { zone, start, end, desired } => {
                policy.module("time");
                policy.shared_code(WITHIN);
                let zone = policy.param("zone", Lua::text(zone), "whose clocks the hours are of");
                let body = format!(
                    "local inside = within(ctx.now, {zone}, {}, {})\nreturn inside and {desired} or 0, inside",
                    quote(start),
                    quote(end)
                );
                Trigger { about, body, simulated: None }
            }
        }
    }
}

/// CPU and memory beside other triggers: they never make a ScaledObject active.
fn figure_trigger(metric: &Metric, policy: &mut Policy, task: &Task) -> Trigger {
    policy.shared_code(metric::MEAN);
    let target = policy.param("target", Lua::Number(metric.target), &metric.about);
    let (figure, part) = match metric.reading {
        Reading::Utilization(figure) => (figure, format!(" / {}", metric::request(figure, policy, task))),
        Reading::Mean(figure) => (figure, String::new()),
        Reading::Query(_) | Reading::Total(_) => (Figure::Cpu, String::new()),
    };
    let body = format!(
        "if ctx.running == 0 then\n  return 0, false\nend\nlocal used = mean(ctx, \"{}\")\n\
         return used and used{part} / {target} * ctx.running, false",
        figure.name()
    );
    let simulated = format!("return ctx.trace / {target}, false");
    Trigger { about: metric.about.clone(), body, simulated: Some(simulated) }
}

fn access(user: Option<&str>, secret: Option<&str>, policy: &mut Policy, spec: &mut Spec) -> String {
    let mut words = Vec::new();
    words.extend(user.map(|user| format!("user = {}", quote(user))));
    if let Some(secret) = secret {
        policy.module("secret");
        spec.fake("secret", "{\n  get = function(name)\n    return name\n  end,\n}");
        words.push(format!("password = secret.get({})", quote(secret)));
    }
    if words.is_empty() { String::new() } else { format!(", {{ {} }}", words.join(", ")) }
}

/// A table in which `pick` finds the spec's value.
fn answer(path: &[String]) -> String {
    path.iter().rev().fold("value".to_owned(), |inner, name| match name.parse::<u32>() {
        Ok(at) if at < 100 => format!("{{ {}{inner} }}", "false, ".repeat(at as usize)),
        _ => format!("{{ [{}] = {inner} }}", quote(name)),
    })
}
