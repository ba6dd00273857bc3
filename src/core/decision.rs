//! The types around `decide`: what goes in, what comes out, what is remembered in between.
//!
//! `decide(config, state, observation)` is pure, so all that it may look at is in [`Observation`], all
//! that it may remember is in [`PolicyState`], and all that it says is in [`Decision`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::law::{AdaptiveState, PidState};
use super::model::{Counts, Point, Sample};
use super::time::Timestamp;

/// All that a decision may depend on besides the configuration and the state. By default: no sample, no setpoint, no
/// tasks, and nothing that narrows the decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Engine time of the tick.
    pub now: Timestamp,
    /// What `metric` gave.
    pub sample: Sample,
    /// What `target` gave; absent for laws that need none.
    pub setpoint: Option<f64>,
    /// The policy's tasks. On backend `none`, `running` and `ready` are what `count` gave.
    pub counts: Counts,
    /// Changes whose effect the sample does not show yet.
    pub in_flight: InFlight,
    /// Tasks that were asked for since the last tick and not placed.
    pub refused: u32,
    /// The answer of the script's `decide(ctx)`.
    pub scripted: Option<Scripted>,
    /// `min` and `max` as an operator's override has them.
    pub bounds: Option<Bounds>,
    /// Changes that the global budget leaves to this policy; none is no limit.
    pub budget: Option<u32>,
    /// Decisions are paused.
    pub paused: bool,
    /// Nothing is to be carried out.
    pub dry_run: bool,
}

/// Launches and kills that the sample does not show yet (semantics: until ready or gone, plus `lag`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Tasks launched (or waiting to be replaced) whose effect is still to come.
    pub launches: u32,
    /// Tasks killed or ended whose effect is still to go.
    pub kills: u32,
}

impl InFlight {
    /// Launches − kills.
    #[must_use]
    pub fn net(&self) -> i64 {
        i64::from(self.launches) - i64::from(self.kills)
    }
}

/// The answer of the script's own law.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scripted {
    /// `{ desired = n }`.
    Desired(f64),
    /// `{ adjust = n }`.
    Adjust(f64),
}

/// Bounds that stand in for the policy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// In place of `workload.min`.
    pub min: u32,
    /// In place of `workload.max`.
    pub max: u32,
}

/// What comes of one tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Engine time of the tick.
    pub at: Timestamp,
    /// The desired number before the decision.
    pub desired: u32,
    /// The law's proposed number − desired, in tasks: + launches, − kills.
    pub raw: i64,
    /// What is to be carried out, in tasks, after every guard.
    pub adjustment: i64,
    /// How much of a positive adjustment only brings the number up to `min` (this part neither obeys nor
    /// starts a cooldown).
    pub to_min: u32,
    /// Why the adjustment is not the raw one, in the order of the guards.
    pub reasons: Vec<Reason>,
}

/// One link of the chain from the raw adjustment to the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Who changed it.
    pub guard: Guard,
    /// The adjustment before.
    pub from: i64,
    /// The adjustment after.
    pub to: i64,
    /// The figures behind it.
    pub detail: Detail,
}

/// Who may change an adjustment, in their fixed order; the last ones speak when intents are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// The law itself, where it has something to say.
    Law,
    /// Never scale in on missing, stale or failed data.
    Sample,
    /// The dead band.
    Tolerance,
    /// Not seen often enough yet.
    Confirmation,
    /// The first samples.
    Ramp,
    /// The most careful proposal of a window counts.
    Stabilization,
    /// Most change at once.
    Step,
    /// Too soon after the last action.
    Cooldown,
    /// Too many starts + stops.
    Flap,
    /// The lower bound.
    Min,
    /// The upper bound.
    Max,
    /// The host's budget over all policies.
    Budget,
    /// Paused.
    Pause,
    /// Nothing is carried out.
    DryRun,
    /// There is no warmer or cooler for this direction.
    Actuator,
    /// An intent of the script was cut or refused.
    Intent,
    /// Failing tasks are being backed off.
    Backoff,
}

impl Guard {
    /// The snake-case word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Law => "law",
            Self::Sample => "sample",
            Self::Tolerance => "tolerance",
            Self::Confirmation => "confirmation",
            Self::Ramp => "ramp",
            Self::Stabilization => "stabilization",
            Self::Step => "step",
            Self::Cooldown => "cooldown",
            Self::Flap => "flap",
            Self::Min => "min",
            Self::Max => "max",
            Self::Budget => "budget",
            Self::Pause => "pause",
            Self::DryRun => "dry_run",
            Self::Actuator => "actuator",
            Self::Intent => "intent",
            Self::Backoff => "backoff",
        }
    }
}

