//! A small real HTTP server that remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request as the server got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A server on a loopback port of its own; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    worker: JoinHandle<()>,
}

impl HttpServer {
    /// Serves every request by `answer`, which gives a status and a body.
    pub(crate) async fn start(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let app = Router::new().fallback(async move |request: Request| {
            let request = take_in(request).await;
            let (status, body) = answer(&request);
            log.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            (StatusCode::from_u16(status).unwrap(), body)
        });
        let worker = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, seen, worker }
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request so far, in the order in which they were answered.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

async fn take_in(request: Request) -> Seen {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    Seen {
        method: parts.method,
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

#[tokio::test]
async fn it_answers_and_remembers() {
    let server = HttpServer::start(|request| (201, format!("got {}", request.body))).await;
    let reply = super::setpoint::client().post(server.url("/a?b=1")).body("x").send().await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.text().await.unwrap()), (201, "got x".to_owned()));
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].method.as_str(), seen[0].path.as_str()), (1, "POST", "/a?b=1"));
}
