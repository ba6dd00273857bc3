//! The log's folder: numbered files, a lock, a torn tail that is cut.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::frame::{self, MAGIC, Next};
use super::{FOLDER, LogConfig, LogError};

/// What the log's files end in.
pub(super) const SUFFIX: &str = "dlog";

/// The folder, as the one who writes to it has it.
#[derive(Debug)]
pub(super) struct Files {
    config: LogConfig,
    /// Held as long as this is.
    lock: File,
    current: File,
    path: PathBuf,
    number: u64,
    /// Bytes of it that are whole records.
    length: u64,
    begun: SystemTime,
}

impl Files {
    /// Opens the folder: takes the lock, cuts what a crash left half written off the newest file, and goes on with it
    /// or with the next one.
    pub(super) fn open(config: LogConfig) -> Result<Self, LogError> {
        let folder = &config.folder;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| LogError::io("create the folder", folder, error))?;
        let lock = lock(folder)?;
        let numbers = numbers(folder)?;
        let last = numbers.last().copied().unwrap_or(0);
        let path = folder.join(file_name(last.max(1)));
        let (current, number, length) = match (last, mend(&path)) {
            (0, _) => begin(folder, 1)?,
            (_, Ok(length)) if length < config.max_size => (append(&path)?, last, length),
            // What is not ours is not written to.
            (_, Ok(_) | Err(LogError::Foreign(_))) => begin(folder, last.saturating_add(1))?,
            (_, Err(error)) => return Err(error),
        };
        let path = folder.join(file_name(number));
        let begun = current.metadata().and_then(|data| data.created().or_else(|_| data.modified()));
        let begun = begun.unwrap_or_else(|_| SystemTime::now());
        let files = Self { config, lock, current, path, number, length, begun };
        files.remove_old();
        Ok(files)
    }

    /// Appends whole records: all of them, or none.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), LogError> {
        match self.current.write_all(records) {
            Ok(()) => {
                self.length += records.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What got through of them is cut off, so that what comes later begins at a record; if that fails too,
                // the reader passes over it.
                self.current.set_len(self.length).ok();
                Err(LogError::io("write to", &self.path, error))
            }
        }
    }

    /// Whether the next file is due.
    pub(super) fn is_full(&self) -> bool {
        let age = SystemTime::now().duration_since(self.begun).unwrap_or(Duration::ZERO);
        self.config.max_size <= self.length || self.config.max_age <= age
    }

    /// Begins the next file and removes those that are too many.
    pub(super) fn rotate(&mut self) -> Result<(), LogError> {
        let number = self.number.saturating_add(1);
        let (current, number, length) = begin(&self.config.folder, number)?;
        self.sync();
        self.path = self.config.folder.join(file_name(number));
        (self.current, self.number, self.length, self.begun) = (current, number, length, SystemTime::now());
        self.remove_old();
        Ok(())
    }

    /// Sees to it that what was written outlives the machine.
    pub(super) fn sync(&self) {
        if let Err(error) = self.current.sync_data() {
            tracing::warn!(error = %error, path = %self.path.display(), "the decision log could not be synced");
        }
    }

    fn remove_old(&self) {
        let Ok(numbers) = numbers(&self.config.folder) else { return };
        let surplus = numbers.len().saturating_sub(self.config.keep.max(1));
        for number in numbers.into_iter().take(surplus).filter(|number| *number != self.number) {
            let path = self.config.folder.join(file_name(number));
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(error = %error, path = %path.display(), "an old decision log could not be removed");
            }
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // By name: a process that is being started at this moment holds a copy of the file, and the lock with it.
        self.lock.unlock().ok();
    }
}

fn file_name(number: u64) -> String {
    format!("{number:08}.{SUFFIX}")
}

/// The numbers of the files in a folder, in order.
fn numbers(folder: &Path) -> Result<Vec<u64>, LogError> {
    let failed = |error| LogError::io("list the folder", folder, error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.strip_suffix('.'));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()).filter(|number| {
            // Others' files of similar names are left alone.
            *number != 0 && name.to_str() == Some(file_name(*number).as_str())
        }));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The files that a path names: itself, or those of the folder or state folder that it is.
pub(super) fn find(path: &Path) -> Result<Vec<PathBuf>, LogError> {
    let metadata = fs::metadata(path).map_err(|error| LogError::io("open", path, error))?;
    if metadata.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    for folder in [path.to_owned(), path.join(FOLDER)] {
        if folder.is_dir() {
            let numbers = numbers(&folder)?;
            if !numbers.is_empty() {
                return Ok(numbers.into_iter().map(|number| folder.join(file_name(number))).collect());
            }
        }
    }
    Err(LogError::NoLog(path.to_owned()))
}

/// A file's bytes after its beginning; empty for one that a crash left without a whole beginning.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, LogError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| LogError::io("read", path, error))?;
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
        return Ok(Vec::new());
    }
    if !bytes.starts_with(MAGIC) {
        return Err(LogError::Foreign(path.to_owned()));
    }
    bytes.drain(..MAGIC.len());
    Ok(bytes)
}

/// Cuts off what follows the last whole record of a file; how long it then is.
fn mend(path: &Path) -> Result<u64, LogError> {
    if !path.exists() {
        return Ok(0);
    }
    let bytes = read(path)?;
    let mut at = 0;
    while let Next::Record(_, after) | Next::Damaged(after) = frame::next(&bytes, at) {
        at = after;
    }
    let failed = |error| LogError::io("mend", path, error);
    let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    if at == 0 {
        // The beginning itself may be torn.
        file.set_len(0).and_then(|()| file.write_all(MAGIC)).map_err(failed)?;
        return Ok(MAGIC.len() as u64);
    }
    let length = (MAGIC.len() + at) as u64;
    if at < bytes.len() {
        file.set_len(length).map_err(failed)?;
        let cut = bytes.len() - at;
        tracing::warn!(path = %path.display(), bytes = cut, "cut a half-written record off the decision log");
    }
    Ok(length)
}

fn append(path: &Path) -> Result<File, LogError> {
    OpenOptions::new().append(true).open(path).map_err(|error| LogError::io("open", path, error))
}

fn begin(folder: &Path, number: u64) -> Result<(File, u64, u64), LogError> {
    let path = folder.join(file_name(number));
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.map_err(|error| LogError::io("create", &path, error))?;
    if let Err(error) = file.write_all(MAGIC) {
        // Half a beginning under a name that is taken would stand in the way of the next try.
        fs::remove_file(&path).ok();
        return Err(LogError::io("write to", &path, error));
    }
    Ok((file, number, MAGIC.len() as u64))
}

fn lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join("lock");
    let failed = |error| LogError::io("lock", &path, error);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
