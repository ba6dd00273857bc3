//! A farm of workers that others run, behind HTTP: a small Marathon, and hooks of somebody's own. It can fail in every
//! way in which such systems fail, and also do what it was told and never say so.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Status(u16),
    /// Nothing is done, and nothing is said.
    Hang,
    /// It is done, and nothing is said.
    Deaf,
    Garbage,
}

/// Which of its answers goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Number,
    Metric,
    Change,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) length: u64,
    pub(super) fault: Option<(Place, Fault)>,
    /// Every number of instances, or change of it, that was carried out.
    pub(super) told: Vec<i64>,
    /// `Idempotency-Key`s.
    pub(super) keys: Vec<String>,
    /// The number that it is told to have.
    wanted: i64,
    /// The most that ever were wanted.
    pub(super) most: i64,
    /// Workers that come and go: when, and by how many.
    coming: Vec<(Instant, i64)>,
    there: i64,
    /// How long workers take to come and go.
    pub(super) startup: Duration,
}

impl World {
    /// How many workers there are now.
    pub(super) fn workers(&mut self) -> i64 {
        let now = Instant::now();
        let due: i64 = self.coming.iter().filter(|(at, _)| *at <= now).map(|(_, n)| n).sum();
        self.coming.retain(|(at, _)| now < *at);
        self.there += due;
        self.there
    }

    /// How many instances Marathon is to have.
    pub(super) const fn instances(&self) -> i64 {
        self.wanted
    }

    fn change(&mut self, by: i64, shown: i64) {
        self.wanted += by;
        self.most = self.most.max(self.wanted);
        self.told.push(shown);
        self.coming.push((Instant::now() + self.startup, by));
    }

    fn deploying(&mut self) -> bool {
        self.workers();
        !self.coming.is_empty()
    }
}

type Shared = State<Arc<StdMutex<World>>>;

/// The farm, on a port of its own, until it is dropped.
pub(super) struct Farm {
    pub(super) url: String,
    world: Arc<StdMutex<World>>,
    worker: JoinHandle<()>,
}

impl Farm {
    pub(super) async fn start(instances: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let startup = Duration::from_millis(300);
        let world = World { wanted: instances, there: instances, most: instances, startup, ..World::default() };
        let world = Arc::new(StdMutex::new(world));
        let app = Router::new()
            .route("/length", get(length))
            .route("/workers", get(workers))
            .route("/v2/apps/shop/consumer", get(app).put(put))
            .route("/{direction}", post(hook))
            .with_state(Arc::clone(&world));
        let worker = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, world, worker }
    }

    pub(super) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        locked(&self.world)
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

fn locked(world: &StdMutex<World>) -> std::sync::MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What goes wrong here, if anything does.
fn fault(world: &StdMutex<World>, place: Place) -> Option<Fault> {
    locked(world).fault.filter(|(at, _)| *at == place).map(|(_, fault)| fault)
}

async fn failing(fault: Fault) -> Response {
    match fault {
        Fault::Status(status) => (StatusCode::from_u16(status).unwrap(), "42").into_response(),
        Fault::Garbage => "<html>please log in</html>".into_response(),
        Fault::Hang | Fault::Deaf => std::future::pending().await,
    }
}

async fn length(State(world): Shared) -> Response {
    match fault(&world, Place::Metric) {
        Some(fault) => failing(fault).await,
        None => locked(&world).length.to_string().into_response(),
    }
}

async fn workers(State(world): Shared) -> Response {
    match fault(&world, Place::Number) {
        Some(fault) => failing(fault).await,
        None => axum::Json(json!({ "pool": { "size": locked(&world).workers() } })).into_response(),
    }
}

async fn app(State(world): Shared) -> Response {
    if let Some(fault) = fault(&world, Place::Number) {
        return failing(fault).await;
    }
    let mut world = locked(&world);
    let deployments = if world.deploying() { json!([{ "id": "5ed4c0c5" }]) } else { json!([]) };
    let (instances, running) = (world.wanted, world.workers());
    let app =
        json!({ "id": "/shop/consumer", "instances": instances, "tasksRunning": running, "deployments": deployments });
    axum::Json(json!({ "app": app })).into_response()
}

