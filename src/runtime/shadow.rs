//! A shadow: a second policy that is evaluated beside the acting one, on its ticks and on its tasks, and never acts.
//!
//! ```text
//!   the acting policy's tick:  decide ──► act ──► conclude
//!                                │                   │
//!                              Basis                 ▼
//!                                └─────► Idle ─► Observing ─► Acting (effects recorded) ─► Idle
//!                                         └────► Migrating (a new file) ──────────────────────┘
//! ```
//!
//! It has a script, a history, timers and `ctx.state` of its own. Tasks, what is in flight, what was refused, the pause,
//! the operator's bounds and the budget are the acting policy's, as they were when that one decided. What that one then
//! carried out is told to the shadow's state too, after its own decision: cooldowns run from what really happened.
//!
//! Invariants: nothing here reaches a ledger, a store's task or a backend; a fault of the shadow changes nothing but what
//! is shown of it; its tick begins after the acting one's is over, and one that still runs is skipped, not waited for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::core::compare::{Tally, intended};
use crate::core::decide::{Config, settle, shape_key};
use crate::core::decision::{Bounds, Decision, Observation, PolicyState};
use crate::core::model::{PolicyName, Sample};
use crate::core::plan::Situation;
use crate::core::policy::PolicySpec;
use crate::core::time::Timestamp;
use crate::log::{Entry, Identity, Keyframe, Settled};
use crate::script::{Acted, Ctx, LoadedPolicy, LoadedShadow, Observed, PolicyScript, ReadFile, ScriptError};

use super::policy::{Penalty, own_bounds};
use super::record::ShadowRecord;
use super::trail::Trail;
use super::view::{ScriptView, ShadowSnapshot};
use super::watch::fingerprint;

/// Where a shadow is in its tick.
#[derive(Debug)]
pub(crate) enum ShadowPhase {
    /// Between ticks.
    Idle,
    /// `observe` is running.
    Observing,
    /// A warmer or cooler is running for this decision, and its effects are recorded.
    Acting(Decision),
    /// A new script is taking over the state.
    Migrating(Box<ShadowScript>),
}

/// What a shadow's worker answers.
pub(crate) enum ShadowAnswer {
    /// Its file was read, compiled and tried.
    Loaded(Result<LoadedShadow, Vec<ScriptError>>, Vec<ReadFile>),
    /// A new script has taken over the state, or refused it.
    Migrated(Result<(), ScriptError>),
    /// `observe` came back.
    Observed(Box<Observed>),
    /// A warmer or cooler came back.
    Acted(Box<Acted>),
}

/// A script of a shadow.
#[derive(Clone)]
pub(crate) struct ShadowScript {
    pub(crate) policy: LoadedPolicy,
    pub(crate) sha256: Arc<str>,
}

impl std::fmt::Debug for ShadowScript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowScript").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// What the acting policy's decision was made on.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    pub(crate) observation: Observation,
    /// The policy's tasks as intents are judged by them.
    pub(crate) situation: Situation,
    /// What a script sees of them.
    pub(crate) ctx: Arc<Ctx>,
    pub(crate) tick: u64,
    pub(crate) wall: SystemTime,
    /// What the acting policy's decision came to.
    pub(crate) intended: i64,
    /// The wall clock jumped, so that nobody's sample can be trusted.
    pub(crate) jumped: bool,
}

/// One policy's shadow.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// Its file, as the acting policy names it.
    pub(crate) file: String,
    pub(crate) path: PathBuf,
    /// Number of the last load; results of earlier ones are void.
    pub(crate) load: u64,
    /// Number of the last call; answers to earlier ones are void.
    pub(crate) serial: u64,
    /// The files that the last load asked for, with the fingerprints of what it read.
    pub(crate) read: BTreeMap<PathBuf, Option<u64>>,
    pub(crate) active: Option<ShadowScript>,
    /// What will take over after the present tick.
    pub(crate) next: Option<Box<ShadowScript>>,
    pub(crate) phase: ShadowPhase,
    /// What it is to decide on.
    pub(crate) basis: Option<Box<Basis>>,
    pub(crate) penalty: Option<Penalty>,
    pub(crate) state: PolicyState,
    pub(crate) jumped: bool,
    pub(crate) error: Option<Arc<ScriptError>>,
    pub(crate) refused: Option<Arc<ScriptError>>,
    pub(crate) trail: Trail,
    pub(crate) missed: u64,
    pub(crate) generation: u64,
    pub(crate) script_state: Option<String>,
    shape: String,
    /// What the acting policy carried out since the last decision.
    owed: Vec<Settled>,
    tick: Option<u64>,
    sample: Option<Sample>,
    setpoint: Option<f64>,
    decision: Option<Arc<Decision>>,
    difference: Option<i64>,
    effects: Arc<Vec<String>>,
    tally: Tally,
    compared: String,
    /// What the present tick's decision came to.
    intends: i64,
    /// What went wrong in the present tick.
    failed: Option<Arc<ScriptError>>,
}

