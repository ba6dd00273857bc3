//! `GET /v1/events`: everything that happens, as server-sent events.
//!
//! Names: `tick`, `decision` and `policy` carry the policy as `/v1/policies/NAME` shows it; `task` carries the task
//! and how it ended; `reload` and `error` a script's fate. A reader that is too slow gets `lagged` with the number of
//! events that it missed, and should read the lists again. `?policy=` narrows the stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::runtime::view::StreamEvent;

use super::Api;
use super::dto::{PolicyJson, ScriptErrorJson, TaskJson};
use super::error::Problem;
use super::listen::Closing;
use super::query::PolicyFilter;

/// After so long without an event a comment shows that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How soon a browser's own reader should come back.
const RETRY: Duration = Duration::from_secs(2);

/// One open stream.
struct Reader {
    events: Receiver<Arc<StreamEvent>>,
    filter: PolicyFilter,
    closing: CancellationToken,
    greeted: bool,
    _permit: OwnedSemaphorePermit,
}

/// Opens a stream; it ends when the engine or the server stops.
pub(super) async fn stream(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    filter: PolicyFilter,
) -> Result<impl IntoResponse, Problem> {
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many event streams are open; close some and try again")
    })?;
    let reader = Reader {
        events: api.handle.subscribe(),
        filter,
        closing: closing.map(|Extension(Closing(token))| token).unwrap_or_default(),
        greeted: false,
        _permit: permit,
    };
    let events = unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    Ok(Sse::new(events).keep_alive(keep_alive))
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        if !self.greeted {
            // Bytes at once, so that a reader behind a buffer knows that it is connected.
            self.greeted = true;
            return Some(Event::default().comment("setpoint events").retry(RETRY));
        }
        loop {
            let received = tokio::select! {
                () = self.closing.cancelled() => return None,
                received = self.events.recv() => received,
            };
            match received {
                Ok(event) if self.filter.takes(subject(&event)) => return Some(encode(&event)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => return Some(json("lagged", &Lagged { missed })),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// The policy that an event is about.
fn subject(event: &StreamEvent) -> &str {
    match event {
        StreamEvent::Tick(policy) | StreamEvent::Decision(policy) | StreamEvent::Policy(policy) => policy.name.as_str(),
        StreamEvent::Task(task, _) => task.policy.as_str(),
        StreamEvent::Reload { policy, .. } | StreamEvent::Error { policy, .. } => policy.as_str(),
    }
}

#[derive(Serialize)]
struct Lagged {
    missed: u64,
}

#[derive(Serialize)]
struct TaskEvent<'a> {
    #[serde(flatten)]
    task: TaskJson<'a>,
    /// How it ended, when it did.
    exit: Option<&'a str>,
}

#[derive(Serialize)]
struct ReloadEvent<'a> {
    policy: &'a str,
    generation: u64,
    error: Option<ScriptErrorJson<'a>>,
}

#[derive(Serialize)]
struct ErrorEvent<'a> {
    policy: &'a str,
    error: ScriptErrorJson<'a>,
    held: &'a str,
}

fn encode(event: &StreamEvent) -> Event {
    match event {
        StreamEvent::Tick(policy) => json("tick", &PolicyJson::from(&**policy)),
        StreamEvent::Decision(policy) => json("decision", &PolicyJson::from(&**policy)),
        StreamEvent::Policy(policy) => json("policy", &PolicyJson::from(&**policy)),
        StreamEvent::Task(task, exit) => json("task", &TaskEvent { task: (&**task).into(), exit: exit.as_deref() }),
        StreamEvent::Reload { policy, generation, error } => json(
            "reload",
            &ReloadEvent { policy: policy.as_str(), generation: *generation, error: error.as_deref().map(Into::into) },
        ),
        StreamEvent::Error { policy, error, held } => {
            json("error", &ErrorEvent { policy: policy.as_str(), error: (&**error).into(), held })
        }
    }
}

fn json(name: &'static str, data: &impl Serialize) -> Event {
    // These shapes always serialise; should one not, an empty event is better than a panic.
    Event::default().event(name).json_data(data).unwrap_or_else(|_| Event::default().event(name))
}
