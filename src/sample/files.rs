//! Files of the kernel that are read again and again: kept open, because opening one costs twenty times a reading.
//!
//! Invariant: at most half of the files that this process may have open are kept; beyond that each reading opens
//! and closes, which is slower and gives the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit};

/// Files that are kept open now.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// How many may be.
static MOST: LazyLock<u64> = LazyLock::new(|| getrlimit(Resource::Nofile).current.unwrap_or(1 << 20) / 2);

/// A file that may be kept open between readings.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: Option<File>,
}

impl Kept {
    /// A file that has not been opened yet.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// All of it as it is now, in `buffer`. A file that has been removed since it was opened is an error.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> io::Result<&'a str> {
        if let Some(file) = &self.file {
            fill(file, buffer)?;
        } else {
            let file = File::open(&self.path)?;
            fill(&file, buffer)?;
            if KEPT.fetch_add(1, Ordering::Relaxed) < *MOST {
                self.file = Some(file);
            } else {
                KEPT.fetch_sub(1, Ordering::Relaxed);
            }
        }
        std::str::from_utf8(buffer).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// A file that holds one number.
    pub(super) fn number(&mut self, buffer: &mut Vec<u8>) -> io::Result<u64> {
        self.read(buffer)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.file.is_some() {
            KEPT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Reads from the beginning to the end; the kernel makes such a file's text anew when it is read from its beginning.
fn fill(file: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
    const LEAST: usize = 4096;
    let mut length = 0;
    loop {
        if buffer.len() < length + LEAST {
            buffer.resize(length + LEAST, 0);
        }
        // A short reading is not yet the end: the kernel gives as many whole records as fit in its own buffer.
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_read_whole_and_anew() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let long = "x".repeat(10_000);
        file.write_all(long.as_bytes()).unwrap();
        let (mut kept, mut buffer) = (Kept::new(file.path().into()), vec![7; 20_000]);
        assert_eq!(kept.read(&mut buffer).unwrap(), long);
        file.as_file().set_len(0).unwrap();
        file.as_file().write_all_at(b" 42\n", 0).unwrap();
        assert_eq!(kept.number(&mut buffer).unwrap(), 42);
        file.as_file().write_all_at(b"max\n", 0).unwrap();
        assert!(kept.number(&mut buffer).is_err());
        assert!(Kept::new("/nowhere/at/all".into()).read(&mut buffer).is_err());
    }
}
