//! What cannot be: images, limits, ports, rights, certificates. Each is told once and clearly, with what came of it, and the
//! policy goes on.

use std::process::Command;

use super::{configure, holding};
use crate::support::{Docker, EngineOptions, GENEROUS, OwnEngine, Scratch, Setpoint, tool, wait_until};

/// Runs a policy whose tasks cannot be started, and gives what the log says of them.
async fn failing(docker: &Docker, image: &str, words: &str, expected: &str) {
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("here", docker.host())]);
    scratch.policy("wrong", &holding(&scratch, image, words));
    let mut setpoint = Setpoint::run(&scratch, ["wrong.lua"]);
    scratch.write("n", "1");
    setpoint.logged("task failed").await;
    let log = setpoint.stderr();
    let line = log.lines().find(|line| line.contains("task failed")).unwrap();
    assert!(line.contains(expected), "{line}");
    assert!(line.contains("no other is launched for"), "what the loop does: {line}");
    // It is tried again, later and later, and nothing is left lying about.
    setpoint.ticks("wrong", 3).await;
    let policy = setpoint.policy("wrong").await.unwrap();
    assert_eq!(policy["tasks"]["running"], 0, "{policy}");
    assert!(setpoint.stop().await.success());
    assert_eq!(docker.of_test(&scratch), [""; 0]);
}

#[tokio::test]
async fn tasks_that_cannot_be_started_say_why() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let sleep = r#"command = { "sleep", "3600" }, init = true,"#;
    failing(&docker, "setpoint-test/absent:1", &format!("{sleep} pull = \"never\""), "No such image").await;
    failing(&docker, &image, r#"command = { "no-such-program" }"#, "no-such-program").await;
    failing(&docker, &image, &format!("{sleep} memory = \"1MiB\""), "6MB").await;
    failing(&docker, &image, &format!("{sleep} cpus = 100000"), "CPUs").await;
    failing(&docker, &image, &format!("{sleep} network = \"no-such-network\""), "no-such-network").await;
    failing(&docker, &image, &format!("{sleep} engine = \"nowhere\""), "there is no engine `nowhere`").await;
    failing(&docker, &image, &format!("{sleep} ready = \"healthy\""), "needs a health check").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let words = format!("{sleep} ports = {{ a = {{ inside = 80, outside = {port} }} }}");
    failing(&docker, &image, &words, "address already in use").await;
}

#[tokio::test]
async fn an_image_that_no_registry_gives_says_so() {
    // On an engine of its own: what is not there is asked of a registry, and this one has none that answers.
    let Some(engine) = OwnEngine::start_new(EngineOptions::default()) else { return };
    failing(engine.docker(), "127.0.0.1:9/absent:1", "", "image `127.0.0.1:9/absent:1` cannot be pulled").await;
}

#[tokio::test]
async fn a_task_that_fails_leaves_its_last_words() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("here", docker.host())]);
    // A string is for the shell, byte for byte.
    let words = r#"command = "echo 'the last words'; echo 'of it' >&2; exit 3""#;
    scratch.policy("short", &holding(&scratch, &image, words));
    let setpoint = Setpoint::run(&scratch, ["short.lua", "--state-dir", "state"]);
    scratch.write("n", "1");
    setpoint.logged("exit code 3").await;
    setpoint.logged("the last words").await;
    let kept = wait_until(GENEROUS, "its words are kept", async || {
        let file = scratch.list("state/logs/short").into_iter().next()?;
        Some(scratch.read(&format!("state/logs/short/{file}"))).filter(|text| text.ends_with('\n'))
    })
    .await;
    // The engine reads the two streams side by side.
    let mut words: Vec<&str> = kept.lines().collect();
    words.sort_unstable();
    assert_eq!(words, ["of it", "the last words"]);
}

#[tokio::test]
async fn running_out_of_memory_is_told_apart() {
    let Some(docker) = Docker::main() else { return };
    let Some(image) = docker.image("busybox") else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("here", docker.host())]);
    let words = r#"command = { "sh", "-c", "x=a; while true; do x=$x$x; done" }, memory = "8MiB""#;
    scratch.policy("hungry", &holding(&scratch, &image, words));
    let setpoint = Setpoint::run(&scratch, ["hungry.lua"]);
    scratch.write("n", "1");
    setpoint.logged("out of memory").await;
}

