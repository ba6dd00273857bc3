//! `setpoint.toml` as a layer of settings. Relative paths in it start from its own folder.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::script::SecretSource;

use super::docker;
use super::mesos;
use super::problem::{ConfigError, Problem};
use super::section::{Document, Section, describe};
use super::settings::{ParamKey, Setting, Settings, TokenSource};
use super::units::{parse_duration, parse_size};

/// Reads a configuration file. What is wrong in it comes back as problems, beside all that is right.
///
/// # Errors
/// [`ConfigError::Io`] when the file cannot be read.
pub fn read(path: &Path) -> Result<(Settings, Vec<Problem>), ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|error| ConfigError::Io { path: path.to_owned(), source: Arc::new(error) })?;
    Ok(parse(path, &text))
}

/// Reads the text of a configuration file; `path` is for messages and for relative paths.
#[must_use]
pub fn parse(path: &Path, text: &str) -> (Settings, Vec<Problem>) {
    let mut document = Document { path: path.into(), text, problems: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        document.problem(at, error.message().to_owned(), None);
    }
    // What was recovered from a file with syntax errors would only give misleading ones.
    let settings = if document.problems.is_empty() {
        top(&mut document, table.get_ref(), path.parent().unwrap_or(Path::new("")))
    } else {
        Settings::default()
    };
    let mut problems = document.problems;
    problems.sort_by_key(|problem| problem.source.as_ref().map(|source| (source.line, source.column)));
    (settings, problems)
}

fn top(document: &mut Document<'_>, table: &DeTable<'_>, base: &Path) -> Settings {
    let mut top = Section::new(document, "", table);
    let mut settings = Settings {
        listen: top.get("listen", listen),
        state_dir: top.get("state_dir", |value| path(value, base)),
        stop_tasks: top.get("stop_tasks", boolean),
        dry_run: top.get("dry_run", boolean),
        exit_on_stop: top.get("exit_on_stop", boolean),
        log: top.get("log", text),
        script_threads: top.get("script_threads", |value| whole(value, 1..=1024)),
        ..Settings::default()
    };
    let params = top.table("params");
    let limits = top.table("limits");
    let policy = top.table("policy");
    let secrets = top.table("secrets");
    let budget = top.table("budget");
    let local = top.table("local");
    let decision_log = top.table("decision_log");
    let http = top.table("http");
    let services = top.table("services");
    let swarm = top.table("swarm");
    let docker = top.table("docker");
    let mesos = top.table("mesos");
    top.finish();

    if let Some(table) = params {
        read_params(document, table, &mut settings);
    }
    if let Some(table) = secrets {
        read_secrets(document, table, base, &mut settings);
    }
    if let Some(table) = limits {
        read_limits(document, table, &mut settings);
    }
    if let Some(table) = policy {
        let mut section = Section::new(document, "policy", table);
        settings.allow_backends = section.get("allow_backends", |value| list(value, text));
        settings.allow_hosts = section.get("allow_hosts", |value| list(value, host));
        settings.read_dirs = section.get("read_dirs", |value| list(value, |value| path(value, base)));
        settings.exec = section.get("exec", boolean);
        section.finish();
    }
    if let Some(table) = budget {
        let mut section = Section::new(document, "budget", table);
        settings.budget_changes = section.get("changes", |value| whole(value, 0..=u32::MAX));
        settings.budget_per = section.get("per", duration);
        section.finish();
    }
    if let Some(table) = local {
        let mut section = Section::new(document, "local", table);
        settings.ports = section.get("ports", ports);
        settings.log_max = section.get("log_max", size);
        settings.log_keep = section.get("log_keep", |value| whole(value, 0..=1_000_000));
        section.finish();
    }
    if let Some(table) = decision_log {
        let mut section = Section::new(document, "decision_log", table);
        settings.decision_log = section.get("enabled", boolean);
        settings.decision_log_folder = section.get("folder", |value| path(value, base));
        settings.decision_log_max_size = section.get("max_size", size);
        settings.decision_log_max_age = section.get("max_age", duration);
        settings.decision_log_keep = section.get("keep", |value| whole(value, 1..=1_000_000));
        section.finish();
    }
    if let Some(table) = docker {
        docker::read(document, table, base, &mut settings);
    }
    if let Some(table) = mesos {
        mesos::read(document, table, base, &mut settings);
    }
    if let Some(table) = http {
        let mut section = Section::new(document, "http", table);
        settings.token = section.get("token", |value| secret(value, base).map(TokenSource::From));
        settings.hosts = section.get("hosts", |value| list(value, host));
        section.finish();
    }
    if let Some(table) = swarm {
        let mut section = Section::new(document, "swarm", table);
        settings.swarm_manager = section.get("manager", text);
        section.finish();
    }
    if let Some(table) = services {
        let mut section = Section::new(document, "services", table);
        settings.services_listen = section.get("listen", listen);
        settings.warm_up = section.get("warm_up", duration);
        section.finish();
    }
    settings
}

fn read_limits(document: &mut Document<'_>, table: &DeTable<'_>, settings: &mut Settings) {
    let mut section = Section::new(document, "limits", table);
    settings.limit_cpu = section.get("cpu", duration);
    settings.limit_load_cpu = section.get("load_cpu", duration);
    settings.limit_memory = section.get("memory", size);
    settings.limit_source = section.get("source", size);
    settings.limit_output = section.get("output", size);
    settings.limit_state = section.get("state", size);
    settings.limit_body = section.get("body", size);
    section.finish();
}

