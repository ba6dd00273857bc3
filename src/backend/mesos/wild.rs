//! Whatever a master says that can be read at all, in whatever order: extreme numbers, unknown words, tasks and offers that
//! nobody has heard of, ranges the wrong way round. Nothing panics, and no offer stays without an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::framework::{Effect, Framework, HOLD};
use super::offer;
use super::tests::{request, setting};
use crate::core::mesos::{MesosSpec, Want};
use crate::core::model::TaskId;
use crate::core::offers::{Constraint, Packing, Rule};
use crate::core::policy::{Command, PortSpec, TaskTemplate};
use crate::mesos::wire::scheduler::{Call, Event};

/// What is played, from a seed.
struct Play {
    random: Rng,
    framework: Framework,
    now: Duration,
    serial: u64,
    templates: Vec<Arc<TaskTemplate>>,
    last: Option<Call>,
    /// Offers of this subscription that wait for an answer.
    open: BTreeMap<String, Duration>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut framework = Framework::new(setting());
        framework.recover(Vec::new());
        framework.subscribed(Duration::ZERO);
        let templates = (0..3).map(|_| Arc::new(template(&mut random))).collect();
        let now = Duration::ZERO;
        Self { random, framework, now, serial: 0, templates, last: None, open: BTreeMap::new() }
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.usize(..of.len())].clone()
    }

    fn number(&mut self) -> f64 {
        self.one(&[0.0, -1.0, 0.1, 1.0, 4.0, 4096.0, 1e-9, 9.3e15, 1.9e19, 1.7e308])
    }

    fn whole(&mut self) -> u64 {
        self.one(&[0, 1, 5, 31_000, 31_001, 65_535, 65_536, u64::MAX - 1, u64::MAX])
    }

    fn id(&mut self, what: &str) -> Value {
        let n = self.random.u8(..4);
        json!({ "value": if n == 3 { String::new() } else { format!("{what}{n}") } })
    }

    fn resource(&mut self) -> Value {
        let name = self.one(&["cpus", "mem", "disk", "ports", "nics", "gpus", "é"]);
        let kind = match name {
            _ if self.random.u8(..8) == 0 => self.one(&["SCALAR", "RANGES", "SET", "TEXT", "NEW"]),
            "ports" => "RANGES",
            "nics" => "SET",
            _ => "SCALAR",
        };
        let mut resource = json!({ "name": name, "type": kind });
        if self.random.u8(..8) > 0 {
            let ranges: Vec<_> =
                (0..self.random.u8(..4)).map(|_| json!({ "begin": self.whole(), "end": self.whole() })).collect();
            resource["scalar"] = json!({ "value": self.number() });
            resource["ranges"] = json!({ "range": ranges });
            resource["set"] = json!({ "item": ["eth0", "", "eth0"] });
        }
        if self.random.bool() {
            resource["allocation_info"] = json!({ "role": self.one(&["*", "ops", ""]) });
        }
        if self.random.u8(..4) == 0 {
            resource["reservations"] = json!([{ "role": self.one(&["*", "ops"]), "type": "STATIC" }]);
        }
        resource
    }

    fn offer(&mut self) -> Value {
        self.serial += 1;
        // One in a while is told twice.
        let id = self.serial - u64::from(self.random.u8(..16) == 0);
        let resources: Vec<_> = (0..self.random.u8(..7)).map(|_| self.resource()).collect();
        let mut offer = json!({
            "id": { "value": format!("o{id}") }, "agent_id": self.id("a"), "framework_id": { "value": "f" },
            "hostname": self.one(&["h1", "h2", ""]), "resources": resources,
            "attributes": [{ "name": "rack", "type": self.one(&["TEXT", "SCALAR", "RANGES"]), "text": { "value": "r1" },
                "scalar": { "value": self.number() }, "ranges": { "range": [{ "begin": self.whole(), "end": 0 }] } }],
        });
        if self.random.bool() {
            offer["allocation_info"] = json!({ "role": self.one(&["*", "ops", ""]) });
        }
        if self.random.u8(..4) == 0 {
            let nanoseconds = self.one(&[i64::MIN, -1, 0, i64::MAX]);
            offer["unavailability"] =
                json!({ "start": { "nanoseconds": nanoseconds }, "duration": { "nanoseconds": nanoseconds } });
        }
        offer
    }

    fn status(&mut self) -> Value {
        let task = if self.random.bool() { format!("p.{}", self.random.u8(..8)) } else { String::new() };
        let states = [
            "STAGING",
            "STARTING",
            "RUNNING",
            "KILLING",
            "FINISHED",
            "FAILED",
            "KILLED",
            "ERROR",
            "LOST",
            "DROPPED",
            "UNREACHABLE",
            "GONE",
            "GONE_BY_OPERATOR",
            "UNKNOWN",
            "NEW",
        ];
        let mut status = json!({ "task_id": { "value": task }, "state": format!("TASK_{}", self.one(&states)) });
        let rest = [
            ("agent_id", self.id("a")),
            ("reason", json!(self.one(&["REASON_RECONCILIATION", "REASON_INVALID_OFFERS", "REASON_NEW"]))),
            ("message", json!(self.one(&["", "exited with status 99999999999", "terminated with signal "]))),
            ("healthy", json!(self.random.bool())),
            ("uuid", json!("AAEC")),
            ("timestamp", json!(self.number())),
        ];
        for (key, value) in rest {
            if self.random.bool() {
                status[key] = value;
            }
        }
        status
    }

    /// Something that the master says.
    fn event(&mut self) -> Value {
        match self.random.u8(..8) {
            0..3 => {
                let offers: Vec<_> = (0..self.random.u8(..4)).map(|_| self.offer()).collect();
                json!({ "type": "OFFERS", "offers": { "offers": offers } })
            }
            3..6 => json!({ "type": "UPDATE", "update": { "status": self.status() } }),
            6 => {
                let id = self.serial.saturating_sub(self.random.u64(..3));
                json!({ "type": "RESCIND", "rescind": { "offer_id": { "value": format!("o{id}") } } })
            }
            _ => {
                json!({ "type": "FAILURE", "failure": { "agent_id": self.id("a"), "executor_id": self.id("setpoint.p.") } })
            }
        }
    }

    fn hear(&mut self) {
        let said = self.event().to_string();
        match Event::read(said.as_bytes()) {
            Ok(Event::Offers(offers)) => {
                let wall = self.one(&[Duration::ZERO, Duration::from_secs(1), Duration::MAX]);
                for offer in &offers {
                    self.open.insert(offer.id.as_str().to_owned(), self.now + HOLD);
                }
                let (closed, open) = offers.into_iter().partition(|offer| offer::is_in_maintenance(offer, wall));
                self.framework.pass_over(closed);
                self.framework.offers(self.now, open);
            }
            Ok(Event::Update(status)) => self.framework.update(self.now, &status),
            Ok(Event::Rescind(id)) => {
                self.framework.rescinded(&id);
                self.open.remove(id.as_str());
            }
            Ok(Event::Failure(failure)) => {
                let executor = failure.executor_id.as_ref().map(crate::mesos::wire::ExecutorId::as_str);
                self.framework.failure(failure.agent_id.as_ref(), executor);
            }
            Ok(other) => panic!("not among what is said: {other:?}"),
            // A word of another type than Mesos has there is passed over with its event.
            Err(_) => {}
        }
    }

    fn step(&mut self) {
        let ids = |random: &mut Rng| vec![TaskId::from(format!("p.{}", random.u8(..8)).as_str())];
        match self.random.u8(..20) {
            0..10 => self.hear(),
            10..13 => {
                let requests = (0..self.random.u8(..4)).map(|_| {
                    let (id, template) = (self.random.u8(..8), self.random.usize(..self.templates.len()));
                    request("p", &format!("p.{id}"), &self.templates[template])
                });
                let requests = requests.collect();
                self.framework.launch(self.now, requests);
            }
            13 => {
                let grace = self.one(&[Duration::ZERO, Duration::from_secs(3), Duration::from_secs(u64::MAX >> 34)]);
                self.framework.kill(self.now, ids(&mut self.random), grace);
            }
            14 => self.framework.withdraw(self.now, ids(&mut self.random)),
            15 => {
                if let Some(call) = self.last.take() {
                    self.framework.not_sent(self.now, &call);
                }
            }
            16 => {
                self.framework.lost();
                self.open.clear();
                self.framework.subscribed(self.now);
            }
            _ => {
                let passed = self.one(&[1, 250, 1000, 80_000, 3_600_000]);
                self.now += Duration::from_millis(passed);
                self.framework.tick(self.now);
            }
        }
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for effect in self.framework.take() {
            let Effect::Call(call) = effect else { continue };
            let answered = match &call {
                Call::Accept(accept) => &accept.offer_ids[..],
                Call::Decline(decline) => &decline.offer_ids[..],
                _ => &[],
            };
            for id in answered {
                self.open.remove(id.as_str());
            }
            call.to_json(None);
            self.last = Some(call);
        }
    }
}

