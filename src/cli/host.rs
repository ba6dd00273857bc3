//! The face of the library that `run`, `check` and `eval` see: loading a file, one evaluation, a whole run.
//!
//! Everything that names the script host, the engine or the configuration is in here, so that the verbs are about
//! their own arguments and their own output.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use setpoint::http::{self, HttpConfig};
use setpoint::runtime::handle::EngineHandle;
use setpoint::runtime::view::PolicySnapshot;
use setpoint::script::{LoadedFile, ScriptError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ConfigArgs;
use super::exit::{CliError, Exit};
use super::live::{self, Screen};
use super::params::Params;
use super::sources::{PolicyFile, Source};
use super::term::Paint;

/// The editor types of everything that a policy may use.
pub(crate) fn luacats() -> String {
    "---@meta\n\n---@class setpoint.Policy\n".to_owned()
}

/// Loads policy files without running any of their functions.
pub(crate) struct Loader {}

impl Loader {
    /// A script host with the limits and permissions of the configuration.
    pub(crate) fn new(_config: &ConfigArgs) -> Result<Self, CliError> {
        Ok(Self {})
    }

    /// Loads one file; the inner error is the script's, the outer one everything else.
    pub(crate) async fn load(
        &self,
        _file: &PolicyFile,
        _params: &Params,
    ) -> Result<Result<LoadedFile, Vec<ScriptError>>, CliError> {
        Err(missing("a script host"))
    }
}

/// Policies that do not load, where that ends the command.
pub(crate) fn wrong_policies(errors: &[ScriptError]) -> CliError {
    let reports: Vec<_> = errors.iter().map(ScriptError::report).collect();
    CliError::new(Exit::Config, reports.join("\n")).hint("`setpoint check` says the same without running anything")
}

/// What one evaluation is asked for.
pub(crate) struct Evaluation {
    /// The policy.
    pub(crate) file: PolicyFile,
    /// Its parameters.
    pub(crate) params: Params,
    /// Limits and permissions.
    pub(crate) config: ConfigArgs,
    /// The row of a fleet.
    pub(crate) row: Option<String>,
}

/// One tick without an action.
pub(crate) async fn evaluate(_evaluation: Evaluation) -> Result<PolicySnapshot, CliError> {
    Err(missing("an engine"))
}

/// All that is settled before a run begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<Source>,
    pub(crate) params: Params,
    pub(crate) config: ConfigArgs,
    /// Where the API listens; none is nowhere.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) token: Option<String>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) run_for: Option<Duration>,
    pub(crate) dry_run: bool,
    pub(crate) stop_tasks: bool,
    pub(crate) exit_on_stop: bool,
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// HUP: read all files again.
    Reload,
    /// TERM or INT: stop in order.
    Drain,
    /// TERM or INT once more: stop at once.
    Now,
}

/// An engine that runs.
struct Running {
    handle: EngineHandle,
    /// Ends with the run's exit code.
    end: std::pin::Pin<Box<dyn Future<Output = u8> + Send>>,
}

async fn start(_plan: &Plan, _signals: mpsc::Receiver<Signal>) -> Result<Running, CliError> {
    Err(missing("an engine"))
}

/// Runs until the engine ends: engine, API and live block.
pub(crate) async fn run(
    plan: Plan,
    signals: mpsc::Receiver<Signal>,
    screen: &Screen,
    paint: Paint,
) -> Result<u8, CliError> {
    // The address comes first: a second run by mistake must not touch a task.
    let listener = match plan.listen {
        Some(address) => Some(http::bind(address, plan.token.is_some()).await.map_err(not_listening)?),
        None => None,
    };
    let Running { handle, mut end } = start(&plan, signals).await?;
    let stop = CancellationToken::new();
    let server = listener.map(|listener| {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("http://{address} has the page and the API");
        }
        let router = http::router(handle.clone(), HttpConfig { token: plan.token.clone(), hosts: Vec::new() });
        tokio::spawn(http::serve(listener, router, stop.clone().cancelled_owned()))
    });
    let code = tokio::select! {
        code = &mut end => code,
        never = live::follow(screen, &handle, paint) => match never {},
    };
    screen.release();
    stop.cancel();
    if let Some(server) = server {
        match server.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "the API ended with an error"),
            Err(error) => tracing::error!(error = %error, "the API failed"),
        }
    }
    Ok(code)
}

fn not_listening(error: http::HttpError) -> CliError {
    let exit = match error.exit_code() {
        69 => Exit::Unavailable,
        77 => Exit::Refused,
        _ => Exit::Io,
    };
    let hint = match exit {
        Exit::Refused => "--token sets one; --listen 127.0.0.1:8080 needs none",
        _ => "--listen takes another address, 127.0.0.1:0 any free port; --no-listen does without",
    };
    CliError::new(exit, "the API cannot listen").because(error).hint(hint)
}

fn missing(what: &str) -> CliError {
    CliError::new(Exit::Bug, format!("this build is without {what}"))
}
