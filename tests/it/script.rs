//! The script host through its public door: the policy table, calls, `ctx`, state, fleets, errors.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use setpoint::core::decision::{Bounds, Scripted};
use setpoint::core::intent::Intent;
use setpoint::core::mesos::Want;
use setpoint::core::model::{Placement, Point, PolicyName, Sample, TaskId, TaskState, TaskStats};
use setpoint::core::policy::{
    Actuator, Command, Confirm, Control, Gains, LawSpec, OnMissing, Ready, Side, StepLimit, StepTier, Target,
    Tolerance, Tuning,
};
use setpoint::core::time::Timestamp;
use setpoint::script::error::ScriptErrorKind;
use setpoint::script::{
    Content, Ctx, Fleet, Hook, Limits, LoadRequest, LoadedFile, LoadedPolicy, Mode, ParamValue, Permissions,
    ScriptError, ScriptHost, TaskView,
};

/// Generous: the machine may be busy, and no test is about speed.
pub(crate) const WALL: Duration = Duration::from_secs(30);

/// A host for tests, with a folder for files.
pub(crate) struct Bench {
    pub(crate) host: ScriptHost,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Limits { cpu: Duration::from_millis(200), load_cpu: Duration::from_secs(2), ..Limits::default() })
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let permissions = Permissions::default();
        let host = ScriptHost::new(
            limits,
            permissions,
            setpoint::script::Natives::default(),
            tokio::runtime::Handle::current(),
            2,
        )
        .expect("script threads");
        Self { host, folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn request(&self, source: &str) -> LoadRequest {
        LoadRequest {
            path: self.folder.path().join("p.lua"),
            name: "p".to_owned(),
            source: Some(source.to_owned()),
            params: BTreeMap::new(),
            backends: vec!["local".to_owned(), "docker".to_owned()],
        }
    }

    pub(crate) async fn load(&self, source: &str) -> Result<LoadedFile, Vec<ScriptError>> {
        self.host.load(self.request(source)).await
    }

    pub(crate) async fn policy(&self, source: &str) -> LoadedPolicy {
        match self.load(source).await {
            Ok(LoadedFile { content: Content::Policy(policy), .. }) => policy,
            Ok(_) => panic!("a fleet"),
            Err(errors) => panic!("{}", reports(&errors)),
        }
    }

    /// A policy with these fields beside a small workload.
    pub(crate) async fn with_fields(&self, prelude: &str, fields: &str) -> LoadedPolicy {
        self.policy(&policy(prelude, fields)).await
    }

    async fn fleet(&self, source: &str) -> Arc<dyn Fleet> {
        match self.load(source).await {
            Ok(LoadedFile { content: Content::Fleet(fleet), .. }) => fleet,
            Ok(_) => panic!("one policy"),
            Err(errors) => panic!("{}", reports(&errors)),
        }
    }

    /// The messages of a load that fails, with the folder's name taken out.
    async fn refused(&self, source: &str) -> Vec<String> {
        let Err(errors) = self.load(source).await else { panic!("loaded: {source}") };
        let folder = format!("{}/", self.folder.path().display());
        errors.iter().map(|error| error.report().replace(&folder, "")).collect()
    }
}

/// A policy's source: `prelude`, then a table with a small workload and `fields`.
pub(crate) fn policy(prelude: &str, fields: &str) -> String {
    format!("{prelude}\nreturn {{\n  workload = {{ command = \"sleep 60\", max = 10 }},\n  {fields}\n}}\n")
}

pub(crate) fn reports(errors: &[ScriptError]) -> String {
    errors.iter().map(ScriptError::report).collect::<Vec<_>>().join("\n")
}

pub(crate) fn ctx() -> Arc<Ctx> {
    static CTX: OnceLock<Arc<Ctx>> = OnceLock::new();
    Arc::clone(CTX.get_or_init(|| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let task = |name: &str| TaskView {
            id: TaskId::from(name),
            policy: PolicyName::from("p"),
            backend: "local".into(),
            state: TaskState::Running,
            ready: true,
            helper: false,
            placement: Placement {
                host: Some("here".to_owned()),
                ports: BTreeMap::from([("http".to_owned(), 31_000)]),
                pid: Some(7),
                ..Placement::default()
            },
            started: now - Duration::from_secs(90),
            stats: TaskStats { cpu_percent: Some(12.5), pids: Some(3), ..TaskStats::default() },
            by: "law",
            slot: Some(0),
        };
        let point = |at, value| Point { at: Timestamp::from_millis(at), value, setpoint: 5.0 };
        Arc::new(Ctx {
            policy: PolicyName::from("p"),
            now,
            tick: 3,
            sample: Some(Sample::value(4.0)),
            setpoint: Some(5.0),
            history: Arc::new(VecDeque::from([point(1000, 3.0), point(2000, 4.0)])),
            tasks: Arc::new(vec![task("p-1"), task("p-2")]),
            running: 2,
            in_flight: 1,
            desired: 3,
            bounds: Bounds { min: 0, max: 10 },
        })
    }))
}

fn on_path(error: &ScriptError, bench: &Bench) -> String {
    error.report().replace(&format!("{}/", bench.folder.path().display()), "")
}