fn template(random: &mut Rng) -> TaskTemplate {
    let port = |name: &str, outside| PortSpec { name: name.to_owned(), outside, ..PortSpec::default() };
    let rules = [
        Rule::Unique,
        Rule::Equal("r1".to_owned()),
        Rule::NotEqual("r1".to_owned()),
        Rule::GroupBy(None),
        Rule::GroupBy(Some(2)),
    ];
    let rule = random.choice(&rules).unwrap().clone();
    let attribute = if random.bool() { "rack" } else { "hostname" }.to_owned();
    let constraints = if random.bool() { vec![Constraint { attribute, rule }] } else { Vec::new() };
    let wants = [
        ("nics".to_owned(), Want::AnyItems { any: random.u32(1..3) }),
        ("vlans".to_owned(), Want::AnyNumbers { numbers: random.u32(1..3) }),
    ];
    TaskTemplate {
        command: Some(Command::Shell("x".to_owned())),
        cpus: Some([0.0, 0.1, 9.3e15][random.usize(..3)]),
        memory: Some([0, 1 << 20, u64::MAX][random.usize(..3)]),
        disk: random.bool().then_some(u64::MAX),
        ports: (0..random.u8(..3))
            .map(|n| port(&format!("n{n}"), [None, Some((31_000, 31_000)), Some((1, 65_535))][random.usize(..3)]))
            .collect(),
        executor: random.bool().then(|| "setpoint".to_owned()),
        mesos: MesosSpec {
            role: random.bool().then(|| "ops".to_owned()),
            constraints,
            packing: if random.bool() { Packing::Spread } else { Packing::Pack },
            resources: wants.into_iter().filter(|_| random.u8(..4) == 0).collect(),
            ..MesosSpec::default()
        },
        ..TaskTemplate::default()
    }
}

#[test]
fn whatever_a_master_says_nothing_panics_and_every_offer_is_answered() {
    #[expect(clippy::disallowed_methods, reason = "how much is tried is for whoever runs the tests to say")]
    let setting = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (cases, first) = (setting("SETPOINT_CASES", 1000), setting("SETPOINT_SEED", 1));
    for seed in first..first + cases {
        let mut play = Play::new(seed);
        for _ in 0..60 {
            play.step();
        }
        play.now += HOLD;
        play.framework.tick(play.now);
        play.carry_out();
        assert_eq!(play.framework.held(), 0, "seed {seed}");
        let late: Vec<_> = play.open.iter().filter(|(_, until)| **until < play.now).collect();
        assert!(late.is_empty(), "seed {seed}: {late:?} wait for an answer");
    }
}
