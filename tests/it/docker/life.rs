//! A container's life under a policy: from launch to removal, and over a restart of setpoint.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use super::{configure, holding, tasks_of};
use crate::support::{Docker, GENEROUS, Scratch, Setpoint, wait_until};

#[tokio::test]
async fn containers_come_and_go_with_the_policy() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("memcached") else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("here", docker.host())]);
    let words = r#"ports = { cache = 11211 }, memory = "32MiB", cpus = 0.5, pids = 50, env = { COLOUR = "red" }"#;
    scratch.policy("caches", &holding(&scratch, &image, words));
    let mut setpoint = Setpoint::run(&scratch, ["caches.lua"]);
    scratch.write("n", "2");
    setpoint.running("caches", 2).await;

    let tasks = setpoint.tasks().await;
    let names: Vec<&str> = tasks.iter().filter_map(|task| task["id"].as_str()).collect();
    assert_eq!(tasks_of(&docker, &scratch), names);
    for task in &tasks {
        let container = docker.inspect(task["container"].as_str().unwrap()).unwrap();
        assert_eq!(container["Name"], format!("/{}", task["id"].as_str().unwrap()));
        let limits = &container["HostConfig"];
        assert_eq!((&limits["Memory"], &limits["NanoCpus"]), (&(32 << 20).into(), &500_000_000.into()));
        assert_eq!((&limits["PidsLimit"], &limits["MemorySwap"]), (&50.into(), &(32 << 20).into()));
        let env: Vec<String> = serde_json::from_value(container["Config"]["Env"].clone()).unwrap();
        for variable in ["COLOUR=red", "PORT_CACHE=11211", "SETPOINT_POLICY=caches"] {
            assert!(env.iter().any(|found| found == variable), "{env:?}");
        }
        let port = task["ports"]["cache"].as_u64().unwrap() as u16;
        assert!(says(port, "version\r\n").starts_with("VERSION"), "memcached answers where the API says");
    }

    // One removed by hand is replaced.
    docker.run(&["rm", "--force", tasks[0]["container"].as_str().unwrap()]);
    wait_until(GENEROUS, "the removed container is replaced", async || {
        let now = tasks_of(&docker, &scratch);
        (now.len() == 2 && !now.contains(&names[0].to_owned())).then_some(())
    })
    .await;
    setpoint.running("caches", 2).await;

    // Scaling in removes one, and the end of a run without a state folder all.
    scratch.write("n", "1");
    wait_until(GENEROUS, "one is removed", async || (tasks_of(&docker, &scratch).len() == 1).then_some(())).await;
    assert!(setpoint.stop().await.success());
    assert_eq!(tasks_of(&docker, &scratch), [""; 0]);
}

/// What a server on a published port says to one line.
fn says(port: u16, line: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(GENEROUS)).unwrap();
    connection.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn the_words_of_a_container_reach_the_engine() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("here", docker.host())]);
    scratch.write("shared/greeting", "hello");
    let fixed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let words = format!(
        r#"
        entrypoint = {{ "sh", "-c" }}, command = {{ "httpd -p $PORT_WEB -h /shared && touch /quick/ok && sleep 3600" }},
        user = "65534:65534", cwd = "/tmp", volumes = {{ "./shared:/shared:ro" }}, tmpfs = {{ "/quick:size=1m,mode=1777" }},
        init = true, network = "bridge", pids = 20, privileged = false,
        ports = {{
          web = {{ outside = "{fixed}-{fixed}" }}, extra = {{ inside = 9000, protocol = "udp" }}, last = {{ outside = "42000-42900" }},
        }},
        health = {{ command = "test -e /quick/ok", interval = "100ms", timeout = "5s", retries = 2, start_period = "1s" }},
        ready = "healthy","#
    );
    scratch.policy("words", &holding(&scratch, &image, &words));
    let mut setpoint = Setpoint::run(&scratch, ["words.lua"]);
    scratch.write("n", "1");
    setpoint.running("words", 1).await;
    let task = setpoint.tasks().await.remove(0);
    let container = docker.inspect(task["container"].as_str().unwrap()).unwrap();
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"65534:65534".into(), &"/tmp".into()));
    assert_eq!((&host["Init"], &host["PidsLimit"]), (&true.into(), &20.into()));
    assert_eq!(host["Tmpfs"]["/quick"], "size=1m,mode=1777");
    assert_eq!(host["Binds"][0], format!("{}:/shared:ro", scratch.path("shared").display()));
    assert_eq!(container["State"]["Health"]["Status"], "healthy");
    assert_eq!(task["ports"]["web"], fixed);
    assert!((42000..=42900).contains(&task["ports"]["last"].as_u64().unwrap()), "{task}");
    let udp = container["NetworkSettings"]["Ports"]["9000/udp"][0]["HostPort"].as_str().unwrap();
    assert_eq!(task["ports"]["extra"].to_string(), udp);
    let page = reqwest::Client::builder().no_proxy().build().unwrap();
    let page = page.get(format!("http://127.0.0.1:{fixed}/greeting")).send().await.unwrap().text().await.unwrap();
    assert_eq!(page, "hello");

    // Its health is its readiness, both ways.
    let of = |words: &[&str]| docker.run(&[&["exec", task["id"].as_str().unwrap()], words].concat());
    of(&["rm", "/quick/ok"]);
    setpoint.policy_until("words", "the unhealthy one is not ready", |policy| policy["tasks"]["in_flight"] == 1).await;
    of(&["touch", "/quick/ok"]);
    setpoint.running("words", 1).await;
}

