//! The control loop: the one owner of all mutable state.
//!
//! It takes [`Event`]s and due timers, one at a time, and never waits for anybody: scripts, backends, the store and
//! file loading run in workers that answer with events. What each sort of event does is in the modules below; this
//! one holds the state, the select loop, and the ways out of the loop (calls, writes, publications).
//!
//! Invariants:
//! - a task is recorded (durably, where there is a store) before its backend hears of it;
//! - in a dry run nothing reaches a backend: [`Loop::send`] is the only way there, and it drops everything;
//! - a policy's calls never overlap, and the answer to a call that is no longer awaited changes nothing.

mod action;
mod carry_out;
mod commands;
mod counted;
mod shadow;
mod shutdown;
mod sources;
mod tick;
mod updates;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::backend::{Backend, TaskUpdate};
use crate::core::model::{PolicyName, TaskId};
use crate::core::time::Timestamp;
use crate::log::DecisionLog;
use crate::script::ScriptHost;

use super::backend_worker::{BackendRequest, Queues, Work};
use super::clock::Clock;
use super::config::{GlobalBudget, RunEnd};
use super::event::Event;
use super::handle::{Published, Request};
use super::memory::Garbage;
use super::policy::Policy;
use super::record::Write;
use super::store::{Store, StoreError};
use super::ticker::{Timer, Timers};
use super::view::{PolicySnapshot, StreamEvent, Totals};
use super::watch::Watch;

pub(crate) use action::{Action, action};
pub(crate) use commands::nearest;
pub(crate) use counted::CountAnswer;
pub(crate) use sources::{Source, SourceOrigin, policy_files, stem};
pub(crate) use tick::{rehearse, with_plan};

/// How long the tasks may take to end when the run stops them.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// Upper bounds of the lag histogram, in seconds.
const LAG_BOUNDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, f64::INFINITY];

/// What the loop needs from whoever starts it.
pub(crate) struct LoopParts {
    pub(crate) host: ScriptHost,
    pub(crate) store: Option<Store>,
    pub(crate) log: Option<DecisionLog>,
    pub(crate) clock: Clock,
    pub(crate) backends: BTreeMap<String, Backend>,
    pub(crate) queues: Queues,
    pub(crate) published: Arc<Published>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) updates: mpsc::Sender<TaskUpdate>,
    pub(crate) watch: Option<Watch>,
    pub(crate) settings: Settings,
}

/// Settings that do not change during a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) dry_run: bool,
    pub(crate) keep_tasks: bool,
    pub(crate) exit_on_stop: bool,
    pub(crate) budget: Option<GlobalBudget>,
    pub(crate) run_for: Option<Duration>,
    pub(crate) dirs: Vec<PathBuf>,
}

/// A backend's standing.
#[derive(Debug)]
pub(crate) enum BackendState {
    /// No policy and no task needs it, so it has not been asked anything: an engine that nobody uses may be away.
    Idle,
    /// `recover` has not been answered.
    Recovering { attempts: u32 },
    /// At work.
    Ready,
    /// The last request failed.
    Failing(String),
}

/// The loop's state.
pub(crate) struct Loop {
    host: ScriptHost,
    store: Option<Store>,
    log: Option<DecisionLog>,
    clock: Clock,
    backends: BTreeMap<String, Backend>,
    backend_states: BTreeMap<String, BackendState>,
    queues: Queues,
    published: Arc<Published>,
    events: mpsc::Sender<Event>,
    updates: mpsc::Sender<TaskUpdate>,
    watch: Option<Watch>,
    settings: Settings,
    timers: Timers,
    policies: Vec<Option<Policy>>,
    /// Keys whose policies are gone.
    free: Vec<usize>,
    /// Policies and sources that there ever were: a key is used again, and nothing of its last owner must act on the
    /// next.
    births: u64,
    names: HashMap<PolicyName, usize>,
    owners: HashMap<TaskId, usize>,
    sources: Vec<Option<Source>>,
    /// Indices whose sources are gone.
    free_sources: Vec<usize>,
    totals: Totals,
    ids: ulid::Generator,
    /// Changes that count towards the global budget.
    spent: VecDeque<(Timestamp, u32)>,
    /// What decisions that are being carried out will use of it, by policy.
    reserved: BTreeMap<usize, u32>,
    /// Kills that a backend has not taken; they are asked again.
    unsent: BTreeSet<TaskId>,
    first_ticks: usize,
    /// How often changes were saved.
    saves: usize,
    problems: BTreeMap<String, String>,
    /// What VMs that went or came may have left.
    garbage: Garbage,
    stopping: Option<Stopping>,
    end: Option<RunEnd>,
}

/// The run is on its way out.
#[derive(Debug)]
struct Stopping {
    end: RunEnd,
    /// Tasks are being ended.
    killing: bool,
}

