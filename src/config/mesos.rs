//! `[mesos]`: the cluster, and what the framework is there.
//!
//! ```toml
//! [mesos]
//! master = "zk://zk1:2181,zk2:2181/mesos"   # or "host:5050", "host:5050,host:5050", "https://…"
//! principal = "setpoint"
//! secret = { file = "mesos.secret" }
//! role = "web"
//!
//! [mesos.executor]                          # of workloads with executor = "setpoint"
//! path = "/usr/local/bin/setpoint"          # on the agents; this program's own unless given
//! docker_host = "unix:///var/run/docker.sock"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::file::{boolean, duration, path, secret, text};
use super::problem::Problem;
use super::section::{Document, Section};
use super::settings::{Settings, TokenSource};
use super::{Token, read_secret, value};

/// The cluster and the framework, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MesosConfig {
    /// Where the masters are, as text.
    pub master: Option<String>,
    /// The framework's principal.
    pub principal: Option<String>,
    /// Its secret.
    pub secret: Option<Token>,
    /// Certificates to trust besides the system's, in PEM.
    pub ca: Option<PathBuf>,
    /// Whether masters and agents are asked over TLS, also where their address does not say so.
    pub tls: bool,
    /// The role of policies that name none; `*` unless given.
    pub role: Option<String>,
    /// The user that tasks run as.
    pub user: Option<String>,
    /// The framework's name.
    pub name: Option<String>,
    /// This machine's name, for the cluster's page.
    pub hostname: Option<String>,
    /// Where our page is, for the cluster's.
    pub webui_url: Option<String>,
    /// Whether agents with GPUs are offered.
    pub gpus: bool,
    /// Whether tasks survive a restart of their agent.
    pub checkpoint: bool,
    /// How long the cluster keeps the tasks of a host that is away.
    pub failover_timeout: Option<Duration>,
    /// How long tasks on agents that the cluster cannot reach are waited for.
    pub unreachable_timeout: Option<Duration>,
    /// Our executor's program on the agents.
    pub executor_path: Option<String>,
    /// Where agents fetch it from.
    pub executor_uri: Option<String>,
    /// Our executors' environment.
    pub executor_env: BTreeMap<String, String>,
}

/// Reads `[mesos]`.
pub(super) fn read(document: &mut Document<'_>, table: &DeTable<'_>, base: &Path, settings: &mut Settings) {
    let mut section = Section::new(document, "mesos", table);
    settings.mesos_master = section.get("master", text);
    settings.mesos_principal = section.get("principal", text);
    settings.mesos_secret = section.get("secret", |value| secret(value, base).map(TokenSource::From));
    settings.mesos_ca = section.get("ca", |value| path(value, base));
    settings.mesos_tls = section.get("tls", boolean);
    settings.mesos_role = section.get("role", text);
    settings.mesos_user = section.get("user", text);
    settings.mesos_name = section.get("name", text);
    settings.mesos_hostname = section.get("hostname", text);
    settings.mesos_webui_url = section.get("webui_url", text);
    settings.mesos_gpus = section.get("gpus", boolean);
    settings.mesos_checkpoint = section.get("checkpoint", boolean);
    settings.mesos_failover_timeout = section.get("failover_timeout", duration);
    settings.mesos_unreachable_timeout = section.get("unreachable_timeout", duration);
    let executor = section.table("executor");
    section.finish();
    if let Some(table) = executor {
        let mut section = Section::new(document, "mesos.executor", table);
        settings.mesos_executor_path = section.get("path", text);
        settings.mesos_executor_uri = section.get("uri", text);
        settings.mesos_docker_host = section.get("docker_host", text);
        settings.mesos_docker_cert_path = section.get("docker_cert_path", text);
        settings.mesos_docker_tls_verify = section.get("docker_tls_verify", boolean);
        section.finish();
    }
}

/// Puts the settings together.
pub(super) fn build(settings: &Settings, vars: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> MesosConfig {
    let settings = settings.clone();
    let secret = settings.mesos_secret.and_then(|secret| match read_secret("mesos.secret", &secret.value, vars) {
        Ok(text) => Some(Token(text.into())),
        Err(message) => {
            problems.push(Problem::new(secret.from.to_string(), message));
            None
        }
    });
    if secret.is_some() && settings.mesos_principal.is_none() {
        problems.push(Problem::new("mesos.secret", "is of no use without `mesos.principal`"));
    }
    let tls = settings.mesos_tls.as_ref().filter(|tls| tls.value);
    let says_http = |master: &str| master.trim().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
    if let (Some(tls), Some(master)) = (tls, &settings.mesos_master)
        && master.value.split(',').any(says_http)
    {
        let message = "`mesos.tls` is true and `mesos.master` says `http://`: expected `https://`, or no scheme";
        problems.push(Problem::new(tls.from.to_string(), message));
    }
    let host = value(settings.mesos_docker_host).map(|host| ("DOCKER_HOST".to_owned(), host));
    let certificates = value(settings.mesos_docker_cert_path).map(|path| ("DOCKER_CERT_PATH".to_owned(), path));
    let verify = value(settings.mesos_docker_tls_verify).filter(|verify| *verify);
    let verify = verify.map(|_| ("DOCKER_TLS_VERIFY".to_owned(), "1".to_owned()));
    MesosConfig {
        master: value(settings.mesos_master),
        principal: value(settings.mesos_principal),
        secret,
        ca: value(settings.mesos_ca),
        tls: value(settings.mesos_tls).unwrap_or(false),
        role: value(settings.mesos_role),
        user: value(settings.mesos_user),
        name: value(settings.mesos_name),
        hostname: value(settings.mesos_hostname),
        webui_url: value(settings.mesos_webui_url),
        gpus: value(settings.mesos_gpus).unwrap_or(false),
        checkpoint: value(settings.mesos_checkpoint).unwrap_or(true),
        failover_timeout: value(settings.mesos_failover_timeout),
        unreachable_timeout: value(settings.mesos_unreachable_timeout),
        executor_path: value(settings.mesos_executor_path),
        executor_uri: value(settings.mesos_executor_uri),
        executor_env: host.into_iter().chain(certificates).chain(verify).collect(),
    }
}
