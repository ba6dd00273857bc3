//! Starting and ending, one at a time and many at once.

use super::*;

#[tokio::test]
async fn a_task_is_followed_from_staging_to_its_status() {
    let mut fixture = Fixture::new("status", LocalConfig::default()).await;
    let cases = [
        ("zero", shell("exit 0"), Exit::Code { code: 0 }),
        ("three", argv(&["sh", "-c", "exit 3"]), Exit::Code { code: 3 }),
        ("segv", shell("kill -SEGV $$"), Exit::Signal { signal: 11 }),
        ("kill", shell("kill -9 $$"), Exit::Signal { signal: 9 }),
    ];
    for (id, template, exit) in cases {
        fixture.launch(id, template).await;
        assert_eq!(fixture.gone(id).await, exit, "{id}");
        assert_eq!(fixture.states(id), [TaskState::Staging, TaskState::Running, TaskState::Gone], "{id}");
        let placement = fixture.running(id).await;
        assert!(placement.pid.is_some() && placement.token.is_some(), "{placement:?}");
    }
    assert!(fixture.heard.iter().all(|update| update.exit.is_some() == (update.state == TaskState::Gone)));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("plain"), "not a program").unwrap();
    fs::write(path("script"), "#!/no/such/interpreter\n").unwrap();
    std::os::unix::fs::symlink("/bin/true", path("true")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path("script"), mode).unwrap();
    fs::copy("/bin/true", path("secret")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(path("secret"), mode).unwrap();
    let cwd = |cwd: String| TaskTemplate { cwd: Some(cwd), ..argv(&["./true"]) };
    let env = |name: &str, value: &str| TaskTemplate { env: [(name.into(), value.into())].into(), ..sleeper() };
    let cases = [
        (argv(&["no-such-command-anywhere"]), "the command `no-such-command-anywhere` was not found"),
        (argv(&["/no/such/path"]), "the command `/no/such/path` was not found"),
        (argv(&[&path("plain")]), "permission denied"),
        (argv(&[&path("script")]), "what its first line names"),
        (cwd(path("nowhere")), "nowhere` cannot be used: No such file"),
        (cwd(path("plain")), "plain` cannot be used: not a directory"),
        (argv(&[]), "no command is given"),
        (TaskTemplate::default(), "no command is given"),
        (TaskTemplate { image: Some("redis:7".into()), ..sleeper() }, "the image `redis:7` is given"),
        (env("A=B", "x"), "the environment variable `A=B`"),
        (env("A", "x\0y"), "the environment variable `A`"),
        (argv(&["echo", "a\0b"]), "could not be started"),
        (run_as("no such one", sleeper()), "the user `no such one`: there is no such account"),
        (run_as("nobody:no such one", sleeper()), "there is no group `no such one`"),
        (run_as("nobody", argv(&[&path("secret")])), "may not be run as the user `nobody`"),
    ];
    let mut fixture = Fixture::new("refusals", LocalConfig::default()).await;
    for (n, (template, expected)) in cases.into_iter().enumerate() {
        let id = format!("task-{n}");
        fixture.launch(&id, template).await;
        let Exit::NotStarted { reason } = fixture.gone(&id).await else { panic!("{id} was started") };
        assert!(reason.contains(expected), "expected `{expected}`, got `{reason}`");
    }
    // The same folder and command, both right: relative to it, the command is found.
    fixture.launch("good", cwd(path(""))).await;
    assert_eq!(fixture.gone("good").await, Exit::Code { code: 0 });
}

#[tokio::test]
async fn a_launch_comes_after_recover_and_before_shutdown() {
    let backend = LocalBackend::new(LocalConfig::default()).unwrap();
    let request = || vec![request(&policy("order"), "early", sleeper())];
    assert!(matches!(backend.launch(request()).await, Err(BackendError::Unavailable { .. })));
    let (sender, _updates) = mpsc::channel(8);
    backend.recover(Vec::new(), sender.clone()).await.unwrap();
    assert!(matches!(backend.recover(Vec::new(), sender).await, Err(BackendError::Refused { .. })));
    backend.shutdown(true).await;
    assert!(matches!(backend.launch(request()).await, Err(BackendError::Unavailable { .. })));
    let missing = LocalConfig { mark: Some("/no/such/folder".into()), ..LocalConfig::default() };
    assert!(LocalBackend::new(missing).unwrap_err().to_string().contains("`/no/such/folder`"));
}

