//! The HTTP API, its event stream, `/metrics` and the page.
//!
//! Everything in here looks at the engine through an [`EngineHandle`]: it reads published values, and tells the
//! loop things as commands. It holds no state of its own but a bounded chart history.
//!
//! It does not read the environment, print or exit, and it does no TLS: beyond loopback it belongs behind
//! something that does.
//!
//! Invariants:
//! - every answer but the page, `/metrics` and other programs' formats is JSON, every error `application/problem+json` (RFC 9457);
//! - no request is looked at before the gate has let it in (semantics §30);
//! - nothing is unbounded: bodies, streams, the history, the time that a command may take.

mod assets;
mod body;
mod commands;
pub mod dto;
mod error;
mod events;
mod gate;
mod health;
mod history;
mod listen;
mod metrics;
mod policies;
mod query;
mod services;
mod sse;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::routing::{delete, get, post};
use tokio::sync::Semaphore;

use crate::runtime::handle::EngineHandle;

use self::error::Problem;
use self::history::History;
pub use self::listen::{HttpError, bind, serve};
pub use self::services::legacy_router;

/// Bytes of a request's body; the largest legal one is a few hundred.
const MAX_BODY: usize = 16 << 10;

/// How many event streams may be open at once.
const MAX_STREAMS: usize = 256;

/// How long a new server of a cache is warmed up from the others, where nothing else is said.
pub const DEFAULT_WARM_UP: Duration = Duration::from_secs(300);

/// Who may talk to the API, and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// When set, everything but `/healthz` and the page's own files needs it as a bearer token.
    pub token: Option<String>,
    /// Names or addresses, without a port, that the `Host` header may carry besides those of loopback.
    pub hosts: Vec<String>,
    /// For how long `?format=mcrouter` warms a new task up from the others.
    pub warm_up: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { token: None, hosts: Vec::new(), warm_up: DEFAULT_WARM_UP }
    }
}

/// What the handlers share.
#[derive(Clone, Debug)]
struct Api {
    handle: EngineHandle,
    history: Arc<History>,
    streams: Arc<Semaphore>,
    warm_up: Duration,
}

/// The whole API and the page as one service.
///
/// Within a tokio runtime the chart history begins at once, otherwise with the first request for it.
pub fn router(handle: EngineHandle, config: HttpConfig) -> Router {
    let api = Api {
        history: History::start(&handle),
        handle,
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        warm_up: config.warm_up,
    };
    Router::new()
        .merge(assets::routes())
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/policies", get(policies::list))
        .route("/v1/policies/{*path}", get(policies::read).post(commands::post).delete(commands::delete))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{id}", delete(tasks::kill))
        .route("/v1/services", get(services::list))
        .route("/v1/services/events", get(services::stream))
        .route("/v1/events", get(events::stream))
        .route("/v1/reload", post(commands::reload_all))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(Arc::new(gate::Gate::new(config)), gate::check))
        .with_state(api)
}

async fn unknown_route(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at `{}`; the API is under `/v1`", error::shorten(uri.path())))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::wrong_method(format!("`{}` does not take {method}", error::shorten(uri.path())))
}
