//! The worker: connects, feeds the [`Framework`] with what happens, and does what it says.
//!
//! Calls go out one after the other through a caller of their own, so that the stream is read while one of them waits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::book::Book;
use super::framework::{Counters, Effect, Framework, News};
use super::offer;
use super::outbox::Outbox;
use super::{Board, MesosConfig, NAME, Order};
use crate::backend::{BackendError, KnownTask, Receipt, Standing, TaskUpdate};
use crate::core::model::{TaskId, TaskState, TaskStats};
use crate::mesos::wire;
use crate::mesos::wire::FrameworkInfo;
use crate::mesos::wire::scheduler::{Acknowledge, Call, Event};
use crate::mesos::{Connected, End, MesosError, Scheduler, Signal, Signals};

/// How often time alone is looked at.
const TICK: Duration = Duration::from_millis(500);

/// How long a stop waits for the last calls to arrive.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Runs until the backend is shut down or dropped.
pub(super) async fn run(config: MesosConfig, mut inbox: mpsc::Receiver<Order>, board: Board) {
    // Nothing is connected to before somebody needs it.
    let (known, updates, reply) = loop {
        match inbox.recv().await {
            None => return,
            Some(Order::Recover(known, updates, reply)) => break (known, updates, reply),
            Some(Order::Launch(_, reply) | Order::Kill(_, _, reply) | Order::Withdraw(_, reply)) => drop(reply),
            Some(Order::Shutdown(_, reply)) => {
                reply.send(()).ok();
                return;
            }
        }
    };
    match Worker::connect(config, &board, updates, known) {
        Ok(mut worker) => {
            worker.recovered = Some(reply);
            worker.run(inbox).await;
        }
        Err((message, code)) => {
            let refused = BackendError::Refused { backend: NAME.to_owned(), message: message.clone() };
            show(&board, |shown| shown.standing = Standing::Over { message, code });
            reply.send(Err(refused)).ok();
        }
    }
}

fn show(board: &Board, change: impl FnOnce(&mut super::Shown)) {
    change(&mut board.lock().unwrap_or_else(PoisonError::into_inner));
}

/// How long a role that the master has refused is left alone.
const ROLE_AGAIN: Duration = Duration::from_secs(30);

/// How long no role is told after one that did not reach the master.
const AFTER_MISS: Duration = Duration::from_secs(2);

/// What the caller is given.
enum Sending {
    Call(Box<Call>),
    /// The framework with another role, and the roles for which it wants no offers.
    Role(Box<FrameworkInfo>, Vec<String>, Attempt),
    /// Answers when everything before it has been sent.
    Flush(oneshot::Sender<()>),
}

/// A role that the master is told of, under which subscription.
#[derive(Clone, Debug, PartialEq)]
struct Attempt {
    role: String,
    subscription: u64,
}

/// What comes back from the caller.
enum Sent {
    /// A call that did not arrive, as far as one can tell.
    Lost(Box<Call>),
    /// What became of telling a role.
    Role(Attempt, Result<(), MesosError>),
}

/// Where calls go, and what comes back of them.
struct Caller {
    calls: mpsc::UnboundedSender<Sending>,
    sent: mpsc::UnboundedReceiver<Sent>,
}

impl Caller {
    fn start(scheduler: Scheduler) -> Self {
        let (calls, mut queue) = mpsc::unbounded_channel::<Sending>();
        let (back, sent) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(sending) = queue.recv().await {
                match sending {
                    Sending::Flush(done) => drop(done.send(())),
                    Sending::Call(call) => {
                        if let Err(error) = scheduler.call(&call).await {
                            tracing::warn!(call = call.name(), error = %error, "a call did not reach the master");
                            // What the master has refused it would refuse again; of launches it says what became of them.
                            let passes =
                                !matches!(&error, MesosError::Status { status, .. } if status.is_client_error());
                            if passes || matches!(*call, Call::Accept(_)) {
                                // The worker has gone when nobody takes it.
                                back.send(Sent::Lost(call)).ok();
                            }
                        }
                    }
                    Sending::Role(framework, suppressed, attempt) => {
                        let told = scheduler.update_framework(*framework, &suppressed).await;
                        back.send(Sent::Role(attempt, told)).ok();
                    }
                }
            }
        });
        Self { calls, sent }
    }
}

