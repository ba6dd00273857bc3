//! A scripted master on a real socket, for what a genuine one will not do on demand; to an executor it is an agent.
//!
//! It speaks HTTP by hand, so that it can stop in the middle of anything. Each SUBSCRIBE takes the next answer of its
//! script, the last one again and again; every other call is taken with 202, unless it is among those to be refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use setpoint::mesos::recordio::encode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a SUBSCRIBE is answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// With a status and nothing more.
    Status(u16),
    /// With a status and why.
    Refusal(u16, &'static str),
    /// With 307 to this `Location`.
    Redirect(String),
    /// With a stream, under this id.
    Stream(&'static str, Vec<Step>),
}

/// What happens on a stream. After its last step it hangs, open and silent.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A whole record.
    Record(Value),
    /// Bytes in a chunk of their own, whatever they are.
    Bytes(Vec<u8>),
    /// A chunk that says it is longer than what comes of it.
    HalfChunk,
    /// Waits for a call of that kind, under this stream, that the function has records for, and sends them.
    Reply(&'static str, fn(&Value) -> Vec<Value>),
    /// So many heartbeats at that distance.
    Beat(u32, Duration),
    /// The stream ends as it should.
    Close,
    /// The connection is gone.
    Cut,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) stream_id: Option<String>,
    pub(super) body: Value,
}

/// A running one; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct FakeMaster {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    refusals: Refusals,
    worker: JoinHandle<()>,
}

/// Calls by kind, and what the next of them is answered with.
type Refusals = Arc<Mutex<Vec<(&'static str, u16, &'static str)>>>;

/// SUBSCRIBED, as the first record of a stream.
pub(super) fn subscribed(heartbeat_secs: f64) -> Step {
    let event = json!({
        "type": "SUBSCRIBED",
        "subscribed": { "framework_id": { "value": "fake-0001" }, "heartbeat_interval_seconds": heartbeat_secs },
    });
    Step::Record(event)
}

impl FakeMaster {
    pub(super) async fn start(script: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&seen), Arc::new(Mutex::new(script)));
        let refusals = Refusals::default();
        let refused = Arc::clone(&refusals);
        let worker = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&log), Arc::clone(&script), Arc::clone(&refused)));
            }
        });
        Self { port, seen, refusals, worker }
    }

    /// `127.0.0.1:PORT`.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Refuses a call of that kind, one more for each time that it is told so.
    pub(super) fn refuse(&self, kind: &'static str, status: u16, text: &'static str) {
        self.refusals.lock().unwrap().push((kind, status, text));
    }

    /// The requests of a kind, so far.
    pub(super) fn seen(&self, kind: &str) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|request| request.body["type"] == kind).cloned().collect()
    }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

async fn serve(
    mut socket: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    script: Arc<Mutex<Vec<Answer>>>,
    refusals: Refusals,
) {
    // A client that goes away ends its connection, and that is all there is to it.
    while let Some(request) = read(&mut socket).await {
        let subscribes = request.body["type"] == "SUBSCRIBE";
        let refused = {
            let mut refusals = refusals.lock().unwrap();
            let at = refusals.iter().position(|(kind, ..)| request.body["type"] == *kind);
            at.map(|at| refusals.remove(at))
        };
        seen.lock().unwrap().push(request);
        let answer = match refused {
            Some((_, status, text)) => Answer::Refusal(status, text),
            None if subscribes => next(&script),
            None => Answer::Status(202),
        };
        let written = match answer {
            Answer::Status(status) => write(&mut socket, &head(status, "content-length: 0\r\n")).await,
            Answer::Refusal(status, text) => {
                write(&mut socket, &head(status, &format!("content-length: {}\r\n", text.len()))).await;
                write(&mut socket, text.as_bytes()).await
            }
            Answer::Redirect(location) => {
                write(&mut socket, &head(307, &format!("location: {location}\r\ncontent-length: 0\r\n"))).await
            }
            Answer::Stream(id, steps) => return stream(&mut socket, id, steps, &seen).await,
        };
        if written.is_none() {
            return;
        }
    }
}

fn next(script: &Mutex<Vec<Answer>>) -> Answer {
    let mut script = script.lock().unwrap();
    if script.len() > 1 { script.remove(0) } else { script[0].clone() }
}

async fn stream(socket: &mut TcpStream, id: &str, steps: Vec<Step>, seen: &Mutex<Vec<Request>>) {
    let headers = format!("mesos-stream-id: {id}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n");
    if write(socket, &head(200, &headers)).await.is_none() {
        return;
    }
    for step in steps {
        let written = match step {
            Step::Record(record) => write(socket, &chunk(&encode(record.to_string().as_bytes()))).await,
            Step::Bytes(bytes) => write(socket, &chunk(&bytes)).await,
            Step::HalfChunk => write(socket, b"100\r\n255\n{\"type\":\"OFF").await,
            Step::Reply(kind, answer) => {
                let mut written = Some(());
                for record in replied(seen, id, kind, answer).await {
                    written = written.and(write(socket, &chunk(&encode(record.to_string().as_bytes()))).await);
                }
                written
            }
            Step::Beat(count, every) => {
                let heartbeat = chunk(&encode(br#"{"type":"HEARTBEAT"}"#));
                let mut beating = Some(());
                for _ in 0..count {
                    beating = beating.and(write(socket, &heartbeat).await);
                    tokio::time::sleep(every).await;
                }
                beating
            }
            Step::Close => {
                write(socket, b"0\r\n\r\n").await;
                // A client would use the connection again, and nobody listens on it.
                None
            }
            Step::Cut => None,
        };
        if written.is_none() {
            return;
        }
    }
    // Until the client closes it.
    while socket.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
}

/// The records for the first call of that kind under that stream for which there are some.
async fn replied(
    seen: &Mutex<Vec<Request>>,
    id: &str,
    kind: &str,
    answer: impl Fn(&Value) -> Vec<Value>,
) -> Vec<Value> {
    loop {
        let calls: Vec<Value> = {
            let seen = seen.lock().unwrap();
            let ours = seen.iter().filter(|call| call.stream_id.as_deref() == Some(id) && call.body["type"] == kind);
            ours.map(|call| call.body.clone()).collect()
        };
        if let Some(records) = calls.iter().map(&answer).find(|records| !records.is_empty()) {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn head(status: u16, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Status\r\n{headers}\r\n").into_bytes()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

async fn write(socket: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    socket.write_all(bytes).await.ok()?;
    socket.flush().await.ok()
}

/// Reads one request; none when the connection ends.
async fn read(socket: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        read_more(socket, &mut bytes).await?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let header = |name: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(": "));
        pairs.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.to_owned()))
    };
    let length: usize = header("content-length")?.parse().ok()?;
    while bytes.len() < end + length {
        read_more(socket, &mut bytes).await?;
    }
    let path = head.split(' ').nth(1)?.to_owned();
    let body = serde_json::from_slice(&bytes[end..end + length]).ok()?;
    Some(Request { path, stream_id: header("mesos-stream-id"), body })
}

async fn read_more(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 4096];
    let count = socket.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
    bytes.extend_from_slice(&buffer[..count]);
    Some(())
}