/// The figures behind a reason. Kept as data, so that a tick formats no text that nobody reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// The sample is not fresh: its kind, and why.
    Sample {
        /// `missing`, `stale` or `error`.
        kind: Arc<str>,
        /// The error's message, or empty.
        message: Arc<str>,
    },
    /// The deviation is inside the dead band.
    Tolerance {
        /// The deviation.
        deviation: f64,
        /// The half width of the band.
        tolerance: f64,
    },
    /// Seen `seen` times, `needed` needed.
    Confirmation {
        /// How often the direction was seen.
        seen: u32,
        /// How often it must be.
        needed: u32,
    },
    /// Sample `sample` of `of` of the ramp.
    Ramp {
        /// Which one, from 1.
        sample: u32,
        /// How many.
        of: u32,
    },
    /// The window's extreme proposal.
    Stabilization {
        /// That proposal, in tasks.
        proposed: u32,
        /// The window.
        window: Duration,
    },
    /// The most that is allowed now.
    Limit {
        /// How many.
        limit: i64,
        /// In which period, if any.
        per: Option<Duration>,
    },
    /// Time that is still to pass.
    Wait {
        /// How long.
        left: Duration,
    },
    /// A bound on the number.
    Bound {
        /// The bound.
        bound: u32,
        /// Whether an override set it.
        overridden: bool,
    },
    /// What a law expects of a load, in the unit of all tasks together.
    Forecast {
        /// The load that the sample shows.
        load: f64,
        /// The load that is expected.
        ahead: f64,
        /// What is added for how wrong such forecasts have been.
        headroom: f64,
        /// How far ahead.
        span: Duration,
    },
    /// What a law has learned of the effect of one task.
    Response {
        /// By how much one task moves the sample, in metric units.
        gain: f64,
        /// After how long.
        lag: Duration,
    },
    /// A law does not know yet what a task does to the sample.
    Unsure,
    /// Free text, one line.
    Text(Arc<str>),
    /// Nothing to add.
    None,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guard, from, to, detail } = self;
        match detail {
            Detail::Sample { kind, message } => {
                write!(f, "sample is {kind}")?;
                if !message.is_empty() {
                    write!(f, " ({message})")?;
                }
            }
            Detail::Tolerance { deviation, tolerance } => {
                write!(f, "deviation {deviation} is within ±{tolerance}")?;
            }
            Detail::Confirmation { seen, needed } => write!(f, "confirmed {seen} of {needed} times")?,
            Detail::Ramp { sample, of } => write!(f, "ramp sample {sample} of {of}")?,
            Detail::Stabilization { proposed, window } => {
                write!(f, "{proposed} was proposed within {window:?}")?;
            }
            Detail::Limit { limit, per: Some(per) } => write!(f, "at most {limit} in {per:?}")?,
            Detail::Limit { limit, per: None } => write!(f, "at most {limit} at once")?,
            Detail::Wait { left } => write!(f, "{} for {left:?} more", guard.as_str())?,
            Detail::Bound { bound, overridden } => {
                write!(f, "{} is {bound}", guard.as_str())?;
                if *overridden {
                    f.write_str(" (override)")?;
                }
            }
            Detail::Forecast { load, ahead, headroom, span } => {
                write!(
                    f,
                    "a load of {load:.4} is expected to be {ahead:.4} in {span:.1?}, give or take {headroom:.4}"
                )?;
            }
            Detail::Response { gain, lag } => write!(f, "a task is worth {gain:.4}, seen after {lag:.1?}")?,
            Detail::Unsure => f.write_str("learning what a task does")?,
            Detail::Text(text) => f.write_str(text)?,
            Detail::None => f.write_str(guard.as_str())?,
        }
        if from != to {
            write!(f, ": {from:+} → {to:+}")?;
        }
        Ok(())
    }
}

/// All that a policy's decisions remember from tick to tick; survives restarts and reloads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyState {
    /// Fresh samples, oldest first, at most `lookback`.
    pub history: Arc<VecDeque<Point>>,
    /// What the law keeps for itself.
    pub law: LawState,
    /// Ramp: samples seen and what is still to come.
    pub ramp: RampState,
    /// When the last launch by decision was.
    pub last_launch: Option<Timestamp>,
    /// When the last change by decision was, in either direction.
    pub last_change: Option<Timestamp>,
    /// Proposed numbers within the longer stabilization window.
    pub proposals: VecDeque<(Timestamp, u32)>,
    /// Changes carried out, for step limits with a period and the flap budget: + launches, − kills.
    pub changes: VecDeque<(Timestamp, i64)>,
    /// Directions of the last ticks (window mode), newest last.
    pub directions: VecDeque<i8>,
    /// Ticks that asked for a launch, and for a kill, since the last action (total mode).
    pub confirmed: UpDownCount,
    /// The last fresh sample.
    pub last_good: Option<Point>,
    /// When the policy decided first.
    pub first: Option<Timestamp>,
}

impl PolicyState {
    /// Forgets what belongs to one law, effect and kind: the law's own state, the history, the rest of a ramp, and
    /// how often a direction was seen. Cooldowns, windows and budgets go on.
    pub fn reset_law(&mut self) {
        self.history = Arc::default();
        self.law = LawState::Empty;
        self.ramp.wanted = 0;
        self.ramp.over = 0;
        self.forget_directions();
    }

    /// Starts confirmation anew.
    pub(super) fn forget_directions(&mut self) {
        self.directions.clear();
        self.confirmed = UpDownCount::default();
    }
}

/// Two counters, one for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpDownCount {
    /// For launches.
    pub up: u32,
    /// For kills.
    pub down: u32,
}

/// Ramp progress. The plan itself follows from `wanted` and `over`, so it takes no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RampState {
    /// Fresh samples seen since the policy's first start.
    pub seen: u32,
    /// The first wanted adjustment, which the plan sums to; 0 until there is one.
    pub wanted: i64,
    /// How many samples had been seen before the plan's first.
    pub from: u32,
    /// Over how many samples it is spread.
    pub over: u32,
}

/// What a law keeps between ticks. A changed law, effect or kind resets it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LawState {
    /// Nothing.
    #[default]
    Empty,
    /// Which tiers are on.
    Step {
        /// One flag for each tier.
        on: Vec<bool>,
    },
    /// Wait and refill.
    Count {
        /// Whether free slots may be filled now.
        filling: bool,
        /// The start that multiples of `wait` count from.
        from: Timestamp,
        /// The last multiple that was seen.
        beats: u64,
        /// Slots that the last tick found free and asked for.
        #[serde(default)]
        free: u32,
    },
    /// Sums and last figures of `pid`.
    Pid(PidState),
    /// What `adaptive` has learned.
    Adaptive(Box<AdaptiveState>),
}
