//! The ledger: every task of one policy, from asked to gone.
//!
//! ```text
//!   intent ─► asked ─► staging ─► running ─► killing ─► gone
//!               │         │          │                    ▲
//!               └─────────┴──────────┴── lapsed, failed, ended
//! ```
//!
//! `desired` is not a counter of its own: it is what is alive plus the replacements that wait (see
//! [`Counts::desired`]), so it cannot drift from what was really placed. Helpers (`By::Helper`) are kept
//! here and counted nowhere else.
//!
//! Invariants: a task id is in here at most once; states only move forwards; a task that is gone is
//! handed out once and dropped; nothing but a service task that had been running, or the replacement of one, waits to
//! be replaced. With
//! `lag` the sample is that of a world that old, so at any time desired − in flight is the number of tasks
//! that were ready then. A sample takes its time, too: what happens after it was begun ([`Ledger::look`]) is in flight.

use std::cmp::Reverse;
use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::decision::InFlight;
use super::intent::By;
use super::model::{Counts, Exit, Kind, Placement, PolicyName, TaskId, TaskState};
use super::policy::{Actuator, Backoff, PolicySpec, Ready, TaskTemplate};
use super::time::Timestamp;

/// How far tasks that are lost with where they ran lengthen the backoff: to four times its shortest.
const LOSSES: u32 = 3;

/// One task, as it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// The policy that it belongs to.
    pub policy: PolicyName,
    /// The backend that runs it.
    pub backend: Arc<str>,
    /// What was started.
    pub template: Arc<TaskTemplate>,
    /// Its state.
    pub state: TaskState,
    /// Who asked for it.
    pub by: By,
    /// When it was asked for, in engine time.
    pub asked: Timestamp,
    /// The same on the wall clock.
    pub started: SystemTime,
    /// When its state last changed.
    pub since: Timestamp,
    /// When it became ready.
    pub ready: Option<Timestamp>,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// Whether it was told to end, by a decision or an operator.
    #[serde(default)]
    pub killed: bool,
    /// Whether its backend was told to let go of it unless it has a place by now. Until that is answered it may have one, and
    /// counts as asked for: a decision that made up for it could be carried out beside it.
    #[serde(skip)]
    pub withdrawn: bool,
    /// How many failures in a row stood before it.
    pub attempt: u32,
    /// Where it runs.
    pub placement: Placement,
    /// Its place among the policy's tasks, from 0: it keeps it for as long as it exists, and the next task gets the
    /// lowest free one, so that a replacement stands where the lost one stood. None for a helper.
    #[serde(default)]
    pub slot: Option<u32>,
}

/// The part of the ledger that is not tasks; survives restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerState {
    /// When each waiting replacement is due, soonest first.
    pub waiting: VecDeque<Timestamp>,
    /// Failures net of successes, for `max_failures`.
    pub failures: u32,
    /// Failures in a row, for the backoff.
    pub streak: u32,
    /// No launch before this.
    pub backoff_until: Option<Timestamp>,
    /// When the streak last grew: tasks that were asked for up to then fail in the same row.
    pub failed_at: Option<Timestamp>,
    /// Tasks that are gone and that the sample may show still, or is still to show, in the order they went.
    pub departed: VecDeque<Departed>,
}

/// What is still to be known of a task that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// When it had become ready.
    pub ready: Timestamp,
    /// When it went.
    pub gone: Timestamp,
}

/// What an update did.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The task after it.
    pub task: Task,
    /// Its state before.
    pub before: TaskState,
    /// How it ended, when it did.
    pub exit: Option<Exit>,
    /// Whether a replacement now waits for it.
    pub replaced: bool,
    /// Whether the end counts as a failure.
    pub failed: bool,
}

/// The tasks of one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    tasks: BTreeMap<TaskId, Task>,
    state: LedgerState,
    tally: Tally,
    look: Option<Look>,
}

/// What has happened since the sample was begun, which it cannot show.
#[derive(Clone, Debug, Default, PartialEq)]
struct Look {
    at: Timestamp,
    /// Tasks that have become ready.
    unseen: BTreeSet<TaskId>,
    /// How many that had been ready have gone.
    gone: u32,
}

/// How many tasks are in which state, kept as they change: each tick asks several times, and tasks change rarely.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    asked: u32,
    staging: u32,
    running: u32,
    /// Of those running.
    ready: u32,
    killing: u32,
    /// Of those being killed, the ones that had become ready.
    killing_ready: u32,
    helpers: u32,
    /// When a task last became ready: so long after it the sample shows everything.
    newest: Timestamp,
}

