//! A12: what mesos-memcached did, and what it got wrong, on a clock of the test's own.
//!
//! "stats mem 81/cpu 5 → second task no sooner than 60 s after the first, one per batch; mem exactly 80 → none; cpu 31 →
//! yes; dead task leaves the list and the average; the list has the old shape and key names; running < min relaunches at
//! once, but only one while STAGING."

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use setpoint::core::decide::{Config, decide, settle};
use setpoint::core::decision::{Bounds, InFlight, Observation, PolicyState};
use setpoint::core::model::{Counts, Placement, TaskId, TaskState, TaskStats};
use setpoint::core::policy::PolicySpec;
use setpoint::core::time::Timestamp;
use setpoint::script::{
    Content, Ctx, Limits, LoadRequest, LoadedFile, Natives, Permissions, PolicyScript, ScriptError, ScriptHost,
    TaskView,
};
use setpoint::services::{Member, Service, legacy};

use crate::support::GENEROUS;

/// The policy beside its tasks, ticked by hand.
struct Group {
    spec: Arc<PolicySpec>,
    script: Arc<dyn PolicyScript>,
    state: PolicyState,
    now: u64,
    tick: u64,
    tasks: Vec<TaskView>,
    /// Second → what was launched then.
    launched: Vec<u64>,
    /// Where its servers are.
    port: u16,
}