impl Loop {
    pub(crate) fn new(parts: LoopParts) -> Self {
        // A count backend has nothing to recover as a whole: its workloads are observed one by one.
        let state = |backend: &Backend| match backend {
            Backend::Tasks(_) => BackendState::Idle,
            Backend::Count(_) => BackendState::Ready,
        };
        let backend_states = parts.backends.iter().map(|(name, backend)| (name.clone(), state(backend))).collect();
        Self {
            host: parts.host,
            store: parts.store,
            log: parts.log,
            clock: parts.clock,
            backends: parts.backends,
            backend_states,
            queues: parts.queues,
            published: parts.published,
            events: parts.events,
            updates: parts.updates,
            watch: parts.watch,
            settings: parts.settings,
            timers: Timers::default(),
            policies: Vec::new(),
            free: Vec::new(),
            births: 0,
            names: HashMap::new(),
            owners: HashMap::new(),
            sources: Vec::new(),
            free_sources: Vec::new(),
            totals: Totals { lag: LAG_BOUNDS.iter().map(|bound| (*bound, 0)).collect(), ..Totals::default() },
            ids: ulid::Generator::new(),
            spent: VecDeque::new(),
            reserved: BTreeMap::new(),
            unsent: BTreeSet::new(),
            first_ticks: 0,
            saves: 0,
            problems: BTreeMap::new(),
            garbage: Garbage::default(),
            stopping: None,
            end: None,
        }
    }

