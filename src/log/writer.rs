//! The writer: a thread that takes entries from a bounded queue and appends them to files.
//!
//! ```text
//!   submit ──► queue ──► encode ──► one write for all that waits ──► rotate when the file is full
//!      │ full                             │ failed
//!      └──► counted as lost ◄─────────────┘
//! ```
//!
//! Invariants: submitting never waits; what is lost is counted, told in the log as soon as something can be written,
//! and followed by whole records, for which [`DecisionLog::epoch`] changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::files::Files;
use super::record::{Encoder, Entry};
use super::{LogConfig, LogError};

/// Entries that may wait for the writer.
const QUEUE: usize = 16_384;

/// Bytes that are written at once, at least, where so much waits.
const BATCH: usize = 256 << 10;

/// How long entries are let gather before they are written: a wake-up and a write for each would cost more than the
/// entries themselves. A process that is killed loses as much more of its log.
const GATHER: Duration = Duration::from_millis(10);

/// What both ends share.
#[derive(Debug, Default)]
struct Shared {
    /// Counts up when records were lost behind the queue.
    epoch: AtomicU64,
    /// Entries that were lost and not told of yet.
    lost: AtomicU64,
    /// Entries that were ever lost.
    lost_in_all: AtomicU64,
    /// The last write failed.
    failing: AtomicBool,
    /// Entries were lost because the queue was full, and it has not run empty since.
    behind: AtomicBool,
}

impl Shared {
    fn lose(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
        self.lost_in_all.fetch_add(records, Ordering::Relaxed);
    }
}

/// A decision log that is being written.
#[derive(Debug)]
pub struct DecisionLog {
    queue: SyncSender<Box<Entry>>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl DecisionLog {
    /// Opens the log's folder, making it when it is not there, and starts the writer.
    ///
    /// # Errors
    /// The folder cannot be used, or another process writes to it.
    pub fn open(config: LogConfig) -> Result<Self, LogError> {
        let folder = config.folder.clone();
        let mut files = Files::open(config)?;
        let mut encoder = Encoder::default();
        let mut first = Vec::new();
        encoder.begin(false, &mut first);
        files.append(&first)?;
        let shared = Arc::new(Shared::default());
        let (queue, entries) = sync_channel(QUEUE);
        let writer = Writer { files, encoder, shared: Arc::clone(&shared) };
        let thread = thread::Builder::new()
            .name("decision log".to_owned())
            .spawn(move || writer.run(&entries))
            .map_err(|error| LogError::io("start the writer for", &folder, error))?;
        Ok(Self { queue, shared, thread })
    }

    /// Hands over an entry; false when it is lost because the writer is behind or gone. Never waits.
    pub fn submit(&self, entry: Box<Entry>) -> bool {
        match self.queue.try_send(entry) {
            Ok(()) => true,
            Err(error) => {
                if matches!(error, TrySendError::Disconnected(_)) {
                    self.shared.failing.store(true, Ordering::Relaxed);
                }
                self.lose(1);
                false
            }
        }
    }

    /// Counts entries that never came to the queue.
    pub(super) fn lose(&self, records: u64) {
        self.shared.lose(records);
    }

    /// Changes when entries that had been taken were lost: the next one of each policy has to be whole.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Relaxed)
    }

    /// How many entries were lost since it was opened.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost_in_all.load(Ordering::Relaxed)
    }

    /// Why decisions are made that are not in the log, while that is so.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        if self.shared.failing.load(Ordering::Relaxed) {
            Some("it cannot be written: decisions are made that are not in it")
        } else if self.shared.behind.load(Ordering::Relaxed) {
            Some("its writer is behind: decisions were made that are not in it")
        } else {
            None
        }
    }

    /// Writes what waits and ends the writer. Blocks.
    pub fn close(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the decision log's writer failed, the end of the log may be missing");
        }
    }
}

struct Writer {
    files: Files,
    encoder: Encoder,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, entries: &Receiver<Box<Entry>>) {
        let mut batch = Vec::new();
        let mut all_taken = true;
        while let Ok(first) = entries.recv() {
            if all_taken {
                thread::sleep(GATHER);
            }
            batch.clear();
            let mut n = self.tell_lost(&mut batch);
            let told = n;
            let mut next = Some(first);
            while let Some(entry) = next.take() {
                if self.encoder.push(*entry, &mut batch) {
                    n += 1;
                } else {
                    self.lose(1);
                }
                if batch.len() < BATCH {
                    next = entries.try_recv().ok();
                }
            }
            self.write(&batch, n);
            all_taken = batch.len() < BATCH;
            // Nothing waits any more, and nothing was lost meanwhile.
            if told == 0 && all_taken {
                self.shared.behind.store(false, Ordering::Relaxed);
            }
            if self.files.is_full() {
                self.rotate();
            }
        }
        let mut last = Vec::new();
        let n = self.tell_lost(&mut last);
        if 0 < n {
            self.write(&last, n);
        }
        self.files.sync();
    }

    /// Says in the log how many entries were lost; gives that number.
    fn tell_lost(&mut self, batch: &mut Vec<u8>) -> u64 {
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        if 0 < lost {
            let failing = self.shared.failing.load(Ordering::Relaxed);
            if !failing && !self.shared.behind.swap(true, Ordering::Relaxed) {
                tracing::warn!(lost, "the decision log is behind: decisions were made that are not in it");
            }
            Encoder::lost(lost, batch);
        }
        lost
    }

    /// Writes a batch that stands for `n` entries.
    fn write(&mut self, batch: &[u8], n: u64) {
        match self.files.append(batch) {
            Ok(()) => {
                if self.shared.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the decision log is written again");
                }
            }
            Err(error) => {
                if !self.shared.failing.swap(true, Ordering::Relaxed) {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(error = %error, cause, "decisions are made that are not in the decision log");
                }
                self.lose(n);
            }
        }
    }

    fn lose(&mut self, n: u64) {
        self.shared.lose(n);
        self.encoder.forget();
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn rotate(&mut self) {
        if let Err(error) = self.files.rotate() {
            if !self.shared.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(error = %error, "the decision log goes on in a file that is over its size");
            }
            return;
        }
        let mut first = Vec::new();
        self.encoder.begin(true, &mut first);
        self.write(&first, 0);
    }
}
