//! The command line's side of the HTTP API: where it is, how to ask, and what its refusals mean.
//!
//! All paths of the API that the verbs use are in here, and nothing in here prints.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use setpoint::config::{DEFAULT_LISTEN, Settings, TokenSource};

use super::dto::Problem;
use super::exit::{CliError, Exit};
use super::host;
use super::names;
use super::units;

/// Where a running setpoint is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// Address of the running setpoint; by default where `run` listens, http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", env = names::ENV_SERVER, hide_env_values = true)]
    pub(crate) server: Option<String>,

    /// Its token, when it listens beyond loopback.
    #[arg(long, value_name = "TOKEN", env = names::ENV_TOKEN, hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// A client of one running setpoint.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// The longest time that an answer may take: a little more than the API itself allows its engine.
const PATIENCE: Duration = Duration::from_secs(65);
/// The longest time that a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    /// A client; connects when it is first asked something.
    pub(crate) fn new(args: &ServerArgs) -> Result<Self, CliError> {
        let (server, token) = find(args)?;
        let base = base_url(&server)?;
        install_tls();
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(CONNECT_PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment is for the internet, not for the host next door.
            .no_proxy()
            .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CliError::new(Exit::Bug, "cannot set up an HTTP client").because(error))?;
        Ok(Self { http, base, token })
    }

    /// Every policy.
    pub(crate) async fn policies(&self) -> Result<Value, CliError> {
        self.send(Method::GET, "/v1/policies", None).await
    }

    /// One policy.
    pub(crate) async fn policy(&self, name: &str) -> Result<Value, CliError> {
        self.send(Method::GET, &policy_path(name, ""), None).await
    }

    /// Every task.
    pub(crate) async fn tasks(&self) -> Result<Value, CliError> {
        self.send(Method::GET, "/v1/tasks", None).await
    }

    /// Stops a policy's decisions.
    pub(crate) async fn pause(
        &self,
        name: &str,
        for_: Option<Duration>,
        reason: Option<&str>,
    ) -> Result<Value, CliError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            r#for: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
        }
        let body = Body { r#for: for_.map(units::exact), reason };
        self.send(Method::POST, &policy_path(name, "/pause"), Some(json!(body))).await
    }

    /// Lets it decide again.
    pub(crate) async fn resume(&self, name: &str) -> Result<Value, CliError> {
        self.send(Method::POST, &policy_path(name, "/resume"), Some(json!({}))).await
    }

    /// Replaces a policy's min, max or both.
    pub(crate) async fn override_bounds(&self, name: &str, bounds: &OverrideBody) -> Result<Value, CliError> {
        self.send(Method::POST, &policy_path(name, "/override"), Some(json!(bounds))).await
    }

    /// Takes an override back.
    pub(crate) async fn clear_override(&self, name: &str) -> Result<Value, CliError> {
        self.send(Method::DELETE, &policy_path(name, "/override"), None).await
    }

    /// Reads one policy's file again, or all files.
    pub(crate) async fn reload(&self, name: Option<&str>) -> Result<Value, CliError> {
        let path = name.map_or_else(|| "/v1/reload".to_owned(), |name| policy_path(name, "/reload"));
        self.send(Method::POST, &path, Some(json!({}))).await
    }

    /// Gives a retired policy's tasks to another.
    pub(crate) async fn adopt(&self, old: &str, new: &str) -> Result<Value, CliError> {
        self.send(Method::POST, &policy_path(old, "/adopt"), Some(json!({ "new": new }))).await
    }

    /// Ends a retired policy's tasks and forgets it.
    pub(crate) async fn remove(&self, name: &str) -> Result<Value, CliError> {
        self.send(Method::DELETE, &policy_path(name, ""), None).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, CliError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_json = kind.contains("json");
        let text = answer.text().await.map_err(|error| self.unreachable(error))?;
        if status.is_success() && text.is_empty() {
            return Ok(Value::Null);
        }
        if status.is_success() && is_json {
            return serde_json::from_str(&text).map_err(|error| self.stranger(status).because(error));
        }
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) if !status.is_success() && is_json => Err(refused(status, problem)),
            _ => Err(self.stranger(status)),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> CliError {
        let what = if error.is_timeout() { "no answer from setpoint at" } else { "cannot reach setpoint at" };
        CliError::new(Exit::Unavailable, format!("{what} {}", self.base)).because(root_cause(&error)).hint(format!(
            "start it with `setpoint run PATH`, or say where it is with --server or {}",
            names::ENV_SERVER
        ))
    }

    /// Whoever answers there is no setpoint (or one behind something that is not).
    fn stranger(&self, status: StatusCode) -> CliError {
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return refused(status, Problem::default());
        }
        CliError::new(Exit::Unavailable, format!("{} answered {status}, not as setpoint does", self.base))
            .hint("is the address right? something else may be listening there")
    }
}

