//! What backends say: recovery, task updates, failures, figures. And the loop's chores.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Backend, BackendError, KnownTask, Receipt, Standing, TaskUpdate};
use crate::core::intent::By;
use crate::core::model::{Exit, TaskId, TaskState, TaskStats};
use crate::log::DecisionLog;

use super::super::backend_worker::Asked;
use super::super::config::RunEnd;
use super::super::event::Event;
use super::super::memory;
use super::super::policy::Policy;
use super::super::record::{Ended, Write};
use super::super::ticker::Timer;
use super::super::view::{Health, StreamEvent};
use super::{BackendState, Loop, write_lock};

/// A history that changed is written once in so many seconds.
const SAVE_HISTORY_EVERY: usize = 10;

/// How often CPU and memory of tasks are read.
const STATS_EVERY: Duration = Duration::from_secs(2);

impl Loop {
    /// Asks every backend that there is a use for after the tasks of an earlier run.
    pub(super) fn recover_backends(&mut self) {
        let policies = || self.policies.iter().flatten();
        let of_specs = policies().filter_map(|policy| Some(policy.spec()?.workload.backend.clone()));
        let of_tasks = policies().flat_map(|policy| policy.ledger.tasks()).map(|task| task.backend.to_string());
        let used: BTreeSet<String> = of_specs.chain(of_tasks).collect();
        for name in used {
            self.use_backend(&name);
        }
    }

    /// Asks a backend for the tasks of an earlier run, unless it has been asked.
    pub(super) fn use_backend(&mut self, name: &str) {
        if let Some(state @ BackendState::Idle) = self.backend_states.get_mut(name) {
            *state = BackendState::Recovering { attempts: 0 };
            self.recover(name);
        }
    }

    pub(super) fn recover(&mut self, name: &str) {
        let known: Vec<KnownTask> = self
            .policies
            .iter()
            .flatten()
            .flat_map(|policy| policy.ledger.tasks())
            .filter(|task| *task.backend == *name)
            .map(|task| KnownTask {
                id: task.id.clone(),
                policy: task.policy.clone(),
                state: task.state,
                placement: task.placement.clone(),
                grace: task.grace,
            })
            .collect();
        let Some(Backend::Tasks(backend)) = self.backends.get(name).cloned() else { return };
        let updates = self.updates.clone();
        let name = name.to_owned();
        self.spawn(async move {
            let result = backend.recover(known, updates).await;
            Event::Recovered { backend: name, result }
        });
    }

    pub(super) fn on_recovered(&mut self, name: &str, result: Result<(), BackendError>) {
        match result {
            Ok(()) => {
                tracing::debug!(backend = %name, "backend recovered");
                self.backend_states.insert(name.to_owned(), BackendState::Ready);
                self.problems.remove(&format!("backend {name}"));
                self.repeat_kills(name);
                self.tick_policies_of(name);
            }
            Err(error) => {
                let attempts = match self.backend_states.get(name) {
                    Some(BackendState::Recovering { attempts }) => attempts + 1,
                    _ => 1,
                };
                let delay =
                    Duration::from_millis(500).saturating_mul(1 << attempts.min(6)).min(Duration::from_secs(30));
                tracing::warn!(backend = %name, error = %error, "backend does not answer, tried again in {delay:?}");
                self.problems.insert(format!("backend {name}"), error.to_string());
                self.backend_states.insert(name.to_owned(), BackendState::Recovering { attempts });
                self.timers.set(Instant::now() + delay, Timer::Recover(name.to_owned()));
            }
        }
    }

    /// Tasks that were told to end before, and still are there, are told again.
    fn repeat_kills(&mut self, name: &str) {
        let killing: Vec<(usize, Vec<TaskId>)> = self
            .policies
            .iter()
            .enumerate()
            .filter_map(|(key, policy)| Some((key, policy.as_ref()?)))
            .map(|(key, policy)| {
                let ids = policy
                    .ledger
                    .tasks()
                    .filter(|task| task.state == TaskState::Killing && *task.backend == *name)
                    .filter(|task| !policy.drains.contains_key(&task.id))
                    .map(|task| task.id.clone())
                    .collect::<Vec<_>>();
                (key, ids)
            })
            .filter(|(_, ids)| !ids.is_empty())
            .collect();
        for (key, ids) in killing {
            self.send_kills(key, &ids, None);
        }
    }

