//! All of the bundled policies from one table: what each says of itself, how it does on two loads, and where it runs.
//!
//! What a policy does is shown elsewhere: by its spec, and by the tests of this module and its neighbours. Here it is
//! seen to that none of them is forgotten.

use serde_json::json;

use super::*;
use crate::gocd::server::{GoCd, Job, Version};
use crate::support::{Cluster, ClusterSpec, Docker, HttpServer, LABEL, tool};

/// A bundled policy.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// Where it says that it runs; `none` is where others run its tasks.
    backends: &'static [&'static str],
    /// Arguments of two simulations of an hour, or what it takes.
    loads: [&'static str; 2],
}

const STEADY: [&str; 2] = ["--mean-life 2m", "--fail-start 0.2 --mean-life 10m"];
const RATE: [&str; 2] = [
    "--load square --low 50 --high 500 --rate-per-task 100",
    "--load sine --low 100 --high 800 --rate-per-task 100 --noise 0.02",
];
const QUEUE: [&str; 2] = [
    "--load square --low 1 --high 30 --queue --rate-per-task 5",
    "--load spike --low 2 --high 60 --queue --rate-per-task 5",
];

/// All of them.
pub(super) const CATALOGUE: &[Entry] = &[
    Entry { name: "by-hour", backends: &["local"], loads: ["--for 24h", "--for 24h --mean-life 1h"] },
    Entry {
        name: "cpu",
        backends: &["local", "docker"],
        loads: [
            "--load square --low 40 --high 400 --rate-per-task 50 --start 1",
            "--set of=machine --load sine --low 10 --high 80",
        ],
    },
    Entry {
        name: "gocd",
        backends: &["local", "docker", "mesos"],
        loads: [
            "--load square --low 0 --high 4 --rate-per-task 1 --period 20m",
            "--load sine --low 0 --high 4 --rate-per-task 1 --period 1h --startup 30s",
        ],
    },
    Entry {
        name: "jobs",
        backends: &["local", "docker", "mesos"],
        loads: ["--lifetime 20s..40s", "--lifetime 10s..3m --fail-start 0.1 --set wait=0"],
    },
    Entry { name: "keep", backends: &["local", "docker", "swarm", "mesos"], loads: STEADY },
    Entry { name: "labelled", backends: &["docker", "swarm"], loads: RATE },
    Entry {
        name: "marathon",
        backends: &["none"],
        loads: [
            "--load square --low 5 --high 60 --rate-per-task 10 --period 20m",
            "--set of=average --load sine --low 20 --high 80 --rate-per-task 10",
        ],
    },
    Entry {
        name: "memcached",
        backends: &["docker", "swarm", "mesos", "local"],
        loads: [
            "--load ramp --low 20 --high 300 --period 50m --rate-per-task 64",
            "--load square --low 20 --high 200 --period 30m --rate-per-task 64",
        ],
    },
    Entry {
        name: "prometheus",
        backends: &["local", "docker", "mesos"],
        loads: [
            RATE[0],
            "--set of=average --set wait=1m --load sine --low 100 --high 800 --rate-per-task 120 --startup 10s",
        ],
    },
    Entry { name: "queue", backends: &["local"], loads: QUEUE },
    Entry { name: "spool", backends: &["local"], loads: QUEUE },
    Entry { name: "sqs", backends: &["local", "docker", "mesos"], loads: QUEUE },
    Entry {
        name: "thermostat",
        backends: &["local"],
        loads: ["--lifetime 5s..10s --for 5m", "--set shape=square --lifetime 5s..10s --for 5m --set law=relay"],
    },
    Entry {
        name: "webhook",
        backends: &["none"],
        loads: [
            "--load square --low 5 --high 60 --rate-per-task 10",
            "--set of=average --load sine --low 20 --high 80 --rate-per-task 10",
        ],
    },
];

