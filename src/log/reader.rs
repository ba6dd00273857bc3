//! Reading a log: one file, or all of a folder, oldest first, also while it is written.

use std::path::{Path, PathBuf};

use super::frame::{self, Next};
use super::record::{Decoder, Entry, Told};
use super::{LogError, files};

/// A log to read.
#[derive(Clone, Debug)]
pub struct Log {
    files: Vec<PathBuf>,
}

/// What is found in a log.
#[derive(Debug)]
pub enum Item<'a> {
    /// A decision.
    Decision {
        /// It.
        entry: Box<Entry>,
        /// Whether its state is the one that the policy's last decision left.
        follows: bool,
    },
    /// So many decisions were made here that are not in the log.
    Lost(u64),
    /// A record that builds on one that is missing.
    Unreadable,
    /// Bytes between records that are none.
    Damaged {
        /// In which file.
        file: &'a Path,
        /// How many.
        bytes: usize,
    },
    /// A record that was not written to its end.
    Torn {
        /// In which file.
        file: &'a Path,
        /// How many bytes there are of it.
        bytes: usize,
    },
}

impl Log {
    /// A log by its file, its folder, or the state folder that it is in.
    ///
    /// # Errors
    /// There is none.
    pub fn find(path: &Path) -> Result<Self, LogError> {
        Ok(Self { files: files::find(path)? })
    }

    /// Its files, oldest first.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// A file that cannot be read, or is no log.
    pub fn read(&self, mut each: impl FnMut(Item<'_>)) -> Result<(), LogError> {
        let mut decoder = Decoder::default();
        for file in &self.files {
            let bytes = match files::read(file) {
                // The writer has removed it meanwhile.
                Err(LogError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && 1 < self.files.len() =>
                {
                    continue;
                }
                read => read?,
            };
            decoder.forget();
            let mut at = 0;
            loop {
                match frame::next(&bytes, at) {
                    Next::Record(payload, after) => {
                        at = after;
                        match decoder.take(payload) {
                            Told::Decision(decoded) => {
                                each(Item::Decision { entry: Box::new(decoded.entry), follows: decoded.follows });
                            }
                            Told::Lost(records) => each(Item::Lost(records)),
                            Told::Nothing => {}
                            Told::Unreadable => each(Item::Unreadable),
                        }
                    }
                    Next::Damaged(after) => {
                        decoder.forget();
                        each(Item::Damaged { file, bytes: after - at });
                        at = after;
                    }
                    Next::Torn => {
                        each(Item::Torn { file, bytes: bytes.len() - at });
                        break;
                    }
                    Next::End => break,
                }
            }
        }
        Ok(())
    }
}
