//! Watching ZooKeeper for the leading master.
//!
//! One worker for each client holds a session, watches the masters' folder, and publishes the leader's URL whenever it
//! changes. Sessions that end are replaced. While ZooKeeper cannot be asked the last known leader stands: a master that
//! lives is not to be dropped for ZooKeeper's sake, and one that does not shows that by itself.

use std::time::Duration;

use reqwest::Url;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Client, Error};

use super::address::ZooKeeperUrl;
use super::node;

/// Between two attempts after one has failed.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a server of the ensemble may take to be connected to before the next one is tried.
const CONNECT: Duration = Duration::from_secs(3);

/// Starts to watch. The leader is none at first, and whenever ZooKeeper says that there is none.
pub(super) fn detect(
    url: ZooKeeperUrl,
    tls: bool,
    session: Duration,
    stop: CancellationToken,
) -> watch::Receiver<Option<Url>> {
    let (sender, receiver) = watch::channel(None);
    let detector = Detector { url, tls, session, leader: sender };
    tokio::spawn(async move { stop.run_until_cancelled_owned(detector.run()).await });
    receiver
}

struct Detector {
    url: ZooKeeperUrl,
    tls: bool,
    session: Duration,
    leader: watch::Sender<Option<Url>>,
}

impl Detector {
    async fn run(self) {
        loop {
            match self.connect().await {
                Ok(client) => self.watch(&client).await,
                Err(error) => tracing::warn!(zookeeper = %self.url, error = %error, "cannot reach ZooKeeper"),
            }
            tokio::time::sleep(PAUSE).await;
        }
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
        loop {
            match self.look(client).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(zookeeper = %self.url, error = %error, "cannot read who leads from ZooKeeper");
                    tokio::time::sleep(PAUSE).await;
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
        let (names, changed) = match client.list_and_watch_children(&self.url.path).await {
            Ok(found) => found,
            Err(Error::NoNode) => {
                self.publish(None);
                return self.created(client).await;
            }
            Err(error) => return Err(error),
        };
        let leader = match node::leader(names.iter().map(String::as_str)) {
            Some(name) => match client.get_data(&format!("{}/{name}", self.url.path)).await {
                Ok((content, _)) => self.read(&content),
                // It went between the two questions: look again.
                Err(Error::NoNode) => return Ok(()),
                Err(error) => return Err(error),
            },
            None => None,
        };
        self.publish(leader);
        let event = changed.changed().await;
        tracing::trace!(event = ?event.event_type, "the masters' nodes have changed");
        Ok(())
    }

    /// Waits until the masters' folder may be there.
    async fn created(&self, client: &Client) -> Result<(), Error> {
        let (stat, changed) = client.check_and_watch_stat(&self.url.path).await?;
        if stat.is_none() {
            changed.changed().await;
        }
        Ok(())
    }

    fn read(&self, content: &[u8]) -> Option<Url> {
        let url = node::read(content).and_then(|info| node::url(&info, self.tls));
        url.inspect_err(|error| tracing::warn!(zookeeper = %self.url, error = %error, "the leader's node is of no use"))
            .ok()
    }

    fn publish(&self, leader: Option<Url>) {
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
