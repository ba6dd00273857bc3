//! The Mesos backend, and the view of its cluster, from the settings.

use std::sync::Arc;

use nix::unistd::{self, Uid, User};
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
    let masters = masters(config)?;
    let user = match &mesos.user {
        Some(user) => user.clone(),
        // Without a cluster nobody is told who we are.
        None if masters.is_none() => String::new(),
        None => user_of(unistd::geteuid())?,
    };
    let own = std::env::current_exe().map_or_else(|_| "setpoint".to_owned(), |path| path.display().to_string());
    Ok(Backend::Tasks(MesosBackend::new(MesosConfig {
        masters,
        http: http(config)?,
        tls: mesos.tls,
        name: mesos.name.clone().unwrap_or_else(|| "setpoint".to_owned()),
        user,
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
    let read = if config.mesos.tls { Masters::over_tls } else { str::parse::<Masters> };
    let masters = config.mesos.master.as_deref().map(read).transpose();
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

/// The account's name; tasks run as it unless a policy says otherwise.
fn user_of(id: Uid) -> Result<String, CliError> {
    let nameless = match User::from_uid(id) {
        Ok(Some(user)) => return Ok(user.name),
        Ok(None) if id.is_root() => return Ok("root".to_owned()),
        Ok(None) => {
            wrong(&format!("whom tasks on Mesos are to run as is not known: the user {id} has no account here"))
        }
        Err(error) => wrong("whom tasks on Mesos are to run as cannot be looked up").because(error),
    };
    Err(nameless.hint("set `user` in `[mesos]`, or SETPOINT_MESOS_USER"))
}

fn hostname() -> Option<String> {
    Some(rustix::system::uname().nodename().to_str().ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use setpoint::config::{self, Origin, Setting, Settings};

    use super::*;

    #[test]
    fn masters_are_asked_over_tls_where_the_settings_say_so() {
        for (tls, expected) in [(true, "https://a:5050/"), (false, "http://a:5050/")] {
            let settings = Settings {
                mesos_master: Some(Setting::new("a:5050".to_owned(), Origin::Program)),
                mesos_tls: Some(Setting::new(tls, Origin::Program)),
                ..Settings::default()
            };
            let config = config::build(settings, &BTreeMap::new()).unwrap();
            assert_eq!(masters(&config).ok().flatten().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn tasks_run_as_the_account_of_the_host_and_never_as_root_for_want_of_one() {
        assert_eq!(user_of(Uid::from_raw(0)).ok().as_deref(), Some("root"));
        let nobody = User::from_name("nobody").unwrap().unwrap();
        assert_eq!(user_of(nobody.uid).ok().as_deref(), Some("nobody"));
        let error = user_of(Uid::from_raw(987_654)).unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        assert!(format!("{error:?}").contains("set `user` in `[mesos]`"), "{error:?}");
    }
}
