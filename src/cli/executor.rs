//! `setpoint executor`: run tasks for a Mesos agent, which starts it.

use std::collections::BTreeMap;
#[cfg(feature = "docker")]
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use setpoint::backend::TaskBackend;
use setpoint::executor::{self, ExecutorConfig, ExecutorError};

use super::exit::{CliError, Exit};

/// What `executor` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Be as a cluster's own executors, for stand-ins of them: end with the first task, and end it when it is unhealthy.
    #[arg(long)]
    single: bool,
    /// What the container of the only task is called; Mesos's Docker containerizer looks it up by that.
    #[arg(long, value_name = "NAME", requires = "single")]
    container: Option<String>,
    /// Where containers see the sandbox.
    #[arg(long, value_name = "FOLDER")]
    mapped_directory: Option<String>,
}

pub(crate) const EXAMPLES: &str = "\
A Mesos agent starts it, for policies whose workload says executor = \"setpoint\"; there is nothing to be run by hand. \
Images are run by the engine of DOCKER_HOST (DOCKER_CERT_PATH, DOCKER_TLS_VERIFY).";

/// Runs until the agent, or the end of its tasks, ends it.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let text = |value: std::ffi::OsString| value.into_string().ok();
    let vars: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
    let sandbox = std::env::current_dir().map_err(|error| CliError::io("cannot find the sandbox", error))?;
    let containers = containers(&vars, args.container.clone());
    let mapped = args.mapped_directory.clone();
    let config = ExecutorConfig { containers, vars, sandbox, single: args.single, mapped };
    match executor::run(config).await {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => {
            let exit = match error {
                ExecutorError::Variable(_) => Exit::Usage,
                _ => Exit::Unavailable,
            };
            let told = CliError::new(exit, error.to_string());
            Err(match std::error::Error::source(&error) {
                Some(cause) => told.because(cause.to_string()),
                None => told,
            })
        }
    }
}

/// The engine that the environment names.
#[cfg(feature = "docker")]
fn containers(vars: &BTreeMap<String, String>, container_name: Option<String>) -> Option<Arc<dyn TaskBackend>> {
    use setpoint::backend::docker::{DockerBackend, DockerConfig};
    let config = setpoint::config::build(setpoint::config::Settings::default(), vars).ok()?;
    let mut engines = super::docker::engines(&config).ok()?;
    for engine in &mut engines {
        engine.publish = publish_on(vars);
    }
    match DockerBackend::new(DockerConfig { container_name, ..DockerConfig::new(engines) }) {
        Ok(backend) => Some(backend),
        Err(error) => {
            tracing::warn!(error = %error, "no container engine can be used");
            None
        }
    }
}

/// Where ports are published: for everybody, as Mesos has it, unless the whole agent is for this machine only.
#[cfg(feature = "docker")]
fn publish_on(vars: &BTreeMap<String, String>) -> IpAddr {
    let agent = vars.get("MESOS_AGENT_ENDPOINT").and_then(|address| address.rsplit_once(':')?.0.parse::<IpAddr>().ok());
    agent.filter(IpAddr::is_loopback).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[cfg(not(feature = "docker"))]
fn containers(_: &BTreeMap<String, String>, _: Option<String>) -> Option<Arc<dyn TaskBackend>> {
    None
}
