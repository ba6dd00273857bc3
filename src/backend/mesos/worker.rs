//! The worker: connects, feeds the [`Framework`] with what happens, and does what it says.
//!
//! Calls go out one after the other through a caller of their own, so that the stream is read while one of them waits.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::book::Book;
use super::framework::{Counters, Effect, Framework, News};
use super::{Board, MesosConfig, NAME, Order};
use crate::backend::{BackendError, KnownTask, Receipt, Standing, TaskUpdate};
use crate::core::model::{TaskId, TaskState, TaskStats};
use crate::mesos::wire;
use crate::mesos::wire::scheduler::{Accept, Acknowledge, Call, Event, Operation};
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
            Some(Order::Launch(_, reply) | Order::Kill(_, _, reply)) => drop(reply),
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
        Err(error) => {
            let refused = BackendError::Refused { backend: NAME.to_owned(), message: error.to_string() };
            show(&board, |shown| shown.standing = Standing::Over { message: error.to_string(), code: 78 });
            reply.send(Err(refused)).ok();
        }
    }
}

fn show(board: &Board, change: impl FnOnce(&mut super::Shown)) {
    change(&mut board.lock().unwrap_or_else(PoisonError::into_inner));
}

/// What the caller is given.
enum Sending {
    Call(Box<Call>),
    /// Answers when everything before it has been sent.
    Flush(oneshot::Sender<()>),
}

/// Where calls go, and where those of them come back that did not arrive.
struct Caller {
    calls: mpsc::UnboundedSender<Sending>,
    failed: mpsc::UnboundedReceiver<(Vec<TaskId>, String)>,
}

impl Caller {
    fn start(scheduler: Scheduler) -> Self {
        let (calls, mut queue) = mpsc::unbounded_channel::<Sending>();
        let (lost, failed) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(sending) = queue.recv().await {
                match sending {
                    Sending::Flush(done) => drop(done.send(())),
                    Sending::Call(call) => {
                        if let Err(error) = scheduler.call(&call).await {
                            tracing::warn!(call = call.name(), error = %error, "a call did not reach the master");
                            // The worker has gone when nobody takes it.
                            lost.send((launched(&call), error.to_string())).ok();
                        }
                    }
                }
            }
        });
        Self { calls, failed }
    }
}

/// The tasks that a call launches.
fn launched(call: &Call) -> Vec<TaskId> {
    let Call::Accept(Accept { operations, .. }) = call else { return Vec::new() };
    let infos = operations.iter().filter_map(|operation| match operation {
        Operation::Launch(launch) => Some(&launch.task_infos),
        _ => None,
    });
    infos.flatten().map(|info| TaskId::from(info.task_id.as_str())).collect()
}

struct Worker {
    config: MesosConfig,
    board: Board,
    book: Book,
    framework: Framework,
    scheduler: Scheduler,
    signals: Signals,
    caller: Caller,
    updates: mpsc::Sender<TaskUpdate>,
    recovered: Option<oneshot::Sender<Result<(), BackendError>>>,
    receipts: mpsc::UnboundedSender<u64>,
    durable: mpsc::UnboundedReceiver<u64>,
    /// What is to be acknowledged once its receipt comes.
    unacknowledged: BTreeMap<u64, Acknowledge>,
    serial: u64,
    began: Instant,
    facts: BTreeMap<&'static str, String>,
    /// Whether an id of an earlier run was given and no master has confirmed it yet.
    returning: bool,
    over: bool,
}

