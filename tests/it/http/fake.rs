//! An engine that a test plays: policies that tick when told to, and commands that are remembered and half obeyed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use setpoint::core::decision::{Bounds, Decision, Detail, Guard, Reason};
use setpoint::core::model::{Counts, Placement, PolicyName, Sample, TaskId, TaskState, TaskStats};
use setpoint::core::policy::{
    Backoff, Control, Hooks, Interval, LawSpec, OnEnd, OnMissing, PolicySpec, Ready, Replace, TaskTemplate, Tolerance,
    UpDown, Workload,
};
use setpoint::core::time::Timestamp;
use setpoint::http::{HttpConfig, bind, router, serve};
use setpoint::runtime::handle::{CommandResult, DetachedPublisher, EngineHandle};
use setpoint::runtime::record::{Override, Pause};
use setpoint::runtime::view::{Command, CommandError, Health, PolicySnapshot, ScriptView, StreamEvent};
use setpoint::script::error::ScriptErrorKind;
use setpoint::script::{Hook, Param, ParamValue, ScriptError, TaskView};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A served engine without an engine.
pub(crate) struct Fake {
    pub(crate) publisher: DetachedPublisher,
    pub(crate) addr: SocketAddr,
    handle: EngineHandle,
    commands: Arc<Mutex<Vec<Command>>>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Fake {
    /// Serves `names` without a token.
    pub(crate) async fn start(names: &[&str]) -> Self {
        Self::start_with(names, HttpConfig::default(), SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_with(names: &[&str], config: HttpConfig, addr: SocketAddr) -> Self {
        let (handle, mut engine) = EngineHandle::detached();
        let publisher = engine.publisher();
        publisher.set_health(Health { ready: true, ..Health::default() });
        for name in names {
            publisher.set_policy(Arc::new(policy(name)));
        }
        let commands = Arc::new(Mutex::new(Vec::new()));
        let (seen, view, published) = (Arc::clone(&commands), handle.clone(), publisher.clone());
        tokio::spawn(async move {
            while let Some((command, reply)) = engine.next_command().await {
                seen.lock().unwrap().push(command.clone());
                // The caller may have gone meanwhile.
                let _gone = reply.send(obey(&view, &published, command));
            }
        });
        let listener = listen(addr, config.token.is_some()).await;
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _dropped = stopped.await;
        };
        let server = tokio::spawn(serve(listener, router(handle.clone(), config), shutdown));
        Self { publisher, addr, handle, commands, stop: Some(stop), server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The handle that it serves.
    pub(crate) fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// The commands that reached the engine since the last call of this.
    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.commands.lock().unwrap())
    }

    /// Changes a policy and publishes it without an event.
    pub(crate) fn change(&self, name: &str, edit: impl FnOnce(&mut PolicySnapshot)) -> Arc<PolicySnapshot> {
        let mut snapshot = PolicySnapshot::clone(&self.handle.policy(name).expect("the policy exists"));
        edit(&mut snapshot);
        let snapshot = Arc::new(snapshot);
        self.publisher.set_policy(Arc::clone(&snapshot));
        snapshot
    }

    /// One tick: the time goes on, `edit` says what came of it.
    pub(crate) fn tick(&self, name: &str, edit: impl FnOnce(&mut PolicySnapshot)) {
        let snapshot = self.change(name, |policy| {
            policy.ticks += 1;
            policy.last_tick = Some(SystemTime::now());
            edit(policy);
        });
        self.publisher.emit(StreamEvent::Tick(snapshot));
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        drop(self.stop.take());
        self.server.await.unwrap().unwrap();
        self.addr
    }
}

/// Takes the address, waiting a while for the one who had it before.
async fn listen(addr: SocketAddr, has_token: bool) -> TcpListener {
    for _ in 0..300 {
        match bind(addr, has_token).await {
            Ok(listener) => return listener,
            Err(error) if error.exit_code() == 69 => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{addr} stays in use");
}

fn obey(handle: &EngineHandle, publisher: &DetachedPublisher, command: Command) -> CommandResult {
    let change = |name: &PolicyName, edit: &dyn Fn(&mut PolicySnapshot)| {
        let mut snapshot = PolicySnapshot::clone(&handle.policy(name.as_str()).expect("the API checks names"));
        edit(&mut snapshot);
        let snapshot = Arc::new(snapshot);
        publisher.set_policy(Arc::clone(&snapshot));
        publisher.emit(StreamEvent::Policy(Arc::clone(&snapshot)));
        Ok(Some(snapshot))
    };
    let until = |for_: Option<Duration>| for_.map(|for_| SystemTime::now() + for_);
    match command {
        Command::Pause { policy, for_, reason } => {
            change(&policy, &|p| p.paused = Some(Pause { until: until(for_), reason: reason.clone() }))
        }
        Command::Resume { policy } => change(&policy, &|p| p.paused = None),
        Command::Override { max: Some(max), force: false, .. } if max > 40 => {
            Err(CommandError::Invalid(format!("max {max} is above the policy's own max of 40, which needs `force`")))
        }
        Command::Override { policy, min, max, for_, reason, .. } => change(&policy, &|p| {
            p.bounds_override = Some(Override { min, max, until: until(for_), reason: reason.clone() });
        }),
        Command::ClearOverride { policy } => change(&policy, &|p| p.bounds_override = None),
        Command::Reload { policy: None } | Command::KillTask { .. } => Ok(None),
        Command::Reload { policy: Some(policy) } | Command::Evaluate { policy } => Ok(handle.policy(policy.as_str())),
        Command::Adopt { old: policy, .. } | Command::Remove { policy } => {
            Err(CommandError::Conflict(format!("`{policy}` is not retired")))
        }
    }
}

/// A policy after its 812th tick: 7 queued jobs, 4 tasks running, one more just launched.
pub(crate) fn policy(name: &str) -> PolicySnapshot {
    let reasons = vec![Reason {
        guard: Guard::Step,
        from: 2,
        to: 1,
        detail: Detail::Limit { limit: 1, per: Some(Duration::from_secs(60)) },
    }];
    PolicySnapshot {
        name: PolicyName::from(name),
        generation: 3,
        script: ScriptView {
            path: PathBuf::from("queue.lua"),
            sha256: "0123456789abcdef".repeat(4).into(),
            error: None,
            refused: None,
        },
        spec: Some(Arc::new(spec())),
        params: Arc::new(vec![Param {
            name: "max".into(),
            default: ParamValue::Number(40.0),
            value: ParamValue::Number(10.0),
        }]),
        ticks: 812,
        last_tick: Some(SystemTime::now()),
        next_tick: None,
        sample: Some(Sample::value(7.0)),
        setpoint: Some(0.0),
        counts: Counts { running: 4, ready: 4, asked: 1, ..Counts::default() },
        bounds: Bounds { min: 1, max: 40 },
        decision: Some(Arc::new(Decision {
            at: Timestamp::ZERO,
            desired: 4,
            raw: 2,
            adjustment: 1,
            to_min: 0,
            reasons,
        })),
        acted: 1,
        paused: None,
        bounds_override: None,
        ended: None,
        stalled: false,
        failures: 0,
        shadow: None,
    }
}

fn spec() -> PolicySpec {
    PolicySpec {
        interval: Interval::fixed(Duration::from_secs(1)),
        workload: Workload {
            backend: "local".into(),
            kind: setpoint::core::model::Kind::Service,
            effect: setpoint::core::model::Effect::Cools,
            min: 1,
            max: 40,
            template: TaskTemplate::default(),
            ready: Ready::Running,
            grace: Duration::from_secs(10),
            on_end: OnEnd::Stop,
            on_gone: OnEnd::Stop,
            replace: Replace::Keep,
        },
        control: Control {
            law: LawSpec::Proportional { per_task: 5.0 },
            tolerance: Tolerance::Absolute(2.0),
            cooldown: UpDown::default(),
            stabilization: UpDown::default(),
            step: UpDown::default(),
            confirm: None,
            ramp: 1,
            lag: Duration::ZERO,
            lookback: 64,
            flap: None,
            stale_after: None,
            on_missing: OnMissing::Hold,
        },
        max_failures: None,
        backoff: Backoff::default(),
        max_helpers: 0,
        shadow: None,
        hooks: Hooks::default(),
    }
}

pub(crate) fn task(policy: &str, number: u32) -> TaskView {
    TaskView {
        id: TaskId::from(format!("{}.{number}", policy.replace('/', "~")).as_str()),
        policy: PolicyName::from(policy),
        backend: "local".into(),
        state: TaskState::Running,
        ready: true,
        helper: false,
        placement: Placement {
            host: Some("localhost".into()),
            ports: BTreeMap::from([("http".to_owned(), 31_000)]),
            pid: Some(1000 + number),
            container: None,
            token: None,
        },
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_123),
        stats: TaskStats {
            cpu_percent: Some(12.5),
            memory_bytes: Some(3 << 20),
            memory_limit: Some(32 << 20),
            network_received: Some(4096),
            network_sent: Some(512),
            block_read: Some(0),
            block_written: None,
            pids: Some(7),
        },
        by: "law",
        slot: Some(0),
    }
}

/// What a script would say that indexes nil in line 12.
pub(crate) fn script_error() -> Arc<ScriptError> {
    let mut error = ScriptError::new(
        "queue.lua",
        Hook::Metric,
        ScriptErrorKind::Runtime,
        "attempt to index nil with 'llen' <script>alert(1)</script>",
    );
    (error.line, error.column) = (Some(12), Some(18));
    error.source_line = Some("  return redis:llen(\"jobs\")".into());
    error.calls = vec!["queue.lua:12 in function 'metric'".into()];
    error.hint = Some("is `redis` required?".into());
    Arc::new(error)
}
