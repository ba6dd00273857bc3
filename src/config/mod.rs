//! The host's configuration: flags over `SETPOINT_*` over `setpoint.toml` over defaults.
//!
//! ```text
//!   flags ──┐
//!   env  ───┼─► Settings (a layer each) ─► merged ─► checked ─► HostConfig
//!   file ───┘         all problems of all layers are told at once
//! ```
//!
//! It reads no environment (that comes in as a map) and no secrets but the API's token, and starts nothing.

mod docker;
pub mod env;
mod file;
mod mesos;
mod problem;
pub mod relay;
mod section;
mod settings;
pub mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use docker::{DEFAULT_ENGINE, DockerConfig, EngineSettings, RegistrySettings};
pub use file::{parse as parse_file, read as read_file};
pub use mesos::MesosConfig;
pub use problem::{ConfigError, Problem, SourceLine};
pub use settings::{Origin, ParamKey, Setting, Settings, TokenSource};

use crate::script::{Limits, Permissions, SecretSource};

/// The name of the file that is read when none is given.
pub const FILE_NAME: &str = "setpoint.toml";

/// A log that is rotated at fewer bytes than these is hardly one.
const LEAST_LOG: usize = 4 << 10;

/// A file of decisions is read as a whole.
const MOST_DECISIONS: usize = 1 << 30;

/// Where the API listens by default, and where clients look for it.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// What the host is to do, checked and with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct HostConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// The state folder; none keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// Stop all tasks on the way out, with a state folder too.
    pub stop_tasks: bool,
    /// Carry nothing out.
    pub dry_run: bool,
    /// End the run when the first policy has ended.
    pub exit_on_stop: bool,
    /// The log's filter.
    pub log: Option<String>,
    /// The API that client verbs talk to; none is `listen`.
    pub server: Option<String>,
    /// Threads that scripts run on; none leaves it to the host.
    pub script_threads: Option<usize>,
    /// Parameters of policies.
    pub params: Params,
    /// Limits on scripts.
    pub limits: Limits,
    /// What scripts may reach.
    pub permissions: Permissions,
    /// Changes that all policies together may make; none is no limit.
    pub budget: Option<Budget>,
    /// Ports that local tasks are given; none leaves it to the backend.
    pub ports: Option<RangeInclusive<u16>>,
    /// Bytes from which on a local task's log is rotated; none leaves it to the backend.
    pub log_max: Option<usize>,
    /// How many logs of ended local tasks are kept for each policy; none leaves it to the backend.
    pub log_keep: Option<usize>,
    /// The decision log.
    pub decision_log: DecisionLogConfig,
    /// Container engines.
    pub docker: DockerConfig,
    /// The Mesos cluster.
    pub mesos: MesosConfig,
    /// The API's token.
    pub token: Option<Token>,
    /// Names, beside loopback, under which the API may be addressed.
    pub hosts: Vec<String>,
    /// The engine, among those of `docker`, that is a manager of the Swarm; none is the first.
    pub swarm_manager: Option<String>,
    /// Where the list of usable tasks is served in mesos-memcached's shape; none serves none.
    pub services_listen: Option<SocketAddr>,
    /// How long a new task of a cache is warmed up; none leaves it to the API.
    pub warm_up: Option<Duration>,
    /// Who set what, by key; what is not in here is at its default.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What is legal and probably not meant.
    pub warnings: Vec<Problem>,
}

/// Where decisions are recorded, and how many; what is none is left to the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionLogConfig {
    /// Whether they are. Unless this or the folder says so, they are when there is a state folder.
    pub enabled: Option<bool>,
    /// Where; none is in the state folder.
    pub folder: Option<PathBuf>,
    /// Bytes from which on a file is closed.
    pub max_size: Option<usize>,
    /// Age from which on it is.
    pub max_age: Option<Duration>,
    /// How many files are kept.
    pub keep: Option<usize>,
}

/// A budget over all policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many launches and kills …
    pub changes: u32,
    /// … in how long.
    pub per: Duration,
}

/// The API's token; it shows in no output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// The text itself, to compare with.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Parameters from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// For every policy that declares them.
    pub global: BTreeMap<String, String>,
    /// By policy (a file's stem); over the global ones.
    pub by_policy: BTreeMap<String, BTreeMap<String, String>>,
    /// Who set each of them, by `key` and `policy.key`.
    pub origins: BTreeMap<String, Origin>,
}

impl Params {
    /// Who set each of them, in words.
    #[must_use]
    pub fn origins_in_words(&self) -> BTreeMap<String, String> {
        self.origins.iter().map(|(key, origin)| (key.clone(), origin.to_string())).collect()
    }