    /// Policies that waited for this backend tick now, not an interval later.
    fn tick_policies_of(&mut self, name: &str) {
        let now = Instant::now();
        for key in 0..self.policies.len() {
            let waiting = self.policies[key].as_ref().is_some_and(|policy| {
                policy.last_tick.is_none() && policy.spec().is_some_and(|spec| spec.workload.backend == name)
            });
            if waiting {
                self.schedule(key, now);
            }
        }
    }

    pub(super) fn on_backend_failed(&mut self, name: &str, asked: Asked, error: &BackendError) {
        let Asked { launches, kills, withdrawals } = asked;
        tracing::warn!(backend = %name, error = %error, launches = launches.len(), kills = kills.len(), "backend request failed");
        if matches!(error, BackendError::Unavailable { .. }) {
            self.problems.insert(format!("backend {name}"), error.to_string());
            self.backend_states.insert(name.to_owned(), BackendState::Failing(error.to_string()));
        }
        // A task that is not told to end would stay for ever.
        self.unsent.extend(kills);
        let at = self.clock.now();
        // They lapse anew at the next tick.
        for id in withdrawals {
            let Some(key) = self.owners.get(&id).copied() else { continue };
            if let Some(policy) = self.policy(key) {
                policy.ledger.keep_asking(&id);
            }
            self.on_word(key);
        }
        let reason = error.to_string();
        for id in launches {
            // Ended by its name in case that it was started after all; what was not started is not wanted any more.
            if let Some(key) = self.owners.get(&id).copied()
                && matches!(error, BackendError::Unavailable { .. })
            {
                if let Some(policy) = self.policy(key)
                    && policy.ledger.get(&id).is_some_and(|task| task.by == By::Replacement && !task.killed)
                {
                    policy.ledger.wait(at + Duration::from_secs(1));
                }
                self.kill(key, std::slice::from_ref(&id));
                continue;
            }
            let exit = Some(Exit::NotStarted { reason: reason.as_str().into() });
            self.on_update(TaskUpdate {
                id,
                state: TaskState::Gone,
                healthy: None,
                placement: None,
                exit,
                receipt: None,
            });
        }
    }

    /// A write failed, so that nothing of it was asked of a backend: launches are taken back (replacements stay
    /// wanted), kills are asked again.
    pub(super) fn on_not_recorded(&mut self, launches: Vec<TaskId>, kills: Vec<TaskId>, error: &str) {
        tracing::error!(error = %error, launches = launches.len(), kills = kills.len(), "intents could not be recorded");
        self.unsent.extend(kills);
        let at = self.clock.now();
        for id in launches {
            let Some(key) = self.owners.get(&id).copied() else { continue };
            let Some(policy) = self.policy(key) else { continue };
            if policy.ledger.get(&id).is_some_and(|task| task.by == By::Replacement && !task.killed) {
                policy.ledger.wait(at + Duration::from_secs(1));
            }
            self.forget_task(key, &id);
            self.set_wake(key);
            self.forget_if_over(key);
            self.publish(key);
        }
    }

    pub(super) fn on_backend_done(&mut self, name: &str) {
        if let Some(state @ BackendState::Failing(_)) = self.backend_states.get_mut(name) {
            *state = BackendState::Ready;
            self.problems.remove(&format!("backend {name}"));
            tracing::info!(backend = %name, "backend answers again");
        }
    }

    /// A backend said something of a task.
    pub(super) fn on_update(&mut self, mut update: TaskUpdate) {
        let receipt = update.receipt.take();
        if let Some(unused) = self.take_update(update, receipt) {
            // One that changes nothing may be one that came twice: what it says is durable when all is that was written.
            self.record_update(Vec::new(), Some(unused));
        }
    }

    /// Writes what an update changed. Who waits for its receipt gets it when that is durable.
    fn record_update(&mut self, writes: Vec<Write>, receipt: Option<Receipt>) {
        let Some(receipt) = receipt else {
            self.write(writes, false);
            return;
        };
        let durable = if receipt.is_pressing() { self.write(writes, true) } else { self.write_soon(writes) };
        let Some(durable) = durable else { return receipt.durable() };
        tokio::spawn(async move {
            // One that could not be written is not acknowledged, and comes again.
            if let Ok(Ok(())) = durable.await {
                receipt.durable();
            }
        });
    }

