//! Fetching images.

use std::fmt;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as Client;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;

use super::engine::{Engine, QUICK};
use super::error::EngineError;

/// How long a registry may be silent during a pull.
const SILENCE: Duration = Duration::from_secs(120);

const WHAT: &str = "pull an image";

/// A registry's user. The password shows in no output.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password, or access token.
    pub password: String,
    /// Or a token that the registry gave for both.
    pub identity_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Engine {
    /// Whether the engine has an image.
    pub async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        match self.call("look for an image", QUICK, async |docker| docker.inspect_image(image).await).await {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fetches an image from its registry. The deadline is for each sign of life, not for the whole.
    pub async fn pull(&self, image: &str, credentials: Option<&Credentials>) -> Result<(), EngineError> {
        let (name, tag) = name_and_tag(image);
        let options = CreateImageOptions { from_image: Some(name), tag: Some(tag), ..CreateImageOptions::default() };
        let credentials = credentials.map(|credentials| DockerCredentials {
            username: Some(credentials.username.clone()),
            password: Some(credentials.password.clone()),
            identitytoken: credentials.identity_token.clone(),
            serveraddress: Some(registry(image).to_owned()),
            ..DockerCredentials::default()
        });
        let docker = self.call(WHAT, QUICK, async |docker| Ok(docker)).await?;
        let mut progress = std::pin::pin!(docker.create_image(Some(options), None, credentials));
        loop {
            let next = tokio::time::timeout(SILENCE, progress.next()).await;
            match next.unwrap_or(Some(Err(Client::RequestTimeoutError))) {
                None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.failed(WHAT, SILENCE, &error)),
            }
        }
    }
}

/// An image's name and its tag (`latest` unless given); a digest stays with the name.
fn name_and_tag(image: &str) -> (String, String) {
    if image.contains('@') {
        return (image.to_owned(), String::new());
    }
    let path = image.rfind('/').map_or(0, |at| at + 1);
    match image[path..].split_once(':') {
        Some((_, tag)) => (image[..image.len() - tag.len() - 1].to_owned(), tag.to_owned()),
        None => (image.to_owned(), "latest".to_owned()),
    }
}

/// The registry of an image's name; without one in it, Docker's own.
#[must_use]
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_registry_a_name_and_a_tag() {
        let parts = |image| {
            let (name, tag) = name_and_tag(image);
            format!("{} {name} {tag}", registry(image))
        };
        assert_eq!(parts("redis"), "docker.io redis latest");
        assert_eq!(parts("me/redis:7"), "docker.io me/redis 7");
        assert_eq!(parts("there:5000/me/redis"), "there:5000 there:5000/me/redis latest");
        assert_eq!(parts("there.example/redis:7"), "there.example there.example/redis 7");
        assert_eq!(parts("localhost/redis@sha256:ab"), "localhost localhost/redis@sha256:ab ");
    }
}
