//! The script host: Luau, one VM for each file, on a pool of threads of its own.
//!
//! The rest of the crate sees policies only through [`PolicyScript`] and [`LoadedFile`]; mlua is named in
//! this folder alone. A script can ask for things (see [`Intent`]); it never carries them out.
//!
//! Invariants:
//! - no call outlives its limits (CPU, wall, memory, depth, output), whatever the script does;
//! - a failed call leaves the VM usable for the file's other policies;
//! - effects leave the process only from `warmer`, `cooler`, `drain` and `stop`, and only in [`Mode::Live`].

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::core::decision::{Bounds, Scripted};
use crate::core::intent::Intent;
use crate::core::model::{Placement, Point, PolicyName, Sample, TaskId, TaskState, TaskStats};
use crate::core::policy::PolicySpec;

pub mod api;
pub(crate) mod call;
mod checker;
pub mod cluster;
mod container_table;
pub mod containers;
mod control_table;
mod convert;
mod ctx;
mod direct;
pub mod error;
mod fault;
mod fleet;
mod health_table;
mod held;
mod host;
mod loader;
mod mesos_table;
mod meter;
mod params;
mod policy;
mod pool;
mod require;
mod row;
mod shadow;
#[cfg(feature = "sim")]
pub mod spec;
mod state;
mod stdlib;
mod table;
mod task_table;
mod vm;
#[cfg(feature = "sim")]
mod world;

pub use direct::{Direct, Given, Simulated};
pub use error::{ScriptError, ScriptErrorKind};
pub use host::ScriptHost;
pub(crate) use require::ReadFile;
pub use shadow::{LoadedShadow, shadow_path};

/// Limits on scripts. Every one of them holds against hostile code.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// CPU time of one call.
    pub cpu: Duration,
    /// CPU time of one load (compile, chunk, shape check).
    pub load_cpu: Duration,
    /// Memory of one file's VM, in bytes.
    pub memory: usize,
    /// Bytes of a source file.
    pub source: usize,
    /// Bytes that one call may log or print.
    pub output: usize,
    /// Bytes of `ctx.state` as JSON.
    pub state: usize,
    /// Bytes of one HTTP body, file or command output that a module reads, and of what `json.encode` makes.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_millis(50),
            load_cpu: Duration::from_millis(500),
            memory: 16 << 20,
            source: 1 << 20,
            output: 16 << 10,
            state: 64 << 10,
            body: 4 << 20,
        }
    }
}

/// What the host allows scripts beyond computing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Permissions {
    /// Folders that `fs` may read; the policy's own folder always is one.
    pub read_dirs: Vec<PathBuf>,
    /// Hosts (`name` or `name:port`) that `http` and `redis` may reach; none is every host.
    pub allow_hosts: Option<Vec<String>>,
    /// Backends that policies may name; none is every one that exists.
    pub allow_backends: Option<Vec<String>>,
    /// Whether `exec` may run commands.
    pub exec: bool,
    /// Secrets by name; each is read when a script first uses it.
    pub secrets: BTreeMap<String, SecretSource>,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable of the host.
    Env(String),
    /// A file; one trailing line end is dropped.
    File(PathBuf),
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamValue {
    /// true or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
}

/// A parameter that a script declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its default, which also gives its type.
    pub default: ParamValue,
    /// Its value in this load.
    pub value: ParamValue,
}

/// Functions of the embedding program, by the name under which scripts find them:
/// `require("setpoint.host").NAME()`. Each gives a number, nothing (a missing sample), or an error in words.
#[derive(Clone, Default)]
pub struct Natives(pub BTreeMap<String, NativeMetric>);

/// A function of the embedding program that scripts may call as a read.
pub type NativeMetric =
    Arc<dyn Fn() -> futures_util::future::BoxFuture<'static, Result<Option<f64>, String>> + Send + Sync>;

impl std::fmt::Debug for Natives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What to load.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The policy file; relative `require`s and `fs` start from its folder.
    pub path: PathBuf,
    /// The policy's name, or the fleet's: the file's stem.
    pub name: String,
    /// Its text, when it does not come from `path` (a bundled policy, or the last good source of the store).
    pub source: Option<String>,
    /// Parameters set from outside, as text; converted to the declared type.
    pub params: BTreeMap<String, String>,
    /// Names of the backends that exist.
    pub backends: Vec<String>,
}

