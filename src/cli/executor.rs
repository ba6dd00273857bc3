//! `setpoint executor`: run tasks for a Mesos agent, which starts it.

use std::collections::BTreeMap;
use std::ffi::OsString;
#[cfg(feature = "docker")]
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use setpoint::backend::TaskBackend;
#[cfg(feature = "docker")]
use setpoint::backend::docker::{DockerBackend, DockerConfig};
#[cfg(feature = "docker")]
use setpoint::config::{self, Settings};
use setpoint::executor::{self, ExecutorConfig, ExecutorError, Watcher};

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
    /// Where containers see the sandbox; /mnt/mesos/sandbox unless given, where the engine is this machine's and --single is not.
    #[arg(long, value_name = "FOLDER")]
    mapped_directory: Option<String>,
    /// Leave a watcher behind, with this standard input, and end.
    #[arg(long, hide = true)]
    watch: bool,
    /// Be that watcher.
    #[arg(long, hide = true, requires = "watch")]
    stay: bool,
}

pub(crate) const EXAMPLES: &str = "\
A Mesos agent starts it, for policies whose workload says executor = \"setpoint\"; there is nothing to be run by hand. \
Images are run by the engine of DOCKER_HOST (DOCKER_CERT_PATH, DOCKER_TLS_VERIFY), and pulled with the credentials of \
DOCKER_CONFIG or HOME.";

/// Where a cluster's own Docker executor shows containers the sandbox.
#[cfg(feature = "docker")]
const MAPPED: &str = "/mnt/mesos/sandbox";

/// What runs images.
struct Containers {
    backend: Arc<dyn TaskBackend>,
    /// Where containers see the sandbox, when nobody says so; none where their engine does not.
    mapped: Option<&'static str>,
}

/// Runs until the agent, or the end of its tasks, ends it.
pub(crate) async fn run(args: &Args) -> Result<Exit, CliError> {
    let text = |value: std::ffi::OsString| value.into_string().ok();
    let vars: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
    if args.watch {
        return watch(args, &vars).await;
    }
    let sandbox = std::env::current_dir().map_err(|error| CliError::io("cannot find the sandbox", error))?;
    let containers = containers(&vars, args.container.clone());
    let usual = containers.as_ref().ok().and_then(|containers| containers.mapped).filter(|_| !args.single);
    let mapped = args.mapped_directory.clone().or_else(|| usual.map(str::to_owned));
    let containers = containers.map(|containers| containers.backend);
    // A cluster's own executors leave that to their agent.
    let watcher = std::env::current_exe().ok().filter(|_| !args.single);
    let watcher = watcher.map(|program| Watcher { program, arguments: watch_arguments(false) });
    let config = ExecutorConfig { containers, vars, sandbox, watcher, single: args.single, mapped };
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

/// What makes a watcher of this program: leave one behind, or be the one that stays.
fn watch_arguments(stay: bool) -> Vec<OsString> {
    ["executor", "--watch"].into_iter().chain(stay.then_some("--stay")).map(OsString::from).collect()
}

/// Leaves a watcher behind in a session that is nobody's, or is it.
async fn watch(args: &Args, vars: &BTreeMap<String, String>) -> Result<Exit, CliError> {
    if args.stay {
        let containers = containers(vars, None)
            .map_err(|why| CliError::new(Exit::Config, "there is no container engine to watch").because(why))?;
        executor::watch(containers.backend)
            .await
            .map_err(|error| CliError::io("cannot wait for the executor's end", error))?;
        return Ok(Exit::Ok);
    }
    let failed = |error| CliError::io("cannot leave a watcher behind", error);
    rustix::process::setsid().map_err(|error| failed(error.into()))?;
    let program = std::env::current_exe().map_err(failed)?;
    std::process::Command::new(program).args(watch_arguments(true)).spawn().map_err(failed)?;
    Ok(Exit::Ok)
}

/// The engine that the environment names, or why there is none.
#[cfg(feature = "docker")]
fn containers(vars: &BTreeMap<String, String>, container_name: Option<String>) -> Result<Containers, String> {
    let config = docker_config(vars, container_name)?;
    let is_here = config.engines.iter().all(|engine| engine.address.is_local());
    let backend = DockerBackend::new(config).map_err(|error| error.to_string())?;
    Ok(Containers { backend, mapped: is_here.then_some(MAPPED) })
}

/// That engine, and the credentials that the Docker client has there.
#[cfg(feature = "docker")]
fn docker_config(vars: &BTreeMap<String, String>, container_name: Option<String>) -> Result<DockerConfig, String> {
    let config = config::build(Settings::default(), vars)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let mut engines = super::docker::engines(&config).map_err(|error| error.to_string())?;
    for engine in &mut engines {
        engine.publish = publish_on(vars);
    }
    let client_config = config.docker.client_config;
    Ok(DockerConfig { container_name, client_config, ..DockerConfig::new(engines) })
}

/// Where ports are published: for everybody, as Mesos has it, unless the whole agent is for this machine only.
#[cfg(feature = "docker")]
fn publish_on(vars: &BTreeMap<String, String>) -> IpAddr {
    let agent = vars.get("MESOS_AGENT_ENDPOINT").and_then(|address| address.rsplit_once(':')?.0.parse::<IpAddr>().ok());
    agent.filter(IpAddr::is_loopback).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[cfg(not(feature = "docker"))]
fn containers(_: &BTreeMap<String, String>, _: Option<String>) -> Result<Containers, String> {
    Err("this build of setpoint has no containers".to_owned())
}

#[cfg(all(test, feature = "docker"))]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_environment_says_which_engine_runs_images_or_why_none_does() {
        let of = |pairs: &[(&str, &str)]| {
            let vars = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            (docker_config(&vars, None).map(|config| config.client_config), containers(&vars, None).map(|c| c.mapped))
        };
        assert_eq!(of(&[]), (Ok(None), Ok(Some(MAPPED))));
        assert_eq!(of(&[("DOCKER_HOST", "unix:///run/other.sock")]).1, Ok(Some(MAPPED)));
        let client = Some(Path::new("/etc/client/config.json").to_owned());
        let there = of(&[("DOCKER_HOST", "tcp://127.0.0.1:1"), ("DOCKER_CONFIG", "/etc/client"), ("HOME", "/root")]);
        assert_eq!(there, (Ok(client), Ok(None)), "another machine may not have the sandbox");
        let why = of(&[("DOCKER_HOST", "ftp://x")]).1.unwrap_err();
        assert!(why.contains("expected `unix:///path`"), "{why}");
    }
}
