//! One process that is a task: waiting for its end, its exit status, signals to its group.
//!
//! A task leads a process group of its own, and that group's number is what is signalled. The kernel does not
//! give a number to a new process while a process, a zombie among them, or a group still has it. So a group is
//! signalled while its leader is known to be there, or right after its end was seen; a number would have to go
//! once round within milliseconds to be somebody else's by then.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Signal, WaitId, WaitIdOptions, WaitOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::procfs;
use crate::core::model::Exit;

/// How often a process is looked at whose end cannot be waited for.
const POLL: Duration = Duration::from_millis(200);

/// How many open files are left to the rest of the program: pidfds take no more than half of what is allowed.
const FILES_SHARE: u64 = 2;

/// What all watches share: how many descriptors they may use.
#[derive(Debug)]
pub(super) struct Watching {
    files: Arc<Semaphore>,
    told: AtomicBool,
}

impl Watching {
    pub(super) fn new() -> Self {
        let files = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / FILES_SHARE;
        let files = usize::try_from(files).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { files: Arc::new(Semaphore::new(files)), told: AtomicBool::new(false) }
    }

    /// A watch on a process; by polling when the kernel has no pidfds or too many files are open.
    fn watch(&self, pid: Pid) -> Watch {
        let Ok(permit) = Arc::clone(&self.files).try_acquire_owned() else {
            self.tell("half of the files that may be open are in use");
            return Watch::Poll;
        };
        match descriptor(pid).and_then(register) {
            Ok(fd) => Watch::Pidfd { fd, _permit: permit },
            // It has ended already, which polling finds out at once.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Watch::Poll,
            Err(error) => {
                self.tell(&error.to_string());
                Watch::Poll
            }
        }
    }

    fn tell(&self, reason: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "the ends of some local tasks are found by polling");
        }
    }
}

/// A descriptor of a process, which keeps meaning that process when its pid has become another's.
#[cfg(target_os = "linux")]
fn descriptor(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Other kernels have none.
#[cfg(not(target_os = "linux"))]
fn descriptor(_: Pid) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How an adopted process ended. It can be told only when it is a child of this program after all, because a
/// backend was dropped and made anew in it; and only a descriptor says for certain that it is the same process.
#[cfg(target_os = "linux")]
fn adopted_exit(fd: &AsyncFd<OwnedFd>) -> Exit {
    let id = WaitId::PidFd(std::os::fd::AsFd::as_fd(fd));
    let Ok(Some(status)) = rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) else {
        return Exit::Unknown;
    };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code { code },
        (_, Some(signal)) => Exit::Signal { signal },
        _ => Exit::Unknown,
    }
}

/// Without descriptors nothing is known.
#[cfg(not(target_os = "linux"))]
fn adopted_exit(_: &AsyncFd<OwnedFd>) -> Exit {
    Exit::Unknown
}

/// Hands a pidfd, readable from its process's end on, to the runtime.
#[expect(
    deprecated,
    reason = "the successor is unsafe because of types that swap their descriptor; an OwnedFd does not"
)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

enum Watch {
    Pidfd { fd: AsyncFd<OwnedFd>, _permit: OwnedSemaphorePermit },
    Poll,
}

/// The leader of a task's process group.
pub(super) struct Process {
    pid: Pid,
    start: Option<u64>,
    /// There for a child of this backend; none for an adopted process.
    child: Option<Child>,
    watch: Watch,
}

impl Process {
    /// A child that was just started.
    pub(super) fn own(child: Child, start: Option<u64>, watching: &Watching) -> Self {
        let pid = Pid::from_child(&child);
        Self { pid, start, watch: watching.watch(pid), child: Some(child) }
    }

    /// A process that was there before; none when it is gone, or the pid is another process's by now.
    pub(super) fn adopt(pid: i32, start: u64, watching: &Watching) -> Option<Self> {
        let pid = Pid::from_raw(pid)?;
        let process = Self { pid, start: Some(start), child: None, watch: watching.watch(pid) };
        // Looked at after the watch was set: from here on the descriptor and the process are the same.
        process.is_same_and_alive().then_some(process)
    }

    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) const fn start(&self) -> Option<u64> {
        self.start
    }

    /// Waits until the process has ended. Leaves its status and, for an own child, its pid in place.
    pub(super) async fn ended(&self) {
        if let Watch::Pidfd { fd, .. } = &self.watch {
            while let Ok(mut ready) = fd.readable().await {
                if !self.is_running() {
                    return;
                }
                ready.clear_ready();
            }
        }
        while self.is_running() {
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_running(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if self.child.is_some() {
            return matches!(rustix::process::waitid(WaitId::Pid(self.pid), options), Ok(None));
        }
        self.is_same_and_alive()
    }

    fn is_same_and_alive(&self) -> bool {
        procfs::stat(self.pid.as_raw_pid()).is_some_and(|stat| Some(stat.start) == self.start && stat.is_alive())
    }

    /// How it ended, once [`Process::ended`] has returned; frees its pid.
    pub(super) fn reap(&mut self) -> Exit {
        if let Some(child) = &mut self.child {
            return child.try_wait().ok().flatten().map_or(Exit::Unknown, exit);
        }
        match &self.watch {
            Watch::Pidfd { fd, .. } => adopted_exit(fd),
            Watch::Poll => Exit::Unknown,
        }
    }

    /// Asks the whole group to end, as [`ask_group`] does.
    pub(super) fn ask(&self) {
        if self.is_still_itself() {
            ask_group(self.pid);
        }
    }

    /// Sends a signal to the whole group, unless the leader turns out to be gone and its pid another's.
    pub(super) fn signal(&self, signal: Signal) {
        if self.is_still_itself() {
            signal_group(self.pid, signal);
        }
    }

    /// An own child's pid is its own until it is reaped; an adopted one's has to be looked at.
    fn is_still_itself(&self) -> bool {
        self.child.is_some() || self.is_same_and_alive()
    }
}

/// Asks a process group to end. A stopped process would not see the request before it goes on, so it is told to.
pub(super) fn ask_group(group: Pid) {
    signal_group(group, Signal::TERM);
    signal_group(group, Signal::CONT);
}

/// Sends a signal to a process group that is known to be a task's.
pub(super) fn signal_group(group: Pid, signal: Signal) {
    match rustix::process::kill_process_group(group, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => {
            tracing::warn!(group = group.as_raw_pid(), ?signal, %error, "could not signal a task's processes");
        }
    }
}

/// Whether the group has members that run. The cheap question comes first; `thorough` also tells zombies, which a
/// first process that reaps nothing leaves behind for ever, from the living.
pub(super) fn group_is_alive(group: Pid, thorough: bool) -> bool {
    // Where this program is the one that orphans are given to, nobody else waits for those of its tasks.
    while let Ok(Some(_)) = rustix::process::waitpgid(group, WaitOptions::NOHANG) {}
    if rustix::process::test_kill_process_group(group) == Err(Errno::SRCH) {
        return false;
    }
    let group = group.as_raw_pid();
    !thorough || procfs::all().iter().any(|stat| stat.pgrp == group && stat.is_alive())
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code { code },
        (_, Some(signal)) => Exit::Signal { signal },
        _ => Exit::Unknown,
    }
}