impl Tally {
    fn add(&mut self, task: &Task) {
        self.newest = self.newest.max(task.ready.unwrap_or_default());
        self.move_by(task, |n| *n += 1);
    }

    fn remove(&mut self, task: &Task) {
        self.move_by(task, |n| *n -= 1);
    }

    fn move_by(&mut self, task: &Task, step: impl Fn(&mut u32)) {
        if task.by == By::Helper {
            step(&mut self.helpers);
            return;
        }
        match task.state {
            TaskState::Asked => step(&mut self.asked),
            TaskState::Staging => step(&mut self.staging),
            TaskState::Running => {
                step(&mut self.running);
                if task.ready.is_some() {
                    step(&mut self.ready);
                }
            }
            TaskState::Killing => {
                step(&mut self.killing);
                if task.ready.is_some() {
                    step(&mut self.killing_ready);
                }
            }
            TaskState::Gone => {}
        }
    }
}

/// How a ledger treats what happens to its tasks; from the policy's specification.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Service or jobs.
    pub kind: Kind,
    /// When a running task is ready.
    pub ready: Ready,
    /// Delay after failures.
    pub backoff: Backoff,
    /// Time from ready, or gone, to the full effect.
    pub lag: Duration,
    /// What the warmer launches are jobs, whatever the kind: it is a task, not a function.
    pub warmer_jobs: bool,
    /// The same of the cooler.
    pub cooler_jobs: bool,
}

impl From<&PolicySpec> for Rules {
    fn from(spec: &PolicySpec) -> Self {
        Self {
            kind: spec.workload.kind,
            ready: spec.workload.ready.clone(),
            backoff: spec.backoff,
            lag: spec.control.lag,
            warmer_jobs: matches!(spec.hooks.warmer, Actuator::Task(_)),
            cooler_jobs: matches!(spec.hooks.cooler, Actuator::Task(_)),
        }
    }
}

impl Rules {
    /// Whether a task's end leaves its place to be filled again.
    const fn holds(&self, by: By) -> bool {
        let job = match by {
            By::Warmer => self.warmer_jobs,
            By::Cooler => self.cooler_jobs,
            By::Helper => true,
            By::Law | By::Min | By::Replacement => false,
        };
        matches!(self.kind, Kind::Service) && !job
    }
}

impl Ledger {
    /// A ledger as it was stored.
    #[must_use]
    pub fn restore(state: LedgerState, tasks: impl IntoIterator<Item = Task>) -> Self {
        let mut ledger = Self { state, ..Self::default() };
        for task in tasks {
            ledger.ask(task);
        }
        ledger
    }

    /// The part to store with the policy.
    #[must_use]
    pub const fn state(&self) -> &LedgerState {
        &self.state
    }

    /// Every task that is not gone, in the order of their ids (oldest first: ids end in a ULID after a common prefix).
    pub fn tasks(&self) -> impl DoubleEndedIterator<Item = &Task> {
        self.tasks.values()
    }