#[tokio::test]
async fn a_policy_observes_and_acts() {
    let bench = Bench::new();
    let source = r#"
        local p = require("setpoint.params") { list = "jobs", high = 40 }
        return {
          interval = "1s",
          workload = { command = { "sleep", "60" }, max = p.high, ports = { http = 8080 }, env = { A = "b" } },
          control = { per_task = 5, tolerance = "10%", cooldown = { down = "30s" } },
          metric = function(ctx) return ctx.running + ctx.params.high, 2 end,
          target = function(ctx) return ctx.sample / 2 end,
          warmer = function(n, ctx)
            assert(ctx.workload:launch(n) == n)
            ctx.workload:launch(1, { command = "date", count = false })
            ctx.workload:launch(1, { env = { C = "d" } })
          end,
          cooler = function(n, ctx)
            ctx.workload:kill(n)
            ctx.workload:kill(ctx.tasks[1])
            ctx.workload:kill({ "p-2", ctx.tasks[1] })
            return n
          end,
        }"#;
    let mut request = bench.request(source);
    request.params.insert("high".to_owned(), "12".to_owned());
    let file = bench.host.load(request).await.map_err(|errors| reports(&errors)).unwrap();
    assert_eq!(file.params[0].value, ParamValue::Number(12.0));
    assert_eq!(file.params[0].default, ParamValue::Number(40.0));
    assert_eq!(file.params[1].value, ParamValue::Text("jobs".to_owned()));
    assert_eq!(file.sha256.len(), 64);
    let Content::Policy(policy) = file.content else { panic!("a fleet") };
    assert_eq!(policy.spec.workload.max, 12);
    let seen = policy.script.observe(ctx(), WALL).await;
    assert_eq!(seen.errors, []);
    assert_eq!(seen.sample, Sample::Value { value: 14.0, age: Duration::from_secs(2), reported: None });
    assert_eq!(seen.setpoint, Some(7.0), "target sees this tick's sample");

    let warmed = policy.script.act(Hook::Warmer, 2, ctx(), Mode::Live, WALL).await;
    assert_eq!(warmed.error, None);
    let [Intent::Launch { n: 2, template: None, count: true }, helper, changed] = &warmed.intents[..] else {
        panic!("{:?}", warmed.intents)
    };
    let Intent::Launch { n: 1, template: Some(template), count: false } = helper else { panic!("{helper:?}") };
    assert_eq!(template.command, Some(Command::Shell("date".to_owned())));
    assert!(template.ports.is_empty(), "a task with a command of its own inherits nothing");
    let Intent::Launch { template: Some(template), count: true, .. } = changed else { panic!("{changed:?}") };
    assert_eq!((template.ports.len(), template.env.get("C").map(String::as_str)), (1, Some("d")));

    let cooled = policy.script.act(Hook::Cooler, 2, ctx(), Mode::Live, WALL).await;
    assert_eq!((cooled.error, cooled.accepted), (None, Some(2)));
    let ids = |names: &[&str]| names.iter().map(|name| TaskId::from(*name)).collect::<Vec<_>>();
    let expected = [
        Intent::Kill { n: 2 },
        Intent::KillTasks { tasks: ids(&["p-1"]) },
        Intent::KillTasks { tasks: ids(&["p-2", "p-1"]) },
    ];
    assert_eq!(cooled.intents, expected);
}

#[tokio::test]
async fn every_field_of_the_table_reaches_the_spec() {
    let bench = Bench::new();
    let policy = bench
        .policy(
            r#"return {
          interval = { min = "5s", max = "2m", grow = 2 },
          workload = {
            backend = "docker", kind = "jobs", effect = "heats", min = 1, max = 20, image = "redis:7",
            env = { N = 3 }, cpus = 0.5, memory = "64MiB", disk = "1GB", ports = { "http", "admin" },
            labels = { a = "b" }, ready = "5s", grace = "3s", executor = "setpoint", on_end = "keep", on_gone = "keep",
            replace = "rolling", cwd = "work", output = "null",
          },
          control = {
            law = "step", steps = { { above = 80, add = 1 }, { below = 40, remove = 2 } }, hysteresis = 5,
            tolerance = 2, cooldown = "10s", stabilization = { down = "5m" },
            step = { up = { tasks = 4, percent = 100, per = "15s" }, down = "50%" }, confirm = { n = 2, of = 3 },
            ramp = 3, lag = "20s", lookback = 10, flap = { changes = 8, per = "10m" }, stale_after = "1m",
            on_missing = { fallback = 4, after = "5m" },
          },
          metric = function() return 1 end,
          warmer = "run-one", cooler = { command = { "run", "two" }, cpus = 1 },
          victims = function() end, drain = function() end, stop = function() end, migrate = function() end,
          max_failures = 3, backoff = { min = "2s", max = "1m" }, max_helpers = 2, shadow = "other.lua",
          simulate = { metric = function() end },
        }"#,
        )
        .await;
    let spec = &policy.spec;
    let seconds = Duration::from_secs;
    assert_eq!((spec.interval.min, spec.interval.max, spec.interval.grow), (seconds(5), seconds(120), 2.0));
    let workload = &spec.workload;
    assert_eq!((workload.min, workload.max, workload.grace), (1, 20, seconds(3)));
    assert_eq!(workload.ready, Ready::After(seconds(5)));
    let task = &workload.template;
    assert_eq!((task.memory, task.disk, task.cpus), (Some(64 << 20), Some(1_000_000_000), Some(0.5)));
    assert_eq!(task.env.get("N").map(String::as_str), Some("3"));
    assert_eq!(task.ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["http", "admin"]);
    let control = &spec.control;
    let tiers =
        vec![StepTier { side: Side::Above, at: 80.0, adjust: 1 }, StepTier { side: Side::Below, at: 40.0, adjust: -2 }];
    assert_eq!(control.law, LawSpec::Step { tiers, hysteresis: 5.0 });
    assert_eq!(control.tolerance, Tolerance::Absolute(2.0));
    assert_eq!((control.cooldown.up, control.cooldown.down), (seconds(10), seconds(10)));
    assert_eq!((control.stabilization.up, control.stabilization.down), (seconds(0), seconds(300)));
    assert_eq!(control.step.up, Some(StepLimit { tasks: Some(4), fraction: Some(1.0), per: Some(seconds(15)) }));
    assert_eq!(control.step.down, Some(StepLimit { tasks: None, fraction: Some(0.5), per: None }));
    assert_eq!(control.confirm, Some(Confirm::Window { n: 2, of: 3 }));
    assert_eq!(control.on_missing, OnMissing::Fallback { n: 4, after: seconds(300) });
    assert_eq!((control.ramp, control.lookback, control.lag), (3, 10, seconds(20)));
    let hooks = &spec.hooks;
    assert!(hooks.metric && hooks.victims && hooks.drain && hooks.stop && hooks.migrate && !hooks.decide);
    assert_eq!(hooks.target, Target::Absent);
    let Actuator::Task(task) = &hooks.warmer else { panic!("{:?}", hooks.warmer) };
    assert_eq!(task.command, Some(Command::Shell("run-one".to_owned())));
    assert!(matches!(&hooks.cooler, Actuator::Task(_)));
    assert_eq!((spec.max_failures, spec.max_helpers), (Some(3), 2));
}

