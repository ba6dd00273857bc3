//! The formats of service discovery, read by the programs that they are for: HAProxy, nginx and Prometheus' own tool.
//! mcrouter is not to be had as a package, so its configuration is checked against the rules of its format.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use setpoint::core::policy::PortSpec;
use setpoint::script::TaskView;

use super::client;
use super::fake::{Fake, task};
use crate::support::{Scratch, tool};

/// A service with a young member, an IPv6 address and an empty slot; a fleet's row; one of which no task is usable.
async fn published() -> Fake {
    let fake = Fake::start(&["cache", "fleet/row.x-1", "idle"]).await;
    let member = |policy: &str, number: u32, slot: u32, host: &str| -> TaskView {
        let mut task = task(policy, number);
        task.slot = Some(slot);
        task.placement.host = Some(host.to_owned());
        task.placement.ports.insert("http".into(), 31_000 + u16::try_from(number).unwrap());
        task
    };
    fake.change("idle", |policy| {
        let spec = Arc::make_mut(policy.spec.as_mut().unwrap());
        spec.workload.template.ports.push(PortSpec { name: "http".into(), ..PortSpec::default() });
    });
    let mut young = member("cache", 4, 3, "127.0.0.1");
    young.started = SystemTime::now();
    let mut unready = member("idle", 5, 0, "127.0.0.1");
    unready.ready = false;
    fake.publisher.set_tasks([
        member("cache", 1, 0, "localhost"),
        member("cache", 3, 2, "fd00::1"),
        young,
        member("fleet/row.x-1", 9, 0, "127.0.0.1"),
        unready,
    ]);
    fake
}

