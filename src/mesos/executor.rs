//! The executor client: an executor's subscription with its agent, and its updates until they are acknowledged.
//!
//! With checkpointing it outlives its agent: it goes on trying for the recovery time and then tells the new agent of
//! everything that the old one may not have known. It runs no tasks.
//!
//! - **Invariant:** an update is sent until it is acknowledged, and the updates of an executor in the order in which they
//!   were made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::{Response, Url};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address::endpoint;
use super::error::{MesosError, innermost};
use super::http::{Credentials, Http, HttpConfig, Identity};
use super::recordio::Decoder;
use super::wire::executor::{Call, Data, Event, Subscribe, Subscribed, Update};
use super::wire::{Bytes, ExecutorId, FrameworkId, StatusSource, TaskId, TaskInfo, TaskStatus};

const PATH: &str = "/api/v1/executor";
const MOST_SIGNALS: usize = 256;
const MOST_RECORD: usize = 64 << 20;

/// How long an attempt to subscribe has in any case, however late it begins.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to subscribe, whatever the agent allows: it is on this machine, and it ends executors
/// that are not back two seconds after it is.
const SUBSCRIBE_AGAIN: Duration = Duration::from_millis(500);

/// Between two attempts to tell an update, doubling to the second of them.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

const SILENT: &str = "it does not answer SUBSCRIBE";

/// How the variables begin that libprocess is told of TLS by: today, and before Mesos 1.0.
const TLS: [&str; 2] = ["LIBPROCESS_SSL_", "SSL_"];

/// Those of them that make certificates count; the latter two are those of before Mesos 1.10, and whoever wants certificates
/// of its clients looks at those of servers, too.
const VERIFY: [&str; 4] = ["VERIFY_SERVER_CERT", "REQUIRE_CLIENT_CERT", "VERIFY_CERT", "REQUIRE_CERT"];

/// What an agent tells the executors that it starts.
#[derive(Clone)]
pub struct ExecutorConfig {
    /// The agent.
    pub agent: Url,
    /// The framework that it belongs to.
    pub framework_id: FrameworkId,
    /// Itself.
    pub executor_id: ExecutorId,
    /// Whether it is to outlive its agent.
    pub checkpoint: bool,
    /// For how long it does.
    pub recovery_timeout: Duration,
    /// The longest pause between two attempts to subscribe.
    pub backoff_most: Duration,
    /// How much time tasks have to end when the executor is shut down.
    pub shutdown_grace: Duration,
    /// The token that the agent gave, where executors are authenticated.
    pub token: Option<String>,
    /// TLS, and limits; a token comes before its credentials.
    pub http: HttpConfig,
}

impl std::fmt::Debug for ExecutorConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecutorConfig")
            .field("agent", &self.agent.as_str())
            .field("framework_id", &self.framework_id)
            .field("executor_id", &self.executor_id)
            .field("checkpoint", &self.checkpoint)
            .field("recovery_timeout", &self.recovery_timeout)
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

impl ExecutorConfig {
    /// From the variables that the agent sets, `MESOS_AGENT_ENDPOINT` and others. Says which one is wrong or missing.
    ///
    /// The agent is asked over TLS where `LIBPROCESS_SSL_ENABLED` says so. As with libprocess its certificate counts only with
    /// `LIBPROCESS_SSL_VERIFY_SERVER_CERT`; it then must be for the host in `MESOS_AGENT_ENDPOINT`, and from whom the system
    /// or the file of `LIBPROCESS_SSL_CA_FILE` trusts. The files of `LIBPROCESS_SSL_CERT_FILE` and `LIBPROCESS_SSL_KEY_FILE`
    /// are shown to an agent that asks for them. `LIBPROCESS_SSL_CA_DIR` is not looked at.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, VariableError> {
        let needed = |name: &'static str| {
            variable(name).filter(|value| !value.is_empty()).ok_or(VariableError { name, problem: "is not set" })
        };
        let duration = |name: &'static str, default: Duration| match variable(name) {
            Some(text) => duration(&text).ok_or(VariableError { name, problem: "is no duration such as `15mins`" }),
            None => Ok(default),
        };
        let name = "MESOS_AGENT_ENDPOINT";
        let agent = needed(name)?;
        let tls = tls(&variable)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = if agent.contains("://") { agent } else { format!("{scheme}://{agent}/") };
        Ok(Self {
            agent: Url::parse(&url).map_err(|_| VariableError { name, problem: "is no `host:port`" })?,
            framework_id: FrameworkId::new(needed("MESOS_FRAMEWORK_ID")?),
            executor_id: ExecutorId::new(needed("MESOS_EXECUTOR_ID")?),
            checkpoint: variable("MESOS_CHECKPOINT").is_some_and(|text| text == "1" || text == "true"),
            recovery_timeout: duration("MESOS_RECOVERY_TIMEOUT", Duration::from_secs(15 * 60))?,
            backoff_most: duration("MESOS_SUBSCRIPTION_BACKOFF_MAX", Duration::from_secs(2))?,
            shutdown_grace: duration("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", Duration::from_secs(5))?,
            token: variable("MESOS_EXECUTOR_AUTHENTICATION_TOKEN"),
            http: tls.unwrap_or_default(),
        })
    }
}

