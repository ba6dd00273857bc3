//! Specs of policies: `NAME_test.lua` beside `NAME.lua`, run in a VM of their own.
//!
//! A spec and the policies that it loads live in one VM, each file with its own environment, so that the spec's tables
//! can stand in for the host's modules. How time goes on and what becomes of decisions is the [`Stage`]'s business; the
//! functions of a policy are called as simulations call them. Nothing outside the process is touched: what has no fake
//! raises.
//!
//! Invariants: a case ends by its limit, whatever it does; policies of one case are gone with it; the same spec and seed
//! give the same outcome.

mod fakes;
mod golden;
mod host;
mod load;
mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::core::decision::Decision;
use crate::core::model::{Counts, Placement, PolicyName, Sample, TaskId, TaskStats};
use crate::core::policy::PolicySpec;

use super::{Direct, Given, ScriptError, ScriptHost, TaskView};

pub(super) use fakes::environment;

/// What a spec's file ends in.
pub const SPEC_SUFFIX: &str = "_test.lua";

/// What plays the world for the policies of a spec.
pub trait Stage: Send + Sync {
    /// Begins with a policy that has just been loaded.
    fn open(&self, opening: Opening) -> Box<dyn Subject>;
}

/// A policy at the start.
#[derive(Debug)]
pub struct Opening {
    /// Its name.
    pub name: PolicyName,
    /// Its checked table.
    pub spec: Arc<PolicySpec>,
    /// Its functions.
    pub script: Direct,
    /// Tasks that run.
    pub start: u32,
    /// From asked to running.
    pub startup: Duration,
    /// From told to end to gone.
    pub stop: Duration,
    /// Wall time.
    pub wall: SystemTime,
}

/// A policy under test. Times are since its start.
pub trait Subject: Send {
    /// The time.
    fn now(&self) -> Duration;

    /// When the next tick is due; none when it has ended.
    fn due(&self) -> Option<Duration>;

    /// Why it has ended.
    fn ended(&self) -> Option<&str>;

    /// Lets time go on without a tick.
    fn go(&mut self, to: Duration);

    /// Ticks now.
    fn tick(&mut self, given: Given, figures: BTreeMap<TaskId, Figures>) -> Ticked;

    /// Its tasks.
    fn tasks(&self) -> Vec<TaskView>;

    /// Ends the oldest running tasks; how many there were.
    fn finish(&mut self, n: u32, code: i32) -> u32;
}

/// What a task shows, as the spec says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// What it uses.
    pub stats: TaskStats,
    /// Where it is.
    pub placement: Placement,
}

/// What came of a tick.
#[derive(Clone, Debug)]
pub struct Ticked {
    /// When.
    pub at: Duration,
    /// What was seen.
    pub sample: Sample,
    /// What should be.
    pub setpoint: Option<f64>,
    /// The decision as it was carried out.
    pub decision: Decision,
    /// The tasks before it.
    pub before: Counts,
    /// The tasks after it.
    pub after: Counts,
    /// Tasks that were launched.
    pub launched: u32,
    /// Tasks that were told to end, and replacements that were given up.
    pub killed: u32,
    /// Effects that were recorded and not sent.
    pub recorded: Vec<String>,
    /// The script's errors.
    pub errors: Vec<ScriptError>,
}

/// A spec whose fakes take the modules' place for a policy that is simulated.
#[derive(Clone)]
pub struct Fakes {
    /// Its file, which calls `fakes`.
    pub path: PathBuf,
    /// What plays the world, should it load policies while it is being loaded.
    pub stage: Arc<dyn Stage>,
}

impl std::fmt::Debug for Fakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fakes").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Which spec to run, and how.
#[derive(Clone, Debug)]
pub struct SpecRequest {
    /// Its file; policies and `require`d files lie in its folder or below.
    pub path: PathBuf,
    /// Names of the backends that policies may name.
    pub backends: Vec<String>,
    /// Run only cases whose full name contains this.
    pub filter: Option<String>,
    /// Where `for_all` begins to draw unless it says so itself.
    pub seed: u64,
    /// Whether golden timelines are taken as they come.
    pub update: bool,
    /// Whether to count which lines of the policies run.
    pub coverage: bool,
    /// How long a case may take.
    pub limit: Duration,
}

/// What came of a spec.
#[derive(Clone, Debug)]
pub struct SpecReport {
    /// Its file.
    pub path: PathBuf,
    /// Its cases, in their order.
    pub cases: Vec<Case>,
    /// The policies that it loaded, where coverage was asked for.
    pub coverage: Vec<FileCoverage>,
    /// The golden file and what is to be in it, where it has to be written.
    pub golden: Option<(PathBuf, String)>,
}

/// One `it`.
#[derive(Clone, Debug)]
pub struct Case {
    /// The names of what it stands in, and its own.
    pub names: Vec<String>,
    /// Where it begins.
    pub line: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All was as expected.
    Passed,
    /// Something was not.
    Failed(Box<Failure>),
    /// It was not run.
    Skipped,
}

/// Why a case failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was expected and what came, and where.
    pub error: ScriptError,
    /// More than fits into one line.
    pub detail: Option<String>,
    /// What `for_all` drew.
    pub note: Option<String>,
    /// The ticks of the policies so far, by policy.
    pub timelines: Vec<(String, Vec<String>)>,
}

/// Which lines of a policy ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCoverage {
    /// The file.
    pub path: PathBuf,
    /// Lines that can run.
    pub lines: u32,
    /// Those that did not.
    pub missed: Vec<u32>,
}

impl ScriptHost {
    /// Runs a spec.
    ///
    /// # Errors
    /// It does not load: its file cannot be read, is no Lua, or raises while it describes its cases.
    pub async fn run_spec(&self, request: SpecRequest, stage: Arc<dyn Stage>) -> Result<SpecReport, Vec<ScriptError>> {
        let path = request.path.clone();
        let work = run::run(Arc::clone(&self.shared), Arc::clone(&self.pool), request, stage);
        self.pool.spawn(work).await.unwrap_or_else(|error| {
            let message = format!("the script host failed: {error}");
            Err(vec![ScriptError::new(path, super::Hook::Load, super::ScriptErrorKind::Runtime, message)])
        })
    }
}
