//! Several engines: tasks are spread over them, and one that is away takes nothing with it.

use std::collections::BTreeSet;

use super::{configure, holding, tasks_of};
use crate::support::{Docker, EngineOptions, GENEROUS, OwnEngine, Scratch, Setpoint, wait_until};

#[tokio::test]
async fn tasks_are_spread_and_one_engine_less_is_no_outage() {
    let Some(docker) = Docker::main() else { return };
    let options = EngineOptions { live_restore: true, ..EngineOptions::default() };
    let Some(mut engine) = OwnEngine::start_new(options) else { return };
    let (Some(image), Some(_)) = (docker.image("busybox"), engine.docker().image("busybox")) else { return };
    let scratch = Scratch::new();
    let _sweep = docker.sweep(&scratch);
    configure(&scratch, &[("main", docker.host()), ("own", engine.docker().host())]);
    let words = r#"command = { "sleep", "3600" }, init = true,"#;
    scratch.policy("spread", &holding(&scratch, &image, words));
    scratch.policy(
        "pinned",
        &holding(&scratch, &image, &format!("{words} engine = \"own\"")).replace("/n\"", "/pinned\""),
    );
    scratch.write("pinned", "0");
    let mut setpoint = Setpoint::run(&scratch, ["spread.lua", "pinned.lua", "--state-dir", "state", "--stop-tasks"]);
    scratch.write("n", "4");
    setpoint.running("spread", 4).await;
    let on = |docker: &Docker| tasks_of(docker, &scratch).into_iter().collect::<BTreeSet<_>>();
    assert_eq!((on(&docker).len(), on(engine.docker()).len()), (2, 2));
    scratch.write("pinned", "1");
    setpoint.running("pinned", 1).await;
    let own = on(engine.docker());
    assert_eq!(own.len(), 3);

    // Without one of them: degraded, its tasks held, and launches go to the other.
    engine.kill();
    wait_until(GENEROUS, "/readyz tells of the engine", async || {
        let (status, body) = setpoint.get("/readyz").await;
        (status == 200 && body["degraded"] == true && body.to_string().contains("engine `own`")).then_some(())
    })
    .await;
    scratch.write("n", "6");
    setpoint.running("spread", 6).await;
    assert_eq!(on(&docker).len(), 4, "the new ones are where an engine answers");
    // What is bound to it is asked for and not launched elsewhere.
    scratch.write("pinned", "2");
    setpoint.ticks("pinned", 5).await;
    assert_eq!(setpoint.policy("pinned").await.unwrap()["tasks"]["running"], 1);

    // A run that starts while it is away takes its tasks up when it is back.
    setpoint.kill();
    scratch.write("pinned", "1");
    let mut setpoint = Setpoint::run(&scratch, ["spread.lua", "pinned.lua", "--state-dir", "state", "--stop-tasks"]);
    setpoint.running("spread", 6).await;
    engine.start();
    setpoint.running("pinned", 1).await;
    wait_until(GENEROUS, "/readyz is well", async || {
        let (status, body) = setpoint.get("/readyz").await;
        (status == 200 && body["degraded"] == false).then_some(())
    })
    .await;
    assert_eq!(on(engine.docker()), own, "nothing there was lost or doubled");
    assert!(setpoint.stop().await.success());
    assert!(on(&docker).is_empty() && on(engine.docker()).is_empty());
}
