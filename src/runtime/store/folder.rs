//! The state folder besides the database: the folder itself, its lock, and the mark of the last acknowledged commit.
//!
//! Invariants: at most one process holds a folder's lock, and the kernel drops it with the process however that
//! ends; the mark is never ahead of what is durable in the database.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::seal::{short_digest, to_hex};

/// File names inside a state folder.
pub(super) const DATABASE: &str = "setpoint.redb";
const LOCK: &str = "lock";
const MARK: &str = "setpoint.mark";

/// Creates the folder, for its owner alone, when it is missing.
pub(super) fn ensure(dir: &Path) -> Result<(), StoreError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(StoreError::NotAFolder { dir: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| StoreError::io("create the state folder", dir, error)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(StoreError::NotAFolder { dir: dir.to_owned() })
        }
        Err(error) => Err(StoreError::io("open the state folder", dir, error)),
    }
}

/// Opens a file for its owner alone, creating it when it is missing and leaving what it holds.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a rename or a new file in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::io("sync the folder", dir, error))
}

/// An exclusive hold on a state folder, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Given back by name: closing the file does so only when the last copy of it is closed, and a process that is just
    /// being started has one until it has become another program.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "the lock of the state folder goes with its file");
        }
    }
}

impl Lock {
    /// Takes the folder's lock and writes this process's pid into it.
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        let mut file = open_private(&path).map_err(|error| StoreError::io("open the lock file", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { dir: dir.to_owned(), pid: read_pid(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path, error)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(|error| StoreError::io("write the pid to", &path, error))?;
        Ok(Self(file))
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The sequence number of the last commit that was acknowledged, beside the database.
///
/// The database falls back to the commit before the last one when the last one does not check out. After a crash
/// that is right (nobody was told that it was written); after damage it would silently lose what was acknowledged.
/// The mark tells the two apart. It is written after each commit and not synced: it survives the process, and after
/// a power cut it may be behind, never ahead.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: Option<File>,
}

impl Mark {
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join(MARK), file: None }
    }

    /// The acknowledged sequence number for the store `id`. None when there is no whole mark for it.
    pub(super) fn read(&self, id: &str) -> Option<u64> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (body, check) = text.trim_end().rsplit_once(' ')?;
        if check != mark_check(body) {
            return None;
        }
        let (of, seq) = body.split_once(' ')?;
        if of == id { seq.parse().ok() } else { None }
    }

    /// Notes that `seq` is durable. Failing to is harmless: the mark is then behind.
    pub(super) fn write(&mut self, id: &str, seq: u64) {
        if self.file.is_none() {
            self.file = open_private(&self.path).ok();
        }
        let body = format!("{id} {seq:020}");
        let line = format!("{body} {}\n", mark_check(&body));
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(line.as_bytes(), 0)
        {
            tracing::debug!(error = %error, path = %self.path.display(), "the mark of the last commit was not written");
            self.file = None;
        }
    }
}

fn mark_check(body: &str) -> String {
    to_hex(short_digest(&[body.as_bytes()]))
}