    /// One task.
    #[must_use]
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// Whether there is nothing left: no task, and none that waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.state.waiting.is_empty()
    }

    /// The counts that guards and laws work on; helpers left out.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Tally { asked, staging, running, ready, killing, .. } = self.tally;
        Counts { waiting: count(self.state.waiting.len()), asked, staging, running, ready, killing }
    }

    /// How many helpers exist.
    #[must_use]
    pub fn helpers(&self) -> u32 {
        self.tally.helpers
    }

    /// A sample is begun: it shows the world as it is now (or was `lag` ago), however long it takes.
    pub fn look(&mut self, now: Timestamp) {
        self.look = Some(Look { at: now, ..Look::default() });
    }

    /// Changes that a sample of this very moment does not show yet: launches until `lag` after they are ready, kills until
    /// `lag` after they are gone. A task that came and went within `lag` shows late, and is a kill in flight only then.
    #[must_use]
    pub fn in_flight(&self, now: Timestamp, rules: &Rules) -> InFlight {
        self.not_shown(&Look { at: now, ..Look::default() }, rules)
    }

    /// The same of the sample that was begun last: what has changed since is not in it.
    #[must_use]
    pub fn in_flight_of_sample(&self, now: Timestamp, rules: &Rules) -> InFlight {
        match &self.look {
            Some(look) => self.not_shown(look, rules),
            None => self.in_flight(now, rules),
        }
    }

    fn not_shown(&self, look: &Look, rules: &Rules) -> InFlight {
        let now = look.at;
        let mut in_flight = InFlight { launches: count(self.state.waiting.len()), kills: 0 };
        let still = self.state.departed.is_empty() && look.unseen.is_empty() && look.gone == 0;
        if still && rules.lag <= now.since(self.tally.newest) {
            // All that is ready shows already.
            let Tally { asked, staging, running, ready, killing_ready, .. } = self.tally;
            in_flight.launches += asked + staging + (running - ready);
            in_flight.kills += killing_ready;
            return in_flight;
        }
        for task in self.tasks.values().filter(|task| task.by != By::Helper) {
            let shown =
                task.ready.is_some_and(|ready| rules.lag <= now.since(ready)) && !look.unseen.contains(&task.id);
            match task.state {
                TaskState::Asked | TaskState::Staging | TaskState::Running => {
                    in_flight.launches += u32::from(!shown);
                }
                // A task that never showed does not have to disappear from the sample either.
                TaskState::Killing => in_flight.kills += u32::from(shown),
                TaskState::Gone => {}
            }
        }
        let shows = |task: &&Departed| rules.lag <= now.since(task.ready) && now.since(task.gone) < rules.lag;
        in_flight.kills += count(self.state.departed.iter().filter(shows).count());
        if rules.lag.is_zero() {
            in_flight.kills += look.gone;
        }
        in_flight
    }

    /// Places that no task has, lowest first, without end.
    pub fn free_slots(&self) -> impl Iterator<Item = u32> + use<> {
        let taken: BTreeSet<u32> = self.tasks.values().filter_map(|task| task.slot).collect();
        (0..).filter(move |slot| !taken.contains(slot))
    }

    /// Whether a task is there and not on its way out.
    #[must_use]
    pub fn is_alive(&self, id: &TaskId) -> bool {
        self.tasks.get(id).is_some_and(|task| task.state < TaskState::Killing)
    }

    /// The tasks to end: those that are named, and `n` more, as far as there are any; first in the given order, then those
    /// that do not run yet, then those that are not ready, then the newest.
    #[must_use]
    pub fn victims(&self, named: &[TaskId], n: u32, order: Vec<TaskId>) -> Vec<TaskId> {
        let mut victims = named.to_vec();
        if n == 0 {
            return victims;
        }
        let wanted = victims.len() + n as usize;
        for id in order.into_iter().chain(self.default_victims()) {
            if wanted <= victims.len() {
                break;
            }
            let helper = self.get(&id).is_some_and(|task| task.by == By::Helper);
            if self.is_alive(&id) && !helper && !victims.contains(&id) {
                victims.push(id);
            }
        }
        victims
    }

    fn default_victims(&self) -> impl Iterator<Item = TaskId> {
        let mut alive: Vec<_> = self
            .tasks
            .values()
            .filter(|task| task.state < TaskState::Killing && task.by != By::Helper)
            .map(|task| ((task.state, task.ready.is_some(), Reverse((task.started, &task.id))), &task.id))
            .collect();
        alive.sort();
        alive.into_iter().map(|(_, id)| id.clone())
    }

    /// Records a task that was asked for; a known id is left as it is.
    pub fn ask(&mut self, task: Task) {
        if let Entry::Vacant(place) = self.tasks.entry(task.id.clone()) {
            self.tally.add(&task);
            place.insert(task);
        }
    }

    /// Marks a task as told to end. False when it is not there or already on its way out.
    pub fn kill(&mut self, id: &TaskId, now: Timestamp) -> bool {
        let Some(task) = self.tasks.get_mut(id) else { return false };
        if task.state >= TaskState::Killing {
            return false;
        }
        self.tally.remove(task);
        task.state = TaskState::Killing;
        task.since = now;
        (task.killed, task.withdrawn) = (true, false);
        self.tally.add(task);
        true
    }

    /// Marks a task as withdrawn: its backend is told to let go of it, unless it has a place for it by now. False when it is
    /// not there, has one, or was withdrawn before.
    pub fn withdraw(&mut self, id: &TaskId) -> bool {
        let asked = |task: &&mut Task| task.state == TaskState::Asked && !task.withdrawn;
        self.tasks.get_mut(id).filter(asked).is_some_and(|task| !std::mem::replace(&mut task.withdrawn, true))
    }

    /// Whether something is being withdrawn and not answered yet.
    #[must_use]
    pub fn is_withdrawing(&self) -> bool {
        self.tally.asked + self.tally.helpers > 0 && self.tasks.values().any(|task| task.withdrawn)
    }

    /// Takes that back: the backend could not be told. False when there is nothing to take back.
    pub fn keep_asking(&mut self, id: &TaskId) -> bool {
        self.tasks.get_mut(id).is_some_and(|task| std::mem::take(&mut task.withdrawn))
    }

    /// Drops up to `n` waiting replacements, the latest due first; how many it dropped.
    pub fn cancel_waiting(&mut self, n: u32) -> u32 {
        let n = (n as usize).min(self.state.waiting.len());
        self.state.waiting.truncate(self.state.waiting.len() - n);
        count(n)
    }

    /// Takes up to `room` replacements that are due off the waiting list; none while launches are backed off.
    pub fn take_due(&mut self, now: Timestamp, room: u32) -> u32 {
        if self.backed_off(now).is_some() {
            return 0;
        }
        let due = self.state.waiting.iter().take(room as usize).take_while(|due| **due <= now).count();
        self.state.waiting.drain(..due);
        count(due)
    }

    /// Adds a replacement that is due then.
    pub fn wait(&mut self, due: Timestamp) {
        let at = self.state.waiting.partition_point(|other| *other <= due);
        self.state.waiting.insert(at, due);
    }

    /// Forgets failures: a policy that they ended starts anew.
    pub fn forgive(&mut self) {
        self.state.failures = 0;
        self.state.streak = 0;
        self.state.backoff_until = None;
    }

    /// When the next replacement is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let due = self.state.waiting.front().copied()?;
        Some(self.state.backoff_until.map_or(due, |until| until.max(due)))
    }

    /// Until when failing tasks hold back launches; none when they do not.
    #[must_use]
    pub fn backed_off(&self, now: Timestamp) -> Option<Duration> {
        self.state.backoff_until.filter(|until| now < *until).map(|until| until.since(now))
    }

    /// Tasks that were asked for before `now` and not placed: to be withdrawn (rule 3 of the semantics). Replacements are
    /// not among them: they stay wanted until a decision lowers the number. Nor is what has been withdrawn.
    #[must_use]
    pub fn lapsed(&self, now: Timestamp) -> Vec<TaskId> {
        if self.tally.asked + self.tally.helpers == 0 {
            return Vec::new();
        }
        self.tasks
            .values()
            .filter(|task| task.state == TaskState::Asked && !task.withdrawn)
            .filter(|task| task.asked < now && task.by != By::Replacement)
            .map(|task| task.id.clone())
            .collect()
    }

    /// Takes in what a backend said of a task. None when it is not ours, or says nothing new.
    pub fn apply(
        &mut self,
        id: &TaskId,
        state: TaskState,
        healthy: Option<bool>,
        placement: Option<Placement>,
        exit: Option<Exit>,
        now: Timestamp,
        rules: &Rules,
    ) -> Option<Change> {
        if state == TaskState::Gone {
            let task = self.tasks.remove(id)?;
            self.tally.remove(&task);
            return Some(self.depart(task, placement, exit.unwrap_or(Exit::Unknown), now, rules));
        }
        let task = self.tasks.get_mut(id)?;
        self.tally.remove(task);
        let showed = task.ready.is_some();
        ripen(task, now, rules);
        let before = task.state;
        let moved = before < state;
        // What was to be withdrawn has a place: it is there after all.
        task.withdrawn = false;
        let placed = placement.as_ref().is_some_and(|placement| *placement != task.placement);
        if let Some(placement) = placement {
            task.placement = placement;
        }
        if moved {
            task.state = state;
            task.since = now;
        }
        let was_ready = task.ready.is_some();
        if task.state == TaskState::Running {
            match (&rules.ready, healthy) {
                (Ready::Running, _) | (Ready::Healthy, Some(true)) => task.ready = task.ready.or(Some(now)),
                (Ready::Healthy, Some(false)) => task.ready = None,
                (Ready::After(_), _) | (Ready::Healthy, None) => {}
            }
        }
        let told = task.ready.is_some() != was_ready;
        self.tally.add(task);
        if let Some(look) = &mut self.look
            && task.ready.is_some()
            && !showed
        {
            look.unseen.insert(id.clone());
        }
        (moved || placed || told).then(|| Change {
            task: task.clone(),
            before,
            exit: None,
            replaced: false,
            failed: false,
        })
    }

    fn depart(
        &mut self,
        mut task: Task,
        placement: Option<Placement>,
        exit: Exit,
        now: Timestamp,
        rules: &Rules,
    ) -> Change {
        let before = task.state;
        if let Some(look) = &mut self.look {
            let seen = !look.unseen.remove(&task.id);
            look.gone += u32::from(seen && task.ready.is_some() && task.by != By::Helper);
        }
        ripen(&mut task, now, rules);
        // An exit of its own shows that it ran, even where no update said so in between.
        let ran =
            before >= TaskState::Running || matches!(exit, Exit::Code { .. } | Exit::Signal { .. } | Exit::OutOfMemory);
        let failed = !task.killed && exit.is_failure();
        if let Some(ready) = task.ready.filter(|_| task.by != By::Helper && !rules.lag.is_zero()) {
            self.state.departed.push_back(Departed { ready, gone: now });
        }
        if !task.killed {
            self.count_exit(&task, &exit, now, rules);
        }
        // A replacement stands for a task that had been running: it stays wanted even where it could not be started.
        let replaced = (ran || task.by == By::Replacement) && !task.killed && rules.holds(task.by);
        if replaced {
            self.wait(self.state.backoff_until.map_or(now, |until| until.max(now)));
        }
        task.placement = placement.unwrap_or(task.placement);
        task.state = TaskState::Gone;
        task.since = now;
        Change { task, before, exit: Some(exit), replaced, failed }
    }

    /// Failures count up, successes down (Relay.Mesos's `max_failures`), and both move the backoff; helpers are
    /// counted, but hold nothing back.
    fn count_exit(&mut self, task: &Task, exit: &Exit, now: Timestamp, rules: &Rules) {
        let state = &mut self.state;
        if *exit == Exit::Unknown {
            return;
        }
        state.failures =
            if exit.is_failure() { state.failures.saturating_add(1) } else { state.failures.saturating_sub(1) };
        if task.by == By::Helper {
            return;
        }
        let ran = if task.state == TaskState::Running { now.since(task.since) } else { Duration::ZERO };
        let lived = rules.backoff.min.saturating_mul(2).max(delay(rules.backoff, state.streak)) <= ran;
        // A service is not meant to end: one that ends at once is held back as if it had failed.
        if !exit.is_failure() && (lived || !rules.holds(task.by)) {
            state.streak = 0;
            state.backoff_until = None;
            return;
        }
        // Tasks of one batch that fail together are one failure in a row, not as many as there are tasks.
        if state.failed_at.is_some_and(|failed| task.asked <= failed) && state.streak > 0 {
            return;
        }
        let next = if lived { 1 } else { state.streak.saturating_add(1) };
        // That where a task ran is gone says little of the task: it may be lost again, but need not wait for minutes.
        let most = if matches!(exit, Exit::Lost { .. }) { state.streak.max(LOSSES) } else { u32::MAX };
        state.streak = next.min(most);
        state.failed_at = Some(now);
        state.backoff_until = Some(now + delay(rules.backoff, state.streak));
    }

    /// Brings time-dependent facts up to `now`: delays until ready, effects that have shown. True when something changed.
    pub fn advance(&mut self, now: Timestamp, rules: &Rules) -> bool {
        let mut changed = false;
        if matches!(rules.ready, Ready::After(_)) && self.tally.ready < self.tally.running + self.tally.helpers {
            for task in self.tasks.values_mut() {
                self.tally.remove(task);
                if ripen(task, now, rules) {
                    changed = true;
                    if let Some(look) = &mut self.look {
                        look.unseen.insert(task.id.clone());
                    }
                }
                self.tally.add(task);
            }
        }
        while self.state.departed.front().is_some_and(|task| rules.lag <= now.since(task.gone)) {
            self.state.departed.pop_front();
            changed = true;
        }
        changed
    }
}

/// Makes a task ready that has run for the delay that it takes. True when it did.
fn ripen(task: &mut Task, now: Timestamp, rules: &Rules) -> bool {
    let Ready::After(delay) = rules.ready else { return false };
    let ripe = task.state == TaskState::Running && task.ready.is_none() && delay <= now.since(task.since);
    if ripe {
        task.ready = Some(task.since + delay);
    }
    ripe
}

/// The delay after `streak` failures in a row: none after none, then `min`, doubling, at most `max`.
fn delay(backoff: Backoff, streak: u32) -> Duration {
    match streak {
        0 => Duration::ZERO,
        n => backoff.min.saturating_mul(1 << (n - 1).min(20)).min(backoff.max),
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