    /// Takes an update into the ledger and the store; gives the receipt back when there was nothing to write.
    fn take_update(&mut self, update: TaskUpdate, receipt: Option<Receipt>) -> Option<Receipt> {
        let at = self.clock.now();
        let Some(key) = self.owners.get(&update.id).copied() else {
            tracing::debug!(task = %update.id, "update for a task that nobody owns");
            return receipt;
        };
        let Some(policy) = self.policy(key) else { return receipt };
        let rules = policy.rules.clone();
        let change =
            policy.ledger.apply(&update.id, update.state, update.healthy, update.placement, update.exit, at, &rules);
        let Some(change) = change else { return receipt };
        policy.tasks_changed();
        let name = policy.name.clone();
        let view = policy.view(&change.task);
        let held_back = policy.ledger.backed_off(at);
        let writes = if change.task.state == TaskState::Gone {
            policy.drains.remove(&update.id);
            policy.stats.remove(&update.id);
            // Never anywhere, and nobody's wish: its backend has let go of it, or could not ask for it after all.
            let unplaced = change.before < TaskState::Running && change.exit == Some(Exit::Unknown);
            let refused = unplaced && !change.task.killed && !change.replaced && change.task.by != By::Helper;
            policy.refused += u32::from(refused);
            let record = Box::new(policy.record());
            self.owners.remove(&update.id);
            vec![Write::RemoveTask(update.id.clone()), Write::Policy(name.clone(), record)]
        } else {
            vec![Write::Task(Box::new(change.task.clone()))]
        };
        self.record_update(writes, receipt);
        let exit = change.exit.as_ref().map(ToString::to_string);
        if let Some(exit) = &exit {
            if change.failed {
                self.totals.failed += 1;
                let next = match held_back {
                    Some(time) => format!("no other is launched for {time:?}"),
                    None => "the next may be launched at once".to_owned(),
                };
                tracing::warn!(policy = %name, task = %update.id, exit = %exit, next = %next, "task failed");
            } else {
                tracing::debug!(policy = %name, task = %update.id, exit = %exit, "task ended");
            }
        }
        if change.task.state == TaskState::Gone {
            write_lock(&self.published.tasks).remove(&update.id);
        } else {
            write_lock(&self.published.tasks).insert(update.id.clone(), view.clone());
        }
        self.tell(|| StreamEvent::Task(Box::new(view), exit));
        if change.failed {
            self.check_failures(key);
        }
        if change.task.state == TaskState::Gone {
            self.launch_due(key);
            self.forget_if_over(key);
        }
        self.publish(key);
        self.on_word(key);
        None
    }

    fn check_failures(&mut self, key: usize) {
        let Some(policy) = self.policy(key) else { return };
        let Some(limit) = policy.spec().and_then(|spec| spec.max_failures) else { return };
        let failures = policy.ledger.state().failures;
        if limit <= failures && policy.ended.is_none() {
            let reason = format!("{failures} failures reached max_failures {limit}");
            self.end_policy(key, Ended { by: "max_failures".to_owned(), code: 1, reason });
        }
    }

    /// Shows tasks as they are now.
    pub(super) fn show_tasks(&mut self, key: usize, ids: &[TaskId]) {
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        let views: Vec<_> = ids.iter().filter_map(|id| policy.ledger.get(id)).map(|task| policy.view(task)).collect();
        {
            let mut tasks = write_lock(&self.published.tasks);
            for view in &views {
                tasks.insert(view.id.clone(), view.clone());
            }
        }
        for view in views {
            self.tell(|| StreamEvent::Task(Box::new(view), None));
        }
    }

    /// Takes a task out that no backend ever heard of.
    pub(super) fn forget_task(&mut self, key: usize, id: &TaskId) {
        let at = self.clock.now();
        if let Some(policy) = self.policy(key) {
            let rules = policy.rules.clone();
            policy.ledger.kill(id, at);
            policy.ledger.apply(id, TaskState::Gone, None, None, Some(Exit::Unknown), at, &rules);
            policy.tasks_changed();
        }
        self.owners.remove(id);
        self.write(vec![Write::RemoveTask(id.clone())], false);
        write_lock(&self.published.tasks).remove(id);
    }