/// Where a policy's source says that it runs: the comment on its parameter, or its workload.
fn claimed(name: &str) -> BTreeSet<String> {
    const BACKENDS: [&str; 5] = ["local", "docker", "swarm", "mesos", "none"];
    let source = std::fs::read_to_string(bundled(name)).unwrap();
    let words = |text: &str| {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| BACKENDS.contains(word));
        words.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    if let Some(parameter) = source.lines().find(|line| line.starts_with("  backend = \"")) {
        assert!(parameter.contains("-- "), "{name}: its parameter says which backends there are");
        return words(parameter);
    }
    // Those that have no choice name their backends as literals, or none of them, which is the local one.
    let literals: Vec<&str> = source.split("backend = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let found = words(&literals.join(" "));
    if found.is_empty() { words("local") } else { found }
}

#[tokio::test]
async fn the_table_has_every_bundled_policy_and_every_backend_that_it_claims() {
    let scratch = Scratch::new();
    let listed = Setpoint::output(&scratch, ["policies", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let names: Vec<_> = listed["policies"].as_array().unwrap().iter().map(|policy| &policy["name"]).collect();
    assert_eq!(names, CATALOGUE.iter().map(|entry| entry.name).collect::<Vec<_>>());
    for entry in CATALOGUE {
        let named: BTreeSet<String> = entry.backends.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(claimed(entry.name), named, "{}", entry.name);
    }
}

#[tokio::test]
async fn every_bundled_policy_is_simulated_on_two_loads() {
    let scratch = Scratch::new();
    let spec = bundled("labelled").with_file_name("labelled_test.lua").display().to_string();
    for entry in CATALOGUE {
        // A fleet's rows are those of the containers and services that its spec makes up.
        let (fakes, rows) = match entry.name {
            "labelled" => (vec!["--fakes", &spec], vec!["labelled/web", "labelled/cache", "labelled/api"]),
            name => (Vec::new(), vec![name]),
        };
        for load in entry.loads {
            let arguments = ["simulate", entry.name, "--json", "--seed", "7"];
            let arguments = arguments.into_iter().chain(fakes.iter().copied()).chain(load.split_whitespace());
            let done = Setpoint::output(&scratch, arguments).await;
            assert_eq!(done.code, Some(0), "{} {load}: {}", entry.name, done.stderr);
            let told: Value = serde_json::from_str(&done.stdout).unwrap();
            let reports = told["runs"].as_array().cloned().unwrap_or_else(|| vec![told]);
            assert_eq!(reports.iter().map(|report| &report["policy"]).collect::<Vec<_>>(), rows, "{load}");
            for report in reports {
                follows_its_load(entry.name, load, &report);
            }
        }
    }
}

/// What a simulation of a bundled policy must show.
fn follows_its_load(name: &str, load: &str, report: &Value) {
    let told = format!("{name} {load}: {report}");
    assert_eq!((&report["error"], &report["script_errors"]), (&Value::Null, &0.into()), "{told}");
    assert_eq!(report["ended"], Value::Null, "{told}");
    assert!(report["starts"].as_u64() > Some(0), "nothing was ever launched: {told}");
    // It follows the load: neither is all of it lost, nor is everything there all the time.
    assert!(report["lost_percent"].as_f64() < Some(40.0) || load.contains("machine"), "{told}");
    // Where the load goes down, so does what runs; a cache keeps what it has.
    if load.contains("--load") && name != "memcached" {
        assert!(report["stops"].as_u64() > Some(0), "nothing was ever taken in: {told}");
    }
}

#[tokio::test]
async fn their_own_metrics_are_simulated_with_the_fakes_of_their_specs() {
    let scratch = Scratch::new();
    for (name, load) in [("queue", QUEUE[0]), ("sqs", QUEUE[1]), ("prometheus", RATE[0])] {
        let spec = bundled(name).with_file_name(format!("{name}_test.lua")).display().to_string();
        let base = ["simulate", name, "--json", "--seed", "7"].into_iter().chain(load.split_whitespace());
        let base: Vec<&str> = base.collect();
        let made_up = Setpoint::output(&scratch, base.iter().copied()).await;
        let fakes = ["--fakes", &spec, "--own-metric"];
        let own = Setpoint::output(&scratch, base.iter().chain(&fakes).copied()).await;
        assert_eq!(own.code, Some(0), "{name}: {}", own.stderr);
        // What `simulate.metric` makes of the world, the metric makes of what stands for it outside.
        assert_eq!(own.stdout, made_up.stdout, "{name}");
        let report: Value = serde_json::from_str(&own.stdout).unwrap();
        assert!(report["changes"].as_u64() > Some(10), "{name}: {report}");
    }
}

/// What answers a policy's metric so that it wants two tasks, and then none: a Prometheus, and a queue of SQS.
async fn oracle(wanted: &Arc<StdMutex<u32>>) -> HttpServer {
    let wanted = Arc::clone(wanted);
    HttpServer::start(move |request| {
        let n = *wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if request.path.starts_with("/api/v1/query") {
            let value = json!({ "resultType": "scalar", "result": [1.0, (n * 100).to_string()] });
            return (200, json!({ "status": "success", "data": value }).to_string());
        }
        let asked = request.headers.get("x-amz-target").is_some_and(|target| target == "AmazonSQS.GetQueueAttributes");
        let signed = request.headers.get("authorization").is_some_and(|value| {
            value.to_str().is_ok_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential=AKIAKEY/"))
        });
        assert!(asked && signed, "{request:?}");
        let messages = (n * 10).to_string();
        let depth = json!({ "ApproximateNumberOfMessages": messages, "ApproximateNumberOfMessagesNotVisible": "0" });
        (200, json!({ "Attributes": depth }).to_string())
    })
    .await
}

/// An agent of GoCD's stand-in, for a shell with nothing but busybox.
const AGENT: &str = r#"base=${GO_SERVER_URL%/go}/agent/$GO_AGENT_UUID
call() { wget -q -O - --post-data=x "$base/$1"; }
trap 'call bye; exit 0' TERM
while :; do
  case $(call work) in
    *milliseconds*) sleep 1; call done ;;
    *) sleep 0.2 ;;
  esac
done"#;

/// Copies of those policies that run on a backend, with the words that a test's tasks have beside, and their settings.
struct Round<'a> {
    scratch: &'a Scratch,
    arguments: Vec<String>,
    names: Vec<&'static str>,
}

