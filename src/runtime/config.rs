//! What an engine is started with, and how a start or a run ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::Backend;
use crate::log::{LogConfig, LogError};
use crate::script::{Limits, Permissions, ScriptError};

use super::store::StoreError;

/// Everything that an engine is started with. `EngineConfig::default()` is an ephemeral run with nothing in it.
pub struct EngineConfig {
    /// Where policies come from.
    pub sources: Vec<PolicySource>,
    /// Backends by the name that policies use; `none` needs no entry.
    pub backends: BTreeMap<String, Backend>,
    /// Functions of the embedding program that scripts may call.
    pub natives: crate::script::Natives,
    /// Who looks at containers for scripts (`setpoint.docker`), if anybody does.
    pub containers: Option<std::sync::Arc<dyn crate::script::containers::Containers>>,
    /// Who looks at a Mesos cluster for scripts (`setpoint.mesos`), if anybody does.
    pub cluster: Option<std::sync::Arc<dyn crate::script::cluster::ClusterView>>,
    /// Limits on scripts.
    pub limits: Limits,
    /// What scripts may reach.
    pub permissions: Permissions,
    /// Parameters: `key` for every policy that declares it, `NAME.key` for one.
    pub params: BTreeMap<String, String>,
    /// Who set them, in words and by the same keys, for messages: `--set`, `setpoint.toml:3`.
    pub param_origins: BTreeMap<String, String>,
    /// Where state is kept; none keeps nothing and stops the run's tasks on the way out.
    pub state_dir: Option<PathBuf>,
    /// Nothing is carried out.
    pub dry_run: bool,
    /// Where every decision is recorded; none records none.
    pub decision_log: Option<LogConfig>,
    /// With a state folder: stop the tasks on the way out all the same.
    pub stop_tasks: bool,
    /// End the run as soon as one policy ends by `stop` or `max_failures`.
    pub exit_on_stop: bool,
    /// A bound on the changes of all policies together.
    pub budget: Option<GlobalBudget>,
    /// End the run, with code 0, after this long.
    pub run_for: Option<Duration>,
    /// Threads that run scripts.
    pub script_threads: usize,
    /// Watch files for changes.
    pub watch: bool,
    /// How often files are looked at where no notification comes.
    pub poll: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            backends: BTreeMap::new(),
            natives: crate::script::Natives::default(),
            containers: None,
            cluster: None,
            limits: Limits::default(),
            permissions: Permissions::default(),
            params: BTreeMap::new(),
            param_origins: BTreeMap::new(),
            state_dir: None,
            dry_run: false,
            decision_log: None,
            stop_tasks: false,
            exit_on_stop: false,
            budget: None,
            run_for: None,
            script_threads: 4,
            watch: true,
            poll: Duration::from_secs(2),
        }
    }
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// A policy file.
    File(PathBuf),
    /// A folder of them; files that end in `_test.lua` are specs, not policies.
    Dir(PathBuf),
    /// A text that is no file: a bundled policy, or an embedder's.
    Text {
        /// The policy's name.
        name: String,
        /// Its text.
        source: String,
    },
}

/// Most starts + stops of all policies together in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalBudget {
    /// How many.
    pub changes: u32,
    /// In how long.
    pub per: Duration,
}

/// A signal from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Read every file again (HUP).
    Reload,
    /// Stop in good order (TERM, INT); a second one stops at once.
    Drain,
    /// Stop at once.
    Now,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// The exit code that the policies' ends add up to: the first one that is not 0.
    pub code: i32,
    /// Why, in words.
    pub reason: String,
}

/// Why an engine could not be started. Nothing has been launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Policies that cannot be used, and no earlier version of them is known.
    #[error("{} of the policy files cannot be used", .0.len())]
    Policies(Vec<ScriptError>),
    /// A path that is no policy and no folder of them.
    #[error("cannot read policy path `{}`", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A folder without a single policy.
    #[error("folder `{}` holds no policy (`*.lua`, but not `*_test.lua`)", .0.display())]
    EmptyFolder(PathBuf),
    /// Two files would give the same policy name.
    #[error("`{}` and `{}` both give the policy name `{name}`", first.display(), second.display())]
    DuplicateName {
        /// The name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A parameter that nobody declares.
    #[error("no policy declares the parameter `{key}`{}{}", set_by(.origin.as_deref()), .near.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    UnknownParam {
        /// As it was given.
        key: String,
        /// Who set it, if that is known.
        origin: Option<String>,
        /// The nearest one that exists.
        near: Option<String>,
    },
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The decision log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Threads could not be started.
    #[error("cannot start the script threads")]
    Threads(#[source] std::io::Error),
}

/// Who set a parameter, behind its name in a message.
fn set_by(origin: Option<&str>) -> String {
    origin.map(|origin| format!(" (set by {origin})")).unwrap_or_default()
}
