//! The handle of one engine: connecting, deadlines, what an outage leaves behind.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as Client;

use super::address::Address;
use super::connect::connect;
use super::error::{EngineError, translate};

/// For what an engine answers out of its memory.
pub(super) const QUICK: Duration = Duration::from_secs(10);

/// For what it has to work for: making, starting and removing containers.
pub(super) const SLOW: Duration = Duration::from_secs(60);

/// Where an engine is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// The name that policies and messages use.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`; with it TCP is TLS, and the engine's certificate is checked.
    pub cert_path: Option<PathBuf>,
    /// The address of its machine that ports are published on.
    pub publish: IpAddr,
    /// The name or address under which its containers' ports are reached.
    pub advertise: String,
}

impl EngineConfig {
    /// An engine at an address, everything else by default: on this machine ports are published on loopback only,
    /// elsewhere on every address, because nobody could reach them otherwise.
    #[must_use]
    pub fn new(name: impl Into<String>, address: Address) -> Self {
        let publish = if address.is_local() { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
        Self {
            name: name.into(),
            cert_path: None,
            publish: publish.into(),
            advertise: address.host().to_owned(),
            address,
        }
    }
}

/// A container engine. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    config: EngineConfig,
    /// The client that has agreed on a version; none before the first call and after an outage.
    client: Mutex<Option<Docker>>,
}

impl Engine {
    /// A handle; connects to nothing.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self { shared: Arc::new(Shared { config, client: Mutex::new(None) }) }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.shared.config
    }

    /// The name that policies and messages use.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.call("ping", QUICK / 2, async |docker| docker.ping().await).await.map(drop)
    }

    /// The client, connected.
    pub(super) async fn client(&self) -> Result<Docker, Client> {
        if let Some(docker) = self.cached().clone() {
            return Ok(docker);
        }
        // Two at once do it twice, which harms nothing.
        let docker = connect(&self.shared.config).await?;
        *self.cached() = Some(docker.clone());
        Ok(docker)
    }

    /// One call with its deadline, connecting first if need be.
    pub(super) async fn call<T>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl AsyncFnOnce(Docker) -> Result<T, Client>,
    ) -> Result<T, EngineError> {
        let answer = tokio::time::timeout(limit, async { work(self.client().await?).await }).await;
        let answer = answer.unwrap_or(Err(Client::RequestTimeoutError));
        answer.map_err(|error| self.failed(what, limit, &error))
    }

    /// Translates an error; after one that means an outage the next call agrees on a version anew, because another
    /// engine may be there by then.
    pub(super) fn failed(&self, what: &'static str, limit: Duration, error: &Client) -> EngineError {
        let error = translate(self.name(), &self.shared.config.address.to_string(), what, limit, error);
        if error.is_retryable() {
            *self.cached() = None;
        }
        error
    }

    fn cached(&self) -> MutexGuard<'_, Option<Docker>> {
        self.shared.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Engine").field(&self.shared.config).finish()
    }
}
