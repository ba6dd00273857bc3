//! The Mesos backend from the settings.

use setpoint::backend::Backend;
use setpoint::backend::mesos::{FAILOVER_TIMEOUT, MesosBackend, MesosConfig, Setting};
use setpoint::config::HostConfig;
use setpoint::mesos::{Credentials, HttpConfig, Masters};

use super::exit::{CliError, Exit};

/// The backend; connects when a policy needs it.
pub(crate) fn backend(config: &HostConfig) -> Result<Backend, CliError> {
    let mesos = &config.mesos;
    let wrong = |what: &str| CliError::new(Exit::Config, what.to_owned());
    let masters = mesos.master.as_deref().map(str::parse::<Masters>).transpose();
    let masters = masters.map_err(|error| wrong("`mesos.master` cannot be used").because(error))?;
    let ca_pem = mesos.ca.as_ref().map(std::fs::read).transpose();
    let ca_pem = ca_pem.map_err(|error| CliError::io("cannot read `mesos.ca`", error))?;
    let credentials = mesos
        .principal
        .clone()
        .zip(mesos.secret.as_ref())
        .map(|(principal, secret)| Credentials::Basic { principal, secret: secret.reveal().to_owned() });
    let own = std::env::current_exe().map_or_else(|_| "setpoint".to_owned(), |path| path.display().to_string());
    Ok(Backend::Tasks(MesosBackend::new(MesosConfig {
        masters,
        http: HttpConfig { credentials, ca_pem, ..HttpConfig::default() },
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
            mark: "setpoint".to_owned(),
        },
    })))
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
