//! Starting processes: from a launch request to a child.
//!
//! One thread starts all of them, one after the other, for as long as the backend lives. A burst of launches
//! therefore blocks no thread of the async runtime; and the kernel ties "kill me when my parent dies" to the
//! parent's thread, so that thread must not be one that comes and goes.
//!
//! Invariant: a task's id and the state folder's mark are in the child's first environment, so that a child
//! whose pid was never recorded is still found.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

#[cfg(target_os = "linux")]
use rustix::process::{Gid, Signal, Uid};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::account::Account;
use super::cgroup::{Group, Limits};
use super::logs::Logs;
use super::ports::{self, Lease, Pool};
use super::procfs::{self, var};
use crate::backend::{LaunchRequest, environment};
use crate::core::policy::{self, Output, TaskTemplate};

/// How many launches wait in the thread's queue before those who ask for more wait themselves.
const QUEUE: usize = 64;

/// A child and what it holds.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) start: Option<u64>,
    pub(super) lease: Lease,
    pub(super) group: Group,
}

/// Why a task could not be started; the text is what its `NotStarted` says.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("it was told to end before it was started")]
    Withdrawn,
    #[error("the backend is shutting down")]
    Closed,
    #[error("no command is given, and the local backend has no images that could bring one")]
    NoCommand,
    #[error("the image `{0}` is given, but the local backend runs plain commands; use a backend with containers")]
    Image(String),
    #[error("the environment variable `{0}` cannot be set: expected a name without `=` and no zero bytes")]
    Variable(String),
    #[error("no free port: the task needs {needed}, and {first}-{last} has not as many left")]
    NoPort { needed: usize, first: u16, last: u16 },
    #[error("it is to run as the user `{user}`: {reason}")]
    User { user: String, reason: String },
    #[error("the working folder `{}` cannot be used: {error}", .folder.display())]
    Folder { folder: PathBuf, error: io::Error },
    #[error("the command `{0}` was not found: expected a program in PATH or a path to one")]
    NotFound(String),
    #[error("`{0}` exists but cannot be run: what its first line names, or the loader it needs, was not found")]
    Interpreter(String),
    #[error("the command `{0}` may not be run: permission denied")]
    Permission(String),
    #[error(
        "the command `{program}` may not be run as the user `{user}`: permission denied; expected a program and a working \
         folder that this account may use"
    )]
    NotAs { program: String, user: String },
    #[error("the command `{program}` could not be started: {error}")]
    Other { program: String, error: io::Error },
}

/// What every task of a backend is started with.
#[derive(Debug)]
pub(super) struct Setting {
    /// The state folder's mark, or one that names no folder.
    pub(super) mark: String,
    /// Whether tasks die with this process.
    pub(super) ephemeral: bool,
    pub(super) logs: Option<Arc<Logs>>,
    pub(super) ports: Arc<Pool>,
    /// None when limits are not wanted.
    pub(super) limits: Option<Limits>,
}

struct Job {
    request: LaunchRequest,
    orders: watch::Receiver<Option<Instant>>,
    reply: oneshot::Sender<Result<Started, StartError>>,
}

/// The handle of the thread; it ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(super) struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    pub(super) fn start(setting: Arc<Setting>) -> io::Result<Self> {
        let (jobs, mut inbox) = mpsc::channel::<Job>(QUEUE);
        thread::Builder::new().name(procfs::SPAWNER.into()).spawn(move || {
            while let Some(job) = inbox.blocking_recv() {
                let outcome = if job.orders.borrow().is_some() {
                    Err(StartError::Withdrawn)
                } else {
                    setting.start(&job.request)
                };
                // Nobody takes the answer when the runtime has gone: the child is then found by its mark.
                drop(job.reply.send(outcome));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts a task, unless an order to end it has come in by its turn.
    pub(super) async fn spawn(
        &self,
        request: LaunchRequest,
        orders: watch::Receiver<Option<Instant>>,
    ) -> Result<Started, StartError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { request, orders, reply }).await.map_err(|_| StartError::Closed)?;
        answer.await.map_err(|_| StartError::Closed)?
    }
}