    /// What applies to one policy, if it declares it.
    #[must_use]
    pub fn of(&self, policy: &str) -> BTreeMap<String, String> {
        let mut params = self.global.clone();
        params
            .extend(self.by_policy.get(policy).into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        params
    }
}

/// Puts the layers together: `flags` as the command line has them, the environment, and the file that either of them
/// names, or else `setpoint.toml` in `folder` when there is one.
///
/// # Errors
/// [`ConfigError::Invalid`] with every problem of every layer, [`ConfigError::Io`] for a named file that cannot be
/// read.
pub fn load(flags: Settings, vars: &BTreeMap<String, String>, folder: &Path) -> Result<HostConfig, ConfigError> {
    let env::Environment { settings, mut problems, mut warnings } = env::read(vars);
    warnings.extend(relay::hints(vars));
    let over = flags.or(settings);
    let path = match &over.config {
        Some(named) => Some(folder.join(&named.value)),
        None => Some(folder.join(FILE_NAME)).filter(|path| path.exists()),
    };
    let mut merged = over;
    if let Some(path) = path {
        let (settings, found) = file::read(&path)?;
        merged = merged.or(settings);
        problems.extend(found);
    }
    match build(merged, vars) {
        Ok(mut config) if problems.is_empty() => {
            config.warnings.splice(0..0, warnings);
            Ok(config)
        }
        Ok(_) => Err(ConfigError::Invalid { problems }),
        Err(found) => {
            problems.extend(found);
            Err(ConfigError::Invalid { problems })
        }
    }
}

/// Checks settings against each other and fills in the defaults. `vars` is for a token that is in the environment.
///
/// # Errors
/// Everything that cannot be.
pub fn build(settings: Settings, vars: &BTreeMap<String, String>) -> Result<HostConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    let origins = settings.origins();
    let place = |key: &str| origins.get(key).map_or_else(|| key.to_owned(), Origin::to_string);
    let warnings = warn(&settings, &place);
    let docker = docker::build(&settings, vars, &mut problems);
    let mesos = mesos::build(&settings, vars, &mut problems);
    let decision_log = build_decision_log(&settings, &mut problems);
    let token = settings.token.and_then(|token| match read_token(&token.value, vars) {
        Ok(text) => Some(Token(text.into())),
        Err(message) => {
            problems.push(Problem::new(token.from.to_string(), message));
            None
        }
    });
    let listen = value(settings.listen).unwrap_or(DEFAULT_LISTEN);
    if !listen.ip().is_loopback() && token.is_none() && !origins.contains_key("http.token") {
        let message = format!("listening on `{listen}`, beyond loopback, needs a token; nothing was started");
        let hint = format!("set `{}`, or `token` in `[http]` of `{FILE_NAME}`", env::TOKEN.name);
        let problem = Problem::new(place("listen"), message).with_hint(Some(hint));
        problems.push(Problem { refused: true, ..problem });
    }
    let budget = match (value(settings.budget_changes), value(settings.budget_per)) {
        (Some(changes), Some(per)) if !per.is_zero() => Some(Budget { changes, per }),
        (None, None) => None,
        (_, Some(per)) if per.is_zero() => {
            problems.push(Problem::new(place("budget.per"), "`budget.per`: expected more than nothing, got 0s"));
            None
        }
        (changes, _) => {
            let (there, missing) = if changes.is_some() { ("changes", "per") } else { ("per", "changes") };
            let message = format!("`[budget]` has `{there}` and needs `{missing}` too");
            problems.push(Problem::new(place(&format!("budget.{there}")), message));
            None
        }
    };
    let mut params = Params::default();
    for (ParamKey { policy, name }, setting) in settings.params {
        let key = policy.as_ref().map_or_else(|| name.clone(), |policy| format!("{policy}.{name}"));
        params.origins.insert(key, setting.from);
        match policy {
            Some(policy) => params.by_policy.entry(policy).or_default().insert(name, setting.value),
            None => params.global.insert(name, setting.value),
        };
    }
    let defaults = Limits::default();
    let limits = Limits {
        cpu: value(settings.limit_cpu).unwrap_or(defaults.cpu),
        load_cpu: value(settings.limit_load_cpu).unwrap_or(defaults.load_cpu),
        memory: value(settings.limit_memory).unwrap_or(defaults.memory),
        source: value(settings.limit_source).unwrap_or(defaults.source),
        output: value(settings.limit_output).unwrap_or(defaults.output),
        state: value(settings.limit_state).unwrap_or(defaults.state),
        body: value(settings.limit_body).unwrap_or(defaults.body),
    };
    check_limits(&limits, &place, &mut problems);
    if let Some(Setting { value, from }) = settings.log_max.as_ref().filter(|max| max.value < LEAST_LOG) {
        let message = format!("`local.log_max`: expected at least 4KiB, got {value} bytes");
        problems.push(Problem::new(from.to_string(), message));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(HostConfig {
        listen,
        state_dir: value(settings.state_dir),
        stop_tasks: value(settings.stop_tasks).unwrap_or(false),
        dry_run: value(settings.dry_run).unwrap_or(false),
        exit_on_stop: value(settings.exit_on_stop).unwrap_or(false),
        log: value(settings.log),
        server: value(settings.server),
        script_threads: value(settings.script_threads),
        params,
        limits,
        permissions: Permissions {
            read_dirs: value(settings.read_dirs).unwrap_or_default(),
            allow_hosts: value(settings.allow_hosts),
            allow_backends: value(settings.allow_backends),
            exec: value(settings.exec).unwrap_or(false),
            secrets: settings.secrets.into_iter().map(|(name, setting)| (name, setting.value)).collect(),
        },
        budget,
        ports: value(settings.ports),
        log_max: value(settings.log_max),
        log_keep: value(settings.log_keep),
        decision_log,
        docker,
        mesos,
        token,
        hosts: value(settings.hosts).unwrap_or_default(),
        swarm_manager: value(settings.swarm_manager),
        services_listen: value(settings.services_listen),
        warm_up: value(settings.warm_up),
        origins,
        warnings,
    })
}

/// Checks what is said of the decision log.
fn build_decision_log(settings: &Settings, problems: &mut Vec<Problem>) -> DecisionLogConfig {
    if let Some(Setting { value, from }) = &settings.decision_log_max_size
        && !(LEAST_LOG..=MOST_DECISIONS).contains(value)
    {
        let message = format!("`decision_log.max_size`: expected from 4KiB to 1GiB, got {value} bytes");
        problems.push(Problem::new(from.to_string(), message));
    }
    if let Some(Setting { value, from }) = &settings.decision_log_max_age
        && value.is_zero()
    {
        problems.push(Problem::new(from.to_string(), "`decision_log.max_age`: expected more than nothing, got 0s"));
    }
    let enabled = value(settings.decision_log.clone());
    if enabled == Some(true) && settings.decision_log_folder.is_none() && settings.state_dir.is_none() {
        let place = settings.decision_log.as_ref().map(|setting| setting.from.to_string()).unwrap_or_default();
        let message = "`decision_log.enabled`: decisions can be recorded in a folder only, and there is none";
        let hint = "set `folder` in `[decision_log]`, or a state folder".to_owned();
        problems.push(Problem::new(place, message).with_hint(Some(hint)));
    }
    DecisionLogConfig {
        enabled,
        folder: value(settings.decision_log_folder.clone()),
        max_size: value(settings.decision_log_max_size.clone()),
        max_age: value(settings.decision_log_max_age.clone()),
        keep: value(settings.decision_log_keep.clone()),
    }
}

fn value<T>(setting: Option<Setting<T>>) -> Option<T> {
    setting.map(|setting| setting.value)
}

fn check_limits(limits: &Limits, place: &impl Fn(&str) -> String, problems: &mut Vec<Problem>) {
    /// A VM with its modules takes about 200 KB before a script has run a line.
    const LEAST_MEMORY: usize = 1 << 20;
    for (key, zero) in [
        ("limits.cpu", limits.cpu.is_zero()),
        ("limits.load_cpu", limits.load_cpu.is_zero()),
        ("limits.source", limits.source == 0),
        ("limits.body", limits.body == 0),
    ] {
        if zero {
            problems.push(Problem::new(place(key), format!("`{key}`: expected more than nothing, got 0")));
        }
    }
    if limits.memory < LEAST_MEMORY {
        let message = format!("`limits.memory`: expected at least 1MiB, got {} bytes", limits.memory);
        problems.push(Problem::new(place("limits.memory"), message));
    }
}

fn warn(settings: &Settings, place: &impl Fn(&str) -> String) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let is = |setting: &Option<Setting<bool>>| setting.as_ref().is_some_and(|setting| setting.value);
    if is(&settings.stop_tasks) && settings.state_dir.is_none() {
        let message = "`stop_tasks` changes nothing: without a state folder, tasks are always stopped at the end";
        warnings.push(Problem::new(place("stop_tasks"), message));
    }
    if settings.budget_changes.as_ref().is_some_and(|changes| changes.value == 0) {
        warnings.push(Problem::new(place("budget.changes"), "a budget of 0 changes lets nothing scale but up to min"));
    }
    if settings.mesos_failover_timeout.is_some() && settings.state_dir.is_none() {
        let message =
            "`mesos.failover_timeout` changes nothing: without a state folder, the framework ends with the run";
        warnings.push(Problem::new(place("mesos.failover_timeout"), message));
    }
    if settings.ports.as_ref().is_some_and(|ports| *ports.value.start() < 1024) {
        let message = "`local.ports` begins below 1024: tasks need privileges to listen there";
        warnings.push(Problem::new(place("local.ports"), message));
    }
    warnings
}

/// The token itself; at least one character.
fn read_token(source: &TokenSource, vars: &BTreeMap<String, String>) -> Result<String, String> {
    let text = read_secret("http.token", source, vars)?;
    // A header cannot carry anything else.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("`http.token`: expected printable ASCII characters without spaces".to_owned());
    }
    Ok(text)
}

/// A secret's text, without the end of its line.
fn read_secret(key: &str, source: &TokenSource, vars: &BTreeMap<String, String>) -> Result<String, String> {
    let text = match source {
        TokenSource::Literal(text) => text.clone(),
        TokenSource::From(SecretSource::Env(name)) => match vars.get(name) {
            Some(text) => text.clone(),
            None => return Err(format!("`{key}`: the environment has no `{name}`")),
        },
        TokenSource::From(SecretSource::File(path)) => std::fs::read_to_string(path)
            .map_err(|error| format!("`{key}`: cannot read `{}`: {error}", path.display()))?,
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests;