#[tokio::test]
async fn defaults_are_those_of_the_documentation() {
    let bench = Bench::new();
    let policy = bench.with_fields("", "metric = function() end, target = 3").await;
    let spec = &policy.spec;
    assert_eq!(spec.interval.min, Duration::from_secs(15));
    assert_eq!(spec.control.law, LawSpec::Adaptive(Tuning { per_task: 1.0, season: None }));
    assert_eq!((spec.control.lookback, spec.control.ramp), (64, 1));
    assert_eq!(spec.workload.backend, "local");
    assert_eq!(spec.backoff.max, Duration::from_secs(300));
    let relay = bench.with_fields("", "control = { law = 'relay' }, metric = function() end, target = 3").await;
    assert_eq!(relay.spec.control.lookback, 1000);
    let count = bench.policy("return { workload = { command = 'x' }, control = { law = 'count', n = 4 } }").await;
    assert_eq!(count.spec.workload.max, 4);
    let decide = bench.with_fields("", "decide = function(ctx) return { desired = ctx.running + 1 } end").await;
    assert_eq!(decide.spec.control.law, LawSpec::Decide);
    assert_eq!(decide.script.observe(ctx(), WALL).await.scripted, Some(Scripted::Desired(3.0)));
}

#[tokio::test]
async fn each_law_has_its_own_keys_and_defaults() {
    let bench = Bench::new();
    let seconds = Duration::from_secs;
    let cases = [
        ("law = 'adaptive', per_task = 5, season = '1d'", {
            Control::new(LawSpec::Adaptive(Tuning { per_task: 5.0, season: Some(seconds(86_400)) }))
        }),
        ("law = 'pid', per_task = 5", Control::new(LawSpec::Pid(Gains::new(5.0, Some(0.2), 0.0, 0.0)))),
        ("law = 'pid', kp = 4, ki = 0.5", Control::new(LawSpec::Pid(Gains::new(0.25, Some(4.0), 0.5, 0.0)))),
        ("law = 'pid', per_task = 2, kp = 1, kd = 16", {
            Control::new(LawSpec::Pid(Gains { per_task: 2.0, kp: 1.0, ki: 0.0, kd: 16.0, filter: seconds(2) }))
        }),
        ("law = 'pid', kd = 16, filter = '5s'", {
            Control::new(LawSpec::Pid(Gains { per_task: 1.0, kp: 1.0, ki: 0.0, kd: 16.0, filter: seconds(5) }))
        }),
        // The HPA's tolerance and guards, unless they are given.
        ("law = 'ratio'", Control::new(LawSpec::Ratio { tolerance: 0.1 })),
        ("law = 'ratio', tolerance = '5%'", Control::new(LawSpec::Ratio { tolerance: 0.05 })),
        ("law = 'ratio', tolerance = 0.2, stabilization = '0s', step = { up = 3 }", {
            let mut control = Control::new(LawSpec::Ratio { tolerance: 0.2 });
            control.stabilization.down = Duration::ZERO;
            control.step.up = Some(StepLimit { tasks: Some(3), fraction: None, per: None });
            control.step.down = None;
            control
        }),
    ];
    for (source, expected) in cases {
        let fields = format!("control = {{ {source} }}, metric = function() end, target = 3");
        assert_eq!(bench.with_fields("", &fields).await.spec.control, expected, "{source}");
    }
    let hpa = Control::new(LawSpec::Ratio { tolerance: 0.1 });
    assert_eq!((hpa.stabilization.up, hpa.stabilization.down), (Duration::ZERO, seconds(300)));
}

#[tokio::test]
async fn every_problem_of_a_table_is_told_at_once_with_its_place() {
    let bench = Bench::new();
    let reports = bench
        .refused(
            "return {\n  interval = 15,\n  workload = { command = \"x\", min = 5, max = 3, memory = 64, bakend = 1 },\n  control = \
             {\n    cooldown = { dwon = \"3s\" },\n    lag = \"3 parsecs\",\n  },\n  metric = 3,\n  target = \"80%\",\n  \
             warmr = print,\n}\n",
        )
        .await;
    insta::assert_snapshot!(reports.join("\n\n"));
}

#[tokio::test]
async fn tables_that_mean_nothing_are_refused() {
    let bench = Bench::new();
    let fields = "metric = function() end, target = 1";
    for (source, expected) in [
        ("return 3".to_owned(), "expected the file to return a policy table (`return { … }`), got number 3"),
        ("local x = 1".to_owned(), "got nil"),
        (policy("", "target = 1"), "the law \"adaptive\" needs the function metric(ctx)"),
        (policy("", "metric = function() end"), "needs a target"),
        (policy("", &format!("{fields}, control = {{ season = '5s' }}")), "expected at least \"10m\""),
        (policy("", &format!("{fields}, control = {{ law = 'pid', kd = -1 }}")), "expected at least 0, got number -1"),
        (policy("", &format!("{fields}, control = {{ law = 'ratio', tolerance = -1 }}")), "expected at least 0"),
        (policy("", &format!("{fields}, control = {{ law = 'reley' }}")), "hint: did you mean `relay`?"),
        (policy("", &format!("{fields}, control = {{ law = 'decide' }}")), "decide: the law \"decide\" needs"),
        (policy("", &format!("{fields}, control = {{ law = 'step' }}")), "needs thresholds"),
        (policy("", &format!("{fields}, control = {{ per_task = 0 }}")), "expected more than 0, got number 0"),
        (policy("", &format!("{fields}, control = {{ per_task = 0/0 }}")), "expected a finite number, got NaN"),
        (policy("", &format!("{fields}, control = {{ confirm = {{ n = 3, of = 2 }} }}")), "expected at least n (3)"),
        (policy("", &format!("{fields}, control = {{ on_missing = 'scale' }}")), "expected \"hold\""),
        (policy("", &format!("{fields}, interval = '10ms'")), "expected at least 50 ms, got 10ms"),
        (policy("", &format!("{fields}, interval = {{ min = '5s', max = '1s' }}")), "at least interval.min"),
        (policy("", &format!("{fields}, backoff = {{ min = '0s' }}")), "expected more than 0"),
        (format!("return {{ {fields} }}"), "workload: expected a table"),
        (format!("return {{ workload = {{ command = 'x' }}, {fields} }}"), "workload.max: expected the most tasks"),
        (format!("return {{ workload = {{ max = 1 }}, {fields} }}"), "workload.command: expected a command"),
        (format!("return {{ workload = {{ command = {{}}, max = 1 }}, {fields} }}"), "got an empty list"),
        (format!("return {{ workload = {{ backend = 'mesos', max = 1 }}, {fields} }}"), "\"local\" or \"docker\" or"),
        (format!("return {{ workload = {{ backend = 'none', max = 1 }}, {fields} }}"), "workload.count"),
        (
            format!(
                "return {{ workload = {{ image = 'x', executor = 'setpoint', max = 1, \
                 mesos = {{ containerizer = 'mesos' }} }}, {fields} }}"
            ),
            "workload.mesos.containerizer: \"mesos\" is for the cluster's own executors",
        ),
        (
            format!("return {{ workload = {{ command = 'x', max = 1, ports = {{ http = 0 }} }}, {fields} }}"),
            "a port from",
        ),
        (format!("return {{ workload = {{ command = 'x', max = 1, ports = {{ 'a', 'A' }} }}, {fields} }}"), "twice"),
        (
            format!("return {{ workload = {{ command = 'x', max = -1 }}, {fields} }}"),
            "from 0 to 1000000, got number -1",
        ),
        (format!("return {{ workload = {{ command = 'x', max = 1.5 }}, {fields} }}"), "expected a whole number"),
        (format!("return {{ workload = {{ command = 'x', max = 1e308 }}, {fields} }}"), "expected a whole number"),
        ("return setpoint.fleet { discover = print }".to_owned(), "policy: a fleet needs this function"),
        ("return setpoint.fleet(3)".to_owned(), "setpoint.fleet: expected a table, got number 3"),
        ("return setpoint.feet {}".to_owned(), "`setpoint` has no `feet`"),
    ] {
        let reports = bench.refused(&source).await.join("\n");
        assert!(reports.contains(expected), "{source}\n--- expected {expected}\n--- got {reports}");
    }
    let limited = Permissions { allow_backends: Some(vec!["docker".to_owned()]), ..Permissions::default() };
    let host = ScriptHost::new(
        Limits::default(),
        limited,
        setpoint::script::Natives::default(),
        tokio::runtime::Handle::current(),
        1,
    )
    .unwrap();
    let Err(errors) = host.load(bench.request(&policy("", fields))).await else { panic!("allowed") };
    assert!(reports(&errors).contains("does not allow \"local\""), "{}", reports(&errors));
    let mut missing = bench.request("");
    missing.source = None;
    let Err(errors) = bench.host.load(missing).await else { panic!("loaded") };
    assert_eq!(errors[0].kind, ScriptErrorKind::Io);
}

