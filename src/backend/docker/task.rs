//! One task's life: a worker each, from its launch or adoption to its `Gone`.
//!
//! ```text
//!   launch ─► create ─► start ─┐      ┌──────── poke, order, reconnection
//!                              ▼      ▼
//!   adopt ─────────────────► look at the container ─► ended, or not there ─► removed ─► gone
//!                              │      ▲
//!                              └─► stop (order) , wait (engine away)
//! ```
//!
//! Invariants: the last update of a task is `Gone`, and its id is given up before that; a container that was seen to run
//! is over only when its engine says so. A worker that is told to let go leaves everything as it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::member::Member;
use super::registry::{Ears, Registry};
use super::{Shared, gone, label, template, update};
use crate::backend::{KnownTask, LaunchRequest, TaskUpdate};
use crate::container::{Container, ContainerConfig, EngineError, Health, Status};
use crate::core::container::Pull;
use crate::core::model::{Exit, Placement, PolicyName, TaskId, TaskState};
use crate::core::policy::Ready;

/// Pause before something is asked again that an engine did not do.
const PAUSE: Duration = Duration::from_millis(500);

/// How many lines of a failed task's output are kept.
const TAIL: u32 = 20;

/// A task under watch.
pub(super) struct Task {
    id: TaskId,
    policy: PolicyName,
    /// What is still to be launched.
    request: Option<LaunchRequest>,
    /// It counts as ready by its health, so it has to have a check.
    needs_health: bool,
    /// The engine that it is on; none while that is not known.
    member: Option<usize>,
    container: String,
    placement: Placement,
    ears: Ears,
    /// When its container is to be killed, once it was told to end.
    kill_at: Option<Instant>,
    /// The connection under which it was last seen running.
    ran_under: Option<u64>,
    /// What was last reported.
    told: Option<(TaskState, Option<bool>, Placement)>,
    looked: Option<oneshot::Sender<()>>,
}

impl Task {
    /// A task to launch on one of the engines `allowed`: the one with the fewest tasks, then by name. None when it is there
    /// already.
    pub(super) fn launch(
        shared: &Shared,
        registry: &mut Registry,
        request: LaunchRequest,
        allowed: &[usize],
    ) -> Option<Self> {
        let order = |index: &&usize| (registry.load(**index), shared.members[**index].engine.name().to_owned());
        let member = *allowed.iter().min_by_key(order)?;
        let ears = registry.insert(&request.id, Some(member), None)?;
        Some(Self {
            id: request.id.clone(),
            policy: request.policy.clone(),
            needs_health: request.ready == Ready::Healthy,
            member: Some(member),
            container: template::container_name(shared, &request.id),
            request: Some(request),
            placement: Placement::default(),
            ears,
            kill_at: None,
            ran_under: None,
            told: None,
            looked: None,
        })
    }

    /// A task of an earlier run; `looked` is told once it has been reported. None when it is there already.
    pub(super) fn adopt(shared: &Shared, known: KnownTask, looked: oneshot::Sender<()>) -> Option<Self> {
        let engine = known.placement.token.as_deref();
        let member = shared.members.iter().position(|member| Some(member.engine.name()) == engine);
        // A kill that the earlier run had begun is begun again: it cannot be told how far it came.
        let order = (known.state == TaskState::Killing).then_some(known.grace);
        let ears = shared.registry().insert(&known.id, member, order)?;
        Some(Self {
            container: template::container_name(shared, &known.id),
            id: known.id,
            policy: known.policy,
            request: None,
            needs_health: false,
            member,
            placement: known.placement,
            ears,
            kill_at: None,
            ran_under: None,
            told: None,
            looked: Some(looked),
        })
    }

