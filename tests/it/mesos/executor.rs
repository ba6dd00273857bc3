//! `setpoint executor` on genuine agents: health by pages and ports, images, what is fetched, and an agent's death; both as the
//! executor of our own tasks and as the stand-in for the cluster's command and Docker executors.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use setpoint::mesos::Signal;
use setpoint::mesos::wire::scheduler::{Call, Event, Kill};
use setpoint::mesos::wire::{
    Bytes, CommandInfo, ContainerInfo, DockerInfo, ExecutorId, ExecutorInfo, Resource, TaskId, TaskInfo, TaskState,
};

use super::backend::on_master;
use super::client::Client;
use crate::support::{Cluster, ClusterSpec, Docker, GENEROUS, LABEL, Scratch, Setpoint, client, wait_until};

/// A policy that holds one task; `words` go into its workload.
fn holding(words: &str) -> String {
    format!(
        r#"return {{
  interval = "500ms",
  workload = {{ backend = "mesos", cpus = 0.05, memory = "32MiB", grace = "1s", min = 0, max = 5,
    {words} }},
  control = {{ law = "decide" }},
  decide = function() return {{ desired = 1 }} end,
  backoff = {{ min = "500ms", max = "1s" }},
}}"#
    )
}

/// Runs these policies.
fn run(scratch: &Scratch, cluster: &Cluster, policies: &[(&str, &str)]) -> Setpoint {
    let config = scratch.write("setpoint.toml", &format!("[mesos]\nmaster = \"{}\"\n", cluster.list()));
    let paths = policies.iter().map(|(name, words)| scratch.policy(name, &holding(words)).display().to_string());
    let arguments: Vec<String> =
        ["--config".to_owned(), config.display().to_string()].into_iter().chain(paths).collect();
    Setpoint::run(scratch, arguments)
}

/// The only task of a policy.
async fn task_of(setpoint: &mut Setpoint, policy: &str) -> Option<Value> {
    setpoint.tasks().await.into_iter().find(|task| task["policy"] == policy)
}

/// It runs and is not ready.
fn is_unready(policy: &Value) -> bool {
    policy["tasks"]["running"] == 1 && policy["tasks"]["in_flight"] == 1
}