/// TLS as libprocess is told of it; none where it is off.
fn tls(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<HttpConfig>, VariableError> {
    let is_on = |name: String| variable(&name).is_some_and(|text| text == "1" || text == "true");
    let Some(prefix) = TLS.into_iter().find(|prefix| is_on(format!("{prefix}ENABLED"))) else { return Ok(None) };
    let verified = TLS.into_iter().any(|prefix| VERIFY.into_iter().any(|name| is_on(format!("{prefix}{name}"))));
    let read = |name: &str| variable(&format!("{prefix}{name}")).filter(|path| !path.is_empty()).map(std::fs::read);
    let unreadable = |_| VariableError { name: "LIBPROCESS_SSL_CA_FILE", problem: "names a file that cannot be read" };
    let ca_pem = verified.then_some("CA_FILE").and_then(read).transpose().map_err(unreadable)?;
    let identity = match (read("CERT_FILE"), read("KEY_FILE")) {
        (Some(Ok(certificate)), Some(Ok(key))) => Some(Identity([certificate, key].join(&b'\n'))),
        (Some(_), Some(_)) => {
            // Another user's than the one that tasks run as; most agents do not ask for it.
            tracing::info!(
                "the certificate that agents may ask for cannot be read ({prefix}CERT_FILE, {prefix}KEY_FILE)"
            );
            None
        }
        _ => None,
    };
    Ok(Some(HttpConfig { ca_pem, accept_any_certificate: !verified, identity, ..HttpConfig::default() }))
}

/// A variable that an agent should have set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` {problem}; an agent sets it for the executors that it starts")]
pub struct VariableError {
    /// Which.
    pub name: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Reads a duration as Mesos writes it: `15mins`, `2secs`, `1.5hrs`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// What an executor hears, in order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ExecutorSignal {
    /// There is a subscription.
    Subscribed(Box<Subscribed>),
    /// An event of Mesos, other than SUBSCRIBED, ACKNOWLEDGED, HEARTBEAT and ERROR.
    Event(Event),
    /// The agent is away; the client goes on trying. Says why.
    Lost(String),
    /// It is over: the executor is to end its tasks and itself. Says why. Nothing comes after this.
    Ended(String),
}

/// A handle to answer the agent with. Clones are the same executor.
#[derive(Clone, Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    updates: mpsc::UnboundedSender<Update>,
}

#[derive(Debug)]
struct Shared {
    config: ExecutorConfig,
    http: Http,
    subscribed: watch::Sender<bool>,
    unacknowledged: Mutex<Unacknowledged>,
    stop: CancellationToken,
}

/// What the agent may not know of.
#[derive(Debug, Default)]
struct Unacknowledged {
    /// Launched, and no update of it acknowledged.
    tasks: BTreeMap<TaskId, TaskInfo>,
    updates: Vec<Update>,
}

/// Where an executor's signals come out. Dropping it ends the client.
#[derive(Debug)]
pub struct ExecutorSignals {
    signals: mpsc::Receiver<ExecutorSignal>,
    stop: CancellationToken,
}

impl ExecutorSignals {
    /// The next signal; none once the client has ended.
    pub async fn recv(&mut self) -> Option<ExecutorSignal> {
        self.signals.recv().await
    }
}

