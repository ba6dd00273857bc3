//! `labelled` on a genuine Swarm: services that opt in by label.

use super::containers::PATIENCE;
use super::*;
use crate::support::Swarm;

/// Burns CPU while there is a file, far more of it than one task is to have.
const WORKER: &str = "while :; do if [ -e /load/on ]; then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; \
                      else sleep 0.2; fi; done";

#[tokio::test(flavor = "multi_thread")]
async fn services_of_a_swarm_opt_in_by_label() {
    let _one = ONE_AT_A_TIME.lock().await;
    let Some(swarm) = Swarm::start_new() else { return };
    let Some(image) = swarm.image("busybox") else { return };
    let scratch = Scratch::new();
    scratch.write("setpoint.toml", &swarm.settings());
    scratch.write("load/off", "");
    let docker = &swarm.manager.docker;
    let mount = format!("type=bind,source={},destination=/load", scratch.path("load").display());
    let create = |name: &str, labels: &[&str]| {
        let head = ["service", "create", "--detach", "--no-resolve-image", "--init", "--limit-cpu", "0.5"];
        let labels = labels.iter().flat_map(|label| ["--label", *label]);
        let tail = ["--name", name, "--mount", &mount, &image, "sh", "-c", WORKER];
        docker.run(&head.into_iter().chain(labels).chain(tail).collect::<Vec<_>>());
    };
    let replicas = |name: &str| -> u64 {
        let format = "{{.Spec.Mode.Replicated.Replicas}}";
        docker.run(&["service", "inspect", name, "--format", format]).parse().unwrap()
    };
    create("web", &["setpoint.metric=cpu", "setpoint.target=8", "setpoint.min=1", "setpoint.max=3"]);
    create("quiet", &["team=blue"]);
    create("taken", &["setpoint.metric=cpu", "setpoint.policy=other"]);

    let sets = ["every=500ms", "interval=1s", "wait=4s", "settle=3"];
    let arguments = sets.into_iter().flat_map(|set| ["--set", set]);
    let mut setpoint = Setpoint::run(&scratch, std::iter::once("labelled").chain(arguments));
    setpoint.running("labelled/web", 1).await;
    // Loaded, it gets as many tasks as it may have, on both nodes; idle, as few.
    scratch.write("load/on", "");
    let scaled = async |setpoint: &mut Setpoint, count: u64| {
        wait_until(PATIENCE, &format!("`web` has {count} tasks"), async || {
            let policy = setpoint.policy("labelled/web").await?;
            let settled = policy["tasks"]["running"] == count && policy["tasks"]["in_flight"] == 0;
            (settled && replicas("web") == count).then_some(())
        })
        .await;
    };
    scaled(&mut setpoint, 3).await;
    let tasks = setpoint.tasks().await;
    let hosts: BTreeSet<&str> = tasks.iter().filter_map(|task| task["host"].as_str()).collect();
    assert_eq!(hosts.len(), 2, "both nodes are used: {tasks:?}");
    std::fs::remove_file(scratch.path("load/on")).unwrap();
    scaled(&mut setpoint, 1).await;
    let (status, policies) = setpoint.get("/v1/policies").await;
    assert_eq!(status, 200);
    for name in ["labelled/quiet", "labelled/taken"] {
        assert!(!policies.to_string().contains(name), "nobody asked for that: {policies}");
    }

    // A service may opt in later, and out again; then it keeps the number that it has.
    docker.run(&["service", "update", "--detach", "--label-add", "setpoint.metric=cpu", "--no-resolve-image", "quiet"]);
    setpoint.running("labelled/quiet", 1).await;
    scratch.write("load/on", "");
    scaled(&mut setpoint, 3).await;
    docker.run(&["service", "update", "--detach", "--label-rm", "setpoint.metric", "--no-resolve-image", "web"]);
    wait_until(PATIENCE, "`web` is let go of", async || {
        setpoint.policy("labelled/web").await.is_none_or(|policy| policy["ended"]["by"] == "gone").then_some(())
    })
    .await;
    std::fs::remove_file(scratch.path("load/on")).unwrap();
    setpoint.ticks("labelled/quiet", 8).await;
    assert_eq!(replicas("web"), 3);
    assert!(setpoint.stop().await.success());
    let left = docker.run(&["service", "ls", "--format", "{{.Name}}"]);
    let left: BTreeSet<&str> = left.lines().collect();
    assert_eq!(left, BTreeSet::from(["quiet", "taken", "web"]), "none is removed");
    keep_on(&swarm, &image).await;
}

/// `keep` has a service of its own: a container that is killed is replaced, and at the end there is none.
async fn keep_on(swarm: &Swarm, image: &str) {
    let scratch = Scratch::new();
    scratch.write("setpoint.toml", &swarm.settings());
    let image = format!("image={image}");
    let sets = ["backend=swarm", "n=2", "command=exec sleep 600", "cpus=0.05", "memory=16MiB", "grace=1s", &image];
    let sets = sets.into_iter().flat_map(|set| ["--set", set]);
    let mut setpoint = Setpoint::run(&scratch, std::iter::once("keep").chain(sets));
    setpoint.running("keep", 2).await;
    let containers = || -> BTreeSet<String> {
        let filter = "label=com.docker.swarm.service.name=setpoint-keep";
        let listed = swarm.nodes().map(|node| node.docker.run(&["ps", "--quiet", "--filter", filter]));
        listed.iter().flat_map(|lines| lines.lines()).map(str::to_owned).collect()
    };
    let before =
        wait_until(PATIENCE, "two containers run", async || Some(containers()).filter(|all| all.len() == 2)).await;
    let victim = before.first().unwrap();
    assert!(swarm.nodes().iter().any(|node| node.docker.try_run(&["kill", victim]).is_some()));
    wait_until(PATIENCE, "the one that was killed is replaced", async || {
        let now = containers();
        (now.len() == 2 && !now.contains(victim)).then_some(())
    })
    .await;
    setpoint.running("keep", 2).await;
    assert!(setpoint.stop().await.success());
    assert!(!swarm.manager.docker.run(&["service", "ls", "--format", "{{.Name}}"]).contains("keep"));
}
