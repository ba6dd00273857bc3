//! Carrying out: from a plan to recorded tasks to requests to backends.
//!
//! The order is always the same: into the ledger, into the store, and only then (the backend's worker waits for the
//! store) to the backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::backend::{Backend, LaunchRequest, Standing};
use crate::core::decision::Decision;
use crate::core::intent::By;
use crate::core::ledger::Task;
use crate::core::model::{Kind, Placement, TaskId, TaskState};
use crate::core::plan::Plan;
use crate::core::policy::{Replace, TaskTemplate};
use crate::core::time::Timestamp;
use crate::script::{Hook, Mode, ScriptError};

use super::super::backend_worker::Work;
use super::super::event::Event;
use super::super::policy::{Drain, Phase, Policy};
use super::super::record::Write;
use super::super::ticker::Timer;
use super::Loop;
use super::tick::{deadline, with_plan};

/// How long before a tick launches lapse that are not placed by then: enough for the backend to let go of them.
const LAPSE_AHEAD: Duration = Duration::from_millis(50);

impl Loop {
    /// Records and carries out a plan; `order` is what `victims` said.
    pub(super) fn carry_out(&mut self, key: usize, decision: Decision, mut plan: Plan, order: Vec<TaskId>) {
        let Some(policy) = self.policy(key) else { return };
        // What was said of the intents in `ctx.state` is stored with them: neither outlives the other in a crash.
        policy.keep_script_state();
        if policy.own_count().is_some() {
            self.carry_out_count(key, decision, plan);
            return;
        }
        let at = self.clock.now();
        if let Some(error) = self.store.as_ref().and_then(super::Store::failure)
            && !plan.launches.is_empty()
        {
            tracing::warn!(error = %error, "nothing is launched while the state cannot be written");
            plan.refused += plan.launched();
            plan.launches.clear();
        }
        if let Some(problem) = self.lost_backend(key)
            && !plan.launches.is_empty()
        {
            // The backend has told of the outage; this would be said at every tick of it.
            tracing::debug!(problem = %problem, "nothing is launched while the backend is away");
            plan.refused += plan.launched();
            plan.launches.clear();
        }
        let Some(policy) = self.policy(key) else { return };
        // Replacements that wait go first: nothing has to be killed for them.
        let cancelled = policy.ledger.cancel_waiting(plan.kills);
        let victims = policy.victims(&plan.named, plan.kills - cancelled, order);
        // The timers move before the intents are recorded, so that both are in the same write: a crash in between must
        // not forget a cooldown that the launch has started.
        let killed = cancelled + victims.len() as u32;
        policy.settle(at, plan.launched(), killed, decision.to_min);
        let mut launched = 0;
        for launch in &plan.launches {
            let n = self.launch(key, launch.n, launch.template.clone(), launch.by);
            launched += if launch.by == By::Helper { 0 } else { n };
        }
        self.kill(key, &victims);
        let Some(policy) = self.policy(key) else { return };
        let acted = i64::from(launched) - i64::from(killed);
        policy.refused += plan.refused + plan.launched().saturating_sub(launched);
        policy.acted = acted;
        policy.tasks_changed();
        self.spend((launched + killed).saturating_sub(decision.to_min));
        self.conclude(key, with_plan(decision, &plan, acted));
    }

    /// Why the policy's backend can start nothing now; none when it can, or nobody knows better.
    fn lost_backend(&self, key: usize) -> Option<String> {
        let spec = self.policies.get(key).and_then(Option::as_ref)?.spec()?;
        let Backend::Tasks(backend) = self.backends.get(&spec.workload.backend)? else { return None };
        match backend.standing() {
            Standing::Lost(problem) | Standing::Over { message: problem, .. } => Some(problem),
            Standing::Ready | Standing::Degraded(_) => None,
        }
    }