impl Drop for ExecutorSignals {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Executor {
    /// Starts a client, which subscribes by itself. Must be called within a tokio runtime.
    pub fn connect(config: ExecutorConfig) -> Result<(Self, ExecutorSignals), MesosError> {
        let credentials = config.token.clone().map(Credentials::Bearer).or_else(|| config.http.credentials.clone());
        Http::check(&config.agent)?;
        let with = HttpConfig { credentials, ..config.http.clone() };
        let http = Http::to(&config.agent, &with).or_else(|error| {
            if with.identity.is_none() {
                return Err(error);
            }
            tracing::info!(%error, "the certificate that agents may ask for is of no use");
            Http::to(&config.agent, &HttpConfig { identity: None, ..with })
        })?;
        let shared = Arc::new(Shared {
            config,
            http,
            subscribed: watch::Sender::new(false),
            unacknowledged: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let (sender, receiver) = mpsc::channel(MOST_SIGNALS);
        let (updates, inbox) = mpsc::unbounded_channel();
        let stop = shared.stop.clone();
        tokio::spawn(Arc::clone(&shared).run(sender));
        tokio::spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&shared).send_updates(inbox)));
        Ok((Self { shared, updates }, ExecutorSignals { signals: receiver, stop }))
    }

    /// Tells the state of a task. Source, executor, time and the update's id are filled in; it arrives for certain as long
    /// as executor and agent live, so there is nothing to wait for.
    pub fn update(&self, mut status: TaskStatus) {
        status.source = Some(StatusSource::Executor);
        status.executor_id = Some(self.shared.config.executor_id.clone());
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        status.timestamp = Some(since.as_secs_f64());
        status.uuid = Some(new_uuid());
        let update = Update { status };
        self.shared.unacknowledged().updates.push(update.clone());
        // The worker ends with the client only, and then there is nobody to tell.
        drop(self.updates.send(update));
    }

    /// Whether every update has been acknowledged: a shut down executor may go then.
    pub fn is_settled(&self) -> bool {
        self.shared.unacknowledged().updates.is_empty()
    }

    /// Sends bytes to the scheduler, which may get lost.
    pub async fn message(&self, data: Vec<u8>) -> Result<(), MesosError> {
        if !*self.shared.subscribed.borrow() {
            return Err(MesosError::NotSubscribed);
        }
        self.shared.call(&Call::Message(Data { data: Bytes(data) })).await
    }

