//! `cpu` and `labelled` on real containers under a load of real requests.
//!
//! Machines that run tests are shared, and what a request costs there changes from one second to the next. So each
//! container is to have 8 percent of a core, which a busy machine still gives, and the load is none or far more than
//! one container may have. With `SETPOINT_CPU_TARGET` the containers are to have so many percent, from a load that takes
//! just that much: `tests/campaign cpu` asks for 50, one test at a time, and wants a quiet machine.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};

use setpoint::container::{Address, Engine, EngineConfig};

use super::*;
use crate::support::{Docker, LABEL, client};

/// What a request costs: a little CPU in the container that answers it.
const BURN: &str =
    "#!/bin/sh\ni=0; while [ $i -lt 3000 ]; do i=$((i+1)); done\nprintf 'Content-Type: text/plain\\r\\n\\r\\nok\\n'\n";
pub(super) const SERVER: &[&str] = &["httpd", "-f", "-p", "8080", "-h", "/www"];

/// How long a policy may take to follow a change of load.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// Percent of a core that each container is to have.
pub(super) fn target() -> f64 {
    setting("SETPOINT_CPU_TARGET", 8) as f64
}

/// Whether the target has to be met exactly, see above.
pub(super) fn exact() -> bool {
    std::env::var_os("SETPOINT_CPU_TARGET").is_some()
}

/// The rate for which so many servers are needed; at `least`, there may be no load either.
pub(super) fn rate(count: usize, least: usize, cost: f64) -> f64 {
    let factor = match (exact(), count == least) {
        (true, _) => 1.0,
        (false, true) => 0.0,
        (false, false) => 4.0,
    };
    factor * target() / 100.0 * count as f64 / cost
}

/// The folder that servers serve.
pub(super) fn site(scratch: &Scratch) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let script = scratch.write("www/cgi-bin/burn", BURN);
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/www:ro", scratch.path("www").display())
}

/// Requests at a rate, each to the next of the servers, as a load balancer would.
pub(super) struct Load {
    servers: Arc<StdMutex<Vec<u16>>>,
    /// Requests in 1000 s.
    rate: Arc<AtomicU64>,
    worker: JoinHandle<()>,
}

impl Load {
    pub(super) fn new() -> Self {
        let (servers, rate) = (Arc::new(StdMutex::new(Vec::<u16>::new())), Arc::new(AtomicU64::new(0)));
        let (all, each, client) = (Arc::clone(&servers), Arc::clone(&rate), client());
        let worker = tokio::spawn(async move {
            let (mut next, room) = (0_usize, Arc::new(tokio::sync::Semaphore::new(8)));
            let mut due = tokio::time::Instant::now();
            loop {
                let rate = each.load(Ordering::Relaxed);
                let pause =
                    if rate == 0 { Duration::from_millis(50) } else { Duration::from_secs_f64(1e3 / rate as f64) };
                // What a sleep takes too long does not lower the rate; what was missed for longer is left out.
                due = (due + pause).max(tokio::time::Instant::now() - Duration::from_millis(200));
                tokio::time::sleep_until(due).await;
                let port = {
                    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    if rate == 0 || all.is_empty() { None } else { Some(all[next % all.len()]) }
                };
                // A server that is behind gets no more than it can hold.
                let (Some(port), Ok(permit)) = (port, Arc::clone(&room).try_acquire_owned()) else { continue };
                next += 1;
                let request = client.get(format!("http://127.0.0.1:{port}/cgi-bin/burn"));
                tokio::spawn(async move {
                    request.send().await.ok();
                    drop(permit);
                });
            }
        });
        Self { servers, rate, worker }
    }

