//! The durable store: what a state folder remembers from one run to the next.
//!
//! ```text
//!   submit ─► queue (newest write for each key) ─► writer thread ─► one synced commit ─► done
//! ```
//!
//! Records are JSON in a redb database, `setpoint.redb`; a lock file keeps other processes out. What opens is
//! exactly what one commit wrote, none older than the last one that was acknowledged; anything else is refused,
//! and the file stays as it is, byte for byte.
//!
//! It does not know what the records mean, and decides nothing. Invariants:
//! - writes take effect in the order of their submission, and a submission as a whole or not at all;
//! - `done` is answered after the commit is on disk, never before;
//! - a failed commit is kept and tried again: what was submitted is not lost while the process lives.

mod disk;
mod error;
mod folder;
mod image;
mod record;
mod seal;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use error::StoreError;

use super::record::{Stored, Write};
use disk::Disk;
use folder::Lock;
use writer::{Done, Pace, Queue};

/// The store of one state folder, which nobody else has open meanwhile.
#[derive(Debug)]
pub struct Store {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    dir: PathBuf,
    /// Held until the writer has ended: the last field.
    _lock: Lock,
}

impl Store {
    /// Opens a state folder, creating it (for its owner alone) when it is missing, and reads all that it holds.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::Corrupt`] for a file that is not exactly
    /// what was written (it is left as it is), [`StoreError::Newer`] for one of a newer version,
    /// [`StoreError::NotAFolder`] and [`StoreError::Io`] for what the system refuses.
    pub fn open(dir: &Path) -> Result<(Self, Stored), StoreError> {
        folder::ensure(dir)?;
        let lock = Lock::acquire(dir)?;
        let (disk, stored) = Disk::open(dir)?;
        let queue = Arc::new(Queue::default());
        let shared = Arc::clone(&queue);
        let writer = std::thread::Builder::new()
            .name("setpoint-store".to_owned())
            .spawn(move || writer::run(&shared, disk))
            .map_err(|error| StoreError::io("start the writer of", dir, error))?;
        Ok((Self { queue, writer: Some(writer), dir: dir.to_owned(), _lock: lock }, stored))
    }

    /// Reads what a state folder holds, also while another process has it open; touches nothing.
    ///
    /// # Errors
    /// As [`Store::open`], but for the lock; [`StoreError::Missing`] when there is nothing to read.
    pub fn open_read_only(dir: &Path) -> Result<Stored, StoreError> {
        disk::read_only(dir).map(|loaded| loaded.stored)
    }

    /// The state folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Hands writes over and returns at once. They take effect together, after everything submitted before: right
    /// away with `sync`, else within about a second. `done` hears when they are durable, or why not; a failed commit is
    /// tried again all the same, so after an error the writes may still take effect later. With no writes,
    /// `done` hears when everything submitted before is durable.
    pub fn submit(&self, writes: Vec<Write>, sync: bool, done: Option<oneshot::Sender<Result<(), StoreError>>>) {
        self.queue.submit(writes, if sync { Pace::Now } else { Pace::Later }, done.map(Done::Async));
    }

    /// The same for writes that somebody waits for who can wait a few milliseconds more: at once when the last commit was
    /// a while ago, so that one is not delayed, and in a burst many in one commit.
    pub fn submit_soon(&self, writes: Vec<Write>, done: oneshot::Sender<Result<(), StoreError>>) {
        self.queue.submit(writes, Pace::Soon, Some(Done::Async(done)));
    }

    /// Why writes are not durable at present. While there is a failure nothing may be launched.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.queue.failure()
    }

    /// Waits, blocking this thread, until everything submitted is durable. Inside async code use
    /// [`Store::submit`] with no writes, `sync` and a `done`.
    ///
    /// # Errors
    /// Why it is not.
    pub fn flush(&self) -> Result<(), StoreError> {
        let (done, answer) = mpsc::channel();
        self.queue.submit(Vec::new(), Pace::Now, Some(Done::Blocking(done)));
        answer.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Writes everything that was submitted, ends the writer and gives the folder back; blocks until then. Dropping
    /// the store does the same and has nobody to tell of a failure.
    ///
    /// # Errors
    /// Why something that was submitted is not durable.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let (done, answer) = mpsc::channel();
        self.queue.submit(Vec::new(), Pace::Now, Some(Done::Blocking(done)));
        self.queue.close();
        let ended = writer.join();
        let flushed = answer.try_recv().unwrap_or(Err(StoreError::Closed));
        if ended.is_err() { Err(StoreError::Closed) } else { flushed }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(error = %error, path = %self.dir.display(), "the last changes are not in the store");
        }
    }
}