    /// Ends the client.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn unacknowledged(&self) -> MutexGuard<'_, Unacknowledged> {
        self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, call: &Call) -> Result<(), MesosError> {
        let body = call.to_json(&self.config.framework_id, &self.config.executor_id);
        self.http.call(&endpoint(&self.config.agent, PATH), None, body).await
    }

    async fn run(self: Arc<Self>, signals: mpsc::Sender<ExecutorSignal>) {
        let why = self.stop.run_until_cancelled(self.keep_subscribed(&signals)).await;
        self.subscribed.send_replace(false);
        match why {
            Some(why) => drop(signals.send(ExecutorSignal::Ended(why)).await),
            None => drop(signals.try_send(ExecutorSignal::Ended("stopped".to_owned()))),
        }
        self.stop.cancel();
    }

    /// Subscribes again and again; gives the reason for which it is over.
    async fn keep_subscribed(&self, signals: &mpsc::Sender<ExecutorSignal>) -> String {
        // An agent that never answers an executor ends it, so the first time is no different from a recovery.
        let (mut alone_since, mut attempts) = (Instant::now(), 0_u32);
        loop {
            let deadline = alone_since.checked_add(self.config.recovery_timeout);
            let deadline = deadline.map(|deadline| deadline.max(Instant::now() + LEAST_ATTEMPT));
            let problem = match before(deadline, self.subscribe()).await {
                None => SILENT.to_owned(),
                Some(Ok(stream)) => match self.follow(stream, deadline, signals).await {
                    (_, Following::Over(why)) => return why,
                    (subscribed, Following::Broken(why)) => {
                        self.subscribed.send_replace(false);
                        if subscribed {
                            if !self.config.checkpoint {
                                return format!(
                                    "the agent is away, and without checkpoints it will not come back: {why}"
                                );
                            }
                            (alone_since, attempts) = (Instant::now(), 0);
                            drop(signals.send(ExecutorSignal::Lost(why.clone())).await);
                        }
                        why
                    }
                },
                // An agent that is about to be there answers 404 or 503; one that does not know this executor, because its
                // state was removed, answers 400.
                Some(Err(error)) if fault(&error).is_some_and(|status| !matches!(status, 404 | 429)) => {
                    return error.to_string();
                }
                Some(Err(error)) => error.to_string(),
            };
            let away = alone_since.elapsed();
            if away >= self.config.recovery_timeout {
                return format!("the agent did not come back within {:?}: {problem}", self.config.recovery_timeout);
            }
            tracing::debug!(problem, "not subscribed with the agent");
            let most = self.config.backoff_most.min(SUBSCRIBE_AGAIN);
            let pause = Duration::from_millis(50).saturating_mul(1 << attempts.min(10)).min(most);
            attempts += 1;
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        }
    }

    async fn subscribe(&self) -> Result<Response, MesosError> {
        let subscribe = {
            let known = self.unacknowledged();
            Subscribe {
                unacknowledged_tasks: known.tasks.values().cloned().collect(),
                unacknowledged_updates: known.updates.clone(),
            }
        };
        let call = Call::Subscribe(Box::new(subscribe));
        let body = call.to_json(&self.config.framework_id, &self.config.executor_id);
        let url = endpoint(&self.config.agent, PATH);
        let answer = self.http.post(&url, None, body).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.http.problem(&url, answer).await) }
    }

    /// Reads a stream to its end, which comes at the deadline if there is no subscription by then; also tells whether there
    /// was one.
    async fn follow(
        &self,
        mut stream: Response,
        deadline: Option<Instant>,
        signals: &mpsc::Sender<ExecutorSignal>,
    ) -> (bool, Following) {
        let (mut decoder, mut subscribed) = (Decoder::new(MOST_RECORD), false);
        loop {
            match before(deadline.filter(|_| !subscribed), stream.chunk()).await {
                Some(Ok(Some(bytes))) => decoder.push(&bytes),
                Some(Ok(None)) => return (subscribed, Following::Broken("the agent closed the stream".to_owned())),
                Some(Err(error)) => return (subscribed, Following::Broken(innermost(&error))),
                None => return (subscribed, Following::Broken(SILENT.to_owned())),
            }
            loop {
                let event = match decoder.next_record() {
                    Ok(Some(record)) => Event::read(record),
                    Ok(None) => break,
                    Err(error) => return (subscribed, Following::Broken(error.to_string())),
                };
                match event {
                    Ok(Event::Error(message)) => return (subscribed, Following::Over(message)),
                    Ok(event) => {
                        subscribed |= matches!(event, Event::Subscribed(_));
                        self.event(event, signals).await;
                    }
                    Err(error) => tracing::warn!(error = %error, "passing over an event of the agent"),
                }
            }
        }
    }

    async fn event(&self, event: Event, signals: &mpsc::Sender<ExecutorSignal>) {
        match &event {
            Event::Heartbeat => return,
            Event::Acknowledged(acknowledged) => {
                let mut known = self.unacknowledged();
                known.tasks.remove(&acknowledged.task_id);
                known.updates.retain(|update| update.status.uuid.as_ref() != Some(&acknowledged.uuid));
                return;
            }
            Event::Launch(task) => drop(self.unacknowledged().tasks.insert(task.task_id.clone(), (**task).clone())),
            Event::LaunchGroup(tasks) => {
                let mut known = self.unacknowledged();
                known.tasks.extend(tasks.iter().map(|task| (task.task_id.clone(), task.clone())));
            }
            _ => {}
        }
        let signal = match event {
            Event::Subscribed(subscribed) => {
                self.subscribed.send_replace(true);
                ExecutorSignal::Subscribed(subscribed)
            }
            event => ExecutorSignal::Event(event),
        };
        // Nobody takes signals any more: dropping the receiver has stopped the client as well.
        drop(signals.send(signal).await);
    }

    /// Sends updates one by one. One that was sent with a SUBSCRIBE as well is known to the agent by its id.
    async fn send_updates(self: Arc<Self>, mut inbox: mpsc::UnboundedReceiver<Update>) {
        while let Some(update) = inbox.recv().await {
            let (uuid, call) = (update.status.uuid.clone(), Call::Update(Box::new(update)));
            let mut pause = PAUSE;
            while self.unacknowledged().updates.iter().any(|update| update.status.uuid == uuid) {
                if self.subscribed.subscribe().wait_for(|subscribed| *subscribed).await.is_err() {
                    return;
                }
                match self.call(&call).await {
                    Ok(()) => break,
                    // For a moment an agent that has come back does not know its executors, and answers 403 or 404.
                    Err(error) if fault(&error).is_some_and(|status| !matches!(status, 401 | 403 | 404 | 429)) => {
                        tracing::warn!(error = %error, "the agent does not take an update");
                        self.unacknowledged().updates.retain(|update| update.status.uuid != uuid);
                    }
                    Err(error) => {
                        tracing::debug!(error = %error, "the agent does not take an update yet");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }
}

/// How a stream ended.
enum Following {
    /// Another one may be had.
    Broken(String),
    /// The agent wants nothing more of us.
    Over(String),
}

/// The status with which the agent finds fault with a request.
fn fault(error: &MesosError) -> Option<u16> {
    match error {
        MesosError::Status { status, .. } if status.is_client_error() => Some(status.as_u16()),
        _ => None,
    }
}

/// What comes of it before a deadline, where there is one.
async fn before<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// A random UUID (version 4), as its 16 bytes.
fn new_uuid() -> Bytes {
    let mut bytes = fastrand::u128(..).to_be_bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Bytes(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<ExecutorConfig, VariableError> {
        ExecutorConfig::from_variables(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_agents_variables() {
        let config = read(&[
            ("MESOS_AGENT_ENDPOINT", "127.0.0.1:5051"),
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "e"),
            ("MESOS_CHECKPOINT", "1"),
            ("MESOS_RECOVERY_TIMEOUT", "15mins"),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "1.5secs"),
        ])
        .unwrap();
        assert_eq!((config.agent.as_str(), config.checkpoint), ("http://127.0.0.1:5051/", true));
        assert_eq!((config.recovery_timeout.as_secs(), config.backoff_most.as_millis()), (900, 1500));
        assert_eq!(read(&[]).unwrap_err().name, "MESOS_AGENT_ENDPOINT");
        assert_eq!(duration("1.5hrs"), Some(Duration::from_secs(5400)));
        for bad in ["", "15", "mins", "-1secs", "1e999secs", "3 fortnights"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn tls_is_what_libprocess_is_told_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, certificate, key) = (file("ca", "CA"), file("certificate", "CERTIFICATE"), file("key", "KEY"));
        let with = |pairs: &[(&str, &str)]| {
            let needed = [("MESOS_AGENT_ENDPOINT", "a:5051"), ("MESOS_FRAMEWORK_ID", "f"), ("MESOS_EXECUTOR_ID", "e")];
            read(&[&needed[..], pairs].concat())
        };
        for off in ["0", "false", ""] {
            let config = with(&[("LIBPROCESS_SSL_ENABLED", off), ("LIBPROCESS_SSL_CA_FILE", "/nowhere")]).unwrap();
            assert_eq!((config.agent.as_str(), config.http.accept_any_certificate), ("http://a:5051/", false), "{off}");
        }
        let config = with(&[("LIBPROCESS_SSL_ENABLED", "1"), ("LIBPROCESS_SSL_CA_FILE", "/nowhere")]).unwrap();
        assert_eq!((config.agent.as_str(), config.http.accept_any_certificate), ("https://a:5051/", true));
        assert_eq!((config.http.ca_pem, config.http.identity), (None, None));
        let strict = [
            ("LIBPROCESS_SSL_ENABLED", "true"),
            ("LIBPROCESS_SSL_VERIFY_SERVER_CERT", "true"),
            ("LIBPROCESS_SSL_CA_FILE", ca.as_str()),
            ("LIBPROCESS_SSL_CERT_FILE", certificate.as_str()),
            ("LIBPROCESS_SSL_KEY_FILE", key.as_str()),
        ];
        let old = [
            ("SSL_ENABLED", "1"),
            ("SSL_VERIFY_CERT", "1"),
            ("SSL_CA_FILE", ca.as_str()),
            ("SSL_CERT_FILE", certificate.as_str()),
            ("SSL_KEY_FILE", key.as_str()),
        ];
        for pairs in [strict, old] {
            let config = with(&pairs).unwrap();
            assert_eq!((config.agent.as_str(), config.http.accept_any_certificate), ("https://a:5051/", false));
            assert_eq!(config.http.ca_pem.as_deref(), Some(&b"CA"[..]));
            assert_eq!(config.http.identity, Some(Identity(b"CERTIFICATE\nKEY".to_vec())));
            assert!(format!("{config:?}").contains("Identity(…)"));
        }
        for name in ["LIBPROCESS_SSL_REQUIRE_CLIENT_CERT", "SSL_REQUIRE_CERT"] {
            let config = with(&[("LIBPROCESS_SSL_ENABLED", "1"), (name, "1")]).unwrap();
            assert!(!config.http.accept_any_certificate, "{name}");
        }
        let mut wrong = strict;
        wrong[2].1 = "/nowhere";
        assert_eq!(with(&wrong).unwrap_err().name, "LIBPROCESS_SSL_CA_FILE");
        wrong[1].1 = "0";
        wrong[4].1 = "/nowhere";
        assert_eq!(with(&wrong).unwrap().http.identity, None, "most agents do not ask for it");
    }
}
