//! Looking at containers of several engines: who is there, what they use, and how to start more like them.
//!
//! Starts, stops and changes nothing. Each caller has samplers of its own, so that the shares of CPU that it gets are
//! those since it asked before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::error::EngineError;
use super::inspect::Listed;
use super::roster::Roster;
use crate::core::model::TaskStats;
use crate::sample::{ContainerSource, Sampler};

/// How long a caller that does not ask is remembered.
const KEPT: Duration = Duration::from_secs(6 * 3600);

/// Engines that are looked at.
pub struct Watch {
    engines: Vec<Member>,
    /// By caller and engine.
    samplers: Mutex<HashMap<(String, usize), Asked>>,
}

/// A sampler, and when it was asked last.
type Asked = (Instant, Arc<Sampler>);

struct Member {
    engine: Engine,
    roster: Roster,
}

impl Watch {
    /// Looks at these engines; connects to nothing yet.
    #[must_use]
    pub fn new(engines: Vec<Engine>) -> Self {
        let member = |engine: Engine| Member { roster: Roster::new(engine.clone()), engine };
        Self { engines: engines.into_iter().map(member).collect(), samplers: Mutex::default() }
    }

    /// The names of the engines.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.engines.iter().map(|member| member.engine.name())
    }

    /// The engine of a name.
    #[must_use]
    pub fn engine(&self, name: &str) -> Option<&Engine> {
        self.engines.iter().map(|member| &member.engine).find(|engine| engine.name() == name)
    }

    /// The containers of one engine, or of all of them, each by name, with the engine's name; also those that do not
    /// run. An engine that does not answer is an error: without it, a part would pass for all.
    pub async fn list(&self, engine: Option<&str>) -> Result<Vec<(&str, Arc<Vec<Listed>>)>, EngineError> {
        let members = self.engines.iter().filter(|member| engine.is_none_or(|name| member.engine.name() == name));
        let looks = members.map(|member| async { Ok((member.engine.name(), member.roster.look().await?)) });
        futures_util::future::join_all(looks).await.into_iter().collect()
    }

    /// Figures of running containers of an engine, by id; shares of CPU are those since the caller's call before.
    pub async fn sample(
        &self,
        caller: &str,
        engine: &str,
        containers: &[String],
        patience: Duration,
    ) -> BTreeMap<String, TaskStats> {
        let Some(at) = self.engines.iter().position(|member| member.engine.name() == engine) else {
            return BTreeMap::new();
        };
        self.sampler(caller, at).sample(containers, patience).await
    }

    fn sampler(&self, caller: &str, at: usize) -> Arc<Sampler> {
        let now = Instant::now();
        let mut samplers = self.samplers.lock().unwrap_or_else(PoisonError::into_inner);
        samplers.retain(|_, (asked, _)| now.saturating_duration_since(*asked) < KEPT);
        let new = || {
            let source: Arc<dyn ContainerSource> = Arc::new(self.engines[at].engine.clone());
            (now, Arc::new(Sampler::new(source)))
        };
        let (asked, sampler) = samplers.entry((caller.to_owned(), at)).or_insert_with(new);
        *asked = now;
        Arc::clone(sampler)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
