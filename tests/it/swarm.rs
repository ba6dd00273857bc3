//! The swarm backend on a genuine Swarm of two nodes: services of its own, and services that are lent to it.

use serde_json::Value;

use crate::support::{GENEROUS, Scratch, Setpoint, Swarm, wait_until};

/// A policy that holds `n` tasks; `words` go into the workload.
fn holding(n: u32, words: &str) -> String {
    format!(
        r#"return {{ interval = "200ms", control = {{ law = "count", n = {n} }},
            workload = {{ backend = "swarm", min = 0, max = 9, {words} }} }}"#
    )
}

/// A service as its manager has it, without the number of its tasks.
fn specification(swarm: &Swarm, name: &str) -> Value {
    let text = swarm.manager.docker.run(&["service", "inspect", name, "--format", "{{json .Spec}}"]);
    let mut spec: Value = serde_json::from_str(&text).unwrap();
    spec.as_object_mut().unwrap().remove("Mode");
    spec
}

fn replicas(swarm: &Swarm, name: &str) -> String {
    swarm.manager.docker.run(&["service", "inspect", name, "--format", "{{.Spec.Mode.Replicated.Replicas}}"])
}

fn tasks_of(swarm: &Swarm, name: &str) -> Vec<String> {
    let listed = swarm.manager.docker.run(&[
        "service",
        "ps",
        name,
        "--no-trunc",
        "--filter",
        "desired-state=running",
        "--format",
        "{{.ID}}",
    ]);
    let mut ids: Vec<String> = listed.lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

/// A service with much that setpoint knows nothing of.
fn create_lent(swarm: &Swarm, image: &str) {
    let arguments = "service create --detach --no-resolve-image --name web --label setpoint.policy=lent --label team=blue \
        --replicas 2 --init --env A={{.Node.Hostname}} --container-label x=y --limit-memory 64m --reserve-memory 8m \
        --mount type=tmpfs,destination=/scratch,tmpfs-size=1000000 --constraint node.role==manager --hostname h-{{.Task.Slot}} \
        --update-delay 4s --update-parallelism 1 --update-failure-action pause --rollback-monitor 7s \
        --restart-condition on-failure --restart-delay 3s --stop-grace-period 2s --log-driver json-file --cap-drop CHOWN \
        --publish mode=host,target=8080 --ulimit nofile=100 --dns 127.0.0.1 --host me:127.0.0.1 --user nobody --read-only";
    let arguments: Vec<&str> = arguments.split_whitespace().chain([image, "sleep", "600"]).collect();
    swarm.manager.docker.run(&arguments);
}

async fn until_steady(swarm: &Swarm, name: &str, n: usize) -> Vec<String> {
    wait_until(GENEROUS, &format!("{n} tasks of {name} run"), async || {
        let listed =
            swarm.manager.docker.run(&["service", "ps", name, "--format", "{{.DesiredState}} {{.CurrentState}}"]);
        let running = listed.lines().filter(|line| line.starts_with("Running Running")).count();
        (running == n).then(|| tasks_of(swarm, name))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn lent_services_are_scaled_and_nothing_else_and_own_ones_outlive_a_crash() {
    let Some(swarm) = Swarm::start_new() else { return };
    let Some(image) = swarm.image("busybox") else { return };
    let scratch = Scratch::new();
    std::fs::write(scratch.path("setpoint.toml"), swarm.settings()).unwrap();
    create_lent(&swarm, &image);
    let docker = &swarm.manager.docker;
    docker.run(&[
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "taken",
        "--label",
        "setpoint.policy=foreign",
        "--label",
        "setpoint.owner=somebody",
        "--replicas",
        "0",
        &image,
    ]);
    let before = until_steady(&swarm, "web", 2).await;
    let specified = specification(&swarm, "web");

    let own_words = format!(r#"image = "{image}", command = {{ "sleep", "600" }}, init = true, grace = "2s""#);
    scratch.policy("lent", &holding(3, r#"service = "web""#));
    scratch.policy("foreign", &holding(1, &own_words));
    scratch.policy("own", &holding(2, &own_words));
    let run = ["lent.lua", "foreign.lua", "own.lua", "--state-dir", "state", "--stop-tasks"];
    let mut setpoint = Setpoint::run(&scratch, run);
    setpoint.running("lent", 3).await;
    let after = until_steady(&swarm, "web", 3).await;
    assert!(before.iter().all(|id| after.contains(id)), "{before:?} go on beside a third: {after:?}");
    assert_eq!(specification(&swarm, "web"), specified, "nothing but the number has changed");
    let shown: Vec<String> = {
        let tasks = setpoint.tasks().await;
        let ours = tasks.iter().filter(|task| task["policy"] == "lent");
        let mut ids: Vec<String> = ours.map(|task| task["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(shown, after, "tasks go by Swarm's own names");
    wait_until(GENEROUS, "the other host's service to be refused", async || {
        let (_, health) = setpoint.get("/readyz").await;
        health.to_string().contains("belongs to another setpoint").then_some(())
    })
    .await;
    assert_eq!(replicas(&swarm, "taken"), "0");

    // While somebody rolls an update out, the number waits for its end.
    docker.run(&["service", "update", "--detach", "--no-resolve-image", "--env-add", "B=c", "web"]);
    scratch.replace("lent.lua", &holding(4, r#"service = "web""#));
    setpoint
        .policy_until("lent", "the update holds the number", |policy| {
            policy["decision"]["reasons"].to_string().contains("an update of the service `web` is in progress")
        })
        .await;
    assert_eq!(replicas(&swarm, "web"), "3");
    setpoint.running("lent", 4).await;
    let environment_of = |id: &String| docker.run(&["inspect", id, "--format", "{{json .Spec.ContainerSpec.Env}}"]);
    let updated = tasks_of(&swarm, "web").iter().all(|id| environment_of(id).contains("B=c"));
    assert!(updated, "the update came to its end");

    // A service of its own is found again after a crash, with its tasks.
    setpoint.running("own", 2).await;
    let own = until_steady(&swarm, "setpoint-own", 2).await;
    assert!(own.iter().all(|id| environment_of(id).contains("SETPOINT_TASK_ID={{.Task.ID}}")));
    setpoint.kill();
    let mut setpoint = Setpoint::run(&scratch, run);
    setpoint.running("own", 2).await;
    assert_eq!(tasks_of(&swarm, "setpoint-own"), own);

    assert!(setpoint.stop().await.success());
    let left = docker.run(&["service", "ls", "--format", "{{.Name}}"]);
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    assert_eq!(left, ["taken", "web"], "what is lent is given back as it is");
    assert_eq!(replicas(&swarm, "web"), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_template_is_rolled_out_where_the_policy_says_so_and_nowhere_else() {
    let Some(swarm) = Swarm::start_new() else { return };
    let Some(image) = swarm.image("busybox") else { return };
    let scratch = Scratch::new();
    std::fs::write(scratch.path("setpoint.toml"), swarm.settings()).unwrap();
    let policy = |n: u32, colour: &str, words: &str| {
        let template = format!(r#"image = "{image}", command = {{ "sleep", "600" }}, init = true, grace = "2s""#);
        holding(n, &format!(r#"{template}, env = {{ COLOUR = "{colour}" }}, {words}"#))
    };
    let rolling = r#"replace = "rolling""#;
    scratch.policy("rolled", &policy(3, "red", rolling));
    scratch.policy("kept", &policy(1, "red", ""));
    let mut setpoint = Setpoint::run(&scratch, ["rolled.lua", "kept.lua", "--state-dir", "state", "--stop-tasks"]);
    setpoint.running("rolled", 3).await;
    setpoint.running("kept", 1).await;
    let red = until_steady(&swarm, "setpoint-rolled", 3).await;
    let kept = until_steady(&swarm, "setpoint-kept", 1).await;
    let docker = &swarm.manager.docker;
    let id = || docker.run(&["service", "inspect", "setpoint-rolled", "--format", "{{.ID}}"]);
    let (service, specified) = (id(), specification(&swarm, "setpoint-kept"));
    let is = |task: &String, colour: &str| {
        let env = docker.run(&["inspect", task, "--format", "{{json .Spec.ContainerSpec.Env}}"]);
        env.contains(&format!("COLOUR={colour}"))
    };

    scratch.replace("rolled.lua", &policy(3, "blue", rolling));
    scratch.replace("kept.lua", &policy(2, "blue", ""));
    // Swarm replaces one at a time: the others go on.
    let mut fewest = 3;
    let blue = wait_until(GENEROUS, "all three are blue", async || {
        let listed =
            docker.run(&["service", "ps", "setpoint-rolled", "--format", "{{.DesiredState}} {{.CurrentState}}"]);
        let running = listed.lines().filter(|line| line.starts_with("Running Running")).count();
        fewest = fewest.min(running);
        let tasks = tasks_of(&swarm, "setpoint-rolled");
        (running == 3 && tasks.iter().all(|task| is(task, "blue"))).then_some(tasks)
    })
    .await;
    assert!(2 <= fewest, "{fewest} ran");
    assert!(blue.len() == 3 && red.iter().all(|task| !blue.contains(task)), "{red:?} {blue:?}");
    setpoint.running("rolled", 3).await;
    assert_eq!(id(), service, "it is the same service");

    // Without the word its service stays what it was, for new tasks too.
    setpoint.running("kept", 2).await;
    let both = until_steady(&swarm, "setpoint-kept", 2).await;
    assert!(both.contains(&kept[0]) && both.iter().all(|task| is(task, "red")), "{kept:?} {both:?}");
    assert_eq!(specification(&swarm, "setpoint-kept"), specified);
    assert!(setpoint.stop().await.success());
    assert_eq!(docker.run(&["service", "ls", "--quiet"]), "");
}
