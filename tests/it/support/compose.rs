//! A project of Docker Compose on a genuine engine.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::docker::Docker;
use super::scratch::Scratch;
use super::tool::tool;

/// A project whose containers are removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Compose {
    program: PathBuf,
    docker: Docker,
    file: PathBuf,
    project: String,
}

impl Compose {
    /// A project of these services, none of them started; none without `docker-compose` (see [`tool`]).
    pub(crate) fn new(docker: &Docker, scratch: &Scratch, name: &str, services: &Value) -> Option<Self> {
        let program = tool("docker-compose")?;
        let text = serde_json::json!({ "version": "2.4", "services": services }).to_string();
        let file = scratch.write(&format!("{name}/docker-compose.yml"), &text);
        let project = format!("{name}-{}", std::process::id());
        Some(Self { program, docker: docker.clone(), file, project })
    }

    /// The project's name.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// Makes a service have so many containers, and nothing else than what the file says.
    pub(crate) fn up(&self, service: &str, containers: u32) {
        self.run(&["up", "--detach", "--no-build", "--scale", &format!("{service}={containers}")]);
    }

    /// Stops and removes all of its containers.
    pub(crate) fn down(&self) {
        self.run(&["down", "--timeout", "1"]);
    }

    /// The containers that it takes for a service's.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        self.run(&["ps", "--quiet", service]).lines().map(str::to_owned).collect()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker-compose {}: {said}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("DOCKER_HOST", self.docker.host()).env("COMPOSE_INTERACTIVE_NO_CLI", "1").stdin(Stdio::null());
        command.arg("--file").arg(&self.file).args(["--project-name", &self.project]).args(arguments);
        command
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        // Whatever has become of the test.
        drop(self.command(&["down", "--timeout", "1"]).output());
    }
}