#[tokio::test]
async fn figures_of_containers_are_shown() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("here", docker.host())]);
    let words = r#"command = "while true; do :; done", cpus = 0.2, memory = "16MiB""#;
    scratch.policy("busy", &holding(&scratch, &image, words));
    let mut setpoint = Setpoint::run(&scratch, ["busy.lua"]);
    scratch.write("n", "1");
    wait_until(GENEROUS, "its CPU and memory are known", async || {
        let task = setpoint.tasks().await.pop()?;
        let (cpu, memory) = (task["cpu_percent"].as_f64()?, task["memory_bytes"].as_u64()?);
        (1.0 < cpu && cpu < 60.0 && 0 < memory && memory < 16 << 20).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_run_without_state_that_is_killed_leaves_nothing_for_long() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let (_sweep, _other_sweep) = (docker.sweep(&scratch), docker.sweep(&other));
    let words = r#"command = { "sleep", "3600" }, init = true,"#;
    for scratch in [&scratch, &other] {
        configure(scratch, &[("here", docker.host())]);
        scratch.policy("sleepers", &holding(scratch, &image, words));
        scratch.write("n", "2");
    }
    let mut killed = Setpoint::run(&scratch, ["sleepers.lua"]);
    let mut living = Setpoint::run(&other, ["sleepers.lua"]);
    killed.running("sleepers", 2).await;
    living.running("sleepers", 2).await;
    let left = docker.of_test(&scratch);
    killed.kill();
    // Whatever the next run is about, it clears away what no living run answers for, and nothing else.
    let mut next = Setpoint::run(&scratch, ["sleepers.lua"]);
    next.running("sleepers", 2).await;
    wait_until(GENEROUS, "what the killed run left is removed", async || {
        docker.of_test(&scratch).iter().all(|id| !left.contains(id)).then_some(())
    })
    .await;
    assert_eq!(docker.of_test(&scratch).len(), 2);
    assert_eq!(docker.of_test(&other).len(), 2, "another run's are left alone");
    assert!(next.stop().await.success());
    assert!(living.stop().await.success());
}

#[tokio::test]
async fn a_run_on_the_same_folder_adopts_what_went_on_meanwhile() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("here", docker.host())]);
    let words = r#"command = { "sleep", "3600" }, init = true, ports = { a = 80 }"#;
    scratch.policy("sleepers", &holding(&scratch, &image, words));
    scratch.write("n", "3");
    let mut setpoint = Setpoint::run(&scratch, ["sleepers.lua", "--state-dir", "state"]);
    setpoint.running("sleepers", 3).await;
    let before = setpoint.tasks().await;
    assert!(setpoint.stop().await.success());
    // One ends meanwhile, and a container turns up that carries the folder's mark and is no task's.
    docker.run(&["kill", before[0]["id"].as_str().unwrap()]);
    let owner =
        docker.inspect(before[1]["id"].as_str().unwrap()).unwrap()["Config"]["Labels"]["setpoint.owner"].clone();
    let stray = docker.run(&[
        "run",
        "--detach",
        "--init",
        "--label",
        &format!("setpoint.owner={}", owner.as_str().unwrap()),
        "--label",
        "setpoint.task=stray.1",
        &image,
        "sleep",
        "3600",
    ]);

    let mut setpoint = Setpoint::run(&scratch, ["sleepers.lua", "--state-dir", "state", "--stop-tasks"]);
    setpoint.running("sleepers", 3).await;
    let after = wait_until(GENEROUS, "the ended one is replaced", async || {
        let tasks = setpoint.tasks().await;
        (tasks.len() == 3 && tasks.iter().all(|task| task["id"] != before[0]["id"])).then_some(tasks)
    })
    .await;
    for task in &before[1..] {
        let same = after.iter().find(|other| other["id"] == task["id"]).unwrap();
        assert_eq!((&same["container"], &same["ports"]), (&task["container"], &task["ports"]), "adopted as it was");
    }
    wait_until(GENEROUS, "the stray is removed", async || docker.inspect(&stray).is_none().then_some(())).await;
    assert!(setpoint.stop().await.success());
    assert_eq!(docker.of_test(&scratch), [""; 0]);
}
