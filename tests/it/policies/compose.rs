//! `cpu` and `labelled` beside containers that Compose has started.

use serde_json::json;

use super::containers::{Load, PATIENCE, SERVER, cost, exact, held, rate, site, target};
use super::*;
use crate::support::{Compose, Docker, LABEL};

/// A service `web` of servers, with these labels beside the test's own.
fn servers(docker: &Docker, scratch: &Scratch, name: &str, labels: &[(&str, String)]) -> Option<Compose> {
    let image = docker.image("busybox")?;
    let mut all = serde_json::Map::from_iter([(LABEL.to_owned(), scratch.mark().into())]);
    all.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())));
    // A network of its own would have to be found a free range of addresses.
    let web = json!({
        "image": image, "command": SERVER, "network_mode": "bridge", "ports": ["127.0.0.1::8080"],
        "volumes": [site(scratch)], "labels": all,
    });
    Compose::new(docker, scratch, name, &json!({ "web": web }))
}

/// Where a container serves.
fn published(docker: &Docker, container: &str) -> u16 {
    let text = docker.run(&["port", container, "8080/tcp"]);
    text.lines().next().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// The containers of a row's tasks. Groups of other tests on the engine have rows of their own.
async fn clones(setpoint: &mut Setpoint, row: &str) -> Vec<String> {
    let tasks = setpoint.tasks().await;
    let own = tasks.iter().filter(|task| task["policy"] == row);
    own.map(|task| task["container"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Containers of others take their part of the load: the policy adds what is lacking, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn cpu_counts_the_containers_of_others_by_label_and_by_project() {
    let Some(docker) = Docker::main() else { return };
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let label = format!("group-{}", std::process::id());
    let Some(compose) = servers(&docker, &scratch, "shop", &[("app", label.clone())]) else { return };
    compose.up("web", 1);
    let other = compose.containers("web").remove(0);
    let port = published(&docker, &other);
    let cost = cost(&docker, &other, port).await;
    scratch.write("setpoint.toml", &format!("[docker.engines.here]\nhost = \"{}\"\n", docker.host()));
    let own = format!(
        "local workload = {{\n  labels = {{ [\"{LABEL}\"] = \"{}\" }}, volumes = {{ \"{}\" }}, \
         ports = {{ http = 8080 }}, grace = \"1s\",",
        scratch.mark(),
        site(&scratch)
    );
    let text = std::fs::read_to_string(bundled("cpu")).unwrap();
    scratch.policy("cpu", &text.replace("local workload = {", &own));
    let image = docker.image("busybox").unwrap();
    for which in
        [vec![format!("label=app={label}")], vec![format!("project={}", compose.project()), "service=web".into()]]
    {
        let mut sets = vec![
            "of=containers".to_owned(),
            "backend=docker".to_owned(),
            format!("image={image}"),
            format!("command=exec {}", SERVER.join(" ")),
            format!("target={}", target()),
            format!("tolerance={}", target() / 5.0),
            format!("max={}", if exact() { 10 } else { 1 }),
            "interval=1s".to_owned(),
            "wait=5s".to_owned(),
            "settle=4".to_owned(),
        ];
        sets.extend(which.clone());
        let arguments = sets.into_iter().flat_map(|set| ["--set".to_owned(), set]);
        let mut setpoint = Setpoint::run(&scratch, std::iter::once("cpu.lua".to_owned()).chain(arguments));
        let load = Load::new();
        for added in [1, 0] {
            load.set_rate(rate(added + 1, 1, cost));
            let mean = held(&mut setpoint, &load, "cpu", "http", &[port], added).await;
            eprintln!("cpu of {which:?}: {added} beside another's hold {mean:.1} %");
        }
        assert!(setpoint.stop().await.success());
        assert_eq!(docker.of_test(&scratch), [other.as_str()], "the other's own container is never touched");
    }
}

/// A Compose service is a group, and its clones are not Compose's.
#[tokio::test(flavor = "multi_thread")]
async fn labelled_scales_a_compose_service_without_compose_noticing() {
    let Some(docker) = Docker::main() else { return };
    let _one = ONE_AT_A_TIME.lock().await;
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let labels = [
        ("setpoint.metric", "cpu".to_owned()),
        ("setpoint.max", if exact() { "3" } else { "2" }.to_owned()),
        ("setpoint.target", target().to_string()),
        ("setpoint.tolerance", (target() / 5.0).to_string()),
    ];
    let Some(compose) = servers(&docker, &scratch, "shop", &labels) else { return };
    compose.up("web", 1);
    let original = compose.containers("web").remove(0);
    let port = published(&docker, &original);
    let cost = cost(&docker, &original, port).await;
    scratch.write("setpoint.toml", &format!("[docker.engines.here]\nhost = \"{}\"\n", docker.host()));
    let sets = ["every=500ms", "interval=1s", "wait=5s", "settle=4"];
    let arguments = sets.into_iter().flat_map(|set| ["--set", set]);
    let mut setpoint = Setpoint::run(&scratch, std::iter::once("labelled").chain(arguments));
    let row = format!("labelled/{}_web", compose.project());
    setpoint.policy_until(&row, "the Compose service has a policy", |_| true).await;
    let load = Load::new();
    load.set_rate(rate(2, 1, cost));
    held(&mut setpoint, &load, &row, "tcp8080", &[port], 1).await;
    let clone = clones(&mut setpoint, &row).await.remove(0);
    let labels = docker.inspect(&clone).unwrap()["Config"]["Labels"].clone();
    let keys: Vec<&String> = labels.as_object().unwrap().keys().collect();
    assert!(keys.iter().all(|key| !key.starts_with("com.docker.compose.")), "{keys:?}");
    assert_eq!(compose.containers("web"), [original.as_str()], "Compose does not take the clone for its own");

    // Somebody else scales the service as well: the group has its most containers then, and needs no clone.
    compose.up("web", 2);
    assert_eq!(compose.containers("web").len(), 2, "what Compose was asked for is there");
    wait_until(PATIENCE, "the clone has given way", async || {
        clones(&mut setpoint, &row).await.is_empty().then_some(())
    })
    .await;
    assert!(docker.inspect(&clone).is_none(), "and it is gone");

    // The service goes, and with it the group.
    load.set_rate(0.0);
    compose.down();
    wait_until(PATIENCE, "the group is gone", async || {
        setpoint.policy(&row).await.is_none_or(|policy| policy["ended"]["by"] == "gone").then_some(())
    })
    .await;
    assert!(setpoint.stop().await.success());
    assert_eq!(docker.of_test(&scratch), [""; 0]);
}
