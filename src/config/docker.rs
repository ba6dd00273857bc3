//! `[docker]`: which container engines there are, and who one is at which registry.
//!
//! ```toml
//! [docker]                            # one engine, called `default`
//! host = "tcp://10.0.0.5:2376"        # what DOCKER_HOST says unless given
//! cert_path = "/etc/setpoint/docker"  # ca.pem, cert.pem, key.pem: TLS, and the engine's certificate is checked
//!
//! [docker.engines.east]               # or several by name, instead of that one
//! host = "ssh://scale@east"
//!
//! [docker.registries."registry.example:5000"]
//! username = "scale"
//! password = { file = "registry.password" }
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::file::{boolean, expected, path, secret, text};
use super::problem::Problem;
use super::section::{Document, Section};
use super::settings::{Settings, TokenSource};
use super::{Token, read_secret, value};

/// The name of the engine that is there when none is named.
pub const DEFAULT_ENGINE: &str = "default";

/// What the settings say of one engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineSettings {
    /// Its address, as in `DOCKER_HOST`.
    pub host: Option<String>,
    /// The folder with its certificates.
    pub cert_path: Option<PathBuf>,
    /// Whether TCP is TLS.
    pub tls_verify: Option<bool>,
    /// The address of its machine that ports are published on.
    pub publish: Option<IpAddr>,
    /// The name or address under which its containers' ports are reached.
    pub advertise: Option<String>,
}

/// What the settings say of one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrySettings {
    /// User name.
    pub username: String,
    /// Where the password is.
    pub password: TokenSource,
}

/// Container engines and registries, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// The engines by name; never empty.
    pub engines: BTreeMap<String, EngineSettings>,
    /// User and password by registry.
    pub registries: BTreeMap<String, (String, Token)>,
    /// Docker's own file of credentials, for registries that are not in `registries`.
    pub client_config: Option<PathBuf>,
}

/// Reads `[docker]`.
pub(super) fn read(document: &mut Document<'_>, table: &DeTable<'_>, base: &Path, settings: &mut Settings) {
    let mut section = Section::new(document, "docker", table);
    settings.docker_host = section.get("host", text);
    settings.docker_cert_path = section.get("cert_path", |value| path(value, base));
    settings.docker_tls_verify = section.get("tls_verify", boolean);
    settings.docker_publish = section.get("publish", address);
    settings.docker_advertise = section.get("advertise", text);
    let engines = section.table("engines");
    let registries = section.table("registries");
    section.finish();
    for (name, value) in engines.into_iter().flatten() {
        let (name, at) = (name.get_ref().to_string(), value.span().start);
        let place = format!("docker.engines.{name}");
        let Some(table) = value.get_ref().as_table() else {
            document.problem(at, format!("`{place}`: expected a table with `host`"), None);
            continue;
        };
        let mut section = Section::new(document, place, table);
        let engine = EngineSettings {
            host: section.get("host", text).map(|setting| setting.value),
            cert_path: section.get("cert_path", |value| path(value, base)).map(|setting| setting.value),
            tls_verify: section.get("tls_verify", boolean).map(|setting| setting.value),
            publish: section.get("publish", address).map(|setting| setting.value),
            advertise: section.get("advertise", text).map(|setting| setting.value),
        };
        section.finish();
        settings.docker_engines.insert(name, engine);
    }
    for (name, value) in registries.into_iter().flatten() {
        let (name, at) = (name.get_ref().to_string(), value.span().start);
        let place = format!("docker.registries.{name}");
        let read = |document: &mut Document<'_>| {
            let mut section = Section::new(document, place.clone(), value.get_ref().as_table()?);
            let username = section.get("username", text);
            let password = section.get("password", |value| secret(value, base).map(TokenSource::From));
            section.finish();
            Some(RegistrySettings { username: username?.value, password: password?.value })
        };
        match read(document) {
            Some(registry) => {
                settings.docker_registries.insert(name, registry);
            }
            None => document.problem(at, format!("`{place}` needs `username` and `password`"), None),
        }
    }
}

fn address(value: &DeValue<'_>) -> Result<IpAddr, String> {
    match value.as_str().map(str::parse) {
        Some(Ok(address)) => Ok(address),
        _ => expected("an address such as `127.0.0.1` or `0.0.0.0`", value),
    }
}

