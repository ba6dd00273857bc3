//! The stream of what happens to containers.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt};

use super::engine::{Engine, QUICK};
use super::error::EngineError;

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The labels that the container carries, `key` or `key=value`.
    pub labels: Vec<String>,
    /// Actions: `create`, `start`, `die`, `oom`, `destroy`, `health_status` …; none is every one.
    pub actions: Vec<String>,
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What: `die`, `health_status: healthy` …
    pub action: String,
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels, and further attributes of the event.
    pub attributes: BTreeMap<String, String>,
}

/// Events as they come. It ends with the connection, mostly without an error, and never by itself otherwise.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, EngineError>> + Send>>;

impl Engine {
    /// Events from now on. What happens before the engine has taken the request in is not among them: look at the
    /// containers once more after a moment.
    pub async fn events(&self, filter: &EventFilter) -> Result<EventStream, EngineError> {
        let mut filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        let given = [("label", &filter.labels), ("event", &filter.actions)];
        for (key, values) in given.into_iter().filter(|(_, values)| !values.is_empty()) {
            filters.insert(key.to_owned(), values.clone());
        }
        let options = EventsOptions { filters: Some(filters), ..EventsOptions::default() };
        let stream =
            self.call("tell of events", QUICK, async |docker| Ok(docker.events(Some(options)).boxed())).await?;
        let engine = self.clone();
        Ok(stream
            .map(move |event| event.map(read).map_err(|error| engine.failed("tell of events", QUICK, &error)))
            .boxed())
    }
}

fn read(event: EventMessage) -> Event {
    let actor = event.actor.unwrap_or_default();
    let attributes: BTreeMap<String, String> = actor.attributes.into_iter().flatten().collect();
    Event {
        action: event.action.unwrap_or_default(),
        id: actor.id.unwrap_or_default(),
        name: attributes.get("name").cloned().unwrap_or_default(),
        attributes,
    }
}