/// What a simulation makes of a file otherwise than its author.
#[derive(Clone, Debug, Default)]
pub struct Variation {
    /// Keys of the policy's `control` that are set to something else (`per_task`, `cooldown.down`): numbers as numbers, all
    /// else as text.
    pub control: Vec<(String, String)>,
    /// Whose tables stand before the host's modules.
    #[cfg(feature = "sim")]
    pub fakes: Option<spec::Fakes>,
}

/// A file that has been compiled, run and checked, with all effects and I/O stubbed.
pub struct LoadedFile {
    /// SHA-256 of the source, in hex.
    pub sha256: String,
    /// The source itself.
    pub source: Arc<str>,
    /// Every file that it required, to be watched.
    pub required: Vec<PathBuf>,
    /// The parameters that it declares.
    pub params: Vec<Param>,
    /// Things that are legal and probably not meant.
    pub warnings: Vec<String>,
    /// One policy, or a fleet.
    pub content: Content,
}

/// What a file gives.
pub enum Content {
    /// One policy, named like the file.
    Policy(LoadedPolicy),
    /// Many policies, found at run time.
    Fleet(Arc<dyn Fleet>),
}

/// One policy of a loaded file.
#[derive(Clone)]
pub struct LoadedPolicy {
    /// Its checked table.
    pub spec: Arc<PolicySpec>,
    /// Its functions.
    pub script: Arc<dyn PolicyScript>,
}

/// A file that finds its policies at run time.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// How often to discover.
    fn every(&self) -> Duration;

    /// Calls `discover`, then `policy(row)` for each row that is new or changed. A row whose policy is wrong
    /// comes back as its error; a failure of `discover` itself is the outer error.
    async fn discover(&self, deadline: Duration) -> Result<Vec<FleetRow>, ScriptError>;
}

/// One row of a fleet.
pub struct FleetRow {
    /// The row's name, unique in its file.
    pub name: String,
    /// Its policy; unchanged rows give the same `Arc`s as before.
    pub policy: Result<LoadedPolicy, ScriptError>,
}

/// Whether effects happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Effects are carried out.
    Live,
    /// Effects are recorded and return their documented stub; reads happen.
    Record,
}

/// The functions of one policy.
#[async_trait]
pub trait PolicyScript: Send + Sync {
    /// `metric`, `target`, `workload.count` and `decide`, in this order, in one visit to the VM.
    async fn observe(&self, ctx: Arc<Ctx>, deadline: Duration) -> Observed;

    /// `warmer(n, ctx)` or `cooler(n, ctx)`, whichever `hook` says.
    async fn act(&self, hook: Hook, n: u32, ctx: Arc<Ctx>, mode: Mode, deadline: Duration) -> Acted;

    /// `victims(tasks, n, ctx)`: ids in the order in which they should go.
    async fn victims(&self, n: u32, ctx: Arc<Ctx>, deadline: Duration) -> Result<Vec<TaskId>, ScriptError>;

    /// `drain(task, ctx)`; the task is killed when it returns true or nil, or its grace is over; false asks again next tick.
    async fn drain(&self, task: TaskId, ctx: Arc<Ctx>, mode: Mode, deadline: Duration) -> Result<bool, ScriptError>;

    /// `stop(ctx)`: an exit code ends the policy.
    async fn stop(&self, ctx: Arc<Ctx>, mode: Mode, deadline: Duration) -> Result<Option<i32>, ScriptError>;

    /// Takes over `ctx.state` of an earlier generation or run, through `migrate(old)` where the script has it and
    /// `migrate` is set, else as it is.
    async fn restore(&self, state: Option<&str>, migrate: bool) -> Result<(), ScriptError>;

    /// `ctx.state` as JSON when it changed since the last call of this; costs next to nothing when it did not.
    fn take_changed_state(&self) -> Option<String>;

