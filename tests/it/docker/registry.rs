//! Images from a registry that wants to know who asks: a genuine one, on loopback.

use std::process::{Child, Command, Stdio};

use super::{configure, holding};
use crate::support::{EngineOptions, GENEROUS, OwnEngine, Scratch, Setpoint, tool, wait_until};

const USER: &str = "somebody";

/// Characters that the two alphabets of base64 differ in, once this is in JSON and that is encoded.
const PASSWORD: &str = "s?cr>t~??>>~~";

/// What the registry knows of it.
const HASH: &str = "$2b$04$Gi6cHJQQIFYbwvE7OZXV4.rtIN18Vtv4VWwyhU2bfI1bLPaiPZe/S";

/// A registry that serves until it is dropped.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(scratch: &Scratch) -> Option<Self> {
        let program = tool("docker-registry")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let users = scratch.write("users", &format!("{USER}:{HASH}\n"));
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: test, path: {users}}}}}\n",
            data = scratch.path("images").display(),
            users = users.display(),
        );
        let config = scratch.write("registry.yml", &config);
        let log = std::fs::File::create(scratch.path("registry.log")).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(config).env("TEST_SCRATCH", scratch.mark());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Some(Self { child, port })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn images_are_pulled_in_the_operators_name() {
    let scratch = Scratch::new();
    let Some(registry) = Registry::start(&scratch) else { return };
    let Some(engine) = OwnEngine::start_new(EngineOptions::default()) else { return };
    let docker = engine.docker();
    let Some(local) = docker.image("busybox") else { return };
    let name = format!("127.0.0.1:{}/busybox:1", registry.port);
    docker.run(&["tag", &local, &name]);
    let auth = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"))
    };
    let client = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"auth":"{auth}"}}}}}}"#, registry.port);
    scratch.write("client/config.json", &client);
    let push = || {
        let mut command = docker.command(&["push", &name]);
        command.env("DOCKER_CONFIG", scratch.path("client"));
        command.output().ok().filter(|output| output.status.success()).map(drop)
    };
    wait_until(GENEROUS, "the image is in the registry", async || push()).await;
    let forget = || docker.run(&["rmi", "--force", &name, &local]);
    forget();

    let words = r#"command = { "sleep", "3600" }, init = true,"#;
    scratch.policy("pulled", &holding(&scratch, &name, words));
    scratch.write("n", "1");
    let start = |home: &str| {
        let mut command = crate::support::command(&scratch);
        command.args(["run", "pulled.lua", "--listen", "127.0.0.1:0"]).env("REGISTRY_PASSWORD", PASSWORD);
        command.env("DOCKER_CONFIG", scratch.path(home));
        Setpoint::spawn(&scratch, command)
    };

    // Nobody in particular gets nothing.
    configure(&scratch, &[("own", docker.host())]);
    let mut setpoint = start("nowhere");
    setpoint.logged("cannot be pulled").await;
    assert!(setpoint.stderr().contains("no basic auth credentials"), "{}", setpoint.stderr());
    assert!(setpoint.stop().await.success());

    // As Docker's own client was told.
    let mut setpoint = start("client");
    setpoint.running("pulled", 1).await;
    assert!(setpoint.stop().await.success());
    forget();

    // As the settings say, which nothing shows.
    let settings = scratch.read("setpoint.toml");
    let registries = format!(
        "{settings}[docker.registries.\"127.0.0.1:{}\"]\nusername = \"{USER}\"\npassword = {{ env = \"REGISTRY_PASSWORD\" }}\n",
        registry.port
    );
    scratch.write("setpoint.toml", &registries);
    let mut setpoint = start("nowhere");
    setpoint.running("pulled", 1).await;
    assert!(!setpoint.stderr().contains(PASSWORD));
    assert!(setpoint.stop().await.success());
}