impl Group {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(params: &[(&str, &str)]) -> Self {
        let limits = Limits { cpu: Duration::from_secs(2), load_cpu: Duration::from_secs(5), ..Limits::default() };
        let runtime = tokio::runtime::Handle::current();
        let host = ScriptHost::new(limits, Permissions::default(), Natives::default(), runtime, 1).unwrap();
        let request = LoadRequest {
            path: super::script(),
            name: "memcached".to_owned(),
            source: None,
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            backends: vec!["docker".to_owned()],
        };
        let loaded = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(host.load(request)));
        let policy = match loaded {
            Ok(LoadedFile { content: Content::Policy(policy), .. }) => policy,
            Ok(_) => panic!("memcached is a fleet"),
            Err(errors) => panic!("{}", errors.iter().map(ScriptError::report).collect::<Vec<_>>().join("\n")),
        };
        Self {
            spec: policy.spec,
            script: policy.script,
            state: PolicyState::default(),
            now: 0,
            tick: 0,
            tasks: Vec::new(),
            launched: Vec::new(),
            port: 31_000,
        }
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + self.now)
    }

    /// Every task runs, with this share of its memory, and of a core, in percent.
    fn all_run(&mut self, memory: f64, cpu: f64) {
        for task in &mut self.tasks {
            task.state = TaskState::Running;
            task.ready = true;
            let memory_bytes = Some((memory / 100.0 * f64::from(64 << 20)).round() as u64);
            task.stats = TaskStats { cpu_percent: Some(cpu), memory_bytes, ..TaskStats::default() };
        }
    }

    fn counts(&self) -> Counts {
        let in_state = |state| u32::try_from(self.tasks.iter().filter(|task| task.state == state).count()).unwrap();
        let running = in_state(TaskState::Running);
        Counts { staging: in_state(TaskState::Staging), running, ready: running, ..Counts::default() }
    }

    /// One tick, five seconds after the last; how many tasks it launched.
    async fn tick(&mut self) -> i64 {
        let counts = self.counts();
        let ctx = Ctx {
            policy: "memcached".into(),
            now: self.wall(),
            tick: self.tick,
            sample: None,
            setpoint: None,
            history: Arc::new(VecDeque::new()),
            tasks: Arc::new(self.tasks.clone()),
            running: counts.running,
            in_flight: counts.in_flight(),
            desired: counts.desired(),
            bounds: Bounds { min: 1, max: 10 },
        };
        let observed = self.script.observe(Arc::new(ctx), GENEROUS).await;
        assert!(observed.errors.is_empty(), "{:?}", observed.errors);
        let at = Timestamp::from_millis(self.now * 1000);
        let observation = Observation {
            now: at,
            sample: observed.sample,
            setpoint: observed.setpoint,
            counts,
            in_flight: InFlight { launches: counts.in_flight(), kills: 0 },
            scripted: observed.scripted,
            ..Observation::default()
        };
        let (decision, state) = decide(&Config::from(&*self.spec), std::mem::take(&mut self.state), &observation);
        self.state = state;
        let launched = u32::try_from(decision.adjustment.max(0)).unwrap();
        let killed = u32::try_from((-decision.adjustment).max(0)).unwrap();
        settle(&mut self.state, at, launched, killed, decision.to_min);
        // The newest go first, which are the last.
        self.tasks.truncate(self.tasks.len() - killed as usize);
        for _ in 0..launched {
            self.launched.push(self.now);
            let number = self.launched.len();
            self.tasks.push(TaskView {
                id: TaskId::from(format!("memcached.{number}").as_str()),
                policy: "memcached".into(),
                backend: "docker".into(),
                state: TaskState::Staging,
                ready: false,
                helper: false,
                placement: Placement {
                    host: Some("127.0.0.1".into()),
                    ports: BTreeMap::from([("memcached".to_owned(), self.port)]),
                    ..Placement::default()
                },
                started: self.wall(),
                stats: TaskStats::default(),
                by: "law",
                slot: Some(0),
            });
        }
        self.now += 5;
        self.tick += 1;
        decision.adjustment
    }

    /// Ticks until the given second.
    async fn until(&mut self, second: u64, memory: f64, cpu: f64) {
        while self.now < second {
            self.tick().await;
            self.all_run(memory, cpu);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_one_server_more_a_minute_by_memory_or_cpu() {
    let mut group = Group::new();
    // The first comes at once, without a sample, and is the only one while it is on its way.
    assert_eq!(group.tick().await, 1);
    assert_eq!((group.tick().await, group.tick().await), (0, 0));
    group.all_run(81.0, 5.0);
    group.until(200, 81.0, 5.0).await;
    assert_eq!(group.launched, [0, 60, 120, 180], "one at a time, no sooner than 60 s after the last");

    let mut group = Group::new();
    group.until(300, 80.0, 30.0).await;
    assert_eq!(group.launched, [0], "80 is not above 80, and 30 not above 30");
    group.until(301, 20.0, 31.0).await;
    group.until(310, 20.0, 31.0).await;
    assert_eq!(group.launched.len(), 2, "31 is above 30");
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_the_dead_leave_the_average_and_are_replaced_at_once() {
    let mut group = Group::new();
    group.until(70, 81.0, 5.0).await;
    group.all_run(10.0, 1.0);
    assert_eq!(group.tasks.len(), 2);
    // A full one that is dying: only the other counts.
    group.tasks[0].stats.memory_bytes = Some(64 << 20);
    group.tasks[1].stats.memory_bytes = Some(40 << 20);
    group.now = 300;
    group.tasks[0].state = TaskState::Killing;
    assert_eq!(group.tick().await, 0, "40 of 64 MiB is not above 80 %");
    group.tasks[1].stats.memory_bytes = Some(60 << 20);
    assert_eq!(group.tick().await, 1, "60 of 64 MiB is");

    // Without any, the lower bound holds whatever the throttle says, and again with one on its way at most.
    let mut group = Group::new();
    group.until(30, 10.0, 1.0).await;
    group.tasks.clear();
    assert_eq!((group.tick().await, group.tick().await), (1, 0));
    // No figures are no reason for anything.
    group.tasks[0].state = TaskState::Running;
    group.tasks[0].ready = true;
    group.now = 500;
    assert_eq!(group.tick().await, 0);
}

/// A memcached that counts `each` requests more every time it is asked.
fn server(each: u64) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (asked, stream) in (0..).zip(listener.incoming().take(5000)) {
            let mut stream = stream.unwrap();
            std::io::Read::read_exact(&mut stream, &mut [0; 7]).ok();
            let requests = 1000 + asked * each;
            write!(stream, "STAT cmd_get {requests}\r\nSTAT cmd_set 0\r\nEND\r\n").ok();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_in_is_by_requests_when_asked_for_and_never_two_in_its_cooldown() {
    // Three servers that grew with memory; then it is quiet, and memory says nothing about that.
    let grown = async |params: &[(&str, &str)], each| {
        let mut group = Group::with(params);
        group.port = server(each);
        group.until(150, 81.0, 1.0).await;
        assert_eq!(group.tasks.len(), 3);
        group.all_run(20.0, 1.0);
        group
    };
    let mut group = grown(&[], 0).await;
    group.until(4000, 20.0, 1.0).await;
    assert_eq!(group.tasks.len(), 3, "off unless it is asked for");

    let asked_for = [("scale_in", "100"), ("scale_in_cooldown", "10m")];
    let mut group = grown(&asked_for, 0).await;
    let ids = |group: &Group| group.tasks.iter().map(|task| task.id.to_string()).collect::<Vec<_>>();
    // The last launch was at 120, and each kill starts the cooldown anew.
    group.until(715, 20.0, 1.0).await;
    assert_eq!(group.tasks.len(), 3);
    group.until(760, 20.0, 1.0).await;
    assert_eq!(ids(&group), ["memcached.1", "memcached.2"], "the newest goes");
    group.until(1300, 20.0, 1.0).await;
    assert_eq!(group.tasks.len(), 2);
    group.until(3000, 20.0, 1.0).await;
    assert_eq!(ids(&group), ["memcached.1"], "down to min");

    // With work for all of them nobody goes.
    let mut group = grown(&asked_for, 100_000).await;
    group.until(3000, 20.0, 1.0).await;
    assert_eq!(group.tasks.len(), 3);
}

#[test]
fn a12_the_list_has_the_old_shape_and_no_dead() {
    let member = Member {
        id: "Memcache-0".into(),
        slot: 0,
        host: "slave1".to_owned(),
        ports: BTreeMap::from([("memcached".to_owned(), 31_000)]),
        container: None,
        started: SystemTime::UNIX_EPOCH,
        cpu_percent: Some(0.01),
        memory_bytes: Some(1),
        memory_percent: Some(0.04),
    };
    let mut service =
        Service { policy: "memcached".into(), ports: vec!["memcached".to_owned()], members: vec![member] };
    assert_eq!(
        serde_json::to_string(&legacy::listing(std::slice::from_ref(&service))).unwrap(),
        r#"{"Memcache-0":{"TaskID":"Memcache-0","CPU":0.01,"Memory":0.04,"Hostname":"slave1","Port":31000}}"#
    );
    service.members.clear();
    assert_eq!(serde_json::to_string(&legacy::listing(&[service])).unwrap(), "{}");
}
