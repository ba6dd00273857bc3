//! Restarts and crashes: what outlives a backend, and who finds it.

use super::*;

#[tokio::test]
async fn tasks_of_a_state_folder_outlive_their_backend() {
    let folder = TempDir::new().unwrap();
    let ports = quiet_ports(2);
    let config = || LocalConfig { ports: ports.clone(), ..on(&folder) };
    let mut first = Fixture::new("outlive", config()).await;
    for id in ["a", "b"] {
        first.launch(id, with_ports(sleeper(), &["http"])).await;
    }
    let (a, b) = (first.running("a").await, first.running("b").await);
    first.backend.shutdown(false).await;
    let Fixture { backend, policy, _guard: guard, .. } = first;
    drop(backend);
    assert!(is_running(a.pid.unwrap()) && is_running(b.pid.unwrap()));

    // The second knows `b` as a launch whose outcome was never recorded.
    let known = vec![known(&policy, "a", a.clone()), known(&policy, "b", Placement::default())];
    let mut second = Fixture::recover("outlive", config(), known).await;
    assert_eq!(second.running("a").await, a);
    assert_eq!(second.running("b").await, b);
    // A launch that is repeated finds the first one, and the ports are still taken.
    second.launch("b", sleeper()).await;
    second.launch("c", with_ports(sleeper(), &["http"])).await;
    assert!(matches!(second.gone("c").await, Exit::NotStarted { .. }));
    assert_eq!(processes(&policy, "b").len(), 1);
    for (id, placement) in [("a", a), ("b", b)] {
        second.kill(id, LONG).await;
        second.gone(id).await;
        assert!(!is_running(placement.pid.unwrap()));
    }
    drop(guard);
}

#[tokio::test]
async fn tasks_without_a_state_folder_end_with_their_backend() {
    let mut fixture = Fixture::new("ephemeral", LocalConfig::default()).await;
    fixture.launch("a", shell("trap '' TERM; while :; do sleep 0.1; done")).await;
    let pid = fixture.running("a").await.pid.unwrap();
    drop(fixture.backend);
    eventually("it has died", || !is_running(pid)).await;
}

/// Another program that has a backend: this test binary, running [`host`] alone.
struct Host {
    child: Child,
    folder: TempDir,
    _guard: Guard,
}

impl Host {
    /// Starts the program; its tasks run when this returns.
    async fn start(test: &str, tasks: &[&str], durable: bool) -> (Self, BTreeMap<String, Placement>) {
        let host = Self::starting(test, tasks, durable);
        let ready = host.folder.path().join("ready");
        says_so(&ready).await;
        let placements = serde_json::from_str(&fs::read_to_string(ready).unwrap()).unwrap();
        (host, placements)
    }

    /// Starts the program, and does not wait for what it does.
    fn starting(test: &str, tasks: &[&str], durable: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let policy = policy(test);
        fs::write(folder.path().join("tasks"), tasks.join("\n")).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "local::restart::host", "--nocapture"])
            .env("SETPOINT_TEST_HOST", folder.path())
            .env("SETPOINT_TEST_POLICY", policy.as_str())
            .env("SETPOINT_TEST_DURABLE", if durable { "yes" } else { "no" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder, _guard: Guard(policy) }
    }

    /// Ends it as a crash would.
    fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Not a test by itself: the program that [`Host`] starts. It launches tasks, says so, and waits for its end.
#[test]
fn host() {
    let Some(folder) = std::env::var_os("SETPOINT_TEST_HOST").map(PathBuf::from) else { return };
    let durable = std::env::var_os("SETPOINT_TEST_DURABLE").unwrap() == "yes";
    let policy = PolicyName::new(std::env::var_os("SETPOINT_TEST_POLICY").unwrap().into_string().unwrap());
    let tasks = fs::read_to_string(folder.join("tasks")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = LocalConfig { mark: durable.then(|| folder.clone()), ..LocalConfig::default() };
        let backend = LocalBackend::new(config).unwrap();
        let (sender, mut updates) = mpsc::channel(64);
        backend.recover(Vec::new(), sender).await.unwrap();
        let text = "(sleep 1000; :) & wait";
        let template = |id: &str| if id == "nobody" { run_as(id, shell(text)) } else { shell(text) };
        backend.launch(tasks.lines().map(|id| request(&policy, id, template(id))).collect()).await.unwrap();
        let mut placements = BTreeMap::new();
        while placements.len() < tasks.lines().count() {
            let update = updates.recv().await.unwrap();
            placements.extend(update.placement.map(|placement| (update.id, placement)));
        }
        fs::write(folder.join("half"), serde_json::to_string(&placements).unwrap()).unwrap();
        fs::rename(folder.join("half"), folder.join("ready")).unwrap();
        // Until it is killed, or the test that started it is.
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut rest).unwrap();
    });
}

