//! A policy's configuration, as plain data: what the policy table says once it has been checked.
//!
//! Built by `script::table` from Lua, or by hand in Rust. Nothing in here has been evaluated: hooks are
//! only named. Invariants (held by whoever builds it): intervals are at least 50 ms, `min <= max`,
//! numbers are finite, windows are not negative.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container::{ContainerSpec, Protocol};
use super::mesos::MesosSpec;
use super::model::{Effect, Kind};

/// The shortest interval that a policy may ask for.
pub const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Everything that the host knows about one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// How often it ticks.
    pub interval: Interval,
    /// What it owns.
    pub workload: Workload,
    /// How it decides.
    pub control: Control,
    /// Failures (net of successes) after which the policy ends with code 1.
    pub max_failures: Option<u32>,
    /// Delay before a failed task's successor.
    pub backoff: Backoff,
    /// How many helper tasks (`count = false`) may exist at once.
    pub max_helpers: u32,
    /// A second policy that is evaluated beside this one, by path.
    pub shadow: Option<String>,
    /// Which functions the script defines.
    pub hooks: Hooks,
}

/// The time between two ticks; grows by `grow` while nothing changes, back to `min` at the first change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Shortest, and first.
    pub min: Duration,
    /// Longest; equal to `min` when the interval is fixed.
    pub max: Duration,
    /// Factor for each tick without change, at least 1.
    pub grow: f64,
}

impl Interval {
    /// An interval that never changes.
    #[must_use]
    pub const fn fixed(every: Duration) -> Self {
        Self { min: every, max: every, grow: 1.0 }
    }
}

/// The tasks that a policy owns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Name of the backend: `local`, `none`, or what an embedder registered.
    pub backend: String,
    /// Service or jobs.
    pub kind: Kind,
    /// What more tasks do to the metric.
    pub effect: Effect,
    /// Fewest tasks.
    pub min: u32,
    /// Most tasks.
    pub max: u32,
    /// What a task is.
    pub template: TaskTemplate,
    /// When a running task counts as ready.
    pub ready: Ready,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// What happens to the tasks when the policy ends by `stop` or `max_failures`.
    pub on_end: OnEnd,
    /// What happens to them when a fleet's row is gone.
    pub on_gone: OnEnd,
    /// What happens to running tasks when the template changes.
    pub replace: Replace,
}

/// What to start. The same words on every backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskTemplate {
    /// The command; backends with images may do without.
    pub command: Option<Command>,
    /// Container image.
    pub image: Option<String>,
    /// Environment beyond the `SETPOINT_*` and `PORT_*` variables.
    pub env: BTreeMap<String, String>,
    /// Cores.
    pub cpus: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of disk.
    pub disk: Option<u64>,
    /// Ports by name, in the order given; the number is the port inside a container.
    pub ports: Vec<PortSpec>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Working folder; relative paths start from the policy file's folder.
    pub cwd: Option<String>,
    /// Where standard output and error go.
    pub output: Output,
    /// Which executor runs it, on Mesos.
    pub executor: Option<String>,
    /// A variable of its environment that gets the task's UUID ([`TaskId::uuid`](super::model::TaskId::uuid)).
    #[serde(default)]
    pub uuid_env: Option<String>,
    /// What it is as a container.
    #[serde(default)]
    pub container: ContainerSpec,
    /// What it is on a Mesos cluster.
    #[serde(default)]
    pub mesos: MesosSpec,
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Given to `sh -c`, byte for byte.
    Shell(String),
    /// Run as it is; never empty.
    Argv(Vec<String>),
}

/// One port that a task needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Its name: the task sees `PORT_<NAME>`.
    pub name: String,
    /// The port inside a container, where it differs.
    pub inside: Option<u16>,
    /// First and last of the ports outside that it may be, the same for a fixed one; none is any free one.
    #[serde(default)]
    pub outside: Option<(u16, u16)>,
    /// What it carries.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Where a local task's standard output and error go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// To a file for each task under the state folder, or nowhere when there is none.
    #[default]
    Auto,
    /// Nowhere.
    Null,
    /// To setpoint's own standard error.
    Inherit,
}

/// When a running task counts as ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// At once.
    #[default]
    Running,
    /// So long after it started to run.
    After(Duration),
    /// When its backend reports it healthy.
    Healthy,
}