impl Setting {
    fn start(&self, request: &LaunchRequest) -> Result<Started, StartError> {
        let template = &*request.template;
        let (mut command, program) = command(template)?;
        let folder = folder(request.base.as_deref(), template.cwd.as_deref());
        if let Some(folder) = &folder {
            usable(folder)?;
            command.current_dir(folder);
        }
        let account = account(template)?;
        let lease = self.lease(template)?;
        if let Some(account) = &account {
            // What else is in our environment may be secrets, which are ours and not that account's.
            command.env_clear().envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_for_all)));
            if let Some((name, home)) = &account.known {
                command.env("USER", name).env("LOGNAME", name).env("HOME", home);
            }
        }
        self.environment(&mut command, request, &lease)?;
        let (out, err) = self.output(request, account.as_ref());
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let (group, doors) = self.limit(request);
        let switched = account.is_some();
        before_exec(&mut command, self.ephemeral, doors, account);
        let child = command.spawn().map_err(|error| {
            group.remove();
            match (explain(error, &program, folder.as_deref()), &template.container.user) {
                (StartError::Permission(program), Some(user)) if switched => {
                    StartError::NotAs { program, user: user.clone() }
                }
                (error, _) => error,
            }
        })?;
        let stat = i32::try_from(child.id()).ok().and_then(procfs::stat);
        if let Some(limits) = &self.limits
            && stat.is_some_and(|stat| stat.is_alive() && !group.holds(stat.pid))
        {
            limits.tell("a task could not be put into its control group");
        }
        Ok(Started { child, start: stat.map(|stat| stat.start), lease, group })
    }

    /// The control groups that a task gets, and the files through which it enters them.
    fn limit(&self, request: &LaunchRequest) -> (Group, Vec<OwnedFd>) {
        let Some(limits) = &self.limits else { return (Group::default(), Vec::new()) };
        let group = limits.group(&request.id, &request.template);
        let doors = group.doors().unwrap_or_else(|error| {
            limits.tell(&error.to_string());
            Vec::new()
        });
        (group, doors)
    }

    fn lease(&self, template: &TaskTemplate) -> Result<Lease, StartError> {
        let names = template.ports.iter().map(|port| port.name.clone());
        self.ports.lease(names).ok_or_else(|| StartError::NoPort {
            needed: template.ports.len(),
            first: *self.ports.range().start(),
            last: *self.ports.range().end(),
        })
    }

    fn environment(&self, command: &mut Command, request: &LaunchRequest, lease: &Lease) -> Result<(), StartError> {
        for (name, value) in environment::of_task(&request.id, &request.policy, &request.template, lease.ports()) {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(StartError::Variable(name));
            }
            command.env(name, value);
        }
        command.env(var::PORTS, ports::to_text(lease.ports())).env(var::RUN, &self.mark);
        Ok(())
    }

    /// Where standard output and error go. A log that cannot be written does not keep the task from running.
    fn output(&self, request: &LaunchRequest, account: Option<&Account>) -> (Stdio, Stdio) {
        match request.template.output {
            Output::Inherit => (io::stderr().into(), io::stderr().into()),
            Output::Null => (Stdio::null(), Stdio::null()),
            Output::Auto => {
                let Some(logs) = &self.logs else { return (Stdio::null(), Stdio::null()) };
                let log = logs.open(&request.policy, &request.id);
                match log.and_then(|file| Ok((file.try_clone()?, file))) {
                    Ok((out, err)) => {
                        if let Some(account) = account {
                            give(&err, account, request);
                        }
                        (out.into(), err.into())
                    }
                    Err(error) => {
                        tracing::warn!(task = %request.id, %error, "a task's output is lost");
                        (Stdio::null(), Stdio::null())
                    }
                }
            }
        }
    }
}

/// The command itself, and its program's name for messages.
fn command(template: &TaskTemplate) -> Result<(Command, String), StartError> {
    if let Some(image) = &template.image {
        return Err(StartError::Image(image.clone()));
    }
    match &template.command {
        Some(policy::Command::Shell(text)) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(text);
            Ok((command, "sh".to_owned()))
        }
        Some(policy::Command::Argv(argv)) => {
            let (program, arguments) = argv.split_first().ok_or(StartError::NoCommand)?;
            let mut command = Command::new(program);
            command.args(arguments);
            Ok((command, program.clone()))
        }
        None => Err(StartError::NoCommand),
    }
}

/// Whom it runs as, when that is not who we are.
fn account(template: &TaskTemplate) -> Result<Option<Account>, StartError> {
    let Some(user) = &template.container.user else { return Ok(None) };
    Account::of(user).map_err(|reason| StartError::User { user: user.clone(), reason })
}

