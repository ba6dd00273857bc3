//! What marks the tasks of a state folder, so that the next run on it knows them for its own.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// A short text that stands for one state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark of a folder that exists: from its path and its identity on this machine, because another root file
    /// system (a container's) may have a folder under the same path.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let folder = folder.canonicalize()?;
        let identity = folder.metadata()?;
        let mut hash = Sha256::new();
        hash.update(folder.as_os_str().as_bytes());
        hash.update(identity.dev().to_le_bytes());
        hash.update(identity.ino().to_le_bytes());
        let mut mark = String::new();
        for byte in hash.finalize().iter().take(12) {
            mark.push_str(&format!("{byte:02x}"));
        }
        Ok(Self(mark))
    }

    /// As text: 24 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
