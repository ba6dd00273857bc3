//! Policies on count backends: observing, carrying a number out, removing.
//!
//! Each workload is observed on the engine's own pace, not the policy's, with one call at a time. The ledger holds a
//! picture of its tasks under the backend's own names, so that counts, figures, the API and service discovery are the
//! same as for any other backend; replacing what ends is the backend's business.
//!
//! An intent is a number. It is recorded before it is sent, and sent under the version of the observation that it was
//! decided on. While it has not been seen in an observation it counts as asked for, and no other is sent. What a crash
//! leaves behind needs no care: the number in force is read from the backend, and an intent that never reached it has
//! lapsed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Backend, BackendError, CountBackend, CountStatus, CountWorkload, TaskUpdate};
use crate::core::decision::{Decision, Detail, Guard, Reason};
use crate::core::intent::By;
use crate::core::ledger::Task;
use crate::core::model::{Exit, Kind, Placement, PolicyName, TaskId, TaskState};
use crate::core::plan::Plan;
use crate::core::policy::{Ready, Replace};

use super::super::backend_worker::{PATIENCE, durable};
use super::super::counted::{CountIntent, Counted, Fate};
use super::super::event::Event;
use super::super::policy::Policy;
use super::super::record::Write;
use super::super::ticker::Timer;
use super::tick::with_plan;
use super::{BackendState, Loop};

/// How often a workload is looked at.
const OBSERVE_EVERY: Duration = Duration::from_millis(500);

/// How long nothing is sent after a number that was refused.
const AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// How long a removal may take before it is tried again: tasks have their grace to end.
const REMOVAL: Duration = Duration::from_secs(120);

/// What a call to a count backend gave.
pub(crate) struct CountAnswer {
    /// Whose workload.
    pub(crate) policy: PolicyName,
    /// On which backend.
    pub(crate) backend: Arc<str>,
    /// What was done before looking: a number was sent, or the workload removed.
    pub(crate) done: Done,
    /// What was seen then; none after a removal.
    pub(crate) status: Option<Result<CountStatus, BackendError>>,
}

/// What was done before looking.
pub(crate) enum Done {
    /// Nothing.
    Looked,
    /// A number was sent.
    Sent(Result<(), BackendError>),
    /// The workload was removed.
    Removed(Result<(), BackendError>),
}

impl Loop {
    fn count_backend(&self, name: &str) -> Option<Arc<dyn CountBackend>> {
        match self.backends.get(name) {
            Some(Backend::Count(backend)) => Some(Arc::clone(backend)),
            _ => None,
        }
    }

