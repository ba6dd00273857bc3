//! What has to outlive a run beyond what the store keeps: the framework's id.
//!
//! One small file in the state folder, written whole and synced before anything is launched under the id. Without a state
//! folder nothing is kept.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "mesos.json";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    framework_id: Option<String>,
}

/// The file, or none.
#[derive(Debug)]
pub(super) struct Book {
    path: Option<PathBuf>,
}

impl Book {
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        Self { path: state_dir.map(|dir| dir.join(FILE)) }
    }

    /// Where the file is.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The id of an earlier run.
    ///
    /// # Errors
    /// A file that cannot be read: a run that took a new id would lose its tasks.
    pub(super) fn framework_id(&self) -> io::Result<Option<String>> {
        let Some(path) = &self.path else { return Ok(None) };
        match fs::read(path) {
            Ok(bytes) => {
                let record: Record = serde_json::from_slice(&bytes)?;
                Ok(record.framework_id)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps an id; it is on the disk when this returns.
    pub(super) fn keep(&self, framework_id: Option<&str>) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let record = Record { framework_id: framework_id.map(str::to_owned) };
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The name is durable when its folder is.
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}
