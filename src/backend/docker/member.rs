//! One engine of the backend, and whether it answers.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};

use crate::container::Engine;
use crate::sample::Sampler;

/// Containers that are made and started at once; an engine does no more in the same time when it is asked for more.
const AT_ONCE: usize = 8;

/// An engine that tasks can be on.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) engine: Engine,
    /// Room for making and starting containers.
    pub(super) room: Semaphore,
    /// Somebody has reason to think that the engine is away.
    pub(super) suspicion: Notify,
    /// What its containers use.
    pub(super) sampler: Sampler,
    standing: watch::Sender<Reach>,
}

/// Whether an engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nobody has looked yet.
    Unknown,
    /// It does.
    Up {
        /// The number of the connection, from 1: what was read under another one may have changed in between.
        connection: u64,
    },
    /// It does not.
    Away {
        /// What it said, or the system.
        problem: String,
    },
}

impl Member {
    pub(super) fn new(engine: Engine) -> Self {
        let standing = watch::Sender::new(Reach::Unknown);
        let sampler = Sampler::new(Arc::new(engine.clone()));
        Self { engine, room: Semaphore::new(AT_ONCE), suspicion: Notify::new(), sampler, standing }
    }

    pub(super) fn set(&self, reach: Reach) {
        self.standing.send_replace(reach);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Reach> {
        self.standing.subscribe()
    }

    /// The connection's number while it answers.
    pub(super) fn connection(&self) -> Option<u64> {
        match *self.standing.borrow() {
            Reach::Up { connection } => Some(connection),
            Reach::Unknown | Reach::Away { .. } => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection().is_some()
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(*self.standing.borrow(), Reach::Away { .. })
    }

    /// Why it does not answer, when it does not.
    pub(super) fn problem(&self) -> Option<String> {
        match &*self.standing.borrow() {
            Reach::Up { .. } => None,
            Reach::Unknown => Some(format!("engine `{}` has not answered yet", self.engine.name())),
            Reach::Away { problem } => Some(problem.clone()),
        }
    }

    /// Waits until it has been looked at for the first time.
    pub(super) async fn settled(&self) {
        // The sender is in here, so that the channel cannot close.
        self.subscribe().wait_for(|reach| *reach != Reach::Unknown).await.ok();
    }

    /// Waits until it is found to be away, and gives the reason.
    pub(super) async fn away(&self) -> String {
        let mut standing = self.subscribe();
        loop {
            if let Reach::Away { problem } = &*standing.borrow_and_update() {
                return problem.clone();
            }
            if standing.changed().await.is_err() {
                return "it is not watched any more".to_owned();
            }
        }
    }
}
