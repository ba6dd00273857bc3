//! A stand-in for a GoCD server: it hands jobs to agents that are real processes, and answers setpoint as servers of
//! several versions do. Faults can be switched on while it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// An agent that was not heard of for this long has lost contact.
const SILENCE: Duration = Duration::from_secs(3);

/// What goes wrong with every call of setpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Status(u16),
    Hang,
    /// Nobody listens.
    Refused,
    BrokenXml,
    NotJson,
}

/// Which of the servers' habits it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Jobs at the old address; agents with `status` and `enabled`.
    V16_1,
    /// Jobs at the new address; agents with `agent_state`, `build_state`, `agent_config_state`; environments as objects.
    V21,
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) resources: Vec<&'static str>,
    pub(crate) environment: Option<&'static str>,
    pub(crate) length: Duration,
}

impl Job {
    pub(crate) fn new(name: impl Into<String>, length: Duration) -> Self {
        Self { name: name.into(), resources: Vec::new(), environment: None, length }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) config: &'static str,
    pub(crate) building: Option<String>,
    pub(crate) resources: Vec<String>,
    heard: Instant,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) version: Version,
    pub(crate) fault: Option<Fault>,
    /// Counts that the feed gives one after the other instead of `waiting`; the last one stays.
    pub(crate) feed: Vec<usize>,
    pub(crate) polls: usize,
    pub(crate) waiting: Vec<Job>,
    pub(crate) agents: BTreeMap<String, Agent>,
    /// What an agent is when it first shows up.
    pub(crate) newcomer: &'static str,
    pub(crate) done: Vec<String>,
    /// Agents that were told to end while they built.
    pub(crate) murdered: Vec<String>,
    pub(crate) deleted: Vec<String>,
    /// What an `Authorization` header must be.
    pub(crate) authorization: Option<String>,
}

/// The server, on a port of its own; it ends when it is dropped.
pub(crate) struct GoCd {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    worker: JoinHandle<()>,
}

impl GoCd {
    pub(crate) async fn start(version: Version) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World {
            version,
            fault: None,
            feed: Vec::new(),
            polls: 0,
            waiting: Vec::new(),
            agents: BTreeMap::new(),
            newcomer: "Enabled",
            done: Vec::new(),
            murdered: Vec::new(),
            deleted: Vec::new(),
            authorization: None,
        }));
        let worker = serve(listener, Arc::clone(&world));
        Self { address, world, worker }
    }

    /// Makes everything go wrong in that way, or nothing any more.
    pub(crate) async fn fail(&mut self, fault: Option<Fault>) {
        if self.world().fault == Some(Fault::Refused) {
            let listener = TcpListener::bind(self.address).await.unwrap();
            self.worker = serve(listener, Arc::clone(&self.world));
        }
        self.world().fault = fault;
        if fault == Some(Fault::Refused) {
            self.worker.abort();
            (&mut self.worker).await.ok();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }

    /// An agent of somebody else's, idle and enabled.
    pub(crate) fn foreign_agent(&self, uuid: &str) {
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        let agent = Agent { config: "Enabled", building: None, resources: Vec::new(), heard: far };
        self.world().agents.insert(uuid.to_owned(), agent);
    }
}