#[tokio::test]
async fn a_shell_gets_its_text_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let mut fixture = Fixture::new("shell", logging(&folder)).await;
    let template = TaskTemplate {
        env: BTreeMap::from([("HOME".into(), "/ho me".into())]),
        ..shell(r#"echo "{\"a\":1} ${HOME}"; printf '%s\n' 'ü %s \n' >&2"#)
    };
    fixture.launch("quiet", shell(":")).await;
    fixture.launch("loud", TaskTemplate { output: Output::Null, ..shell("echo lost") }).await;
    fixture.launch("a/b", template).await;
    for id in ["quiet", "loud", "a/b"] {
        assert_eq!(fixture.gone(id).await, Exit::Code { code: 0 }, "{id}");
    }
    let logs = folder.path().join("logs").join(fixture.policy.as_str());
    assert_eq!(fs::read_to_string(logs.join("a~b.log")).unwrap(), "{\"a\":1} /ho me\nü %s \\n\n");
    // A log without a word is not kept, and no log is made for what goes nowhere.
    assert_eq!(fs::read_dir(logs).unwrap().count(), 1);
}

/// Root's host runs commands as others, with all that is theirs and nothing that is root's, its environment included.
#[tokio::test]
async fn a_command_runs_as_its_user() {
    let folder = TempDir::new().unwrap();
    let mut fixture = Fixture::new("user", logging(&folder)).await;
    let who = r#"echo "$(id -un) $(id -gn) [$(id -Gn)] $USER $LOGNAME $HOME"; grep -E '^(Uid|Gid|CapEff):' /proc/self/status"#;
    let nobody = run_as("nobody", shell(who));
    let own_home = TaskTemplate { env: [("HOME".into(), "/ho me".into())].into(), ..nobody.clone() };
    let cases = [
        ("name", nobody, "nobody nogroup [nogroup] nobody nobody /nonexistent"),
        ("home", own_home, "nobody nogroup [nogroup] nobody nobody /ho me"),
        ("group", run_as("nobody:daemon", shell(who)), "nobody daemon [daemon] nobody nobody /nonexistent"),
    ];
    for (id, template, expected) in cases {
        fixture.launch(id, template).await;
        assert_eq!(fixture.gone(id).await, Exit::Code { code: 0 }, "{id}");
        let log = folder.path().join("logs").join(fixture.policy.as_str()).join(format!("{id}.log"));
        let log = fs::read_to_string(log).unwrap();
        let (first, status) = log.split_once('\n').unwrap();
        assert_eq!(first, expected, "{id}");
        let expected_uid = "Uid:\t65534\t65534\t65534\t65534\n";
        assert!(status.contains(expected_uid) && status.contains("CapEff:\t0000000000000000\n"), "{id}: {status}");
    }
    let rest = TaskTemplate { env: [("GREETING".into(), "hello".into())].into(), ..shell("env >/dev/stderr") };
    fixture.launch("rest", run_as("nobody", rest)).await;
    assert_eq!(fixture.gone("rest").await, Exit::Code { code: 0 }, "its log is its own to open");
    let log = folder.path().join("logs").join(fixture.policy.as_str()).join("rest.log");
    let log = fs::read_to_string(log).unwrap();
    let names: BTreeSet<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let told = ["USER", "LOGNAME", "HOME", "GREETING", "SETPOINT_TASK_ID", "SETPOINT_POLICY", "PATH"];
    assert!(told.iter().all(|name| names.contains(name)), "{log}");
    let of_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let may_be = ["LANG", "TZ", "TERM", "SETPOINT_PORTS", "SETPOINT_RUN"];
    let is_known = |name: &str| [&told[..], &of_shell, &may_be].concat().contains(&name) || name.starts_with("LC_");
    assert!(std::env::vars().any(|(name, _)| !is_known(&name)), "there is something to keep from it");
    assert!(names.iter().all(|name| is_known(name)), "{log}");
    // Its end is ours to order all the same.
    fixture.launch("deaf", run_as("nobody", shell("trap '' TERM; echo deaf; while :; do sleep 0.1; done"))).await;
    fixture.running("deaf").await;
    let log = folder.path().join("logs").join(fixture.policy.as_str()).join("deaf.log");
    while fs::read(&log).unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.kill("deaf", Duration::from_millis(50)).await;
    assert_eq!(fixture.gone("deaf").await, Exit::Signal { signal: 9 });
}

