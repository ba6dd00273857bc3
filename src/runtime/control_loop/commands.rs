//! What operators tell the loop: pause, override, reload, evaluate, adopt, remove, kill.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::backend::Backend;
use crate::core::decision::Observation;
use crate::core::intent::By;
use crate::core::ledger::Ledger;
use crate::core::model::{PolicyName, TaskState};
use crate::script::Observed;

use super::super::event::Event;
use super::super::handle::{CommandResult, Request, read};
use super::super::policy::{Phase, Policy};
use super::super::record::{Ended, Override, Pause, Write};
use super::super::view::{Command, CommandError, PolicySnapshot, StreamEvent};
use super::Loop;
use super::tick::{deadline, rehearse};

impl Loop {
    pub(super) fn on_command(&mut self, request: Request) {
        if let Command::Evaluate { policy } = &request.command {
            match self.find(policy) {
                Ok(key) => self.evaluate(key, request),
                Err(error) => answer(request, Err(error)),
            }
            return;
        }
        let result = self.carry_out_command(&request.command);
        answer(request, result);
    }

    fn carry_out_command(&mut self, command: &Command) -> CommandResult {
        match command {
            Command::Pause { policy, for_, reason } => {
                let until = until(self.clock.wall(), *for_)?;
                self.change(policy, |policy| policy.paused = Some(Pause { until, reason: reason.clone() }))
            }
            Command::Resume { policy } => self.change(policy, |policy| policy.paused = None),
            Command::Override { policy, min, max, for_, force, reason } => {
                let key = self.find(policy)?;
                let over =
                    Override { min: *min, max: *max, until: until(self.clock.wall(), *for_)?, reason: reason.clone() };
                self.check_override(key, &over, *force)?;
                let answer = self.change(policy, |policy| policy.bounds = Some(over))?;
                self.tick_now(key);
                Ok(answer)
            }
            Command::ClearOverride { policy } => {
                let key = self.find(policy)?;
                let answer = self.change(policy, |policy| policy.bounds = None)?;
                self.tick_now(key);
                Ok(answer)
            }
            Command::Reload { policy: None } => {
                self.reload_all();
                Ok(None)
            }
            Command::Reload { policy: Some(policy) } => {
                // A fleet is reloaded by its own name too, which is no policy.
                if let Some(source) = self.source_called(policy.as_str()) {
                    self.load(source);
                    return Ok(self.snapshot(policy));
                }
                let key = self.find(policy)?;
                let source = self.policy(key).and_then(|policy| policy.source);
                let source = source.ok_or_else(|| CommandError::Conflict(format!("policy `{policy}` has no file")))?;
                self.load(source);
                Ok(self.snapshot(policy))
            }
            Command::Adopt { old, new } => self.adopt_tasks(old, new),
            Command::Remove { policy } => self.remove_retired(policy),
            Command::KillTask { task } => {
                let key = self.owners.get(task).copied().ok_or_else(|| CommandError::NotFound {
                    what: "task",
                    name: task.to_string(),
                    near: None,
                })?;
                let backend =
                    self.policy(key).and_then(|policy| policy.ledger.get(task)).map(|task| task.backend.clone());
                if let Some(backend) = backend
                    && matches!(self.backends.get(&*backend), Some(Backend::Count(_)))
                {
                    return Err(CommandError::Conflict(format!(
                        "backend `{backend}` chooses itself which of its tasks end: override min and max, or end the task there"
                    )));
                }
                let at = self.clock.now();
                let dry_run = self.settings.dry_run;
                if let Some(policy) = self.policy(key)
                    && !dry_run
                {
                    let held = policy.ledger.get(task).is_some_and(|task| {
                        let replaces = task.state == TaskState::Asked && task.by == By::Replacement && !task.killed;
                        task.state == TaskState::Running || replaces
                    });
                    // The number that is wanted stays: an operator ends a task, not a decision.
                    if held && policy.rules.kind == crate::core::model::Kind::Service {
                        policy.ledger.wait(at);
                    }
                }
                self.kill(key, std::slice::from_ref(task));
                self.launch_due(key);
                self.publish(key);
                let name = self.policy(key).map(|policy| policy.name.clone());
                Ok(name.and_then(|name| self.snapshot(&name)))
            }
            Command::Evaluate { .. } => Ok(None),
        }
    }

