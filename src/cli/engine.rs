//! A whole run: engine, API and live block, from the plan that `run` has settled to the exit code.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use setpoint::backend::Backend;
use setpoint::backend::local::{LocalBackend, LocalConfig};
use setpoint::http::{self, HttpConfig};
use setpoint::runtime::{Engine, EngineConfig, PolicySource, RunEnd, Signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::exit::{CliError, Exit};
use super::host::{self, SCRIPT_THREADS, Settings};
use super::live::{self, Screen};
use super::params::Params;
use super::sources::Source;
use super::term::Paint;

/// Where below a state folder the tasks' output goes.
const LOG_FOLDER: &str = "logs";

/// All that is settled before a run begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<Source>,
    pub(crate) params: Params,
    pub(crate) settings: Settings,
    /// Where the API listens; none is nowhere.
    pub(crate) listen: Option<SocketAddr>,
    /// Who may talk to it.
    pub(crate) http: HttpConfig,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) run_for: Option<Duration>,
    pub(crate) dry_run: bool,
    pub(crate) stop_tasks: bool,
    pub(crate) exit_on_stop: bool,
}

/// Runs until the engine ends.
pub(crate) async fn run(
    plan: Plan,
    signals: mpsc::Receiver<Signal>,
    screen: &Screen,
    paint: Paint,
) -> Result<u8, CliError> {
    // The address comes first: a second run by mistake must not touch a task.
    let listener = match plan.listen {
        Some(address) => Some(http::bind(address, plan.http.token.is_some()).await.map_err(|e| not_listening(&e))?),
        None => None,
    };
    let http_config = plan.http.clone();
    let engine = Engine::start(config(plan)?).await.map_err(host::not_started)?;
    let handle = engine.handle();
    let stop = CancellationToken::new();
    let server = listener.map(|listener| {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(address = %format_args!("http://{address}"), "listening");
        }
        let router = http::router(handle.clone(), http_config);
        tokio::spawn(http::serve(listener, router, stop.clone().cancelled_owned()))
    });
    let RunEnd { code, reason } = tokio::select! {
        end = engine.run(signals) => end,
        never = live::follow(screen, &handle, paint) => match never {},
    };
    screen.release();
    tracing::info!(code, "{reason}");
    stop.cancel();
    if let Some(server) = server {
        match server.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the API ended with an error"),
            Err(error) => tracing::error!(error = %error, "the API failed"),
        }
    }
    // Codes beyond a byte cannot be told to the system; that something was wrong must be.
    Ok(u8::try_from(code).unwrap_or(Exit::Findings.code()))
}

fn config(plan: Plan) -> Result<EngineConfig, CliError> {
    Ok(EngineConfig {
        backends: BTreeMap::from([("local".to_owned(), local(plan.state_dir.as_deref())?)]),
        sources: plan.sources.into_iter().map(source).collect(),
        limits: plan.settings.limits,
        permissions: plan.settings.permissions,
        params: plan.params.flat(),
        state_dir: plan.state_dir,
        dry_run: plan.dry_run,
        stop_tasks: plan.stop_tasks,
        exit_on_stop: plan.exit_on_stop,
        run_for: plan.run_for,
        script_threads: SCRIPT_THREADS,
        ..EngineConfig::default()
    })
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

/// Local processes, marked as the state folder's when there is one.
fn local(state_dir: Option<&Path>) -> Result<Backend, CliError> {
    if let Some(dir) = state_dir {
        // The backend's mark is the folder's real path, so it has to be there; state is nobody else's to read.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| CliError::io(format!("cannot create the state folder `{}`", dir.display()), error))?;
    }
    let config = LocalConfig {
        mark: state_dir.map(Path::to_owned),
        log_dir: state_dir.map(|dir| dir.join(LOG_FOLDER)),
        ..LocalConfig::default()
    };
    let backend = LocalBackend::new(config)
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