#[tokio::test]
async fn a_task_knows_its_name_and_its_ports() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("work")).unwrap();
    let mut fixture = Fixture::new("env", LocalConfig { ports: quiet_ports(8), ..logging(&folder) }).await;
    let mut template = with_ports(
        shell("echo $SETPOINT_TASK_ID $SETPOINT_POLICY $GREETING $PORT_HTTP $PORT_MY_ADMIN; pwd"),
        &["http", "my-admin"],
    );
    template.env = [("GREETING", "hello"), ("SETPOINT_TASK_ID", "forged")].map(|(k, v)| (k.into(), v.into())).into();
    template.cwd = Some("work".into());
    let request = LaunchRequest { base: Some(folder.path().into()), ..request(&fixture.policy, "env-1", template) };
    fixture.backend.launch(vec![request]).await.unwrap();
    assert_eq!(fixture.gone("env-1").await, Exit::Code { code: 0 });
    let ports = fixture.running("env-1").await.ports;
    let log = folder.path().join("logs").join(fixture.policy.as_str()).join("env-1.log");
    let expected = format!(
        "env-1 {} hello {} {}\n{}\n",
        fixture.policy,
        ports["http"],
        ports["my-admin"],
        folder.path().join("work").canonicalize().unwrap().display()
    );
    assert_eq!(fs::read_to_string(log).unwrap(), expected);
    assert_ne!(ports["http"], ports["my-admin"]);
}

#[tokio::test]
async fn ports_run_out_and_come_back() {
    let range = quiet_ports(4);
    let mut fixture = Fixture::new("ports", LocalConfig { ports: range.clone(), ..LocalConfig::default() }).await;
    // Somebody else listens on one of them.
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, *range.start())).unwrap();
    let mut taken = BTreeSet::from([other.local_addr().unwrap().port()]);
    for id in ["p1", "p2", "p3"] {
        fixture.launch(id, with_ports(sleeper(), &["http"])).await;
        let port = fixture.running(id).await.ports["http"];
        assert!(range.contains(&port) && taken.insert(port), "{port} of {range:?}, taken {taken:?}");
    }
    fixture.launch("p4", with_ports(sleeper(), &["http"])).await;
    let Exit::NotStarted { reason } = fixture.gone("p4").await else { panic!("there was no port left") };
    assert!(reason.contains("no free port"), "{reason}");
    fixture.kill("p2", LONG).await;
    fixture.gone("p2").await;
    fixture.launch("p5", with_ports(sleeper(), &["http"])).await;
    let freed = fixture.running("p2").await.ports;
    assert_eq!(fixture.running("p5").await.ports, freed);
}

#[tokio::test]
async fn the_same_id_starts_one_task() {
    let mut fixture = Fixture::new("twice", LocalConfig::default()).await;
    let twice = || vec![request(&fixture.policy, "one", sleeper()), request(&fixture.policy, "one", sleeper())];
    fixture.backend.launch(twice()).await.unwrap();
    fixture.backend.launch(twice()).await.unwrap();
    fixture.running("one").await;
    // Tasks start in turn, so a second one would be there by the time that another has been through.
    fixture.launch("after", shell("exit 0")).await;
    fixture.gone("after").await;
    assert_eq!(processes(&fixture.policy, "one").len(), 1);
    fixture.kill("one", LONG).await;
    assert_eq!(fixture.gone("one").await, Exit::Signal { signal: 15 });
    fixture.launch("one", sleeper()).await;
    fixture.launch("last", shell("exit 0")).await;
    fixture.gone("last").await;
    assert_eq!(fixture.states("one"), [TaskState::Staging, TaskState::Running, TaskState::Killing, TaskState::Gone]);
    fixture.kill("never", LONG).await;
    assert_eq!(fixture.gone("never").await, Exit::Unknown);
}