    fn find(&self, name: &PolicyName) -> Result<usize, CommandError> {
        self.names.get(name).copied().ok_or_else(|| CommandError::NotFound {
            what: "policy",
            name: name.to_string(),
            near: nearest(name.as_str(), self.names.keys().map(PolicyName::as_str)),
        })
    }

    fn snapshot(&self, name: &PolicyName) -> Option<Arc<PolicySnapshot>> {
        read(&self.published.policies).get(name).cloned()
    }

    /// Changes a policy's settings durably and shows it.
    fn change(&mut self, name: &PolicyName, change: impl FnOnce(&mut Policy)) -> CommandResult {
        let key = self.find(name)?;
        let Some(policy) = self.policy(key) else { return Ok(None) };
        change(policy);
        let record = Box::new(policy.record());
        self.write(vec![Write::Policy(name.clone(), record)], false);
        self.announce(key, StreamEvent::Policy);
        Ok(self.snapshot(name))
    }

    fn check_override(&mut self, key: usize, over: &Override, force: bool) -> Result<(), CommandError> {
        if over.min.is_none() && over.max.is_none() {
            return Err(CommandError::Invalid("an override needs `min`, `max` or both".to_owned()));
        }
        if let (Some(min), Some(max)) = (over.min, over.max)
            && max < min
        {
            return Err(CommandError::Invalid(format!("min {min} is more than max {max}")));
        }
        let own = self.policy(key).and_then(|policy| policy.spec().map(|spec| spec.workload.max));
        let Some(own) = own else {
            return Err(CommandError::Conflict("a retired policy cannot be overridden".to_owned()));
        };
        let highest = over.max.max(over.min).unwrap_or(0);
        if own < highest && !force {
            return Err(CommandError::Invalid(format!(
                "{highest} is above the policy's own max {own}; `force` allows it"
            )));
        }
        Ok(())
    }

    /// Ticks a policy as soon as it is idle: an operator's word takes effect at once.
    fn tick_now(&mut self, key: usize) {
        let now = Instant::now();
        let Some(policy) = self.policy(key) else { return };
        if policy.active.is_none() || policy.ended.is_some() {
            return;
        }
        if matches!(policy.phase, Phase::Idle) {
            self.schedule(key, now);
        } else {
            policy.deferred = Some(now);
        }
    }

    /// One tick for show.
    fn evaluate(&mut self, key: usize, request: Request) {
        let wall = self.clock.wall();
        let Some(policy) = self.policy(key) else { return };
        let Some(script) = policy.script() else {
            answer(request, Err(CommandError::Conflict("a retired policy cannot be evaluated".to_owned())));
            return;
        };
        let (ctx, deadline, name) = (policy.ctx(wall), deadline(policy.interval), policy.name.clone());
        self.spawn(async move {
            let observed = Box::new(script.observe(ctx, deadline).await);
            Event::Evaluated { policy: name, request, observed }
        });
    }

    pub(super) fn on_evaluated(&mut self, name: &PolicyName, request: Request, observed: Observed) {
        let at = self.clock.now();
        let (now, wall) = (Instant::now(), self.clock.wall());
        let budget = self.budget_left();
        // By name: its key may be another's by now.
        let policy = self.names.get(name).copied().and_then(|key| self.policies[key].as_ref());
        let Some((policy, spec)) = policy.and_then(|policy| Some((policy, policy.spec().cloned()?))) else {
            answer(request, Err(CommandError::Conflict("the policy went meanwhile".to_owned())));
            return;
        };
        let observation = Observation {
            now: at,
            sample: observed.sample,
            setpoint: observed.setpoint,
            counts: policy.counts(),
            in_flight: policy.in_flight(at),
            refused: policy.refused,
            scripted: observed.scripted,
            bounds: policy.bounds.is_some().then(|| policy.bounds_in_force()),
            budget,
            paused: policy.paused.is_some(),
            dry_run: false,
        };
        let decision = rehearse(&spec, policy.state.clone(), &observation);
        let mut snapshot = policy.snapshot(now, wall);
        snapshot.sample = Some(observation.sample);
        snapshot.setpoint = observation.setpoint;
        snapshot.script.error = observed.errors.into_iter().next().map(Arc::new);
        snapshot.decision = Some(Arc::new(decision));
        answer(request, Ok(Some(Arc::new(snapshot))));
    }