    /// Prepares a policy that runs, or has tasks, on count backends; its tasks are not replaced by the loop there.
    pub(super) fn enter_count_backends(&mut self, key: usize) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        let own = policy.spec().map(|spec| Arc::<str>::from(spec.workload.backend.as_str()));
        let named: BTreeSet<Arc<str>> =
            own.iter().cloned().chain(policy.ledger.tasks().map(|task| Arc::clone(&task.backend))).collect();
        let counted: Vec<Arc<str>> = named.into_iter().filter(|name| self.count_backend(name).is_some()).collect();
        let Some(policy) = self.policy(key) else { return };
        for name in &counted {
            policy.counted.entry(Arc::clone(name)).or_default();
        }
        if let Some(own) = own.filter(|own| counted.contains(own)) {
            policy.rules.kind = Kind::Jobs;
            // Replacements that waited on another backend are wanted on this one.
            let waiting = policy.ledger.cancel_waiting(u32::MAX);
            if let Some(counted) = policy.counted.get_mut(&own) {
                counted.carried += waiting;
                // What was refused may be what has just been put right.
                counted.refused = None;
            }
            if policy.spec().is_some_and(|spec| spec.hooks.victims || spec.hooks.drain) {
                tracing::warn!(policy = %policy.name, "the backend chooses which tasks end: `victims` and `drain` are never called");
            }
        }
        for name in &counted {
            self.call_count_backend(key, name);
        }
    }

    /// Looks at every workload that is not being looked at.
    pub(super) fn on_observe_due(&mut self, now: Instant) {
        self.timers.set(now + OBSERVE_EVERY, Timer::Observe);
        for key in 0..self.policies.len() {
            let Some(policy) = self.policies[key].as_ref() else { continue };
            for backend in policy.counted.keys().cloned().collect::<Vec<_>>() {
                self.call_count_backend(key, &backend);
            }
        }
    }

    /// Removes, sends or looks, whatever is next; one call at a time.
    fn call_count_backend(&mut self, key: usize, name: &Arc<str>) {
        let Some(backend) = self.count_backend(name) else { return };
        let Some(policy) = self.policies.get_mut(key).and_then(Option::as_mut) else { return };
        let workload = workload(policy, name);
        let Some(counted) = policy.counted.get_mut(name) else { return };
        if std::mem::replace(&mut counted.calling, true) {
            return;
        }
        let (policy, name) = (policy.name.clone(), Arc::clone(name));
        if counted.removing {
            self.spawn(async move {
                let removed = within(&name, REMOVAL, backend.remove(&policy)).await;
                Event::Counted(Box::new(CountAnswer {
                    policy,
                    backend: name,
                    done: Done::Removed(removed),
                    status: None,
                }))
            });
        } else {
            self.spawn(async move {
                let status = Some(within(&name, PATIENCE, backend.observe(&workload)).await);
                Event::Counted(Box::new(CountAnswer { policy, backend: name, done: Done::Looked, status }))
            });
        }
    }

    /// Records a number and sends it. False when that cannot be now.
    pub(super) fn intend(&mut self, key: usize, name: &Arc<str>, to: u32) -> bool {
        let Some(policy) = self.policies.get_mut(key).and_then(Option::as_mut) else { return false };
        let Some(counted) = policy.counted.get_mut(name) else { return false };
        if self.settings.dry_run || self.stopping.is_some() || counted.hindrance(Instant::now()).is_some() {
            return false;
        }
        let from = counted.seen.as_ref().map_or(0, |seen| seen.desired);
        counted.intent = Some(CountIntent { from, to, sent: 0 });
        policy.tasks_changed();
        tracing::info!(policy = %policy.name, backend = %name, from, to, "setting the number of tasks");
        let write = Write::Policy(policy.name.clone(), Box::new(policy.record()));
        let after = self.write(vec![write], true);
        self.send_number(key, name, after);
        true
    }

    /// Sends the number that is on its way. A look that runs is overtaken: its answer is older than this call's.
    fn send_number(
        &mut self,
        key: usize,
        name: &Arc<str>,
        after: Option<tokio::sync::oneshot::Receiver<Result<(), super::super::store::StoreError>>>,
    ) {
        let Some(backend) = self.count_backend(name) else { return };
        let Some(policy) = self.policies.get_mut(key).and_then(Option::as_mut) else { return };
        let workload = workload(policy, name);
        let Some(counted) = policy.counted.get_mut(name) else { return };
        let (Some(seen), Some(intent)) = (&counted.seen, &mut counted.intent) else { return };
        let (version, to) = (seen.version, intent.to);
        intent.sent += 1;
        counted.calling = true;
        counted.sending = true;
        let (policy, name) = (policy.name.clone(), Arc::clone(name));
        self.spawn(async move {
            let sent = match durable(after).await {
                Ok(()) => within(&name, PATIENCE, backend.scale(&workload, version, to)).await,
                Err(message) => Err(BackendError::Refused {
                    backend: name.to_string(),
                    message: format!("it could not be recorded: {message}"),
                }),
            };
            let status = Some(within(&name, PATIENCE, backend.observe(&workload)).await);
            Event::Counted(Box::new(CountAnswer { policy, backend: name, done: Done::Sent(sent), status }))
        });
    }

    /// A count backend has answered.
    pub(super) fn on_counted(&mut self, answer: CountAnswer) {
        let CountAnswer { policy: name, backend, done, status } = answer;
        let Some(key) = self.names.get(&name).copied() else { return };
        let Some(counted) = self.policy(key).and_then(|policy| policy.counted.get_mut(&backend)) else { return };
        if counted.sending && matches!(done, Done::Looked) {
            // Looked at before a number was sent that is not answered yet.
            return;
        }
        counted.calling = false;
        counted.sending = false;
        match done {
            Done::Looked => {}
            Done::Sent(sent) => self.on_sent(key, &backend, sent),
            Done::Removed(removed) => {
                self.on_removed(key, &backend, removed);
                return;
            }
        }
        match status {
            Some(Ok(status)) => {
                self.on_backend_done(&backend);
                let refused = self.policy(key).and_then(|policy| policy.counted.get(&backend)?.refused.as_ref());
                if refused.is_none() {
                    self.problems.remove(&problem_key(&name));
                }
                self.take_status(key, &backend, status);
            }
            Some(Err(error)) => self.count_backend_failed(key, &backend, &error),
            None => {}
        }
    }

    fn count_backend_failed(&mut self, key: usize, backend: &Arc<str>, error: &BackendError) {
        let Some(policy) = self.policy(key) else { return };
        let name = policy.name.clone();
        if matches!(error, BackendError::Unavailable { .. }) {
            if !matches!(self.backend_states.get(&**backend), Some(BackendState::Failing(_))) {
                tracing::warn!(policy = %name, backend = %backend, error = %error, "the backend does not answer");
            }
            self.problems.insert(format!("backend {backend}"), error.to_string());
            self.backend_states.insert(backend.to_string(), BackendState::Failing(error.to_string()));
            return;
        }
        let before = self.problems.insert(problem_key(&name), error.to_string());
        if before.as_deref() != Some(error.to_string().as_str()) {
            tracing::error!(policy = %name, backend = %backend, error = %error, "the workload cannot be held");
        }
    }

    /// What became of a number that was sent.
    fn on_sent(&mut self, key: usize, backend: &Arc<str>, sent: Result<(), BackendError>) {
        let Some(counted) = self.policy(key).and_then(|policy| policy.counted.get_mut(backend)) else { return };
        match sent {
            // What is seen next says the rest.
            Ok(()) | Err(BackendError::Moved { .. }) => {}
            // It may have been taken; the next look tells.
            Err(error @ BackendError::Unavailable { .. }) => self.count_backend_failed(key, backend, &error),
            Err(error) => {
                let lapsed = counted.intent.take();
                counted.refused = Some((Instant::now() + AFTER_REFUSAL, error.to_string()));
                self.count_backend_failed(key, backend, &error);
                if let (Some(policy), Some(intent)) = (self.policy(key), lapsed) {
                    policy.refused += intent.to.saturating_sub(intent.from);
                }
            }
        }
    }

    /// Takes in what a backend says of a workload.
    fn take_status(&mut self, key: usize, backend: &Arc<str>, status: CountStatus) {
        let Some(counted) = self.policy(key).and_then(|policy| policy.counted.get_mut(backend)) else { return };
        let first = counted.seen.is_none();
        let fate = counted.observe(&status);
        let gone: BTreeSet<TaskId> =
            status.tasks.iter().filter(|task| task.state == TaskState::Gone).map(|task| task.id.clone()).collect();
        let buried = std::mem::replace(&mut counted.buried, gone);
        let carried = std::mem::take(&mut counted.carried);
        let (desired, outdated) = (status.desired, status.outdated);
        self.picture(key, backend, status.tasks, &buried, first);
        match fate {
            Fate::None => {}
            Fate::Again => self.send_number(key, backend, None),
            Fate::Taken(CountIntent { from, to, .. }) => {
                if let Some(counted) = self.policy(key).and_then(|policy| policy.counted.get_mut(backend)) {
                    counted.refused = None;
                }
                self.totals.launched += u64::from(to.saturating_sub(from));
                self.totals.killed += u64::from(from.saturating_sub(to));
            }
            Fate::Lapsed(CountIntent { to, .. }) => {
                let Some(policy) = self.policy(key) else { return };
                tracing::warn!(policy = %policy.name, backend = %backend, wanted = to, found = desired, "the workload was changed by somebody else, decided anew");
            }
        }
        let rolling = |policy: &Policy| policy.spec().is_some_and(|spec| spec.workload.replace == Replace::Rolling);
        if desired < carried {
            self.intend(key, backend, carried);
        } else if outdated && self.policies[key].as_ref().is_some_and(rolling) {
            // The same number, by way of which the backend replaces its tasks in its own fashion.
            self.intend(key, backend, desired);
        }
        self.publish(key);
        if first {
            self.tick_if_waiting(key, Instant::now());
        }
        self.forget_if_over(key);
    }

    /// Makes the ledger's picture that of the backend: first what ended, then what is new, so that a replacement finds
    /// the place of the lost one.
    fn picture(
        &mut self,
        key: usize,
        backend: &Arc<str>,
        tasks: Vec<TaskUpdate>,
        buried: &BTreeSet<TaskId>,
        first: bool,
    ) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        let listed: BTreeSet<&TaskId> = tasks.iter().map(|task| &task.id).collect();
        let mine = policy.ledger.tasks().filter(|task| *task.backend == **backend);
        let vanished: Vec<TaskId> =
            mine.filter(|task| !listed.contains(&task.id)).map(|task| task.id.clone()).collect();
        for id in vanished {
            self.on_update(update(id, TaskState::Gone, Some(Exit::Unknown)));
        }
        let (gone, alive): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.state == TaskState::Gone);
        for update in gone {
            if !self.owners.contains_key(&update.id) {
                // One that came and went between two looks counts as any other; what had ended before this run, not.
                if first || buried.contains(&update.id) {
                    continue;
                }
                self.picture_new(key, backend, &update.id);
            }
            self.on_update(update);
        }
        for update in alive {
            if !self.owners.contains_key(&update.id) {
                self.picture_new(key, backend, &update.id);
            }
            if update.state == TaskState::Killing {
                let at = self.clock.now();
                if let Some(policy) = self.policy(key)
                    && policy.ledger.kill(&update.id, at)
                {
                    policy.tasks_changed();
                    self.show_tasks(key, std::slice::from_ref(&update.id));
                }
                continue;
            }
            self.on_update(update);
        }
    }

    fn picture_new(&mut self, key: usize, backend: &Arc<str>, id: &TaskId) {
        let (at, wall) = (self.clock.now(), self.clock.wall());
        let Some(policy) = self.policies.get_mut(key).and_then(Option::as_mut) else { return };
        let workload = workload(policy, backend);
        policy.ledger.ask(Task {
            id: id.clone(),
            policy: policy.name.clone(),
            backend: Arc::clone(backend),
            template: workload.template,
            state: TaskState::Asked,
            by: By::Law,
            asked: at,
            started: wall,
            since: at,
            ready: None,
            grace: workload.grace,
            killed: false,
            withdrawn: false,
            attempt: 0,
            placement: Placement::default(),
            slot: policy.ledger.free_slots().next(),
        });
        policy.tasks_changed();
        self.owners.insert(id.clone(), key);
    }

    /// Carries a plan out as a number.
    pub(super) fn carry_out_count(&mut self, key: usize, decision: Decision, mut plan: Plan) {
        let at = self.clock.now();
        let failure = self.store.as_ref().and_then(super::Store::failure).map(|error| error.to_string());
        let Some(policy) = self.policy(key) else { return };
        let Some(name) = policy.spec().map(|spec| Arc::<str>::from(spec.workload.backend.as_str())) else { return };
        let Some(counted) = policy.counted.get(&name) else { return };
        let own = plan.launched();
        plan.launches.retain(|launch| launch.by != By::Helper && launch.template.is_none());
        let (mut up, mut down) = (plan.launched(), plan.killed());
        let mut refuse = |from: i64, to: i64, text: String| {
            plan.reasons.push(Reason { guard: Guard::Intent, from, to, detail: Detail::Text(text.into()) });
        };
        if up < own {
            refuse(own.into(), up.into(), "the backend runs the workload's own tasks only".to_owned());
        }
        let hindrance = counted.hindrance(Instant::now()).or(failure.filter(|_| 0 < up));
        if let Some(text) = hindrance.filter(|_| 0 < up || 0 < down) {
            refuse(i64::from(up) - i64::from(down), 0, text);
            (up, down) = (0, 0);
        }
        let desired = counted.desired().unwrap_or(0);
        if 0 < up || 0 < down {
            policy.settle(at, up, down, decision.to_min);
            if !self.intend(key, &name, desired.saturating_add(up).saturating_sub(down)) {
                (up, down) = (0, 0);
            }
        }
        let Some(policy) = self.policy(key) else { return };
        let acted = i64::from(up) - i64::from(down);
        let refused = u32::try_from(decision.adjustment.saturating_sub(acted).max(0)).unwrap_or(u32::MAX);
        policy.refused = policy.refused.saturating_add(refused);
        policy.acted = acted;
        self.spend((up + down).saturating_sub(decision.to_min));
        self.conclude(key, with_plan(decision, &plan, acted));
    }

    /// Ends a policy's workload on a count backend, with all of its tasks.
    pub(super) fn remove_counted(&mut self, key: usize, name: &Arc<str>) {
        if self.settings.dry_run {
            return;
        }
        let Some(counted) = self.policy(key).and_then(|policy| policy.counted.get_mut(name)) else { return };
        counted.removing = true;
        counted.intent = None;
        self.call_count_backend(key, name);
    }

    /// The same on every count backend that it is on, but for `keep`.
    pub(super) fn remove_all_counted(&mut self, key: usize, keep: Option<&str>) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        let names: Vec<Arc<str>> = policy.counted.keys().filter(|name| keep != Some(&***name)).cloned().collect();
        for name in names {
            self.remove_counted(key, &name);
        }
    }

    fn on_removed(&mut self, key: usize, name: &Arc<str>, removed: Result<(), BackendError>) {
        if let Err(error) = removed {
            // Asked again when it is looked at next.
            self.count_backend_failed(key, name, &error);
            return;
        }
        let Some(policy) = self.policy(key) else { return };
        tracing::info!(policy = %policy.name, backend = %name, "the workload is removed");
        policy.counted.remove(name);
        let left: Vec<TaskId> =
            policy.ledger.tasks().filter(|task| *task.backend == **name).map(|task| task.id.clone()).collect();
        for id in left {
            self.on_update(update(id, TaskState::Gone, Some(Exit::Unknown)));
        }
        // A policy that came back meanwhile begins anew.
        if self.policies[key].as_ref().and_then(Policy::spec).is_some_and(|spec| *spec.workload.backend == **name)
            && self.policies[key].as_ref().is_some_and(|policy| policy.ended.is_none())
            && self.stopping.is_none()
        {
            self.enter_count_backends(key);
        }
        self.forget_if_over(key);
        self.publish(key);
    }

    /// A policy that waited for its backend's first word ticks now, not an interval later.
    fn tick_if_waiting(&mut self, key: usize, now: Instant) {
        let waiting =
            self.policies[key].as_ref().is_some_and(|policy| policy.last_tick.is_none() && policy.active.is_some());
        if waiting {
            self.schedule(key, now);
        }
    }
}

