//! The Mesos backend, and the view of its cluster, from the settings.

use std::sync::Arc;

use setpoint::backend::Backend;
use setpoint::backend::mesos::{FAILOVER_TIMEOUT, MesosBackend, MesosConfig, Setting, UNREACHABLE_FOR};
use setpoint::config::HostConfig;
use setpoint::mesos::{Credentials, HttpConfig, Masters};
use setpoint::runtime::MesosCluster;
use setpoint::script::cluster::ClusterView;

use super::exit::{CliError, Exit};

/// The backend; connects when a policy needs it.
pub(crate) fn backend(config: &HostConfig) -> Result<Backend, CliError> {
    let mesos = &config.mesos;
    let own = std::env::current_exe().map_or_else(|_| "setpoint".to_owned(), |path| path.display().to_string());
    Ok(Backend::Tasks(MesosBackend::new(MesosConfig {
        masters: masters(config)?,
        http: http(config)?,
        tls: mesos.tls,
        name: mesos.name.clone().unwrap_or_else(|| "setpoint".to_owned()),
        user: mesos.user.clone().unwrap_or_else(user),
        principal: mesos.principal.clone(),
        hostname: mesos.hostname.clone().or_else(hostname),
        webui_url: mesos.webui_url.clone(),
        checkpoint: mesos.checkpoint,
        failover_timeout: mesos.failover_timeout.unwrap_or(FAILOVER_TIMEOUT),
        state_dir: config.state_dir.clone(),
        setting: Setting {
            role: mesos.role.clone().unwrap_or_else(|| "*".to_owned()),
            executor: mesos.executor_path.clone().unwrap_or(own),
            executor_uri: mesos.executor_uri.clone(),
            executor_env: mesos.executor_env.clone(),
            gpus: mesos.gpus,
            mark: "setpoint".to_owned(),
            unreachable: mesos.unreachable_timeout.unwrap_or(UNREACHABLE_FOR),
        },
    })))
}

/// Who looks at the cluster for scripts; none where no master is named. Connects to nothing yet.
pub(crate) fn cluster(config: &HostConfig) -> Result<Option<Arc<dyn ClusterView>>, CliError> {
    let Some(masters) = masters(config)? else { return Ok(None) };
    let cluster = MesosCluster::new(masters, config.mesos.tls, &http(config)?);
    let cluster = cluster.map_err(|error| wrong("cannot look at the Mesos cluster").because(error))?;
    Ok(Some(cluster))
}

fn wrong(what: &str) -> CliError {
    CliError::new(Exit::Config, what.to_owned())
}

fn masters(config: &HostConfig) -> Result<Option<Masters>, CliError> {
    let masters = config.mesos.master.as_deref().map(str::parse::<Masters>).transpose();
    masters.map_err(|error| wrong("`mesos.master` cannot be used").because(error))
}

fn http(config: &HostConfig) -> Result<HttpConfig, CliError> {
    let mesos = &config.mesos;
    let ca_pem = mesos.ca.as_ref().map(std::fs::read).transpose();
    let ca_pem = ca_pem.map_err(|error| CliError::io("cannot read `mesos.ca`", error))?;
    let credentials = mesos
        .principal
        .clone()
        .zip(mesos.secret.as_ref())
        .map(|(principal, secret)| Credentials::Basic { principal, secret: secret.reveal().to_owned() });
    Ok(HttpConfig { credentials, ca_pem, ..HttpConfig::default() })
}

/// The name of the user that runs this.
fn user() -> String {
    let id = rustix::process::geteuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.or_else(|| std::env::var_os("USER")?.into_string().ok()).unwrap_or_else(|| "root".to_owned())
}

fn hostname() -> Option<String> {
    Some(rustix::system::uname().nodename().to_str().ok()?.to_owned())
}