    fn adopt_tasks(&mut self, old: &PolicyName, new: &PolicyName) -> CommandResult {
        let (from, to) = (self.find(old)?, self.find(new)?);
        if from == to {
            return Err(CommandError::Invalid("a policy cannot adopt itself".to_owned()));
        }
        if self.policy(from).is_some_and(|policy| policy.active.is_some() || policy.is_loading()) {
            return Err(CommandError::Conflict(format!("policy `{old}` is not retired, it still has its file")));
        }
        if self.policy(from).is_some_and(|policy| !policy.counted.is_empty()) {
            let text =
                format!("the workload of `{old}` is found by that name on its backend, and cannot be given away");
            return Err(CommandError::Conflict(text));
        }
        let Some(retired) = self.drop_policy(from) else { return Ok(None) };
        let mut writes = vec![Write::RemovePolicy(old.clone())];
        let Some(heir) = self.policy(to) else { return Ok(None) };
        let mut tasks: Vec<_> = heir.ledger.tasks().cloned().collect();
        let mut moved = Vec::new();
        for task in retired.ledger.tasks() {
            let mut task = task.clone();
            task.policy = new.clone();
            writes.push(Write::Task(Box::new(task.clone())));
            moved.push(task.id.clone());
            tasks.push(task);
        }
        heir.ledger = Ledger::restore(heir.ledger.state().clone(), tasks);
        heir.tasks_changed();
        let drain = retired.drains.values().map(|drain| drain.until).min();
        heir.drains.extend(retired.drains);
        for id in &moved {
            self.owners.insert(id.clone(), to);
        }
        self.write(writes, false);
        if let Some(until) = drain {
            self.wake_at(to, until);
        }
        self.leave_backend(to);
        self.show_tasks(to, &moved);
        self.announce(to, StreamEvent::Policy);
        Ok(self.snapshot(new))
    }

    fn remove_retired(&mut self, name: &PolicyName) -> CommandResult {
        let key = self.find(name)?;
        let Some(policy) = self.policy(key) else { return Ok(None) };
        if policy.active.is_some() || policy.is_loading() {
            return Err(CommandError::Conflict(format!("policy `{name}` is not retired, it still has its file")));
        }
        let ids: Vec<_> = policy.ledger.tasks().map(|task| task.id.clone()).collect();
        policy.ledger.cancel_waiting(u32::MAX);
        let ended =
            policy.ended.get_or_insert_with(|| Ended { by: String::new(), code: 0, reason: "removed".to_owned() });
        "removed".clone_into(&mut ended.by);
        self.kill(key, &ids);
        self.remove_all_counted(key, None);
        self.publish(key);
        let snapshot = self.snapshot(name);
        self.forget_if_over(key);
        Ok(snapshot)
    }

    /// Ends pauses and overrides whose time is over.
    pub(super) fn expire(&mut self, wall: SystemTime) {
        for key in 0..self.policies.len() {
            let Some(policy) = self.policy(key) else { continue };
            let over = |until: Option<SystemTime>| until.is_some_and(|until| until <= wall);
            let paused = policy.paused.as_ref().is_some_and(|pause| over(pause.until));
            let bounds = policy.bounds.as_ref().is_some_and(|bounds| over(bounds.until));
            if paused {
                policy.paused = None;
                tracing::info!(policy = %policy.name, "the pause is over");
            }
            if bounds {
                policy.bounds = None;
                tracing::info!(policy = %policy.name, "the override is over");
            }
            if paused || bounds {
                policy.dirty = true;
                self.announce(key, StreamEvent::Policy);
            }
        }
    }
}

fn answer(request: Request, result: CommandResult) {
    // Whoever asked may have gone away; then nobody wants to know.
    request.reply.send(result).ok();
}

fn until(wall: SystemTime, for_: Option<Duration>) -> Result<Option<SystemTime>, CommandError> {
    for_.map(|for_| wall.checked_add(for_).ok_or_else(|| CommandError::Invalid(format!("{for_:?} is too long a time"))))
        .transpose()
}

/// The nearest of some names, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .filter(|(distance, other)| *distance <= 1 + name.len().max(other.len()) / 4)
        .min()
        .map(|(_, other)| other.to_owned())
}
