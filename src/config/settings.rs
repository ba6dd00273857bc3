//! Settings in layers: what flags, the environment and a file each say, and which of them won.
//!
//! A layer holds only what it really says. [`Settings::or`] puts one layer over another, key by key; lists are
//! replaced as a whole, parameters and secrets one by one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::docker::{EngineSettings, RegistrySettings};
use crate::script::SecretSource;

/// Where a setting came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    #[default]
    Default,
    /// A line of a configuration file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: u32,
    },
    /// An environment variable.
    Env(&'static str),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
    /// The embedding program.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) | Self::Flag(name) => f.write_str(name),
            Self::Program => f.write_str("the program"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Who said so.
    pub from: Origin,
}

impl<T> Setting<T> {
    /// A setting.
    pub const fn new(value: T, from: Origin) -> Self {
        Self { value, from }
    }
}

/// Which parameter: of every policy that declares it, or of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamKey {
    /// The policy (a file's stem); none is every one that declares the parameter.
    pub policy: Option<String>,
    /// The parameter.
    pub name: String,
}

impl ParamKey {
    /// Reads `key=value` and `POLICY.key=value` as `--set` takes them. The value may hold anything.
    ///
    /// # Errors
    /// One line that says what was expected.
    pub fn parse_assignment(text: &str) -> Result<(Self, String), String> {
        let malformed = || format!("expected `key=value` or `POLICY.key=value`, got `{text}`");
        let (key, value) = text.split_once('=').ok_or_else(malformed)?;
        // A parameter is a Lua name, so its last dot is the policy's end, however many the policy has.
        let (policy, name) = match key.rsplit_once('.') {
            Some((policy, name)) => (Some(policy.to_owned()), name),
            None => (None, key),
        };
        if name.is_empty() || policy.as_deref() == Some("") {
            return Err(malformed());
        }
        Ok((Self { policy, name: name.to_owned() }, value.to_owned()))
    }
}

/// The API's token, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// The token itself.
    Literal(String),
    /// An environment variable or a file that holds it.
    From(SecretSource),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(…)"),
            Self::From(source) => f.debug_tuple("From").field(source).finish(),
        }
    }
}

/// Defines the layer, its merge, and the list of who set what, so that no key can be left out of one of them.
macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident = $key:literal: $type:ty,)*) => {
        /// What one layer says.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Settings {
            $($(#[$doc])* pub $field: Option<Setting<$type>>,)*
            /// Parameters of policies, as text.
            pub params: BTreeMap<ParamKey, Setting<String>>,
            /// Secrets by name.
            pub secrets: BTreeMap<String, Setting<SecretSource>>,
            /// Container engines by name.
            pub docker_engines: BTreeMap<String, EngineSettings>,
            /// Registries of images by name.
            pub docker_registries: BTreeMap<String, RegistrySettings>,
        }

        impl Settings {
            /// This layer over a lower one.
            #[must_use]
            pub fn or(self, lower: Self) -> Self {
                let (mut params, mut secrets) = (lower.params, lower.secrets);
                params.extend(self.params);
                secrets.extend(self.secrets);
                let (mut docker_engines, mut docker_registries) = (lower.docker_engines, lower.docker_registries);
                docker_engines.extend(self.docker_engines);
                docker_registries.extend(self.docker_registries);
                Self {
                    $($field: self.$field.or(lower.$field),)*
                    params,
                    secrets,
                    docker_engines,
                    docker_registries,
                }
            }

            /// Who set what, by key; keys that nobody set are left out.
            #[must_use]
            pub fn origins(&self) -> BTreeMap<&'static str, Origin> {
                let mut origins = BTreeMap::new();
                $(if let Some(setting) = &self.$field {
                    origins.insert($key, setting.from.clone());
                })*
                origins
            }
        }
    };
}

