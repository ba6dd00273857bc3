//! `memcached.lua` on genuine memcached: on an engine of the test's own, on a Swarm of two nodes, and on the agents of a
//! Mesos cluster. And A12 of what it replaces.

mod a12;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

#[cfg(feature = "mesos")]
use crate::support::{Cluster, ClusterSpec};
use crate::support::{Docker, EngineOptions, GENEROUS, OwnEngine, Scratch, Setpoint, Swarm, client, wait_until};

/// Between two launches, in these tests.
const THROTTLE: Duration = Duration::from_secs(6);

/// Longer than filling three servers takes on any machine.
const FILLING: Duration = Duration::from_secs(240);

/// The bundled policy's file.
fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/memcached.lua")
}

/// A setpoint with the policy and the old listener.
struct Cache {
    setpoint: Setpoint,
    /// `http://127.0.0.1:PORT/` with the old list.
    list: String,
    client: reqwest::Client,
}

impl Cache {
    async fn start(scratch: &Scratch, image: &str, backend: &str, settings: &str) -> Self {
        Self::start_with(scratch, image, backend, settings, &[]).await
    }

    async fn start_with(scratch: &Scratch, image: &str, backend: &str, settings: &str, more: &[&str]) -> Self {
        let settings = format!("{settings}\n[services]\nlisten = \"127.0.0.1:0\"\n");
        std::fs::write(scratch.path("setpoint.toml"), settings).unwrap();
        let set = [
            format!("backend={backend}"),
            format!("image={image}"),
            format!("throttle={}s", THROTTLE.as_secs()),
            "max=3".to_owned(),
            "interval=500ms".to_owned(),
            // Filling is the load here; what it costs the processor is the machine's business.
            "cpu_high=100000".to_owned(),
        ];
        let mut arguments = vec!["memcached".to_owned(), "--state-dir".to_owned(), "state".to_owned()];
        arguments.push("--stop-tasks".to_owned());
        let more = more.iter().map(|set| (*set).to_owned());
        arguments.extend(set.into_iter().chain(more).flat_map(|set| ["--set".to_owned(), set]));
        let setpoint = Setpoint::run(scratch, arguments);
        let list = wait_until(GENEROUS, "the old listener", async || {
            let log = setpoint.stderr();
            let line = log.lines().find(|line| line.contains("serving the list of usable tasks"))?;
            let (_, rest) = line.split_once("http://127.0.0.1:")?;
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            (port.len() < rest.len() || line.len() < log.len()).then(|| format!("http://127.0.0.1:{port}/"))
        })
        .await;
        Self { setpoint, list, client: client() }
    }

    /// The old list.
    async fn listed(&self) -> BTreeMap<String, Value> {
        self.client.get(&self.list).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until `n` servers are listed.
    async fn until(&self, n: usize) -> BTreeMap<String, Value> {
        wait_until(FILLING, &format!("{n} servers are listed"), async || {
            let listed = self.listed().await;
            (listed.len() == n).then_some(listed)
        })
        .await
    }

    /// Id and container of every running task, by slot.
    async fn running(&mut self) -> BTreeMap<u64, (String, String)> {
        let tasks = self.setpoint.tasks().await;
        let running = tasks.iter().filter(|task| task["state"] == "running");
        running
            .map(|task| {
                let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
                (task["slot"].as_u64().unwrap(), (text("id"), text("container")))
            })
            .collect()
    }
}

/// A client that fills every server of the old list with values, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    servers: Arc<Mutex<Vec<String>>>,
    worker: Option<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let (stop, servers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::<String>::new())));
        let (ended, known) = (Arc::clone(&stop), Arc::clone(&servers));
        let worker = std::thread::spawn(move || {
            let value = vec![b'x'; 100_000];
            let began = Instant::now();
            for round in 0_u32.. {
                if ended.load(Ordering::SeqCst) || FILLING < began.elapsed() {
                    return;
                }
                for server in known.lock().unwrap().clone() {
                    // A server may have gone since it was listed.
                    fill(&server, round, &value).ok();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, servers, worker: Some(worker) }
    }

    fn of(&self, listed: &BTreeMap<String, Value>) {
        let address = |entry: &Value| format!("{}:{}", entry["Hostname"].as_str().unwrap(), entry["Port"]);
        *self.servers.lock().unwrap() = listed.values().map(address).collect();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(worker) = self.worker.take() {
            worker.join().ok();
        }
    }
}

/// Ten values of 100 kB.
fn fill(server: &str, round: u32, value: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(GENEROUS))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for n in 0..10 {
        // In one piece: small ones would wait for each other's acknowledgements.
        let head = format!("set key:{round}:{n} 0 0 {}\r\n", value.len());
        stream.write_all(&[head.as_bytes(), value, b"\r\n"].concat())?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        assert_eq!(answer, "STORED\r\n");
    }
    Ok(())
}

/// 1 → 2 → 3 as memory passes the threshold, no faster than the throttle. When each server was first listed.
async fn grows(cache: &Cache) -> Vec<Instant> {
    let load = Load::start();
    let mut seen = Vec::new();
    for n in 1..=3 {
        let listed = cache.until(n).await;
        seen.push(Instant::now());
        assert!(listed.values().all(|entry| entry["Port"].as_u64().is_some_and(|port| port != 0)), "{listed:?}");
        load.of(&listed);
    }
    for pair in seen.windows(2) {
        let apart = pair[1] - pair[0];
        eprintln!("one server more after {:.1} s", apart.as_secs_f64());
    }
    seen
}

