//! A whole run: engine, API and live block, from the plan that `run` has settled to the exit code.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use setpoint::backend::Backend;
use setpoint::backend::local::{LocalBackend, LocalConfig};
use setpoint::config::{Budget, HostConfig, Params};
use setpoint::http::{self, HttpConfig};
use setpoint::runtime::store::StoreError;
use setpoint::runtime::{Engine, EngineConfig, GlobalBudget, PolicySource, RunEnd, Signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::exit::{CliError, Exit};
use super::host::{self, SCRIPT_THREADS};
use super::live::{self, Screen};
use super::sources::Source;
use super::term::Paint;

/// Where below a state folder the tasks' output goes.
const LOG_FOLDER: &str = "logs";

/// All that is settled before a run begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<Source>,
    pub(crate) config: HostConfig,
    /// Whether there is a page and an API.
    pub(crate) listen: bool,
    pub(crate) run_for: Option<Duration>,
}

/// Runs until the engine ends.
pub(crate) async fn run(
    plan: Plan,
    signals: mpsc::Receiver<Signal>,
    screen: &Screen,
    paint: Paint,
) -> Result<u8, CliError> {
    // The address comes first: a second run by mistake must not touch a task.
    let address = plan.listen.then_some(plan.config.listen);
    let listener = match address {
        Some(address) => {
            let bound = http::bind(address, plan.config.token.is_some()).await;
            Some(bound.map_err(|error| not_listening(&error))?)
        }
        None => None,
    };
    let services = match plan.config.services_listen {
        // Whoever set it up, at whatever address, said who may read it.
        Some(address) => Some(http::bind(address, true).await.map_err(|error| not_listening(&error))?),
        None => None,
    };
    let http_config = http_config(&plan.config);
    let hosts = http_config.hosts.clone();
    let engine = Engine::start(engine_config(plan)?).await.map_err(host::not_started)?;
    let handle = engine.handle();
    let stop = CancellationToken::new();
    let server = listener.map(|listener| {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(address = %format_args!("http://{address}"), "listening");
        }
        let router = http::router(handle.clone(), http_config);
        tokio::spawn(http::serve(listener, router, stop.clone().cancelled_owned()))
    });
    let services = services.and_then(|listener| {
        let address = listener.local_addr().ok()?;
        tracing::info!(address = %format_args!("http://{address}"), "serving the list of usable tasks");
        let router = http::legacy_router(handle.clone(), address, hosts);
        Some(tokio::spawn(http::serve(listener, router, stop.clone().cancelled_owned())))
    });
    // Why it ended has been logged by the engine.
    let RunEnd { code, .. } = tokio::select! {
        end = engine.run(signals) => end,
        never = live::follow(screen, &handle, paint) => match never {},
    };
    screen.release();
    tracing::info!(code, "ended");
    stop.cancel();
    for server in server.into_iter().chain(services) {
        match server.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the API ended with an error"),
            Err(error) => tracing::error!(error = %error, "the API failed"),
        }
    }
    // Codes beyond a byte cannot be told to the system; that something was wrong must be.
    Ok(u8::try_from(code).unwrap_or(Exit::Findings.code()))
}

fn http_config(config: &HostConfig) -> HttpConfig {
    let mut hosts = config.hosts.clone();
    hosts.push(config.listen.ip().to_string());
    HttpConfig {
        token: config.token.as_ref().map(|token| token.reveal().to_owned()),
        hosts,
        warm_up: config.warm_up.unwrap_or(http::DEFAULT_WARM_UP),
    }
}

fn engine_config(plan: Plan) -> Result<EngineConfig, CliError> {
    let config = plan.config;
    Ok(EngineConfig {
        decision_log: host::decision_log(&config),
        backends: backends(&config)?,
        #[cfg(feature = "docker")]
        containers: Some(super::docker::containers(&config)?),
        #[cfg(feature = "mesos")]
        cluster: super::mesos::cluster(&config)?,
        sources: plan.sources.into_iter().map(source).collect(),
        limits: config.limits,
        permissions: config.permissions,
        param_origins: config.params.origins_in_words(),
        params: flat(config.params),
        state_dir: config.state_dir,
        dry_run: config.dry_run,
        stop_tasks: config.stop_tasks,
        exit_on_stop: config.exit_on_stop,
        budget: config.budget.map(|Budget { changes, per }| GlobalBudget { changes, per }),
        run_for: plan.run_for,
        script_threads: config.script_threads.unwrap_or(SCRIPT_THREADS),
        ..EngineConfig::default()
    })
}

/// All parameters under one key each: `key`, or `policy.key`.
fn flat(params: Params) -> BTreeMap<String, String> {
    let mut flat = params.global;
    for (policy, params) in params.by_policy {
        flat.extend(params.into_iter().map(|(key, value)| (format!("{policy}.{key}"), value)));
    }
    flat
}

fn source(source: Source) -> PolicySource {
    match source {
        Source::File(path) => PolicySource::File(path),
        Source::Dir(path) => PolicySource::Dir(path),
        Source::Bundled(policy) => {
            PolicySource::Text { name: policy.name.to_owned(), source: policy.source.to_owned() }
        }
    }
}

/// Every backend by its name; one that no policy uses is never asked anything.
fn backends(config: &HostConfig) -> Result<BTreeMap<String, Backend>, CliError> {
    #[cfg_attr(not(any(feature = "docker", feature = "mesos")), expect(unused_mut, reason = "features add to it"))]
    let mut backends = BTreeMap::from([("local".to_owned(), local(config)?)]);
    #[cfg(feature = "docker")]
    {
        backends.insert("docker".to_owned(), super::docker::backend(config, LOG_FOLDER)?);
        backends.insert("swarm".to_owned(), super::docker::swarm(config)?);
    }
    #[cfg(feature = "mesos")]
    backends.insert("mesos".to_owned(), super::mesos::backend(config)?);
    Ok(backends)
}

/// Local processes, marked as the state folder's when there is one.
fn local(config: &HostConfig) -> Result<Backend, CliError> {
    let state_dir = config.state_dir.as_deref();
    if let Some(dir) = state_dir {
        // The backend's mark is the folder's real path, so it has to be there; state is nobody else's to read.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                host::store(StoreError::NotAFolder { dir: dir.to_owned() })
            }
            _ => CliError::io(format!("cannot create the state folder `{}`", dir.display()), error),
        })?;
    }
    let defaults = LocalConfig::default();
    let local = LocalConfig {
        mark: state_dir.map(Path::to_owned),
        log_dir: state_dir.map(|dir| dir.join(LOG_FOLDER)),
        ports: config.ports.clone().unwrap_or(defaults.ports),
        log_max: config.log_max.map_or(defaults.log_max, |bytes| bytes as u64),
        log_keep: config.log_keep.unwrap_or(defaults.log_keep),
        ..defaults
    };
    let backend = LocalBackend::new(local)
        .map_err(|error| CliError::new(Exit::Io, "cannot run local processes").because(error))?;
    Ok(Backend::Tasks(backend))
}

fn not_listening(error: &http::HttpError) -> CliError {
    let exit = Exit::of_code(error.exit_code());
    let hint = match exit {
        Exit::Refused => "--token sets a token; --listen 127.0.0.1:8080 needs none",
        _ => "--listen takes another address, 127.0.0.1:0 any free port; --no-listen does without",
    };
    let told = CliError::new(exit, error.to_string()).hint(hint);
    match std::error::Error::source(error) {
        Some(cause) => told.because(cause.to_string()),
        None => told,
    }
}
