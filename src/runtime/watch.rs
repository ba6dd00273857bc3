//! The watcher: notices that files changed, however they were changed.
//!
//! A thread of its own listens to the system's notifications for every folder that holds a watched file, and looks
//! at every file itself at each poll. What counts is the content: a change is reported when a file's bytes differ
//! from the last look, ten milliseconds after the last close-write, rename or creation. So editors that replace
//! files, symlinks that are swapped (the folder's other entries change), and file systems that notify nobody all
//! come out the same. A file that is gone is reported too.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::event::Event;

/// How long a file must have been left alone.
const SETTLE: Duration = Duration::from_millis(10);

/// Files larger than this are no policies; only their size and time are looked at.
const MAX_HASHED: u64 = 4 << 20;

/// A handle to the watcher; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Watch {
    orders: Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Set { files: Vec<PathBuf>, dirs: Vec<PathBuf> },
    Notified(notify::Result<notify::Event>),
}

impl Watch {
    /// Starts the thread. Without notifications from the system there is still the poll.
    pub(crate) fn start(poll: Duration, events: tokio::sync::mpsc::Sender<Event>) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let notified = orders.clone();
        let watcher = notify::recommended_watcher(move |event| {
            // The thread has ended when nobody takes it.
            notified.send(Order::Notified(event)).ok();
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(error = %error, "no notifications of file changes, files are polled every {poll:?}");
                None
            }
        };
        let state = Watching {
            watcher,
            poll,
            events,
            files: BTreeMap::new(),
            dirs: BTreeMap::new(),
            watched: BTreeSet::new(),
            pending: BTreeMap::new(),
            next_poll: Instant::now() + poll,
        };
        std::thread::Builder::new().name("setpoint-watch".to_owned()).spawn(move || state.run(&inbox))?;
        Ok(Self { orders })
    }

    /// Replaces what is watched. Files that are new are taken as they are now.
    pub(crate) fn set(&self, files: Vec<PathBuf>, dirs: Vec<PathBuf>) {
        // The thread only ends with this handle, or when the loop has ended.
        self.orders.send(Order::Set { files, dirs }).ok();
    }
}

/// What a look at a file gave: a hash of its content, or that it cannot be read.
type Look = Option<u64>;

struct Watching {
    watcher: Option<RecommendedWatcher>,
    poll: Duration,
    events: tokio::sync::mpsc::Sender<Event>,
    files: BTreeMap<PathBuf, Look>,
    dirs: BTreeMap<PathBuf, u64>,
    watched: BTreeSet<PathBuf>,
    /// Paths that changed, and since when they have been left alone.
    pending: BTreeMap<PathBuf, Instant>,
    next_poll: Instant,
}

impl Watching {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let wake = self.pending.values().map(|since| *since + SETTLE).min().unwrap_or(self.next_poll);
            let patience = wake.min(self.next_poll).saturating_duration_since(Instant::now());
            match inbox.recv_timeout(patience) {
                Ok(Order::Set { files, dirs }) => self.set(files, dirs),
                Ok(Order::Notified(Ok(event))) => self.notified(&event),
                Ok(Order::Notified(Err(error))) => {
                    tracing::debug!(error = %error, "notifications were lost, every file is looked at");
                    self.next_poll = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if self.next_poll <= now {
                self.next_poll = now + self.poll;
                let all: Vec<PathBuf> = self.files.keys().chain(self.dirs.keys()).cloned().collect();
                for path in all {
                    self.pending.entry(path).or_insert(now);
                }
            }
            if !self.report_settled(now) {
                return;
            }
        }
    }

    fn set(&mut self, files: Vec<PathBuf>, dirs: Vec<PathBuf>) {
        let files: BTreeSet<PathBuf> = files.into_iter().collect();
        self.files.retain(|path, _| files.contains(path));
        for path in files {
            self.files.entry(path).or_insert_with_key(|path| look(path));
        }
        self.dirs = dirs
            .into_iter()
            .map(|dir| (dir.clone(), self.dirs.get(&dir).copied().unwrap_or_else(|| listing(&dir))))
            .collect();
        let parents: BTreeSet<PathBuf> =
            self.files.keys().map(|file| parent(file)).chain(self.dirs.keys().cloned()).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&parents) {
            // A folder that went has unwatched itself.
            watcher.unwatch(gone).ok();
        }
        for new in parents.difference(&self.watched) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::debug!(folder = %new.display(), error = %error, "cannot watch the folder, its files are polled");
            }
        }
        self.watched = parents;
    }

    /// Something happened in a watched folder: a file of ours by name, or something that ours may go through.
    fn notified(&mut self, event: &notify::Event) {
        let counts = match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            EventKind::Modify(kind) => !matches!(kind, ModifyKind::Data(_)),
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
        };
        if !counts {
            return;
        }
        let now = Instant::now();
        for path in &event.paths {
            if self.files.contains_key(path) {
                self.pending.insert(path.clone(), now);
            } else {
                let dir = parent(path);
                let through: Vec<PathBuf> =
                    self.files.keys().filter(|file| parent(file) == dir && file.is_symlink()).cloned().collect();
                for file in through {
                    self.pending.insert(file, now);
                }
            }
            let dir = parent(path);
            if self.dirs.contains_key(&dir) {
                self.pending.insert(dir, now);
            }
        }
    }

    /// Looks at what has settled and reports what differs. False when nobody listens any more.
    fn report_settled(&mut self, now: Instant) -> bool {
        let settled: Vec<PathBuf> =
            self.pending.iter().filter(|(_, since)| **since + SETTLE <= now).map(|(path, _)| path.clone()).collect();
        let mut changed = Vec::new();
        for path in settled {
            self.pending.remove(&path);
            if let Some(before) = self.files.get_mut(&path) {
                let after = look(&path);
                if *before != after {
                    *before = after;
                    changed.push(path);
                }
            } else if let Some(before) = self.dirs.get_mut(&path) {
                let after = listing(&path);
                if *before != after {
                    *before = after;
                    changed.push(path);
                }
            }
        }
        changed.is_empty() || self.events.blocking_send(Event::Changed(changed)).is_ok()
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn look(path: &Path) -> Look {
    let metadata = std::fs::metadata(path).ok()?;
    let mut hasher = DefaultHasher::new();
    if metadata.len() <= MAX_HASHED {
        hasher.write(&std::fs::read(path).ok()?);
    } else {
        hasher.write_u64(metadata.len());
    }
    Some(hasher.finish())
}

/// A hash of the names in a folder; an unreadable folder is an empty one, its files are looked at by themselves.
fn listing(dir: &Path) -> u64 {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let mut hasher = DefaultHasher::new();
    for name in names {
        hasher.write(name.as_encoded_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}