/// A workload on Mesos, and what loading it comes to.
async fn on_mesos(bench: &Bench, words: &str, fields: &str) -> Result<(Vec<String>, LoadedPolicy), String> {
    let source = format!(
        "return {{ workload = {{ backend = 'mesos', max = 1, {words} }}, control = {{ law = 'decide' }}, \
         decide = function() return {{ desired = 1 }} end, {fields} }}"
    );
    let mut request = bench.request(&source);
    request.backends.push("mesos".to_owned());
    match bench.host.load(request).await {
        Ok(LoadedFile { warnings, content: Content::Policy(policy), .. }) => Ok((warnings, policy)),
        Ok(_) => panic!("a fleet"),
        Err(errors) => Err(reports(&errors)),
    }
}

#[tokio::test]
async fn words_that_a_mesos_cluster_could_only_fail_at_are_refused() {
    let bench = Bench::new();
    let own = "mesos = { containerizer = 'mesos' }";
    for (words, expected) in [
        ("command = 'x', user = 'etl:data'", "workload.user: expected a user's name alone, by which agents look it up"),
        ("command = 'x', user = '1000'", "got \"1000\""),
        (&format!("image = 'i', user = 'a:b', {own}"), "workload.user: expected a user's name alone"),
        ("image = 'i', pull = 'never'", "workload.pull: expected \"missing\" or \"always\" on Mesos, got \"never\""),
        (
            "image = 'i', volumes = { './x:/y' }",
            "workload.volumes: expected an absolute path or a volume's name on Mesos",
        ),
        (&format!("image = 'i', volumes = {{ 'cache:/y' }}, {own}"), "expected an absolute path without Docker"),
        ("command = 'x', volumes = { 'cache:/y' }", "expected an absolute path without Docker, got \"cache\""),
        ("command = 'x', network = 'none'", "workload.network: expected a network's name or \"host\""),
        ("command = 'x', executor = 'setpoint', volumes = { '/x:/y' }", "workload.volumes: is for the cluster's own"),
        ("command = 'x', executor = 'setpoint', network = 'n'", "workload.network: \"n\" is for the cluster's own"),
        (
            "image = 'i', executor = 'setpoint', parameters = { 'init=true', 'cap-drop=ALL' }",
            "workload.parameters: executor = \"setpoint\" does not know the option \"cap-drop\"; it knows entrypoint, env,",
        ),
        ("command = 'x', mesos = { resources = { gpus = 0.5 } }", "gpus: expected a whole number of more than 0"),
        ("command = 'x', mesos = { resources = { gpus = { any = 1 } } }", "gpus: expected a whole number"),
        ("command = 'x', mesos = { resources = { nics = { 'eth0', 7 } } }", "nics: expected items as text, or whole"),
        ("command = 'x', mesos = { resources = { nics = {} } }", "nics: expected how many items, { any = 2 }, or"),
        ("command = 'x', mesos = { resources = { nics = { any = 0 } } }", "nics.any: expected a whole number from 1"),
        ("command = 'x', mesos = { resources = { nics = 'eth0' } }", "nics: expected an amount, a list of items"),
        ("command = 'x', mesos = { resources = { cpus = 1 } }", "cpus: has a word of its own in `workload`"),
    ] {
        let Err(report) = on_mesos(&bench, words, "").await else { panic!("loaded: {words}") };
        assert!(report.contains(expected), "{words}\n--- expected {expected}\n--- got {report}");
    }
    let warmer = "warmer = { command = 'x', user = '7' }, metric = function() end, target = 1";
    let Err(report) = on_mesos(&bench, "command = 'x'", warmer).await else { panic!("loaded: {warmer}") };
    assert!(report.contains("warmer.user: expected a user's name alone"), "{report}");
}

/// A Swarm starts anew what has ended, so nothing there is ever done.
#[tokio::test]
async fn jobs_are_not_for_a_swarm() {
    let bench = Bench::new();
    let source = "return { workload = { backend = 'swarm', kind = 'jobs', image = 'i', max = 1 }, \
                  control = { law = 'count', n = 1 } }";
    let mut request = bench.request(source);
    request.backends.push("swarm".to_owned());
    let Err(errors) = bench.host.load(request).await else { panic!("loaded") };
    let report = reports(&errors);
    assert!(report.contains("workload.kind: expected \"service\" on backend \"swarm\""), "{report}");
}

