//! Processes that carry a mark in their environment: finding them, and ending them for certain.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::wait::wait_until_blocking;

/// A living process whose initial environment contains a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) pid: i32,
    /// `SETPOINT_TASK_ID`, for a task or a child of one.
    pub(crate) task: Option<String>,
    /// `SETPOINT_POLICY`, likewise.
    pub(crate) policy: Option<String>,
    /// Its command line, blanks between the arguments.
    pub(crate) command: String,
}

/// Every living process whose environment contains `mark`, but for the one that asks.
pub(crate) fn marked(mark: &str) -> Vec<Marked> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != std::process::id().cast_signed()).filter_map(|pid| read(pid, mark)).collect()
}

/// Ends every process that carries `mark`, and those that they start meanwhile, by SIGKILL.
pub(crate) fn end_marked(mark: &str) {
    wait_until_blocking(Duration::from_secs(30), "all processes of the test are gone", || {
        let left = marked(mark);
        for process in &left {
            // A process that has gone, or whose pid now is another's, is left alone.
            if let Err(error) = signal_marked(process.pid, mark, Signal::KILL)
                && error.kind() != io::ErrorKind::NotFound
            {
                eprintln!("cannot end process {}: {error}", process.pid);
            }
        }
        left.is_empty().then_some(())
    });
}

/// Sends `signal` to a process, provided that it carries `mark`.
pub(crate) fn signal_marked(pid: i32, mark: &str, signal: Signal) -> io::Result<()> {
    // The descriptor pins the process, so that the pid cannot become another's between looking and sending.
    let gone = || io::Error::new(io::ErrorKind::NotFound, format!("no process {pid} of this test"));
    let pid_ = Pid::from_raw(pid).ok_or_else(gone)?;
    let process = pidfd_open(pid_, PidfdFlags::empty()).map_err(|_| gone())?;
    read(pid, mark).ok_or_else(gone)?;
    pidfd_send_signal(process, signal).map_err(|_| gone())
}

fn read(pid: i32, mark: &str) -> Option<Marked> {
    let folder = Path::new("/proc").join(pid.to_string());
    let environment = String::from_utf8_lossy(&fs::read(folder.join("environ")).ok()?).into_owned();
    if !environment.contains(mark) {
        return None;
    }
    let variable = |name: &str| {
        environment.split('\0').find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let command = String::from_utf8_lossy(&fs::read(folder.join("cmdline")).ok()?).replace('\0', " ").trim().to_owned();
    Some(Marked { pid, task: variable("SETPOINT_TASK_ID"), policy: variable("SETPOINT_POLICY"), command })
}
