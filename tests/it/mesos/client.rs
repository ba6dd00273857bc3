//! The scheduler client with one genuine master: subscription, offers, tasks, credentials, TLS.

use std::time::Duration;

use setpoint::mesos::operator::Operator;
use setpoint::mesos::wire::scheduler::{
    Accept, Acknowledge, Call, Decline, Event, Filters, Kill, Launch, Message, Operation, Roles,
};
use setpoint::mesos::wire::{
    Capability, CapabilityKind, CommandInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, Offer, Resource,
    TaskId, TaskInfo, TaskState, TaskStatus,
};
use setpoint::mesos::{Connected, Credentials, End, HttpConfig, Scheduler, SchedulerConfig, Signal, Signals};

use crate::support::{Cluster, ClusterSpec, GENEROUS};

/// A framework as tests want it.
pub(super) fn framework() -> FrameworkInfo {
    let capabilities =
        [CapabilityKind::MultiRole, CapabilityKind::PartitionAware, CapabilityKind::ReservationRefinement];
    FrameworkInfo {
        user: "root".to_owned(),
        name: "setpoint-test".to_owned(),
        roles: vec!["*".to_owned()],
        failover_timeout: Some(600.0),
        checkpoint: Some(true),
        capabilities: capabilities.map(Capability::from).into(),
        ..FrameworkInfo::default()
    }
}

/// A scheduler under test, with what it has heard and nobody has asked for yet.
pub(super) struct Client {
    pub(super) scheduler: Scheduler,
    pub(super) signals: Signals,
    /// Offers that nobody has asked for yet.
    held: Vec<Offer>,
}

impl Client {
    pub(super) fn connect(masters: &str) -> Self {
        Self::with(SchedulerConfig::new(masters.parse().unwrap(), framework()))
    }

    pub(super) fn with(config: SchedulerConfig) -> Self {
        let (scheduler, signals) = Scheduler::connect(config).unwrap();
        Self { scheduler, signals, held: Vec::new() }
    }

    /// Waits for a signal that `pick` takes; the others are passed over.
    pub(super) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Signal) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let signal = self.signals.recv().await.unwrap_or_else(|| panic!("the client ended before {what}"));
                match &signal {
                    Signal::Event(Event::Offers(offers)) => self.held.extend(offers.iter().cloned()),
                    Signal::Event(Event::Rescind(id)) => self.held.retain(|offer| offer.id != *id),
                    Signal::Subscribed(_) => self.held.clear(),
                    _ => {}
                }
                if let Some(found) = pick(signal) {
                    return found;
                }
            }
        };
        tokio::time::timeout(GENEROUS, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    pub(super) async fn subscribed(&mut self) -> Connected {
        self.wait("a subscription", |signal| match signal {
            Signal::Subscribed(connected) => Some(*connected),
            Signal::Ended(end) => panic!("ended: {end}"),
            _ => None,
        })
        .await
    }

    pub(super) async fn ended(&mut self) -> End {
        let ended = |signal| if let Signal::Ended(end) = signal { Some(end) } else { None };
        self.wait("the end", ended).await
    }

    pub(super) async fn lost(&mut self) -> String {
        self.wait("the loss of the stream", |signal| if let Signal::Lost(why) = signal { Some(why) } else { None })
            .await
    }

    pub(super) async fn offers(&mut self) -> Vec<Offer> {
        if self.held.is_empty() {
            let offered = |signal| matches!(signal, Signal::Event(Event::Offers(_))).then_some(());
            self.wait("offers", offered).await;
        }
        std::mem::take(&mut self.held)
    }

    /// Waits until a task is in a state, acknowledging what comes.
    pub(super) async fn status(&mut self, task: &str, wanted: TaskState) -> TaskStatus {
        loop {
            let status = self
                .wait(&format!("{task} to be {wanted}"), |signal| match signal {
                    Signal::Event(Event::Update(status)) => Some(*status),
                    _ => None,
                })
                .await;
            if let (Some(uuid), Some(agent_id)) = (status.uuid.clone(), status.agent_id.clone()) {
                let acknowledge = Acknowledge { agent_id, task_id: status.task_id.clone(), uuid };
                self.scheduler.call(&Call::Acknowledge(acknowledge)).await.unwrap();
            }
            if status.task_id.as_str() == task && status.state == wanted {
                return status;
            }
        }
    }

    /// Launches a task under the executor of these tests, on the first offer.
    pub(super) async fn launch(&mut self, id: &str) -> Offer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesos/executor.py");
        let executor = ExecutorInfo {
            executor_id: ExecutorId::new(format!("executor-of-{id}")),
            command: Some(CommandInfo::shell(format!("exec python3 '{script}'"))),
            resources: vec![Resource::scalar("cpus", 0.1), Resource::scalar("mem", 32.0)],
            ..ExecutorInfo::default()
        };
        self.launch_as(id, TaskInfo { executor: Some(executor), ..TaskInfo::default() }).await
    }

    /// Launches a task that is what `rest` says, on the first offer.
    pub(super) async fn launch_as(&mut self, id: &str, rest: TaskInfo) -> Offer {
        let mut offers = self.offers().await;
        let offer = offers.remove(0);
        let task = TaskInfo {
            name: id.to_owned(),
            task_id: TaskId::new(id),
            agent_id: offer.agent_id.clone(),
            resources: vec![Resource::scalar("cpus", 0.1), Resource::scalar("mem", 32.0)],
            ..rest
        };
        let accept = Accept {
            offer_ids: vec![offer.id.clone()],
            operations: vec![Operation::Launch(Launch { task_infos: vec![task] })],
            filters: Some(Filters { refuse_seconds: Some(0.0) }),
        };
        self.scheduler.call(&Call::Accept(accept)).await.unwrap();
        offer
    }
}