    pub(super) fn set_servers(&self, ports: Vec<u16>) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = ports;
    }

    pub(super) fn set_rate(&self, per_second: f64) {
        self.rate.store((per_second * 1e3) as u64, Ordering::Relaxed);
    }

    /// Brings the rate nearer to one whose requests take `wanted` percent of a core, now that they take `used`. What a request
    /// costs changes with all else that the machine does, the other servers first of all.
    fn steer(&self, wanted: f64, used: f64) {
        let rate = self.rate.load(Ordering::Relaxed) as f64;
        let factor = (wanted / used.max(1.0)).clamp(0.5, 2.0).powf(0.3);
        self.rate.store((rate * factor).clamp(1e3, 1e6) as u64, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// CPU time that one request costs a container, in seconds.
pub(super) async fn cost(docker: &Docker, container: &str, port: u16) -> f64 {
    let engine = Engine::new(EngineConfig::new("main", Address::parse(docker.host(), false).unwrap()));
    let used = async || {
        let answer = engine.counters(container).await.unwrap();
        answer.cpu_stats.unwrap().cpu_usage.unwrap().total_usage as f64 / 1e9
    };
    let (client, requests) = (client(), 40);
    let url = format!("http://127.0.0.1:{port}/cgi-bin/burn");
    let get = async || client.get(&url).send().await.ok().filter(|answer| answer.status().is_success());
    wait_until(GENEROUS, "the server answers", get).await;
    let before = used().await;
    for _ in 0..requests {
        get().await.expect("the server answers");
    }
    (used().await - before) / f64::from(requests)
}

/// The ports on which a policy's running tasks serve.
async fn ports(setpoint: &mut Setpoint, policy: &str, name: &str) -> Vec<u16> {
    let tasks = setpoint.tasks().await;
    let running = tasks.iter().filter(|task| task["policy"] == policy && task["state"] == "running");
    running.filter_map(|task| u16::try_from(task["ports"][name].as_u64()?).ok()).collect()
}

/// Waits until `count` tasks run and, if it has to be [`exact`], the samples of some ticks in a row are near the target on
/// average. Meanwhile the load goes to all that run, and all together is what `count` and the others are to have.
pub(super) async fn held(
    setpoint: &mut Setpoint,
    load: &Load,
    policy: &str,
    port: &str,
    others: &[u16],
    count: usize,
) -> f64 {
    const WINDOW: usize = 12;
    /// The policy's own tolerance.
    const TOLERANCE: f64 = 0.2;
    let mut samples = VecDeque::new();
    let mut last_tick = 0;
    wait_until(PATIENCE, &format!("`{policy}` holds {} % with {count} tasks", target()), async || {
        let mut servers = ports(setpoint, policy, port).await;
        let own = servers.len();
        servers.extend(others);
        let all = servers.len();
        load.set_servers(servers);
        let state = setpoint.policy(policy).await?;
        let tick = state["ticks"].as_u64()?;
        if tick == last_tick {
            return None;
        }
        last_tick = tick;
        if let (true, Some(value)) = (exact(), state["sample"]["value"].as_f64()) {
            load.steer(target() * (count + others.len()) as f64, value * all as f64);
        }
        match (own == count, state["sample"]["value"].as_f64()) {
            (true, Some(value)) => samples.push_back(value),
            _ => samples.clear(),
        }
        if samples.len() > WINDOW {
            samples.pop_front();
        }
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        let near = (mean - target()).abs() <= TOLERANCE * target();
        (samples.len() == WINDOW && (near || !exact())).then_some(mean)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_holds_what_containers_use_under_a_changing_load() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    scratch.write("setpoint.toml", &format!("[docker.engines.here]\nhost = \"{}\"\n", docker.host()));
    // What somebody who uses the policy adds to its workload.
    let own = format!(
        "local workload = {{\n  labels = {{ [\"{LABEL}\"] = \"{}\" }}, volumes = {{ \"{}\" }}, ports = {{ http = 8080 }}, \
         grace = \"1s\",",
        scratch.mark(),
        site(&scratch)
    );
    let text = std::fs::read_to_string(bundled("cpu")).unwrap();
    assert!(text.contains("local workload = {"));
    scratch.policy("cpu", &text.replace("local workload = {", &own));
    let sets = [
        "backend=docker".to_owned(),
        format!("image={image}"),
        format!("command=exec {}", SERVER.join(" ")),
        format!("target={}", target()),
        format!("tolerance={}", target() / 5.0),
        "min=1".to_owned(),
        format!("max={}", if exact() { 10 } else { 2 }),
        "interval=1s".to_owned(),
        "wait=5s".to_owned(),
        "settle=4".to_owned(),
    ];
    let mut arguments = vec!["cpu.lua"];
    for set in &sets {
        arguments.extend(["--set", set]);
    }
    let mut setpoint = Setpoint::run(&scratch, arguments);
    setpoint.running("cpu", 1).await;
    let first = setpoint.tasks().await.remove(0);
    let port = u16::try_from(first["ports"]["http"].as_u64().unwrap()).unwrap();
    let cost = cost(&docker, first["container"].as_str().unwrap(), port).await;
    eprintln!("cpu: a request costs {:.1} ms", cost * 1e3);

    let load = Load::new();
    for count in if exact() { vec![1, 2, 3, 1] } else { vec![1, 2, 1] } {
        load.set_rate(rate(count, 1, cost));
        let began = Instant::now();
        let mean = held(&mut setpoint, &load, "cpu", "http", &[], count).await;
        let took = began.elapsed().as_secs();
        eprintln!("cpu: {count} × {} % of load: {count} tasks at {mean:.1} % after {took} s", target());
    }
    assert!(setpoint.stop().await.success());
    assert!(docker.of_test(&scratch).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn labelled_scales_groups_as_they_come_and_go() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    scratch.write("setpoint.toml", &format!("[docker.engines.here]\nhost = \"{}\"\n", docker.host()));
    let site = site(&scratch);
    let mark = format!("{LABEL}={}", scratch.mark());
    let max = if exact() { "setpoint.max=3" } else { "setpoint.max=2" };
    let target_label = format!("setpoint.target={}", target());
    let tolerance = format!("setpoint.tolerance={}", target() / 5.0);
    let start = |arguments: &[&str]| {
        let head = ["run", "--detach", "--publish", "127.0.0.1::8080", "--volume", &site, "--env", "COLOUR=red"];
        let labels = ["setpoint.metric=cpu", max, &mark, &target_label, &tolerance];
        let labels = labels.into_iter().flat_map(|label| ["--label", label]);
        let all = head.into_iter().chain(labels).chain(arguments.iter().copied()).chain([image.as_str()]);
        docker.run(&all.chain(SERVER.iter().copied()).collect::<Vec<_>>())
    };
    let published = |id: &str| -> u16 {
        let text = docker.run(&["port", id, "8080/tcp"]);
        text.lines().next().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
    };
    let (group, single) = (format!("web-{}", std::process::id()), format!("api-{}", std::process::id()));
    let label = format!("setpoint.group={group}");
    let original = start(&["--label", &label, "--memory", "64m"]);
    let sets = ["every=500ms", "interval=1s", "wait=5s", "settle=4", "engine=here"];
    let mut arguments = vec!["labelled".to_owned()];
    for set in sets {
        arguments.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    let mut setpoint = Setpoint::run(&scratch, arguments);
    let row = format!("labelled/{group}");
    setpoint.policy_until(&row, "the group has a policy", |_| true).await;

    // One server's load, then two servers', and back.
    let port = published(&original);
    let cost = cost(&docker, &original, port).await;
    let load = Load::new();
    for clones in [0, 1, 0, 1] {
        load.set_rate(rate(clones + 1, 1, cost));
        let began = Instant::now();
        let mean = held(&mut setpoint, &load, &row, "tcp8080", &[port], clones).await;
        eprintln!("labelled: {clones} clones hold {mean:.1} % after {} s", began.elapsed().as_secs());
    }
    // A clone is like the original.
    let tasks = setpoint.tasks().await;
    let clone = docker.inspect(tasks[0]["container"].as_str().unwrap()).unwrap();
    let first = docker.inspect(&original).unwrap();
    assert_eq!(clone["Config"]["Image"], first["Config"]["Image"]);
    assert_eq!(clone["Config"]["Cmd"], first["Config"]["Cmd"]);
    assert_eq!(
        (&clone["HostConfig"]["Memory"], &clone["HostConfig"]["Binds"]),
        (&(64 << 20).into(), &first["HostConfig"]["Binds"])
    );
    assert!(clone["Config"]["Env"].as_array().unwrap().iter().any(|pair| pair == "COLOUR=red"));
    assert_eq!(clone["Config"]["Labels"]["setpoint.group"], group.as_str());

    // Another group comes, by its container's name; the first one goes, and its clone with it.
    start(&["--name", &single]);
    setpoint.policy_until(&format!("labelled/{single}"), "the other group has a policy", |_| true).await;
    load.set_rate(0.0);
    docker.run(&["rm", "--force", &original]);
    wait_until(PATIENCE, "the first group is gone with its clones", async || {
        let gone = setpoint.policy(&row).await.is_none_or(|policy| policy["ended"]["by"] == "gone");
        (gone && setpoint.tasks().await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(docker.of_test(&scratch).len(), 1, "only the other group's own container is left");
    assert!(setpoint.policy(&format!("labelled/{single}")).await.is_some());
    assert!(setpoint.stop().await.success());
    assert_eq!(docker.of_test(&scratch).len(), 1);
}
