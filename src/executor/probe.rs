//! One attempt at finding out whether a task is well: a command beside it, a page that it serves, a port that it accepts on.
//!
//! Pages and ports are asked for on this machine, where Mesos's own executors do, too. Those of a container with a network of
//! its own are reached where they are published, so one that is not cannot be checked.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::{Client, Url};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;

use crate::core::model::TaskId;
use crate::core::policy::Command;
use crate::mesos::wire::{ContainerInfo, DockerNetwork, HealthCheck, HealthCheckKind};

/// What is tried.
#[derive(Clone, Debug)]
pub(super) enum Probe {
    Command { command: Command, env: BTreeMap<String, String>, folder: PathBuf },
    Http { client: Client, url: Url },
    Tcp { port: u16 },
}

impl Probe {
    /// What a check tries; none when it says nothing that can be tried, or the container's engine tries it.
    pub(super) fn of(
        check: &HealthCheck,
        container: Option<&ContainerInfo>,
        env: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Option<Self> {
        match &check.kind {
            HealthCheckKind::Command if container.is_some_and(|container| container.docker.is_some()) => None,
            HealthCheckKind::Command => Some(Self::Command {
                command: super::task::command(check.command.as_ref()?, false)?,
                env: env.clone(),
                folder: folder.to_owned(),
            }),
            HealthCheckKind::Http => {
                let http = check.http.as_ref()?;
                let scheme = http.scheme.as_deref().unwrap_or("http");
                let port = outside(container, http.port)?;
                let path = http.path.as_deref().unwrap_or("/");
                let url = Url::parse(&format!("{scheme}://{}:{port}{path}", Ipv4Addr::LOCALHOST));
                match url.map_err(|error| error.to_string()).and_then(|url| Ok((url, client()?))) {
                    Ok((url, client)) => Some(Self::Http { client, url }),
                    Err(error) => {
                        tracing::warn!(scheme, port, path, error = %error, "the page cannot be asked for");
                        None
                    }
                }
            }
            HealthCheckKind::Tcp => Some(Self::Tcp { port: outside(container, check.tcp.as_ref()?.port)? }),
            other => {
                tracing::warn!(kind = %other, "a health check that this executor does not know");
                None
            }
        }
    }

    /// Tries it once. What it has started ends when this is dropped.
    pub(super) async fn passes(&self, id: &TaskId) -> bool {
        match self {
            Self::Command { command, env, folder } => runs(id, command, env, folder).await,
            Self::Http { client, url } => match client.get(url.clone()).send().await {
                Ok(answer) => (200..400).contains(&answer.status().as_u16()),
                Err(error) => {
                    tracing::debug!(task = %id, error = %error, "no page");
                    false
                }
            },
            Self::Tcp { port } => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.is_ok(),
        }
    }
}

/// Where a port of a task is reached on this machine.
fn outside(container: Option<&ContainerInfo>, port: u32) -> Option<u16> {
    let docker = container.and_then(|container| container.docker.as_ref());
    let outside = match docker {
        Some(docker) if docker.network == Some(DockerNetwork::None) => None,
        Some(docker) if docker.network != Some(DockerNetwork::Host) => {
            let mapped = docker.port_mappings.iter().find(|mapping| mapping.container_port == port);
            mapped.map(|mapping| mapping.host_port)
        }
        _ => Some(port),
    };
    if outside.is_none() {
        tracing::warn!(port, "a port that is not published has no health that could be found out");
    }
    outside.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// A client that follows redirections and takes any certificate, as Mesos's own checks do.
fn client() -> Result<Client, String> {
    #[cfg(feature = "tls")]
    // Somebody else in the process may have chosen a provider already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = Client::builder().no_proxy().pool_max_idle_per_host(0);
    #[cfg(feature = "tls")]
    let builder = builder.tls_danger_accept_invalid_certs(true);
    builder.build().map_err(|error| error.to_string())
}

/// Runs a command once; whatever is left of it after that is killed.
async fn runs(id: &TaskId, command: &Command, env: &BTreeMap<String, String>, folder: &Path) -> bool {
    let mut process = match command {
        Command::Shell(line) => {
            let mut shell = tokio::process::Command::new("/bin/sh");
            shell.args(["-c", line]);
            shell
        }
        Command::Argv(argv) => {
            let Some((program, arguments)) = argv.split_first() else { return false };
            let mut process = tokio::process::Command::new(program);
            process.args(arguments);
            process
        }
    };
    process.envs(env).current_dir(folder).process_group(0).kill_on_drop(true);
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(task = %id, error = %error, "the health check cannot be run");
            return false;
        }
    };
    let _rest = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    child.wait().await.is_ok_and(|status| status.success())
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Most often it is empty by then.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::wire::{DockerInfo, DockerPortMapping};

    #[test]
    fn ports_are_asked_where_they_are_reached() {
        let container = |network| ContainerInfo {
            docker: Some(DockerInfo {
                network: Some(network),
                port_mappings: vec![DockerPortMapping { host_port: 31_000, container_port: 80, protocol: None }],
                ..DockerInfo::default()
            }),
            ..ContainerInfo::default()
        };
        assert_eq!(outside(None, 8080), Some(8080));
        assert_eq!(outside(Some(&container(DockerNetwork::Host)), 80), Some(80));
        assert_eq!(outside(Some(&container(DockerNetwork::Bridge)), 80), Some(31_000));
        assert_eq!(outside(Some(&container(DockerNetwork::Bridge)), 81), None, "not published");
        assert_eq!(outside(Some(&container(DockerNetwork::None)), 80), None);
        assert_eq!(outside(None, 70_000), None);
    }
}