    /// Reads CPU and memory of every running task.
    pub(super) fn sample_tasks(&mut self, now: Instant) {
        self.timers.set(now + STATS_EVERY, Timer::Stats);
        let mut by_backend: BTreeMap<&str, Vec<TaskId>> = BTreeMap::new();
        for task in self.policies.iter().flatten().flat_map(|policy| policy.ledger.tasks()) {
            if matches!(task.state, TaskState::Running | TaskState::Killing) {
                by_backend.entry(&task.backend).or_default().push(task.id.clone());
            }
        }
        for (name, tasks) in by_backend {
            let Some(backend) = self.backends.get(name).cloned() else { continue };
            if !backend.capabilities().stats {
                continue;
            }
            let name = name.to_owned();
            let events = self.events.clone();
            tokio::spawn(async move {
                // A task whose figures do not come has none: old ones would be taken for what it uses now.
                let mut figures: BTreeMap<_, _> = tasks.iter().map(|id| (id.clone(), TaskStats::default())).collect();
                match tokio::time::timeout(STATS_EVERY, backend.stats(tasks)).await {
                    Ok(Ok(stats)) => figures.extend(stats),
                    Ok(Err(error)) => tracing::debug!(backend = %name, error = %error, "no figures of tasks"),
                    Err(_) => tracing::debug!(backend = %name, "figures of tasks come too slowly"),
                }
                // The loop has ended when nobody takes the event.
                events.send(Event::Stats(figures)).await.ok();
            });
        }
    }

    pub(super) fn on_stats(&mut self, stats: BTreeMap<TaskId, TaskStats>) {
        let mut changed = std::collections::BTreeMap::<usize, Vec<TaskId>>::new();
        for (id, figures) in stats {
            let Some(key) = self.owners.get(&id).copied() else { continue };
            let Some(policy) = self.policy(key) else { continue };
            policy.take_stats(id.clone(), figures);
            changed.entry(key).or_default().push(id);
        }
        for (key, ids) in changed {
            let Some(policy) = self.policy(key) else { continue };
            let views: Vec<_> =
                ids.iter().filter_map(|id| policy.ledger.get(id)).map(|task| policy.view(task)).collect();
            let mut tasks = write_lock(&self.published.tasks);
            for view in views {
                tasks.insert(view.id.clone(), view);
            }
        }
    }

    /// Once a second: what only time changes.
    pub(super) fn on_chores(&mut self, now: Instant) {
        self.timers.set(now + Duration::from_secs(1), Timer::Chores);
        self.expire(self.clock.wall());
        self.resend_kills();
        self.check_health(now);
        self.save();
        self.totals.decisions_lost = self.log.as_ref().map_or(0, DecisionLog::lost);
        if self.garbage.is_due(now) {
            tokio::task::spawn_blocking(memory::give_back);
        }
        self.totals.sources = self.sources.iter().flatten().count() as u64;
        *write_lock(&self.published.totals) = self.totals.clone();
    }

