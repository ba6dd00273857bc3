//! The watch of one engine: connecting, events, and looking at everything once more.
//!
//! It changes nothing of tasks: it pokes their workers, and removes containers that nobody knows.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::member::{Member, Reach};
use super::{Shared, label};
use crate::container::{EngineError, Event, EventFilter, Listed};
use crate::core::model::TaskId;

/// First and longest pause between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How often an engine is asked whether it is still there: a hung one keeps its connections.
const PING: Duration = Duration::from_secs(2);

/// When everything is looked at again after a connection: what happened while the stream of events was being set up is not
/// in it.
const SECOND_SWEEP: Duration = Duration::from_secs(1);

/// How often it is later, in case that an event got lost.
const SWEEP: Duration = Duration::from_secs(30);

/// What may change what is known of a container.
const ACTIONS: [&str; 6] = ["create", "start", "die", "oom", "destroy", "health_status"];

/// Watches one engine until the backend lets go.
pub(super) async fn run(shared: Arc<Shared>, index: usize) {
    tokio::select! {
        never = watch(&shared, index) => match never {},
        () = shared.let_go.cancelled() => {}
    }
}

async fn watch(shared: &Shared, index: usize) -> Infallible {
    let member = &shared.members[index];
    let (mut connection, mut pause) = (0, PAUSE.0);
    loop {
        let was_away = member.is_away();
        let error = match connect(member, shared).await {
            Ok(session) => {
                connection += 1;
                member.set(Reach::Up { connection });
                if was_away {
                    tracing::info!(engine = %member.engine.name(), "engine answers again");
                }
                pause = PAUSE.0;
                session.run(shared, index).await
            }
            Err(error) => error,
        };
        // Said once for each outage.
        if member.is_up() || member.problem().is_none_or(|problem| problem != error.to_string()) {
            let tasks = shared.registry().load(index);
            tracing::warn!(engine = %member.engine.name(), tasks, %error, "engine away; its tasks are held as they are");
        }
        member.set(Reach::Away { problem: error.to_string() });
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// A connection's events, and what is being removed meanwhile.
struct Session<'a> {
    member: &'a Member,
    events: crate::container::EventStream,
    removing: HashSet<String>,
    removals: FuturesUnordered<BoxFuture<'a, String>>,
}

async fn connect<'a>(member: &'a Member, shared: &Shared) -> Result<Session<'a>, EngineError> {
    member.engine.ping().await?;
    let filter = EventFilter {
        labels: vec![format!("{}={}", label::OWNER, shared.owner)],
        actions: ACTIONS.map(str::to_owned).to_vec(),
    };
    let events = member.engine.events(&filter).await?;
    Ok(Session { member, events, removing: HashSet::new(), removals: FuturesUnordered::new() })
}

impl Session<'_> {
    /// Until the connection is lost.
    async fn run(mut self, shared: &Shared, index: usize) -> EngineError {
        let mut ping_at = Instant::now() + PING;
        let mut sweep_at = Instant::now();
        let mut second = true;
        let mut known = shared.recovered.is_cancelled();
        loop {
            let outcome = tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => event.map(|event| self.take(shared, index, &event)),
                    None => Err(self.broken()),
                },
                () = self.member.suspicion.notified() => self.member.engine.ping().await,
                () = sleep_until(ping_at) => {
                    ping_at = Instant::now() + PING;
                    self.member.engine.ping().await
                }
                () = sleep_until(sweep_at) => {
                    sweep_at = Instant::now() + if std::mem::take(&mut second) { SECOND_SWEEP } else { SWEEP };
                    self.sweep(shared, index).await
                }
                // Strays are nobody's only once the known tasks are known.
                () = shared.recovered.cancelled(), if !known => {
                    known = true;
                    self.sweep(shared, index).await
                }
                Some(removed) = self.removals.next() => {
                    self.removing.remove(&removed);
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                return error;
            }
        }
    }

    fn broken(&self) -> EngineError {
        EngineError::Unavailable {
            engine: self.member.engine.name().to_owned(),
            address: self.member.engine.config().address.to_string(),
            message: "its stream of events ended".to_owned(),
        }
    }

    fn take(&mut self, shared: &Shared, index: usize, event: &Event) {
        let Some(task) = event.attributes.get(label::TASK) else { return };
        let task = TaskId::from(task.as_str());
        shared.registry().poke(&task);
        // A request that was given up can still be carried out by an engine that hung.
        if matches!(&*event.action, "create" | "start") && is_stray(shared, &task) {
            self.remove(shared, index, event.id.clone(), &task);
        }
    }

    /// Has every task here looked at, and removes containers that nobody knows.
    async fn sweep(&mut self, shared: &Shared, index: usize) -> Result<(), EngineError> {
        // The list comes first: what is launched meanwhile is in the registry by the time that it is asked.
        let mine = self.member.engine.list(&[format!("{}={}", label::OWNER, shared.owner)], true).await?;
        for listed in &mine {
            let Some(task) = listed.labels.get(label::TASK).map(|task| TaskId::from(task.as_str())) else { continue };
            if is_stray(shared, &task) {
                self.remove(shared, index, listed.id.clone(), &task);
            }
        }
        shared.registry().poke_all(index);
        if shared.recovered.is_cancelled() && !shared.config.hands_off {
            for left in left_over(self.member, shared).await? {
                let task = TaskId::from(left.labels.get(label::TASK).map_or("", String::as_str));
                self.remove(shared, index, left.id, &task);
            }
        }
        Ok(())
    }

    fn remove(&mut self, shared: &Shared, index: usize, container: String, task: &TaskId) {
        if !self.removing.insert(container.clone()) {
            return;
        }
        let engine = shared.members[index].engine.clone();
        let grace = shared.config.stop_grace;
        tracing::warn!(engine = %engine.name(), task = %task, container = %container, "removing a container that no task is known for");
        self.removals.push(Box::pin(async move {
            let removed = match engine.stop(&container, grace).await {
                Ok(()) | Err(EngineError::NotFound { .. }) => engine.remove(&container).await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::warn!(engine = %engine.name(), container = %container, %error, "not removed; tried again later");
            }
            container
        }));
    }
}

/// Containers of runs without a state folder that ended without removing them.
async fn left_over(member: &Member, shared: &Shared) -> Result<Vec<Listed>, EngineError> {
    let of_runs = member.engine.list(&[label::RUN.to_owned()], true).await?;
    let over = |listed: &Listed| listed.labels.get(label::RUN).is_some_and(|run| shared.run.is_over(run));
    Ok(of_runs.into_iter().filter(over).collect())
}

/// Whether a container of ours belongs to no task.
fn is_stray(shared: &Shared, task: &TaskId) -> bool {
    let may = shared.recovered.is_cancelled() && !shared.closing.is_cancelled() && !shared.config.hands_off;
    may && !shared.registry().contains(task)
}
