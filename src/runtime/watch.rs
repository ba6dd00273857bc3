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

/// Files larger than this are no policies; only their size is looked at.
const MAX_HASHED: u64 = 4 << 20;

/// A handle to the watcher; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Watch {
    orders: Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Set { files: Vec<PathBuf>, dirs: Vec<PathBuf> },
    Loaded(Vec<(PathBuf, u64)>),
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
            known: BTreeMap::new(),
            watched: BTreeSet::new(),
            pending: BTreeMap::new(),
            next_poll: Instant::now() + poll,
        };
        std::thread::Builder::new().name("setpoint-watch".to_owned()).spawn(move || state.run(&inbox))?;
        Ok(Self { orders })
    }

    /// Replaces what is watched. New files are taken as they are now.
    pub(crate) fn set(&self, files: Vec<PathBuf>, dirs: Vec<PathBuf>) {
        // The thread only ends with this handle, or when the loop has ended.
        self.orders.send(Order::Set { files, dirs }).ok();
    }

    /// Tells by their fingerprints what was loaded of watched files: a file that is not that any more is reported.
    pub(crate) fn loaded(&self, files: Vec<(PathBuf, u64)>) {
        self.orders.send(Order::Loaded(files)).ok();
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
    /// Each of them by its absolute path, which is how the system tells of it however it was given.
    known: BTreeMap<PathBuf, PathBuf>,
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
                Ok(Order::Loaded(files)) => self.loaded(files),
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
        self.known = self.files.keys().chain(self.dirs.keys()).map(|path| (absolute(path), path.clone())).collect();
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

    /// What was loaded, where it differs from the last look: either the file has changed since, or the last look is the
    /// older one, and then others may have loaded what it saw.
    fn loaded(&mut self, files: Vec<(PathBuf, u64)>) {
        for (path, loaded) in files {
            let Some(last) = self.files.get_mut(&path).filter(|last| **last != Some(loaded)) else { continue };
            if look(&path) != Some(loaded) {
                *last = Some(loaded);
            }
            self.pending.insert(path, Instant::now());
        }
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
            let path = &absolute(path);
            let dir = parent(path);
            if let Some(file) = self.known.get(path).filter(|known| self.files.contains_key(*known)) {
                self.pending.insert(file.clone(), now);
            } else {
                // Something else in the folder: links of ours may go through it.
                for file in self.files.keys().filter(|file| parent(&absolute(file)) == dir && file.is_symlink()) {
                    self.pending.insert(file.clone(), now);
                }
            }
            if let Some(dir) = self.known.get(&dir).filter(|known| self.dirs.contains_key(*known)) {
                self.pending.insert(dir.clone(), now);
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

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn look(path: &Path) -> Look {
    let metadata = std::fs::metadata(path).ok()?;
    if metadata.len() <= MAX_HASHED {
        return Some(fingerprint(&std::fs::read(path).ok()?));
    }
    Some(fingerprint_of_size(metadata.len()))
}

/// A hash of a file's content, as long as the program runs.
pub(crate) fn fingerprint(content: &[u8]) -> u64 {
    if MAX_HASHED < content.len() as u64 {
        return fingerprint_of_size(content.len() as u64);
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}

fn fingerprint_of_size(bytes: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(bytes);
    hasher.finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_between_its_load_and_the_first_look_is_reported_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (same, other) = (folder.path().join("same.lua"), folder.path().join("other.lua"));
        std::fs::write(&same, "same").expect("written");
        std::fs::write(&other, "new").expect("written");
        let (events, mut inbox) = tokio::sync::mpsc::channel(4);
        // Neither the poll nor a notification tells of it: nothing changes any more.
        let watch = Watch::start(Duration::from_secs(3600), events).expect("a thread");
        watch.set(vec![same.clone(), other.clone()], Vec::new());
        // Two policies have read the file, one before it changed and one after.
        let read = |path: &PathBuf, text: &str| (path.clone(), fingerprint(text.as_bytes()));
        watch.loaded(vec![read(&same, "same"), read(&other, "old"), read(&other, "new")]);
        let Some(Event::Changed(paths)) = inbox.blocking_recv() else { panic!("nothing was reported") };
        assert_eq!(paths, std::slice::from_ref(&other));
        watch.loaded(vec![read(&same, "same"), read(&other, "new")]);
        std::fs::write(&same, "changed").expect("written");
        let Some(Event::Changed(paths)) = inbox.blocking_recv() else { panic!("nothing was reported") };
        assert_eq!(paths, [same], "what is as it was loaded is not reported again");
    }
}