/// What the master knows of the framework's roles.
#[derive(Default)]
struct Told {
    roles: BTreeSet<String>,
    /// The role that it is told of just now; one at a time, so that a refusal is of one.
    asking: Option<Attempt>,
    /// Roles that it has refused: when, and why.
    refused: BTreeMap<String, (Instant, String)>,
    /// When one could not be told at all.
    missed: Option<Instant>,
    /// The subscription, by number.
    subscription: u64,
}

impl Told {
    /// The next role that the master is to be told of.
    fn next(&self, wanted: &BTreeSet<String>) -> Option<String> {
        let again = |role: &&String| self.refused.get(*role).is_none_or(|(at, _)| ROLE_AGAIN <= at.elapsed());
        let may = self.asking.is_none() && self.missed.is_none_or(|at| AFTER_MISS <= at.elapsed());
        may.then(|| wanted.difference(&self.roles).find(again).cloned()).flatten()
    }
}

struct Worker {
    config: MesosConfig,
    board: Board,
    book: Book,
    framework: Framework,
    told: Told,
    scheduler: Scheduler,
    signals: Signals,
    caller: Caller,
    updates: mpsc::Sender<TaskUpdate>,
    recovered: Option<oneshot::Sender<Result<(), BackendError>>>,
    receipts: mpsc::UnboundedSender<u64>,
    durable: mpsc::UnboundedReceiver<u64>,
    /// What is to be acknowledged once its receipt comes.
    unacknowledged: BTreeMap<u64, Acknowledge>,
    outbox: Outbox,
    serial: u64,
    began: Instant,
    facts: BTreeMap<&'static str, String>,
    /// Whether an id of an earlier run was given and no master has confirmed it yet.
    returning: bool,
    over: bool,
}