    /// `ctx.state` as JSON now; none when it is empty.
    fn state(&self) -> Option<String>;

    /// The same functions for one who calls them on a thread of its own, and nobody else meanwhile; none where that
    /// cannot be.
    fn direct(&self) -> Option<Direct> {
        None
    }
}

/// Which function a call or an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// The file as a whole: compile, run, shape check.
    Load,
    /// `metric(ctx)`.
    Metric,
    /// `target(ctx)`.
    Target,
    /// `workload.count(ctx)`.
    Count,
    /// `decide(ctx)`.
    Decide,
    /// `warmer(n, ctx)`.
    Warmer,
    /// `cooler(n, ctx)`.
    Cooler,
    /// `victims(tasks, n, ctx)`.
    Victims,
    /// `drain(task, ctx)`.
    Drain,
    /// `stop(ctx)`.
    Stop,
    /// `migrate(old)`.
    Migrate,
    /// `discover()` of a fleet.
    Discover,
    /// `policy(row)` of a fleet.
    Row,
    /// A spec's function.
    Spec,
}

impl Hook {
    /// The function's name in a policy table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Metric => "metric",
            Self::Target => "target",
            Self::Count => "count",
            Self::Decide => "decide",
            Self::Warmer => "warmer",
            Self::Cooler => "cooler",
            Self::Victims => "victims",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Migrate => "migrate",
            Self::Discover => "discover",
            Self::Row => "policy",
            Self::Spec => "spec",
        }
    }
}

/// What a script may see of its policy: read-only but for `ctx.state`.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// The policy.
    pub policy: PolicyName,
    /// Wall-clock time of the tick; `ctx.now` is seconds since 1970 with fractions.
    pub now: SystemTime,
    /// Number of the tick, from 1.
    pub tick: u64,
    /// The last sample (in `observe`: the one before this tick).
    pub sample: Option<Sample>,
    /// The last setpoint.
    pub setpoint: Option<f64>,
    /// Fresh samples, oldest first.
    pub history: Arc<VecDeque<Point>>,
    /// The policy's tasks, oldest first; helpers are marked.
    pub tasks: Arc<Vec<TaskView>>,
    /// How many run.
    pub running: u32,
    /// How many are wanted and not ready.
    pub in_flight: u32,
    /// How many are wanted.
    pub desired: u32,
    /// min and max in force.
    pub bounds: Bounds,
}

/// A task as scripts and the API see it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// Its name.
    pub id: TaskId,
    /// The policy that it belongs to.
    pub policy: PolicyName,
    /// Name of its backend.
    pub backend: Arc<str>,
    /// Its state.
    pub state: TaskState,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is a helper.
    pub helper: bool,
    /// Where it runs.
    pub placement: Placement,
    /// When it was asked for, on the wall clock.
    pub started: SystemTime,
    /// CPU and memory, when sampled.
    pub stats: TaskStats,
    /// Who asked for it: `law`, `min`, `replacement`, `warmer`, `cooler` or `helper`.
    pub by: &'static str,
    /// Its place among the policy's tasks, from 0; none for a helper.
    pub slot: Option<u32>,
}

/// What one visit for an observation gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The metric, checked; a `decide`-only or `count` policy without one gives `Missing`.
    pub sample: Sample,
    /// The setpoint; a failed `target` makes the sample an error.
    pub setpoint: Option<f64>,
    /// The running number of a workload that others run.
    pub count: Option<u32>,
    /// The answer of `decide(ctx)`.
    pub scripted: Option<Scripted>,
    /// Everything that went wrong, in order.
    pub errors: Vec<ScriptError>,
    /// CPU time used.
    pub cpu: Duration,
}

/// What a warmer or cooler asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Acted {
    /// Requests, in order; kept even when the function raised after them.
    pub intents: Vec<Intent>,
    /// The number it returned: what an outside system accepted (backend `none`).
    pub accepted: Option<u32>,
    /// Effects that were recorded and not sent, in words.
    pub recorded: Vec<String>,
    /// What went wrong.
    pub error: Option<ScriptError>,
    /// CPU time used.
    pub cpu: Duration,
}
