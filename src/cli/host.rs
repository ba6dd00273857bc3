//! What `run`, `check`, `eval` and `policies show` share of the library: settings, the script host, and how the
//! library's errors become the command's.

use std::ffi::OsString;
use std::path::Path;

use setpoint::config::{self, HostConfig, Origin, ParamKey, Params, Setting, Settings};
use setpoint::log::{LogConfig, LogError};
use setpoint::runtime::store::StoreError;
use setpoint::runtime::{StartError, check_params};
use setpoint::script::error::ScriptErrorKind;
use setpoint::script::{LoadRequest, LoadedFile, LoadedShadow, Natives, Param, ScriptError, ScriptHost, Variation};

use super::ConfigArgs;
use super::exit::{CliError, Exit};
use super::sources::PolicyFile;

/// Threads that run scripts when the configuration does not say, at a lower priority than the loop and the API.
pub(crate) const SCRIPT_THREADS: usize = 4;
/// The names of the backends that this command can offer, in the order in which `run` names them; `none` is for
/// workloads that others run.
pub(crate) const BACKENDS: &[&str] = &[
    #[cfg(feature = "docker")]
    "docker",
    "local",
    #[cfg(feature = "mesos")]
    "mesos",
    #[cfg(feature = "docker")]
    "swarm",
];

/// Flags over the environment over the configuration file over the defaults. What is probably not meant is in the
/// result's warnings.
pub(crate) fn configure(flags: Settings) -> Result<HostConfig, CliError> {
    let text = |value: OsString| value.into_string().ok();
    let vars = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
    config::load(flags, &vars, Path::new("")).map_err(|error| {
        let told = CliError::new(Exit::of_code(error.exit_code()), error.to_string());
        match std::error::Error::source(&error) {
            Some(cause) => told.because(cause.to_string()),
            None => told,
        }
    })
}

/// What `--config` and `--set` say, as a layer of settings.
pub(crate) fn flags(args: &ConfigArgs, sets: &[Set]) -> Settings {
    let set = |(key, value): &Set| (key.clone(), Setting::new(value.clone(), Origin::Flag("--set")));
    Settings {
        config: flag("--config", args.config.clone()),
        params: sets.iter().map(set).collect(),
        ..Settings::default()
    }
}

/// One flag's setting, when the flag is there.
pub(crate) fn flag<T>(name: &'static str, value: Option<T>) -> Option<Setting<T>> {
    value.map(|value| Setting::new(value, Origin::Flag(name)))
}

/// The decision log that the configuration speaks of.
pub(crate) fn decision_log(config: &HostConfig) -> Option<LogConfig> {
    let said = &config.decision_log;
    let in_state = || config.state_dir.as_ref().map(|dir| dir.join(setpoint::log::FOLDER));
    let folder = said.folder.clone().or_else(in_state).filter(|_| said.enabled != Some(false))?;
    let mut log = LogConfig::new(folder);
    log.max_size = said.max_size.map_or(log.max_size, |bytes| bytes as u64);
    log.max_age = said.max_age.unwrap_or(log.max_age);
    log.keep = said.keep.unwrap_or(log.keep);
    Some(log)
}

/// A decision log that cannot be used.
pub(crate) fn log(error: &LogError) -> CliError {
    match error {
        LogError::Locked(_) => chained(Exit::Unavailable, error).hint("each setpoint needs a decision log of its own"),
        LogError::NoLog(_) => chained(Exit::Usage, error)
            .hint("`run --state-dir DIR` keeps one in DIR/decisions; `[decision_log] folder` names another place"),
        _ => chained(Exit::Io, error),
    }
}

/// One `--set`: of which policies, and to what.
pub(crate) type Set = (ParamKey, String);

/// Loads policy files without running any of their functions.
pub(crate) struct Loader {
    host: ScriptHost,
    params: Params,
}