settings! {
    /// Where the API listens.
    listen = "listen": SocketAddr,
    /// The state folder.
    state_dir = "state_dir": PathBuf,
    /// Stop all tasks on the way out, with a state folder too.
    stop_tasks = "stop_tasks": bool,
    /// Carry nothing out.
    dry_run = "dry_run": bool,
    /// End the run when the first policy has ended.
    exit_on_stop = "exit_on_stop": bool,
    /// A filter for the log, as `tracing` writes them: `info,setpoint::script=debug`.
    log = "log": String,
    /// The API that the client verbs talk to.
    server = "server": String,
    /// The configuration file.
    config = "config": PathBuf,
    /// Threads that scripts run on.
    script_threads = "script_threads": usize,
    /// CPU time of one call of a script's function.
    limit_cpu = "limits.cpu": Duration,
    /// CPU time of one load of a script.
    limit_load_cpu = "limits.load_cpu": Duration,
    /// Memory of one script file, in bytes.
    limit_memory = "limits.memory": usize,
    /// Bytes of a source file.
    limit_source = "limits.source": usize,
    /// Bytes that one call may log.
    limit_output = "limits.output": usize,
    /// Bytes of `ctx.state`.
    limit_state = "limits.state": usize,
    /// Bytes of one body that a module reads.
    limit_body = "limits.body": usize,
    /// Backends that policies may name.
    allow_backends = "policy.allow_backends": Vec<String>,
    /// Hosts that scripts may reach.
    allow_hosts = "policy.allow_hosts": Vec<String>,
    /// Folders that scripts may read.
    read_dirs = "policy.read_dirs": Vec<PathBuf>,
    /// Whether scripts may run commands.
    exec = "policy.exec": bool,
    /// Changes that all policies together may make …
    budget_changes = "budget.changes": u32,
    /// … in this long.
    budget_per = "budget.per": Duration,
    /// Ports that local tasks are given.
    ports = "local.ports": RangeInclusive<u16>,
    /// Bytes from which on a local task's log is rotated.
    log_max = "local.log_max": usize,
    /// How many logs of ended local tasks are kept for each policy.
    log_keep = "local.log_keep": usize,
    /// Whether decisions are recorded.
    decision_log = "decision_log.enabled": bool,
    /// Where they are.
    decision_log_folder = "decision_log.folder": PathBuf,
    /// Bytes from which on a file of them is closed.
    decision_log_max_size = "decision_log.max_size": usize,
    /// Age from which on it is.
    decision_log_max_age = "decision_log.max_age": Duration,
    /// How many files are kept.
    decision_log_keep = "decision_log.keep": usize,
    /// The container engine's address.
    docker_host = "docker.host": String,
    /// The folder with its certificates.
    docker_cert_path = "docker.cert_path": PathBuf,
    /// Whether it is spoken to by TLS.
    docker_tls_verify = "docker.tls_verify": bool,
    /// The address of its machine that ports are published on.
    docker_publish = "docker.publish": IpAddr,
    /// The name or address under which its containers' ports are reached.
    docker_advertise = "docker.advertise": String,
    /// Where Mesos's masters are.
    mesos_master = "mesos.master": String,
    /// The framework's principal.
    mesos_principal = "mesos.principal": String,
    /// Its secret.
    mesos_secret = "mesos.secret": TokenSource,
    /// Certificates to trust besides the system's.
    mesos_ca = "mesos.ca": PathBuf,
    /// Whether masters and agents are asked over TLS.
    mesos_tls = "mesos.tls": bool,
    /// The role of policies that name none.
    mesos_role = "mesos.role": String,
    /// The user that tasks run as.
    mesos_user = "mesos.user": String,
    /// The framework's name.
    mesos_name = "mesos.name": String,
    /// This machine's name, for the cluster's page.
    mesos_hostname = "mesos.hostname": String,
    /// Where our page is, for the cluster's.
    mesos_webui_url = "mesos.webui_url": String,
    /// Whether agents with GPUs are offered.
    mesos_gpus = "mesos.gpus": bool,
    /// Whether tasks survive a restart of their agent.
    mesos_checkpoint = "mesos.checkpoint": bool,
    /// How long the cluster keeps the tasks of a host that is away.
    mesos_failover_timeout = "mesos.failover_timeout": Duration,
    /// How long tasks on agents that the cluster cannot reach are waited for.
    mesos_unreachable_timeout = "mesos.unreachable_timeout": Duration,
    /// Our executor's program on the agents.
    mesos_executor_path = "mesos.executor.path": String,
    /// Where agents fetch it from.
    mesos_executor_uri = "mesos.executor.uri": String,
    /// The engine that our executors use.
    mesos_docker_host = "mesos.executor.docker_host": String,
    /// The folder with its certificates, on the agents.
    mesos_docker_cert_path = "mesos.executor.docker_cert_path": String,
    /// Whether it is spoken to by TLS.
    mesos_docker_tls_verify = "mesos.executor.docker_tls_verify": bool,
    /// The API's token.
    token = "http.token": TokenSource,
    /// Further names under which the API may be addressed.
    hosts = "http.hosts": Vec<String>,
    /// The engine that is a manager of the Swarm.
    swarm_manager = "swarm.manager": String,
    /// Where the list of usable tasks is served in mesos-memcached's shape.
    services_listen = "services.listen": SocketAddr,
    /// How long a new task of a cache is warmed up.
    warm_up = "services.warm_up": Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_wins_key_by_key() {
        let flags = Settings {
            listen: Some(Setting::new("127.0.0.1:1".parse().unwrap(), Origin::Flag("--listen"))),
            params: BTreeMap::from([ParamKey::parse_assignment("a.max=1").unwrap()])
                .into_iter()
                .map(|(key, value)| (key, Setting::new(value, Origin::Flag("--set"))))
                .collect(),
            ..Settings::default()
        };
        let env = Settings {
            listen: Some(Setting::new("127.0.0.1:2".parse().unwrap(), Origin::Env("SETPOINT_LISTEN"))),
            dry_run: Some(Setting::new(true, Origin::Env("SETPOINT_DRY_RUN"))),
            ..Settings::default()
        };
        let low = ParamKey { policy: None, name: "max".into() };
        let file = Settings {
            dry_run: Some(Setting::new(false, Origin::Program)),
            params: BTreeMap::from([(low.clone(), Setting::new("9".into(), Origin::Program))]),
            ..Settings::default()
        };
        let merged = flags.or(env).or(file);
        assert_eq!(merged.listen.as_ref().unwrap().value.port(), 1);
        assert!(merged.dry_run.as_ref().unwrap().value);
        assert_eq!(merged.params.len(), 2);
        assert_eq!(merged.origins()["dry_run"].to_string(), "SETPOINT_DRY_RUN");
        assert_eq!(merged.origins()["listen"].to_string(), "--listen");
    }

    #[test]
    fn assignments_end_their_policy_at_the_last_dot() {
        let parse = |text| ParamKey::parse_assignment(text).map(|(key, value)| (key.policy, key.name, value));
        assert_eq!(parse("max=1"), Ok((None, "max".into(), "1".into())));
        assert_eq!(parse("a.b.max=x=y."), Ok((Some("a.b".into()), "max".into(), "x=y.".into())));
        for text in ["max", "=1", ".max=1", "a.=1", ""] {
            let message = parse(text).unwrap_err();
            assert_eq!(message, format!("expected `key=value` or `POLICY.key=value`, got `{text}`"));
        }
    }
}