    /// Starts `n` tasks; how many were recorded and handed over.
    pub(super) fn launch(&mut self, key: usize, n: u32, template: Option<Arc<TaskTemplate>>, by: By) -> u32 {
        if n == 0 || self.settings.dry_run || self.stopping.is_some() || self.lost_backend(key).is_some() {
            return 0;
        }
        if let Some(error) = self.store.as_ref().and_then(super::Store::failure) {
            tracing::warn!(error = %error, "nothing is launched while the state cannot be written");
            return 0;
        }
        let (at, wall) = (self.clock.now(), self.clock.wall());
        let Some(policy) = self.policies.get_mut(key).and_then(Option::as_mut) else { return 0 };
        let Some(active) = &policy.active else { return 0 };
        let spec = Arc::clone(&active.policy.spec);
        let template = template.unwrap_or_else(|| Arc::new(spec.workload.template.clone()));
        let backend: Arc<str> = spec.workload.backend.as_str().into();
        let attempt = policy.ledger.state().streak;
        let (mut writes, mut requests) = (Vec::new(), Vec::new());
        let mut slots = policy.ledger.free_slots();
        for _ in 0..n {
            let id = task_id(policy.name.as_str(), &mut self.ids, wall);
            let task = Task {
                id: id.clone(),
                policy: policy.name.clone(),
                backend: Arc::clone(&backend),
                template: Arc::clone(&template),
                state: TaskState::Asked,
                by,
                asked: at,
                started: wall,
                since: at,
                ready: None,
                grace: spec.workload.grace,
                killed: false,
                withdrawn: false,
                attempt,
                placement: Placement::default(),
                slot: if by == By::Helper { None } else { slots.next() },
            };
            writes.push(Write::Task(Box::new(task.clone())));
            requests.push(LaunchRequest {
                id: id.clone(),
                policy: policy.name.clone(),
                template: Arc::clone(&template),
                ready: spec.workload.ready.clone(),
                grace: spec.workload.grace,
                base: active.base.clone(),
            });
            policy.ledger.ask(task);
            self.owners.insert(id, key);
        }
        policy.tasks_changed();
        let name = policy.name.clone();
        let ids: Vec<TaskId> = requests.iter().map(|request| request.id.clone()).collect();
        writes.push(Write::Policy(name.clone(), Box::new(policy.record())));
        let after = self.write(writes, true);
        if self.send(&backend, &name, Work::Launch(requests), after) {
            self.totals.launched += u64::from(n);
            self.show_tasks(key, &ids);
            self.set_lapse(key);
            return n;
        }
        tracing::error!(policy = %name, backend = %backend, "the backend's queue is full, the launch is dropped");
        for id in ids {
            self.forget_task(key, &id);
        }
        0
    }

    /// Tells tasks to end, through `drain` where there is one; how many were not on their way out already.
    pub(super) fn kill(&mut self, key: usize, ids: &[TaskId]) -> u32 {
        self.end_tasks(key, ids, true)
    }

    /// The same. What is not known to be placed needs no record before it is ended: it is not there after a crash.
    fn end_tasks(&mut self, key: usize, ids: &[TaskId], recorded_first: bool) -> u32 {
        if ids.is_empty() || self.settings.dry_run {
            return 0;
        }
        let at = self.clock.now();
        let now = Instant::now();
        let Some(policy) = self.policies.get_mut(key).and_then(Option::as_mut) else { return 0 };
        let drains = policy.spec().is_some_and(|spec| spec.hooks.drain)
            && policy.script().is_some()
            && policy.own_count().is_none();
        let mut killed = Vec::new();
        let mut writes = Vec::new();
        for id in ids {
            let ran = policy.ledger.get(id).is_some_and(|task| task.state == TaskState::Running);
            if !policy.ledger.kill(id, at) {
                continue;
            }
            if let Some(task) = policy.ledger.get(id) {
                writes.push(Write::Task(Box::new(task.clone())));
                if drains && ran {
                    policy.drains.insert(id.clone(), Drain { until: now + task.grace, calling: false });
                }
            }
            killed.push(id.clone());
        }
        policy.tasks_changed();
        let drain_deadline = policy.drains.values().map(|drain| drain.until).min();
        writes.push(Write::Policy(policy.name.clone(), Box::new(policy.record())));
        let direct: Vec<TaskId> = killed.iter().filter(|id| !policy.drains.contains_key(*id)).cloned().collect();
        let after = self.write(writes, recorded_first);
        self.send_kills(key, &direct, after);
        if let Some(until) = drain_deadline {
            self.wake_at(key, until);
        }
        self.ask_drains(key);
        self.totals.killed += killed.len() as u64;
        self.show_tasks(key, &killed);
        u32::try_from(killed.len()).unwrap_or(u32::MAX)
    }

