//! The scheduler client: keeps a subscription alive and sends calls under it.
//!
//! One worker owns the stream and does what the [`Subscription`] says; calls go straight from [`Scheduler::call`] to the
//! master that the subscription is with, under its stream id, so a scheduler that was replaced is refused by the master.
//! It keeps no offers and no tasks, and repeats no call.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Response, Url};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::{Masters, endpoint};
use super::error::{MesosError, shown};
use super::http::{Http, HttpConfig, STREAM_ID};
use super::recordio::Decoder;
use super::subscription::{Effect, End, Input, PATH, Patience, State, Subscription};
use super::wire::scheduler::{Call, Event, Subscribe, Subscribed, UpdateFramework};
use super::wire::{FrameworkId, FrameworkInfo, MasterInfo};
use super::zookeeper;

/// How many signals may wait for whoever takes them before the stream is no longer read.
const MOST_SIGNALS: usize = 1024;

/// How long the answer to a call is waited for once its subscription is over.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// What masters say of a part of the framework that UPDATE_FRAMEWORK cannot change.
const UNSUPPORTED: &str = "unsupported";

/// What a scheduler is and where it goes.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Where the masters are.
    pub masters: Masters,
    /// The framework. With an `id` it is the one of before (failover); without, a new one.
    pub framework: FrameworkInfo,
    /// Credentials and TLS.
    pub http: HttpConfig,
    /// Masters found in ZooKeeper are asked over TLS.
    pub tls: bool,
    /// After that long without its client, ZooKeeper forgets a session; 10 s is usual.
    pub zookeeper_session: Duration,
    /// How long things may take.
    pub patience: Patience,
    /// The largest event that is taken, in bytes.
    pub most_record: usize,
}

impl SchedulerConfig {
    /// One with the usual patience.
    pub fn new(masters: Masters, framework: FrameworkInfo) -> Self {
        Self {
            masters,
            framework,
            http: HttpConfig::default(),
            tls: false,
            zookeeper_session: Duration::from_secs(10),
            patience: Patience::default(),
            most_record: 256 << 20,
        }
    }
}

/// What a scheduler hears, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// There is a subscription. Offers of an earlier one are void, and tasks are to be reconciled.
    Subscribed(Box<Connected>),
    /// An event of Mesos, other than SUBSCRIBED, HEARTBEAT and ERROR.
    Event(Event),
    /// The stream is lost; the client is on its way to a new one. Says why.
    Lost(String),
    /// An attempt to subscribe failed; the client goes on. Says why.
    Failed(String),
    /// It is over. Nothing comes after this. (A client that was stopped with its signals piled up may leave this out.)
    Ended(End),
}

/// A subscription that has come to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Connected {
    /// The framework's id, to be kept for later runs.
    pub framework_id: FrameworkId,
    /// The URL of the leading master.
    pub master: String,
    /// What it says of itself.
    pub master_info: Option<MasterInfo>,
    /// Between two heartbeats, as the master says.
    pub heartbeat: Option<Duration>,
    /// The roles that the framework subscribed with; they may have been changed on the way.
    pub roles: Vec<String>,
    /// Which subscription of this client it is, from 1.
    pub serial: u64,
}

/// How things stand, for those who look on.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The framework's id, once there is one.
    pub framework_id: Option<FrameworkId>,
    /// The master that the subscription is with, or is being made with.
    pub master: Option<String>,
    /// Since when there is a subscription; none when there is none.
    pub subscribed: Option<Instant>,
    /// When something was last heard on a stream.
    pub heard: Option<Instant>,
    /// Subscriptions so far.
    pub subscriptions: u64,
    /// Why the last attempt or stream failed.
    pub failure: Option<String>,
    /// Why it is over, if it is.
    pub end: Option<End>,
    /// Events that could not be read and were passed over.
    pub unreadable: u64,
}