/// A page and a port are the readiness of a command under either executor; ours ends nothing for it, the cluster's does.
#[tokio::test(flavor = "multi_thread")]
async fn pages_and_ports_are_health() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let scratch = Scratch::new();
    let folder = scratch.path("www");
    scratch.write("www/theirs", "");
    let fetched = scratch.write("fetched.txt", "fetched");
    // What is fetched is in the folder where the task starts.
    let serve = |when: &str| {
        let folder = folder.display();
        format!(
            r#"command = [==[while ! test -e fetched.txt || ! {when}; do sleep 0.1; done
exec python3 -m http.server --bind 127.0.0.1 --directory {folder} "$PORT_WEB"]==], ports = {{ "web" }}, ready = "healthy",
    mesos = {{ uris = {{ "{}" }} }}, "#,
            fetched.display()
        )
    };
    let times = r#"interval = "100ms", timeout = "10s", retries = 2"#;
    let page = |path: &str, start: &str| {
        format!(r#"health = {{ http = {{ port = "web", path = "/{path}" }}, {times}, start_period = "{start}" }}"#)
    };
    let ours = format!(r#"{}{}, executor = "setpoint""#, serve("true"), page("ours", "200ms"));
    let theirs = format!("{}{}", serve("true"), page("theirs", "50s"));
    let port = format!(
        r#"{}health = {{ tcp = "web", {times}, start_period = "200ms", delay = "300ms" }}, executor = "setpoint""#,
        serve(&format!("test -e {}/port", folder.display()))
    );
    let mut setpoint = run(&scratch, &cluster, &[("ours", &ours), ("theirs", &theirs), ("port", &port)]);

    setpoint.policy_until("ours", "one whose page is not there is not ready", is_unready).await;
    scratch.write("www/ours", "");
    setpoint.running("ours", 1).await;
    let task = task_of(&mut setpoint, "ours").await.unwrap();
    std::fs::remove_file(folder.join("ours")).unwrap();
    setpoint.policy_until("ours", "one whose page is gone is not ready", is_unready).await;
    scratch.write("www/ours", "");
    setpoint.running("ours", 1).await;
    assert_eq!(task_of(&mut setpoint, "ours").await.unwrap()["id"], task["id"], "nothing is ended for its health");

    setpoint.policy_until("port", "one that does not listen is not ready", is_unready).await;
    scratch.write("www/port", "");
    setpoint.running("port", 1).await;

    setpoint.running("theirs", 1).await;
    let task = task_of(&mut setpoint, "theirs").await.unwrap();
    std::fs::remove_file(folder.join("theirs")).unwrap();
    wait_until(GENEROUS, "the unhealthy one is ended and replaced", async || {
        let now = task_of(&mut setpoint, "theirs").await?;
        (now["id"] != task["id"]).then_some(())
    })
    .await;
    setpoint.logged("signal 15").await;
    scratch.write("www/theirs", "");
    setpoint.running("theirs", 1).await;
    assert!(setpoint.stop().await.success());
}

/// A container under either executor: reached by the offer's port, well by a page, measured, ended and removed.
#[tokio::test(flavor = "multi_thread")]
async fn images_run_under_our_executor_and_under_the_clusters() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let spec = ClusterSpec::default().agent("MESOS_CONTAINERIZERS", "docker,mesos");
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let fetched = scratch.write("fetched.txt", "fetched");
    let words = |executor: &str| {
        format!(
            r#"image = "{image}", init = true, mesos = {{ uris = {{ "{}" }} }}, env = {{ COLOUR = "red" }}, ports = {{ web = 8080 }}, ready = "healthy",
    command = 'mkdir /tmp/www && echo "$COLOUR $PORT_WEB $(cat "$MESOS_SANDBOX"/fetched.txt)" >/tmp/www/said && exec httpd -f -p "$PORT_WEB" -h /tmp/www',
    labels = {{ ["{LABEL}"] = "{}" }}, tmpfs = {{ "/quick:size=1m", "/tmp" }}, volumes = {{ "{}:/seen:ro" }}, {executor}
    health = {{ http = {{ port = "web", path = "/said" }}, interval = "200ms", timeout = "10s", start_period = "50s" }}"#,
            fetched.display(),
            scratch.mark(),
            scratch.mark(),
        )
    };
    let (ours, theirs) = (words(r#"executor = "setpoint","#), words(""));
    let mut setpoint = run(&scratch, &cluster, &[("ours", &ours), ("theirs", &theirs)]);
    for name in ["ours", "theirs"] {
        setpoint.running(name, 1).await;
        let task = task_of(&mut setpoint, name).await.unwrap();
        let port = u16::try_from(task["ports"]["web"].as_u64().unwrap()).unwrap();
        assert!(cluster.agents[0].ports().contains(&port), "a port of the offer: {task}");
        let page = client().get(format!("http://127.0.0.1:{port}/said")).send().await.unwrap().text().await.unwrap();
        assert_eq!(page, "red 8080 fetched\n");
        let container = of_task(&docker, &scratch, task["id"].as_str().unwrap()).unwrap();
        let host = &container["HostConfig"];
        assert_eq!((&host["Init"], &host["Memory"]), (&true.into(), &(32 << 20).into()), "{host}");
        assert_eq!((&host["Tmpfs"]["/quick"], &host["Tmpfs"]["/tmp"]), (&"size=1m".into(), &"".into()));
        assert!(host["Binds"].to_string().contains(&format!("{}:/seen:ro", scratch.mark())), "{host}");
        if name == "theirs" {
            // The agent knows its containers by their names, and measures them so.
            assert!(container["Name"].as_str().unwrap().starts_with("/mesos-"), "{container}");
        }
        wait_until(GENEROUS, "its figures", async || {
            let task = task_of(&mut setpoint, name).await?;
            (task["cpu_percent"].is_number() && task["memory_bytes"].as_u64()? > 0).then_some(())
        })
        .await;
    }
    assert!(is_watched(&cluster));
    for name in ["ours", "theirs"] {
        scratch.replace(&format!("{name}.lua"), &holding(&words("")).replace("desired = 1", "desired = 0"));
    }
    wait_until(GENEROUS, "no container is left", async || docker.of_test(&scratch).is_empty().then_some(())).await;
    assert!(setpoint.stop().await.success());
    // Who watched over our executor's is over once nothing more can turn up.
    wait_until(GENEROUS * 2, "no watcher is left", async || (!is_watched(&cluster)).then_some(())).await;
}

/// Whether a watcher of an executor is there.
fn is_watched(cluster: &Cluster) -> bool {
    cluster.folder().processes().iter().any(|process| process.command.contains("executor --watch"))
}

/// The container of a task.
fn of_task(docker: &Docker, scratch: &Scratch, task: &str) -> Option<Value> {
    let mut found = docker.of_test(scratch).into_iter().filter_map(|id| docker.inspect(&id));
    found.find(|container| container["Config"]["Labels"]["setpoint.task"] == task)
}

/// How containers end is told, under either executor: by themselves, for want of memory, or because they could not begin.
#[tokio::test(flavor = "multi_thread")]
async fn how_a_container_ended_is_told() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let spec = ClusterSpec::default().agent("MESOS_CONTAINERIZERS", "docker,mesos");
    let Some(cluster) = Cluster::start_new(spec).await else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let words = |image: &str, rest: &str| {
        format!(r#"image = "{image}", network = "none", labels = {{ ["{LABEL}"] = "{}" }}, {rest}"#, scratch.mark())
    };
    let ours = r#"executor = "setpoint", "#;
    let (code, fat) = (r#"command = "exit 3""#, r#"command = "exec dd if=/dev/zero of=/dev/null bs=256M count=1""#);
    let policies = [
        ("code-ours", words(&image, &format!("{ours}{code}"))),
        ("code-theirs", words(&image, code)),
        ("fat-ours", words(&image, &format!("{ours}{fat}"))),
        ("fat-theirs", words(&image, fat)),
        ("absent", words("127.0.0.1:9/absent:1", &format!("{ours}{code}"))),
    ];
    let policies: Vec<(&str, &str)> = policies.iter().map(|(name, words)| (*name, words.as_str())).collect();
    let mut setpoint = run(&scratch, &cluster, &policies);
    let expected = [
        ("code-ours", "exit code 3"),
        ("code-theirs", "exit code 3"),
        ("fat-ours", "out of memory"),
        ("fat-theirs", "out of memory"),
        ("absent", "cannot be pulled"),
    ];
    for (name, said) in expected {
        wait_until(GENEROUS, &format!("`{name}` says `{said}`"), async || {
            let log = setpoint.stderr();
            let told = |line: &&str| line.contains("task failed") && line.contains(name) && line.contains(said);
            log.lines().find(told).map(drop)
        })
        .await;
    }
    assert!(setpoint.stop().await.success());
    wait_until(GENEROUS, "no container is left", async || docker.of_test(&scratch).is_empty().then_some(())).await;
}

/// A command under an executor of ours.
fn under(executor: &str, line: &str) -> TaskInfo {
    let parts = TaskInfo { command: Some(CommandInfo::shell(line)), ..TaskInfo::default() };
    let program = vec![env!("CARGO_BIN_EXE_setpoint").to_owned(), "executor".to_owned()];
    TaskInfo {
        executor: Some(ExecutorInfo {
            executor_id: ExecutorId::new(executor),
            command: Some(CommandInfo::argv(program)),
            resources: vec![Resource::scalar("cpus", 0.01), Resource::scalar("mem", 32.0)],
            ..ExecutorInfo::default()
        }),
        data: Some(Bytes(serde_json::to_vec(&parts).unwrap())),
        ..TaskInfo::default()
    }
}

/// Images need an engine; where the agent names one that cannot be, its tasks say what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_an_engine_says_what_is_wrong() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let mut scheduler = Client::connect(&cluster.list());
    scheduler.subscribed().await;
    let docker = DockerInfo { image: "busybox".to_owned(), ..DockerInfo::default() };
    let container = ContainerInfo { docker: Some(docker), ..ContainerInfo::default() };
    let parts = TaskInfo { container: Some(container), ..TaskInfo::default() };
    let mut task = TaskInfo { data: Some(Bytes(serde_json::to_vec(&parts).unwrap())), ..under("blind", "") };
    let command = task.executor.as_mut().and_then(|executor| executor.command.as_mut()).unwrap();
    command.environment = Some([("DOCKER_HOST".to_owned(), "ftp://x".to_owned())].into_iter().collect());
    scheduler.launch_as("image", task).await;
    let status = scheduler.status("image", TaskState::Failed).await;
    let expected =
        "no container engine was given to this executor: the container engine `default`: expected `unix:///path`";
    assert!(status.message.as_ref().is_some_and(|message| message.contains(expected)), "{status:?}");
    scheduler.scheduler.call(&Call::Teardown).await.unwrap();
}

/// An agent whose state was removed does not know the executors of the one before it, and nobody will ever ask for their tasks.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_its_agent_does_not_know_ends_at_once() {
    let Some(mut cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let mut scheduler = Client::connect(&cluster.list());
    scheduler.subscribed().await;
    scheduler.launch_as("orphan", under("forgotten", "exec sleep 1000")).await;
    scheduler.status("orphan", TaskState::Running).await;
    let lives = |cluster: &Cluster| cluster.folder().living_tasks().contains("orphan");
    assert!(lives(&cluster));
    cluster.agents[0].server.kill();
    cluster.agents[0].renew();
    assert!(lives(&cluster), "it outlives its agent");
    cluster.agents[0].server.start();
    // It would wait for its agent for a quarter of an hour.
    wait_until(GENEROUS, "the task has ended", async || (!lives(&cluster)).then_some(())).await;
    scheduler.scheduler.call(&Call::Teardown).await.unwrap();
}

fn until(file: &Path) -> String {
    format!("while ! test -e {}; do sleep 0.1; done", file.display())
}

/// What happens while an agent is away is told once it is back, and for longer than its recovery timeout nobody waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_outlives_its_agent_for_as_long_as_it_was_told() {
    let Some(mut cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let scratch = Scratch::new();
    let end = scratch.path("end");
    let mut scheduler = Client::connect(&cluster.list());
    let framework = scheduler.subscribed().await.framework_id;
    let living = |cluster: &Cluster| -> BTreeSet<String> { cluster.folder().living_tasks() };
    scheduler.launch_as("stays", under("patient", "exec sleep 1000")).await;
    scheduler.launch_as("ends", under("patient", &until(&end))).await;
    scheduler.status("ends", TaskState::Running).await;

    cluster.agents[0].server.kill();
    scratch.write("end", "");
    wait_until(GENEROUS, "the task has ended", async || (!living(&cluster).contains("ends")).then_some(())).await;
    // Executors that it starts from now on wait for it no longer than this.
    cluster.agents[0].server.set("MESOS_RECOVERY_TIMEOUT", "3secs");
    cluster.agents[0].server.start();
    scheduler.status("ends", TaskState::Finished).await;
    assert_eq!(cluster.tasks(framework.as_str(), "TASK_RUNNING").await.unwrap(), ["stays"]);

    scheduler.launch_as("hasty", under("impatient", "exec sleep 1000")).await;
    scheduler.status("hasty", TaskState::Running).await;
    cluster.agents[0].server.kill();
    wait_until(GENEROUS, "the task of the impatient one has ended", async || {
        (!living(&cluster).contains("hasty")).then_some(())
    })
    .await;
    assert!(living(&cluster).contains("stays"), "the other one waits on");
    cluster.agents[0].server.start();
    wait_until(GENEROUS, "the master knows of the end", async || {
        let (_, running, _) = on_master(&cluster).await?;
        (running.len() == 1 && running.contains("stays")).then_some(())
    })
    .await;
    let kill = Kill { task_id: TaskId::new("stays"), agent_id: None, kill_policy: None };
    scheduler.scheduler.call(&Call::Kill(kill)).await.unwrap();
    let next = scheduler
        .wait("the end of the task", |signal| match signal {
            Signal::Event(Event::Update(status)) if status.task_id.as_str() == "stays" => Some(status.state),
            _ => None,
        })
        .await;
    assert_eq!(next, TaskState::Killed, "this framework did not ask to hear of KILLING");
    scheduler.scheduler.call(&Call::Teardown).await.unwrap();
}
