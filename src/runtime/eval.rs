//! One tick without an engine: what `setpoint eval` prints. It touches nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::core::decision::Observation;
use crate::core::ledger::Ledger;
use crate::core::model::{Counts, PolicyName};
use crate::core::time::Timestamp;
use crate::script::{LoadedFile, LoadedPolicy, ScriptError};

use super::clock::JumpDetector;
use super::control_loop::rehearse;
use super::policy::{Generation, Policy};
use super::record::{PolicyRecord, Stored};
use super::view::PolicySnapshot;

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
) -> Result<PolicySnapshot, ScriptError> {
    let (record, tasks) = known.stored.unwrap_or_default();
    let at = known.at + Duration::from_millis(1);
    let wall = SystemTime::now();
    policy.script.restore(record.script_state.as_deref(), false).await?;
    let ledger = Ledger::restore(record.ledger.clone(), tasks);
    let mut evaluated = Policy::new(name, record, ledger, JumpDetector::new(wall, at));
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
    let observed = script.observe(evaluated.ctx(wall), spec.interval.max.max(Duration::from_secs(5))).await;
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
    let mut snapshot = evaluated.snapshot(Instant::now(), wall);
    snapshot.last_tick = Some(wall);
    snapshot.next_tick = None;
    snapshot.counts = counts;
    snapshot.sample = Some(observation.sample);
    snapshot.setpoint = observation.setpoint;
    snapshot.script.error = observed.errors.into_iter().next().map(Arc::new);
    snapshot.decision = Some(Arc::new(decision));
    Ok(snapshot)
}