/// Where calls go.
#[derive(Clone, Debug)]
struct Link {
    master: Url,
    stream_id: Option<String>,
    /// The master's own version, where it says.
    version: Option<String>,
    /// The roles that SUBSCRIBE named.
    roles: Vec<String>,
}

/// A handle to call the master with. Clones are the same scheduler.
#[derive(Clone, Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: Http,
    link: watch::Sender<Option<Link>>,
    status: watch::Sender<Status>,
    /// As it is to be at the next subscription.
    framework: Mutex<FrameworkInfo>,
    /// Asks for a subscription in the place of the one there is.
    renew: Notify,
    stop: CancellationToken,
}

/// Where a scheduler's signals come out. Dropping it ends the client.
#[derive(Debug)]
pub struct Signals {
    signals: mpsc::Receiver<Signal>,
    stop: CancellationToken,
}

impl Signals {
    /// The next signal; none once the client has ended.
    pub async fn recv(&mut self) -> Option<Signal> {
        self.signals.recv().await
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Scheduler {
    /// Starts a client. It subscribes by itself, and again whenever that is necessary, until it is stopped or refused.
    /// Must be called within a tokio runtime.
    pub fn connect(config: SchedulerConfig) -> Result<(Self, Signals), MesosError> {
        if let Masters::List(urls) = &config.masters {
            urls.iter().try_for_each(Http::check)?;
        }
        let shared = Arc::new(Shared {
            http: Http::new(&config.http)?,
            link: watch::Sender::new(None),
            status: watch::Sender::new(Status { framework_id: config.framework.id.clone(), ..Status::default() }),
            framework: Mutex::new(config.framework.clone()),
            renew: Notify::new(),
            stop: CancellationToken::new(),
        });
        let (sender, receiver) = mpsc::channel(MOST_SIGNALS);
        let signals = Signals { signals: receiver, stop: shared.stop.clone() };
        tokio::spawn(Worker::new(config, Arc::clone(&shared), sender).run());
        Ok((Self { shared }, signals))
    }

    /// Sends a call and waits until the master has taken it, which is not to say that it has done it.
    ///
    /// Calls that must arrive in an order are to be sent one after the other. A call that failed may have arrived. One that
    /// waits when its subscription is lost is given up: nobody is there to answer it.
    pub async fn call(&self, call: &Call) -> Result<(), MesosError> {
        if self.shared.status.borrow().end.is_some() {
            return Err(MesosError::Ended);
        }
        let mut links = self.shared.link.subscribe();
        let link = links.borrow_and_update().clone().ok_or(MesosError::NotSubscribed)?;
        let id = self.shared.status.borrow().framework_id.clone();
        let url = endpoint(&link.master, PATH);
        let mut answer = pin!(self.shared.http.call(&url, link.stream_id.as_deref(), call.to_json(id.as_ref())));
        tokio::select! {
            answer = &mut answer => return answer,
            _ = links.changed() => {}
        }
        // TEARDOWN ends the subscription before it is answered.
        tokio::time::timeout(LAST_ANSWER, answer).await.unwrap_or(Err(MesosError::NotSubscribed))
    }

    /// Changes what the framework is, without offers for the roles that are `suppressed`: at once when subscribed, and for
    /// subscriptions to come. That is done by UPDATE_FRAMEWORK, and by subscribing anew with masters that do not know that
    /// (before Mesos 1.10) or that hold on to a user or a `checkpoint` of the framework's first subscription.
    ///
    /// # Errors
    /// The master refuses the change, or cannot be asked: nothing has changed then.
    pub async fn update_framework(
        &self,
        mut framework: FrameworkInfo,
        suppressed: &[String],
    ) -> Result<(), MesosError> {
        framework.id = self.shared.status.borrow().framework_id.clone();
        let mut renew = false;
        let version = self.shared.link.borrow().as_ref().map(|link| link.version.clone());
        match version {
            None => {}
            Some(version) if version.as_deref().is_some_and(|version| !knows_update_framework(version)) => renew = true,
            Some(_) => {
                let update = UpdateFramework {
                    framework_info: framework.clone(),
                    suppressed_roles: suppressed.to_vec(),
                    ..UpdateFramework::default()
                };
                match self.call(&Call::UpdateFramework(Box::new(update))).await {
                    // Each of them is left as it was by a new subscription, which is told in the master's log only.
                    Err(MesosError::Status { status, body, .. }) if status == 400 && body.contains(UNSUPPORTED) => {
                        renew = true;
                    }
                    answer => answer?,
                }
            }
        }
        *self.shared.framework.lock().unwrap_or_else(PoisonError::into_inner) = framework;
        if renew {
            self.shared.renew.notify_one();
        }
        Ok(())
    }

    /// How things stand, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Closes the stream and ends the client. The framework stays what it is for its `failover_timeout`; to end it and
    /// its tasks, call [`Call::Teardown`] before.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }
}

/// The connection that a subscription goes over.
enum Stream {
    None,
    /// SUBSCRIBE is on its way.
    Asking(Pin<Box<dyn Future<Output = Result<Response, MesosError>> + Send>>),
    Open(Box<Response>, Decoder),
}

/// What came of waiting for a stream.
enum Progress {
    /// The head of the answer is there, with the stream's id.
    Opened(Option<String>),
    /// There is no stream.
    Failed(Input),
    /// What was read, and why nothing more will be.
    Events(Vec<Result<Event, super::wire::UnreadableMessage>>, Option<String>),
}

struct Worker {
    config: SchedulerConfig,
    shared: Arc<Shared>,
    signals: mpsc::Sender<Signal>,
    subscription: Subscription,
    stream: Stream,
    /// Of the stream that is open.
    link: Option<Link>,
    began: Instant,
    leader: Option<watch::Receiver<Option<Url>>>,
    trouble: Option<watch::Receiver<Option<String>>>,
}

impl Worker {
    fn new(config: SchedulerConfig, shared: Arc<Shared>, signals: mpsc::Sender<Signal>) -> Self {
        let (patience, seed) = (config.patience.clone(), fastrand::u64(..));
        let (subscription, leader, trouble) = match &config.masters {
            Masters::List(urls) => (Subscription::with_list(urls.clone(), patience, seed), None, None),
            Masters::ZooKeeper(url) => {
                let found = zookeeper::detect(url.clone(), config.tls, config.zookeeper_session, shared.stop.clone());
                (Subscription::with_detection(patience, seed), Some(found.leader), Some(found.trouble))
            }
        };
        let began = Instant::now();
        Self { config, shared, signals, subscription, stream: Stream::None, link: None, began, leader, trouble }
    }

    async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let working = async {
            self.input(Input::Start).await;
            while *self.subscription.state() != State::Ended {
                self.turn().await;
            }
        };
        if stop.run_until_cancelled(working).await.is_none() {
            self.stream = Stream::None;
            self.effect(Effect::End(End::Stopped)).await;
        }
        stop.cancel();
    }

    /// Waits for one thing to happen and deals with it.
    async fn turn(&mut self) {
        // One that the clock cannot tell never comes.
        let deadline = self.subscription.deadline().and_then(|until| self.began.checked_add(until));
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What has been heard comes before the deadline that it puts off.
            biased;
            progress = progress(&mut self.stream, self.config.most_record) => match progress {
                Progress::Opened(stream_id) => {
                    if let Some(link) = &mut self.link {
                        link.stream_id = stream_id;
                    }
                }
                Progress::Failed(input) => self.input(input).await,
                Progress::Events(events, lost) => self.events(events, lost).await,
            },
            leader = changed(&mut self.leader) => self.input(Input::Leader(leader)).await,
            // A subscription that stands does not need ZooKeeper.
            trouble = changed(&mut self.trouble) => {
                if let Some(why) = trouble
                    && !matches!(self.subscription.state(), State::Subscribed { .. })
                {
                    self.effect(Effect::Failed(why)).await;
                }
            }
            () = self.shared.renew.notified() => {
                if matches!(self.subscription.state(), State::Subscribed { .. }) {
                    self.input(Input::Lost("the framework is to be another one".to_owned())).await;
                }
            }
            () = due => self.input(Input::Due).await,
        }
    }