#[tokio::test]
async fn words_that_mean_nothing_to_a_mesos_cluster_are_warned_of() {
    let bench = Bench::new();
    let docker = "privileged = true, parameters = { 'a=b' }, pids = 1, tmpfs = { '/t' }, init = true";
    let words = ["privileged", "parameters", "pids", "tmpfs", "init"];
    let nothing = |words: &[&str], what: &str| {
        let warning = |word: &&str| format!("workload.{word} means nothing to {what}");
        words.iter().map(warning).collect::<Vec<_>>()
    };
    let both = [&words[..], &["entrypoint", "pull"]].concat();
    let user = "user = '7:7', volumes = { 'cache:/c', '/a:/b' }, entrypoint = 'e', pull = 'always', network = 'none'";
    for (said, expected) in [
        (
            format!("command = 'x', {docker}, entrypoint = 'e', pull = 'never'"),
            nothing(&both, "the backend \"mesos\" without an image"),
        ),
        (
            format!("image = 'i', {docker}, entrypoint = 'e', health = false, mesos = {{ containerizer = 'mesos' }}"),
            nothing(&[&words[..], &["health = false"]].concat(), "Mesos's own containerizer"),
        ),
        (format!("image = 'i', {docker}, {user}, health = false"), Vec::new()),
        ("command = 'x', user = 'etl', network = 'cni', volumes = { '/a:/b:ro' }".to_owned(), Vec::new()),
        ("command = 'x', executor = 'setpoint', network = 'host'".to_owned(), Vec::new()),
    ] {
        let (warnings, _) = on_mesos(&bench, &said, "").await.unwrap();
        assert_eq!(warnings, expected, "{said}");
    }
}

#[tokio::test]
async fn items_and_numbers_of_a_mesos_agent_can_be_asked_for() {
    let resources =
        "a = 1.5, gpus = 2, items = { 'x', 'y' }, some = { any = 2 }, numbers = { 7, 8 }, few = { numbers = 3 }";
    let words = format!("command = 'x', mesos = {{ resources = {{ {resources} }} }}");
    let (_, policy) = on_mesos(&Bench::new(), &words, "").await.unwrap();
    let wants = policy.spec.workload.template.mesos.resources.clone();
    let expected: BTreeMap<String, Want> = [
        ("a", Want::Amount(1.5)),
        ("gpus", Want::Amount(2.0)),
        ("items", Want::Items(["x", "y"].map(str::to_owned).into())),
        ("some", Want::AnyItems { any: 2 }),
        ("numbers", Want::Numbers([7, 8].into())),
        ("few", Want::AnyNumbers { numbers: 3 }),
    ]
    .map(|(name, want)| (name.to_owned(), want))
    .into();
    assert_eq!(wants, expected);
    // As it is kept with the tasks, over a restart.
    let saved = serde_json::to_string(&wants).unwrap();
    assert_eq!(serde_json::from_str::<BTreeMap<String, Want>>(&saved).unwrap(), expected, "{saved}");
}

#[tokio::test]
async fn errors_name_place_source_chain_and_hint() {
    let bench = Bench::new();
    let syntax = bench.refused("local x = = 3\nreturn {}").await.join("\n");
    insta::assert_snapshot!("syntax", syntax);
    let global = bench.refused("local x = 1\nreturn prnit(x)").await.join("\n");
    insta::assert_snapshot!("undefined_global", global);
    let assigned = bench.refused("function metric() end\nreturn {}").await.join("\n");
    insta::assert_snapshot!("assigned_global", assigned);

    let source = policy(
        "local function depth(jobs)\n  return jobs.length + 1\nend",
        "metric = function(ctx) local n = depth(nil) return n end, target = function(ctx) return ctx.sampel end",
    );
    let seen = bench.policy(&source).await.script.observe(ctx(), WALL).await;
    let told: Vec<String> = seen.errors.iter().map(|error| on_path(error, &bench)).collect();
    insta::assert_snapshot!("runtime", told.join("\n\n"));
    let Sample::Error { message } = &seen.sample else { panic!("{:?}", seen.sample) };
    assert!(message.contains("metric: "), "{message}");
}

#[tokio::test]
async fn results_of_every_wrong_type_are_errors_and_never_numbers() {
    let bench = Bench::new();
    for (body, expected) in [
        ("'80%'", "expected a number, got string \"80%\""),
        ("0/0", "expected a finite number, got NaN"),
        ("1/0", "expected a finite number, got inf"),
        ("-1/0", "expected a finite number, got -inf"),
        ("{}", "got table"),
        ("true", "got boolean true"),
        ("print", "got function"),
        ("coroutine.create(print)", "got coroutine"),
        ("ctx", "got userdata"),
        ("1, 'x'", "metric's age in seconds: expected a number, got string \"x\""),
        ("1, -1", "expected at least 0"),
        ("1, { age = 1, repotred = 2 }", "did you mean `reported`?"),
    ] {
        let policy = bench.with_fields("", &format!("metric = function(ctx) return {body} end, target = 1")).await;
        let seen = policy.script.observe(ctx(), WALL).await;
        let Sample::Error { .. } = seen.sample else { panic!("{body}: {:?}", seen.sample) };
        let report = reports(&seen.errors);
        assert_eq!(seen.errors[0].kind, ScriptErrorKind::Type, "{body}: {report}");
        assert!(report.contains(expected), "{body}: {report}");
    }
    for (body, sample) in [
        ("nil", Sample::Missing),
        ("", Sample::Missing),
        ("1e308", Sample::value(1e308)),
        ("-0.0", Sample::value(0.0)),
        ("2^63", Sample::value(9_223_372_036_854_775_808.0)),
        ("7, 46", Sample::Stale { value: 7.0, age: Duration::from_secs(46) }),
        ("7, { reported = 2 }", Sample::Value { value: 7.0, age: Duration::ZERO, reported: Some(2) }),
    ] {
        let policy = bench.with_fields("", &format!("metric = function(ctx) return {body} end, target = 1")).await;
        assert_eq!(policy.script.observe(ctx(), WALL).await.sample, sample, "{body}");
    }
    for target in ["'80%'", "0/0", "nil", "error('no')"] {
        let fields = format!("metric = function() return 1 end, target = function() return {target} end");
        let seen = bench.with_fields("", &fields).await.script.observe(ctx(), WALL).await;
        assert!(matches!(seen.sample, Sample::Error { .. }), "a failed target is a failed sample: {target}");
        assert_eq!(seen.setpoint, None);
    }
}

