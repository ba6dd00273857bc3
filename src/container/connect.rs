//! Connecting to an engine: transport, certificates, version.

use std::path::Path;

use bollard::errors::Error as Client;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};

use super::address::Address;
use super::engine::EngineConfig;

/// The client library's own limit, in seconds: ours are shorter or, for long calls, longer than its default.
const LIMIT: u64 = 24 * 3600;

const REGISTRY_AUTH: &str = "x-registry-auth";

/// Connects and agrees on the newest version of the API that both sides know.
pub(super) async fn connect(config: &EngineConfig) -> Result<Docker, Client> {
    let version = API_DEFAULT_VERSION;
    let docker = match (&config.address, &config.cert_path) {
        (Address::Unix(path), _) => Docker::connect_with_unix(&path.to_string_lossy(), LIMIT, version)?,
        (address @ Address::Tcp { .. }, Some(folder)) => with_tls(&address.to_string(), folder).await?,
        (address @ Address::Tcp { .. }, None) => Docker::connect_with_http(&address.to_string(), LIMIT, version)?,
        (address @ Address::Ssh(_), _) => Docker::connect_with_ssh(&address.to_string(), LIMIT, version, None)?,
    };
    docker.with_request_modifier(url_safe_credentials).negotiate_version().await
}

async fn with_tls(address: &str, folder: &Path) -> Result<Docker, Client> {
    let address = address.to_owned();
    let [key, cert, ca] = ["key.pem", "cert.pem", "ca.pem"].map(|name| folder.join(name));
    for path in [&key, &cert, &ca] {
        // The library looks at key and certificate only in the middle of a handshake, where its complaint is lost.
        if tokio::fs::metadata(path).await.is_err() {
            return Err(Client::CertPathError { path: path.clone() });
        }
    }
    // Reads files, the system's certificates among them.
    let connecting = tokio::task::spawn_blocking(move || {
        Docker::connect_with_ssl(&address, &key, &cert, &ca, LIMIT, API_DEFAULT_VERSION)
    });
    connecting.await.unwrap_or(Err(Client::RequestTimeoutError))
}

/// Engines decode credentials by the URL-safe alphabet, the client library encodes them by the other one.
fn url_safe_credentials(mut request: BollardRequest) -> BollardRequest {
    if let Some(value) = request.headers_mut().get_mut(REGISTRY_AUTH)
        && let Ok(text) = value.to_str()
        && let Ok(safe) = text.replace('+', "-").replace('/', "_").parse()
    {
        *value = safe;
        value.set_sensitive(true);
    }
    request
}
