//! `setpoint.http` against real servers on this machine: good ones, slow ones, and ones that misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::testing::Bench;
use crate::script::{Hook, Permissions, SecretSource};

/// What a server answers a request with: the raw bytes; none is to say nothing more and keep the line open.
type Answer = dyn Fn(&Seen) -> Option<Vec<u8>> + Send + Sync;

/// One request that a server saw.
#[derive(Clone, Debug)]
struct Seen {
    /// `GET /path HTTP/1.1`
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A server on a port of its own. Its threads end when their peers hang up, and the test process with them.
struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start(answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::default()));
        let server = Self { port, accepted: Arc::clone(&accepted), seen: Arc::clone(&seen) };
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &*answer, &seen));
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, answer: &Answer, seen: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read(&mut reader) {
        seen.lock().unwrap().push(request.clone());
        match answer(&request) {
            Some(bytes) if writer.write_all(&bytes).is_err() => return,
            // An answer without a length ends with its connection.
            Some(bytes) if !String::from_utf8_lossy(&bytes).to_ascii_lowercase().contains("\r\ncontent-length") => {
                return;
            }
            Some(_) => {}
            None => drop(reader.read_line(&mut String::new())),
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length: &String| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { line: line.trim_end().to_owned(), headers, body: String::from_utf8(body).unwrap() })
}

#[expect(clippy::unnecessary_wraps, reason = "it is what an answer is")]
fn with_body(status: &str, headers: &str, body: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes())
}

fn bench() -> Bench {
    Bench::new(Permissions::default())
}

fn http(bench: &Bench, call: &str) -> String {
    bench.error(&format!("return require('setpoint.http').{call}"))
}

