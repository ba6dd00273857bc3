//! One tick without an engine: what `setpoint eval` prints. It touches nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::core::decision::{Decision, Observation};
use crate::core::intent::By;
use crate::core::ledger::Ledger;
use crate::core::model::{Counts, PolicyName, TaskId};
use crate::core::plan::{Situation, plan};
use crate::core::time::Timestamp;
use crate::script::{Hook, LoadedFile, LoadedPolicy, Mode, ScriptError};

use super::clock::JumpDetector;
use super::control_loop::{Action, action, rehearse, with_plan};
use super::policy::{Generation, Policy};
use super::record::{PolicyRecord, Stored};
use super::view::PolicySnapshot;

/// How long a function may take at the least, where its interval is shorter: nothing is late here.
const LEAST: Duration = Duration::from_secs(5);

/// What one tick came to.
#[derive(Debug)]
pub struct Evaluation {
    /// The policy after it.
    pub policy: PolicySnapshot,
    /// What the tick would have done.
    pub would: Would,
}

/// What a tick would have done, had it been a real one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Would {
    /// Tasks that would have been launched.
    pub launch: u32,
    /// Helpers that would have been launched.
    pub helpers: u32,
    /// Tasks that would have been told to end, or replacements not to start.
    pub kill: u32,
    /// Those of them that are known by their ids.
    pub tasks: Vec<TaskId>,
    /// Effects that would have been sent, in words.
    pub calls: Vec<String>,
    /// Of a workload that others run: changes that were taken for accepted.
    pub accepted: Option<u32>,
}

/// What is known of a policy from elsewhere: a state folder, or a running engine.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its record and tasks, from a state folder.
    pub stored: Option<(PolicyRecord, Vec<crate::core::ledger::Task>)>,
    /// Engine time of the record.
    pub at: Timestamp,
    /// Its counts, from a running engine; they win.
    pub counts: Option<Counts>,
}

impl Known {
    /// What a state folder knows of a policy.
    #[must_use]
    pub fn from_stored(stored: &Stored, name: &PolicyName) -> Self {
        let tasks = stored.tasks.values().filter(|task| task.policy == *name).cloned().collect();
        let record = stored.policies.get(name).cloned().unwrap_or_default();
        let at = stored.clock.map_or(Timestamp::ZERO, |(at, wall)| {
            at + SystemTime::now().duration_since(wall).unwrap_or(Duration::ZERO)
        });
        Self { stored: Some((record, tasks)), at, counts: None }
    }
}

/// Runs one tick of a loaded policy for show: the observation is real, nothing is carried out or remembered.
///
/// # Errors
/// `ctx.state` of a state folder that the script does not take.
pub async fn evaluate(
    name: PolicyName,
    path: std::path::PathBuf,
    file: &LoadedFile,
    policy: LoadedPolicy,
    known: Known,
) -> Result<Evaluation, ScriptError> {
    let (record, tasks) = known.stored.unwrap_or_default();
    let at = known.at + Duration::from_millis(1);
    let wall = SystemTime::now();
    policy.script.restore(record.script_state.as_deref(), false).await?;
    let ledger = Ledger::restore(record.ledger.clone(), tasks);
    let mut evaluated = Policy::new(name, record, ledger, JumpDetector::new(wall, at));
    // One tick for show is the policy's own.
    evaluated.shadow = None;
    let (script, spec) = (Arc::clone(&policy.script), Arc::clone(&policy.spec));
    evaluated.adopt(
        Generation {
            policy,
            path,
            base: None,
            sha256: file.sha256.as_str().into(),
            params: Arc::new(file.params.clone()),
        },
        Instant::now(),
    );
    evaluated.generation -= 1;
    let observed = script.observe(evaluated.ctx(wall), spec.interval.max.max(LEAST)).await;
    if let Some(count) = observed.count {
        evaluated.external.observe(count);
    }
    let observation = Observation {
        now: at,
        sample: observed.sample,
        setpoint: observed.setpoint,
        counts: known.counts.unwrap_or_else(|| evaluated.counts()),
        in_flight: evaluated.in_flight(at),
        refused: 0,
        scripted: observed.scripted,
        bounds: evaluated.bounds.is_some().then(|| evaluated.bounds_in_force()),
        budget: None,
        paused: evaluated.paused.is_some(),
        dry_run: false,
    };
    let decision = rehearse(&spec, std::mem::take(&mut evaluated.state), &observation);
    let counts = observation.counts;
    evaluated.sample = Some(observation.sample.clone());
    evaluated.setpoint = observation.setpoint;
    let Preview { decision, would, error } = preview(&mut evaluated, decision, counts, wall, at).await;
    let mut snapshot = evaluated.snapshot(Instant::now(), wall);
    snapshot.last_tick = Some(wall);
    snapshot.next_tick = None;
    snapshot.counts = counts;
    snapshot.sample = Some(observation.sample);
    snapshot.setpoint = observation.setpoint;
    snapshot.script.error = observed.errors.into_iter().chain(error).next().map(Arc::new);
    snapshot.decision = Some(Arc::new(decision));
    Ok(Evaluation { policy: snapshot, would })
}

/// A decision with what its plan made of it.
struct Preview {
    decision: Decision,
    would: Would,
    error: Option<ScriptError>,
}

/// Turns a decision into intents as the loop does, with effects recorded instead of sent, and stops there.
async fn preview(
    policy: &mut Policy,
    mut decision: Decision,
    counts: Counts,
    wall: SystemTime,
    at: Timestamp,
) -> Preview {
    let mut would = Would::default();
    let (Some(script), Some(spec)) = (policy.script(), policy.spec().cloned()) else {
        return Preview { decision, would, error: None };
    };
    if decision.adjustment == 0 {
        return Preview { decision, would, error: None };
    }
    let limit = spec.interval.max.max(LEAST);
    let mut error = None;
    let (intents, by, adjustment) = match action(&spec, &decision, decision.adjustment) {
        Action::Call { hook, n } => {
            let acted = script.act(hook, n, policy.ctx(wall), Mode::Record, limit).await;
            would.calls = acted.recorded;
            error = acted.error;
            if policy.is_external() {
                would.accepted = Some(acted.accepted.unwrap_or(n).min(n));
                return Preview { decision, would, error };
            }
            (acted.intents, if hook == Hook::Warmer { By::Warmer } else { By::Cooler }, decision.adjustment)
        }
        Action::Ask { intent, by, adjustment, reason } => {
            decision.reasons.extend(reason);
            (intent.into_iter().collect(), by, adjustment)
        }
    };
    let Some(situation) = policy.situation(adjustment, by, at) else { return Preview { decision, would, error } };
    let plan = plan(&Situation { counts, ..situation }, &intents, |id| policy.is_alive(id));
    would.launch = plan.launched();
    would.helpers = plan.launches.iter().filter(|launch| launch.by == By::Helper).map(|launch| launch.n).sum();
    would.kill = plan.killed();
    // Replacements that wait go first, without a task to kill.
    let mut chosen = plan.kills.saturating_sub(counts.waiting);
    let mut order = Vec::new();
    if spec.hooks.victims && 0 < chosen {
        match script.victims(chosen, policy.ctx(wall), limit).await {
            Ok(ids) => order = ids,
            Err(failed) => {
                // Who goes is the script's to say; while it cannot, nobody does.
                (chosen, would.kill) = (0, plan.named.len() as u32);
                error.get_or_insert(failed);
            }
        }
    }
    would.tasks = policy.victims(&plan.named, chosen, order);
    let acted = i64::from(would.launch) - i64::from(would.kill);
    Preview { decision: with_plan(decision, &plan, acted), would, error }
}
