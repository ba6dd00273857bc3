//! setpoint is killed between the making of a container and its start: the next run finds it, and starts it once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{configure, holding, tasks_of};
use crate::support::{Docker, GENEROUS, Scratch, Setpoint, setting, wait_until};

/// Stands between setpoint and an engine, and kills the process that it is armed with at the moment at which the engine has
/// made a container and setpoint does not know it yet.
struct Proxy {
    victim: Arc<AtomicI32>,
    worker: JoinHandle<()>,
}

impl Proxy {
    fn start(socket: &Path, engine: PathBuf) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let victim = Arc::new(AtomicI32::new(0));
        let armed = Arc::clone(&victim);
        let worker = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(pass(client, engine.clone(), Arc::clone(&armed)));
            }
        });
        Self { victim, worker }
    }

    fn arm(&self, pid: u32) {
        self.victim.store(pid.cast_signed(), Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// One connection, which is one request.
async fn pass(client: UnixStream, engine: PathBuf, victim: Arc<AtomicI32>) {
    let Ok(engine) = UnixStream::connect(engine).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let mut first = vec![0; 64 << 10];
    let Ok(n) = from_client.read(&mut first).await else { return };
    let creates =
        first[..n].starts_with(b"POST ") && String::from_utf8_lossy(&first[..n]).contains("/containers/create?");
    if to_engine.write_all(&first[..n]).await.is_err() {
        return;
    }
    let upstream = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_engine).await });
    let mut answer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from_engine.read(&mut answer).await {
        if creates
            && answer.starts_with(b"HTTP/1.1 201")
            && let Some(pid) = Pid::from_raw(victim.swap(0, Ordering::SeqCst))
        {
            // Before the answer goes on.
            kill_process(pid, Signal::KILL).ok();
        }
        if to_client.write_all(&answer[..n]).await.is_err() {
            break;
        }
    }
    upstream.abort();
}

#[tokio::test]
async fn a_container_that_was_made_and_not_started_is_neither_lost_nor_doubled() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let socket = scratch.path("proxy.sock");
    let proxy = Proxy::start(&socket, docker.host().trim_start_matches("unix://").into());
    configure(&scratch, &[("proxied", &format!("unix://{}", socket.display()))]);
    scratch.policy(
        "sleepers",
        &holding(&scratch, &image, r#"command = { "sleep", "3600" }, init = true, ports = { a = 80 }"#),
    );
    let kills = setting("SETPOINT_KILLS", 5);
    let mut known: BTreeSet<String> = BTreeSet::new();
    for round in 1..=kills {
        let mut setpoint = Setpoint::run(&scratch, ["sleepers.lua", "--state-dir", "state"]);
        setpoint.running("sleepers", (round - 1).min(8)).await;
        proxy.arm(setpoint.pid());
        // One more, and from the ninth round on one that takes another's place.
        if round <= 8 {
            scratch.write("n", &round.to_string());
        } else {
            docker.run(&["kill", known.first().unwrap()]);
        }
        assert!(!setpoint.exit(GENEROUS).await.success(), "it was killed");

        // The container is there and does not run; the next run starts it.
        let made: Vec<String> = tasks_of(&docker, &scratch);
        let states = made.iter().map(|name| docker.inspect(name).unwrap()["State"]["Status"].clone());
        assert_eq!(states.filter(|state| state == "created").count(), 1, "round {round}");
        let mut setpoint = Setpoint::run(&scratch, ["sleepers.lua", "--state-dir", "state"]);
        setpoint.running("sleepers", round.min(8)).await;
        let now = wait_until(GENEROUS, "containers and tasks are the same", async || {
            let tasks: BTreeSet<String> =
                setpoint.tasks().await.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect();
            tasks_of(&docker, &scratch).into_iter().eq(tasks.iter().cloned()).then_some(tasks)
        })
        .await;
        assert_eq!(now.len() as u64, round.min(8));
        let tasks = setpoint.tasks().await;
        assert!(tasks.iter().all(|task| task["ports"]["a"].is_u64()), "where it is reached is known: {tasks:?}");
        let new: Vec<&String> = now.difference(&known).collect();
        assert_eq!(new.len(), 1, "round {round}: one more was launched, once: {known:?}, {now:?}");
        assert!(made.contains(new[0]), "round {round}: it is the one that was made before the crash");
        known = now;
        setpoint.kill();
    }
    let mut last = Setpoint::run(&scratch, ["sleepers.lua", "--state-dir", "state", "--stop-tasks"]);
    last.running("sleepers", kills.min(8)).await;
    assert!(last.stop().await.success());
    assert_eq!(docker.of_test(&scratch), [""; 0], "no orphan is left");
}