/// Whether a variable of ours is for tasks of other accounts, too.
fn is_for_all(name: &str) -> bool {
    matches!(name, "PATH" | "LANG" | "TZ" | "TERM") || name.starts_with("LC_")
}

/// Gives a log to whom its task runs as, who could not open it by `/dev/stdout` and `/dev/stderr` otherwise.
fn give(log: &File, account: &Account, request: &LaunchRequest) {
    if let Err(error) = fchown(log, Some(account.uid), Some(account.gid)) {
        tracing::warn!(task = %request.id, %error, "a task's log cannot be given to its user, who can only go on writing it");
    }
}

/// The working folder: the template's, from the policy file's folder on; that folder itself when none is given.
fn folder(base: Option<&Path>, cwd: Option<&str>) -> Option<PathBuf> {
    // The folder of a bare file name is empty, and means the present one.
    let base = base.filter(|base| !base.as_os_str().is_empty());
    match (base, cwd) {
        (Some(base), Some(cwd)) => Some(base.join(cwd)),
        (None, Some(cwd)) => Some(PathBuf::from(cwd)),
        (base, None) => base.map(Path::to_path_buf),
    }
}

fn usable(folder: &Path) -> Result<(), StartError> {
    let error = match folder.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => io::ErrorKind::NotADirectory.into(),
        Err(error) => error,
    };
    Err(StartError::Folder { folder: folder.to_path_buf(), error })
}

/// What a failed start most likely means, in words that name what to change.
fn explain(error: io::Error, program: &str, folder: Option<&Path>) -> StartError {
    // A path is taken from the working folder, a bare name from PATH.
    let exists = program.contains('/') && folder.map_or_else(|| PathBuf::from(program), |f| f.join(program)).exists();
    match error.kind() {
        io::ErrorKind::NotFound if exists => StartError::Interpreter(program.to_owned()),
        io::ErrorKind::NotFound => StartError::NotFound(program.to_owned()),
        io::ErrorKind::PermissionDenied => StartError::Permission(program.to_owned()),
        _ => StartError::Other { program: program.to_owned(), error },
    }
}

/// What the child does between fork and exec: it enters its control groups, becomes whom it is to be, and asks the kernel
/// to kill it when the thread that started it, and so this process, ends (a wish that a change of user would undo).
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "std has no other door to PR_SET_PDEATHSIG, control groups and all groups of a user")]
fn before_exec(command: &mut Command, ephemeral: bool, doors: Vec<OwnedFd>, account: Option<Account>) {
    // Without anything to do std can start the child by the faster posix_spawn.
    if !ephemeral && doors.is_empty() && account.is_none() {
        return;
    }
    let parent = rustix::process::getpid();
    let account = account.map(|account| {
        let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
        (Uid::from_raw(account.uid), Gid::from_raw(account.gid), groups)
    });
    let prepare = move || {
        for door in &doors {
            // A task without its limits is better than none; the parent looks whether it is inside, and says so.
            rustix::io::write(door, b"0").ok();
        }
        if let Some((user, group, groups)) = &account {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*group, *group, *group)?;
            rustix::thread::set_thread_res_uid(*user, *user, *user)?;
        }
        if ephemeral {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the request was made: nobody would send the signal then.
            if rustix::process::getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes the system calls write, setgroups, setresgid, setresuid, prctl and
    // getppid, directly and not through the C library, and compares integers. It allocates nothing, takes no lock, and
    // touches no memory but its own captures; the descriptors in them stay open as long as the command that owns it.
    // The child has one thread, so that what is a thread's user and groups are the process's.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Other kernels have neither: tasks are ended on an orderly way out only, and have no limits; and a change of user loses
/// all groups but one.
#[cfg(not(target_os = "linux"))]
fn before_exec(command: &mut Command, _: bool, _: Vec<OwnedFd>, account: Option<Account>) {
    if let Some(account) = account {
        command.gid(account.gid).uid(account.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_folders_start_from_the_policy_file() {
        let base = Path::new("/policies");
        assert_eq!(folder(Some(base), None), Some(base.to_path_buf()));
        assert_eq!(folder(Some(base), Some("work")), Some(PathBuf::from("/policies/work")));
        assert_eq!(folder(Some(base), Some("/tmp")), Some(PathBuf::from("/tmp")));
        assert_eq!(folder(None, Some("work")), Some(PathBuf::from("work")));
        assert_eq!(folder(None, None), None);
        assert_eq!(folder(Some(Path::new("")), None), None);
    }
}