#[tokio::test]
async fn a_kill_takes_the_whole_group_and_does_not_ask_twice() {
    let folder = TempDir::new().unwrap();
    let mut fixture = Fixture::new("group", LocalConfig::default()).await;
    let file = |name: &str| folder.path().join(name);
    let at = |name: &str| file(name).to_str().unwrap().to_owned();

    // A leader with a grandchild, all of which end when they are asked to; the leader in its own good way.
    let polite = format!("trap 'exit 5' TERM; (sleep 1000; :) & : >{}; while :; do wait; done", at("polite"));
    fixture.launch("polite", shell(&polite)).await;
    says_so(&file("polite")).await;
    eventually("the grandchild is there", || 3 <= processes(&fixture.policy, "polite").len()).await;
    fixture.kill("polite", LONG).await;
    assert_eq!(fixture.gone("polite").await, Exit::Code { code: 5 });
    assert_eq!(processes(&fixture.policy, "polite"), BTreeSet::new());

    // None of them listens: they are killed, after the grace and not before.
    let deaf = format!("trap '' TERM; sleep 1000 & : >{}; wait", at("deaf"));
    fixture.launch("deaf", shell(&deaf)).await;
    says_so(&file("deaf")).await;
    let (grace, asked) = (Duration::from_millis(300), Instant::now());
    fixture.kill("deaf", grace).await;
    fixture.reaches("deaf", TaskState::Killing).await;
    assert_eq!(fixture.gone("deaf").await, Exit::Signal { signal: 9 });
    assert!(grace <= asked.elapsed());
    assert_eq!(processes(&fixture.policy, "deaf"), BTreeSet::new());

    // One that is stopped hears TERM when it goes on, and is made to; KILL it need not hear. A shorter grace of a
    // second kill counts.
    for (id, text, exit) in [("stopped", "", 15), ("stopped-deaf", "trap '' TERM;", 9)] {
        let text = format!("{text} : >{}; while :; do sleep 0.1; done", at(id));
        fixture.launch(id, shell(&text)).await;
        says_so(&file(id)).await;
        let pid = fixture.running(id).await.pid.unwrap().cast_signed();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
        eventually("it is stopped", || stat(pid).state == "T").await;
        fixture.kill(id, LONG).await;
        fixture.reaches(id, TaskState::Killing).await;
        if exit == 9 {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
            fixture.kill(id, Duration::ZERO).await;
        }
        assert_eq!(fixture.gone(id).await, Exit::Signal { signal: exit }, "{id}");
    }
}

#[tokio::test]
async fn what_a_leader_leaves_behind_is_ended_before_it_is_gone() {
    let config = LocalConfig { leftover_grace: Duration::from_millis(100), ..LocalConfig::default() };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("deaf");
    let mut fixture = Fixture::new("leftovers", config).await;
    fixture.launch("polite", shell("sleep 1000 & exit 7")).await;
    let deaf = "(trap '' TERM; : >\"$0\"; sleep 1000; sleep 1000) & while [ ! -e \"$0\" ]; do sleep 0.01; done; exit 8";
    fixture.launch("deaf", argv(&["sh", "-c", deaf, file.to_str().unwrap()])).await;
    for (id, code) in [("polite", 7), ("deaf", 8)] {
        assert_eq!(fixture.gone(id).await, Exit::Code { code });
        assert_eq!(processes(&fixture.policy, id), BTreeSet::new());
    }
}

#[tokio::test]
async fn two_hundred_at_once_lose_no_update() {
    // Room for one update: every sender has to wait for its turn.
    let mut fixture = Fixture::with_room("many", LocalConfig::default(), Vec::new(), 1).await;
    let ids: Vec<String> = (0..200).map(|n| format!("many-{n:03}")).collect();
    let requests = ids.iter().map(|id| request(&fixture.policy, id, sleeper())).collect();
    fixture.backend.launch(requests).await.unwrap();
    let mut pids = BTreeSet::new();
    for id in &ids {
        pids.insert(fixture.running(id).await.pid.unwrap());
    }
    assert_eq!(pids.len(), 200);
    let stats = fixture.backend.stats(ids.iter().map(|id| TaskId::from(&**id)).collect()).await.unwrap();
    assert_eq!(stats.len(), 200);
    let backend = Arc::clone(&fixture.backend);
    let stopped = tokio::spawn(async move { backend.shutdown(true).await });
    for id in &ids {
        assert_eq!(fixture.gone(id).await, Exit::Signal { signal: 15 });
        assert_eq!(fixture.states(id).len(), 4);
    }
    tokio::time::timeout(LIMIT, stopped).await.unwrap().unwrap();
    assert!(pids.into_iter().all(|pid| !is_running(pid)));
}

#[tokio::test]
async fn a_shutdown_ends_the_deaf_although_nobody_listens() {
    let folder = TempDir::new().unwrap();
    let config = LocalConfig { stop_grace: Duration::from_millis(100), ..on(&folder) };
    let mut fixture = Fixture::with_room("deaf-exit", config, Vec::new(), 1).await;
    let file = folder.path().join("ready");
    let text = format!("trap '' TERM; : >{}; while :; do sleep 0.1; done", file.display());
    fixture.launch("deaf", shell(&text)).await;
    let pid = fixture.running("deaf").await.pid.unwrap();
    says_so(&file).await;
    tokio::time::timeout(LIMIT, fixture.backend.shutdown(true)).await.unwrap();
    assert!(!is_running(pid));
}
