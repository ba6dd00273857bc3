//! Starting, stopping and removing containers. What is so already is no error.

use std::time::Duration;

use bollard::query_parameters::{
    KillContainerOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};

use super::engine::{Engine, QUICK, SLOW};
use super::error::EngineError;

/// What an engine may take for a stop beyond the grace.
const AFTER_GRACE: Duration = Duration::from_secs(20);

/// The engine keeps the grace as a whole number of seconds.
const LONGEST_GRACE: u64 = 30 * 24 * 3600;

impl Engine {
    /// Starts a container by name or id.
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        let options = None::<StartContainerOptions>;
        self.call("start a container", SLOW, async |docker| docker.start_container(container, options).await).await
    }

    /// Asks a container to stop, by the signal that its image names, and kills it after `grace` (in whole seconds,
    /// rounded up). Returns once it has ended.
    pub async fn stop(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        let secs = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let secs = secs.min(LONGEST_GRACE);
        let options = StopContainerOptions { t: i32::try_from(secs).ok(), ..StopContainerOptions::default() };
        let limit = Duration::from_secs(secs) + AFTER_GRACE;
        self.call("stop a container", limit, async |docker| docker.stop_container(container, Some(options)).await).await
    }

    /// Sends a signal to a container's first process: `KILL`, `TERM` … One that does not run is a conflict.
    pub async fn kill(&self, container: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        self.call("signal a container", QUICK, async |docker| docker.kill_container(container, Some(options)).await)
            .await
    }

    /// Removes a container and its anonymous volumes, killing it if it runs. One that is not there is fine.
    pub async fn remove(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { v: true, force: true, ..RemoveContainerOptions::default() };
        let removed = self
            .call("remove a container", SLOW, async |docker| docker.remove_container(container, Some(options)).await);
        match removed.await {
            Err(EngineError::NotFound { .. }) => Ok(()),
            // Somebody else is at it already.
            Err(EngineError::Conflict { message }) if message.contains("already in progress") => Ok(()),
            removed => removed,
        }
    }
}