    /// Hands kills to the backends of the tasks.
    pub(super) fn send_kills(
        &mut self,
        key: usize,
        ids: &[TaskId],
        mut after: Option<tokio::sync::oneshot::Receiver<Result<(), super::super::store::StoreError>>>,
    ) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        let name = policy.name.clone();
        let mut put_off = Vec::new();
        let mut groups: BTreeMap<(Arc<str>, Duration), Vec<TaskId>> = BTreeMap::new();
        for id in ids {
            if let Some(task) = policy.ledger.get(id) {
                groups.entry((Arc::clone(&task.backend), task.grace)).or_default().push(id.clone());
            }
        }
        for ((backend, grace), ids) in groups {
            if matches!(self.backends.get(&*backend), Some(crate::backend::Backend::Count(_))) {
                // Whoever ends tasks there without a decision ends the workload.
                self.remove_counted(key, &backend);
                continue;
            }
            let state = self.backend_states.get(&*backend);
            if matches!(state, Some(super::BackendState::Idle | super::BackendState::Recovering { .. })) {
                // It must not be asked anything before it knows its tasks; they are told to end right after.
                continue;
            }
            if !self.send(&backend, &name, Work::Kill(ids.clone(), grace), after.take()) {
                tracing::error!(policy = %name, backend = %backend, "the backend's queue is full, kills are put off");
                put_off.extend(ids);
            }
        }
        self.unsent.extend(put_off);
    }

    /// Asks again for kills that a backend has not taken.
    pub(super) fn resend_kills(&mut self) {
        let mut by_owner: BTreeMap<usize, Vec<TaskId>> = BTreeMap::new();
        for id in std::mem::take(&mut self.unsent) {
            if let Some(key) = self.owners.get(&id) {
                by_owner.entry(*key).or_default().push(id);
            }
        }
        for (key, ids) in by_owner {
            self.send_kills(key, &ids, None);
        }
    }

    /// Calls `drain` for tasks that wait for it, and kills those whose grace is over.
    pub(super) fn ask_drains(&mut self, key: usize) {
        let (now, wall) = (Instant::now(), self.clock.wall());
        let mode = if self.settings.dry_run { Mode::Record } else { Mode::Live };
        let Some(policy) = self.policy(key) else { return };
        if policy.drains.is_empty() {
            return;
        }
        let over: Vec<TaskId> =
            policy.drains.iter().filter(|(_, drain)| drain.until <= now).map(|(id, _)| id.clone()).collect();
        policy.drains.retain(|_, drain| now < drain.until);
        let ask: Vec<TaskId> =
            policy.drains.iter().filter(|(_, drain)| !drain.calling).map(|(id, _)| id.clone()).collect();
        let ctx = policy.ctx(wall);
        let deadline = deadline(policy.interval);
        let script = policy.script();
        for drain in policy.drains.values_mut() {
            drain.calling = true;
        }
        for task in ask {
            let (Some(script), ctx) = (script.clone(), Arc::clone(&ctx)) else { continue };
            self.call_script(deadline, move |left| async move {
                let done = script.drain(task.clone(), ctx, mode, left).await;
                Event::Drained { key, task, done }
            });
        }
        self.send_kills(key, &over, None);
    }

    /// `drain` came back.
    pub(super) fn on_drained(&mut self, key: usize, task: &TaskId, done: Result<bool, ScriptError>) {
        let Some(policy) = self.policy(key) else { return };
        let Some(drain) = policy.drains.get_mut(task) else { return };
        match done {
            Ok(false) => {
                drain.calling = false;
                // Where no tick asks again, a timer does.
                if policy.ended.is_some() || self.stopping.is_some() {
                    let at =
                        Instant::now() + self.policies[key].as_ref().map_or(Duration::ZERO, |policy| policy.interval);
                    self.wake_at(key, at);
                }
            }
            Ok(true) => {
                policy.drains.remove(task);
                policy.settle_errors(&[Hook::Drain], &[]);
                self.send_kills(key, std::slice::from_ref(task), None);
            }
            Err(error) => {
                policy.drains.remove(task);
                policy.settle_errors(&[Hook::Drain], std::slice::from_ref(&error));
                self.script_error(key, error, Some(format!("killed `{task}` without draining it")));
                self.send_kills(key, std::slice::from_ref(task), None);
            }
        }
    }

    /// Launches the replacements that are due, as far as there is room.
    pub(super) fn launch_due(&mut self, key: usize) {
        let at = self.clock.now();
        if self.stopping.is_some() || self.settings.dry_run {
            return;
        }
        let Some(policy) = self.policy(key) else { return };
        if policy.active.is_none() || policy.ended.is_some() {
            return;
        }
        if !self.backend_ready(key) {
            // It is asked for nothing before it has answered `recover`; then the policy ticks.
            return;
        }
        let Some(policy) = self.policy(key) else { return };
        let max = policy.bounds_in_force().max;
        let room = max.saturating_sub(policy.ledger.counts().occupied());
        let due = policy.ledger.take_due(at, room);
        let launched = self.launch(key, due, None, By::Replacement);
        if let Some(policy) = self.policy(key) {
            // What could not be handed over stays wanted.
            for _ in launched..due {
                policy.ledger.wait(at + Duration::from_secs(1));
            }
        }
        self.set_wake(key);
    }

    /// Sets a timer for the policy's next replacement.
    pub(super) fn set_wake(&mut self, key: usize) {
        let at = self.clock.now();
        let Some(policy) = self.policy(key) else { return };
        let Some(due) = policy.ledger.next_due() else { return };
        let due = policy.ledger.state().backoff_until.map_or(due, |until| until.max(due));
        // What is due and has no room yet is looked at again at each tick and update.
        if at < due {
            self.wake_at(key, Instant::now() + due.since(at));
        }
    }

    /// Sets a timer for a look at a policy's replacements and drains, unless there is one that is as early.
    pub(super) fn wake_at(&mut self, key: usize, at: Instant) {
        let Some(policy) = self.policy(key) else { return };
        if policy.wake.is_none_or(|wake| at < wake) {
            policy.wake = Some(at);
            self.timers.set(at, Timer::Wake(key));
        }
    }

    /// A replacement is due, or a drain is over.
    pub(super) fn on_wake(&mut self, key: usize, due: Instant) {
        let Some(policy) = self.policy(key) else { return };
        if policy.wake != Some(due) {
            return;
        }
        policy.wake = None;
        let ready =
            self.policies.get(key).and_then(Option::as_ref).and_then(|policy| policy.spec()).is_some_and(|spec| {
                matches!(
                    self.backend_states.get(&spec.workload.backend),
                    Some(super::BackendState::Ready | super::BackendState::Failing(_))
                )
            });
        if ready {
            self.launch_due(key);
        }
        self.ask_drains(key);
        // A later drain, or one that no tick asks about.
        if let Some(until) = self.policy(key).and_then(|policy| policy.drains.values().map(|drain| drain.until).min()) {
            self.wake_at(key, until);
        }
        self.publish(key);
    }

    /// Sets a timer for what the backend will not have placed shortly before the next tick: until it has let go of that,
    /// it takes room below `max`, and a tick that finds none would leave the backend nothing to place until the next one.
    pub(super) fn set_lapse(&mut self, key: usize) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        if !self.queues_launches(policy) {
            return;
        }
        let (epoch, ahead) = (policy.epoch, (policy.interval / 5).min(LAPSE_AHEAD));
        if let Some(at) = policy.due.checked_sub(ahead)
            && Instant::now() < at
        {
            self.timers.set(at, Timer::Lapse(key, epoch));
        }
    }

    /// The next tick is near.
    pub(super) fn on_lapse(&mut self, key: usize, epoch: u64) {
        let at = self.clock.now();
        if self.policy(key).is_some_and(|policy| policy.epoch == epoch) && self.stopping.is_none() {
            self.withdraw_lapsed(key, at);
        }
    }

    /// Whether the policy's backend may take a launch and not place it.
    fn queues_launches(&self, policy: &Policy) -> bool {
        let backend = policy.spec().and_then(|spec| self.backends.get(&spec.workload.backend));
        backend.is_some_and(|backend| backend.capabilities().queues)
    }

    /// Withdraws launches that a backend has not placed by the next tick (rule 3 of the semantics). It says which are gone;
    /// those that it has placed at this very moment stay.
    pub(super) fn withdraw_lapsed(&mut self, key: usize, at: Timestamp) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        if !self.queues_launches(policy) {
            return;
        }
        let lapsed = policy.ledger.lapsed(at);
        // Replacements stay wanted, as the file has them now: those that are as it was make way for others, wherever they are.
        let outdated = policy.spec().filter(|_| policy.rules.kind == Kind::Service).into_iter().flat_map(|spec| {
            let asked = policy.ledger.tasks().filter(|task| task.state == TaskState::Asked);
            asked
                .filter(|task| task.by == By::Replacement && *task.template != spec.workload.template)
                .map(|task| task.id.clone())
        });
        let outdated: Vec<TaskId> = outdated.collect();
        self.let_go(key, &lapsed);
        if let Some(policy) = self.policy(key) {
            // They are wanted from this moment on: a decision before the backend's word is not to make up for them.
            for _ in &outdated {
                policy.ledger.wait(at);
            }
        }
        self.end_tasks(key, &outdated, false);
    }

    /// Has backends let go of launches, unless they have a place by now. Nothing is recorded: until a backend has said what
    /// became of them, they are as they were.
    fn let_go(&mut self, key: usize, ids: &[TaskId]) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        let mut groups: BTreeMap<Arc<str>, Vec<TaskId>> = BTreeMap::new();
        for task in ids.iter().filter_map(|id| policy.ledger.get(id)) {
            groups.entry(Arc::clone(&task.backend)).or_default().push(task.id.clone());
        }
        let name = policy.name.clone();
        for (backend, ids) in groups {
            // One that still has to find its tasks again is asked at a later tick, and so is one that is too busy.
            let state = self.backend_states.get(&*backend);
            let early = matches!(state, Some(super::BackendState::Idle | super::BackendState::Recovering { .. }));
            if early || self.settings.dry_run || !self.send(&backend, &name, Work::Withdraw(ids.clone()), None) {
                continue;
            }
            let Some(policy) = self.policy(key) else { return };
            for id in &ids {
                policy.ledger.withdraw(id);
            }
        }
    }

    /// What a backend has been asked for and has not placed, where it may keep that for later: nothing is launched for a
    /// policy that is over.
    pub(super) fn unplaced(&self, key: usize) -> Vec<TaskId> {
        let policy = self.policies.get(key).and_then(Option::as_ref).filter(|policy| self.queues_launches(policy));
        let asked = policy.into_iter().flat_map(|policy| policy.ledger.tasks());
        asked.filter(|task| task.state == TaskState::Asked).map(|task| task.id.clone()).collect()
    }

    /// Withdraws what [`unplaced`](Self::unplaced) gave.
    pub(super) fn withdraw(&mut self, key: usize, ids: &[TaskId]) {
        self.end_tasks(key, ids, false);
    }

    /// `replace = "rolling"`: while everything is settled, one task with an old template makes way for a new one.
    pub(super) fn roll(&mut self, key: usize) {
        let at = self.clock.now();
        if self.settings.dry_run {
            return;
        }
        let Some(policy) = self.policy(key) else { return };
        let Some(spec) = policy.spec().cloned() else { return };
        if policy.own_count().is_some()
            || spec.workload.replace != Replace::Rolling
            || spec.workload.kind != Kind::Service
            || policy.ended.is_some()
        {
            return;
        }
        let counts = policy.counts();
        if counts.in_flight() != 0 || counts.killing != 0 {
            return;
        }
        let old = policy.ledger.tasks().find(|task| {
            task.by != By::Helper && task.state == TaskState::Running && *task.template != spec.workload.template
        });
        if let Some(id) = old.map(|task| task.id.clone()) {
            tracing::info!(policy = %policy.name, task = %id, "replacing a task that runs an older template");
            policy.ledger.wait(at);
            self.kill(key, &[id]);
            self.launch_due(key);
        }
    }

    /// Counts changes towards the global budget.
    pub(super) fn spend(&mut self, n: u32) {
        if self.settings.budget.is_some() && 0 < n {
            self.spent.push_back((self.clock.now(), n));
        }
    }

    /// Changes that the global budget has left.
    pub(super) fn budget_left(&mut self) -> Option<u32> {
        let budget = self.settings.budget?;
        let now = self.clock.now();
        while self.spent.front().is_some_and(|(at, _)| budget.per <= now.since(*at)) {
            self.spent.pop_front();
        }
        let (policies, reserved) = (&self.policies, &mut self.reserved);
        // What calls that still run were promised; a policy that left its call has given it back.
        reserved.retain(|key, _| {
            policies
                .get(*key)
                .and_then(Option::as_ref)
                .is_some_and(|policy| matches!(policy.phase, Phase::Acting(_) | Phase::Choosing(..)))
        });
        let spent: u32 = self.spent.iter().map(|(_, n)| *n).chain(reserved.values().copied()).sum();
        Some(budget.changes.saturating_sub(spent))
    }

    /// Takes a policy's tasks off a backend that it has left; a service's are replaced on the new one at once.
    pub(super) fn leave_backend(&mut self, key: usize) {
        let at = self.clock.now();
        if self.settings.dry_run {
            return;
        }
        let Some(policy) = self.policy(key) else { return };
        let Some(spec) = policy.spec().cloned() else { return };
        let left: Vec<TaskId> = policy
            .ledger
            .tasks()
            .filter(|task| *task.backend != *spec.workload.backend)
            .filter(|task| task.state < TaskState::Killing)
            .map(|task| task.id.clone())
            .collect();
        // About launches that are being withdrawn the next tick decides anew.
        let replaced = left.iter().filter_map(|id| policy.ledger.get(id)).filter(|task| !task.withdrawn).count();
        let own = spec.workload.backend.as_str();
        if left.is_empty() {
            self.remove_all_counted(key, Some(own));
            return;
        }
        tracing::info!(policy = %policy.name, tasks = left.len(), "draining the tasks on the old backend");
        if let Some(counted) = policy.counted.get_mut(own) {
            counted.carried += u32::try_from(replaced).unwrap_or(u32::MAX);
        } else if spec.workload.kind == Kind::Service {
            for _ in 0..replaced {
                policy.ledger.wait(at);
            }
        }
        self.kill(key, &left);
        if matches!(self.policies[key].as_ref().map(|policy| &policy.phase), Some(Phase::Idle)) {
            self.launch_due(key);
        }
    }
}

/// `<policy>.<ULID>`, with a fleet's slash as `~`.
fn task_id(policy: &str, ids: &mut ulid::Generator, wall: SystemTime) -> TaskId {
    let ulid = ids.generate_from_datetime(wall).unwrap_or_else(|_| ulid::Ulid::generate());
    TaskId::new(format!("{}.{ulid}", policy.replace('/', "~")))
}
