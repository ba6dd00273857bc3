//! A server process of a cluster: started, killed, frozen and started again, with its log kept.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A process that may be down, and what it is started from.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// One that is down. What it prints goes to the end of `log`.
    pub(crate) const fn new(
        program: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        log: PathBuf,
    ) -> Self {
        Self { program, arguments, environment, log, child: None }
    }

    /// Starts it; it is somebody else's business to wait until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.log.display());
        let log: File = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned()).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it again if it has ended by itself, as whoever runs servers does.
    pub(crate) fn supervise(&mut self) {
        if let Some(child) = &mut self.child
            && child.try_wait().unwrap().is_some()
        {
            self.child = None;
            self.start();
        }
    }

    /// Whether it was started and not killed.
    pub(crate) const fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id; it runs.
    pub(crate) fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id().cast_signed()
    }

    /// Changes a variable for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Stops it by SIGKILL and waits for its end.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Freezes it: connections are accepted and nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it runs")), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