impl Shadow {
    /// What the store knows of one; its script is loaded when the acting policy names it again.
    pub(crate) fn restored(record: ShadowRecord) -> Self {
        let ShadowRecord { file, state, script_state, generation, shape, tally, compared } = record;
        Self {
            file,
            path: PathBuf::new(),
            load: 0,
            serial: 0,
            read: BTreeMap::new(),
            active: None,
            next: None,
            phase: ShadowPhase::Idle,
            basis: None,
            penalty: None,
            state,
            jumped: false,
            error: None,
            refused: None,
            trail: Trail::default(),
            missed: 0,
            generation,
            script_state,
            shape,
            owed: Vec::new(),
            tick: None,
            sample: None,
            setpoint: None,
            decision: None,
            difference: None,
            effects: Arc::default(),
            tally,
            compared,
            intends: 0,
            failed: None,
        }
    }

    /// One that has seen nothing yet.
    pub(crate) fn new(file: String) -> Self {
        Self::restored(ShadowRecord { file, ..ShadowRecord::default() })
    }

    /// What is to be stored.
    pub(crate) fn record(&self) -> ShadowRecord {
        ShadowRecord {
            file: self.file.clone(),
            state: self.state.clone(),
            script_state: self.script_state.clone(),
            generation: self.generation,
            shape: self.shape.clone(),
            tally: self.tally,
            compared: self.compared.clone(),
        }
    }

    /// What the world may see now.
    pub(crate) fn snapshot(&self) -> ShadowSnapshot {
        ShadowSnapshot {
            script: ScriptView {
                path: self.path.clone(),
                sha256: self.active.as_ref().map(|active| Arc::clone(&active.sha256)).unwrap_or_default(),
                error: self.error.clone(),
                refused: self.refused.clone(),
            },
            generation: self.generation,
            tick: self.tick,
            sample: self.sample.clone(),
            setpoint: self.setpoint,
            decision: self.decision.clone(),
            difference: self.difference,
            effects: Arc::clone(&self.effects),
            missed: self.missed,
            tally: self.tally,
        }
    }