/// The innermost error: what the system said. The layers above it only repeat that a request failed.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The body of an override.
#[derive(Debug, Serialize)]
pub(crate) struct OverrideBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#for: Option<String>,
    pub(crate) force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

fn refused(status: StatusCode, problem: Problem) -> CliError {
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::CONFLICT => Exit::Refused,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Exit::Unavailable,
        status if status.is_server_error() => Exit::Bug,
        _ => Exit::Findings,
    };
    let said = problem.detail.or(problem.title).unwrap_or_else(|| format!("setpoint answered {status}"));
    let error = CliError::new(exit, said);
    match status {
        StatusCode::UNAUTHORIZED => {
            error.hint(format!("give the token that `run` was started with: --token or {}", names::ENV_TOKEN))
        }
        StatusCode::NOT_FOUND => error.hint("`setpoint status` lists the policies"),
        _ => error,
    }
}

/// The address and the token: as given, or else as the configuration of a `run` in this folder has them.
fn find(args: &ServerArgs) -> Result<(String, Option<String>), CliError> {
    if let Some(server) = &args.server {
        return Ok((server.clone(), args.token.clone()));
    }
    let token = args.token.clone().map(TokenSource::Literal);
    let config = host::configure(Settings { token: host::flag("--token", token), ..Settings::default() })?;
    let server = config.server.unwrap_or_else(|| {
        let mut address = config.listen;
        // Nobody can be reached at "every address of this machine".
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        address.to_string()
    });
    Ok((server, config.token.map(|token| token.reveal().to_owned())))
}

/// `127.0.0.1:8080`, `http://host:1` and `https://host/` are all addresses of a server.
fn base_url(server: &str) -> Result<String, CliError> {
    let text = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let wrong = |what: &str| {
        CliError::new(Exit::Usage, format!("--server: {what}, got `{server}`"))
            .hint(format!("an address such as http://{DEFAULT_LISTEN}"))
    };
    let url = reqwest::Url::parse(&text).map_err(|error| wrong("expected a URL").because(error))?;
    match url.scheme() {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => return Err(wrong("expected http, since this build has no TLS")),
        _ => return Err(wrong("expected http or https")),
    }
    if url.host_str().is_none() || url.query().is_some() {
        return Err(wrong("expected a scheme, a host and a port"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// A policy's path. The slash of `file/row` is literal; names have no other character that needs care, and what an
/// operator mistypes is escaped.
fn policy_path(name: &str, verb: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("/v1/policies/{escaped}{verb}")
}

/// reqwest is built without a cryptography provider of its own, so that there is one in the whole program.
fn install_tls() {
    #[cfg(feature = "tls")]
    {
        // An error means that there already is one, which is as well.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
}

/// Reads the API's answer into what a verb shows.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, CliError> {
    serde_json::from_value(value).map_err(|error| {
        CliError::new(Exit::Unavailable, "the answer is not what this version understands")
            .because(error)
            .hint("is the host of another version? `--json` shows its answer as it is")
    })
}

/// How long a pause or an override lasts, in words.
pub(crate) fn for_how_long(for_: Option<Duration>) -> String {
    for_.map_or_else(|| "until further notice".to_owned(), |for_| format!("for {}", units::exact(for_)))
}