/// No two launches are closer together than the throttle.
async fn is_throttled(cache: &mut Cache) {
    let tasks = cache.setpoint.tasks().await;
    let mut started: Vec<SystemTime> =
        tasks.iter().map(|task| task["started"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().into()).collect();
    started.sort();
    assert_eq!(started.len(), 3);
    for pair in started.windows(2) {
        let apart = pair[1].duration_since(pair[0]).unwrap();
        eprintln!("launched {:.1} s apart, the throttle is {THROTTLE:?}", apart.as_secs_f64());
        // What a Swarm launched is known from when it was first seen, half a second later at most; so is every one.
        assert!(THROTTLE <= apart + Duration::from_millis(700), "{apart:?}");
    }
}

/// A container that is killed by hand leaves the list, and its place is taken. `kill` is told the task's id and container.
async fn loses_one(cache: &mut Cache, kill: impl FnOnce(&str, &str)) {
    let before = cache.running().await;
    let (lost, container) = before[&1].clone();
    assert!(cache.listed().await.contains_key(&lost));
    kill(&lost, &container);
    let killed = Instant::now();
    wait_until(GENEROUS, "the dead to leave the list", async || {
        (!cache.listed().await.contains_key(&lost)).then_some(())
    })
    .await;
    eprintln!("the dead left the list after {:.2} s", killed.elapsed().as_secs_f64());
    wait_until(GENEROUS, "a replacement in its place", async || {
        let running = cache.running().await;
        let new = running.get(&1).is_some_and(|(id, _)| *id != lost);
        (running.len() == 3 && new).then_some(())
    })
    .await;
    eprintln!("it was replaced after {:.2} s", killed.elapsed().as_secs_f64());
    let after = cache.running().await;
    assert_eq!((&after[&0], &after[&2]), (&before[&0], &before[&2]), "nobody else was touched");
    assert_eq!(cache.until(3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_on_docker_grows_loses_one_and_goes() {
    let Some(engine) = OwnEngine::start_new(EngineOptions::default()) else { return };
    let Some(image) = engine.docker().image("memcached") else { return };
    let scratch = Scratch::new();
    let settings = format!("[docker]\nhost = \"{}\"\n", engine.docker().host());
    let mut cache = Cache::start(&scratch, &image, "docker", &settings).await;
    grows(&cache).await;
    is_throttled(&mut cache).await;
    let docker = engine.docker().clone();
    loses_one(&mut cache, |_, container| drop(docker.run(&["kill", container]))).await;
    let (_, services) = cache.setpoint.get("/v1/services?format=mcrouter").await;
    assert_eq!(services["pools"]["memcached"]["servers"].as_array().unwrap().len(), 3, "{services}");
    assert!(cache.setpoint.stop().await.success());
    assert_eq!(containers(&docker), Vec::<String>::new(), "nothing is left running, or at all");
}

fn containers(docker: &Docker) -> Vec<String> {
    docker.containers("setpoint.policy=memcached")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_on_a_swarm_of_two_nodes_grows_loses_one_and_goes() {
    let Some(swarm) = Swarm::start_new() else { return };
    let Some(image) = swarm.image("memcached") else { return };
    let scratch = Scratch::new();
    let mut cache = Cache::start(&scratch, &image, "swarm", &swarm.settings()).await;
    grows(&cache).await;
    is_throttled(&mut cache).await;
    let on_nodes: Vec<usize> = swarm.nodes().iter().map(|node| containers(&node.docker).len()).collect();
    assert!(on_nodes.iter().all(|n| 0 < *n), "both nodes have servers: {on_nodes:?}");
    loses_one(&mut cache, |_, container| {
        let there = swarm.nodes().into_iter().any(|node| node.docker.try_run(&["kill", container]).is_some());
        assert!(there, "no node has the container {container}");
    })
    .await;
    assert!(cache.setpoint.stop().await.success());
    assert_eq!(swarm.manager.docker.run(&["service", "ls", "--quiet"]), "");
    for node in swarm.nodes() {
        let left = node.docker.run(&["ps", "--quiet", "--filter", "label=setpoint.policy=memcached"]);
        assert_eq!(left, "", "nothing is left running on {}", node.address);
    }
}

/// The containers of our executor, on ports of the agents' offers.
#[cfg(feature = "mesos")]
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_on_mesos_grows_loses_one_and_goes() {
    let Some(engine) = OwnEngine::start_new(EngineOptions::default()) else { return };
    let Some(image) = engine.docker().image("memcached") else { return };
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let scratch = Scratch::new();
    let docker = engine.docker().clone();
    let settings =
        format!("[mesos]\nmaster = \"{}\"\n[mesos.executor]\ndocker_host = \"{}\"\n", cluster.list(), docker.host());
    let mut cache = Cache::start_with(&scratch, &image, "mesos", &settings, &["executor=setpoint"]).await;
    grows(&cache).await;
    is_throttled(&mut cache).await;
    loses_one(&mut cache, |id, _| {
        let found = docker.containers(&format!("setpoint.task={id}"));
        assert_eq!(found.len(), 1, "{id}: {found:?}");
        docker.run(&["kill", &found[0]]);
    })
    .await;
    assert!(cache.setpoint.stop().await.success());
    wait_until(GENEROUS, "no container is left", async || containers(&docker).is_empty().then_some(())).await;
}