    async fn events(&mut self, events: Vec<Result<Event, super::wire::UnreadableMessage>>, lost: Option<String>) {
        for event in events {
            // An earlier one may have ended it.
            if matches!(self.stream, Stream::None) {
                return;
            }
            self.shared.status.send_modify(|status| status.heard = Some(Instant::now()));
            match event {
                Ok(Event::Subscribed(subscribed)) => self.subscribed(*subscribed).await,
                Ok(Event::Error(message)) => self.input(Input::Error(message)).await,
                Ok(Event::Heartbeat) => self.input(Input::Heard).await,
                Ok(event) => {
                    self.signal(Signal::Event(event)).await;
                    self.input(Input::Heard).await;
                }
                Err(error) => {
                    tracing::warn!(error = %error, cause = %error.source, "passing over an event of Mesos");
                    self.shared.status.send_modify(|status| status.unreadable += 1);
                    self.input(Input::Heard).await;
                }
            }
        }
        if let Some(lost) = lost {
            self.input(Input::Lost(lost)).await;
        }
    }

    async fn subscribed(&mut self, subscribed: Subscribed) {
        let seconds = subscribed.heartbeat_interval_seconds;
        let heartbeat = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.input(Input::Subscribed { heartbeat }).await;
        let State::Subscribed { master, .. } = self.subscription.state() else { return };
        let master = shown(master);
        let id = subscribed.framework_id;
        self.shared.framework.lock().unwrap_or_else(PoisonError::into_inner).id = Some(id.clone());
        let mut serial = 0;
        self.shared.status.send_modify(|status| {
            status.framework_id = Some(id.clone());
            status.master = Some(master.clone());
            status.subscribed = Some(Instant::now());
            status.subscriptions += 1;
            status.failure = None;
            serial = status.subscriptions;
        });
        let mut roles = Vec::new();
        if let Some(link) = &mut self.link {
            link.version = subscribed.master_info.as_ref().and_then(|info| info.version.clone());
            roles.clone_from(&link.roles);
        }
        self.shared.link.send_replace(self.link.clone());
        let master_info = subscribed.master_info;
        let connected = Connected { framework_id: id, master, master_info, heartbeat, roles, serial };
        self.signal(Signal::Subscribed(Box::new(connected))).await;
    }