/// What becomes of tasks whose policy is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnEnd {
    /// They are stopped, through `drain`.
    #[default]
    Stop,
    /// They keep running.
    Keep,
}

/// What becomes of running tasks when the template changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replace {
    /// They keep the old one.
    #[default]
    Keep,
    /// They are replaced, one at a time.
    Rolling,
}

/// Delay before a failed task's successor: from `min`, doubling to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// First delay.
    pub min: Duration,
    /// Longest delay.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(300) }
    }
}

/// Law and guards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Turns observations into a proposed number.
    pub law: LawSpec,
    /// Deviations up to this are left alone.
    pub tolerance: Tolerance,
    /// Least time between actions.
    pub cooldown: UpDown<Duration>,
    /// Windows over which the most careful proposal counts.
    pub stabilization: UpDown<Duration>,
    /// Most change at once, or in a period.
    pub step: UpDown<Option<StepLimit>>,
    /// How often a direction must be seen before it is acted on.
    pub confirm: Option<Confirm>,
    /// Over how many first samples the first adjustment is spread; 1 is no spreading.
    pub ramp: u32,
    /// Time from ready, or gone, to the full effect in the sample.
    pub lag: Duration,
    /// How many samples the history keeps.
    pub lookback: usize,
    /// Most starts + stops in a window.
    pub flap: Option<FlapBudget>,
    /// Samples older than this are stale; none is three intervals.
    pub stale_after: Option<Duration>,
    /// What to do without a fresh sample.
    pub on_missing: OnMissing,
}

/// The tolerance of the Kubernetes HPA.
pub const HPA_TOLERANCE: f64 = 0.1;

impl Control {
    /// A law with every guard at its default; for `ratio` these are the HPA's.
    #[must_use]
    pub const fn new(law: LawSpec) -> Self {
        let none = UpDown { up: Duration::ZERO, down: Duration::ZERO };
        let lookback = if matches!(law, LawSpec::Relay { .. }) { 1000 } else { 64 };
        let (mut stabilization, mut step) = (none, UpDown { up: None, down: None });
        if matches!(law, LawSpec::Ratio { .. }) {
            let per = Some(Duration::from_secs(15));
            stabilization.down = Duration::from_secs(300);
            step.up = Some(StepLimit { tasks: Some(4), fraction: Some(1.0), per });
            step.down = Some(StepLimit { tasks: None, fraction: Some(1.0), per });
        }
        Self {
            law,
            tolerance: Tolerance::Absolute(0.0),
            cooldown: none,
            stabilization,
            step,
            confirm: None,
            ramp: 1,
            lag: Duration::ZERO,
            lookback,
            flap: None,
            stale_after: None,
            on_missing: OnMissing::Hold,
        }
    }
}

/// A pair of settings, one for each direction of the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpDown<T> {
    /// For launches.
    pub up: T,
    /// For kills.
    pub down: T,
}

/// A law and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "lowercase")]
pub enum LawSpec {
    /// raw = deviation / per_task.
    Proportional {
        /// Metric units that one task is worth, more than 0.
        per_task: f64,
    },
    /// Proportional, integral and derivative terms.
    Pid(Gains),
    /// The algorithm of the Kubernetes HPA.
    Ratio {
        /// Ratios within this of 1 are left alone, a fraction.
        tolerance: f64,
    },
    /// Learns how much one task moves the metric and after how long, and uses both.
    Adaptive(Tuning),
    /// Relay's formula.
    Relay {
        /// Reproduce its undefined cases as the original had them.
        compat: bool,
    },
    /// Thresholds on the sample, with hysteresis.
    Step {
        /// The thresholds.
        tiers: Vec<StepTier>,
        /// A tier that fired stays on until the sample is this far back over its threshold.
        hysteresis: f64,
    },
    /// A fixed number of tasks.
    Count {
        /// How many.
        n: u32,
        /// Once full, ended tasks are refilled only at multiples of this from the start.
        wait: Option<Duration>,
    },
    /// The script's own `decide(ctx)`.
    Decide,
}

impl LawSpec {
    /// The law's name in a policy table.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Proportional { .. } => "proportional",
            Self::Pid(_) => "pid",
            Self::Ratio { .. } => "ratio",
            Self::Adaptive(_) => "adaptive",
            Self::Relay { .. } => "relay",
            Self::Step { .. } => "step",
            Self::Count { .. } => "count",
            Self::Decide => "decide",
        }
    }
}

