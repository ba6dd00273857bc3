//! Container engines from the settings.

use std::sync::Arc;

use setpoint::backend::Backend;
use setpoint::backend::docker::{DockerBackend, DockerConfig};
use setpoint::backend::swarm::{SwarmBackend, SwarmConfig};
use setpoint::config::{EngineSettings, HostConfig};
use setpoint::container::{Address, Credentials, Engine, EngineConfig};
use setpoint::runtime::EngineContainers;
use setpoint::script::containers::Containers;

use super::exit::{CliError, Exit};

/// The backend on all configured engines; connects to none of them.
pub(crate) fn backend(config: &HostConfig, log_folder: &str) -> Result<Backend, CliError> {
    let credentials = |(username, password): &(String, setpoint::config::Token)| Credentials {
        username: username.clone(),
        password: password.reveal().to_owned(),
        identity_token: None,
    };
    let registries = &config.docker.registries;
    let docker = DockerConfig {
        mark: config.state_dir.clone(),
        log_dir: config.state_dir.as_ref().map(|dir| dir.join(log_folder)),
        registries: registries.iter().map(|(name, registry)| (name.clone(), credentials(registry))).collect(),
        client_config: config.docker.client_config.clone(),
        hands_off: config.dry_run,
        ..DockerConfig::new(engines(config)?)
    };
    let backend = DockerBackend::new(docker)
        .map_err(|error| CliError::new(Exit::Config, "cannot use the container engines").because(error))?;
    Ok(Backend::Tasks(backend))
}

/// The Swarm whose manager is among the configured engines; connects to none of them.
pub(crate) fn swarm(config: &HostConfig) -> Result<Backend, CliError> {
    let engines = engines(config)?;
    let manager = manager(config, &engines)?;
    let swarm = SwarmConfig { manager, engines, mark: config.state_dir.clone() };
    let backend =
        SwarmBackend::new(swarm).map_err(|error| CliError::new(Exit::Config, "cannot use the Swarm").because(error))?;
    Ok(Backend::Count(backend))
}

/// The engine that `swarm.manager` names, or the first one.
fn manager(config: &HostConfig, engines: &[EngineConfig]) -> Result<EngineConfig, CliError> {
    let manager = match &config.swarm_manager {
        None => engines.first(),
        Some(name) => engines.iter().find(|engine| engine.name == *name),
    };
    manager.cloned().ok_or_else(|| {
        let names: Vec<&str> = engines.iter().map(|engine| engine.name.as_str()).collect();
        let wanted = config.swarm_manager.as_deref().unwrap_or_default();
        CliError::new(Exit::Config, format!("`swarm.manager`: there is no engine `{wanted}`"))
            .hint(format!("the engines are: {}", names.join(", ")))
    })
}

/// Who looks at the configured engines, and the Swarm among them, for scripts.
pub(crate) fn containers(config: &HostConfig) -> Result<Arc<dyn Containers>, CliError> {
    let engines = engines(config)?;
    let manager = Engine::new(manager(config, &engines)?);
    Ok(EngineContainers::new(engines.into_iter().map(Engine::new).collect(), Some(manager)))
}

/// The configured engines.
pub(crate) fn engines(config: &HostConfig) -> Result<Vec<EngineConfig>, CliError> {
    config.docker.engines.iter().map(|(name, settings)| engine(name, settings)).collect()
}

fn engine(name: &str, settings: &EngineSettings) -> Result<EngineConfig, CliError> {
    let host = settings.host.as_deref().unwrap_or(Address::DEFAULT);
    let address = Address::parse(host, settings.cert_path.is_some())
        .map_err(|error| CliError::new(Exit::Config, format!("the container engine `{name}`: {error}")))?;
    let mut engine = EngineConfig::new(name, address);
    engine.cert_path.clone_from(&settings.cert_path);
    engine.publish = settings.publish.unwrap_or(engine.publish);
    engine.advertise = settings.advertise.clone().unwrap_or(engine.advertise);
    Ok(engine)
}