    fn check_health(&mut self, now: Instant) {
        let mut health =
            Health { ready: true, degraded: false, problems: self.problems.clone(), backends: BTreeMap::new() };
        health.ready &= self.problems.is_empty();
        if let Some(error) = self.store.as_ref().and_then(super::Store::failure) {
            health.ready = false;
            health.problems.insert("store".to_owned(), error.to_string());
        }
        if let Some(problem) = self.log.as_ref().and_then(DecisionLog::problem) {
            health.degraded = true;
            health.problems.insert("decision log".to_owned(), problem.to_owned());
        }
        for (name, state) in &self.backend_states {
            match state {
                BackendState::Idle => {}
                BackendState::Ready => match self.backends.get(name).map(Backend::standing) {
                    Some(Standing::Lost(problem) | Standing::Over { message: problem, .. }) => {
                        health.ready = false;
                        health.problems.insert(format!("backend {name}"), problem);
                    }
                    Some(Standing::Degraded(problem)) => {
                        health.degraded = true;
                        health.problems.insert(format!("backend {name}"), problem);
                    }
                    Some(Standing::Ready) | None => {}
                },
                BackendState::Recovering { .. } => {
                    health.ready = false;
                    let why = match self.backends.get(name).map(Backend::standing) {
                        Some(Standing::Lost(problem) | Standing::Over { message: problem, .. }) => {
                            format!("not recovered yet: {problem}")
                        }
                        _ => "not recovered yet".to_owned(),
                    };
                    health.problems.entry(format!("backend {name}")).or_insert(why);
                }
                BackendState::Failing(message) => {
                    health.ready = false;
                    health.problems.insert(format!("backend {name}"), message.clone());
                }
            }
        }
        for key in 0..self.policies.len() {
            let Some(policy) = self.policy(key) else { continue };
            let unseen = super::counted::unseen(policy).into_keys().next().map(str::to_owned);
            let stalled = is_stalled(policy, now);
            let moved = std::mem::replace(&mut policy.stalled, stalled) != stalled;
            let mut note = |problem: String| {
                health.problems.insert(policy.name.to_string(), problem);
            };
            if let Some(backend) = unseen {
                health.ready = false;
                note(format!("backend `{backend}` has not told of its workload yet"));
            } else if stalled {
                health.ready = false;
                note("has missed three intervals".to_owned());
            } else if let Some(refusal) = &policy.refusal {
                health.degraded = true;
                note(format!("the file is not what runs: {refusal}"));
            } else if let Some(error) = policy.errors.last() {
                health.degraded = true;
                note(error.to_string());
            } else if let Some(problem) = policy.shadow.as_ref().and_then(|shadow| shadow.problem()) {
                health.degraded = true;
                note(problem);
            }
            if moved {
                self.publish(key);
            }
        }
        for source in self.sources.iter().flatten() {
            if let Some(refused) = source.refused.as_ref().or(source.undiscovered.as_ref()) {
                health.degraded = true;
                health.problems.entry(source.name.clone()).or_insert_with(|| refused.to_string());
            }
            for (row, fault) in &source.faults {
                health.degraded = true;
                health.problems.entry(format!("{}/{row}", source.name)).or_insert_with(|| fault.to_string());
            }
        }
        for (name, backend) in &self.backends {
            let facts = backend.facts();
            if !facts.is_empty() {
                health.backends.insert(name.clone(), facts);
            }
        }
        *write_lock(&self.published.health) = health;
        self.end_with_backend();
    }

    /// A backend that is over for good, and that somebody needs, ends the run.
    fn end_with_backend(&mut self) {
        let over = self.backends.iter().find_map(|(name, backend)| match backend.standing() {
            Standing::Over { message, code } => Some((name.clone(), message, code)),
            _ => None,
        });
        let Some((name, message, code)) = over else { return };
        if self.stopping.is_none() {
            // The one place that tells of it: the backend leaves that to its standing.
            tracing::error!(backend = %name, code, keep_tasks = self.settings.keep_tasks, "{message}; stopping");
            self.begin_stop(RunEnd { code, reason: format!("backend `{name}`: {message}") });
        }
    }

    /// Writes what changed since the last time; cheap when there is no store.
    pub(super) fn save(&mut self) {
        if self.store.is_none() {
            return;
        }
        let mut writes = vec![Write::Clock(self.clock.now(), self.clock.wall())];
        self.saves += 1;
        for (key, policy) in self.policies.iter_mut().enumerate() {
            let Some(policy) = policy else { continue };
            // Histories change with every tick; a tenth of them is written each second.
            let turn = (self.saves + key).is_multiple_of(SAVE_HISTORY_EVERY);
            if std::mem::take(&mut policy.dirty) || (turn && policy.aged) {
                policy.aged = false;
                writes.push(Write::Policy(policy.name.clone(), Box::new(policy.record())));
            }
        }
        self.write(writes, false);
    }
}

/// Whether a policy that should tick has not for three intervals (and a second, for very short ones).
fn is_stalled(policy: &Policy, now: Instant) -> bool {
    let Some((_, last)) = policy.last_tick else { return false };
    policy.active.is_some()
        && policy.ended.is_none()
        && policy.interval * 3 + Duration::from_secs(1) < now.saturating_duration_since(last)
}
