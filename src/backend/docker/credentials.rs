//! Who we are at a registry: from the operator's settings, else from Docker's own file.
//!
//! The file's `credsStore` and `credHelpers` name programs; they are not run, and where one would be needed the message
//! says so.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::DockerConfig;
use crate::container::{Credentials, registry};

/// Docker's own registry in Docker's own file.
const DOCKER_IO: &str = "https://index.docker.io/v1/";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClientConfig {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials for an image; none where nobody gave any, or they are of no use (a warning says so).
pub(super) async fn find(config: &DockerConfig, image: &str) -> Option<Credentials> {
    let registry = registry(image);
    if let Some(credentials) = config.registries.get(registry) {
        return Some(credentials.clone());
    }
    let path = config.client_config.as_deref()?;
    let text = tokio::fs::read(path).await.ok()?;
    from_file(&text, registry, path)
}

fn from_file(text: &[u8], registry: &str, path: &Path) -> Option<Credentials> {
    let file: ClientConfig = serde_json::from_slice(text)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "registry credentials cannot be read"))
        .ok()?;
    let keys = [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
    let mut keys = keys.to_vec();
    if registry == "docker.io" {
        keys.push(DOCKER_IO.to_owned());
    }
    if let Some(auth) = keys.iter().find_map(|key| file.auths.get(key)).and_then(credentials) {
        return Some(auth);
    }
    let helper = keys.iter().find_map(|key| file.cred_helpers.get(key)).or(file.creds_store.as_ref());
    if let Some(helper) = helper {
        tracing::warn!(
            registry,
            helper = %helper,
            "credentials of this registry are with a helper program, which setpoint does not run; \
             `[docker.registries]` can hold them"
        );
    }
    None
}

fn credentials(auth: &Auth) -> Option<Credentials> {
    let decoded = auth.auth.as_deref().and_then(|text| STANDARD.decode(text).ok());
    let pair = decoded.and_then(|bytes| {
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
    });
    let pair = pair.or_else(|| Some((auth.username.clone()?, auth.password.clone()?)));
    let identity_token = auth.identitytoken.clone().filter(|token| !token.is_empty());
    let (username, password) = pair.or_else(|| identity_token.is_some().then(Default::default))?;
    Some(Credentials { username, password, identity_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_from_dockers_file() {
        let file = br#"{
            "auths": {
                "https://index.docker.io/v1/": { "auth": "bWU6c2VjcmV0" },
                "there:5000": { "username": "you", "password": "a:b" },
                "token.example": { "auth": "", "identitytoken": "t" },
                "helped.example": {}
            },
            "credHelpers": { "helped.example": "pass" }
        }"#;
        let find = |registry| from_file(file, registry, Path::new("config.json"));
        let of = |username: &str, password: &str, token: Option<&str>| {
            Some(Credentials {
                username: username.into(),
                password: password.into(),
                identity_token: token.map(str::to_owned),
            })
        };
        assert_eq!(find("docker.io"), of("me", "secret", None));
        assert_eq!(find("there:5000"), of("you", "a:b", None));
        assert_eq!(find("token.example"), of("", "", Some("t")));
        assert_eq!(find("helped.example"), None);
        assert_eq!(find("other.example"), None);
        assert_eq!(from_file(b"{", "docker.io", Path::new("config.json")), None);
        assert!(!format!("{:?}", find("docker.io")).contains("secret"));
    }
}
