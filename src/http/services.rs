//! Service discovery: `GET /v1/services`, its formats, its changes, and the listener with the old list.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::{Method, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use futures_util::stream::unfold;

use crate::runtime::handle::EngineHandle;
use crate::runtime::view::StreamEvent;
use crate::services::{Service, legacy, mcrouter, prometheus, proxy, services};

use super::dto::{ServiceJson, ServicesJson};
use super::error::Problem;
use super::listen::Closing;
use super::policies::require_known;
use super::query::{PolicyFilter, ServicesQuery};
use super::sse::{Heard, Listener, answer, greeting, json};
use super::{Api, HttpConfig, gate};

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
    listener: Listener,
    filter: PolicyFilter,
    /// What has been told of each service.
    told: BTreeMap<String, Service>,
    /// What is still to be told.
    news: VecDeque<Event>,
}

/// Opens a stream of `service` events: first one for each service as it is, then one whenever who can be used, or
/// where, has changed. A service that is no more is told once more, without tasks.
pub(super) async fn stream(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    filter: PolicyFilter,
) -> Result<impl IntoResponse, Problem> {
    // It listens before the first look, so that no change falls in between.
    let listener = Listener::open(&api, closing)?;
    let news = VecDeque::from([greeting("setpoint services")]);
    let mut reader = Reader { handle: api.handle, listener, filter, told: BTreeMap::new(), news };
    reader.look();
    Ok(answer(unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) })))
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.news.pop_front() {
                return Some(event);
            }
            let look = match self.listener.next().await? {
                Heard::Event(event) => match &*event {
                    StreamEvent::Task(task, _) => self.filter.takes(task.policy.as_str()),
                    StreamEvent::Policy(policy) => self.filter.takes(policy.name.as_str()),
                    _ => false,
                },
                // Whatever was missed, what is now is all that matters.
                Heard::Missed(_) => true,
            };
            if look {
                self.look();
            }
        }
    }

    /// Compares what is with what has been told.
    fn look(&mut self) {
        let mut before = std::mem::take(&mut self.told);
        for service in of(&self.handle, &self.filter) {
            let name = service.policy.to_string();
            if before.remove(&name).is_none_or(|told| !same_places(&told, &service)) {
                self.news.push_back(encode(&service));
            }
            self.told.insert(name, service);
        }
        for mut gone in before.into_values() {
            gone.members.clear();
            self.news.push_back(encode(&gone));
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
    json("service", &ServiceJson::from(service))
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
