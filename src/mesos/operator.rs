//! Reading the state of masters and agents, as an operator does.
//!
//! Over the endpoints that every Mesos from 1.0 on has (`/state`, `/slaves`, `/monitor/statistics`); each request is made
//! once, asks the leader where it must, and changes nothing.

use reqwest::Url;
use serde::de::DeserializeOwned;

use super::address::{endpoint, redirected};
use super::error::{MesosError, shown};
use super::http::{Http, HttpConfig};
use super::wire;
use super::wire::operator::{Agent, Agents, MasterState, Usage};

/// The largest answer that is taken: the state of a large cluster is many megabytes.
const MOST_BODY: usize = 512 << 20;

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 4;

/// A reader of masters and agents.
#[derive(Clone, Debug)]
pub struct Operator {
    http: Http,
}

impl Operator {
    /// One with these credentials and this TLS.
    pub fn new(config: &HttpConfig) -> Result<Self, MesosError> {
        Ok(Self { http: Http::new(config)? })
    }

    /// The leading master's `/state`, asked through any master.
    pub async fn state(&self, master: &Url) -> Result<MasterState, MesosError> {
        self.read(master, "/master/state").await
    }

    /// The registered agents, asked through any master.
    pub async fn agents(&self, master: &Url) -> Result<Vec<Agent>, MesosError> {
        Ok(self.read::<Agents>(master, "/master/slaves").await?.slaves)
    }

    /// Figures of every executor on an agent.
    pub async fn statistics(&self, agent: &Url) -> Result<Vec<Usage>, MesosError> {
        self.read(agent, "/monitor/statistics").await
    }

    async fn read<T: DeserializeOwned>(&self, base: &Url, path: &str) -> Result<T, MesosError> {
        let mut base = base.clone();
        for _ in 0..=MOST_REDIRECTS {
            let url = endpoint(&base, path);
            Http::check(&url)?;
            match self.http.get(&url, MOST_BODY).await {
                Ok(body) => return Ok(wire::read(&body)?),
                Err(MesosError::Status { status, body, .. }) if status.is_redirection() => {
                    let wrong = |problem| MesosError::Redirect { url: shown(&url), location: body.clone(), problem };
                    base = redirected(&base, path, &body).map_err(wrong)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(MesosError::Redirect { url: shown(&base), location: String::new(), problem: "once too often" })
    }
}
