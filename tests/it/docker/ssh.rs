//! An engine behind ssh: how the system's `ssh` is called, what it says, and that everything else is as with any engine.
//!
//! The `ssh` here is a script that stands for the way to the other machine: it runs what it is given on this one. What
//! answers there is Docker's genuine client, connected with the genuine engine.

use std::os::unix::fs::PermissionsExt as _;

use super::{configure, holding, tasks_of};
use crate::support::{Docker, GENEROUS, Scratch, Setpoint, tool, wait_until};

/// Writes down how it is called. As a master it comes up, or fails as `ssh` does when a file says so; a command is run.
const SSH: &str = r#"#!/bin/sh
echo "$*" >>'@SCRATCH@/calls'
while [ $# != 0 ] && [ "$1" != -- ]; do
  case $1 in
    -M) master=1 ;;
    -O) exit 0 ;;
    -E) shift; log=$1 ;;
  esac
  shift
done
if [ -n "$master" ]; then
  [ -e '@SCRATCH@/locked' ] || exit 0
  echo 'me@there: Permission denied (publickey).' >"$log"
  exit 255
fi
[ "$1 $2" = "-- docker" ] || exit 127
shift 2
DOCKER_HOST='@HOST@' exec '@DOCKER@' "$@"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_behind_ssh_is_one_like_any_other() {
    let Some(docker) = Docker::main() else { return };
    let (Some(client), Some(image)) = (tool("docker"), docker.image("busybox")) else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    let script = SSH
        .replace("@SCRATCH@", scratch.mark())
        .replace("@HOST@", docker.host())
        .replace("@DOCKER@", client.to_str().unwrap());
    let ssh = scratch.write("bin/ssh", &script);
    std::fs::set_permissions(ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    configure(&scratch, &[("far", "ssh://me@there")]);
    scratch.policy(
        "sleepers",
        &holding(&scratch, &image, r#"command = { "sleep", "3600" }, init = true, ports = { a = 80 },"#),
    );
    scratch.write("n", "2");
    scratch.write("locked", "");
    let mut command = crate::support::command(&scratch);
    command.args(["run", "sleepers.lua", "--listen", "127.0.0.1:0"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(scratch.path("bin")).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).unwrap()).env("HOME", scratch.folder());
    command.env_remove("XDG_STATE_HOME");
    let mut setpoint = Setpoint::spawn(&scratch, command);
    wait_until(GENEROUS, "/readyz tells what ssh said", async || {
        let (status, body) = setpoint.get("/readyz").await;
        let body = body.to_string();
        let told =
            body.contains("engine `far` (ssh://me@there) is not available") && body.contains("Permission denied");
        (status == 503 && told).then_some(())
    })
    .await;
    assert_eq!(setpoint.policy("sleepers").await.unwrap()["ticks"], 0, "nothing is decided before the engine answers");

    std::fs::remove_file(scratch.path("locked")).unwrap();
    setpoint.running("sleepers", 2).await;
    assert_eq!(tasks_of(&docker, &scratch).len(), 2);
    let figures = wait_until(GENEROUS, "figures come through it", async || {
        let tasks = setpoint.tasks().await;
        tasks.iter().all(|task| task["memory_bytes"].as_u64().is_some_and(|bytes| 0 < bytes)).then_some(tasks)
    })
    .await;
    assert!(figures.iter().all(|task| task["host"] == "there"), "{figures:?}");
    // Events come through it too: what is removed there is replaced here.
    let before = docker.of_test(&scratch);
    docker.remove(&before[..1]);
    wait_until(GENEROUS, "the removed one is replaced", async || {
        let now = docker.of_test(&scratch);
        (now.len() == 2 && !now.contains(&before[0])).then_some(())
    })
    .await;
    setpoint.running("sleepers", 2).await;
    assert!(setpoint.stop().await.success());
    assert!(docker.of_test(&scratch).is_empty());
    let calls = scratch.read("calls");
    assert!(calls.lines().any(|call| call.contains("BatchMode=yes") && call.ends_with(" me@there")), "{calls}");
    assert!(calls.lines().any(|call| call.ends_with("-- docker system dial-stdio")), "{calls}");
}