#[tokio::test]
async fn an_engine_that_may_not_be_used_is_told_of_and_tried_again() {
    let Some(engine) = OwnEngine::start_new(EngineOptions::default()) else { return };
    let Some(setpriv) = tool("setpriv") else { return };
    let Some(image) = engine.docker().image("busybox") else { return };
    let scratch = Scratch::new();
    configure(&scratch, &[("own", engine.docker().host())]);
    scratch.policy("sleepers", &holding(&scratch, &image, r#"command = { "sleep", "3600" }, init = true,"#));
    scratch.write("n", "1");
    // Somebody who may read all of it but not use the socket.
    let everybody = |path: &std::path::Path| {
        assert!(Command::new("chmod").args(["-R", "a+rwX"]).arg(path).status().unwrap().success());
    };
    everybody(scratch.folder());
    assert!(Command::new("chmod").arg("a+x").arg(engine.folder()).status().unwrap().success());
    let mut as_nobody = Command::new(setpriv);
    as_nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    let copy = scratch.path("setpoint");
    std::fs::copy(env!("CARGO_BIN_EXE_setpoint"), &copy).unwrap();
    everybody(scratch.folder());
    as_nobody.arg(&copy).args(["run", "sleepers.lua", "--listen", "127.0.0.1:0"]);
    as_nobody.current_dir(scratch.folder()).env("TEST_SCRATCH", scratch.mark()).env("NO_COLOR", "1");
    let mut setpoint = Setpoint::spawn(&scratch, as_nobody);
    let body = wait_until(GENEROUS, "/readyz tells of it", async || {
        let (status, body) = setpoint.get("/readyz").await;
        (status == 503 && body.to_string().contains("Permission denied")).then_some(body.to_string())
    })
    .await;
    assert!(body.contains("engine `own`") && body.contains("docker.sock"), "{body}");
    assert_eq!(setpoint.policy("sleepers").await.unwrap()["ticks"], 0, "nothing is decided before the engine answers");
    // As soon as it may, it does.
    assert!(Command::new("chmod").arg("a+rw").arg(engine.socket()).status().unwrap().success());
    setpoint.running("sleepers", 1).await;
}

/// A certificate authority, and what it has signed, in a folder: `ca.pem`, `cert.pem`, `key.pem` and the server's.
fn certificates(scratch: &Scratch, folder: &str, openssl: &std::path::Path) -> std::path::PathBuf {
    let folder = scratch.path(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let run = |arguments: &str| {
        let output = Command::new(openssl).args(arguments.split(' ')).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n").unwrap();
    std::fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    run("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca-key.pem -out ca.pem");
    for (name, cert, key) in [("server", "server-cert.pem", "server-key.pem"), ("client", "cert.pem", "key.pem")] {
        run(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {key} -out {name}.csr"));
        run(&format!(
            "x509 -req -in {name}.csr -days 2 -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile {name}.ext -out {cert}"
        ));
    }
    folder
}

#[tokio::test]
async fn tls_works_with_the_right_authority_and_with_no_other() {
    let Some(openssl) = tool("openssl") else { return };
    let scratch = Scratch::new();
    let right = certificates(&scratch, "right", &openssl);
    let wrong = certificates(&scratch, "wrong", &openssl);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |name: &str| right.join(name).display().to_string();
    let arguments = [
        "--host".to_owned(),
        format!("tcp://127.0.0.1:{port}"),
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", at("ca.pem")),
        format!("--tlscert={}", at("server-cert.pem")),
        format!("--tlskey={}", at("server-key.pem")),
    ];
    let options = EngineOptions { arguments: arguments.to_vec(), ..EngineOptions::default() };
    let Some(engine) = OwnEngine::start_new(options) else { return };
    let Some(image) = engine.docker().image("busybox") else { return };
    configure(&scratch, &[]);
    scratch.policy("sleepers", &holding(&scratch, &image, r#"command = { "sleep", "3600" }, init = true,"#));
    scratch.write("n", "1");
    // As Docker's own client takes it from the environment.
    let start = |certificates: &std::path::Path| {
        let mut command = crate::support::command(&scratch);
        command.args(["run", "sleepers.lua", "--listen", "127.0.0.1:0"]);
        command.env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}")).env("DOCKER_TLS_VERIFY", "1");
        command.env("DOCKER_CERT_PATH", certificates);
        Setpoint::spawn(&scratch, command)
    };
    for (folder, expected) in [(wrong, "invalid peer certificate"), (scratch.path("nothing"), "ca.pem")] {
        let mut setpoint = start(&folder);
        let told = wait_until(GENEROUS, "/readyz tells of it", async || {
            let (status, body) = setpoint.get("/readyz").await;
            (status == 503 && body.to_string().contains("engine `default`")).then_some(body.to_string())
        })
        .await;
        assert!(told.contains(expected) || folder.ends_with("nothing") && told.contains("key.pem"), "{told}");
        assert!(setpoint.stop().await.success());
    }
    let mut setpoint = start(&right);
    setpoint.running("sleepers", 1).await;
    assert!(setpoint.stop().await.success());
}
