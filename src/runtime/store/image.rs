//! A database file in memory: what is looked at before the file itself is opened.
//!
//! The database repairs a file while opening it. On an image it may do so as it likes: a file that turns out to be
//! damaged is never written to, and one that another process writes to can be read.

use std::io;
use std::sync::{PoisonError, RwLock};

use redb::StorageBackend;

/// How far a repair may grow an image: a damaged length must not ask for all memory.
const GROWTH: usize = 64 << 20;

/// The bytes of a database file.
#[derive(Debug)]
pub(super) struct Image {
    bytes: RwLock<Vec<u8>>,
    limit: usize,
}

impl Image {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let limit = bytes.len().saturating_add(GROWTH);
        Self { bytes: RwLock::new(bytes), limit }
    }
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a page lies outside the file")
}

fn range(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(len)?)
}

impl StorageBackend for Image {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let found = range(offset, out.len()).and_then(|range| bytes.get(range)).ok_or_else(outside)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.limit).ok_or_else(outside)?;
        self.bytes.write().unwrap_or_else(PoisonError::into_inner).resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let place = range(offset, data.len()).and_then(|range| bytes.get_mut(range)).ok_or_else(outside)?;
        place.copy_from_slice(data);
        Ok(())
    }
}