    async fn input(&mut self, input: Input) {
        if let Input::Redirected(location) = &input {
            tracing::debug!(location, "the master sends us to another one");
        }
        for effect in self.subscription.step(self.began.elapsed(), input) {
            self.effect(effect).await;
        }
    }

    async fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Subscribe(master) => self.subscribe(&master),
            Effect::Close => {
                self.stream = Stream::None;
                self.link = None;
                self.shared.link.send_replace(None);
                self.shared.status.send_modify(|status| (status.subscribed, status.master) = (None, None));
            }
            Effect::Lost(why) => {
                tracing::info!(reason = why, "the subscription with Mesos is lost");
                self.shared.status.send_modify(|status| status.failure = Some(why.clone()));
                self.signal(Signal::Lost(why)).await;
            }
            Effect::Failed(why) => {
                tracing::debug!(reason = why, "cannot subscribe with Mesos");
                self.shared.status.send_modify(|status| status.failure = Some(why.clone()));
                self.signal(Signal::Failed(why)).await;
            }
            Effect::End(end) => {
                self.shared.link.send_replace(None);
                self.shared.status.send_modify(|status| {
                    (status.subscribed, status.end) = (None, Some(end.clone()));
                });
                // One that was stopped waits for nobody.
                if end == End::Stopped {
                    drop(self.signals.try_send(Signal::Ended(end)));
                } else {
                    self.signal(Signal::Ended(end)).await;
                }
            }
        }
    }

    fn subscribe(&mut self, master: &Url) {
        let framework_info = self.shared.framework.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (id, roles) = (framework_info.id.clone(), framework_info.roles.clone());
        let call = Call::Subscribe(Box::new(Subscribe { framework_info, ..Subscribe::default() }));
        let (http, url) = (self.shared.http.clone(), endpoint(master, PATH));
        self.link = Some(Link { master: master.clone(), stream_id: None, version: None, roles });
        self.shared.status.send_modify(|status| status.master = Some(shown(master)));
        let asking = async move {
            Http::check(&url)?;
            let answer = http.post(&url, None, call.to_json(id.as_ref())).await?;
            if answer.status().is_success() { Ok(answer) } else { Err(http.problem(&url, answer).await) }
        };
        self.stream = Stream::Asking(Box::pin(asking));
    }

    async fn signal(&mut self, signal: Signal) {
        // Nobody takes signals any more: dropping the receiver has stopped the client as well.
        drop(self.signals.send(signal).await);
    }
}