async fn text(fake: &Fake, path: &str) -> String {
    let answer = client().get(fake.url(path)).send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.text().await.unwrap()
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn haproxy_takes_the_backends() {
    let Some(haproxy) = tool("haproxy") else { return };
    let (fake, scratch) = (published().await, Scratch::new());
    let backends = text(&fake, "/v1/services?format=haproxy").await;
    let base = "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n\n\
                frontend in\n    bind 127.0.0.1:20001\n    default_backend cache\n";
    let own = scratch.write("haproxy.cfg", base);
    let check = |backends: &str| {
        let theirs = scratch.write("services.cfg", backends);
        run(Command::new(&haproxy).arg("-c").arg("-f").arg(&own).arg("-f").arg(theirs))
    };
    let checked = check(&backends);
    assert!(checked.status.success(), "{backends}\n{}", said(&checked));
    // A warning would be one at each reload.
    assert!(!said(&checked).contains("[WARNING]"), "{backends}\n{}", said(&checked));
    for (word, wrong) in [("check", "chekc"), ("[fd00::1]:31003", "fd00::1::31003"), ("backend cache", "backend other")]
    {
        assert!(backends.contains(word), "{word}\n{backends}");
        assert!(!check(&backends.replace(word, wrong)).status.success(), "`{wrong}` is seen");
    }
    fake.stop().await;
}

#[tokio::test]
async fn nginx_takes_the_upstreams() {
    let Some(nginx) = tool("nginx") else { return };
    let (fake, scratch) = (published().await, Scratch::new());
    let upstreams = text(&fake, "/v1/services?format=nginx").await;
    let base = format!(
        r"user root;
        pid nginx.pid;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path body; proxy_temp_path proxy;
            fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            include services.conf;
            server {{
                listen unix:{}/socket;
                location /cache {{ proxy_pass http://cache; }}
                location /row {{ proxy_pass http://fleet__row.x-1; }}
                location /idle {{ proxy_pass http://idle; }}
            }}
        }}",
        scratch.mark()
    );
    scratch.write("nginx.conf", &base);
    let check = |upstreams: &str| {
        scratch.write("services.conf", upstreams);
        run(Command::new(&nginx).args(["-t", "-e", "stderr", "-p", scratch.mark(), "-c", "nginx.conf"]))
    };
    let checked = check(&upstreams);
    assert!(checked.status.success(), "{upstreams}\n{}", said(&checked));
    assert!(!said(&checked).contains("[warn]"), "{upstreams}\n{}", said(&checked));
    for (word, wrong) in [("down;", "dwon;"), ("[fd00::1]:31003", "fd00::1::31003"), ("server 127.0.0.1:9 down;", "")] {
        assert!(upstreams.contains(word), "{word}\n{upstreams}");
        assert!(!check(&upstreams.replace(word, wrong)).status.success(), "`{wrong}` is seen");
    }
    fake.stop().await;
}

/// Prometheus' tool does the discovery itself, and says what would be scraped under which labels.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_discovers_the_targets() {
    let Some(promtool) = tool("promtool") else { return };
    let (fake, scratch) = (published().await, Scratch::new());
    let url = fake.url("/v1/services?format=prometheus");
    let config = format!(
        "scrape_configs:\n- job_name: setpoint\n  http_sd_configs:\n  - url: {url}\n  relabel_configs:\n  \
         - source_labels: [__meta_setpoint_policy]\n    target_label: policy\n  \
         - source_labels: [__meta_setpoint_task]\n    target_label: task\n"
    );
    let config = scratch.write("prometheus.yml", &config);
    let discovered = |limit: &str| {
        let mut command = Command::new(&promtool);
        let output = run(command.args(["check", "service-discovery", limit]).arg(&config).arg("setpoint"));
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap_or_default()
    };
    // It always waits as long as it may, so the short limit comes first.
    let limits = ["--timeout=2s", "--timeout=10s", "--timeout=60s"];
    let targets =
        limits.into_iter().map(discovered).find(|targets| !targets.is_empty()).expect("targets are discovered");
    let seen: BTreeSet<(&str, &str, &str)> = targets
        .iter()
        .map(|target| {
            let label = |name: &str| target["labels"][name].as_str().unwrap_or_default();
            (label("instance"), label("policy"), label("task"))
        })
        .collect();
    let expected = [
        ("127.0.0.1:31004", "cache", "cache.4"),
        ("127.0.0.1:31009", "fleet/row.x-1", "fleet~row.x-1.9"),
        ("[fd00::1]:31003", "cache", "cache.3"),
        ("localhost:31001", "cache", "cache.1"),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
    fake.stop().await;
}

#[tokio::test]
async fn mcrouter_configurations_keep_its_rules() {
    let fake = published().await;
    let config = async |query: &str| -> Value {
        serde_json::from_str(&text(&fake, &format!("/v1/services?format=mcrouter{query}")).await).unwrap()
    };
    let all = config("&warm_up=1h").await;
    let routes = checked(&all);
    // The young member is warmed up from the pool without it; nobody can answer for `idle`.
    let warming = serde_json::json!({
        "type": "WarmUpRoute", "cold": "PoolRoute|cache", "warm": "PoolRoute|cache.old", "exptime": 3600
    });
    assert_eq!(
        routes,
        [
            ("/setpoint/cache/".to_owned(), warming),
            ("/setpoint/fleet__row.x-1/".to_owned(), "PoolRoute|fleet__row.x-1".into()),
            ("/setpoint/idle/".to_owned(), "ErrorRoute".into()),
        ]
    );
    let servers = |config: &Value, pool: &str| config["pools"][pool]["servers"].clone();
    let young = "127.0.0.1:31004";
    assert_eq!(
        servers(&all, "cache"),
        serde_json::json!(["localhost:31001", "[fd00::1]:31003", "[fd00::1]:31003", young])
    );
    assert_eq!(servers(&all, "cache.old").as_array().unwrap().len(), 3);

    let one = config("&policy=cache&warm_up=0s").await;
    assert_eq!(checked(&one), [(String::new(), "PoolRoute|cache".into())]);
    assert_eq!(checked(&config("&policy=idle").await), [(String::new(), "ErrorRoute".into())]);
    assert_eq!(checked(&config("&policy=cache&port=other").await), [(String::new(), "ErrorRoute".into())]);
    fake.stop().await;
}

/// The routes of a configuration by prefix, after a check of what mcrouter would refuse: keys, the form of servers and
/// prefixes, routes to pools that are not there; and of pools that no route leads to.
fn checked(config: &Value) -> Vec<(String, Value)> {
    let keys: Vec<&str> = config.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(keys == ["pools", "route"] || keys == ["pools", "routes"], "one route or several: {keys:?}");
    let pools = config["pools"].as_object().unwrap();
    for (name, pool) in pools {
        let servers = pool["servers"].as_array().unwrap();
        assert!(!servers.is_empty() && pool.as_object().unwrap().len() == 1, "{name}: {pool}");
        for server in servers {
            let (host, port) = server.as_str().unwrap().rsplit_once(':').unwrap();
            assert!(0 < port.parse::<u16>().unwrap() && !host.is_empty(), "{server}");
            assert_eq!(host.contains(':'), host.starts_with('[') && host.ends_with(']'), "{server}");
        }
    }
    let mut used = BTreeSet::new();
    let mut check = |route: &Value| match route {
        Value::String(text) => match text.split_once('|') {
            Some(("PoolRoute", pool)) => {
                used.insert(pool.to_owned());
            }
            other => assert!(other.is_none() && text == "ErrorRoute", "{text}"),
        },
        other => {
            let keys: Vec<&str> = other.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["cold", "exptime", "type", "warm"]);
            assert!(other["type"] == "WarmUpRoute" && other["exptime"].as_u64().is_some(), "{other}");
            for key in ["cold", "warm"] {
                let (kind, pool) = other[key].as_str().unwrap().split_once('|').unwrap();
                assert_eq!(kind, "PoolRoute");
                used.insert(pool.to_owned());
            }
        }
    };
    let mut routes = Vec::new();
    if let Some(route) = config.get("route") {
        check(route);
        routes.push((String::new(), route.clone()));
    }
    for route in config["routes"].as_array().into_iter().flatten() {
        check(&route["route"]);
        let aliases = route["aliases"].as_array().unwrap();
        let prefix = aliases[0].as_str().unwrap();
        // A routing prefix is a region and a cluster.
        let parts: Vec<&str> = prefix.split('/').collect();
        assert!(parts.len() == 4 && parts[0].is_empty() && parts[3].is_empty(), "{prefix}");
        assert!(!parts[1].is_empty() && !parts[2].is_empty() && aliases.len() == 1, "{prefix}");
        routes.push((prefix.to_owned(), route["route"].clone()));
    }
    assert_eq!(used, pools.keys().cloned().collect(), "{config}");
    routes
}