/// What the `pid` law multiplies with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gains {
    /// Metric units that one task is worth, more than 0: what is in flight counts for so much.
    pub per_task: f64,
    /// Tasks for each metric unit of deviation.
    pub kp: f64,
    /// Tasks for each metric unit of deviation and second.
    pub ki: f64,
    /// Tasks for each metric unit a second at which the sample moves.
    pub kd: f64,
    /// Time constant of the filter on the derivative.
    pub filter: Duration,
}

impl Gains {
    /// Gains with a filter an eighth as slow as the derivative's own time, kd / kp; kp is one task for each `per_task`
    /// unless it is given.
    #[must_use]
    pub fn new(per_task: f64, kp: Option<f64>, ki: f64, kd: f64) -> Self {
        let kp = kp.unwrap_or((1.0 / per_task).min(f64::MAX));
        let seconds = if kp > 0.0 { kd / kp / 8.0 } else { 0.0 };
        let filter = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self { per_task, kp, ki, kd, filter }
    }
}

/// What the `adaptive` law is told beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Metric units that one task is worth, as long as nothing better is known; more than 0.
    pub per_task: f64,
    /// The period of a season that the load may have, such as a day; none looks for none.
    pub season: Option<Duration>,
}

/// One threshold of the `step` law.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTier {
    /// Which side of `at` fires it.
    pub side: Side,
    /// The threshold, in the metric's unit; the sample must be strictly beyond it.
    pub at: f64,
    /// Tasks: + launches, − kills.
    pub adjust: i64,
}

/// A side of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Sample > threshold.
    Above,
    /// Sample < threshold.
    Below,
}

/// A dead band around the setpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tolerance {
    /// In the metric's unit.
    Absolute(f64),
    /// A fraction of the setpoint (0.1 for `"10%"`).
    Relative(f64),
}

/// Most change in one direction within a period; with both figures the larger one counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLimit {
    /// In tasks.
    pub tasks: Option<u32>,
    /// As a fraction of the number at the start of the period (1.0 for `"100%"`).
    pub fraction: Option<f64>,
    /// The period; none is each decision by itself.
    pub per: Option<Duration>,
}

/// How often a direction must be seen before it is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// In `n` of the last `of` ticks.
    Window {
        /// How often.
        n: u32,
        /// Of how many, at least `n`.
        of: u32,
    },
    /// `n` times in all since the last action; ticks that ask for nothing neither count nor clear.
    Total {
        /// How often.
        n: u32,
    },
}

/// Most starts + stops in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlapBudget {
    /// How many.
    pub changes: u32,
    /// In how long.
    pub per: Duration,
}

/// What to do without a fresh sample. None of them ever scales in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// Leave the number as it is.
    #[default]
    Hold,
    /// Go on with the last value for this long, upwards only.
    Keep(Duration),
    /// After so long without one, see that at least `n` run.
    Fallback {
        /// How many.
        n: u32,
        /// After how long.
        after: Duration,
    },
}

/// Which functions a script defines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hooks {
    /// `metric(ctx)`.
    pub metric: bool,
    /// `target`: a number, a function, or absent.
    pub target: Target,
    /// `warmer`.
    pub warmer: Actuator,
    /// `cooler`.
    pub cooler: Actuator,
    /// `decide(ctx)`.
    pub decide: bool,
    /// `victims(tasks, n, ctx)`.
    pub victims: bool,
    /// `drain(task, ctx)`.
    pub drain: bool,
    /// `stop(ctx)`.
    pub stop: bool,
    /// `migrate(old)`.
    pub migrate: bool,
    /// `workload.count(ctx)`, on backend `none`.
    pub count: bool,
}

/// What `target` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Not given.
    #[default]
    Absent,
    /// A fixed setpoint.
    Number(f64),
    /// `target(ctx)`.
    Function,
}

/// What `warmer` or `cooler` is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actuator {
    /// Not given.
    #[default]
    Absent,
    /// A function of `(n, ctx)`.
    Function,
    /// A task: that many of it are launched, as jobs.
    Task(Arc<TaskTemplate>),
}
