//! What outlives an executor that is killed, and removes the containers that it left.
//!
//! ```text
//!   executor ── starts ──► program ── a session of its own ──► the watcher
//!      └───────────────── a pipe, which ends with the executor ────┘
//! ```
//!
//! An agent that destroys an executor kills what is below it, in its session and in its group; the watcher is in none of these,
//! and belongs to nobody. Where agents destroy by control group or by a space of process ids, it is killed as well; what is left
//! then is removed by the next executor on that machine, if it can tell that the one before is over.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::backend::TaskBackend;

/// How long an engine that is away is waited for.
const ENGINE_FOR: Duration = Duration::from_secs(600);

/// Between two attempts to reach it.
const AGAIN: Duration = Duration::from_secs(5);

/// How long what is left is looked for, after an orderly end, too: an engine may still be carrying out the last launch. A backend
/// looks again within this.
const LOOKS_FOR: Duration = Duration::from_secs(40);

/// How to start a watcher: a program that soon ends, having left one behind in a session of its own, with its standard input.
#[derive(Clone, Debug)]
pub struct Watcher {
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
}

/// What a watcher waits for the end of.
#[derive(Debug)]
pub(super) struct Watched {
    _pipe: Option<ChildStdin>,
}

impl Watcher {
    /// Starts it; it is out of everybody's way when this returns.
    pub(super) async fn start(&self) -> io::Result<Watched> {
        let mut child =
            Command::new(&self.program).args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let watched = Watched { _pipe: child.stdin.take() };
        let status = child.wait().await?;
        if !status.success() {
            return Err(io::Error::other(format!("`{}` ended with {status}", self.program.display())));
        }
        Ok(watched)
    }
}

/// Waits until the executor is over, which ends the standard input, and has a backend of that engine remove what it left.
///
/// # Errors
/// When the standard input cannot be read. An engine that stays away is none: it is said, and given up.
pub async fn watch(containers: Arc<dyn TaskBackend>) -> io::Result<()> {
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
    ended.await.map_err(io::Error::other)??;
    let (updates, mut none) = mpsc::channel(1);
    let reached = tokio::time::timeout(ENGINE_FOR, async {
        while let Err(error) = containers.recover(Vec::new(), updates.clone()).await {
            tracing::warn!(%error, "what an executor left cannot be removed yet");
            tokio::time::sleep(AGAIN).await;
        }
    });
    if reached.await.is_ok() {
        // It has no tasks, so it tells nothing.
        tokio::time::timeout(LOOKS_FOR, none.recv()).await.ok();
    } else {
        tracing::error!("what an executor left stays: its engine has not answered");
    }
    containers.shutdown(true).await;
    Ok(())
}