#[tokio::test]
async fn a_task_is_launched_heard_of_spoken_to_and_killed_on_a_genuine_cluster() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let mut client = Client::connect(&cluster.list());
    let connected = client.subscribed().await;
    assert_eq!((connected.heartbeat, connected.serial), (Some(Duration::from_secs(15)), 1));
    let offer = client.launch("one").await;
    assert_eq!(offer.hostname, "agent-0.test");
    client.status("one", TaskState::Running).await;
    let id = connected.framework_id.as_str();
    assert_eq!(cluster.tasks(id, "TASK_RUNNING").await.unwrap(), ["one"]);

    let message = Message {
        agent_id: offer.agent_id.clone(),
        executor_id: ExecutorId::new("executor-of-one"),
        data: b"\x00ping".as_slice().into(),
    };
    client.scheduler.call(&Call::Message(message)).await.unwrap();
    let back = |signal| if let Signal::Event(Event::Message(message)) = signal { Some(message) } else { None };
    assert_eq!(client.wait("the message to come back", back).await.data.0, b"\x00ping");

    // Suppressed and declined, nothing is offered; revived, it is at once.
    client.scheduler.call(&Call::Suppress(Roles::default())).await.unwrap();
    client.scheduler.call(&Call::Revive(Roles::default())).await.unwrap();
    let offer_ids = client.offers().await.into_iter().map(|offer| offer.id).collect();
    let filters = Some(Filters { refuse_seconds: Some(3600.0) });
    client.scheduler.call(&Call::Decline(Decline { offer_ids, filters })).await.unwrap();

    let mut changed = framework();
    (changed.webui_url, changed.hostname) =
        (Some("http://setpoint.test/".to_owned()), Some("setpoint.test".to_owned()));
    changed.roles = vec!["*".to_owned(), "ops".to_owned()];
    client.scheduler.update_framework(changed, &[]).await.unwrap();
    let http = HttpConfig::default();
    let operator = Operator::new(&http).unwrap();
    let master = format!("http://{}", cluster.list()).parse().unwrap();
    let state = operator.state(&master).await.unwrap();
    let shown = state.frameworks.iter().find(|framework| framework.id == id).unwrap();
    assert_eq!(shown.webui_url.as_deref(), Some("http://setpoint.test/"));
    assert_eq!((shown.roles.len(), shown.tasks.len(), shown.used_resources.cpus), (2, 1, Some(0.2)));
    let agents = operator.agents(&master).await.unwrap();
    let agent = format!("http://{}", agents[0].address().unwrap()).parse().unwrap();
    let usage = operator.statistics(&agent).await.unwrap();
    assert_eq!(usage[0].executor_id, "executor-of-one");
    assert!(usage[0].statistics.cpu_secs().unwrap() > 0.0 && usage[0].statistics.mem_rss_bytes.unwrap() > 1 << 20);

    // Mesos holds on to some of what a framework first was, and changes nothing then; by a new subscription it does the rest.
    let mut other = framework();
    (other.user, other.roles) = ("somebody".to_owned(), ["*", "ops", "dev"].map(str::to_owned).to_vec());
    client.scheduler.update_framework(other, &[]).await.unwrap();
    let again = client.subscribed().await;
    assert_eq!((again.serial, again.roles.len(), again.framework_id.as_str()), (2, 3, id));
    let state = operator.state(&master).await.unwrap();
    let shown = state.frameworks.iter().find(|framework| framework.id == id).unwrap();
    assert_eq!((shown.roles.len(), shown.tasks.len()), (3, 1));

    let kill = Kill { task_id: TaskId::new("one"), agent_id: Some(offer.agent_id), kill_policy: None };
    client.scheduler.call(&Call::Kill(kill)).await.unwrap();
    client.status("one", TaskState::Killed).await;

    // Another scheduler under the same id takes over, and Mesos tells this one.
    let mut taken = framework();
    taken.id = Some(FrameworkId::new(id));
    let mut second = Client::with(SchedulerConfig::new(cluster.list().parse().unwrap(), taken));
    assert_eq!(second.subscribed().await.framework_id.as_str(), id);
    let End::Error(why) = client.ended().await else { panic!() };
    assert!(why.contains("failed over"), "{why}");
    second.scheduler.call(&Call::Teardown).await.unwrap();
    let folder = cluster.folder().mark().to_owned();
    drop((client, second, cluster));
    assert!(!std::path::Path::new(&folder).exists(), "nothing is left");
}

