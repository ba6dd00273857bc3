//! A cluster as those see it who only look: its state, wherever its leader is, and what its agents say.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::Url;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::address::Masters;
use super::error::MesosError;
use super::http::HttpConfig;
use super::operator::Operator;
use super::wire::operator::{Agent, MasterState, Usage};
use super::zookeeper;

/// How long to wait for ZooKeeper to say who leads.
const PATIENCE: Duration = Duration::from_secs(5);

/// After that long without us ZooKeeper forgets the session.
const SESSION: Duration = Duration::from_secs(10);

/// A reader of one cluster. Connects to nothing before it is first asked.
#[derive(Debug)]
pub struct Cluster {
    operator: Operator,
    masters: Masters,
    tls: bool,
    /// Who leads according to ZooKeeper, once that was asked for.
    leader: OnceLock<watch::Receiver<Option<Url>>>,
    stop: CancellationToken,
    _stops: DropGuard,
}

impl Cluster {
    /// A reader of the cluster of these masters. With `tls` the masters that ZooKeeper names, and agents, are asked over it;
    /// agents are, too, when the URL of a master says `https`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(masters: Masters, tls: bool, http: &HttpConfig) -> Result<Self, MesosError> {
        let tls = tls || matches!(&masters, Masters::List(urls) if urls.iter().any(|url| url.scheme() == "https"));
        let stop = CancellationToken::new();
        let stops = stop.clone().drop_guard();
        Ok(Self { operator: Operator::new(http)?, masters, tls, leader: OnceLock::new(), stop, _stops: stops })
    }

    /// The leading master's `/state`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// No master answers, or nobody leads.
    pub async fn state(&self) -> Result<MasterState, MesosError> {
        let mut failure = None;
        for master in self.places().await? {
            match self.operator.state(&master).await {
                Ok(state) => return Ok(state),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| self.no_leader()))
    }

    /// What the executors on an agent use.
    ///
    /// # Errors
    /// The agent does not answer, or has no address.
    pub async fn usage(&self, agent: &Agent) -> Result<Vec<Usage>, MesosError> {
        self.operator.statistics(&agent.url(self.tls)?).await
    }

    /// Where to ask, in this order: a master that does not lead sends on to the one that does.
    async fn places(&self) -> Result<Vec<Url>, MesosError> {
        let zookeeper = match &self.masters {
            Masters::List(urls) => return Ok(urls.clone()),
            Masters::ZooKeeper(url) => url,
        };
        let detect = || zookeeper::detect(zookeeper.clone(), self.tls, SESSION, self.stop.clone()).leader;
        let mut leader = self.leader.get_or_init(detect).clone();
        match tokio::time::timeout(PATIENCE, leader.wait_for(Option::is_some)).await {
            Ok(Ok(leader)) => Ok(leader.iter().cloned().collect()),
            Ok(Err(_)) | Err(_) => Err(self.no_leader()),
        }
    }

    fn no_leader(&self) -> MesosError {
        MesosError::NoLeader { masters: self.masters.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_agents_in_the_clear_only_where_they_go_to_masters_so() {
        for (masters, tls, expected) in [
            ("a:5050", false, false),
            ("https://a:5050", false, true),
            ("a:5050,https://b:5050", false, true),
            ("zk://a:2181/mesos", false, false),
            ("zk://a:2181/mesos", true, true),
        ] {
            let cluster = Cluster::new(masters.parse().unwrap(), tls, &HttpConfig::default()).unwrap();
            assert_eq!(cluster.tls, expected, "{masters}");
        }
    }
}
