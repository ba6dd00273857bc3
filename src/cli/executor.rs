//! `setpoint executor`: run tasks for a Mesos agent, which starts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint::backend::TaskBackend;
use setpoint::executor::{self, ExecutorConfig, ExecutorError};

use super::exit::{CliError, Exit};

/// What `executor` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End with the first task: for stand-ins of a cluster's own executors.
    #[arg(long)]
    single: bool,
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
    let config = ExecutorConfig { containers: containers(&vars), vars, sandbox, single: args.single };
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
fn containers(vars: &BTreeMap<String, String>) -> Option<Arc<dyn TaskBackend>> {
    use setpoint::backend::docker::{DockerBackend, DockerConfig};
    let config = setpoint::config::build(setpoint::config::Settings::default(), vars).ok()?;
    let engines = super::docker::engines(&config).ok()?;
    match DockerBackend::new(DockerConfig::new(engines)) {
        Ok(backend) => Some(backend),
        Err(error) => {
            tracing::warn!(error = %error, "no container engine can be used");
            None
        }
    }
}

#[cfg(not(feature = "docker"))]
fn containers(_: &BTreeMap<String, String>) -> Option<Arc<dyn TaskBackend>> {
    None
}