#[tokio::test]
async fn a_crashed_program_takes_tasks_without_a_state_folder_along() {
    let (mut host, placements) = Host::start("pdeath", &["x", "y", "nobody"], false).await;
    let pids: Vec<u32> = placements.values().map(|placement| placement.pid.unwrap()).collect();
    assert!(pids.len() == 3 && pids.iter().all(|pid| is_running(*pid)));
    host.crash();
    eventually("its tasks have died with it", || pids.iter().all(|pid| !is_running(*pid))).await;
}

#[tokio::test]
async fn a_crashed_program_s_tasks_are_told_apart() {
    let tasks = ["recorded", "unrecorded", "forged", "forgotten", "killing"];
    let (mut host, placements) = Host::start("adopt", &tasks, true).await;
    host.crash();
    assert!(placements.values().all(|placement| is_running(placement.pid.unwrap())));
    let policy = policy("adopt");
    let placement = |id: &str| placements[id].clone();
    // A pid that is another process's by now has another start time.
    let (start, boot) =
        placement("forged").token.unwrap().split_once('@').map(|(s, b)| (s.to_owned(), b.to_owned())).unwrap();
    let forged =
        Placement { token: Some(format!("{}@{boot}", start.parse::<u64>().unwrap() - 1)), ..placement("forged") };
    let killing = KnownTask { state: TaskState::Killing, ..known(&policy, "killing", placement("killing")) };
    let known = vec![
        known(&policy, "recorded", placement("recorded")),
        known(&policy, "unrecorded", Placement::default()),
        known(&policy, "forged", forged),
        known(&policy, "never", Placement::default()),
        killing,
    ];
    let mut fixture = Fixture::recover("adopt", on(&host.folder), known).await;
    for id in ["recorded", "unrecorded"] {
        assert_eq!(fixture.running(id).await, placement(id));
    }
    assert_eq!(fixture.gone("forged").await, Exit::Unknown);
    assert_eq!(fixture.gone("never").await, Exit::Unknown);
    // What had been told to end is told again.
    assert_eq!(fixture.gone("killing").await, Exit::Unknown);
    assert_eq!(fixture.states("killing")[0], TaskState::Killing);
    // What carries the folder's mark and belongs to no known task is ended, with all of its group.
    for id in ["forged", "forgotten"] {
        eventually("it was ended", || processes(&policy, id).is_empty()).await;
    }
    // The adopted ones are whole, measured, watched and killed like any other.
    let ids = ["recorded", "unrecorded"].map(TaskId::from);
    assert_eq!(fixture.backend.stats(ids.to_vec()).await.unwrap().len(), 2);
    for id in ["recorded", "unrecorded"] {
        eventually("it has its child", || 2 <= processes(&policy, id).len()).await;
    }
    let pid = Pid::from_raw(placement("recorded").pid.unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(fixture.gone("recorded").await, Exit::Unknown);
    fixture.kill("unrecorded", LONG).await;
    assert_eq!(fixture.gone("unrecorded").await, Exit::Unknown);
    for id in tasks {
        assert_eq!(processes(&policy, id), BTreeSet::new(), "{id}");
    }
}

#[tokio::test]
async fn a_crash_in_the_midst_of_launches_orphans_nothing() {
    let ids: Vec<String> = (0..60).map(|n| format!("midst-{n:02}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let policy = policy("midst");
    let ours = || pids().filter(|pid| variable(*pid, "SETPOINT_POLICY").as_deref() == Some(policy.as_str()));
    for started in [1, 5, 12, 25, 40] {
        let mut host = Host::starting("midst", &names, true);
        eventually("some tasks have been started", || started <= ours().count()).await;
        host.crash();
        // Every intent was recorded, and no outcome.
        let known = ids.iter().map(|id| known(&policy, id, Placement::default())).collect();
        let mut fixture = Fixture::recover("midst", on(&host.folder), known).await;
        let mut adopted = 0;
        for id in &names {
            let update = fixture.next().await;
            assert_eq!(update.id.as_str(), *id);
            adopted += usize::from(update.state == TaskState::Running);
            let expected = (update.state == TaskState::Gone).then_some(Exit::Unknown);
            assert_eq!(update.exit, expected);
        }
        // Each task is up to three processes.
        assert!(started <= adopted * 3, "{adopted} tasks for {started} processes");
        fixture.backend.shutdown(true).await;
        assert_eq!(ours().filter(|pid| is_running(pid.cast_unsigned())).count(), 0, "after {started}");
    }
}
