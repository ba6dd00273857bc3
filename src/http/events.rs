//! `GET /v1/events`: everything that happens, as server-sent events.
//!
//! Names: `tick`, `decision` and `policy` carry the policy as `/v1/policies/NAME` shows it; `task` carries the task
//! and how it ended; `reload` and `error` a script's fate. A reader that is too slow gets `lagged` with the number of
//! events that it missed, and should read the lists again. `?policy=` narrows the stream.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::Event;
use futures_util::stream::unfold;
use serde::Serialize;

use crate::runtime::view::StreamEvent;

use super::Api;
use super::dto::{PolicyJson, ScriptErrorJson, TaskJson};
use super::error::Problem;
use super::listen::Closing;
use super::query::PolicyFilter;
use super::sse::{Heard, Listener, answer, greeting, json};

/// One open stream.
struct Reader {
    listener: Listener,
    filter: PolicyFilter,
    greeted: bool,
}

/// Opens a stream; it ends when the engine or the server stops.
pub(super) async fn stream(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    filter: PolicyFilter,
) -> Result<impl IntoResponse, Problem> {
    let reader = Reader { listener: Listener::open(&api, closing)?, filter, greeted: false };
    Ok(answer(unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) })))
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        if !self.greeted {
            self.greeted = true;
            return Some(greeting("setpoint events"));
        }
        loop {
            match self.listener.next().await? {
                Heard::Event(event) if self.filter.takes(subject(&event)) => return Some(encode(&event)),
                Heard::Event(_) => {}
                Heard::Missed(missed) => return Some(json("lagged", &Lagged { missed })),
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