/// `[params]`: plain values are for every policy that declares them, tables for the policy of their name.
fn read_params(document: &mut Document<'_>, table: &DeTable<'_>, settings: &mut Settings) {
    let mut read = |policy: Option<&str>, name: &str, at: usize, value: &DeValue<'_>| match param(value) {
        Ok(value) => {
            let key = ParamKey { policy: policy.map(str::to_owned), name: name.to_owned() };
            settings.params.insert(key, Setting::new(value, document.origin(at)));
        }
        Err(error) => {
            let place = policy.map(|policy| format!("{policy}.")).unwrap_or_default();
            document.problem(at, format!("`params.{place}{name}`: {error}"), None);
        }
    };
    for (name, value) in table {
        let name = name.get_ref();
        match value.get_ref().as_table() {
            Some(params) => {
                for (key, value) in params {
                    read(Some(name), key.get_ref(), value.span().start, value.get_ref());
                }
            }
            None => read(None, name, value.span().start, value.get_ref()),
        }
    }
}

fn read_secrets(document: &mut Document<'_>, table: &DeTable<'_>, base: &Path, settings: &mut Settings) {
    for (name, value) in table {
        let at = value.span().start;
        match secret(value.get_ref(), base) {
            Ok(source) => {
                settings.secrets.insert(name.get_ref().to_string(), Setting::new(source, document.origin(at)));
            }
            Err(error) => document.problem(at, format!("`secrets.{}`: {error}", name.get_ref()), None),
        }
    }
}

pub(super) fn expected<T>(what: &str, value: &DeValue<'_>) -> Result<T, String> {
    Err(format!("expected {what}, got {}", describe(value)))
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map_or_else(|| expected("a string", value), |text| Ok(text.to_owned()))
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().map_or_else(|| expected("true or false", value), Ok)
}

fn listen(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let Some(text) = value.as_str() else { return expected("an address such as `127.0.0.1:8080`", value) };
    parse_listen(text)
}

/// Reads an address to listen on; also for `--listen` and `SETPOINT_LISTEN`.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| format!("expected an address such as `127.0.0.1:8080`, got `{text}`"))
}

pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    let Some(text) = value.as_str() else { return expected("a duration such as `\"15s\"`", value) };
    parse_duration(text).map_err(|error| error.to_string())
}

fn size(value: &DeValue<'_>) -> Result<usize, String> {
    let Some(text) = value.as_str() else { return expected("a size such as `\"16MiB\"`", value) };
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes).map_err(|error| error.to_string())
}

/// A whole number within a range.
fn whole<T>(value: &DeValue<'_>, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let number = value.as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
    let number = number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
    number.map_or_else(|| expected(&format!("a whole number from {} to {}", range.start(), range.end()), value), Ok)
}

pub(super) fn path(value: &DeValue<'_>, base: &Path) -> Result<PathBuf, String> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(base.join(text)),
        _ => expected("a path", value),
    }
}

fn list<T>(value: &DeValue<'_>, item: impl Fn(&DeValue<'_>) -> Result<T, String>) -> Result<Vec<T>, String> {
    let Some(items) = value.as_array() else { return expected("a list", value) };
    let items = items.iter().enumerate();
    items.map(|(n, value)| item(value.get_ref()).map_err(|error| format!("item {}: {error}", n + 1))).collect()
}

/// A host's name or address, with or without a port.
fn host(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    if name.is_empty() || name.contains(|c: char| c == '/' || c == '@' || c.is_whitespace()) {
        return expected("a host such as `example.org` or `example.org:8080`", value);
    }
    Ok(name)
}

fn ports(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, String> {
    let parse = |text: &str| {
        let (first, last) = text.split_once('-')?;
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (0 < first && first <= last).then_some(first..=last)
    };
    value.as_str().and_then(parse).map_or_else(|| expected("a range of ports such as `\"31000-32000\"`", value), Ok)
}

/// `{ env = "NAME" }` or `{ file = "/path" }`.
pub(super) fn secret(value: &DeValue<'_>, base: &Path) -> Result<SecretSource, String> {
    const WHAT: &str = "`{ env = \"NAME\" }` or `{ file = \"/path\" }`";
    let Some(table) = value.as_table() else { return expected(WHAT, value) };
    let (env, file) = (table.get("env"), table.get("file"));
    match (env, file, table.len()) {
        (Some(name), None, 1) => Ok(SecretSource::Env(text(name.get_ref())?)),
        (None, Some(file), 1) => Ok(SecretSource::File(path(file.get_ref(), base)?)),
        _ => {
            let keys: Vec<_> = table.keys().map(|key| key.get_ref().as_ref()).collect();
            Err(format!("expected {WHAT}, got a table with the keys: {}", keys.join(", ")))
        }
    }
}

/// A parameter's value as text, as `--set` would have it.
fn param(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map(|number| number.to_string()).map_err(|_| format!("the integer {number} is too large"))
        }
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(parsed) if parsed.is_finite() => Ok(parsed.to_string()),
            _ => expected("a finite number", value),
        },
        _ => expected("a string, a number, true or false", value),
    }
}
