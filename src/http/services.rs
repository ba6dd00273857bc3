//! Service discovery: `GET /v1/services`, its formats, its changes, and the listener with the old list.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use futures_util::stream::unfold;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::runtime::handle::EngineHandle;
use crate::runtime::view::StreamEvent;
use crate::services::{Service, legacy, mcrouter, prometheus, proxy, services};

use super::dto::{ServiceJson, ServicesJson};
use super::error::Problem;
use super::listen::Closing;
use super::policies::require_known;
use super::query::{PolicyFilter, ServicesQuery};
use super::{Api, HttpConfig, gate};

/// After so long without an event a comment shows that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How soon a browser's own reader should come back.
const RETRY: Duration = Duration::from_secs(2);

/// How long a value lives that mcrouter copied while it warmed a server up.
const EXPTIME: Duration = Duration::from_secs(3600);

/// How a list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// setpoint's own.
    #[default]
    Json,
    /// Targets for `http_sd_configs`.
    Prometheus,
    /// A configuration for mcrouter.
    Mcrouter,
    /// `backend` sections.
    Haproxy,
    /// `upstream` blocks.
    Nginx,
}

impl Format {
    pub(super) const ALL: [(&'static str, Self); 5] = [
        ("json", Self::Json),
        ("prometheus", Self::Prometheus),
        ("mcrouter", Self::Mcrouter),
        ("haproxy", Self::Haproxy),
        ("nginx", Self::Nginx),
    ];
}

/// The services, or those of the policies that `?policy=` names, in the format that `?format=` names.
pub(super) async fn list(State(api): State<Api>, query: ServicesQuery) -> Result<Response, Problem> {
    require_known(&api.handle, query.policies.names())?;
    let services = of(&api.handle, &query.policies);
    let port = query.port.as_deref();
    let text = |body: String| ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response();
    Ok(match query.format {
        Format::Json => Json(ServicesJson { services: services.iter().map(Into::into).collect() }).into_response(),
        Format::Prometheus => Json(prometheus::targets(&services, port)).into_response(),
        Format::Mcrouter => {
            let warm_up = query.warm_up.unwrap_or(api.warm_up);
            let options = mcrouter::Options { port, warm_up, exptime: EXPTIME, now: SystemTime::now() };
            Json(mcrouter::config(&services, options)).into_response()
        }
        Format::Haproxy => text(proxy::haproxy(&services, port)),
        Format::Nginx => text(proxy::nginx(&services, port)),
    })
}

fn of(handle: &EngineHandle, filter: &PolicyFilter) -> Vec<Service> {
    let mut services = services(&handle.policies(), &handle.tasks());
    services.retain(|service| filter.takes(service.policy.as_str()));
    services
}

/// One open stream of changes.
struct Reader {
    handle: EngineHandle,
    events: Receiver<Arc<StreamEvent>>,
    filter: PolicyFilter,
    closing: CancellationToken,
    /// What has been told of each service.
    told: BTreeMap<String, Service>,
    /// What is still to be told.
    news: Vec<Event>,
    _permit: OwnedSemaphorePermit,
}

/// Opens a stream of `service` events: first one for each service as it is, then one whenever who can be used, or
/// where, has changed. A service that is no more is told once more, without tasks.
pub(super) async fn stream(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    filter: PolicyFilter,
) -> Result<impl IntoResponse, Problem> {
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many event streams are open; close some and try again")
    })?;
    // Subscribed before the first look, so that no change falls in between.
    let events = api.handle.subscribe();
    let mut reader = Reader {
        handle: api.handle,
        events,
        filter,
        closing: closing.map(|Extension(Closing(token))| token).unwrap_or_default(),
        told: BTreeMap::new(),
        news: Vec::new(),
        _permit: permit,
    };
    reader.look();
    reader.news.insert(0, Event::default().comment("setpoint services").retry(RETRY));
    let events = unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    Ok(Sse::new(events).keep_alive(keep_alive))
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        while self.news.is_empty() {
            let received = tokio::select! {
                () = self.closing.cancelled() => return None,
                received = self.events.recv() => received,
            };
            let look = match received {
                Ok(event) => match &*event {
                    StreamEvent::Task(task, _) => self.filter.takes(task.policy.as_str()),
                    StreamEvent::Policy(policy) => self.filter.takes(policy.name.as_str()),
                    _ => false,
                },
                // Whatever was missed, what is now is all that matters.
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return None,
            };
            if look {
                self.look();
            }
        }
        Some(self.news.remove(0))
    }

    /// Compares what is with what has been told.
    fn look(&mut self) {
        let mut before = std::mem::take(&mut self.told);
        for service in of(&self.handle, &self.filter) {
            let name = service.policy.to_string();
            if before.remove(&name).is_none_or(|told| !same_places(&told, &service)) {
                self.news.push(encode(&service));
            }
            self.told.insert(name, service);
        }
        for mut gone in before.into_values() {
            gone.members.clear();
            self.news.push(encode(&gone));
        }
    }
}

/// Whether a client would use the same tasks at the same places; figures do not matter.
fn same_places(a: &Service, b: &Service) -> bool {
    let place = |service: &Service| {
        let members = service.members.iter();
        members.map(|m| (m.id.clone(), m.slot, m.host.clone(), m.ports.clone())).collect::<Vec<_>>()
    };
    a.ports == b.ports && place(a) == place(b)
}

fn encode(service: &Service) -> Event {
    // These shapes always serialise; should one not, an empty event is better than a panic.
    Event::default()
        .event("service")
        .json_data(ServiceJson::from(service))
        .unwrap_or_else(|_| Event::default().event("service"))
}

/// The listener of mesos-memcached's clients: any path gives the list of every task that can be used, in the old
/// shape. It needs no token and only reads. On loopback it checks `Host` as the API does; beyond it, whoever set it
/// up there decides who reaches it.
pub fn legacy_router(handle: EngineHandle, addr: SocketAddr, hosts: Vec<String>) -> Router {
    let router = Router::new().fallback(legacy_list).with_state(handle);
    if !addr.ip().to_canonical().is_loopback() {
        return router;
    }
    let gate = gate::Gate::new(HttpConfig { hosts, ..HttpConfig::default() });
    router.layer(axum::middleware::from_fn_with_state(Arc::new(gate), gate::check))
}

async fn legacy_list(State(handle): State<EngineHandle>, method: Method) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return Problem::wrong_method(format!("this list is only read; {method} changes nothing"))
            .allowing("GET, HEAD")
            .into_response();
    }
    let services = services(&handle.policies(), &handle.tasks());
    Json(legacy::listing(&services)).into_response()
}
