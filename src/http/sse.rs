//! What every stream of server-sent events has: a place among those that may be open, the engine's events until the
//! end, a greeting, and signs of life.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::runtime::view::StreamEvent;

use super::Api;
use super::error::Problem;
use super::listen::Closing;

/// After so long without an event a comment shows that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How soon a browser's own reader should come back.
const RETRY: Duration = Duration::from_secs(2);

/// Who hears the engine's events for one stream.
pub(super) struct Listener {
    events: Receiver<Arc<StreamEvent>>,
    closing: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// What a listener hears.
pub(super) enum Heard {
    /// An event.
    Event(Arc<StreamEvent>),
    /// It was too slow for so many.
    Missed(u64),
}

impl Listener {
    /// Listens from now on, if another stream may be open.
    pub(super) fn open(api: &Api, closing: Option<Extension<Closing>>) -> Result<Self, Problem> {
        let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many event streams are open; close some and try again")
        })?;
        Ok(Self {
            events: api.handle.subscribe(),
            closing: closing.map(|Extension(Closing(token))| token).unwrap_or_default(),
            _permit: permit,
        })
    }

    /// What comes next; none when the engine or the server stops.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        let received = tokio::select! {
            () = self.closing.cancelled() => return None,
            received = self.events.recv() => received,
        };
        match received {
            Ok(event) => Some(Heard::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Bytes at once, so that a reader behind a buffer knows that it is connected.
pub(super) fn greeting(words: &str) -> Event {
    Event::default().comment(words).retry(RETRY)
}

/// One event with its data.
pub(super) fn json(name: &str, data: &impl Serialize) -> Event {
    // These shapes always serialise; should one not, an empty event is better than a panic.
    Event::default().event(name).json_data(data).unwrap_or_else(|_| Event::default().event(name))
}

/// The answer that sends these events.
pub(super) fn answer(events: impl Stream<Item = Event> + Send + 'static) -> impl IntoResponse {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive)
}