    /// What is wrong with it, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        let refused = self.refused.as_ref().map(|error| format!("the shadow's file is not what runs: {error}"));
        refused.or_else(|| self.error.as_ref().map(|error| format!("the shadow fails: {error}")))
    }

    pub(crate) fn spec(&self) -> Option<&Arc<PolicySpec>> {
        self.active.as_ref().map(|active| &active.policy.spec)
    }

    pub(crate) fn script(&self) -> Option<Arc<dyn PolicyScript>> {
        self.active.as_ref().map(|active| Arc::clone(&active.policy.script))
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, ShadowPhase::Idle)
    }

    /// A new serial number for a call.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Notes what a load read; a file that is asked for and not there is watched too.
    pub(crate) fn note(&mut self, read: Vec<ReadFile>) {
        let look = |file: ReadFile| (file.path, file.text.map(|text| fingerprint(text.as_bytes())));
        self.read = read.into_iter().map(look).collect();
    }

    /// Makes a script the one that is evaluated beside the acting one of that digest.
    pub(crate) fn adopt(&mut self, script: ShadowScript, acting: &str) {
        let shape = shape_key(&script.policy.spec);
        if !self.shape.is_empty() && self.shape != shape {
            self.state.reset_law();
        }
        self.shape = shape;
        let compared = format!("{acting} {}", script.sha256);
        if self.compared != compared {
            self.tally = Tally::default();
            self.compared = compared;
        }
        self.active = Some(script);
        self.generation += 1;
        self.penalty = None;
        (self.error, self.refused) = (None, None);
        self.trail.restart();
    }

    /// The acting policy decided: this is what the shadow's decision is made on. What was carried out before, outside of
    /// any tick, is known from here on.
    pub(crate) fn prepare(&mut self, basis: Basis) {
        if self.active.is_none() {
            return;
        }
        if !self.is_idle() {
            self.missed += 1;
            return;
        }
        self.pay();
        self.basis = Some(Box::new(basis));
    }

    /// The acting policy carried something out.
    pub(crate) fn owe(&mut self, at: Timestamp, launched: u32, killed: u32, to_min: u32) {
        if self.active.is_some() {
            self.owed.push(Settled { at, launched, killed, to_min });
        }
    }

    /// Takes in what the acting policy carried out.
    fn pay(&mut self) {
        for Settled { at, launched, killed, to_min } in std::mem::take(&mut self.owed) {
            settle(&mut self.state, at, launched, killed, to_min);
            self.trail.settled(at, launched, killed, to_min);
        }
    }

    /// What its script may see: the acting policy's tasks, its own past, the bounds that it would keep to.
    pub(crate) fn ctx(&self, basis: &Basis, bounds: Bounds) -> Arc<Ctx> {
        Arc::new(Ctx {
            sample: self.sample.clone(),
            setpoint: self.setpoint,
            history: Arc::clone(&self.state.history),
            bounds,
            ..(*basis.ctx).clone()
        })
    }

    /// The log will want to know of a decision of the policy of that name.
    pub(crate) fn begin_trail(
        &mut self,
        name: &PolicyName,
        keyframe: Option<Keyframe>,
        when: (u64, SystemTime),
        observation: &Observation,
        decision: &Decision,
    ) {
        let Some(active) = &self.active else { return };
        let identity = || Identity {
            name: name.clone(),
            shadow: Some(self.file.clone()),
            generation: self.generation,
            path: self.path.display().to_string(),
            sha256: active.sha256.to_string(),
            config: Config::from(&*active.policy.spec).into(),
        };
        self.trail.begin(identity, keyframe, when, observation, decision);
    }

    /// Its own bounds.
    pub(crate) fn bounds(&self) -> Bounds {
        self.spec().map_or(Bounds { min: 0, max: 0 }, |spec| own_bounds(spec))
    }

    /// What it saw this tick, and what it made of it.
    pub(crate) fn decided(&mut self, sample: Sample, setpoint: Option<f64>, decision: &Decision) {
        (self.sample, self.setpoint) = (Some(sample), setpoint);
        self.intends = intended(decision);
    }

    /// A function of it failed in this tick; the first failure is the one that is told.
    pub(crate) fn fail(&mut self, error: Option<Arc<ScriptError>>) {
        self.failed = self.failed.take().or(error);
    }

    /// The tick's failure becomes what is shown; true when it was not shown before.
    pub(crate) fn settle_error(&mut self) -> bool {
        let failed = self.failed.take();
        let news = failed.is_some() && failed != self.error;
        self.error = failed;
        news
    }

    /// Nobody acts beside it any more: its script goes, its state stays.
    pub(crate) fn retire(&mut self) {
        self.keep_script_state();
        self.next_serial();
        self.load += 1;
        self.phase = ShadowPhase::Idle;
        (self.active, self.next, self.basis) = (None, None, None);
    }

    /// Takes `ctx.state` from its script, as it is now.
    pub(crate) fn keep_script_state(&mut self) {
        if let Some(state) = self.script().and_then(|script| script.state()) {
            self.script_state = Some(state);
        }
    }

    /// Ends its tick; what the log is to have of it.
    pub(crate) fn conclude(&mut self, basis: &Basis, decision: Decision, effects: Vec<String>) -> Option<Box<Entry>> {
        self.phase = ShadowPhase::Idle;
        self.pay();
        self.tick = Some(basis.tick);
        self.difference = Some(self.tally.add(basis.intended, self.intends));
        self.effects = Arc::new(effects);
        let entry = self.trail.finish(&decision, 0);
        self.decision = Some(Arc::new(decision));
        entry
    }
}