    /// Stays with the task to its end.
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        tokio::select! {
            exit = self.live(&shared) => {
                shared.registry().remove(&self.id);
                shared.report(gone(&self.id, exit)).await;
            }
            () = shared.let_go.cancelled() => {}
        }
    }

    async fn live(&mut self, shared: &Shared) -> Exit {
        if let (Some(request), Some(member)) = (self.request.take(), self.member)
            && let Err(exit) = self.make(shared, &shared.members[member], &request).await
        {
            return exit;
        }
        loop {
            match self.look(shared).await {
                Some(exit) => return exit,
                None => self.looked.take().map(|looked| looked.send(())),
            };
            tokio::select! {
                () = self.ears.poke.notified() => {}
                // The sender is in the registry until this worker takes it out.
                _ = self.ears.orders.changed() => {}
            }
        }
    }

    /// Makes the container; starting it is left to the first look.
    async fn make(&mut self, shared: &Shared, member: &Member, request: &LaunchRequest) -> Result<(), Exit> {
        let config =
            template::config(shared, member.engine.config(), request).map_err(|reason| Exit::NotStarted { reason })?;
        let pull = request.template.container.pull;
        if pull == Pull::Always {
            self.pull(shared, member, &config.image).await?;
        }
        let mut made = self.create(member, &config).await?;
        if made.as_ref().is_err_and(EngineError::is_not_found) && pull == Pull::Missing {
            let has_image = guarded(member, member.engine.has_image(&config.image)).await;
            if !has_image.map_err(|error| self.not_started(member, &error))? {
                self.pull(shared, member, &config.image).await?;
                made = self.create(member, &config).await?;
            }
        }
        let id = match made {
            Ok(id) => id,
            Err(error) if error.is_conflict() => self.earlier(member, &error).await?,
            Err(error) => return Err(self.not_started(member, &error)),
        };
        let host = Some(member.engine.config().advertise.clone());
        let token = Some(member.engine.name().to_owned());
        self.placement = Placement { host, container: Some(id), token, ..Placement::default() };
        self.tell(shared, TaskState::Staging, None).await;
        Ok(())
    }

    /// Makes the container when it is its turn, unless the task is told to end before.
    async fn create(&mut self, member: &Member, config: &ContainerConfig) -> Result<Result<String, EngineError>, Exit> {
        let turn = tokio::select! {
            turn = member.room.acquire() => turn,
            _ = self.ears.orders.changed() => return Err(Exit::Unknown),
        };
        let made = guarded(member, member.engine.create(config)).await;
        drop(turn);
        Ok(made)
    }

    /// The name is in use: by this task, when an earlier request got through whose answer nobody heard.
    async fn earlier(&self, member: &Member, conflict: &EngineError) -> Result<String, Exit> {
        match guarded(member, member.engine.inspect(&self.container)).await {
            Ok(container) if self.is_mine(&container) => Ok(container.id),
            Err(error) if error.is_retryable() => Err(self.not_started(member, &error)),
            _ => Err(self.not_started(member, conflict)),
        }
    }

    async fn pull(&mut self, shared: &Shared, member: &Member, image: &str) -> Result<(), Exit> {
        self.tell(shared, TaskState::Staging, None).await;
        let credentials = super::credentials::find(&shared.config, image).await;
        tracing::info!(engine = %member.engine.name(), image, "pulling");
        let pulled = tokio::select! {
            pulled = guarded(member, member.engine.pull(image, credentials.as_ref())) => pulled,
            _ = self.ears.orders.changed() => return Err(Exit::Unknown),
        };
        pulled.map_err(|error| match self.not_started(member, &error) {
            Exit::NotStarted { reason } => {
                Exit::NotStarted { reason: format!("image `{image}` cannot be pulled: {reason}").into() }
            }
            exit => exit,
        })
    }

    /// How a launch ends that an engine did not carry out. When it is not known whether it did, the task is over all the
    /// same, and nobody's failure; should its container turn up, it is removed, for nobody knows it.
    fn not_started(&self, member: &Member, error: &EngineError) -> Exit {
        if error.is_retryable() {
            member.suspicion.notify_one();
            tracing::warn!(task = %self.id, %error, "launch given up");
            return Exit::Unknown;
        }
        Exit::NotStarted { reason: error.to_string().into() }
    }

    /// Looks at the container and does what is to be done about it. Some once the task is over.
    async fn look(&mut self, shared: &Shared) -> Option<Exit> {
        loop {
            let index = match self.find(shared).await {
                Found::On(index) => index,
                Found::Nowhere => return Some(Exit::Unknown),
                Found::Unknown => {
                    self.hold(shared).await;
                    return None;
                }
            };
            let member = &shared.members[index];
            let Some(connection) = member.connection() else {
                // The watch pokes when the engine is back.
                self.hold(shared).await;
                return None;
            };
            if let Err(error) = self.obey(shared, member).await {
                self.failed(member, &error).await;
                continue;
            }
            let container = match guarded(member, member.engine.inspect(&self.container)).await {
                Ok(container) if self.is_mine(&container) => container,
                Ok(_) => return Some(self.vanished()),
                Err(error) if error.is_not_found() => return Some(self.vanished()),
                Err(error) => {
                    self.failed(member, &error).await;
                    continue;
                }
            };
            match container.status {
                Status::Running | Status::Restarting => {
                    if self.needs_health && container.health.is_none() {
                        let reason =
                            "`ready = \"healthy\"` needs a health check: neither the policy nor the image has one";
                        return Some(self.finish(shared, member, Exit::NotStarted { reason: reason.into() }).await);
                    }
                    self.ran_under = Some(connection);
                    self.placement = template::placement(member.engine.config(), &container);
                    let healthy = container.health.map(|health| health == Health::Healthy);
                    self.tell(shared, self.state(), healthy).await;
                    if self.kill_at.is_none() || shared.config.hands_off {
                        return None;
                    }
                    // It was told to end and runs on: once more.
                    tokio::time::sleep(PAUSE).await;
                }
                Status::Created if self.kill_at.is_some() => {
                    return Some(self.finish(shared, member, Exit::Unknown).await);
                }
                // What an earlier run had begun is left to one that carries things out.
                Status::Created if shared.config.hands_off => return None,
                Status::Created => {
                    if let Err(error) = self.start(member).await {
                        if error.is_retryable() {
                            self.failed(member, &error).await;
                            continue;
                        }
                        let exit = Exit::NotStarted { reason: error.to_string().into() };
                        return Some(self.finish(shared, member, exit).await);
                    }
                }
                Status::Removing => tokio::time::sleep(PAUSE).await,
                Status::Exited => {
                    let exit = self.exit(&container, connection);
                    return Some(self.finish(shared, member, exit).await);
                }
            }
        }
    }

    /// Which engine the container is on.
    async fn find(&mut self, shared: &Shared) -> Found {
        if let Some(index) = self.member {
            return Found::On(index);
        }
        let mut everywhere = true;
        for (index, member) in shared.members.iter().enumerate() {
            let looked =
                if member.is_up() { Some(guarded(member, member.engine.inspect(&self.container)).await) } else { None };
            match looked {
                Some(Ok(container)) if self.is_mine(&container) => {
                    self.member = Some(index);
                    shared.registry().place(&self.id, index);
                    return Found::On(index);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) if error.is_not_found() => {}
                Some(Err(_)) | None => everywhere = false,
            }
        }
        if everywhere { Found::Nowhere } else { Found::Unknown }
    }

    /// Its engine is away: what is known of it stays so.
    async fn hold(&mut self, shared: &Shared) {
        self.heed();
        if self.kill_at.is_some() {
            self.tell(shared, TaskState::Killing, None).await;
        } else if self.looked.is_some() && self.placement.container.is_some() {
            self.tell(shared, TaskState::Running, None).await;
        }
    }

    /// Stops the container when the task was told to end. An order with a shorter grace replaces the one before.
    async fn obey(&mut self, shared: &Shared, member: &Member) -> Result<(), EngineError> {
        self.heed();
        while let Some(kill_at) = self.kill_at.filter(|_| !shared.config.hands_off) {
            self.tell(shared, TaskState::Killing, None).await;
            let grace = kill_at.saturating_duration_since(Instant::now());
            tokio::select! {
                stopped = guarded(member, member.engine.stop(&self.container, grace)) => return match stopped {
                    Err(error) if error.is_not_found() => Ok(()),
                    Err(error) if error.is_retryable() => Err(error),
                    // One that cannot be stopped can perhaps be killed.
                    Err(_) => member.engine.kill(&self.container, "KILL").await.or_else(|error| match error {
                        error if error.is_not_found() || error.is_conflict() => Ok(()),
                        error => Err(error),
                    }),
                    Ok(()) => Ok(()),
                },
                _ = self.ears.orders.changed() => self.heed(),
            }
        }
        Ok(())
    }

    /// Takes in an order to end.
    fn heed(&mut self) {
        if let Some(grace) = *self.ears.orders.borrow_and_update() {
            let kill_at = Instant::now() + grace.min(Duration::from_secs(30 * 24 * 3600));
            self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        }
    }

    async fn start(&mut self, member: &Member) -> Result<(), EngineError> {
        // Nobody closes the semaphore.
        let turn = member.room.acquire().await;
        let started = guarded(member, member.engine.start(&self.container)).await;
        drop(turn);
        started
    }

    /// An engine did not do what it was asked; whether it is there will be known soon.
    async fn failed(&self, member: &Member, error: &EngineError) {
        if error.is_retryable() {
            member.suspicion.notify_one();
            tracing::debug!(task = %self.id, %error, "engine not available");
        } else {
            tracing::warn!(task = %self.id, %error, "the engine refuses; tried again");
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// How a container ended. What an engine's own restart did to it is no failure of the task.
    fn exit(&self, container: &Container, connection: u64) -> Exit {
        let code = i32::try_from(container.exit_code).unwrap_or(i32::MAX);
        let unwatched = self.ran_under.is_some_and(|under| under != connection);
        match code {
            0 => Exit::Code { code },
            _ if container.oom_killed => Exit::OutOfMemory,
            _ if unwatched => Exit::Unknown,
            129..=192 => Exit::Signal { signal: code - 128 },
            _ => Exit::Code { code },
        }
    }

    /// Somebody else removed the container.
    fn vanished(&self) -> Exit {
        if self.kill_at.is_none() && self.looked.is_none() {
            tracing::warn!(task = %self.id, "its container was removed by somebody else");
        }
        Exit::Unknown
    }

    /// Keeps the last words of a task that failed, and removes its container.
    async fn finish(&mut self, shared: &Shared, member: &Member, exit: Exit) -> Exit {
        let ran = !matches!(exit, Exit::NotStarted { .. } | Exit::Unknown);
        if exit.is_failure() && ran && self.kill_at.is_none() {
            match guarded(member, member.engine.log_tail(&self.container, TAIL)).await {
                Ok(tail) => self.keep(shared, &exit, &tail).await,
                Err(error) => tracing::debug!(task = %self.id, %error, "no log of a failed task"),
            }
        }
        if let Err(error) = guarded(member, member.engine.remove(&self.container)).await {
            // The next sweep removes it.
            member.suspicion.notify_one();
            tracing::debug!(task = %self.id, %error, "container not removed yet");
        }
        exit
    }

    async fn keep(&self, shared: &Shared, exit: &Exit, tail: &str) {
        if tail.is_empty() {
            return;
        }
        tracing::warn!(task = %self.id, exit = %exit, last_words = %tail, "what a failed task said last");
        let Some(folder) = &shared.config.log_dir else { return };
        let folder = folder.join(self.policy.as_str().replace('/', "~"));
        let path = folder.join(format!("{}.log", self.container));
        let written = async {
            tokio::fs::create_dir_all(&folder).await?;
            tokio::fs::write(&path, format!("{tail}\n")).await
        };
        if let Err(error) = written.await {
            tracing::warn!(path = %path.display(), %error, "could not keep what a failed task said");
        }
    }

    fn is_mine(&self, container: &Container) -> bool {
        container.labels.get(label::TASK).map(String::as_str) == Some(self.id.as_str())
    }

    const fn state(&self) -> TaskState {
        if self.kill_at.is_some() { TaskState::Killing } else { TaskState::Running }
    }

    /// Reports what has changed since the last time.
    async fn tell(&mut self, shared: &Shared, state: TaskState, healthy: Option<bool>) {
        shared.registry().set_container(&self.id, self.placement.container.as_ref());
        let now = (state, healthy, self.placement.clone());
        if self.told.as_ref() == Some(&now) {
            return;
        }
        let placement = (self.placement != Placement::default()).then(|| self.placement.clone());
        self.told = Some(now);
        shared.report(TaskUpdate { healthy, placement, ..update(&self.id, state) }).await;
    }
}

/// Where a container is.
enum Found {
    On(usize),
    Nowhere,
    /// An engine that may have it is away.
    Unknown,
}

/// A call that ends at once when its engine is found to be away: its own deadline can be long.
async fn guarded<T>(member: &Member, call: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    tokio::select! {
        biased;
        answer = call => answer,
        message = member.away() => Err(EngineError::Unavailable {
            engine: member.engine.name().to_owned(),
            address: member.engine.config().address.to_string(),
            message,
        }),
    }
}
