//! A genuine Redis on a loopback port of its own, with faults at will.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::{Cmd, Connection, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};

use super::scratch::Scratch;
use super::tool::tool;
use super::wait::{GENEROUS, wait_until_blocking};

/// A running (or stopped) Redis whose data survives `stop`, `kill` and `start`.
#[derive(Debug)]
pub(crate) struct Redis {
    program: std::path::PathBuf,
    folder: Scratch,
    port: u16,
    child: Option<Child>,
}

impl Redis {
    /// Starts one; none when there is no redis-server (see [`tool`]).
    pub(crate) fn start_new() -> Option<Self> {
        let program = tool("redis-server")?;
        let mut redis = Self { program, folder: Scratch::new(), port: free_port(), child: None };
        redis.start();
        Some(redis)
    }

    /// `redis://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again after `stop` or `kill`, with its data, and waits until it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "this Redis runs already");
        let folder = self.folder.mark();
        let port = self.port.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no", "--dir", folder];
        // Every write is in the append-only file before it is answered, so that a kill loses nothing.
        let durable = ["--appendonly", "yes", "--appendfsync", "no", "--save", ""];
        let mut command = Command::new(&self.program);
        command.args(arguments).args(durable).env("TEST_SCRATCH", folder);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_until_blocking(GENEROUS, "redis-server answers", || self.try_query::<String>(&redis::cmd("PING")));
    }

    /// Stops it in order and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Stops it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Freezes it: connections are accepted and nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs one command on a connection of its own: `redis.query(redis::cmd("LLEN").arg("jobs"))`.
    pub(crate) fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.connection()).unwrap()
    }

    /// A connection, for many commands.
    pub(crate) fn connection(&self) -> Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    fn try_query<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        command.query(&mut redis::Client::open(self.url()).ok()?.get_connection().ok()?).ok()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("this Redis runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.child.take().expect("this Redis runs").wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn data_survives_a_kill_and_an_outage_is_one() {
    let Some(mut server) = Redis::start_new() else { return };
    let pushed: i64 = server.query(redis::cmd("RPUSH").arg("jobs").arg("a").arg("b"));
    assert_eq!(pushed, 2);
    server.kill();
    assert_eq!(server.try_query::<i64>(redis::cmd("LLEN").arg("jobs")), None);
    server.start();
    assert_eq!(server.query::<i64>(redis::cmd("LLEN").arg("jobs")), 2);
}