#[tokio::test]
async fn the_right_credentials_work_and_wrong_ones_give_one_clear_error() {
    let folder = crate::support::Scratch::new();
    let secrets = r#"{"credentials":[{"principal":"autoscaler","secret":"right"}]}"#;
    let secrets = format!("file://{}", folder.write("credentials.json", secrets).display());
    let spec = ClusterSpec { agents: 0, ..ClusterSpec::default() }
        .master("MESOS_AUTHENTICATE_HTTP_FRAMEWORKS", "true")
        .master("MESOS_HTTP_FRAMEWORK_AUTHENTICATORS", "basic")
        .master("MESOS_CREDENTIALS", &secrets);
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    let connect = |secret: Option<&str>| {
        let mut config = SchedulerConfig::new(cluster.list().parse().unwrap(), framework());
        config.framework.principal = secret.map(|_| "autoscaler".to_owned());
        config.http.credentials =
            secret.map(|secret| Credentials::Basic { principal: "autoscaler".to_owned(), secret: secret.to_owned() });
        Client::with(config)
    };
    let mut right = connect(Some("right"));
    right.subscribed().await;
    right.scheduler.call(&Call::Suppress(Roles::default())).await.unwrap();
    for wrong in [Some("wrong"), None] {
        let mut client = connect(wrong);
        let Some(Signal::Ended(End::Refused { status, what })) = client.signals.recv().await else {
            panic!("{wrong:?}")
        };
        eprintln!("credentials {wrong:?}: {what}");
        assert_eq!(status, 401);
        assert!(what.contains("does not accept these credentials"), "{what}");
        assert_eq!(client.signals.recv().await, None, "once");
        assert!(!format!("{:?}", client.scheduler).contains("wrong"), "secrets are in no text");
    }
}