async fn put(State(world): Shared, body: Bytes) -> Response {
    let fault = fault(&world, Place::Change);
    if let Some(fault) = fault.filter(|fault| *fault != Fault::Deaf) {
        return failing(fault).await;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let instances = body["instances"].as_i64().unwrap();
    {
        let mut world = locked(&world);
        if world.deploying() {
            let locked = json!({ "message": "App is locked by one or more deployments." });
            return (StatusCode::CONFLICT, axum::Json(locked)).into_response();
        }
        let by = instances - world.wanted;
        world.change(by, instances);
    }
    match fault {
        Some(fault) => failing(fault).await,
        None => axum::Json(json!({ "version": "v", "deploymentId": "5ed4c0c5" })).into_response(),
    }
}

/// `/cooler` adds what it is told to add, also when it is told twice; `/warmer` takes away.
async fn hook(State(world): Shared, Path(direction): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let sign = match direction.as_str() {
        "cooler" => 1,
        "warmer" => -1,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let fault = fault(&world, Place::Change);
    if let Some(fault) = fault.filter(|fault| matches!(fault, Fault::Status(_) | Fault::Hang)) {
        return failing(fault).await;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let n = body["n"].as_i64().unwrap();
    {
        let mut world = locked(&world);
        world.keys.push(headers["idempotency-key"].to_str().unwrap().to_owned());
        world.change(sign * n, sign * n);
    }
    match fault {
        Some(fault) => failing(fault).await,
        None => (StatusCode::ACCEPTED, axum::Json(json!({ "accepted": n }))).into_response(),
    }
}

/// The policy on a farm, ticking several times a second.
fn run(scratch: &Scratch, policy: &str, sets: &[String]) -> Setpoint {
    let pace = ["interval=300ms", "timeout=200ms", "wait=300ms", "target=10", "tolerance=0%"];
    let pace = pace.into_iter().map(str::to_owned);
    let sets = pace.chain(sets.iter().cloned()).flat_map(|set| ["--set".to_owned(), set]);
    Setpoint::run(scratch, std::iter::once(policy.to_owned()).chain(sets))
}

/// Waits until the policy has seen a fault for some ticks: its samples fail, or, where changes fail, it has asked for one.
async fn suffered(setpoint: &mut Setpoint, policy: &str, place: Place) {
    if place != Place::Change {
        setpoint.policy_until(policy, "the fault shows", |policy| policy["sample"]["kind"] == "error").await;
    }
    setpoint.ticks(policy, 3).await;
}

#[tokio::test]
async fn marathon_is_told_absolute_numbers_one_at_a_time_and_none_while_it_fails() {
    let scratch = Scratch::new();
    let farm = Farm::start(1).await;
    let sets = [format!("marathon={}", farm.url), format!("metric={}/length", farm.url), "app=/shop/consumer".into()];
    let mut setpoint = run(&scratch, "marathon", &sets);
    farm.world().length = 35;
    setpoint.running("marathon", 4).await;
    setpoint.ticks("marathon", 5).await;
    assert_eq!(farm.world().told, [2, 3, 4]);

    // One more is wanted, and there is no way to have it.
    let changes = [Fault::Status(500), Fault::Status(409), Fault::Hang];
    for fault in changes {
        {
            let mut world = farm.world();
            (world.fault, world.length) = (Some((Place::Change, fault)), 45);
        }
        suffered(&mut setpoint, "marathon", Place::Change).await;
        assert_eq!(farm.world().told, [2, 3, 4], "{fault:?}");
    }
    // Told and never answered: that is seen, and not told again.
    farm.world().fault = Some((Place::Change, Fault::Deaf));
    setpoint.running("marathon", 5).await;
    setpoint.ticks("marathon", 4).await;
    assert_eq!(farm.world().told, [2, 3, 4, 5]);

    // Nothing is wanted any more, and nobody can say so.
    for place in [Place::Number, Place::Metric] {
        for fault in [Fault::Status(500), Fault::Hang, Fault::Garbage] {
            {
                let mut world = farm.world();
                (world.fault, world.length) = (Some((place, fault)), 0);
            }
            suffered(&mut setpoint, "marathon", place).await;
            assert_eq!(farm.world().told, [2, 3, 4, 5], "scaled in while the {place:?} is {fault:?}");
            farm.world().length = 45;
            farm.world().fault = None;
            setpoint.policy_until("marathon", "it is well again", |policy| policy["sample"]["kind"] == "value").await;
        }
    }
    farm.world().length = 0;
    setpoint.running("marathon", 1).await;
    setpoint.ticks("marathon", 4).await;
    assert_eq!(farm.world().told, [2, 3, 4, 5, 4, 3, 2, 1]);
    assert!(setpoint.stop().await.success());
    assert_eq!(farm.world().instances(), 1, "what others run stays as it is");
}

#[tokio::test]
async fn webhook_asks_for_nothing_twice_and_takes_nothing_away_while_it_knows_nothing() {
    let scratch = Scratch::new();
    let farm = Farm::start(0).await;
    let sets = [format!("base={}", farm.url), "count_field=pool.size".into(), "lag=2s".into(), "max=20".into()];
    let mut setpoint = run(&scratch, "webhook", &sets);
    farm.world().length = 35;
    setpoint.running("webhook", 4).await;
    setpoint.ticks("webhook", 5).await;
    assert_eq!(farm.world().told, [4], "one call, and none while the workers were on their way");

    // A no is asked again until it is a yes.
    {
        let mut world = farm.world();
        (world.fault, world.length) = (Some((Place::Change, Fault::Status(500))), 60);
    }
    suffered(&mut setpoint, "webhook", Place::Change).await;
    assert_eq!(farm.world().told, [4]);
    farm.world().fault = None;
    setpoint.running("webhook", 6).await;
    assert_eq!(farm.world().told, [4, 2]);

    // It does what it is told and never says so: it is not told again.
    {
        let mut world = farm.world();
        (world.fault, world.length) = (Some((Place::Change, Fault::Deaf)), 90);
    }
    setpoint.running("webhook", 9).await;
    setpoint.ticks("webhook", 4).await;
    assert_eq!(farm.world().told, [4, 2, 3]);
    // An answer that makes no sense is a yes all the same.
    {
        let mut world = farm.world();
        (world.fault, world.length) = (Some((Place::Change, Fault::Garbage)), 100);
    }
    setpoint.running("webhook", 10).await;
    setpoint.ticks("webhook", 4).await;
    assert_eq!(farm.world().told, [4, 2, 3, 1]);
    // It does not hear: after a while it is asked again, with another key.
    {
        let mut world = farm.world();
        (world.fault, world.length) = (Some((Place::Change, Fault::Hang)), 120);
    }
    setpoint.logged("it may have heard, so it is given time").await;
    farm.world().fault = None;
    setpoint.running("webhook", 12).await;
    assert_eq!(farm.world().told, [4, 2, 3, 1, 2]);
    let keys: BTreeSet<String> = farm.world().keys.iter().cloned().collect();
    assert_eq!(keys.len(), 5, "each call has a key of its own");

    for place in [Place::Number, Place::Metric] {
        for fault in [Fault::Status(503), Fault::Hang, Fault::Garbage] {
            {
                let mut world = farm.world();
                (world.fault, world.length) = (Some((place, fault)), 0);
            }
            suffered(&mut setpoint, "webhook", place).await;
            assert_eq!(farm.world().told.len(), 5, "told something while the {place:?} is {fault:?}");
            farm.world().length = 120;
            farm.world().fault = None;
            setpoint.policy_until("webhook", "it is well again", |policy| policy["sample"]["kind"] == "value").await;
        }
    }
    farm.world().length = 20;
    setpoint.running("webhook", 2).await;
    setpoint.ticks("webhook", 4).await;
    assert_eq!(farm.world().told, [4, 2, 3, 1, 2, -10]);
    assert_eq!(farm.world().most, 12, "never more than were wanted");
    assert!(setpoint.stop().await.success());
}
