//! Watching ZooKeeper for the leading master.
//!
//! One worker for each client holds a session, watches the masters' folder, and publishes the leader's URL whenever it
//! changes. Sessions that end are replaced. While ZooKeeper cannot be asked the last known leader stands: a master that
//! lives is not to be dropped for ZooKeeper's sake, and one that does not shows that by itself. That nobody leads is told
//! once it has lasted: it is the same as an election at first, and as a wrong path in the end.

use std::pin::pin;
use std::time::Duration;

use reqwest::Url;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Client, Error};

use super::address::ZooKeeperUrl;
use super::node;

/// Between two attempts after one has failed, doubling to the second of them.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a server of the ensemble may take to be connected to before the next one is tried.
const CONNECT: Duration = Duration::from_secs(3);

/// How long an election may take before it is told that nobody leads.
const ELECTION: Duration = Duration::from_secs(3);

/// What comes out of watching.
pub(super) struct Detection {
    /// Who leads; none at first, and whenever ZooKeeper says that there is nobody.
    pub(super) leader: watch::Receiver<Option<Url>>,
    /// Why there is nobody, or why that cannot be asked at present.
    pub(super) trouble: watch::Receiver<Option<String>>,
}

/// Starts to watch.
pub(super) fn detect(url: ZooKeeperUrl, tls: bool, session: Duration, stop: CancellationToken) -> Detection {
    let (leader_sender, leader) = watch::channel(None);
    let (trouble_sender, trouble) = watch::channel(None);
    let detector = Detector { url, tls, session, leader: leader_sender, trouble: trouble_sender };
    tokio::spawn(async move { stop.run_until_cancelled_owned(detector.run()).await });
    Detection { leader, trouble }
}

struct Detector {
    url: ZooKeeperUrl,
    tls: bool,
    session: Duration,
    leader: watch::Sender<Option<Url>>,
    trouble: watch::Sender<Option<String>>,
}

impl Detector {
    async fn run(self) {
        let mut pause = PAUSE;
        loop {
            match self.connect().await {
                Ok(client) => {
                    pause = PAUSE;
                    self.watch(&client).await;
                }
                Err(error) => self.tell(&format!("cannot reach ZooKeeper at {}: {error}", self.url)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says what is wrong, once for as long as it is.
    fn tell(&self, trouble: &str) {
        self.trouble.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(trouble);
            if is_new {
                tracing::warn!("{trouble}; waiting until that changes");
                *known = Some(trouble.to_owned());
            }
            is_new
        });
    }

    async fn connect(&self) -> Result<Client, Error> {
        let mut connector = Client::connector().with_session_timeout(self.session).with_connection_timeout(CONNECT);
        if let Some(digest) = &self.url.digest {
            connector = connector.with_auth("digest", digest.as_bytes());
        }
        connector.connect(&self.url.hosts).await
    }

    /// Follows the leader until the session is over.
    async fn watch(&self, client: &Client) {
        let mut pause = PAUSE;
        loop {
            match self.look(client).await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    self.tell(&format!("cannot read who leads from ZooKeeper at {}: {error}", self.url));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if client.state().is_terminated() {
                tracing::info!(zookeeper = %self.url, "the session with ZooKeeper is over; making another one");
                return;
            }
        }
    }

    /// Publishes who leads, and waits until that may have changed.
    async fn look(&self, client: &Client) -> Result<(), Error> {
        let (hosts, path) = (&self.url.hosts, &self.url.path);
        let (names, changed) = match client.list_and_watch_children(path).await {
            Ok(found) => found,
            Err(Error::NoNode) => {
                self.publish(None);
                let what = format!("ZooKeeper at {hosts} has no masters' folder `{path}`");
                return self.without_leader(&what, self.created(client)).await;
            }
            Err(error) => return Err(error),
        };
        let Some(name) = node::leader(names.iter().map(String::as_str)) else {
            self.publish(None);
            let what = format!("ZooKeeper at {hosts} has no master in `{path}`");
            self.without_leader(&what, changed.changed()).await;
            return Ok(());
        };
        let content = match client.get_data(&format!("{path}/{name}")).await {
            Ok((content, _)) => content,
            // It went between the two questions: look again.
            Err(Error::NoNode) => return Ok(()),
            Err(error) => return Err(error),
        };
        match node::read(&content).and_then(|info| node::url(&info, self.tls)) {
            Ok(leader) => self.publish(Some(leader)),
            Err(error) => {
                self.publish(None);
                self.tell(&format!("ZooKeeper at {hosts}: the leader's node `{path}/{name}` is of no use: {error}"));
            }
        }
        let event = changed.changed().await;
        tracing::trace!(event = ?event.event_type, "the masters' nodes have changed");
        Ok(())
    }

    /// Waits for news while nobody leads; an election is over before that is told.
    async fn without_leader<T>(&self, what: &str, news: impl Future<Output = T>) -> T {
        let mut news = pin!(news);
        if let Ok(news) = tokio::time::timeout(ELECTION, news.as_mut()).await {
            return news;
        }
        self.tell(what);
        news.await
    }

    /// Waits until the masters' folder may be there.
    async fn created(&self, client: &Client) -> Result<(), Error> {
        let (stat, changed) = client.check_and_watch_stat(&self.url.path).await?;
        if stat.is_none() {
            changed.changed().await;
        }
        Ok(())
    }

    fn publish(&self, leader: Option<Url>) {
        if leader.is_some() {
            self.trouble.send_if_modified(|known| known.take().is_some());
        }
        self.leader.send_if_modified(|known| {
            let changed = *known != leader;
            if changed {
                tracing::info!(leader = leader.as_ref().map(Url::as_str), "ZooKeeper says who leads");
                *known = leader;
            }
            changed
        });
    }
}