impl Loader {
    /// A script host with the limits and permissions of the configuration. Needs a tokio runtime around it.
    pub(crate) fn new(args: &ConfigArgs, sets: &[Set]) -> Result<Self, CliError> {
        let config = configure(flags(args, sets))?;
        #[cfg(feature = "docker")]
        let containers = super::docker::containers(&config)?;
        #[cfg(feature = "mesos")]
        let cluster = super::mesos::cluster(&config)?;
        let HostConfig { limits, permissions, params, .. } = config;
        let io = tokio::runtime::Handle::current();
        let host = ScriptHost::new(limits, permissions, Natives::default(), io, SCRIPT_THREADS)
            .map_err(|error| CliError::io("cannot start the script threads", error))?
            .naming_params(params.origins_in_words());
        #[cfg(feature = "docker")]
        let host = host.with_containers(containers);
        #[cfg(feature = "mesos")]
        let host = match cluster {
            Some(cluster) => host.with_cluster(cluster),
            None => host,
        };
        Ok(Self { host, params })
    }

    /// What `--set` gives must be declared by one of the policies that were loaded. What the configuration file sets may
    /// be for others.
    pub(crate) fn check_sets<'a>(
        &self,
        declared: impl IntoIterator<Item = (&'a str, &'a [Param])>,
    ) -> Result<(), CliError> {
        let set = self.params.origins.iter().filter(|(_, origin)| matches!(origin, Origin::Flag(_)));
        check_params(set.map(|(key, _)| key), declared, &self.params.origins_in_words()).map_err(not_started)
    }

    /// Loads one file.
    pub(crate) async fn load(&self, file: &PolicyFile) -> Result<LoadedFile, Vec<ScriptError>> {
        self.host.load(self.request(file)).await
    }

    /// Loads the shadow that a file names.
    pub(crate) async fn load_shadow(&self, file: &PolicyFile, named: &str) -> Result<LoadedShadow, Vec<ScriptError>> {
        self.host.load_shadow(self.request(file), named).await
    }

    /// Loads one file as a simulation wants it.
    pub(crate) async fn load_varied(
        &self,
        file: &PolicyFile,
        variation: Variation,
    ) -> Result<LoadedFile, Vec<ScriptError>> {
        self.host.load_varied(self.request(file), variation).await
    }

    fn request(&self, file: &PolicyFile) -> LoadRequest {
        LoadRequest {
            path: file.path.clone(),
            name: file.name.clone(),
            source: file.source.map(str::to_owned),
            params: self.params.of(&file.name),
            backends: BACKENDS.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// How much more memory a spec may hold than a policy's file: it has several policies and their timelines.
const SPEC_MEMORY: usize = 8;

/// A script host for specs, which reach nothing outside.
pub(crate) fn for_specs(args: &ConfigArgs, threads: usize) -> Result<ScriptHost, CliError> {
    let HostConfig { mut limits, permissions, .. } = configure(flags(args, &[]))?;
    limits.memory = limits.memory.saturating_mul(SPEC_MEMORY);
    let io = tokio::runtime::Handle::current();
    ScriptHost::new(limits, permissions, Natives::default(), io, threads)
        .map_err(|error| CliError::io("cannot start the script threads", error))
}

/// Policies that do not load, where that ends the command.
pub(crate) fn wrong_policies(errors: &[ScriptError]) -> CliError {
    let reports: Vec<_> = errors.iter().map(ScriptError::report).collect();
    // A file that cannot be read is no bad policy.
    let unread = errors.iter().all(|error| error.kind == ScriptErrorKind::Io);
    CliError::new(if unread { Exit::Io } else { Exit::Config }, reports.join("\n"))
}

/// Why an engine did not start. Nothing has been launched then.
pub(crate) fn not_started(error: StartError) -> CliError {
    match error {
        StartError::Policies(errors) => {
            wrong_policies(&errors).hint("nothing was launched; `setpoint check` says the same")
        }
        StartError::Store(error) => store(error),
        StartError::Log(error) => log(&error),
        StartError::EmptyFolder(_) => chained(Exit::Config, &error),
        StartError::DuplicateName { .. } => chained(Exit::Config, &error).hint("rename one of the files"),
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
