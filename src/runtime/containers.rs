//! Scripts' view of containers: the port of the script host, by looking at genuine engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::container::{Engine, EngineError, Listed, Service, Watch};
use crate::core::model::{PolicyName, TaskStats};
use crate::script::containers::{ContainerQuery, ContainerRow, ContainerTemplate, Containers, ServiceRow};

/// States in which a container has processes.
const RUNNING: &[&str] = &["running", "paused"];

/// Looks at the containers of some engines, and the services of their Swarm, on behalf of scripts.
#[derive(Debug)]
pub struct EngineContainers {
    watch: Watch,
    manager: Option<Engine>,
}

impl EngineContainers {
    /// Looks at these engines, and for services at the manager, if there is a Swarm; connects to nothing yet.
    #[must_use]
    pub fn new(engines: Vec<Engine>, manager: Option<Engine>) -> Arc<Self> {
        Arc::new(Self { watch: Watch::new(engines), manager })
    }

    /// The engine that is meant must be there.
    fn check(&self, engine: Option<&str>) -> Result<(), String> {
        let mut names = self.watch.names();
        match engine {
            Some(name) if names.all(|known| known != name) => {
                let known: Vec<_> = self.watch.names().collect();
                Err(format!("there is no engine `{name}` (known: {})", known.join(", ")))
            }
            _ => Ok(()),
        }
    }

    async fn rows(&self, query: &ContainerQuery) -> Result<Vec<ContainerRow>, String> {
        self.check(query.engine.as_deref())?;
        let lists = self.watch.list(query.engine.as_deref()).await.map_err(|error| error.to_string())?;
        let mut rows: Vec<ContainerRow> = Vec::new();
        for (engine, list) in lists {
            let meant = list.iter().filter(|found| {
                (query.all || RUNNING.contains(&found.state.as_str())) && query.admits(&found.name, &found.labels)
            });
            rows.extend(meant.map(|found| row(found, engine)));
        }
        rows.sort_by(|a, b| (&a.name, &a.engine).cmp(&(&b.name, &b.engine)));
        Ok(rows)
    }
}

#[async_trait]
impl Containers for EngineContainers {
    async fn list(&self, query: ContainerQuery) -> Result<Vec<ContainerRow>, String> {
        self.rows(&query).await
    }

    async fn stats(
        &self,
        caller: PolicyName,
        query: ContainerQuery,
        patience: Duration,
    ) -> Result<Vec<ContainerRow>, String> {
        let mut rows = self.rows(&query).await?;
        let mut by_engine: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in rows.iter().filter(|row| RUNNING.contains(&row.state.as_str())) {
            by_engine.entry(&row.engine).or_default().push(row.id.clone());
        }
        let samples = by_engine
            .iter()
            .map(|(engine, containers)| self.watch.sample(caller.as_str(), engine, containers, patience));
        let samples = futures_util::future::join_all(samples).await;
        // Ids are random numbers of 256 bits: two engines have none in common.
        let mut figures: BTreeMap<String, TaskStats> = samples.into_iter().flatten().collect();
        for row in &mut rows {
            row.stats = figures.remove(&row.id).unwrap_or_default();
        }
        Ok(rows)
    }

    async fn template(&self, container: String, engine: Option<String>) -> Result<Option<ContainerTemplate>, String> {
        self.check(engine.as_deref())?;
        for name in self.watch.names().filter(|name| engine.as_deref().is_none_or(|engine| engine == *name)) {
            let Some(engine) = self.watch.engine(name) else { continue };
            match engine.blueprint(&container).await {
                Ok(blueprint) => return Ok(Some(ContainerTemplate { blueprint, engine: name.to_owned() })),
                Err(EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(None)
    }

    async fn services(&self, query: ContainerQuery) -> Result<Option<Vec<ServiceRow>>, String> {
        let Some(manager) = &self.manager else { return Ok(None) };
        let found = match manager.services(None).await {
            Ok(found) => found,
            // An engine without a Swarm refuses; so does a manager whose Swarm has no leader, and that is an outage.
            Err(EngineError::Refused { .. }) if matches!(manager.is_manager().await, Ok(false)) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let meant = found.into_iter().filter(|service| query.admits(&service.name, &service.labels));
        let mut rows: Vec<ServiceRow> = meant.map(service).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(rows))
    }
}

fn service(found: Service) -> ServiceRow {
    ServiceRow { id: found.id, name: found.name, labels: found.labels, replicas: found.replicas }
}

fn row(found: &Listed, engine: &str) -> ContainerRow {
    ContainerRow {
        id: found.id.clone(),
        name: found.name.clone(),
        image: found.image.clone(),
        labels: found.labels.clone(),
        state: found.state.clone(),
        engine: engine.to_owned(),
        stats: TaskStats::default(),
    }
}
