//! `setpoint.redis` and `setpoint.memcached` against scripted servers that misbehave, and genuine ones.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::super::testing::Bench;
use crate::script::{Hook, Limits, Permissions};

/// Answers a command, given as its words, with raw bytes; none hangs up.
type Answer = dyn Fn(&[String]) -> Option<Vec<u8>> + Send + Sync;

/// A server that speaks just enough of the protocol.
fn server(answer: impl Fn(&[String]) -> Option<Vec<u8>> + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let (count, answer): (_, Arc<Answer>) = (Arc::clone(&accepted), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream, &*answer));
        }
    });
    (url, accepted)
}

fn serve(mut stream: TcpStream, answer: &Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(words) = read(&mut reader) {
        match answer(&words) {
            Some(bytes) if stream.write_all(&bytes).is_ok() => {}
            _ => return,
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut header = |mark: char| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().strip_prefix(mark)?.parse::<usize>().ok()
    };
    let n_words = header('*')?;
    let mut words = Vec::new();
    for _ in 0..n_words {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut word = vec![0; line.trim_end().strip_prefix('$')?.parse::<usize>().ok()? + 2];
        reader.read_exact(&mut word).ok()?;
        words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
    }
    Some(words)
}

fn redis(bench: &Bench, url: &str, options: &str, call: &str) -> String {
    bench.error(&format!("return require('setpoint.redis').connect('{url}', {options}){call}"))
}

#[test]
fn faults_of_a_server_are_told_in_one_line() {
    let (url, _) = server(|words| match words.last().unwrap().as_str() {
        "wrong" => Some(b"-WRONGTYPE Operation against a key\r\n".to_vec()),
        "text" => Some(b"$3\r\nabc\r\n".to_vec()),
        "garbage" => Some(b"what is this?\r\n".to_vec()),
        "hangup" => None,
        "huge" => Some([b"$9000\r\n".as_slice(), &[b'x'; 9000], b"\r\n"].concat()),
        "silent" => Some(Vec::new()),
        _ => Some(b":1\r\n".to_vec()),
    });
    let limits = Limits { body: 4096, ..Limits::default() };
    let bench = Bench::with_limits(Permissions::default(), limits);
    for (call, expected) in [
        (":llen('wrong')", "client:llen: WRONGTYPE Operation against a key"),
        (":llen('text')", "client:llen: expected the reply of a Redis server, got"),
        (":llen('hangup')", "client:llen: redis://127.0.0.1:"),
        (":get('huge')", "expected a reply of at most 8192 bytes, got more"),
        (":get('garbage')", "client:get: redis://127.0.0.1:"),
        (":get('silent')", "expected a reply within 700ms, got none"),
    ] {
        let error = redis(&bench, &url, "{ timeout = '700ms' }", call);
        assert!(error.contains(expected) && error.len() < 300, "{call}: {error}");
        // Whatever went wrong, the next command works.
        let n: u32 = bench.run(&format!("return require('setpoint.redis').connect('{url}'):llen('fine')")).unwrap();
        assert_eq!(n, 1, "after {call}");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = redis(&bench, &format!("redis://127.0.0.1:{port}/3"), "{}", ":llen('a')");
    assert_eq!(error, format!("client:llen: redis://127.0.0.1:{port}/3: connection refused"));
}

#[test]
fn one_connection_serves_all_until_it_breaks_and_then_another_does() {
    // Every third command ends its connection: a read is sent again, an effect is not.
    let count = AtomicUsize::new(0);
    let (url, accepted) = server(move |_| (count.fetch_add(1, Ordering::SeqCst) % 3 != 2).then(|| b"+OK\r\n".to_vec()));
    let mut bench = Bench::new(Permissions::default());
    bench.hook = Hook::Warmer;
    let connect = format!("local client = require('setpoint.redis').connect('{url}')");
    bench.run::<()>(&format!("{connect} client:get('a') client:get('a') client:get('a')")).unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    // Commands so far: 4. The next two: one answered, one that ends the connection.
    let error = bench.error(&format!("{connect} client:set('a', 1) client:set('a', 1) "));
    assert!(error.starts_with(&format!("client:set: {url}/0: ")), "{error}");
    assert!(bench.run::<bool>(&format!("{connect} return client:set('a', 1)")).unwrap());
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
}

#[test]
fn what_must_not_be_sent_is_not() {
    let (url, accepted) = server(|_| None);
    let bench = Bench::new(Permissions { allow_hosts: Some(vec!["127.0.0.1".to_owned()]), ..Permissions::default() });
    for (call, expected) in [
        (
            ":command('keys', '*')",
            "client:command: expected a command that neither blocks nor changes the connection, got KEYS (use SCAN)",
        ),
        (
            ":command('BLPOP', 'a', 0)",
            "client:command: expected a command that neither blocks nor changes the connection, got BLPOP",
        ),
        (
            ":command('xread', 'block', 0)",
            "client:command: expected a command that neither blocks nor changes the connection, got XREAD",
        ),
        (
            ":command('SELECT', 3)",
            "client:command: expected a command that neither blocks nor changes the connection, got SELECT",
        ),
        (
            ":command('a b')",
            "client:command: argument 1: expected the name of a command, such as \"LRANGE\", got \"a b\"",
        ),
        (":command('GET', {})", "client:command: argument 2: expected text or a number, got a table"),
        (":llen()", "client:llen: argument 1: expected a key, got nil"),
        (":llen('a', 'b')", "client:llen: expected at most 1 argument, got 2"),
        (".llen('a')", "client:llen: expected a call with a colon, got one with a dot"),
        (":llenn('a')", "a redis client has no method \"llenn\"; did you mean `llen`?"),
    ] {
        assert_eq!(redis(&bench, &url, "{}", call), expected, "{call}");
    }
    for (url, expected) in [
        (
            "http://h",
            "redis.connect: argument 1: expected a URL such as \"redis://127.0.0.1:6379/0\", got \"http://h\"",
        ),
        (
            "redis://h/x",
            "redis.connect: argument 1: expected a URL such as \"redis://127.0.0.1:6379/0\", got \"redis://h/x\"",
        ),
        ("rediss://h", "redis.connect: argument 1: expected redis://, got rediss:// (Redis over TLS is not supported)"),
        ("redis://elsewhere", "redis.connect: the host's allow_hosts does not list \"elsewhere:6379\""),
    ] {
        assert_eq!(redis(&bench, url, "{}", ""), expected);
    }
    let error = redis(&bench, "redis://:hunter2@h", "{}", "");
    assert!(error.contains("without user and password") && !error.contains("hunter2"), "{error}");
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
}

/// A genuine server on a port of its own; none where its program is missing.
struct Genuine {
    command: Command,
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Genuine {
    /// Starts a program with arguments that name its port and its folder.
    fn start(name: &str, arguments: impl FnOnce(&str, &str) -> Vec<String>) -> Option<Self> {
        let program = program(name)?;
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(arguments(&port.to_string(), folder.path().to_str().unwrap()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut genuine = Self { command, child, port, _folder: folder };
        genuine.wait();
        Some(genuine)
    }

    fn wait(&mut self) {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?} answers", self.command);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its port.
    fn restart(&mut self) {
        self.child = self.command.spawn().unwrap();
        self.wait();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Genuine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A program of `SETPOINT_TEST_TOOLS` or `PATH`. When it is in neither, a test under `CI` fails and any other is skipped.
fn program(name: &str) -> Option<std::path::PathBuf> {
    let folders = ["SETPOINT_TEST_TOOLS", "PATH"].into_iter().filter_map(std::env::var_os);
    let mut folders = folders.flat_map(|folders| std::env::split_paths(&folders).collect::<Vec<_>>());
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    if found.is_none() {
        let on_ci = std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
        assert!(!on_ci, "`{name}` is missing; tests/run sees to it");
        eprintln!("skipped: `{name}` is missing; tests/run sees to it");
    }
    found
}

#[test]
fn a_genuine_server_answers() {
    let arguments = |port: &str, folder: &str| {
        ["--port", port, "--bind", "127.0.0.1", "--save", "", "--requirepass", "s3cret", "--dir", folder]
            .map(str::to_owned)
            .to_vec()
    };
    let Some(redis) = Genuine::start("redis-server", arguments) else { return };
    let mut bench = Bench::new(Permissions::default());
    bench.hook = Hook::Warmer;
    let chunk = format!(
        r#"
        local client = require("setpoint.redis").connect("redis://127.0.0.1:{}/2", {{ password = "s3cret" }})
        assert(client:llen("jobs") == 0 and client:get("none") == nil and not client:exists("none"))
        assert(client:command("rpush", "jobs", "a", "b", 3) == 3 and client:llen("jobs") == 3)
        assert(table.concat(client:command("LRANGE", "jobs", 0, -1), " ") == "a b 3")
        assert(client:set("k", 1.5, {{ ex = "60s" }}) and not client:set("k", 2, {{ nx = true }}))
        assert(client:get("k") == "1.5" and client:exists("k") and client:command("ttl", "k") > 50)
        assert(client:command("MGET", "k", "none")[2] == false)
        client:command("sadd", "s", 1, 2) client:command("zadd", "z", 1, "a") client:command("hset", "h", "f", "v")
        client:command("xadd", "x", "*", "f", "v")
        assert(client:scard("s") == 2 and client:zcard("z") == 1 and client:hlen("h") == 1 and client:xlen("x") == 1)
        assert(client:command("dbsize") == 6)
        local ok, err = pcall(client.llen, client, "k")
        assert(not ok and tostring(err):find("WRONGTYPE", 1, true))
        return tostring(client)
        "#,
        redis.port
    );
    assert_eq!(bench.run::<String>(&chunk).unwrap(), format!("redis://127.0.0.1:{}/2", redis.port));
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let error = self::redis(&bench, &url, "{ password = 'hunter2' }", ":llen('a')");
    assert!(error.contains("the server refused the user or password") && !error.contains("hunter2"), "{error}");
    let error = self::redis(&bench, &url, "{}", ":llen('a')");
    assert!(error.contains("NOAUTH"), "{error}");
}

/// A memcached that answers each connection's first line with these bytes.
fn memcached(answer: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let mut stream = stream.unwrap();
            let mut line = [0; 7];
            // The other end may have gone meanwhile.
            std::io::Read::read_exact(&mut stream, &mut line).ok();
            assert_eq!(&line, b"stats\r\n");
            std::io::Write::write_all(&mut stream, answer).ok();
        }
    });
    port
}

#[test]
fn memcached_stats_are_numbers_where_they_can_be() {
    let port = memcached(b"STAT pid 17\r\nSTAT version 1.6.18\r\nSTAT rusage_user 0.5\r\nSTAT cmd_get 12\r\nEND\r\n");
    let bench = Bench::new(Permissions::default());
    let chunk = format!(
        r#"
        local stats = require("setpoint.memcached").stats("127.0.0.1", {port})
        return stats.cmd_get + stats.rusage_user, stats.version
        "#
    );
    let (sum, version): (f64, String) = bench.run(&chunk).unwrap();
    assert_eq!((sum, version.as_str()), (12.5, "1.6.18"));

    let call = |port: u16, rest: &str| {
        bench.error(&format!(r#"return require("setpoint.memcached").stats("127.0.0.1", {port}{rest})"#))
    };
    assert!(call(memcached(b"ERROR\r\n"), "").contains("expected a line of stats, got \"ERROR\""));
    assert!(call(memcached(b"STAT a 1\r\n"), "").contains("the answer's end, got the connection's"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let quiet = call(silent.local_addr().unwrap().port(), r#", { timeout = "50ms" }"#);
    assert!(quiet.contains("expected an answer within 50ms, got none"), "{quiet}");
    let closed = silent.local_addr().unwrap().port();
    drop(silent);
    assert!(call(closed, "").contains("connection refused"));
    assert!(call(0, "").contains("a port from 1 to 65535"));
}

/// Sends commands to a memcached and gives the last line of its answers, which must be as many.
fn told(port: u16, commands: &str, answers: usize) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(commands.as_bytes()).unwrap();
    let lines = BufReader::new(stream).lines().take(answers);
    lines.last().unwrap().unwrap()
}

#[test]
fn a_genuine_memcached_counts_for_scripts_what_its_clients_do() {
    let arguments = |port: &str, _: &str| {
        ["-u", "root", "-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "8"].map(str::to_owned).to_vec()
    };
    let Some(mut memcached) = Genuine::start("memcached", arguments) else { return };
    let port = memcached.port;
    let bench = Bench::new(Permissions::default());
    let stats = format!("local s = require('setpoint.memcached').stats('127.0.0.1', {port})");
    let counts = |of: &str| bench.run::<Vec<f64>>(&format!("{stats} return {{ {of} }}"));
    let of = "s.cmd_set, s.cmd_get, s.get_hits, s.curr_items, s.limit_maxbytes, s.evictions";
    assert_eq!(counts(of).unwrap(), [0.0, 0.0, 0.0, 0.0, 8_388_608.0, 0.0]);

    let commands = "set a 0 0 3\r\none\r\nset b 0 0 3\r\ntwo\r\nget a\r\nget none\r\n";
    assert_eq!(told(port, commands, 6), "END", "two are stored, one is found with three lines, one is not");
    assert_eq!(counts(of).unwrap(), [2.0, 2.0, 1.0, 2.0, 8_388_608.0, 0.0]);
    let (version, kind): (String, String) = bench.run(&format!("{stats} return s.version, type(s.pid)")).unwrap();
    assert!(version.starts_with("1.") && kind == "number", "{version} {kind}");
    // More than it may hold: what it drops, scripts see.
    let filling = format!("set f 0 0 100000\r\n{}\r\n", "x".repeat(100_000));
    let filling: Vec<String> = (0..120).map(|n| filling.replacen("set f", &format!("set f{n}"), 1)).collect();
    assert_eq!(told(port, &filling.concat(), 120), "STORED");
    let [evictions, bytes]: [f64; 2] = counts("s.evictions, s.bytes").unwrap().try_into().unwrap();
    assert!(0.0 < evictions && 4e6 < bytes && bytes <= 8_388_608.0, "{evictions} {bytes}");

    // One that hangs, one that is gone, one that begins anew.
    let call = format!("return require('setpoint.memcached').stats('127.0.0.1', {port}, {{ timeout = '300ms' }})");
    memcached.signal(Signal::STOP);
    let hung = bench.error(&call);
    assert!(hung.contains(&format!("127.0.0.1:{port}: expected an answer within 300ms, got none")), "{hung}");
    memcached.stop();
    assert!(bench.error(&call).contains(&format!("127.0.0.1:{port}: connection refused")));
    memcached.restart();
    assert_eq!(counts(of).unwrap(), [0.0, 0.0, 0.0, 0.0, 8_388_608.0, 0.0]);
}