#[test]
fn answers_arrive_whole_and_connections_are_used_again() {
    let server = Server::start(|request| match request.line.split([' ', '?']).nth(1).unwrap() {
        "/json" => with_body("200 OK", "Set-Cookie: a\r\nSet-Cookie: b\r\n", r#"{"depth":17}"#),
        "/number" => with_body("200 OK", "", " 42.5\n"),
        "/page" => with_body("503 Service Unavailable", "", "<html>0</html>"),
        _ => with_body("200 OK", "", ""),
    });
    let chunk = format!(
        r#"
        local http = require("setpoint.http")
        local base = "http://127.0.0.1:{}"
        local response = http.get(base .. "/json?key=hidden", {{ query = {{ b = 2, a = "x y" }}, headers = {{ ["X-Id"] = "7" }} }})
        assert(response.status == 200 and response.ok and response:json().depth == 17 and not response.stub)
        assert(response.headers["set-cookie"] == "a, b" and response.url == base .. "/json")
        assert(http.get(base .. "/number"):number() == 42.5)
        local page = http.get(base .. "/page")
        assert(page.status == 503 and not page.ok)
        assert(http.head(base .. "/").status == 200)
        local ok, err = pcall(page.json, page)
        return tostring(err)
        "#,
        server.port
    );
    let bench = bench();
    let error: String = bench.run(&chunk).unwrap();
    assert!(error.contains("response:json: expected JSON with status 2xx, got 503 from"), "{error}");
    for _ in 0..20 {
        bench.run::<()>(&format!("require('setpoint.http').get('{}')", server.url("/"))).unwrap();
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1, "one connection for all of them");
    let seen = server.seen();
    assert_eq!(seen[0].line, "GET /json?key=hidden&a=x+y&b=2 HTTP/1.1");
    assert_eq!(seen[0].headers["x-id"], "7");
}

#[test]
fn effects_send_bodies_and_credentials() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "t0ken\n").unwrap();
    let secrets = BTreeMap::from([("token".to_owned(), SecretSource::File(folder.path().join("token")))]);
    let mut bench = Bench::new(Permissions { secrets, ..Permissions::default() });
    bench.hook = Hook::Warmer;
    let server = Server::start(|_| with_body("201 Created", "", ""));
    let chunk = format!(
        r#"
        local http, secret = require("setpoint.http"), require("setpoint.secret")
        local url, token = "http://127.0.0.1:{}/", secret.get("token")
        assert(http.post(url, {{ json = {{ n = 3 }}, bearer = token }}).status == 201)
        http.put(url, {{ body = "text", basic = {{ user = "me", password = token }} }})
        http.request("delete", url, {{ headers = {{ ["X-Key"] = token }} }})
        "#,
        server.port
    );
    bench.run::<()>(&chunk).unwrap();
    let seen = server.seen();
    assert_eq!((seen[0].body.as_str(), seen[0].headers["content-type"].as_str()), (r#"{"n":3}"#, "application/json"));
    assert_eq!(seen[0].headers["authorization"], "Bearer t0ken");
    assert_eq!(
        (seen[1].line.as_str(), seen[1].headers["authorization"].as_str()),
        ("PUT / HTTP/1.1", "Basic bWU6dDBrZW4=")
    );
    assert_eq!((seen[2].line.as_str(), seen[2].headers["x-key"].as_str()), ("DELETE / HTTP/1.1", "t0ken"));

    std::fs::write(folder.path().join("token"), "line\u{1}break").unwrap();
    let chunk = format!(
        "require('setpoint.http').get('{}', {{ bearer = require('setpoint.secret').get('token') }})",
        server.url("/")
    );
    let error = bench.error(&chunk);
    assert!(!error.contains("break"), "{error}");
    std::fs::remove_file(folder.path().join("token")).unwrap();
    let error = bench.error(&chunk);
    assert!(error.contains("secret(token)") && error.contains("No such file"), "{error}");
}

#[test]
fn redirects_are_followed_checked_and_bounded() {
    let other = Server::start(|_| with_body("200 OK", "", "1"));
    let elsewhere = other.url("/");
    let server = Server::start(move |request| match request.line.split([' ', '?']).nth(1).unwrap() {
        "/loop" => with_body("302 Found", "Location: /loop\r\n", ""),
        "/once" => with_body("307 Temporary Redirect", "Location: /end\r\n", ""),
        "/see" => with_body("303 See Other", "Location: /end\r\n", ""),
        "/away" => with_body("302 Found", &format!("Location: {elsewhere}\r\n"), ""),
        "/file" => with_body("302 Found", "Location: file:///etc/passwd\r\n", ""),
        _ => with_body("200 OK", "", "2"),
    });
    let mut bench = bench();
    bench.hook = Hook::Warmer;
    let http_call = |call: &str| format!("return require('setpoint.http').{call}:number()");
    assert_eq!(bench.run::<u32>(&http_call(&format!("get('{}')", server.url("/once")))).unwrap(), 2);
    assert_eq!(bench.run::<u32>(&http_call(&format!("post('{}', {{ body = 'b' }})", server.url("/once")))).unwrap(), 2);
    assert_eq!(bench.run::<u32>(&http_call(&format!("post('{}', {{ body = 'b' }})", server.url("/see")))).unwrap(), 2);
    let ends: Vec<(String, String)> = server
        .seen()
        .into_iter()
        .filter(|seen| seen.line.contains("/end"))
        .map(|seen| (seen.line, seen.body))
        .collect();
    let expected = [("GET /end HTTP/1.1", ""), ("POST /end HTTP/1.1", "b"), ("GET /end HTTP/1.1", "")];
    assert_eq!(ends, expected.map(|(line, body)| (line.to_owned(), body.to_owned())));
    let status: u16 = bench
        .run(&format!("return require('setpoint.http').get('{}', {{ follow = false }}).status", server.url("/once")))
        .unwrap();
    assert_eq!(status, 307);
    assert!(
        http(&bench, &format!("get('{}')", server.url("/loop"))).contains("expected at most 5 redirects, got more")
    );
    assert!(
        http(&bench, &format!("get('{}')", server.url("/file"))).contains("redirected to something that is no URL")
    );

    // Credentials stay with the origin that they were written for.
    let call = format!(
        "get('{}', {{ bearer = 'mine', headers = {{ Cookie = 'c', ['X-Plain'] = 'p' }} }})",
        server.url("/away")
    );
    assert_eq!(bench.run::<u32>(&http_call(&call)).unwrap(), 1);
    let arrived = &other.seen()[0].headers;
    assert!(!arrived.contains_key("authorization") && !arrived.contains_key("cookie"), "{arrived:?}");
    assert_eq!(arrived["x-plain"], "p");

    // A redirect to a host that is not allowed is not followed.
    let allow_hosts = Some(vec![format!("127.0.0.1:{}", server.port)]);
    let narrow = Bench::new(Permissions { allow_hosts, ..Permissions::default() });
    let error = http(&narrow, &format!("get('{}')", server.url("/away")));
    let expected = format!("http.get: the host's allow_hosts does not list \"127.0.0.1:{}\"", other.port);
    assert_eq!(error, expected);
    assert_eq!(http(&narrow, &format!("get('{}')", other.url("/"))), expected);
    assert!(http(&narrow, "get('http://no.such.host.invalid/')").contains("does not list \"no.such.host.invalid:80\""));
    assert_eq!(other.seen().len(), 1);
}

#[test]
fn bad_servers_give_short_errors() {
    let server = Server::start(|request| match request.line.split([' ', '?']).nth(1).unwrap() {
        "/silent" => None,
        "/half" => Some(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_vec()),
        "/announced" => Some(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx".to_vec()),
        // Without a length: only counting what comes can tell.
        "/endless" => Some([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 5000]].concat()),
        "/garbage" => Some(b"what?\r\n\r\n".to_vec()),
        _ => with_body("200 OK", "", "not a number"),
    });
    let bench = bench();
    for (path, options, expected) in [
        ("/silent?key=hidden", "{ timeout = '0.3s' }", "expected an answer within 300ms, got none"),
        ("/half", "{}", "connection closed in the middle of the answer"),
        ("/announced", "{}", "expected a body of at most 4194304 bytes, got more"),
        ("/endless", "{ max_body = 4096 }", "expected a body of at most 4096 bytes, got more"),
        ("/garbage", "{}", "invalid HTTP version parsed"),
    ] {
        let error = http(&bench, &format!("get('{}', {options})", server.url(path)));
        let place = server.url(path.split('?').next().unwrap());
        assert_eq!(error, format!("http.get: {place}: {expected}"), "{path}");
    }
    let error = bench.error(&format!("return require('setpoint.http').get('{}'):number()", server.url("/text")));
    assert_eq!(error, "response:number: expected a finite number, got \"not a number\"");
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = http(&bench, &format!("get('http://127.0.0.1:{port}/')"));
    assert_eq!(error, format!("http.get: http://127.0.0.1:{port}/: connection refused"));
    let error = http(&bench, "get('http://no.such.host.invalid/')");
    assert!(error.starts_with("http.get: http://no.such.host.invalid/: ") && error.len() < 200, "{error}");
    #[cfg(feature = "tls")]
    {
        let error = http(&bench, &format!("get('https://127.0.0.1:{}/')", server.port));
        assert!(error.starts_with("http.get: https://127.0.0.1") && error.len() < 300, "{error}");
    }
}

#[test]
fn the_ticks_deadline_ends_a_request() {
    let server = Server::start(|_| None);
    let mut bench = bench();
    bench.deadline = std::time::Duration::from_millis(300);
    let error = http(&bench, &format!("get('{}')", server.url("/")));
    assert_eq!(error, "http.get: no answer before the tick's deadline");
}

#[test]
fn arguments_are_checked_before_anything_is_sent() {
    let bench = bench();
    for (call, expected) in [
        ("get()", "http.get: argument 1: expected a URL such as \"http://127.0.0.1:8080/metrics\", got nil"),
        (
            "get('ftp://host/')",
            "http.get: argument 1: expected a URL such as \"http://127.0.0.1:8080/metrics\", got \"ftp://host/\"",
        ),
        ("get('http://h', 5)", "http.get: argument 2: expected a table of options, got 5"),
        (
            "get('http://h', { timout = 5 })",
            "http.get: unknown option \"timout\" (known: headers, query, body, json, basic, bearer, timeout, max_body, follow); did you mean `timeout`?",
        ),
        (
            "get('http://h', { timeout = {} })",
            "http.get: option timeout: expected a duration such as \"5s\", got a table",
        ),
        ("get('http://h', { json = 1, body = 'x' })", "http.get: expected body or json, got both"),
        (
            "get('http://h', { json = { print } })",
            "http.get: option json: at 1: expected nil, a boolean, number, string or table, got a function",
        ),
        (
            "get('http://h', { headers = { ['a b'] = 'c' } })",
            "http.get: option headers: expected names of headers, got \"a b\"",
        ),
        ("get('http://h', { headers = { a = {} } })", "http.get: option headers: a: expected text or a secret"),
        (
            "get('http://h', { basic = { user = 'x' } })",
            "http.get: option basic: expected { user = text, password = text or a secret }",
        ),
        (
            "request('BREW', 'http://h')",
            "http.request: argument 1: expected GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, got \"BREW\"",
        ),
    ] {
        assert_eq!(http(&bench, call), expected, "{call}");
    }
    let error = http(&bench, "get('http://user:hunter2@h/')");
    assert!(error.contains("expected a URL without user and password") && !error.contains("hunter2"), "{error}");
}

#[test]
fn prometheus_gives_values_and_never_a_zero_for_nothing() {
    let server = Server::start(|request| {
        let ok = |data: &str| with_body("200 OK", "", &format!(r#"{{"status":"success","data":{data}}}"#));
        let path = request.line.split(' ').nth(1).unwrap();
        match path.strip_prefix("/prefix/api/v1/query?query=").unwrap_or_default() {
            "up" => ok(r#"{"resultType":"vector","result":[{"metric":{"job":"a"},"value":[17.5,"2"]}]}"#),
            "two&time=5" | "two" => ok(
                r#"{"resultType":"vector","result":[{"metric":{"job":"a"},"value":[1,"2"]},{"metric":{},"value":[1,"-4"]}]}"#,
            ),
            "1+%2B+1" => ok(r#"{"resultType":"scalar","result":[1,"2"]}"#),
            "nan" => ok(r#"{"resultType":"scalar","result":[1,"NaN"]}"#),
            "none" => ok(r#"{"resultType":"vector","result":[]}"#),
            "range" => ok(r#"{"resultType":"matrix","result":[]}"#),
            "bad" => with_body(
                "400 Bad Request",
                "",
                r#"{"status":"error","errorType":"bad_data","error":"parse error: what?"}"#,
            ),
            _ => with_body("503 Service Unavailable", "", "<html>0</html>"),
        }
    });
    let bench = bench();
    let chunk = format!(
        r#"
        local prometheus, url = require("setpoint.prometheus"), "{}"
        assert(prometheus.query(url, "up") == 2 and prometheus.query(url .. "/", "1 + 1") == 2)
        assert(prometheus.query(url, "none") == nil and #prometheus.query_all(url, "none") == 0)
        local nan = prometheus.query(url, "nan")
        assert(nan ~= nan)
        assert(prometheus.query(url, "two", {{ reduce = "sum" }}) == -2 and prometheus.query(url, "two", {{ reduce = "avg" }}) == -1)
        assert(prometheus.query(url, "two", {{ reduce = "min" }}) == -4)
        assert(prometheus.query(url, "two", {{ reduce = "max", time = 5 }}) == 2)
        local series = prometheus.query_all(url, "up")
        return series[1].labels.job == "a" and series[1].value == 2 and series[1].time == 17.5 and #series == 1
        "#,
        server.url("/prefix")
    );
    assert!(bench.run::<bool>(&chunk).unwrap());
    for (expression, expected) in [
        ("two", "expected one series, got 2: aggregate in the expression"),
        ("range", "expected an expression that gives a scalar or an instant vector, got a matrix"),
        ("bad", "the query failed (400 bad_data): \"parse error: what?\""),
        ("down", "expected status 200, got 503: \"<html>0</html>\""),
    ] {
        let url = server.url("/prefix");
        let error = bench.error(&format!("return require('setpoint.prometheus').query('{url}', '{expression}')"));
        assert!(error.starts_with("prometheus.query: ") && error.contains(expected), "{error}");
    }
    let error = bench.error("return require('setpoint.prometheus').query('http://h', 'up', { reduce = 'most' })");
    assert!(error.contains("option reduce: expected \"sum\", \"avg\", \"min\" or \"max\", got \"most\""), "{error}");
}