impl Worker {
    /// With what is wrong, and the run's exit code, when it cannot.
    fn connect(
        config: MesosConfig,
        board: &Board,
        updates: mpsc::Sender<TaskUpdate>,
        known: Vec<KnownTask>,
    ) -> Result<Self, (String, i32)> {
        let book = Book::new(config.state_dir.as_deref());
        // A run that took a new id would lose its tasks.
        let id = book.framework_id().map_err(|error| {
            let file = book.path().unwrap_or(Path::new("")).display().to_string();
            (format!("{file}: expected the framework's id, which cannot be read: {error}"), 74)
        })?;
        let mut framework = Framework::new(config.setting.clone());
        framework.recover(known.into_iter().map(|task| (task.id, task.policy, task.state, task.placement)).collect());
        let returning = id.is_some();
        let (scheduler, signals) = open(&config, id).map_err(|error| (error.to_string(), 78))?;
        let caller = Caller::start(scheduler.clone());
        let (receipts, durable) = mpsc::unbounded_channel();
        show(board, |shown| shown.standing = Standing::Lost("no master has been reached yet".to_owned()));
        Ok(Self {
            config,
            board: board.clone(),
            book,
            framework,
            told: Told::default(),
            scheduler,
            signals,
            caller,
            updates,
            recovered: None,
            receipts,
            durable,
            unacknowledged: BTreeMap::new(),
            outbox: Outbox::default(),
            serial: 0,
            began: Instant::now(),
            facts: BTreeMap::new(),
            returning,
            over: false,
        })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let held = self.framework.held_until();
            let decision = tokio::time::sleep_until(self.began + held.unwrap_or_default());
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Shutdown(kill_all, reply)) => {
                        self.shut_down(kill_all).await;
                        reply.send(()).ok();
                        return;
                    }
                    Some(order) => self.order(order),
                    None => return,
                },
                signal = self.signals.recv(), if !self.over => match signal {
                    Some(signal) => self.signal(signal),
                    None => self.end(&End::Stopped),
                },
                Some(serial) = self.durable.recv() => self.on_durable(serial),
                Some(sent) = self.caller.sent.recv() => match sent {
                    Sent::Lost(call) => self.framework.not_sent(self.began.elapsed(), &call),
                    Sent::Role(attempt, told) => self.role_told(attempt, told),
                },
                () = decision, if held.is_some() => {
                    self.framework.reconsider(self.now());
                }
                _ = tick.tick() => {
                    self.give_up_calls();
                    self.framework.tick(self.now());
                    self.tell_role();
                    self.show_facts();
                }
            }
            self.carry_out().await;
        }
    }

    fn order(&mut self, order: Order) {
        let now = self.now();
        // Whoever asked may have gone meanwhile.
        match order {
            Order::Launch(requests, reply) => {
                self.framework.launch(now, requests);
                reply.send(()).ok();
            }
            Order::Kill(ids, grace, reply) => {
                self.framework.kill(now, ids, grace);
                reply.send(()).ok();
            }
            Order::Withdraw(ids, reply) => {
                self.framework.withdraw(now, ids);
                reply.send(()).ok();
            }
            Order::Recover(_, _, reply) => drop(reply.send(Ok(()))),
            Order::Shutdown(..) => {}
        }
    }

    fn signal(&mut self, signal: Signal) {
        let now = self.now();
        match signal {
            Signal::Subscribed(connected) => self.subscribed(*connected),
            Signal::Event(event) => self.event(event, now),
            Signal::Lost(why) => {
                tracing::warn!(why = %why, "the stream of the Mesos master is lost, subscribing again");
                self.framework.lost();
                self.clear_outbox();
                self.lost(why);
            }
            Signal::Failed(why) => {
                tracing::warn!(why = %why, "no subscription with a Mesos master yet");
                self.lost(why);
            }
            Signal::Ended(end) => self.ended(&end),
        }
    }

    fn lost(&mut self, why: String) {
        self.facts.remove("subscribed");
        self.facts.remove("reconciled");
        show(&self.board, |shown| {
            shown.standing = Standing::Lost(why);
            shown.leader = None;
        });
    }

    fn subscribed(&mut self, connected: Connected) {
        let id = connected.framework_id.as_str().to_owned();
        tracing::info!(framework = %id, master = %connected.master, "subscribed with the Mesos master");
        // Nothing may be launched under an id that the next run does not know.
        if let Err(error) = self.book.keep(Some(&id)) {
            self.over = true;
            let message = format!("the framework's id cannot be kept: {error}");
            show(&self.board, |shown| shown.standing = Standing::Over { message, code: 74 });
            return;
        }
        self.returning = false;
        let subscription = connected.serial;
        self.told = Told { roles: connected.roles.iter().cloned().collect(), subscription, ..Told::default() };
        let leader = connected.master.parse().ok().map(|url| (url, id.clone()));
        self.facts.insert("framework", id);
        self.facts.insert("leader", connected.master);
        self.facts.insert("subscribed", wall_clock());
        self.facts.remove("reconciled");
        show(&self.board, |shown| {
            shown.standing = Standing::Ready;
            shown.leader = leader;
        });
        self.framework.subscribed(self.now());
        // Before anything is asked for in it.
        self.tell_role();
        self.show_facts();
    }

    /// Tells the master of a role that it does not know to be the framework's, if there is one.
    fn tell_role(&mut self) {
        if self.over || !self.framework.is_subscribed() {
            return;
        }
        let Some(role) = self.told.next(&self.framework.roles()) else { return };
        let roles = self.told.roles.iter().cloned().chain([role.clone()]).collect();
        let attempt = Attempt { role, subscription: self.told.subscription };
        self.told.asking = Some(attempt.clone());
        let framework = Box::new(self.config.framework(None, roles));
        // The caller ends with us.
        self.caller.calls.send(Sending::Role(framework, self.framework.suppressed(), attempt)).ok();
    }

    fn role_told(&mut self, attempt: Attempt, told: Result<(), MesosError>) {
        // A new subscription has begun with a list of its own.
        if self.told.asking.as_ref() != Some(&attempt) {
            return;
        }
        self.told.asking = None;
        match told {
            Ok(()) => {
                self.told.refused.remove(&attempt.role);
                self.told.roles.insert(attempt.role);
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(role = %attempt.role, %error, "the master could not be told of a policy's role yet");
                self.told.missed = Some(Instant::now());
            }
            Err(error) => {
                let why = error.to_string();
                let before = self.told.refused.get(&attempt.role);
                if before.is_none_or(|(_, before)| *before != why) {
                    tracing::error!(
                        role = %attempt.role,
                        error = %why,
                        "the master does not take a role of a policy; its tasks wait, and the role is tried again"
                    );
                }
                self.told.refused.insert(attempt.role, (Instant::now(), why));
            }
        }
        self.tell_role();
        self.show_facts();
    }

    fn event(&mut self, event: Event, now: Duration) {
        match event {
            Event::Offers(offers) => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let (closed, open) = offers.into_iter().partition(|offer| offer::is_in_maintenance(offer, wall));
                self.framework.pass_over(closed);
                self.framework.offers(now, open);
            }
            Event::Update(status) => {
                tracing::debug!(
                    task = %status.task_id,
                    state = %status.state,
                    message = status.message.as_deref().unwrap_or_default(),
                    "status"
                );
                self.framework.update(now, &status);
            }
            Event::Rescind(id) => self.framework.rescinded(&id),
            Event::Failure(failure) => {
                let executor = failure.executor_id.as_ref().map(wire::ExecutorId::as_str);
                self.framework.failure(failure.agent_id.as_ref(), executor);
            }
            Event::Message(message) => self.figures(&message.data.0),
            Event::InverseOffers(offers) => {
                // An agent is to be emptied. Tasks stay on it until the operator takes it down, which statuses tell; from the
                // beginning of its maintenance on nothing more is launched there.
                let inverse_offer_ids = offers.into_iter().map(|offer| offer.inverse_offer_id).collect();
                let answer = crate::mesos::wire::scheduler::InverseOffers { inverse_offer_ids, filters: None };
                self.call(Call::AcceptInverseOffers(answer));
            }
            other => tracing::debug!(event = ?other, "passed over"),
        }
    }

    /// CPU and memory of tasks, from an executor of ours.
    fn figures(&self, data: &[u8]) {
        #[derive(Deserialize)]
        struct Figures {
            tasks: BTreeMap<String, TaskStats>,
        }
        let Ok(figures) = serde_json::from_slice::<Figures>(data) else {
            tracing::debug!(bytes = data.len(), "a message of an executor that says nothing to us");
            return;
        };
        // A task that is gone is told of no more.
        let known = |(id, stats): (String, TaskStats)| {
            let id = TaskId::from(id.as_str());
            self.framework.knows(&id).then_some((id, (std::time::Instant::now(), stats)))
        };
        show(&self.board, |shown| shown.stats.extend(figures.tasks.into_iter().filter_map(known)));
    }

    /// The subscription is over for good, or the id of an earlier run is.
    fn ended(&mut self, end: &End) {
        let gone = matches!(end, End::Error(message) if message.contains("removed") || message.contains("torn down"));
        // Without a state folder the cluster forgets the framework when its stream breaks, and ends its tasks.
        if gone && (self.returning || self.config.state_dir.is_none()) {
            tracing::warn!(end = %end, "the framework is over, beginning a new one");
            let opened = self
                .book
                .keep(None)
                .map_err(|error| error.to_string())
                .and_then(|()| open(&self.config, None).map_err(|error| error.to_string()));
            match opened {
                Ok((scheduler, signals)) => {
                    self.returning = false;
                    self.framework.removed();
                    self.clear_outbox();
                    self.caller = Caller::start(scheduler.clone());
                    (self.scheduler, self.signals) = (scheduler, signals);
                    return;
                }
                Err(error) => tracing::error!(error = %error, "cannot begin a new framework"),
            }
        }
        self.end(end);
    }

    fn end(&mut self, end: &End) {
        self.over = true;
        self.framework.lost();
        let (message, code) = match end {
            End::Refused { status: 401 | 403, what } => (what.clone(), 77),
            End::Error(message) if message.contains("failed over") => {
                ("another scheduler has taken the framework over; this one stops acting".to_owned(), 69)
            }
            End::Error(message) if message.contains("not authorized") || message.contains("unauthorized") => {
                (message.clone(), 77)
            }
            other => (other.to_string(), 69),
        };
        // Whoever asks for our standing tells of it.
        self.facts.remove("subscribed");
        self.facts.remove("reconciled");
        show(&self.board, |shown| shown.standing = Standing::Over { message: message.clone(), code });
    }

    /// Does what the framework has decided.
    async fn carry_out(&mut self) {
        let mut places = BTreeSet::new();
        for effect in self.framework.take() {
            match effect {
                Effect::Call(call) => {
                    let after =
                        if matches!(call, Call::Accept(_)) { std::mem::take(&mut places) } else { BTreeSet::new() };
                    self.outbox.push(self.now(), call, after);
                }
                Effect::Tell(news) => places.extend(self.tell(*news).await),
                Effect::Roles => self.tell_role(),
                Effect::Reconciled => {
                    self.facts.insert("reconciled", wall_clock());
                    self.show_facts();
                }
                Effect::Recovered => {
                    if let Some(reply) = self.recovered.take() {
                        reply.send(Ok(())).ok();
                    }
                }
            }
        }
        self.send_ready();
    }

    fn send_ready(&mut self) {
        for call in self.outbox.ready() {
            self.call(call);
        }
    }

    fn on_durable(&mut self, serial: u64) {
        match self.unacknowledged.remove(&serial) {
            Some(acknowledge) => self.call(Call::Acknowledge(acknowledge)),
            None => self.outbox.durable(serial),
        }
    }

    /// Gives up launches whose places are not written down in time.
    fn give_up_calls(&mut self) {
        // What has been is not to be missed for nobody having looked.
        while let Ok(serial) = self.durable.try_recv() {
            self.on_durable(serial);
        }
        self.send_ready();
        for call in self.outbox.overdue(self.now()) {
            tracing::warn!(
                call = call.name(),
                "not sent: where its tasks are to run could not be written down in time"
            );
            self.framework.unsent(&call);
        }
    }

    /// The stream is over, and all offers with it.
    fn clear_outbox(&mut self) {
        for call in self.outbox.clear() {
            self.framework.unsent(&call);
        }
    }

    fn call(&self, call: Call) {
        if !self.over {
            // The caller ends with us.
            self.caller.calls.send(Sending::Call(Box::new(call))).ok();
        }
    }

    /// Tells the engine; with the serial of what must be durable before the next launch is sent, if that is its place.
    async fn tell(&mut self, news: News) -> Option<u64> {
        let News { id, state, healthy, placement, exit, acknowledge } = news;
        if state == TaskState::Gone {
            show(&self.board, |shown| {
                shown.stats.remove(&id);
            });
        }
        let is_place = acknowledge.is_none() && state == TaskState::Staging;
        let receipt = (is_place || acknowledge.is_some()).then(|| {
            self.serial += 1;
            self.unacknowledged.extend(acknowledge.map(|acknowledge| (self.serial, acknowledge)));
            let receipt = if is_place { Receipt::pressing } else { Receipt::new };
            receipt(self.serial, self.receipts.clone())
        });
        let update = TaskUpdate { id, state, healthy, placement, exit, receipt };
        // The engine has ended when nobody takes it.
        self.updates.send(update).await.ok();
        is_place.then_some(self.serial)
    }

    fn show_facts(&mut self) {
        let counters = self.framework.counters;
        let (queued, placed, unreachable) = self.framework.counts();
        let roles: Vec<String> = self.framework.roles().into_iter().collect();
        self.facts.insert("roles", roles.join(","));
        let refused = self.told.refused.iter().map(|(role, (_, why))| format!("{role}: {why}"));
        match refused.collect::<Vec<_>>().join("; ") {
            refused if refused.is_empty() => drop(self.facts.remove("roles_refused")),
            refused => drop(self.facts.insert("roles_refused", refused)),
        }
        self.facts.insert("suppressed", self.framework.is_suppressed().to_string());
        let Counters { offers, accepted, declined, rescinded } = counters;
        let held = self.framework.held();
        self.facts.insert(
            "offers",
            format!("{held} held, {offers} received, {accepted} accepted, {declined} declined, {rescinded} rescinded"),
        );
        self.facts.insert("tasks", format!("{placed} placed, {queued} waiting for offers, {unreachable} unreachable"));
        let (facts, elsewhere) = (self.facts.clone(), self.framework.elsewhere());
        show(&self.board, |shown| {
            shown.facts = facts;
            shown.elsewhere = elsewhere;
        });
    }

    /// Lets go: without a state folder, or where all tasks are to end, the framework ends as well. The id that is kept is then
    /// one that the cluster does not know any more, and the next run gets a new one.
    async fn shut_down(&mut self, kill_all: bool) {
        if self.config.state_dir.is_none() || kill_all {
            self.call(Call::Teardown);
        }
        let (done, flushed) = oneshot::channel();
        self.caller.calls.send(Sending::Flush(done)).ok();
        if tokio::time::timeout(LAST_CALLS, flushed).await.is_err() {
            tracing::warn!("the last calls have not reached the Mesos master");
        }
        self.scheduler.stop();
    }
}

/// The time of day, for those who look on.
fn wall_clock() -> String {
    jiff::Timestamp::try_from(SystemTime::now()).map(|at| at.to_string()).unwrap_or_default()
}

/// Starts a client. Roles of policies come later, one by one: one that the master refuses is no reason to be refused oneself.
fn open(config: &MesosConfig, id: Option<String>) -> Result<(Scheduler, Signals), MesosError> {
    let masters = config.masters.clone().ok_or(MesosError::Ended)?;
    let info = config.framework(id, vec![config.setting.role.clone()]);
    Scheduler::connect(config.scheduler(masters, info))
}
