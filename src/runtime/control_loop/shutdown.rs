//! The way out: in good order at the first signal, at once at the second.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Backend;
use crate::core::model::{Kind, PolicyName, TaskId, TaskState};
use crate::core::policy::OnEnd;

use super::super::config::{RunEnd, Signal};
use super::super::policy::Policy;
use super::super::record::{Ended, Write};
use super::super::ticker::Timer;
use super::super::view::StreamEvent;
use super::{Loop, STOP_GRACE, Stopping, write_lock};

impl Loop {
    pub(super) fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => self.reload_all(),
            Signal::Drain if self.stopping.is_none() => {
                self.stop(RunEnd { code: 0, reason: "asked to stop".to_owned() });
            }
            Signal::Drain | Signal::Now => self.abort("asked to stop at once"),
        }
    }

    /// Stops in good order: no more ticks; without a state folder (or with `--stop-tasks`) the run's tasks are ended.
    pub(super) fn stop(&mut self, end: RunEnd) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!(reason = %end.reason, keep_tasks = self.settings.keep_tasks, "stopping");
        self.begin_stop(end);
    }

    /// The same when why has been logged already, and it is not stopping yet.
    pub(super) fn begin_stop(&mut self, end: RunEnd) {
        // Nothing was started in a dry run, so nothing is ended after it.
        let killing = !self.settings.keep_tasks && !self.settings.dry_run;
        self.stopping = Some(Stopping { end, killing });
        for policy in self.policies.iter_mut().flatten() {
            // A decision that is still on its way must not launch what nobody would end.
            policy.halt();
        }
        if killing {
            for key in 0..self.policies.len() {
                let Some(policy) = self.policy(key) else { continue };
                policy.ledger.cancel_waiting(u32::MAX);
                let ids: Vec<TaskId> = policy.ledger.tasks().map(|task| task.id.clone()).collect();
                self.kill(key, &ids);
                self.remove_all_counted(key, None);
            }
            let longest = self
                .policies
                .iter()
                .flatten()
                .flat_map(|policy| policy.ledger.tasks())
                .map(|task| task.grace)
                .max()
                .unwrap_or(Duration::ZERO);
            self.timers.set(Instant::now() + longest + STOP_GRACE, Timer::Abort);
        }
        self.check_stopped();
    }

    /// Leaves at once.
    pub(super) fn abort(&mut self, why: &str) {
        tracing::warn!("{why}");
        let end = match self.stopping.take() {
            Some(stopping) => stopping.end,
            None => RunEnd { code: 0, reason: why.to_owned() },
        };
        self.end = Some(end);
    }

    /// Whether everything that the way out waits for is over.
    fn check_stopped(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        let left = self
            .policies
            .iter()
            .flatten()
            .any(|policy| policy.ledger.tasks().next().is_some() || policy.is_being_removed());
        if !(stopping.killing && left) {
            self.end = self.stopping.take().map(|stopping| stopping.end);
        }
    }

    /// The last things: everything into the store, and the backends let go.
    pub(super) async fn finish(&mut self) {
        for policy in self.policies.iter_mut().flatten() {
            if let Some(state) = policy.script().and_then(|script| script.state()) {
                policy.script_state = Some(state);
            }
            if let Some(shadow) = &mut policy.shadow {
                shadow.keep_script_state();
            }
            policy.dirty = true;
        }
        self.save();
        self.queues.clear();
        let kill_all = !self.settings.keep_tasks && !self.settings.dry_run;
        for (name, backend) in &self.backends {
            if tokio::time::timeout(STOP_GRACE, backend.shutdown(kill_all)).await.is_err() {
                tracing::error!(backend = %name, "the backend did not let go in {STOP_GRACE:?}");
            }
        }
        if let Some(log) = self.log.take()
            && let Err(error) = tokio::task::spawn_blocking(move || log.close()).await
        {
            tracing::error!(error = %error, "the end of the decision log may be missing");
        }
        if let Some(store) = self.store.take() {
            match tokio::task::spawn_blocking(move || store.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = %error, "the state could not be written"),
                Err(error) => tracing::error!(error = %error, "the store's writer ended"),
            }
        }
    }

    /// A policy is over; its tasks are kept or ended as it says, and it stays listed with the reason.
    pub(super) fn end_policy(&mut self, key: usize, ended: Ended) {
        let Some(policy) = self.policy(key) else { return };
        if policy.ended.is_some() {
            return;
        }
        tracing::warn!(policy = %policy.name, by = %ended.by, code = ended.code, reason = %ended.reason, "policy ended");
        let keep = policy.spec().is_some_and(|spec| {
            let what = if ended.by == "gone" { spec.workload.on_gone } else { spec.workload.on_end };
            what == OnEnd::Keep
        });
        let gone = ended.by == "gone";
        let unplaced = if keep { self.unplaced(key) } else { Vec::new() };
        let Some(policy) = self.policy(key) else { return };
        policy.ended = Some(ended);
        policy.halt();
        if gone {
            policy.next = None;
        }
        policy.ledger.cancel_waiting(u32::MAX);
        if keep {
            // Kept tasks are not replaced any more: nobody decides about them.
            policy.rules.kind = Kind::Jobs;
            self.withdraw(key, &unplaced);
        } else {
            let ids: Vec<TaskId> = policy
                .ledger
                .tasks()
                .filter(|task| task.state < TaskState::Killing)
                .map(|task| task.id.clone())
                .collect();
            self.kill(key, &ids);
            self.remove_all_counted(key, None);
        }
        if let Some(policy) = self.policy(key) {
            let write = Write::Policy(policy.name.clone(), Box::new(policy.record()));
            self.write(vec![write], false);
        }
        self.announce(key, StreamEvent::Policy);
        self.check_ended();
        // A saved file that waited for the tick to end starts the policy anew.
        if self.stopping.is_none() {
            self.begin_migration(key);
        }
        self.forget_if_over(key);
    }

    /// The run ends when all its policies have, with the first code that is not 0, or at the first with `--exit-on-stop`.
    pub(super) fn check_ended(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let done = |policy: &&Policy| {
            policy.ended.as_ref().filter(|ended| matches!(ended.by.as_str(), "stop" | "max_failures")).cloned()
        };
        let live: Vec<&Policy> = self
            .policies
            .iter()
            .flatten()
            .filter(|policy| policy.active.is_some() || (policy.is_loading() && policy.ended.is_none()))
            .collect();
        let ended: Vec<Ended> = live.iter().filter_map(done).collect();
        let fleets = self.sources.iter().flatten().any(|source| source.fleet.is_some());
        let all = !live.is_empty() && ended.len() == live.len() && !fleets;
        if all || (self.settings.exit_on_stop && !ended.is_empty()) {
            let first = ended.iter().find(|ended| ended.code != 0).or_else(|| ended.first());
            if let Some(first) = first {
                self.stop(RunEnd { code: first.code, reason: first.reason.clone() });
            }
        }
    }

    /// A policy without a file, a row or tasks leaves nothing behind.
    pub(super) fn forget_if_over(&mut self, key: usize) {
        self.check_stopped();
        let Some(policy) = self.policies.get(key).and_then(Option::as_ref) else { return };
        let over = policy.ended.as_ref().is_some_and(|ended| matches!(ended.by.as_str(), "gone" | "removed"));
        // One that is back with a new generation is not over.
        if !over || !policy.ledger.is_empty() || policy.is_being_removed() || policy.is_loading() {
            return;
        }
        if let Some(policy) = self.drop_policy(key) {
            if policy.ended.is_some_and(|ended| ended.by == "removed") {
                self.forget_logs(&policy.name);
            }
            self.write(vec![Write::RemovePolicy(policy.name)], false);
        }
    }

    /// What backends keep of a policy's tasks goes with it when an operator removes it.
    fn forget_logs(&self, name: &PolicyName) {
        for backend in self.backends.values() {
            let Backend::Tasks(backend) = backend else { continue };
            let (backend, name) = (Arc::clone(backend), name.clone());
            tokio::spawn(async move { backend.forget(&name).await });
        }
    }

    /// Takes a policy out of the loop; its key is free for another one.
    pub(super) fn drop_policy(&mut self, key: usize) -> Option<Policy> {
        let policy = self.policies.get_mut(key).and_then(Option::take)?;
        self.free.push(key);
        self.reserved.remove(&key);
        self.names.remove(&policy.name);
        write_lock(&self.published.policies).remove(&policy.name);
        if let Some(source) = policy.source.and_then(|index| self.source(index)) {
            source.rows.retain(|_, row| row.key != key);
        }
        Some(policy)
    }
}
