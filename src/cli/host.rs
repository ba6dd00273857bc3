//! What `run`, `check`, `eval` and `policies show` share of the library: settings, the script host, and how the
//! library's errors become the command's.

use std::path::Path;

use setpoint::runtime::StartError;
use setpoint::runtime::store::StoreError;
use setpoint::script::{Limits, LoadRequest, LoadedFile, Natives, Permissions, ScriptError, ScriptHost};

use super::ConfigArgs;
use super::exit::{CliError, Exit};
use super::names;
use super::params::Params;
use super::sources::PolicyFile;

/// Threads that run scripts, at a lower priority than the loop and the API.
pub(crate) const SCRIPT_THREADS: usize = 4;
/// The names of the backends that this command can offer; `none` is for workloads that others run.
pub(crate) const BACKENDS: [&str; 1] = ["local"];

/// What the host's configuration settles.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) permissions: Permissions,
}

impl Settings {
    /// Reads the configuration file that is named, or the one in the present folder.
    pub(crate) fn read(args: &ConfigArgs) -> Result<Self, CliError> {
        let here = Path::new(names::CONFIG_FILE);
        let file = args.config.as_deref().or_else(|| here.exists().then_some(here));
        // A file that is there and not heeded would be worse than none: it may forbid something.
        file.map_or_else(
            || Ok(Self::default()),
            |file| {
                let text = format!("this version reads no configuration file, and `{}` is there", file.display());
                Err(CliError::new(Exit::Config, text).hint("flags and SETPOINT_* variables set what `run` takes"))
            },
        )
    }
}

/// The editor types of everything that a policy may use.
pub(crate) fn luacats() -> String {
    "---@meta\n\n---@class setpoint.Policy\n".to_owned()
}

/// Loads policy files without running any of their functions.
pub(crate) struct Loader(ScriptHost);

impl Loader {
    /// A script host with the limits and permissions of the configuration. Needs a tokio runtime around it.
    pub(crate) fn new(args: &ConfigArgs) -> Result<Self, CliError> {
        let Settings { limits, permissions } = Settings::read(args)?;
        let io = tokio::runtime::Handle::current();
        ScriptHost::new(limits, permissions, Natives::default(), io, SCRIPT_THREADS)
            .map(Self)
            .map_err(|error| CliError::io("cannot start the script threads", error))
    }

    /// Loads one file.
    pub(crate) async fn load(&self, file: &PolicyFile, params: &Params) -> Result<LoadedFile, Vec<ScriptError>> {
        let request = LoadRequest {
            path: file.path.clone(),
            name: file.name.clone(),
            source: file.source.map(str::to_owned),
            params: params.of(&file.name),
            backends: BACKENDS.map(str::to_owned).to_vec(),
        };
        self.0.load(request).await
    }
}

/// Policies that do not load, where that ends the command.
pub(crate) fn wrong_policies(errors: &[ScriptError]) -> CliError {
    let reports: Vec<_> = errors.iter().map(ScriptError::report).collect();
    CliError::new(Exit::Config, reports.join("\n"))
}

/// Why an engine did not start. Nothing has been launched then.
pub(crate) fn not_started(error: StartError) -> CliError {
    match error {
        StartError::Policies(errors) => {
            wrong_policies(&errors).hint("nothing was launched; `setpoint check` says the same")
        }
        StartError::Store(error) => store(error),
        StartError::EmptyFolder(_) | StartError::DuplicateName { .. } => chained(Exit::Config, &error),
        StartError::UnknownParam { .. } => {
            chained(Exit::Usage, &error).hint("`setpoint policies show NAME` lists the parameters of a bundled policy")
        }
        error => chained(Exit::Io, &error),
    }
}

/// A state folder that cannot be used.
pub(crate) fn store(error: StoreError) -> CliError {
    let exit = Exit::of_code(error.exit_code());
    let told = chained(exit, &error);
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// The library's own words, and its cause behind them.
fn chained(exit: Exit, error: &dyn std::error::Error) -> CliError {
    let told = CliError::new(exit, error.to_string());
    match error.source() {
        Some(cause) => told.because(cause.to_string()),
        None => told,
    }
}