impl Policy {
    /// What is known of its workload, where it runs on a count backend.
    pub(crate) fn own_count(&self) -> Option<&Counted> {
        self.spec().and_then(|spec| self.counted.get(spec.workload.backend.as_str()))
    }

    /// Whether a count backend is still to end its workload.
    pub(crate) fn is_being_removed(&self) -> bool {
        self.counted.values().any(|counted| counted.removing)
    }
}

/// What the backend is to hold: what the policy says, or for one without a file, what its tasks say.
fn workload(policy: &Policy, backend: &Arc<str>) -> CountWorkload {
    let spec = policy.spec().filter(|spec| *spec.workload.backend == **backend);
    let task = policy.ledger.tasks().find(|task| task.backend == *backend);
    let template = match (spec, task) {
        (Some(spec), _) => Arc::new(spec.workload.template.clone()),
        (None, Some(task)) => Arc::clone(&task.template),
        (None, None) => Arc::default(),
    };
    CountWorkload {
        policy: policy.name.clone(),
        template,
        ready: spec.map_or(Ready::Running, |spec| spec.workload.ready.clone()),
        grace: spec.map(|spec| spec.workload.grace).or(task.map(|task| task.grace)).unwrap_or_default(),
        rolling: spec.is_some_and(|spec| spec.workload.replace == Replace::Rolling),
    }
}

fn update(id: TaskId, state: TaskState, exit: Option<Exit>) -> TaskUpdate {
    TaskUpdate { id, state, healthy: None, placement: None, exit, receipt: None }
}

fn problem_key(policy: &PolicyName) -> String {
    format!("workload {policy}")
}

async fn within<T>(
    backend: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(BackendError::Unavailable { backend: backend.to_owned(), message: format!("no answer in {limit:?}") })
    })
}

/// All workloads by backend, for a look at what is unknown.
pub(super) fn unseen(policy: &Policy) -> BTreeMap<&str, &Counted> {
    policy.counted.iter().filter(|(_, counted)| counted.seen.is_none()).map(|(name, c)| (&**name, c)).collect()
}