/// Waits for the next thing on a stream; for ever when there is none. Safe to drop and call again.
async fn progress(stream: &mut Stream, most: usize) -> Progress {
    match stream {
        Stream::None => std::future::pending().await,
        Stream::Asking(asking) => match asking.await {
            Ok(answer) => {
                let stream_id = answer.headers().get(STREAM_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
                *stream = Stream::Open(Box::new(answer), Decoder::new(most));
                Progress::Opened(stream_id)
            }
            Err(error) => {
                *stream = Stream::None;
                Progress::Failed(failure(error))
            }
        },
        Stream::Open(answer, decoder) => match answer.chunk().await {
            Ok(Some(bytes)) => {
                decoder.push(&bytes);
                records(decoder)
            }
            Ok(None) if decoder.is_between_records() => closed("the master closed the stream"),
            Ok(None) => closed("the stream ended in the middle of a record"),
            Err(error) => closed(&format!("the stream broke: {}", super::error::innermost(&error))),
        },
    }
}

fn records(decoder: &mut Decoder) -> Progress {
    let mut events = Vec::new();
    loop {
        match decoder.next_record() {
            Ok(Some(record)) => events.push(Event::read(record)),
            Ok(None) => return Progress::Events(events, None),
            Err(error) => return Progress::Events(events, Some(format!("the stream makes no sense: {error}"))),
        }
    }
}

fn closed(why: &str) -> Progress {
    Progress::Events(Vec::new(), Some(why.to_owned()))
}

/// Whether a master of that version takes UPDATE_FRAMEWORK; one that cannot be read is taken for a newer one.
fn knows_update_framework(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (1, 10) <= (major, minor),
        _ => true,
    }
}

/// What an attempt came to that gave no stream.
fn failure(error: MesosError) -> Input {
    match error {
        MesosError::Status { status, body, .. } if status.is_redirection() => Input::Redirected(body),
        MesosError::Status { status, .. } => Input::Refused { status: status.as_u16(), what: error.to_string() },
        error => Input::Lost(error.to_string()),
    }
}

/// Waits for news of who leads, or of what keeps us from knowing; for ever when nobody looks.
async fn changed<T: Clone>(news: &mut Option<watch::Receiver<Option<T>>>) -> Option<T> {
    if let Some(receiver) = news {
        if receiver.changed().await.is_ok() {
            return receiver.borrow_and_update().clone();
        }
        // The detector ends only when the client does.
        *news = None;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::knows_update_framework;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(
            ["1.10.0", "1.11.0", "2.0.0", "1.10", "1.12.0-dev", "of tomorrow"]
                .iter()
                .all(|v| knows_update_framework(v))
        );
        assert!(["1.9.0", "1.9.1-rc1", "1.0.0", "0.28.2"].iter().all(|v| !knows_update_framework(v)));
    }
}