impl<'a> Round<'a> {
    /// Of every policy of these that claims the backend; `words` go into the workloads.
    fn new(scratch: &'a Scratch, backend: &str, names: &[&'static str], words: &str) -> Self {
        let mut round = Self { scratch, arguments: Vec::new(), names: Vec::new() };
        for &name in names {
            let entry = CATALOGUE.iter().find(|entry| entry.name == name).unwrap();
            assert!(entry.backends.contains(&backend), "{name} does not claim {backend}");
            let text = std::fs::read_to_string(bundled(name)).unwrap();
            let own = format!("    backend = p.backend,\n    {words}");
            assert!(text.contains("    backend = p.backend,\n"), "{name}");
            let file = round.scratch.policy(name, &text.replace("    backend = p.backend,\n", &own));
            round.arguments.push(file.display().to_string());
            round.names.push(name);
            round.set(name, &format!("backend={backend}"));
        }
        round
    }

    fn set(&mut self, name: &str, set: &str) {
        self.arguments.extend(["--set".to_owned(), format!("{name}.{set}")]);
    }

    /// Those that wait for something ask this server, and want two tasks of it.
    fn ask(&mut self, oracle: &HttpServer, gocd: &GoCd) {
        self.scratch.write("key", "AKIAKEY");
        let secrets = "[secrets]\naws_access_key = { file = \"key\" }\naws_secret_key = { file = \"key\" }\n";
        let config = self.scratch.path("setpoint.toml");
        let before = std::fs::read_to_string(&config).unwrap_or_default();
        self.scratch.write("setpoint.toml", &format!("{secrets}{before}"));
        let (url, queue) = (format!("url={}", oracle.url("")), format!("queue={}", oracle.url("/1/jobs")));
        let server = format!("server={}", gocd.url());
        for (name, sets) in [
            ("jobs", &["maxtasks=2", "wait=0", "cpu=0.05", "mem=16"][..]),
            ("keep", &["n=2", "cpus=0.05", "memory=16MiB", "backoff=100ms"][..]),
            ("prometheus", &["min=0", "interval=500ms", "wait=1s", "cpus=0.05", "memory=16MiB", &url][..]),
            ("sqs", &["interval=500ms", "wait=1s", "cpus=0.05", "memory=16MiB", "grace=2s", &queue][..]),
            ("gocd", &["poll=500ms", "poll_max=500ms", "cpus=0.05", "memory=32MiB", &server][..]),
        ] {
            for set in sets {
                self.set(name, set);
            }
        }
    }

    /// Runs them all: two tasks each, of which one dies where it is to be replaced; then none where nothing is wanted.
    async fn run(self, wanted: &StdMutex<u32>, gocd: &GoCd, kill: impl FnOnce(&Value)) {
        gocd.world().waiting = (0..2).map(|n| Job::new(format!("job-{n}"), Duration::from_secs(1))).collect();
        let mut setpoint = Setpoint::run(self.scratch, &self.arguments);
        for name in &self.names {
            // An agent may be done with its job, and gone, before the others have come.
            if *name != "gocd" {
                setpoint.running(name, 2).await;
            }
        }
        wait_until(GENEROUS, "the agents have done their jobs", async || (gocd.world().done.len() == 2).then_some(()))
            .await;
        let kept = async |setpoint: &mut Setpoint| {
            let tasks = setpoint.tasks().await;
            let kept = tasks.into_iter().filter(|task| task["policy"] == "keep" && task["state"] == "running");
            kept.map(|task| (task["id"].to_string(), task)).collect::<BTreeMap<_, _>>()
        };
        let before = kept(&mut setpoint).await;
        kill(before.values().next().unwrap());
        wait_until(GENEROUS, "the task that was killed is replaced", async || {
            let after = kept(&mut setpoint).await;
            (after.len() == 2 && after.keys().filter(|id| before.contains_key(*id)).count() == 1).then_some(())
        })
        .await;
        *wanted.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        for name in self.names.iter().filter(|name| !matches!(**name, "jobs" | "keep")) {
            let none = |policy: &Value| policy["tasks"]["running"] == 0 && policy["tasks"]["killing"] == 0;
            setpoint.policy_until(name, &format!("`{name}` has no task left"), none).await;
        }
        assert_eq!(gocd.world().murdered, Vec::<String>::new());
        assert!(setpoint.stop().await.success());
    }
}