fn serve(listener: TcpListener, world: Arc<Mutex<World>>) -> JoinHandle<()> {
    let app = Router::new()
        .route("/go/api/jobs/scheduled.xml", get(async |state, headers| jobs(state, headers, Version::V16_1).await))
        .route("/go/api/feed/jobs/scheduled.xml", get(async |state, headers| jobs(state, headers, Version::V21).await))
        .route("/go/api/agents", get(agents))
        .route("/go/api/agents/{uuid}", patch(change).delete(delete))
        .route("/agent/{uuid}/{what}", post(agent))
        .layer(map_response(async |mut response: Response| {
            // A server that is gone is gone for those, too, who were connected.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }))
        .with_state(world);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
}

impl Drop for GoCd {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

type Shared = State<Arc<Mutex<World>>>;

fn locked(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses what the server would refuse, or what it is told to.
async fn admitted(world: &Mutex<World>, headers: &HeaderMap) -> Result<Version, Response> {
    let (fault, authorization, version) = {
        let world = locked(world);
        (world.fault, world.authorization.clone(), world.version)
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match fault {
        Some(Fault::Status(status)) => Err(StatusCode::from_u16(status).unwrap().into_response()),
        Some(Fault::Hang) => std::future::pending().await,
        _ if authorization.is_some() && given != authorization => Err(StatusCode::UNAUTHORIZED.into_response()),
        _ => Ok(version),
    }
}

async fn jobs(State(world): Shared, headers: HeaderMap, address: Version) -> Response {
    match admitted(&world, &headers).await {
        Err(refusal) => return refusal,
        Ok(version) if version != address => return StatusCode::NOT_FOUND.into_response(),
        Ok(_) => {}
    }
    let mut world = locked(&world);
    let scripted = world.feed.get(world.polls).or(world.feed.last()).copied();
    world.polls += 1;
    if world.fault == Some(Fault::BrokenXml) {
        return "<scheduledJobs><job name=".into_response();
    }
    let jobs = match scripted {
        Some(n) => (0..n).map(|n| Job::new(format!("fed-{n}"), Duration::ZERO)).collect(),
        None => world.waiting.clone(),
    };
    let jobs: String = jobs.iter().enumerate().map(|(id, job)| in_xml(id, job)).collect();
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\n<scheduledJobs>\n{jobs}</scheduledJobs>\n");
    ([(header::CONTENT_TYPE, "application/xml")], text).into_response()
}

fn in_xml(id: usize, job: &Job) -> String {
    let locator = format!("pipeline/1/stage/1/{}", job.name);
    let environment = job.environment.map(|name| format!("<environment>{name}</environment>")).unwrap_or_default();
    let resources =
        job.resources.iter().fold(String::new(), |text, name| text + "<resource><![CDATA[" + name + "]]></resource>");
    let resources = if resources.is_empty() { resources } else { format!("<resources>{resources}</resources>") };
    format!(
        "<job name=\"{}\" id=\"{id}\"><link rel=\"self\" href=\"http://h/{locator}\"/>\
         <buildLocator>{locator}</buildLocator>{environment}{resources}</job>\n",
        job.name
    )
}

async fn agents(State(world): Shared, headers: HeaderMap) -> Response {
    let version = match admitted(&world, &headers).await {
        Ok(version) => version,
        Err(refusal) => return refusal,
    };
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let known = match version {
        Version::V16_1 => "application/vnd.go.cd.v1+json",
        Version::V21 => "application/vnd.go.cd+json",
    };
    if accepted != known {
        return StatusCode::NOT_FOUND.into_response();
    }
    let world = locked(&world);
    if world.fault == Some(Fault::NotJson) {
        return "<html>please log in</html>".into_response();
    }
    let agents: Vec<Value> = world.agents.iter().map(|(uuid, agent)| in_json(uuid, agent, version)).collect();
    axum::Json(json!({ "_links": {}, "_embedded": { "agents": agents } })).into_response()
}

fn in_json(uuid: &str, agent: &Agent, version: Version) -> Value {
    let lost = Instant::now().saturating_duration_since(agent.heard) > SILENCE;
    let state = match &agent.building {
        _ if lost => "LostContact",
        Some(_) => "Building",
        None => "Idle",
    };
    match version {
        Version::V16_1 => json!({
            "uuid": uuid, "hostname": "one-host", "enabled": agent.config == "Enabled",
            "status": if agent.config == "Enabled" { state } else { agent.config },
            "resources": agent.resources, "environments": [],
        }),
        Version::V21 => json!({
            "uuid": uuid, "hostname": "one-host", "agent_config_state": agent.config, "agent_state": state,
            "build_state": if state == "LostContact" { "Unknown" } else { state },
            "resources": agent.resources, "environments": [],
        }),
    }
}

async fn change(State(world): Shared, Path(uuid): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = admitted(&world, &headers).await {
        return refusal;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let wanted = ["Enabled", "Disabled"].into_iter().find(|state| body["agent_config_state"] == *state);
    let confirmed = headers.contains_key("X-GoCD-Confirm");
    let mut world = locked(&world);
    match (world.agents.get_mut(&uuid), wanted) {
        (None, _) => StatusCode::NOT_FOUND.into_response(),
        (Some(agent), Some(wanted)) if confirmed => {
            agent.config = wanted;
            axum::Json(json!({ "uuid": uuid })).into_response()
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn delete(State(world): Shared, Path(uuid): Path<String>, headers: HeaderMap) -> Response {
    if let Err(refusal) = admitted(&world, &headers).await {
        return refusal;
    }
    let mut world = locked(&world);
    match world.agents.get(&uuid) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(agent) if agent.config != "Disabled" || agent.building.is_some() => {
            StatusCode::NOT_ACCEPTABLE.into_response()
        }
        Some(_) => {
            world.agents.remove(&uuid);
            world.deleted.push(uuid);
            axum::Json(json!({ "message": "Deleted 1 agent(s)." })).into_response()
        }
    }
}

/// The agents' side, which is the stand-in's own: `work` registers and asks for a job, `done` ends it, `bye` is the last
/// word of an agent that was told to end.
async fn agent(State(world): Shared, Path((uuid, what)): Path<(String, String)>) -> Response {
    let mut world = locked(&world);
    let newcomer = world.newcomer;
    let new = Agent { config: newcomer, building: None, resources: Vec::new(), heard: Instant::now() };
    let agent = world.agents.entry(uuid.clone()).or_insert(new);
    agent.heard = Instant::now();
    match what.as_str() {
        "work" if agent.config == "Enabled" && agent.building.is_none() => {
            let fit = world.waiting.iter().position(|job| job.resources.is_empty() && job.environment.is_none());
            let Some(job) = fit.map(|position| world.waiting.remove(position)) else {
                return axum::Json(json!({})).into_response();
            };
            let answer = json!({ "milliseconds": u64::try_from(job.length.as_millis()).unwrap() });
            world.agents.get_mut(&uuid).unwrap().building = Some(job.name);
            axum::Json(answer).into_response()
        }
        "done" => {
            let job = agent.building.take().expect("an agent ends the job that it has");
            world.done.push(job);
            axum::Json(json!({})).into_response()
        }
        "bye" => {
            if agent.building.is_some() {
                world.murdered.push(uuid);
            }
            axum::Json(json!({})).into_response()
        }
        _ => axum::Json(json!({})).into_response(),
    }
}