/// Puts the settings together; what they leave open, Docker's own variables say.
pub(super) fn build(settings: &Settings, vars: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> DockerConfig {
    let var = |name: &str| vars.get(name).filter(|text| !text.is_empty());
    let home = var("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(Path::new(var("HOME")?).join(".docker")));
    let mut engines = settings.docker_engines.clone();
    let default = default_engine(settings, vars);
    if engines.is_empty() {
        engines.insert(DEFAULT_ENGINE.to_owned(), default);
    } else if let Some(host) = &settings.docker_host {
        let message = "`docker.host` and `[docker.engines]` exclude each other: give the engine a name there";
        problems.push(Problem::new(host.from.to_string(), message));
    }
    for (name, engine) in &mut engines {
        let place = format!("docker.engines.{name}");
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            problems.push(Problem::new(place.clone(), "expected a name of letters, digits, `.`, `-` and `_`"));
        }
        if engine.tls_verify == Some(false) && engine.cert_path.is_some() {
            let message = "`tls_verify = false` beside `cert_path`: an engine's certificate is always checked; leave out \
                           `cert_path` for a connection without TLS";
            problems.push(Problem::new(place, message));
        } else if engine.tls_verify == Some(true) && engine.cert_path.is_none() {
            engine.cert_path.clone_from(&home);
        }
    }
    let mut registries = BTreeMap::new();
    for (name, registry) in &settings.docker_registries {
        let key = format!("docker.registries.{name}");
        match read_secret(&format!("{key}.password"), &registry.password, vars) {
            Ok(password) => {
                registries.insert(name.clone(), (registry.username.clone(), Token(password.into())));
            }
            Err(message) => problems.push(Problem::new(key, message)),
        }
    }
    DockerConfig { engines, registries, client_config: home.map(|folder| folder.join("config.json")) }
}

/// The one engine of `[docker]` itself, or of `DOCKER_HOST`, `DOCKER_CERT_PATH` and `DOCKER_TLS_VERIFY` where the
/// settings say nothing.
fn default_engine(settings: &Settings, vars: &BTreeMap<String, String>) -> EngineSettings {
    let Settings { docker_host: host, docker_cert_path, docker_tls_verify, docker_publish, docker_advertise, .. } =
        settings.clone();
    let mut engine = EngineSettings {
        host: value(host),
        cert_path: value(docker_cert_path),
        tls_verify: value(docker_tls_verify),
        publish: value(docker_publish),
        advertise: value(docker_advertise),
    };
    if engine.host.is_none() {
        let var = |name: &str| vars.get(name).filter(|text| !text.is_empty());
        engine.host = var("DOCKER_HOST").cloned();
        // Certificates are for TCP; a Unix socket beside them is common and no contradiction.
        if engine.host.as_deref().is_some_and(|host| !host.starts_with("unix:")) {
            engine.cert_path = engine.cert_path.or_else(|| var("DOCKER_CERT_PATH").map(PathBuf::from));
            engine.tls_verify = engine.tls_verify.or_else(|| var("DOCKER_TLS_VERIFY").map(|_| true));
        }
    }
    engine
}

#[cfg(test)]
mod tests {
    use super::super::{HostConfig, load};
    use super::*;

    fn config(text: &str, vars: &[(&str, &str)]) -> Result<HostConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("setpoint.toml"), text).unwrap();
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(Settings::default(), &vars, folder.path()).map_err(|error| error.to_string())
    }

    fn engine(text: &str, vars: &[(&str, &str)]) -> EngineSettings {
        config(text, vars).unwrap().docker.engines.remove(DEFAULT_ENGINE).unwrap()
    }

    #[test]
    fn dockers_variables_are_what_the_file_leaves_open() {
        let vars = [
            ("DOCKER_HOST", "tcp://there:2376"),
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", "/certs"),
            ("HOME", "/root"),
        ];
        let there = engine("", &vars);
        assert_eq!(there.host.as_deref(), Some("tcp://there:2376"));
        assert_eq!((there.cert_path.as_deref(), there.tls_verify), (Some(Path::new("/certs")), Some(true)));
        assert_eq!(engine("", &[vars[0], vars[1], vars[3]]).cert_path.as_deref(), Some(Path::new("/root/.docker")));
        let here = engine("", &[("DOCKER_HOST", "unix:///a.sock"), vars[1], vars[2]]);
        assert_eq!((here.host.as_deref(), here.cert_path), (Some("unix:///a.sock"), None), "no TLS on a Unix socket");
        let mine = engine("[docker]\nhost = \"tcp://mine:1\"", &vars);
        assert_eq!(
            (mine.host.as_deref(), mine.cert_path),
            (Some("tcp://mine:1"), None),
            "the file's engine is all its own"
        );
        assert_eq!(engine("", &[]), EngineSettings::default());
    }

    #[test]
    fn engines_and_registries_have_names() {
        let text = r#"
            [docker.engines.east]
            host = "tcp://east:2376"
            cert_path = "certs"
            publish = "10.0.0.5"
            advertise = "east.example"
            [docker.engines.west]
            host = "ssh://me@west"
            [docker.registries."there:5000"]
            username = "me"
            password = { env = "SECRET" }
        "#;
        let docker = config(text, &[("SECRET", "hunter2"), ("DOCKER_CONFIG", "/client")]).unwrap().docker;
        assert_eq!(docker.engines.keys().collect::<Vec<_>>(), ["east", "west"]);
        assert!(docker.engines["east"].cert_path.as_ref().unwrap().ends_with("certs"));
        assert_eq!(docker.engines["east"].publish, Some([10, 0, 0, 5].into()));
        assert_eq!(docker.registries["there:5000"].1.reveal(), "hunter2");
        assert!(!format!("{docker:?}").contains("hunter2"));
        assert_eq!(docker.client_config.as_deref(), Some(Path::new("/client/config.json")));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (text, expected) in [
            ("[docker]\nhots = \"unix:///a\"", "did you mean `host`?"),
            ("[docker]\nhost = \"unix:///a\"\n[docker.engines.b]\nhost = \"unix:///b\"", "exclude each other"),
            ("[docker.engines.b]\nhost = \"tcp://b\"\ncert_path = \"c\"\ntls_verify = false", "always checked"),
            ("[docker.engines.\"a b\"]\nhost = \"unix:///b\"", "expected a name of letters"),
            ("[docker.engines]\nb = \"unix:///b\"", "expected a table with `host`"),
            ("[docker]\npublish = \"everywhere\"", "expected an address"),
            ("[docker.registries.a]\nusername = \"me\"", "needs `username` and `password`"),
            ("[docker.registries.a]\nusername = \"me\"\npassword = { env = \"NOT_THERE\" }", "has no `NOT_THERE`"),
        ] {
            let told = config(text, &[]).unwrap_err();
            assert!(told.contains(expected), "{text}\n{told}");
        }
    }
}