/// Those that start something for themselves and have no test on Docker of their own.
#[tokio::test(flavor = "multi_thread")]
async fn they_run_on_docker() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let wanted = Arc::new(StdMutex::new(2));
    let (oracle, gocd) = (oracle(&wanted).await, GoCd::start(Version::V21).await);
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    scratch.write("setpoint.toml", &format!("[docker.engines.here]\nhost = \"{}\"\n", docker.host()));
    let words = format!("labels = {{ [\"{LABEL}\"] = \"{}\" }}, network = \"host\",\n", scratch.mark());
    let names = ["gocd", "jobs", "keep", "prometheus", "sqs"];
    let mut round = Round::new(&scratch, "docker", &names, &words);
    round.ask(&oracle, &gocd);
    let sleep = "exec sleep 600";
    for (name, set) in [
        ("gocd", format!("command={AGENT}")),
        ("jobs", format!("cmd={sleep}")),
        ("keep", format!("command={sleep}")),
        ("keep", "health=true".to_owned()),
        ("keep", "health_every=1s".to_owned()),
        ("prometheus", format!("command={sleep}")),
        ("sqs", format!("command={sleep}")),
    ] {
        round.set(name, &set);
    }
    for name in names {
        let set = if name == "jobs" { format!("img={image}") } else { format!("image={image}") };
        round.set(name, &set);
    }
    let kill = |task: &Value| {
        docker.run(&["kill", task["container"].as_str().unwrap()]);
    };
    round.run(&wanted, &gocd, kill).await;
    assert!(docker.of_test(&scratch).is_empty());
}

/// The same on a genuine Mesos, under our own executor.
#[cfg(feature = "mesos")]
#[tokio::test(flavor = "multi_thread")]
async fn they_run_on_mesos() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let wanted = Arc::new(StdMutex::new(2));
    let (oracle, gocd) = (oracle(&wanted).await, GoCd::start(Version::V16_1).await);
    let scratch = Scratch::new();
    scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let names = ["gocd", "jobs", "keep", "prometheus", "sqs"];
    let mut round = Round::new(&scratch, "mesos", &names, "");
    round.ask(&oracle, &gocd);
    // A time of its own tells the tasks of `keep` from all other processes.
    let seconds = 300_000 + std::process::id();
    round.set("keep", &format!("command=exec sleep {seconds}"));
    round.set("jobs", "cmd=exec sleep 600");
    round.set("gocd", &format!("command={}", crate::gocd::AGENT));
    round.set("gocd", "agent_key=the key");
    for name in names {
        round.set(name, "executor=setpoint");
    }
    let kill = |_: &Value| {
        let wanted = format!("sleep\0{seconds}\0");
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut sleepers = processes
            .filter(|process| std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
            .filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
        let pid = rustix::process::Pid::from_raw(sleepers.next().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    round.run(&wanted, &gocd, kill).await;
}

/// `memcached` without an engine: the servers that it starts are ones.
#[tokio::test]
async fn memcached_runs_locally() {
    let Some(program) = tool("memcached") else { return };
    let scratch = Scratch::new();
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(program.parent().unwrap());
    let mut command = crate::support::command(&scratch);
    command.args(["run", "memcached", "--listen", "127.0.0.1:0", "--set", "backend=local", "--set", "min=2"]);
    command.args(["--set", "interval=500ms"]).env("PATH", path);
    let mut setpoint = Setpoint::spawn(&scratch, command);
    setpoint.running("memcached", 2).await;
    for task in setpoint.tasks().await {
        let port = u16::try_from(task["ports"]["memcached"].as_u64().unwrap()).unwrap();
        let version = async || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(GENEROUS)).ok()?;
            stream.write_all(b"version\r\n").ok()?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).ok()?;
            (&answer == b"VERSION ").then_some(())
        };
        wait_until(GENEROUS, "the server answers", version).await;
    }
    setpoint.policy_until("memcached", "memory is measured", |policy| policy["sample"]["kind"] == "value").await;
    assert!(setpoint.stop().await.success());
    assert!(scratch.living_tasks().is_empty());
}