    /// Runs until a signal, `--for`, or the end of every policy.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        mut updates: mpsc::Receiver<TaskUpdate>,
        mut commands: mpsc::Receiver<Request>,
    ) -> RunEnd {
        let now = Instant::now();
        self.timers.set(now + Duration::from_millis(500), Timer::Chores);
        self.timers.set(now + Duration::from_secs(2), Timer::Stats);
        if self.backends.values().any(|backend| matches!(backend, Backend::Count(_))) {
            self.timers.set(now, Timer::Observe);
        }
        if let Some(run_for) = self.settings.run_for {
            self.timers.set(now + run_for, Timer::End);
        }
        self.recover_backends();
        loop {
            let next = self.timers.next().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {
                    self.on_timers();
                    // Timers come first, so that ticks are on time; when they are due without a pause, everything else
                    // gets its turn here.
                    for _ in 0..64 {
                        if let Ok(update) = updates.try_recv() {
                            self.on_update(update);
                        }
                        if let Ok(event) = inbox.try_recv() {
                            self.take(event, &mut updates);
                        }
                    }
                    if let Ok(request) = commands.try_recv() {
                        self.on_event(Event::Command(request));
                    }
                }
                Some(update) = updates.recv() => self.on_update(update),
                Some(event) = inbox.recv() => {
                    self.take(event, &mut updates);
                    // Several at a time where several are there: waiting anew costs more than most of them. Bounded,
                    // so that ticks are not late.
                    for _ in 0..32 {
                        let next = if self.end.is_none() { inbox.try_recv().ok() } else { None };
                        let Some(event) = next else { break };
                        self.take(event, &mut updates);
                    }
                }
                Some(request) = commands.recv() => self.on_event(Event::Command(request)),
            }
            if let Some(end) = self.end.take() {
                self.finish().await;
                return end;
            }
        }
    }

    fn take(&mut self, event: Event, updates: &mut mpsc::Receiver<TaskUpdate>) {
        if matches!(event, Event::Recovered { .. }) {
            // Everything that the backend said while it recovered comes before its answer.
            while let Ok(update) = updates.try_recv() {
                self.on_update(update);
            }
        }
        self.on_event(event);
    }

    fn on_timers(&mut self) {
        let now = Instant::now();
        // Bounded, so that answers are taken in between even when ticks are due all the time.
        for _ in 0..64 {
            let Some((due, timer)) = self.timers.pop_due(now) else { return };
            match timer {
                Timer::Tick(key, epoch) => self.on_due(key, epoch, due),
                Timer::Lapse(key, epoch) => self.on_lapse(key, epoch),
                Timer::Word(key, epoch) => self.on_word_due(key, epoch),
                Timer::Discover(source, round) => self.on_discover_due(source, round),
                Timer::Retire(source) => self.retire_if_gone(source),
                Timer::Chores => self.on_chores(now),
                Timer::Stats => self.sample_tasks(now),
                Timer::Observe => self.on_observe_due(now),
                Timer::Recover(name) => self.recover(&name),
                Timer::Wake(key) => self.on_wake(key, due),
                Timer::End => self.stop(RunEnd { code: 0, reason: "the run's time is over".to_owned() }),
                Timer::Abort => self.abort("tasks did not end in time"),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Observed { key, serial, observed } => self.on_observed(key, serial, *observed),
            Event::Acted { key, serial, acted } => self.on_acted(key, serial, *acted),
            Event::Victims { key, serial, order } => self.on_victims(key, serial, order),
            Event::Stop { key, serial, code } => self.on_stop(key, serial, code),
            Event::Drained { key, task, done } => self.on_drained(key, &task, done),
            Event::Migrated { key, serial, result } => self.on_migrated(key, serial, result),
            Event::Evaluated { policy, request, observed } => self.on_evaluated(&policy, request, *observed),
            Event::Loaded { source, serial, result, read } => self.on_loaded(source, serial, result, read),
            Event::Discovered { source, fleet, rows } => self.on_discovered(source, &fleet, rows),
            Event::Changed(paths) => self.on_changed(&paths),
            Event::Recovered { backend, result } => self.on_recovered(&backend, result),
            Event::BackendFailed { backend, asked, error } => self.on_backend_failed(&backend, asked, &error),
            Event::NotRecorded { launches, kills, error } => self.on_not_recorded(launches, kills, &error),
            Event::BackendDone { backend } => self.on_backend_done(&backend),
            Event::Shadow { key, serial, answer } => self.on_shadow(key, serial, answer),
            Event::Counted(answer) => self.on_counted(*answer),
            Event::Stats(stats) => self.on_stats(stats),
            Event::Command(request) => self.on_command(request),
            Event::Signal(signal) => self.on_signal(signal),
            Event::WorkerDied { name, reason } => {
                tracing::error!(worker = %name, reason = %reason, "a worker ended");
                self.problems.insert(format!("worker {name}"), reason);
            }
        }
    }

    /// A policy by key, if it is still there.
    fn policy(&mut self, key: usize) -> Option<&mut Policy> {
        self.policies.get_mut(key).and_then(Option::as_mut)
    }

    /// Runs a call in a worker of its own and sends its event to the loop.
    fn spawn(&self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let event = work.await;
            // Nobody is left to tell once the loop has ended.
            events.send(event).await.ok();
        });
    }

    /// Calls a policy's script on the script threads and sends its event to the loop. `call` is given what is left of
    /// `limit`, which runs from now.
    fn call_script<F>(&self, limit: Duration, call: impl FnOnce(Duration) -> F + Send + 'static)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let (until, events) = (Instant::now() + limit, self.events.clone());
        self.host.spawn(async move {
            let event = call(until.saturating_duration_since(Instant::now())).await;
            // Nobody is left to tell once the loop has ended.
            events.send(event).await.ok();
        });
    }

    /// Hands writes to the store. With `sync`, gives what to wait for; without a store there is nothing to wait for.
    fn write(&mut self, mut writes: Vec<Write>, sync: bool) -> Option<oneshot::Receiver<Result<(), StoreError>>> {
        let store = self.store.as_ref()?;
        if sync {
            // Timers mean nothing without the clock that they count in.
            writes.push(Write::Clock(self.clock.now(), self.clock.wall()));
            let (done, durable) = oneshot::channel();
            store.submit(writes, true, Some(done));
            Some(durable)
        } else {
            store.submit(writes, false, None);
            None
        }
    }

    /// Hands writes to the store that somebody waits for who can wait for a burst of them to be over.
    fn write_soon(&mut self, mut writes: Vec<Write>) -> Option<oneshot::Receiver<Result<(), StoreError>>> {
        let store = self.store.as_ref()?;
        writes.push(Write::Clock(self.clock.now(), self.clock.wall()));
        let (done, durable) = oneshot::channel();
        store.submit_soon(writes, done);
        Some(durable)
    }

    /// The one way to a backend. In a dry run it leads nowhere. False when the request could not be handed over.
    fn send(
        &mut self,
        backend: &str,
        policy: &PolicyName,
        work: Work,
        after: Option<oneshot::Receiver<Result<(), StoreError>>>,
    ) -> bool {
        if self.settings.dry_run {
            return true;
        }
        let Some(queue) = self.queues.get(backend) else { return false };
        queue.try_send(BackendRequest { policy: policy.clone(), work, after }).is_ok()
    }

    /// Publishes a policy as it is now.
    fn publish(&mut self, key: usize) -> Option<Arc<PolicySnapshot>> {
        let (now, wall) = (Instant::now(), self.clock.wall());
        let policy = self.policies.get(key).and_then(Option::as_ref)?;
        let snapshot = Arc::new(policy.snapshot(now, wall));
        write_lock(&self.published.policies).insert(snapshot.name.clone(), Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// Publishes a policy and tells subscribers, if there are any.
    fn announce(&mut self, key: usize, event: impl FnOnce(Arc<PolicySnapshot>) -> StreamEvent) {
        if let Some(snapshot) = self.publish(key) {
            self.tell(|| event(snapshot));
        }
    }

    /// Sends an event to subscribers, if there are any.
    fn tell(&self, event: impl FnOnce() -> StreamEvent) {
        if 0 < self.published.events.receiver_count() {
            // An error only says that the last reader left meanwhile.
            self.published.events.send(Arc::new(event())).ok();
        }
    }
}

pub(super) fn write_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
