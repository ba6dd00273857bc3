//! Connections to Redis, one for each server and user, shared by all scripts of a host. Knows nothing of Lua.
//!
//! Commands of all callers go over one connection at once. A connection that broke, or did not answer in time,
//! is thrown away, and the next command makes a new one. A reply has a limit in bytes.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, ServerError, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::args::Problem;
use super::hosts;
use super::secret::SecretText;
use crate::script::call::HostShared;

/// Most servers that a host's scripts are connected to at once.
const MOST_CONNECTIONS: usize = 256;

/// A server, and who speaks to it.
#[derive(Clone)]
pub(super) struct Server {
    /// Host name or address; an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: i64,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretText>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}:{}/{}", self.host, self.port, self.database)
    }
}

impl Server {
    /// What tells apart connections that must not be shared.
    fn key(&self) -> String {
        let user = self.user.as_deref().unwrap_or_default();
        let password = self.password.as_ref().map(SecretText::identity).unwrap_or_default();
        format!("{self}\n{user}\n{password}")
    }
}

/// All connections of a host.
#[derive(Default)]
pub(super) struct Pool {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

impl fmt::Debug for Pool {
    // Its keys may hold a password that a script wrote out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// The connection to one server, made when it is first needed. The lock is held while one is being made, so
/// that callers who come meanwhile wait for it and do not make their own.
#[derive(Default)]
struct Slot {
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// Number of the last connection that was made.
    serial: u64,
}

/// A connection and the worker that drives it, which ends when the connection does.
struct Live {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A command that has not been answered. When it is dropped like that (too late, or the tick is over) after so
/// long that the server seems to have gone silent, its connection goes with it: on one whose other end has
/// vanished no answer would ever come.
struct Unanswered {
    slot: Arc<Slot>,
    serial: u64,
    sent: Instant,
    answered: bool,
}

/// From when on a server counts as silent.
const SILENT_AFTER: Duration = Duration::from_millis(500);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.answered && self.sent.elapsed() >= SILENT_AFTER {
            // Somebody who holds the lock is making a new one already.
            if let Ok(mut state) = self.slot.state.try_lock() {
                state.close(self.serial);
            }
        }
    }
}

impl Pool {
    fn slot(&self, server: &Server) -> Result<Arc<Slot>, Problem> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let key = server.key();
        if !slots.contains_key(&key) && slots.len() >= MOST_CONNECTIONS {
            // Whatever nobody is using at this moment can be made again.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            if slots.len() >= MOST_CONNECTIONS {
                let text = format!("expected at most {MOST_CONNECTIONS} Redis servers in use at once, got more");
                return Err(Problem::Failed(text));
            }
        }
        Ok(Arc::clone(slots.entry(key).or_default()))
    }
}

/// Sends one command and waits for its reply, at most `timeout`. A command that may be `repeated` is sent
/// again when the connection turns out to have been closed.
pub(super) async fn query(
    shared: &HostShared,
    server: &Server,
    command: Cmd,
    timeout: Duration,
    repeated: bool,
) -> Result<Value, Problem> {
    hosts::check(&shared.permissions, &server.host, server.port)?;
    let slot = shared.api.redis.slot(server)?;
    let exchange = async {
        match slot.exchange(shared, server, &command).await {
            Err(Fault::Broken(_)) if repeated => slot.exchange(shared, server, &command).await,
            other => other,
        }
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(Fault::Broken(problem) | Fault::Final(problem))) => Err(problem),
        Err(_) => Err(Problem::Failed(format!("{server}: expected a reply within {timeout:?}, got none"))),
    }
}

/// Why a command failed.
enum Fault {
    /// Its connection is no more; another one may do.
    Broken(Problem),
    /// It would fail again.
    Final(Problem),
}

impl Slot {
    async fn exchange(self: &Arc<Self>, shared: &HostShared, server: &Server, command: &Cmd) -> Result<Value, Fault> {
        let (mut connection, serial) = self.open(shared, server).await.map_err(Fault::Final)?;
        let slot = Arc::clone(self);
        let mut unanswered = Unanswered { slot, serial, sent: Instant::now(), answered: false };
        let reply = connection.send_packed_command(command).await;
        unanswered.answered = true;
        match reply {
            Ok(Value::ServerError(error)) => Err(Fault::Final(Problem::Failed(server_error(&error)))),
            Ok(value) => Ok(value),
            Err(error) if is_broken(&error) => {
                self.state.lock().await.close(serial);
                Err(Fault::Broken(Problem::Failed(format!("{server}: {}", told(&error)))))
            }
            Err(error) => Err(Fault::Final(Problem::Failed(told(&error)))),
        }
    }

    async fn open(&self, shared: &HostShared, server: &Server) -> Result<(MultiplexedConnection, u64), Problem> {
        let mut state = self.state.lock().await;
        if let Some(live) = state.live.as_ref().filter(|live| !live.driver.is_finished()) {
            return Ok((live.connection.clone(), state.serial));
        }
        let live = connect(shared, server).await?;
        let connection = live.connection.clone();
        state.live = Some(live);
        state.serial += 1;
        Ok((connection, state.serial))
    }
}

impl State {
    /// Ends the connection of this number, unless another has taken its place.
    fn close(&mut self, serial: u64) {
        if self.serial == serial {
            self.live = None;
        }
    }
}

async fn connect(shared: &HostShared, server: &Server) -> Result<Live, Problem> {
    let failed = |what: String| Problem::Failed(format!("{server}: {what}"));
    let mut settings = RedisConnectionInfo::default().set_db(server.database).set_skip_set_lib_name();
    if let Some(user) = &server.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &server.password {
        settings = settings.set_password(password.reveal().await?);
    }
    let host = server.host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, server.port)).await.map_err(|error| failed(io_line(&error)))?;
    // Commands are small and answers awaited: waiting to fill a packet would only add delay.
    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    let stream = Capped { stream, read: 0, most: shared.limits.body.saturating_mul(2) };
    // Waiting is bounded by the caller; the library's own limit would cut a longer one short.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let connecting = MultiplexedConnection::new_with_config(&settings, stream, config).await;
    let (connection, driver) = connecting.map_err(|error| failed(told(&error)))?;
    Ok(Live { connection, driver: shared.io.spawn(driver) })
}

fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.kind() == ErrorKind::Parse || error.is_unrecoverable_error()
}

/// A server's error reply: its code, and its words.
pub(super) fn server_error(error: &ServerError) -> String {
    line(&format!("{} {}", error.code(), error.details().unwrap_or_default()))
}

fn told(error: &RedisError) -> String {
    if error.is_connection_refusal() {
        return "connection refused".to_owned();
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        return "the server refused the user or password".to_owned();
    }
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => line(&format!("{code} {detail}")),
        _ => line(&error.to_string()),
    }
}

fn io_line(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        "connection refused".to_owned()
    } else {
        line(&error.to_string())
    }
}

/// A server's words in one line of bounded length.
pub(super) fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// A stream that breaks when more than so many bytes come in between two commands.
struct Capped {
    stream: TcpStream,
    read: usize,
    most: usize,
}

impl AsyncRead for Capped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read += buffer.filled().len() - before;
        if self.read > self.most {
            let text = format!("expected a reply of at most {} bytes, got more", self.most);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        polled
    }
}

impl AsyncWrite for Capped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