#[tokio::test]
async fn ctx_is_strict_and_read_only() {
    let bench = Bench::new();
    let check = |code: &str| format!("metric = function(ctx) {code} return 1 end, target = 1");
    let all = r#"
        assert(ctx.now == 1700000000 and ctx.tick == 3 and ctx.policy == "p" and ctx.trace == nil)
        assert(ctx.sample == 4 and ctx.sample_kind == "value" and ctx.setpoint == 5 and ctx.deviation == 1)
        assert(#ctx.history == 2 and ctx.history[2].value == 4 and ctx.history[1].at == 1)
        local t = ctx.tasks[2]
        assert(t.id == "p-2" and t.state == "running" and t.ready and not t.helper and t.host == "here")
        assert(t.ports.http == 31000 and t.pid == 7 and t.container == nil and t.age == 90 and t.by == "law")
        assert(t.cpu == 12.5 and t.memory == nil)
        assert(ctx.running == 2 and ctx.in_flight == 1 and ctx.desired == 3 and ctx.min == 0 and ctx.max == 10)
        assert(os.time() == 1700000000 and os.clock() == ctx.now and os.date("!%Y", os.time()) == "2023")
        assert(rawequal(ctx.tasks, ctx.tasks), "built once a call")
        local sum = 0
        for _, point in ipairs(ctx.history) do sum = sum + point.value end
        assert(sum == 7)
    "#;
    let seen = bench.with_fields("", &check(all)).await.script.observe(ctx(), WALL).await;
    assert_eq!(reports(&seen.errors), "");
    for (code, expected) in [
        ("local x = ctx.runing", "did you mean `running`?"),
        ("ctx.running = 3", "ctx is read-only"),
        ("ctx.tasks[1] = nil", "this table is read-only"),
        ("ctx.tasks[1].id = 'x'", "this table is read-only"),
        ("local x = ctx.tasks[1].stat", "a task has no `stat`"),
        ("local x = ctx.history[1].vale", "did you mean `value`?"),
        ("rawset(ctx.tasks, 1, nil)", "this table is read-only"),
        ("ctx.workload:launch(1)", "ctx.workload:launch is allowed in warmer and cooler, not in metric"),
        ("ctx.workload:lunch(1)", "did you mean `launch`?"),
        ("ctx.params.x = 1", "this table is read-only"),
        ("string.x = 1", "`string` is read-only"),
        ("local x = string.trim", "`string` has no `trim`"),
        ("x = 1", "assignment to the global `x`: write `local x`"),
        ("string = {}", "this table is read-only"),
    ] {
        let seen = bench.with_fields("", &check(code)).await.script.observe(ctx(), WALL).await;
        let report = reports(&seen.errors);
        assert!(report.contains(expected), "{code}: {report}");
        assert_eq!(seen.errors[0].line, Some(4), "{code}: {report}");
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_in_words() {
    let bench = Bench::new();
    for (code, expected) in [
        ("ctx.workload:launch(-1)", "expected a whole number from 0 to 100000, got number -1"),
        ("ctx.workload:launch(1.5)", "expected a whole number"),
        ("ctx.workload:launch('2')", "expected a number, got string \"2\""),
        ("ctx.workload:launch(1, { comand = 'x' })", "did you mean `command`?"),
        ("ctx.workload:launch(1, { count = false })", "needs a command of its own"),
        ("ctx.workload:kill('p-9')", "this policy has no task \"p-9\""),
        ("ctx.workload:kill({ 'p-1', 3 })", "expected a number, a task, an id or a list of them, got number 3"),
        ("ctx.workload:kill()", "expected a number, a task, an id or a list of them, got nil"),
        ("for i = 1, 2000 do ctx.workload:kill(1) end", "expected at most 1000 requests in one call"),
        ("return 'all'", "cooler returned: expected a number, got string \"all\""),
        ("return 0.5", "cooler returned: expected a whole number"),
    ] {
        let fields = format!("metric = function() return 1 end, target = 1, cooler = function(n, ctx) {code} end");
        let acted = bench.with_fields("", &fields).await.script.act(Hook::Cooler, 1, ctx(), Mode::Live, WALL).await;
        let report = acted.error.as_ref().map(ScriptError::report).unwrap_or_default();
        assert!(report.contains(expected), "{code}: {report}");
        assert_eq!(acted.error.map(|error| error.kind), Some(ScriptErrorKind::Type), "{code}");
    }
    let fields = "metric = function() return 1 end, target = 1, cooler = function(n, ctx) ctx.workload:launch(2) error('late') end";
    let acted = bench.with_fields("", fields).await.script.act(Hook::Cooler, 1, ctx(), Mode::Live, WALL).await;
    assert_eq!(acted.intents.len(), 1, "what was asked for before an error has been asked for");
    assert!(acted.error.is_some());
}

#[tokio::test]
async fn victims_drain_and_stop_answer() {
    let bench = Bench::new();
    let policy = bench
        .with_fields(
            "",
            "metric = function() return 1 end, target = 1,
             victims = function(tasks, n, ctx) return { tasks[2], 'p-1' } end,
             drain = function(task, ctx) return task.id == 'p-1' end,
             stop = function(ctx) if ctx.tick == 3 then return 7 end end",
        )
        .await;
    let victims = policy.script.victims(1, ctx(), WALL).await.unwrap();
    assert_eq!(victims, [TaskId::from("p-2"), TaskId::from("p-1")]);
    assert_eq!(policy.script.drain(TaskId::from("p-1"), ctx(), Mode::Live, WALL).await, Ok(true));
    assert_eq!(policy.script.drain(TaskId::from("p-2"), ctx(), Mode::Live, WALL).await, Ok(false));
    assert_eq!(policy.script.stop(ctx(), Mode::Live, WALL).await, Ok(Some(7)));
    let wrong = bench
        .with_fields(
            "",
            "metric = function() end, target = 1, stop = function() return true end, drain = function() return 1 end",
        )
        .await;
    assert_eq!(wrong.script.stop(ctx(), Mode::Live, WALL).await.unwrap_err().kind, ScriptErrorKind::Type);
    let drained = wrong.script.drain(TaskId::from("p-1"), ctx(), Mode::Live, WALL).await;
    assert_eq!(drained.unwrap_err().kind, ScriptErrorKind::Type);
}

#[tokio::test]
async fn state_is_kept_and_told_when_it_changes() {
    let bench = Bench::new();
    let source = policy(
        "",
        "metric = function(ctx) local s = ctx.state s.n = (s.n or 0) + (ctx.tick == 3 and 1 or 0) return s.n end, target = 1",
    );
    let policy_ = bench.policy(&source).await;
    assert_eq!(policy_.script.take_changed_state(), None);
    policy_.script.observe(ctx(), WALL).await;
    assert_eq!(policy_.script.take_changed_state().as_deref(), Some("{\"n\":1}"));
    assert_eq!(policy_.script.take_changed_state(), None);
    policy_.script.observe(ctx(), WALL).await;
    let state = policy_.script.state();
    assert_eq!(state.as_deref(), Some("{\"n\":2}"));

    let next = bench.policy(&source).await;
    next.script.restore(state.as_deref(), true).await.unwrap();
    assert_eq!(next.script.observe(ctx(), WALL).await.sample, Sample::value(3.0));

    let migrated = bench
        .with_fields("", "metric = function(ctx) return ctx.state.count end, target = 1, migrate = function(old) return { count = old.n * 10 } end")
        .await;
    migrated.script.restore(Some("{\"n\":2}"), true).await.unwrap();
    assert_eq!(migrated.script.state().as_deref(), Some("{\"count\":20}"));
    assert_eq!(migrated.script.observe(ctx(), WALL).await.sample, Sample::value(20.0));
    migrated.script.restore(Some("{\"count\":5}"), false).await.unwrap();
    assert_eq!(migrated.script.observe(ctx(), WALL).await.sample, Sample::value(5.0));
    let error = migrated.script.restore(Some("{}"), true).await.unwrap_err();
    assert_eq!((error.hook, error.kind), (Hook::Migrate, ScriptErrorKind::Runtime));
    assert_eq!(migrated.script.state().as_deref(), Some("{\"count\":5}"), "a failed migration changes nothing");

    let broken = bench.with_fields("", "metric = function(ctx) ctx.state.f = print return 1 end, target = 1").await;
    let seen = broken.script.observe(ctx(), WALL).await;
    assert_eq!(seen.sample, Sample::value(1.0));
    assert!(reports(&seen.errors).contains("ctx.state.f: expected a value that JSON can hold, got function"));
    assert_eq!(broken.script.state(), None);
}

#[tokio::test]
async fn require_stays_in_the_policys_folder() {
    let bench = Bench::new();
    let root = bench.folder.path();
    std::fs::create_dir_all(root.join("lib/deep")).unwrap();
    std::fs::write(root.join("lib/util.lua"), "local d = require('lib.deep') return { n = d + 1 }").unwrap();
    std::fs::write(root.join("lib/deep/init.lua"), "return 41").unwrap();
    std::fs::write(root.join("a.lua"), "return require('b')").unwrap();
    std::fs::write(root.join("b.lua"), "return require('a')").unwrap();
    std::fs::write(root.join("broken.lua"), "local x\nerror('boom')").unwrap();
    std::fs::write(root.join("bad.lua"), "local x\nlocal = 3").unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.lua"), "return 1").unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.lua"), root.join("link.lua")).unwrap();
    std::os::unix::fs::symlink(root.join("lib/util.lua"), root.join("inside.lua")).unwrap();

    let source = policy(
        "local util = require('lib.util') assert(util == require('lib.util')) assert(require('inside').n == 42)",
        "metric = function() return util.n end, target = 1",
    );
    let file = bench.load(&source).await.map_err(|errors| reports(&errors)).unwrap();
    let required: Vec<PathBuf> = file.required;
    assert_eq!(required, [root.join("lib/util.lua"), root.join("lib/deep/init.lua"), root.join("inside.lua")]);
    let Content::Policy(loaded) = file.content else { panic!("a fleet") };
    assert_eq!(loaded.script.observe(ctx(), WALL).await.sample, Sample::value(42.0));

    for (name, expected) in [
        ("link", "leads out of the policy's folder"),
        ("../x", "expected a module below the policy's folder"),
        ("..x", "expected a module below the policy's folder"),
        ("/etc/passwd", "expected a module below the policy's folder"),
        ("nothing", "no module \"nothing\""),
        ("a", "requires itself"),
        ("broken", "broken.lua:2"),
        ("bad", "bad.lua:2"),
        ("setpoint.htp", "there is no module \"setpoint.htp\""),
    ] {
        let report = bench.refused(&format!("local x = require('{name}')\nreturn x")).await.join("\n");
        assert!(report.contains(expected), "{name}: {report}");
    }
    let late = bench.with_fields("", "metric = function() return require('lib.deep') end, target = 1").await;
    let seen = late.script.observe(ctx(), WALL).await;
    assert!(reports(&seen.errors).contains("files are required while the policy loads"), "{}", reports(&seen.errors));
}

#[tokio::test]
async fn parameters_are_typed_and_declared_once() {
    let bench = Bench::new();
    let source = policy(
        "local p = require('setpoint.params') { n = 1, on = true, s = 'x' }",
        "metric = function(ctx) assert(ctx.params.n == p.n) return p.n end, target = 1",
    );
    for (key, value, expected) in [
        ("n", "2.5", None),
        ("n", "two", Some("parameter `n`: expected a number, got \"two\"")),
        ("n", "nan", Some("expected a number")),
        ("on", "yes", Some("parameter `on`: expected true or false")),
        ("s", "any text", None),
    ] {
        let mut request = bench.request(&source);
        request.params.insert(key.to_owned(), value.to_owned());
        match (bench.host.load(request).await, expected) {
            (Ok(_), None) => {}
            (Err(errors), Some(expected)) => assert!(reports(&errors).contains(expected), "{}", reports(&errors)),
            (Ok(_), Some(expected)) => panic!("{key}={value}: expected {expected}"),
            (Err(errors), None) => panic!("{}", reports(&errors)),
        }
    }
    for (code, expected) in [
        ("require('setpoint.params') { f = print }", "expected a number, text or boolean as its default"),
        ("require('setpoint.params') { ['a b'] = 1 }", "expected a name of letters"),
        ("require('setpoint.params')(3)", "expected a table of defaults"),
        ("local p = require('setpoint.params') { n = 1 } local x = p.m", "params has no `m`"),
    ] {
        let report = bench.refused(&policy(code, "metric = function() end, target = 1")).await.join("\n");
        assert!(report.contains(expected), "{code}: {report}");
    }
    let own =
        bench.with_fields("", "params = { k = 4 }, metric = function(ctx) return ctx.params.k end, target = 1").await;
    assert_eq!(own.script.observe(ctx(), WALL).await.sample, Sample::value(4.0));
}

#[tokio::test]
async fn coroutines_work_and_cannot_reach_the_calls_own() {
    let bench = Bench::new();
    let code = r#"
        local co = coroutine.create(function(a, b)
          local c, d = coroutine.yield(a + b, nil, "x")
          local e = coroutine.yield()
          return c, d, e
        end)
        local function is(expected, ...)
          local got = {}
          for i = 1, select('#', ...) do got[i] = tostring((select(i, ...))) end
          local text = table.concat(got, " ")
          assert(text == expected, text)
        end
        is("suspended", coroutine.status(co))
        is("true 3 nil x", coroutine.resume(co, 1, 2))
        is("true", coroutine.resume(co, 4, nil))
        is("true 4 nil 5", coroutine.resume(co, 5))
        is("dead", coroutine.status(co))
        is("false cannot resume dead coroutine", coroutine.resume(co))
        assert(coroutine.running() == nil)
        local sum = 0
        for i in coroutine.wrap(function() for i = 1, 4 do coroutine.yield(i) end end) do sum = sum + i end
        assert(sum == 10)
        local ok, err = pcall(coroutine.yield, 1)
        assert(not ok and err:find("outside a coroutine"), err)
        local long = coroutine.wrap(function() local n = 0 for i = 1, 200000 do n = n + 1 end coroutine.yield(n) end)
        assert(long() == 200000)
        ok, err = pcall(coroutine.wrap(function() local t = nil return t.x end))
        assert(not ok and err:find("nil"), err)
    "#;
    let policy = bench.with_fields("", &format!("metric = function(ctx) {code} return 1 end, target = 1")).await;
    let seen = policy.script.observe(ctx(), WALL).await;
    assert_eq!(reports(&seen.errors), "");
}

#[tokio::test]
async fn the_library_is_lua_5_1_bounded_and_deterministic() {
    let bench = Bench::new();
    let code = r#"
        assert(("a.b"):find(".", 1, true) == 2 and ("hello"):match("l+") == "ll" and ("x"):rep(3) == "xxx")
        local big = ("ab"):rep(3000000)
        local at, to = (big .. "needle"):find("needle")
        assert(at == 6000001 and to == 6000006)
        assert(big:find("needle", 1, true) == nil and big:find("b", -1, true) == 6000000)
        local t = { 3, 1, 2 }
        table.sort(t) assert(table.concat(t, ",") == "1,2,3")
        table.sort(t, function(a, b) return a > b end) assert(t[1] == 3)
        local ok, err = pcall(table.sort, { 1, "x" })
        assert(not ok and err:find("compare"), err)
        for i = 1, 100 do local r = math.random(3) assert(r >= 1 and r <= 3 and r % 1 == 0) end
        ok, err = pcall(math.random, 3, 1)
        assert(not ok and err == "math.random: expected m <= n, got 3 and 1", err)
        for _, name in ipairs({ "loadstring", "getfenv", "setfenv", "newproxy", "collectgarbage", "io", "debug", "dofile",
            "gcinfo", "package", "buffer", "vector", "bit32", "utf8" }) do
          assert(not pcall(function() return _G[name] end), name)
        end
        assert(not pcall(function() return os.execute end) and not pcall(function() return os.getenv end))
        assert(xpcall(error, function(e) return e end, "x") == false)
    "#;
    let fields =
        format!("metric = function(ctx) {code} return math.random() end, target = function() return math.random() end");
    let one = bench.with_fields("", &fields).await.script.observe(ctx(), WALL).await;
    assert_eq!(reports(&one.errors), "");
    let other = bench.with_fields("", &fields).await.script.observe(ctx(), WALL).await;
    assert_eq!((&one.sample, one.setpoint), (&other.sample, other.setpoint), "the same tick draws the same numbers");
    assert_ne!(one.sample.fresh(), one.setpoint);
}

#[tokio::test]
async fn a_fleet_finds_its_rows_and_keeps_the_unchanged() {
    let bench = Bench::new();
    std::fs::write(bench.folder.path().join("n.lua"), "return 0").unwrap();
    let fleet = bench
        .fleet(
            r#"
        local ticks = 0
        return require("setpoint").fleet {
          every = "2s",
          discover = function()
            ticks = ticks + 1
            if ticks == 4 then error("down") end
            if ticks == 5 then return {} end
            return {
              { name = "a", size = 1 },
              { name = "b", size = ticks },
              { name = "bad name" },
              { name = "a" },
              { name = "c", broken = true },
            }
          end,
          policy = function(row)
            return {
              workload = { command = "x", max = row.broken and "many" or 3 },
              metric = function(ctx) return row.size end, target = 1,
            }
          end,
        }"#,
        )
        .await;
    assert_eq!(fleet.every(), Duration::from_secs(2));
    let first = fleet.discover(WALL).await.unwrap();
    let names: Vec<&str> = first.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "#3", "#4", "c"]);
    let told = |at: usize| first[at].policy.as_ref().err().map(ScriptError::report).unwrap_or_default();
    assert!(told(2).contains("row 3: expected a `name` of 1 to 63"), "{}", told(2));
    assert!(told(3).contains("expected unique names, got \"a\" again"), "{}", told(3));
    assert!(told(4).contains("policy of row `c`: workload.max: expected a number"), "{}", told(4));
    let second = fleet.discover(WALL).await.unwrap();
    let policy = |rows: &[setpoint::script::FleetRow], at: usize| rows[at].policy.clone().unwrap();
    assert!(Arc::ptr_eq(&policy(&first, 0).script, &policy(&second, 0).script), "unchanged rows keep their policy");
    assert!(!Arc::ptr_eq(&policy(&first, 1).script, &policy(&second, 1).script), "changed rows get another");
    let (old, new) = (policy(&first, 1), policy(&second, 1));
    let (old, new) = tokio::join!(old.script.observe(ctx(), WALL), new.script.observe(ctx(), WALL));
    assert_eq!((old.sample, new.sample), (Sample::value(1.0), Sample::value(2.0)));
    fleet.discover(WALL).await.unwrap();
    let failed = fleet.discover(WALL).await.err().unwrap();
    assert_eq!((failed.hook, failed.kind), (Hook::Discover, ScriptErrorKind::Runtime));
    assert!(fleet.discover(WALL).await.unwrap().is_empty());
}
