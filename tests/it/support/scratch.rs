//! A test's own folder, which also is the mark of every process that the test starts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::process::{self, Marked};

/// A folder for one test. Dropping it ends every process started from it, and removes it.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("setpoint-test-").tempdir().unwrap() }
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// What processes started from here carry in their environment, as `TEST_SCRATCH` or within a path.
    pub(crate) fn mark(&self) -> &str {
        self.folder().to_str().expect("a temporary folder has a plain name")
    }

    /// Writes a file, in place, and makes its folders.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes a file the way careful editors do: a new one beside it, renamed over it.
    pub(crate) fn replace(&self, name: &str, text: &str) -> PathBuf {
        let new = self.write(&format!("{name}.new"), text);
        let path = self.path(name);
        fs::rename(new, &path).unwrap();
        path
    }

    /// Writes a policy file: `policy("name", "return { … }")`.
    pub(crate) fn policy(&self, name: &str, text: &str) -> PathBuf {
        self.write(&format!("{name}.lua"), text)
    }

    /// A file's text.
    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The names in a folder of it, sorted; none when it is not there.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name)) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Every living process that was started from here, setpoint itself among them.
    pub(crate) fn processes(&self) -> Vec<Marked> {
        process::marked(self.mark())
    }

    /// The ids of the tasks that have at least one living process, whoever still knows of them.
    pub(crate) fn living_tasks(&self) -> BTreeSet<String> {
        self.processes().into_iter().filter_map(|process| process.task).collect()
    }

    /// Sends SIGKILL to a process that was started from here.
    pub(crate) fn kill(&self, pid: i32) -> std::io::Result<()> {
        process::signal_marked(pid, self.mark(), rustix::process::Signal::KILL)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        process::end_marked(self.mark());
    }
}

#[test]
fn what_was_started_from_it_ends_with_it() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let start = |scratch: &Scratch| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]).env("TEST_SCRATCH", scratch.mark()).env("SETPOINT_TASK_ID", "a-1");
        command.spawn().unwrap()
    };
    let (mut ended, mut kept) = (start(&scratch), start(&other));
    assert_eq!(scratch.living_tasks().into_iter().collect::<Vec<_>>(), ["a-1"]);
    assert!(other.kill(ended.id().cast_signed()).is_err(), "a process of another test is left alone");
    drop(scratch);
    assert!(!ended.wait().unwrap().success());
    assert_eq!(kept.try_wait().unwrap(), None);
    drop(other);
    assert!(!kept.wait().unwrap().success());
}