impl Worker {
    fn connect(
        config: MesosConfig,
        board: &Board,
        updates: mpsc::Sender<TaskUpdate>,
        known: Vec<KnownTask>,
    ) -> Result<Self, MesosError> {
        let book = Book::new(config.state_dir.as_deref());
        let id = match book.framework_id() {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(error = %error, "cannot read the framework's id");
                return Err(MesosError::Ended);
            }
        };
        let mut framework = Framework::new(config.setting.clone());
        framework.recover(
            known
                .into_iter()
                .map(|task| {
                    let ran = matches!(task.state, TaskState::Running | TaskState::Killing);
                    (task.id, task.policy, task.placement, ran)
                })
                .collect(),
        );
        let returning = id.is_some();
        let (scheduler, signals) = open(&config, id, &framework)?;
        let caller = Caller::start(scheduler.clone());
        let (receipts, durable) = mpsc::unbounded_channel();
        show(board, |shown| shown.standing = Standing::Lost("no master has been reached yet".to_owned()));
        Ok(Self {
            config,
            board: board.clone(),
            book,
            framework,
            scheduler,
            signals,
            caller,
            updates,
            recovered: None,
            receipts,
            durable,
            unacknowledged: BTreeMap::new(),
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
                Some(serial) = self.durable.recv() => {
                    if let Some(acknowledge) = self.unacknowledged.remove(&serial) {
                        self.call(Call::Acknowledge(acknowledge));
                    }
                }
                Some((tasks, why)) = self.caller.failed.recv() => {
                    tracing::debug!(tasks = tasks.len(), why = %why, "asking what became of tasks");
                    self.framework.not_accepted(self.began.elapsed(), &tasks);
                }
                () = decision, if held.is_some() => {
                    self.framework.reconsider(self.now());
                }
                _ = tick.tick() => {
                    self.framework.tick(self.now());
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
        self.show_facts();
    }

    fn event(&mut self, event: Event, now: Duration) {
        match event {
            Event::Offers(offers) => self.framework.offers(now, offers),
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
                // An agent is to be emptied: nothing is promised, and what the operator does to it is told by statuses.
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
        show(&self.board, |shown| {
            shown.stats.extend(figures.tasks.into_iter().map(|(id, stats)| (TaskId::from(id.as_str()), stats)));
        });
    }

    /// The subscription is over for good, or the id of an earlier run is.
    fn ended(&mut self, end: &End) {
        let gone = matches!(end, End::Error(message) if message.contains("removed") || message.contains("torn down"));
        if gone && self.returning {
            tracing::warn!(end = %end, "the framework of the earlier run is over, beginning a new one");
            let opened = self
                .book
                .keep(None)
                .map_err(|error| error.to_string())
                .and_then(|()| open(&self.config, None, &self.framework).map_err(|error| error.to_string()));
            match opened {
                Ok((scheduler, signals)) => {
                    self.returning = false;
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
        for effect in self.framework.take() {
            match effect {
                Effect::Call(call) => self.call(call),
                Effect::Tell(news) => self.tell(*news).await,
                Effect::Roles(roles) => {
                    let info = self.config.framework(None, roles.into_iter().collect());
                    if let Err(error) = self.scheduler.update_framework(info).await {
                        tracing::error!(error = %error, "the master does not take the framework's roles");
                    }
                }
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
    }

    fn call(&self, call: Call) {
        if !self.over {
            // The caller ends with us.
            self.caller.calls.send(Sending::Call(Box::new(call))).ok();
        }
    }

    async fn tell(&mut self, news: News) {
        let News { id, state, healthy, placement, exit, acknowledge } = news;
        if state == TaskState::Gone {
            show(&self.board, |shown| {
                shown.stats.remove(&id);
            });
        }
        let receipt = acknowledge.map(|acknowledge| {
            self.serial += 1;
            self.unacknowledged.insert(self.serial, acknowledge);
            Receipt::new(self.serial, self.receipts.clone())
        });
        let update = TaskUpdate { id, state, healthy, placement, exit, receipt };
        // The engine has ended when nobody takes it.
        self.updates.send(update).await.ok();
    }

    fn show_facts(&mut self) {
        let counters = self.framework.counters;
        let (queued, placed, unreachable) = self.framework.counts();
        let roles: Vec<String> = self.framework.roles().into_iter().collect();
        self.facts.insert("roles", roles.join(","));
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

    /// Lets go: without a state folder the framework and all of its tasks end.
    async fn shut_down(&mut self, kill_all: bool) {
        if self.config.state_dir.is_none() {
            self.call(Call::Teardown);
        } else if kill_all {
            let ids = self.framework.places().map(|(id, _)| id.clone()).collect();
            self.framework.kill(self.now(), ids, Duration::ZERO);
            self.carry_out().await;
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

fn open(config: &MesosConfig, id: Option<String>, framework: &Framework) -> Result<(Scheduler, Signals), MesosError> {
    let masters = config.masters.clone().ok_or(MesosError::Ended)?;
    let info = config.framework(id, framework.roles().into_iter().collect());
    Scheduler::connect(config.scheduler(masters, info))
}
