//! The logs of tasks: `<folder>/<policy>/<task>.log`, kept within bounds.
//!
//! A task writes its log itself, through a descriptor that it got when it was started; so the log of a running task is
//! rotated by copying and truncating. Every writer appends, which is why it goes on at the new end. What it writes
//! between the copy and the truncation is lost: a few lines, in a log that is over its limit. While no backend looks
//! (setpoint is not running), logs of tasks that outlive it grow.
//!
//! Invariants: a log with its rotated part takes at most twice the limit, and what is written between two looks; of a
//! policy's tasks that have ended, only the newest logs are kept; the log of a task that runs is never removed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::core::model::{PolicyName, TaskId};

/// How often the sizes of logs are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// What the file that a log was rotated to is called, behind the log's name.
const ROTATED: &str = ".1";

/// The logs of a backend's tasks.
#[derive(Debug)]
pub(super) struct Logs {
    folder: PathBuf,
    /// Bytes from which on a log is rotated.
    max: u64,
    /// How many logs of ended tasks are kept for each policy.
    keep: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Logs of tasks that run.
    live: BTreeSet<PathBuf>,
    /// Policies' folders in which logs are to be counted.
    ended: BTreeSet<PathBuf>,
}

impl Logs {
    /// Logs below a folder, which need not be there yet.
    pub(super) fn new(folder: PathBuf, max: u64, keep: usize) -> Self {
        Self { folder, max, keep, state: Mutex::default() }
    }

    /// Opens the log of a task that is about to start.
    pub(super) fn open(&self, policy: &PolicyName, task: &TaskId) -> io::Result<File> {
        let path = self.path(policy, task);
        self.state().live.insert(path.clone());
        fs::create_dir_all(self.of(policy))?;
        OpenOptions::new().create(true).append(true).open(path)
    }

    /// Looks after the log of a task of an earlier run. Its policy may have another name by now than when it began.
    pub(super) fn adopt(&self, policy: &PolicyName, task: &TaskId) -> PathBuf {
        let file = format!("{}.log", file_name(task.as_str()));
        let first = task.as_str().rsplit_once('.').map_or("", |(policy, _)| policy);
        let earlier = self.folder.join(file_name(first)).join(file);
        let path = Some(earlier).filter(|earlier| earlier.is_file()).unwrap_or_else(|| self.path(policy, task));
        self.state().live.insert(path.clone());
        path
    }

    /// A task has ended.
    pub(super) fn end(&self, path: &Path) {
        // A log that nothing was written to tells nothing; policies with many short tasks would drown in them.
        if fs::metadata(path).is_ok_and(|log| log.len() == 0)
            && !rotated(path).exists()
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "could not remove an empty log");
        }
        let mut state = self.state();
        state.live.remove(path);
        state.ended.extend(path.parent().map(Path::to_path_buf));
    }

    /// Counts the logs that earlier runs have left, at the next look.
    pub(super) fn take_in(&self) {
        let folders = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        self.state().ended.extend(folders);
    }

    /// Removes the logs of a policy that is gone for good, but for those of tasks that run: another may have adopted
    /// them.
    pub(super) fn forget(&self, policy: &PolicyName) {
        let folder = self.of(policy);
        self.prune(&folder, 0);
        // It stays while a log is in it.
        fs::remove_dir(folder).ok();
    }

    /// Rotates what is too long and removes what is too many.
    pub(super) fn look(&self) {
        let (live, ended) = {
            let mut state = self.state();
            (state.live.clone(), std::mem::take(&mut state.ended))
        };
        for path in live {
            let long = fs::metadata(&path).is_ok_and(|log| self.max < log.len());
            if long && let Err(error) = rotate(&path, self.max) {
                tracing::warn!(path = %path.display(), %error, "a log could not be rotated, it grows");
            }
        }
        for folder in ended {
            self.prune(&folder, self.keep);
        }
    }

    /// Removes all but the `keep` newest logs of ended tasks.
    fn prune(&self, folder: &Path, keep: usize) {
        let mut logs: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let changed = entry.metadata().and_then(|log| log.modified());
            if path.extension().is_some_and(|extension| extension == "log")
                && let Ok(changed) = changed
            {
                logs.push((changed, path));
            }
        }
        let state = self.state();
        logs.retain(|(_, path)| !state.live.contains(path));
        drop(state);
        logs.sort();
        let surplus = logs.len().saturating_sub(keep);
        for (_, path) in logs.into_iter().take(surplus) {
            // The rotated part goes first: the log leads to it.
            for path in [rotated(&path), path] {
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "an old log could not be removed");
                }
            }
        }
    }

    pub(super) fn path(&self, policy: &PolicyName, task: &TaskId) -> PathBuf {
        self.of(policy).join(format!("{}.log", file_name(task.as_str())))
    }

    fn of(&self, policy: &PolicyName) -> PathBuf {
        self.folder.join(file_name(policy.as_str()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies the last `max` bytes of a log aside and empties it.
fn rotate(path: &Path, max: u64) -> io::Result<()> {
    let mut log = OpenOptions::new().read(true).write(true).open(path)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut aside = File::create(rotated(path))?;
    io::copy(&mut (&log).take(max), &mut aside)?;
    log.set_len(0)
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ROTATED);
    PathBuf::from(name)
}

/// A name as one component of a path: a fleet's `file/row` becomes `file~row`, as in task ids.
pub(super) fn file_name(name: &str) -> String {
    let flat = name.replace(['/', '\0'], "~");
    if matches!(&*flat, "" | "." | "..") { format!("~{flat}") } else { flat }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files() {
        for (name, file) in [("web", "web"), ("fleet/row", "fleet~row"), ("..", "~.."), ("", "~"), ("a\0b", "a~b")] {
            assert_eq!(file_name(name), file);
        }
    }
}
