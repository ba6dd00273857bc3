//! The framework's conduct under a virtual clock: withdrawn launches, offers, manners, kills and reconciliation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::framework::{BUSY_FOR, DENIED_FOR, Effect, Framework, HOLD, News, REVIVE_EVERY, UNREACHABLE_FOR};
use super::task_info::Setting;
use super::{MesosBackend, MesosConfig};
use crate::backend::{LaunchRequest, TaskBackend};
use crate::core::container::{ContainerSpec, Health, HealthCheck, Probe, ProbePort, Protocol, Pull, Tmpfs, Volume};
use crate::core::mesos::{Containerizer, Discovery, Limits, MesosSpec, Uri, Visibility, Want};
use crate::core::model::{Exit, Placement, TaskId, TaskState};
use crate::core::offers::{Constraint, Rule};
use crate::core::policy::{Command, PortSpec, Ready, TaskTemplate};
use crate::mesos::wire::scheduler::{Accept, Call, Operation};
use crate::mesos::wire::{
    self, AgentId, AllocationInfo, Bytes, Offer, OfferId, Resource, StatusReason, TaskInfo, TaskStatus, ValueKind,
};

/// A framework with a clock that only the test moves.
struct Bench {
    framework: Framework,
    now: Duration,
    offers: u32,
}

impl Bench {
    /// Subscribed, with nothing to recover, and what that led to dropped.
    fn new() -> Self {
        Self::with(setting())
    }

    fn with(setting: Setting) -> Self {
        let mut bench = Self { framework: Framework::new(setting), ..Self::bare() };
        bench.framework.recover(Vec::new());
        bench.framework.subscribed(bench.now);
        let effects = bench.framework.take();
        assert!(effects.contains(&Effect::Recovered), "{effects:?}");
        bench
    }

    fn bare() -> Self {
        Self { framework: Framework::new(setting()), now: Duration::ZERO, offers: 0 }
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.framework.tick(self.now);
        self.framework.take()
    }

    fn launch(&mut self, ids: &[&str]) -> Vec<Effect> {
        self.launch_as(ids, &template("exec sleep 1"))
    }

    fn launch_as(&mut self, ids: &[&str], template: &Arc<TaskTemplate>) -> Vec<Effect> {
        self.launch_for("p", ids, template)
    }

    fn launch_for(&mut self, policy: &str, ids: &[&str], template: &Arc<TaskTemplate>) -> Vec<Effect> {
        let requests = ids.iter().map(|id| request(policy, id, template));
        self.framework.launch(self.now, requests.collect());
        self.framework.take()
    }

    /// An offer of an agent comes in.
    fn offer(&mut self, agent: &str, resources: Vec<Resource>) -> Vec<Effect> {
        self.offer_to("*", agent, resources)
    }

    fn offer_to(&mut self, role: &str, agent: &str, resources: Vec<Resource>) -> Vec<Effect> {
        self.offers += 1;
        let offer = Offer {
            id: OfferId::new(format!("o{}", self.offers)),
            agent_id: AgentId::new(agent),
            hostname: format!("{agent}.test"),
            resources,
            allocation_info: Some(AllocationInfo { role: Some(role.to_owned()) }),
            ..Offer::default()
        };
        self.framework.offers(self.now, vec![offer]);
        self.framework.take()
    }

    fn withdraw(&mut self, id: &str) -> Vec<Effect> {
        self.framework.withdraw(self.now, vec![TaskId::from(id)]);
        self.framework.take()
    }

    fn kill(&mut self, id: &str) -> Vec<Effect> {
        self.framework.kill(self.now, vec![TaskId::from(id)], Duration::from_secs(3));
        self.framework.take()
    }

    fn status(&mut self, id: &str, state: wire::TaskState) -> Vec<Effect> {
        self.say(TaskStatus {
            task_id: wire::TaskId::new(id),
            state,
            agent_id: Some(AgentId::new("a")),
            uuid: Some(Bytes(vec![7; 16])),
            ..TaskStatus::default()
        })
    }

    fn say(&mut self, status: TaskStatus) -> Vec<Effect> {
        self.framework.update(self.now, &status);
        self.framework.take()
    }
}

pub(super) fn setting() -> Setting {
    Setting {
        role: "*".to_owned(),
        executor: "/bin/setpoint".to_owned(),
        executor_uri: None,
        executor_env: BTreeMap::new(),
        gpus: false,
        mark: "mark".to_owned(),
        unreachable: UNREACHABLE_FOR,
    }
}

pub(super) fn request(policy: &str, id: &str, template: &Arc<TaskTemplate>) -> LaunchRequest {
    LaunchRequest {
        id: TaskId::from(id),
        policy: policy.into(),
        template: Arc::clone(template),
        ready: Ready::Running,
        grace: Duration::from_secs(7),
        base: None,
    }
}

fn template(command: &str) -> Arc<TaskTemplate> {
    Arc::new(TaskTemplate {
        command: Some(Command::Shell(command.to_owned())),
        cpus: Some(1.0),
        memory: Some(32 << 20),
        ..TaskTemplate::default()
    })
}

fn room(cpus: f64) -> Vec<Resource> {
    vec![Resource::scalar("cpus", cpus), Resource::scalar("mem", 10_000.0)]
}

fn launched(effects: &[Effect]) -> Vec<TaskInfo> {
    let of = |effect: &Effect| match effect {
        Effect::Call(Call::Accept(Accept { operations, .. })) => match operations.as_slice() {
            [Operation::Launch(launch)] => launch.task_infos.clone(),
            other => panic!("{other:?}"),
        },
        _ => Vec::new(),
    };
    effects.iter().flat_map(of).collect()
}

fn calls(effects: &[Effect]) -> Vec<&'static str> {
    let name = |effect: &Effect| if let Effect::Call(call) = effect { Some(call.name()) } else { None };
    effects.iter().filter_map(name).collect()
}

fn news(effects: &[Effect]) -> Vec<&News> {
    effects.iter().filter_map(|effect| if let Effect::Tell(news) = effect { Some(&**news) } else { None }).collect()
}

/// A6: what was asked for and withdrawn while there were no offers is not launched when one comes.
#[test]
fn a6_a_withdrawn_launch_is_never_sent() {
    let mut bench = Bench::new();
    bench.launch(&["p.1", "p.2"]);
    for _ in 0..60 {
        bench.pass(Duration::from_secs(1));
    }
    for told in [bench.kill("p.1"), bench.withdraw("p.2")] {
        assert_eq!((news(&told)[0].state, news(&told)[0].exit.clone()), (TaskState::Gone, Some(Exit::Unknown)));
        assert!(!calls(&told).contains(&"KILL"), "no master ever heard of it");
    }
    bench.pass(HOLD);
    let effects = bench.offer("a", room(30.0));
    assert_eq!((launched(&effects).len(), calls(&effects)), (0, vec!["DECLINE"]));
    // And what is wanted then is launched, once.
    bench.launch(&["p.3"]);
    assert_eq!(launched(&bench.offer("a", room(30.0))).len(), 1);
    assert_eq!(launched(&bench.offer("a", room(30.0))).len(), 0);
    // One that was sent at that very moment is wanted, and stays.
    assert_eq!(bench.withdraw("p.3"), Vec::new());
    assert_eq!(news(&bench.status("p.3", wire::TaskState::Running))[0].state, TaskState::Running);
    assert_eq!(news(&bench.withdraw("p.4"))[0].state, TaskState::Gone, "one that nobody knows is gone");
}

/// An offer that comes between a withdrawal and the decision after it waits for that, and not for long.
#[test]
fn an_offer_waits_for_the_decision_that_is_on_its_way() {
    let half = HOLD / 2;
    let mut bench = Bench::new();
    bench.launch(&["p.1"]);
    bench.kill("p.1");
    assert_eq!(calls(&bench.offer("a", room(1.0))), Vec::<&str>::new());
    assert_eq!(calls(&bench.pass(half)), Vec::<&str>::new());
    let effects = bench.launch(&["p.2"]);
    assert_eq!((launched(&effects).len(), calls(&effects)), (1, vec!["ACCEPT"]), "and no REVIVE besides");
    assert_eq!(calls(&bench.offer("b", room(1.0))), ["DECLINE"], "the decision has been made");

    // When nothing comes of it, it is answered in time, however often something is withdrawn meanwhile.
    bench.launch(&["p.3"]);
    bench.kill("p.3");
    assert_eq!(calls(&bench.offer("a", room(1.0))), Vec::<&str>::new());
    bench.pass(half);
    bench.launch_for("q", &["q.1"], &Arc::new(TaskTemplate { cpus: Some(9.0), ..(*template("x")).clone() }));
    bench.kill("q.1");
    assert_eq!((bench.framework.held(), bench.framework.held_until()), (1, Some(bench.now + half)));
    assert_eq!(calls(&bench.pass(half)), ["DECLINE"]);
    assert_eq!((bench.framework.held(), bench.framework.held_until()), (0, None));

    // One that is taken back meanwhile, or is void with its stream, is not answered at all.
    bench.launch(&["p.4"]);
    bench.kill("p.4");
    bench.offer("a", room(1.0));
    bench.framework.rescinded(&OfferId::new(format!("o{}", bench.offers)));
    bench.offer("a", room(1.0));
    assert_eq!(bench.framework.held(), 1);
    bench.framework.lost();
    bench.framework.subscribed(bench.now);
    bench.framework.take();
    assert!(!calls(&bench.pass(HOLD)).contains(&"DECLINE"));
    assert_eq!(bench.framework.counters.declined, 2);
}

/// A7: ten are wanted and four fit: four are launched, the rest waits to be withdrawn or placed.
#[test]
fn a7_what_fits_is_launched_and_no_more() {
    let mut bench = Bench::new();
    let ids: Vec<String> = (0..10).map(|i| format!("p.{i}")).collect();
    bench.launch(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(launched(&bench.offer("a", room(4.0))).len(), 4);
    let effects = bench.offer("b", vec![Resource::scalar("mem", 10_000.0)]);
    assert_eq!(calls(&effects), ["DECLINE"], "an offer without cpus has none");
    let two_roles = vec![Resource::scalar("cpus", 0.6), Resource::scalar("cpus", 0.6), Resource::scalar("mem", 99.0)];
    let infos = launched(&bench.offer("c", two_roles));
    let cpus: f64 =
        infos[0].resources.iter().filter(|r| r.name == "cpus").map(|r| r.scalar.as_ref().unwrap().value).sum();
    assert!((cpus - 1.0).abs() < 1e-9, "{infos:?}");
    assert_eq!(launched(&bench.offer("a", room(100.0))).len(), 5, "ten in all, never more");
}

/// A14: a command reaches the agent as it was written.
#[test]
fn a14_commands_are_sent_byte_for_byte() {
    let mut bench = Bench::new();
    let line = r#"echo "{\"a\":1} ${HOME}""#;
    bench.launch_as(&["p.1"], &template(line));
    let infos = launched(&bench.offer("a", room(1.0)));
    assert_eq!(infos[0].command.as_ref().unwrap().value.as_deref(), Some(line));
}

#[test]
fn offers_are_wanted_while_something_happens_and_not_after() {
    let mut bench = Bench::new();
    assert_eq!(calls(&bench.pass(Duration::ZERO)), Vec::<&str>::new());
    assert!(bench.framework.is_suppressed(), "a framework with nothing to do wants no offers");
    assert_eq!(calls(&bench.launch(&["p.1"])), ["REVIVE"], "the first one after a SUPPRESS goes out at once");
    assert_eq!(calls(&bench.launch(&["p.2"])), Vec::<&str>::new());
    assert_eq!(calls(&bench.pass(REVIVE_EVERY.saturating_sub(Duration::from_millis(1)))), Vec::<&str>::new());
    assert_eq!(calls(&bench.pass(Duration::from_millis(1))), ["REVIVE"], "tasks still wait");
    let refuse = |effects: &[Effect]| match &effects[0] {
        Effect::Call(Call::Decline(decline)) => decline.filters.as_ref().unwrap().refuse_seconds.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(launched(&bench.offer("a", room(8.0))).len(), 2);
    assert!(refuse(&bench.offer("b", room(8.0))) <= 1.0, "more may be wanted at any moment");
    let effects = bench.pass(BUSY_FOR);
    assert_eq!(calls(&effects), ["SUPPRESS"]);
    assert!(refuse(&bench.offer("b", room(8.0))) >= 3600.0, "one that was on its way");
    // What had to wait for long is followed by more as well.
    bench.launch(&["p.3"]);
    bench.pass(BUSY_FOR * 2);
    assert_eq!(launched(&bench.offer("a", room(1.0))).len(), 1);
    assert!(refuse(&bench.offer("b", room(8.0))) <= 1.0);
    assert_eq!(calls(&bench.pass(BUSY_FOR / 2)), Vec::<&str>::new());
}

#[test]
fn a_kill_is_repeated_until_the_task_is_gone() {
    let mut bench = Bench::new();
    bench.launch(&["p.1"]);
    bench.offer("a", room(1.0));
    bench.status("p.1", wire::TaskState::Running);
    assert_eq!(calls(&bench.kill("p.1")), ["KILL"]);
    let kills = (0..60).filter(|_| calls(&bench.pass(Duration::from_secs(1))).contains(&"KILL")).count();
    assert!((2..=6).contains(&kills), "{kills}");
    let effects = bench.status("p.1", wire::TaskState::Killed);
    assert_eq!((news(&effects)[0].state, news(&effects)[0].exit.clone()), (TaskState::Gone, Some(Exit::Unknown)));
    assert_eq!(calls(&bench.pass(Duration::from_secs(60))).iter().filter(|call| **call == "KILL").count(), 0);
    let again = bench.kill("p.1");
    assert_eq!(news(&again)[0].state, TaskState::Gone, "one that is gone is said to be gone");
}

#[test]
fn an_update_is_acknowledged_by_whoever_made_it_durable() {
    let mut bench = Bench::new();
    bench.launch(&["p.1"]);
    bench.offer("a", room(1.0));
    let effects = bench.status("p.1", wire::TaskState::Running);
    assert!(!calls(&effects).contains(&"ACKNOWLEDGE"), "not before it is durable");
    assert_eq!(news(&effects)[0].acknowledge.as_ref().unwrap().uuid, Bytes(vec![7; 16]));
    // That it is gone may first come by an answer that is not acknowledged, and an agent repeats its own word. That the task is
    // gone is to be kept first, however often it is told.
    let reconciled = TaskStatus {
        task_id: wire::TaskId::new("p.1"),
        state: wire::TaskState::Finished,
        reason: Some(StatusReason::Reconciliation),
        ..TaskStatus::default()
    };
    assert_eq!(news(&bench.say(reconciled))[0].acknowledge, None);
    for _ in 0..2 {
        let effects = bench.status("p.1", wire::TaskState::Finished);
        assert_eq!(calls(&effects), Vec::<&str>::new());
        let [again] = news(&effects)[..] else { panic!("{effects:?}") };
        assert_eq!((again.state, again.acknowledge.is_some()), (TaskState::Gone, true));
        bench.pass(Duration::from_secs(60));
    }
}

/// What was given up, or was never asked for, is told to end until it has; one KILL may get lost.
#[test]
fn a_task_that_nobody_asks_for_is_ended() {
    let mut bench = Bench::new();
    assert_eq!(calls(&bench.status("q.1", wire::TaskState::Running)), ["KILL", "ACKNOWLEDGE"]);
    assert_eq!(calls(&bench.status("q.1", wire::TaskState::Killing)), ["ACKNOWLEDGE"], "it has been told");
    let kills =
        |bench: &mut Bench| (0..60).filter(|_| calls(&bench.pass(Duration::from_secs(1))).contains(&"KILL")).count();
    assert!((2..=6).contains(&kills(&mut bench)));
    bench.framework.lost();
    bench.framework.subscribed(bench.now);
    assert!(calls(&bench.framework.take()).contains(&"KILL"), "the new master may not have heard of it");
    assert_eq!(calls(&bench.status("q.1", wire::TaskState::Unreachable)), ["ACKNOWLEDGE"], "nobody could end it now");
    assert_eq!(kills(&mut bench), 0);
    assert_eq!(calls(&bench.status("q.1", wire::TaskState::Running)), ["KILL", "ACKNOWLEDGE"]);
    bench.status("q.1", wire::TaskState::Killed);
    assert_eq!(kills(&mut bench), 0);
}

/// Everything is asked about after a subscription and every quarter of an hour; what has not been answered, more often.
#[test]
fn tasks_are_asked_about_every_quarter_of_an_hour() {
    const HOUR: u64 = 3600;
    let mut bench = Bench::new();
    bench.launch(&["p.1", "p.2"]);
    bench.offer("a", room(2.0));
    bench.framework.lost();
    bench.framework.subscribed(bench.now);
    let asked = |effects: &[Effect]| -> Vec<Vec<String>> {
        let of = |effect: &Effect| match effect {
            Effect::Call(Call::Reconcile(reconcile)) => {
                Some(reconcile.tasks.iter().map(|task| task.task_id.as_str().to_owned()).collect())
            }
            _ => None,
        };
        effects.iter().filter_map(of).collect()
    };
    // A master that answers at once.
    let mut rounds = Vec::new();
    let mut effects = bench.framework.take();
    for second in 0..HOUR {
        for tasks in asked(&effects) {
            rounds.push((second / 60, tasks.len()));
            for task in tasks {
                bench.status(&task, wire::TaskState::Running);
            }
        }
        effects = bench.pass(Duration::from_secs(1));
    }
    let quarters = [0, 15, 30, 45].map(|minute| [(minute, 2), (minute, 0)]);
    assert_eq!(rounds, quarters.concat(), "by name, and whatever the master knows");

    // One that does not answer is asked again, less and less often, and of what was answered nothing more.
    bench.framework.lost();
    bench.framework.subscribed(bench.now);
    bench.framework.take();
    bench.status("p.1", wire::TaskState::Running);
    let mut seconds = Vec::new();
    for second in 1..=HOUR / 4 {
        for tasks in asked(&bench.pass(Duration::from_secs(1))) {
            assert_eq!(tasks, ["p.2"]);
            seconds.push(second);
        }
    }
    let pauses: Vec<u64> = seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!((seconds[0], &pauses[..5]), (1, &[2, 4, 8, 16, 30][..]));
    assert!(pauses[5..].iter().all(|pause| *pause == 30), "{pauses:?}");
}

#[test]
fn a_run_asks_about_the_tasks_of_the_one_before() {
    let mut bench = Bench::bare();
    let placed = Placement { token: Some("a".to_owned()), ..Placement::default() };
    bench.framework.recover(vec![
        (TaskId::from("p.1"), "p".into(), TaskState::Running, placed.clone()),
        (TaskId::from("p.2"), "p".into(), TaskState::Asked, Placement::default()),
        (TaskId::from("p.3"), "p".into(), TaskState::Killing, Placement::default()),
        (TaskId::from("p.4"), "p".into(), TaskState::Staging, placed),
    ]);
    let effects = bench.framework.take();
    let gone: Vec<&str> = news(&effects).iter().map(|news| news.id.as_str()).collect();
    assert_eq!(gone, ["p.2", "p.3"], "what has no place was never sent");
    bench.framework.subscribed(bench.now);
    let effects = bench.framework.take();
    assert_eq!(calls(&effects), ["RECONCILE", "RECONCILE"], "by name, and for all that the master knows");
    assert!(!effects.contains(&Effect::Recovered));
    assert_eq!(news(&bench.status("p.1", wire::TaskState::Running))[0].state, TaskState::Running);
    let gone = bench.say(TaskStatus {
        task_id: wire::TaskId::new("p.4"),
        state: wire::TaskState::Gone,
        reason: Some(StatusReason::Reconciliation),
        ..TaskStatus::default()
    });
    assert_eq!(news(&gone)[0].exit, Some(Exit::Unknown), "its launch never arrived");
    assert!(gone.contains(&Effect::Recovered));
    // Offers that came meanwhile were declined for long; what is wanted now does not wait for the next REVIVE's turn.
    assert_eq!((calls(&gone), calls(&bench.launch(&["p.5"]))), (vec!["SUPPRESS"], vec!["REVIVE"]));
}

/// A launch that was lost on the way is no failure, whichever word the master has for it.
#[test]
fn a_launch_that_no_agent_has_heard_of_has_not_failed() {
    let mut bench = Bench::new();
    bench.launch(&["p.1", "p.2"]);
    bench.offer("a", room(2.0));
    bench.status("p.2", wire::TaskState::Running);
    let gone = |id: &str| TaskStatus {
        task_id: wire::TaskId::new(id),
        state: wire::TaskState::Gone,
        reason: Some(StatusReason::Reconciliation),
        ..TaskStatus::default()
    };
    assert_eq!(news(&bench.say(gone("p.1")))[0].exit, Some(Exit::Unknown));
    assert!(matches!(news(&bench.say(gone("p.2")))[0].exit, Some(Exit::Lost { .. })), "that one ran");
}

/// What counts for constraints is not forgotten with the run: tasks before are counted where they are.
#[test]
fn constraints_hold_over_a_restart() {
    let unique = Arc::new(TaskTemplate {
        mesos: MesosSpec {
            constraints: vec![Constraint { attribute: text("hostname"), rule: Rule::Unique }],
            ..MesosSpec::default()
        },
        ..(*template("x")).clone()
    });
    let mut bench = Bench::new();
    bench.launch_as(&["p.1"], &unique);
    let effects = bench.offer("a", room(1.0));
    let placement = news(&effects)[0].placement.clone().unwrap();

    // With its placement as it was kept, and with what only an offer of its agent can tell.
    for (kept, places) in
        [(placement, ["a", "b"]), (Placement { token: Some(text("a")), ..Placement::default() }, ["a", "b"])]
    {
        let mut bench = Bench::bare();
        bench.framework.recover(vec![(TaskId::from("p.1"), "p".into(), TaskState::Running, kept)]);
        bench.framework.subscribed(bench.now);
        bench.status("p.1", wire::TaskState::Running);
        bench.launch_as(&["p.2"], &unique);
        let launches = places.map(|agent| launched(&bench.offer(agent, room(4.0))).len());
        assert_eq!(launches, [0, 1]);
        let told = bench.status("p.1", wire::TaskState::Running);
        let kept = news(&told)[0].placement.clone().unwrap().token.unwrap();
        assert!(kept.starts_with("a ") && kept.contains("a.test"), "{kept}");
    }
}

/// A call that was lost on the way: its offers are answered all the same, and what was asked for is asked for again.
#[test]
fn what_a_lost_call_said_is_said_again() {
    let mut bench = Bench::new();
    bench.launch(&["p.1"]);
    let effects = bench.offer("a", room(1.0));
    let sent = |effects: &[Effect], name: &str| {
        let of = |effect: &Effect| match effect {
            Effect::Call(call) if call.name() == name => Some(call.clone()),
            _ => None,
        };
        effects.iter().find_map(of).unwrap_or_else(|| panic!("no {name}: {effects:?}"))
    };
    let declined = |effects: &[Effect]| match sent(effects, "DECLINE") {
        Call::Decline(decline) => decline.offer_ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    bench.framework.not_sent(bench.now, &sent(&effects, "ACCEPT"));
    assert_eq!(calls(&bench.framework.take()), ["RECONCILE"], "did it arrive?");
    assert_eq!(declined(&bench.pass(Duration::from_millis(500))), ["o1"]);
    let effects = bench.offer("b", room(1.0));
    bench.framework.not_sent(bench.now, &sent(&effects, "DECLINE"));
    let effects = bench.pass(Duration::from_millis(500));
    assert_eq!(declined(&effects), ["o2"]);
    bench.framework.not_sent(bench.now, &sent(&effects, "DECLINE"));
    bench.framework.lost();
    bench.framework.subscribed(bench.now);
    bench.framework.take();
    assert!(!calls(&bench.pass(Duration::from_millis(500))).contains(&"DECLINE"), "offers end with their subscription");

    bench.status("p.1", wire::TaskState::Finished);
    let effects = bench.pass(BUSY_FOR);
    bench.framework.not_sent(bench.now, &sent(&effects, "SUPPRESS"));
    assert!(!bench.framework.is_suppressed());
    assert_eq!(calls(&bench.pass(Duration::from_millis(500))), ["SUPPRESS"]);
    let effects = bench.launch(&["p.2"]);
    bench.framework.not_sent(bench.now, &sent(&effects, "REVIVE"));
    assert_eq!(calls(&bench.pass(Duration::from_millis(500))), ["REVIVE"]);
}

#[test]
fn a_task_that_ran_is_given_up_only_after_long_denial() {
    let mut bench = Bench::new();
    bench.launch(&["p.1"]);
    bench.offer("a", room(1.0));
    bench.status("p.1", wire::TaskState::Running);
    let effects = bench.status("p.1", wire::TaskState::Unreachable);
    assert!(news(&effects).is_empty(), "its agent may come back");
    bench.status("p.1", wire::TaskState::Running);
    let unknown =
        || TaskStatus { task_id: wire::TaskId::new("p.1"), state: wire::TaskState::Unknown, ..TaskStatus::default() };
    assert!(news(&bench.say(unknown())).is_empty());
    bench.pass(DENIED_FOR / 2);
    assert!(news(&bench.say(unknown())).is_empty());
    // Its agent comes to the new master after all.
    bench.status("p.1", wire::TaskState::Running);
    bench.pass(DENIED_FOR);
    assert!(news(&bench.say(unknown())).is_empty(), "the time counts from the first denial in a row");
    bench.pass(DENIED_FOR);
    assert!(matches!(news(&bench.say(unknown()))[0].exit, Some(Exit::Lost { .. })));
}

#[test]
fn a_task_whose_agent_stays_away_is_given_up_and_killed_should_it_come_back() {
    let mut bench = Bench::new();
    bench.launch(&["p.1", "p.2"]);
    bench.offer("a", room(2.0));
    for id in ["p.1", "p.2"] {
        bench.status(id, wire::TaskState::Running);
        bench.status(id, wire::TaskState::Unreachable);
    }
    assert!(news(&bench.pass(UNREACHABLE_FOR / 2)).is_empty());
    bench.status("p.2", wire::TaskState::Running);
    let given_up = bench.pass(UNREACHABLE_FOR / 2);
    let [gone] = news(&given_up)[..] else { panic!("{given_up:?}") };
    assert_eq!((gone.id.as_str(), gone.state), ("p.1", TaskState::Gone));
    assert!(matches!(gone.exit, Some(Exit::Lost { .. })), "{gone:?}");
    assert!(news(&bench.pass(UNREACHABLE_FOR)).is_empty(), "the other one came back in time");
    assert_eq!(calls(&bench.status("p.1", wire::TaskState::Unreachable)), ["ACKNOWLEDGE"], "nobody could end it now");
    assert_eq!(calls(&bench.status("p.1", wire::TaskState::Running)), ["KILL", "ACKNOWLEDGE"], "it has been replaced");

    // What was true before the stream broke need not be any more: the answer of the next master is waited for.
    bench.status("p.2", wire::TaskState::Unreachable);
    bench.framework.lost();
    bench.now += UNREACHABLE_FOR * 10;
    bench.framework.subscribed(bench.now);
    assert!(news(&bench.framework.take()).is_empty());
    assert_eq!(news(&bench.status("p.2", wire::TaskState::Running))[0].state, TaskState::Running);
}

#[test]
fn it_is_told_once_for_each_subscription_that_every_task_has_been_heard_of() {
    let mut bench = Bench::new();
    bench.launch(&["p.1", "p.2", "p.3"]);
    bench.offer("a", room(2.0));
    let told = |effects: Vec<Effect>| effects.contains(&Effect::Reconciled);
    assert!(!told(bench.status("p.1", wire::TaskState::Running)), "it has been, when there was nothing to ask about");
    bench.framework.lost();
    bench.framework.subscribed(bench.now);
    assert!(!told(bench.framework.take()));
    assert!(!told(bench.status("p.1", wire::TaskState::Running)));
    assert!(told(bench.status("p.2", wire::TaskState::Failed)), "the third one has no place yet");
    assert!(!told(bench.status("p.1", wire::TaskState::Running)));
}

#[test]
fn tasks_of_one_policy_share_an_executor_on_an_agent() {
    let mut bench = Bench::new();
    let mut ours = (*template("x")).clone();
    ours.executor = Some("setpoint".to_owned());
    let ours = Arc::new(ours);
    bench.launch_as(&["p.1", "p.2"], &ours);
    let first = launched(&bench.offer("a", room(4.0)));
    bench.launch_as(&["p.3"], &ours);
    let second = launched(&bench.offer("a", room(4.0)));
    let executors: Vec<_> = first.iter().chain(&second).map(|info| info.executor.clone().unwrap()).collect();
    assert_eq!(executors.len(), 3);
    assert!(executors.iter().all(|executor| *executor == executors[0]), "Mesos wants it in the same words");
    for id in ["p.1", "p.2", "p.3"] {
        bench.status(id, wire::TaskState::Finished);
    }
    bench.launch_as(&["p.4"], &ours);
    let third = launched(&bench.offer("a", room(4.0)));
    assert_ne!(third[0].executor.as_ref(), Some(&executors[0]), "the one before may be on its way out");
}

/// A launch that was given up before it was sent leaves nothing: no task to ask about, no executor, no offer.
#[test]
fn a_launch_that_was_not_sent_never_was() {
    let ours = Arc::new(TaskTemplate { executor: Some(text("setpoint")), ..(*template("x")).clone() });
    let mut bench = Bench::new();
    bench.launch_as(&["p.1"], &ours);
    let effects = bench.offer("a", room(4.0));
    let accept = effects.iter().find_map(|effect| match effect {
        Effect::Call(call @ Call::Accept(_)) => Some(call.clone()),
        _ => None,
    });
    bench.framework.unsent(&accept.unwrap());
    let effects = bench.framework.take();
    assert_eq!(news(&effects)[0].exit, Some(Exit::Unknown));
    assert_eq!(calls(&effects), Vec::<&str>::new(), "nobody is asked about it");
    bench.framework.tick(bench.now);
    assert_eq!(calls(&bench.framework.take()), ["DECLINE"]);
    // The next one has an executor of its own.
    bench.launch_as(&["p.2"], &ours);
    let next = launched(&bench.offer("a", room(4.0)));
    assert!(next[0].executor.is_some());
    assert_eq!(launched(&bench.offer("a", room(4.0))).len(), 0);
}

/// An executor belongs to its tasks, not to the run that started it, unless the settings say that it is to be another.
#[test]
fn an_executor_is_used_by_the_next_run_too() {
    let ours = Arc::new(TaskTemplate { executor: Some(text("setpoint")), ..(*template("x")).clone() });
    let mut bench = Bench::new();
    bench.launch_as(&["p.1"], &ours);
    let effects = bench.offer("a", room(4.0));
    let (first, placement) = (launched(&effects), news(&effects)[0].placement.clone().unwrap());
    let next = |setting: Setting, ended: bool| {
        let mut bench = Bench { framework: Framework::new(setting), ..Bench::bare() };
        bench.framework.recover(vec![(TaskId::from("p.1"), "p".into(), TaskState::Running, placement.clone())]);
        bench.framework.subscribed(bench.now);
        bench.status("p.1", if ended { wire::TaskState::Failed } else { wire::TaskState::Running });
        bench.launch_as(&["p.2"], &ours);
        let infos = launched(&bench.offer("a", vec![Resource::scalar("cpus", 1.0), Resource::scalar("mem", 32.0)]));
        infos.first().and_then(|info| info.executor.clone())
    };
    assert_eq!(next(setting(), false), first[0].executor, "and there is no need of room for another one");
    assert_eq!(next(setting(), true), None, "it has ended with its last task");
    let other = Setting { executor_env: [(text("DOCKER_HOST"), text("tcp://e:1"))].into(), ..setting() };
    assert_eq!(next(other, false), None);
}

/// A master passes over a whole call for one role that is not the framework's.
#[test]
fn roles_are_revived_and_suppressed_one_by_one() {
    let of_role = |role: &str| {
        let mesos = MesosSpec { role: Some(text(role)), ..MesosSpec::default() };
        Arc::new(TaskTemplate { mesos, ..(*template("x")).clone() })
    };
    let mut bench = Bench::new();
    bench.launch_as(&["p.1"], &of_role("dev"));
    bench.launch_as(&["q.1"], &of_role("ops"));
    let roles = |effects: &[Effect]| -> Vec<(&'static str, Vec<String>)> {
        let named = |effect: &Effect| match effect {
            Effect::Call(Call::Revive(named)) => Some(("REVIVE", named.roles.clone())),
            Effect::Call(Call::Suppress(named)) => Some(("SUPPRESS", named.roles.clone())),
            _ => None,
        };
        effects.iter().filter_map(named).collect()
    };
    let each = |call, all: &[&str]| all.iter().map(|role| (call, vec![text(role)])).collect::<Vec<_>>();
    assert_eq!(roles(&bench.pass(REVIVE_EVERY)), each("REVIVE", &["dev", "ops"]));
    for id in ["p.1", "q.1"] {
        bench.withdraw(id);
    }
    assert_eq!(roles(&bench.pass(BUSY_FOR)), each("SUPPRESS", &["dev", "ops"]));
}

/// From the beginning of its maintenance on an agent is given nothing more.
#[test]
fn an_agent_in_maintenance_is_left_alone() {
    let second = 1_000_000_000;
    let offer = |start: i64, duration: Option<i64>| Offer {
        unavailability: Some(wire::Unavailability {
            start: wire::TimeInfo { nanoseconds: start * second },
            duration: duration.map(|duration| wire::DurationInfo { nanoseconds: duration * second }),
        }),
        ..Offer::default()
    };
    let at = |wall: u64, offer: &Offer| super::offer::is_in_maintenance(offer, Duration::from_secs(wall));
    let hour = offer(1000, Some(3600));
    assert_eq!([999, 1000, 4599, 4600].map(|wall| at(wall, &hour)), [false, true, true, false]);
    assert!(at(u64::MAX >> 32, &offer(1000, None)), "for good");
    assert!(!at(1000, &Offer::default()));
    assert!(at(0, &offer(-5, None)));

    let mut bench = Bench::new();
    bench.launch(&["p.1"]);
    bench.framework.pass_over(vec![hour]);
    assert_eq!(calls(&bench.framework.take()), ["DECLINE"]);
    assert_eq!((bench.framework.counters.offers, bench.framework.counters.declined), (1, 1));
}

/// A policy that is saved with another user, other files or another role has tasks of both kinds for a while.
#[test]
fn tasks_that_need_another_sandbox_user_or_role_have_another_executor() {
    type Change = fn(&mut TaskTemplate);

    let mut bench = Bench::new();
    let mut base = (*template("x")).clone();
    base.executor = Some("setpoint".to_owned());
    let mut executors = Vec::new();
    let variants: [(&str, &str, Change); 5] = [
        ("*", "plain", |_| {}),
        ("*", "louder", |template| template.env = [(text("LOUD"), text("yes"))].into()),
        ("*", "etl", |template| template.container.user = Some(text("etl"))),
        ("*", "files", |template| template.mesos.uris = vec![Uri { uri: text("file:///x.tgz"), ..Uri::default() }]),
        ("ops", "ops", |template| template.mesos.role = Some(text("ops"))),
    ];
    for (role, id, change) in variants {
        let mut template = base.clone();
        change(&mut template);
        bench.launch_as(&[id], &Arc::new(template));
        let infos = launched(&bench.offer_to(role, "a", room(4.0)));
        let executor = infos[0].executor.clone().unwrap();
        let paid_by: Vec<_> = executor.resources.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!(paid_by, ["cpus", "mem"], "{id}: Mesos compares what an executor is said to have with what it had");
        executors.push(executor);
    }
    let id_of = |at: usize| executors[at].executor_id.as_str();
    assert_eq!([id_of(0), id_of(1)], ["setpoint.plain"; 2], "its environment is a task's own");
    assert_eq!([id_of(2), id_of(3), id_of(4)], ["setpoint.etl", "setpoint.files", "setpoint.ops"]);
    assert_eq!(executors[2].command.as_ref().unwrap().user.as_deref(), Some("etl"));
    assert_eq!(executors[3].command.as_ref().unwrap().uris.len(), 1);
    // One that has lost its last task is not used again; the others are.
    bench.status("etl", wire::TaskState::Finished);
    let mut again = base;
    again.container.user = Some(text("etl"));
    bench.launch_as(&["etl.2"], &Arc::new(again));
    assert_eq!(
        launched(&bench.offer("a", room(4.0)))[0].executor.as_ref().unwrap().executor_id.as_str(),
        "setpoint.etl.2"
    );
}

fn text(value: &str) -> String {
    value.to_owned()
}

/// What is different about a task.
type Change = fn(&mut TaskTemplate);

/// Everything that a policy can say of a task, as the master gets it.
#[test]
fn every_word_of_a_task_reaches_the_wire() {
    let port = |name: &str, inside, protocol| PortSpec { name: text(name), inside, protocol, ..PortSpec::default() };
    let full = TaskTemplate {
        command: Some(Command::Argv(vec![text("serve"), text("$HOME")])),
        image: Some(text("web:1")),
        env: [(text("COLOUR"), text("red"))].into(),
        labels: [(text("team"), text("web"))].into(),
        cpus: Some(0.5),
        memory: Some(64 << 20),
        disk: Some(10 << 20),
        ports: vec![port("dns", Some(53), Protocol::Udp), port("http", Some(8080), Protocol::Tcp)],
        container: ContainerSpec {
            entrypoint: Some(vec![text("/init"), text("-v")]),
            pids: Some(99),
            network: Some(text("overlay")),
            volumes: vec![
                Volume { source: text("/srv"), target: text("/data"), read_only: true },
                Volume { source: text("cache"), target: text("/cache"), read_only: false },
            ],
            tmpfs: vec![Tmpfs { target: text("/quick"), options: text("size=1m") }],
            health: Some(Health::Check(HealthCheck {
                probe: Probe::Http { port: ProbePort::Named(text("http")), path: text("/ok"), tls: true },
                delay: Some(Duration::from_secs(1)),
                interval: Some(Duration::from_millis(2500)),
                timeout: Some(Duration::from_secs(3)),
                retries: Some(4),
                start_period: Some(Duration::from_secs(5)),
            })),
            pull: Pull::Always,
            user: Some(text("7:7")),
            privileged: true,
            init: true,
            parameters: vec![(text("env"), text("A=1")), (text("env"), text("B=2"))],
            ..ContainerSpec::default()
        },
        mesos: MesosSpec {
            uris: vec![Uri { uri: text("http://f/x.tgz"), extract: Some(false), cache: true, ..Uri::default() }],
            resources: [
                (text("gpus"), Want::Amount(1.0)),
                (text("nics"), Want::Items([text("eth1")].into())),
                (text("slots"), Want::AnyItems { any: 2 }),
                (text("vlans"), Want::Numbers([7, 9].into())),
                (text("vx-lans"), Want::AnyNumbers { numbers: 2 }),
            ]
            .into(),
            limits: Limits { cpus: Some(2.0), memory: Some(128 << 20) },
            discovery: Some(Discovery {
                visibility: Visibility::External,
                name: None,
                environment: Some(text("production")),
                location: None,
                version: Some(text("1")),
            }),
            ..MesosSpec::default()
        },
        ..TaskTemplate::default()
    };
    let plenty = || {
        let scalars = [("cpus", 4.0), ("mem", 4096.0), ("disk", 4096.0), ("gpus", 2.0)];
        let scalars = scalars.map(|(name, amount)| Resource::scalar(name, amount));
        let ranges = [("ports", 31_000, 31_005), ("vlans", 5, 20), ("vx-lans", 3, 4)];
        let ranges = ranges.map(|(name, first, last)| Resource::ranges(name, [(first, last)]));
        let sets = [("nics", ["eth0", "eth1"]), ("slots", ["a", "b"])].map(|(name, items)| set(name, &items));
        scalars.into_iter().chain(ranges).chain(sets).collect::<Vec<_>>()
    };
    let info = |template: &TaskTemplate| {
        let mut bench = Bench::with(Setting { gpus: true, ..setting() });
        bench.launch_as(&["p.1"], &Arc::new(template.clone()));
        let infos = launched(&bench.offer("a", plenty()));
        assert_eq!(infos.len(), 1);
        serde_json::to_value(&infos[0]).unwrap()
    };
    let docker = info(&full);
    insta::assert_snapshot!("docker_task", serde_json::to_string_pretty(&docker).unwrap());

    // Under our executor the same goes as data, and what is fetched is fetched for the executor.
    let ours = info(&TaskTemplate { executor: Some(text("setpoint")), ..full.clone() });
    let data = ours["data"].as_str().unwrap();
    let parts = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
    let parts: serde_json::Value = serde_json::from_slice(&parts).unwrap();
    for key in ["command", "container", "health_check"] {
        assert!(ours[key].is_null());
        assert_eq!(parts[key], docker[key], "{key}");
    }
    assert_eq!(ours["executor"]["command"]["uris"], docker["command"]["uris"]);
    assert_eq!((&ours["limits"], &ours["kill_policy"]), (&docker["limits"], &docker["kill_policy"]));

    // Mesos's own containerizer has the host's network unless there is a name, and a command its user.
    let mut mesos = full.clone();
    mesos.mesos.containerizer = Containerizer::Mesos;
    mesos.container.network = None;
    mesos.container.user = Some(text("web"));
    mesos.container.volumes.pop();
    let mesos = info(&mesos);
    assert_eq!(mesos["command"]["value"], "/init", "or it would be the image's own");
    assert_eq!(mesos["command"]["arguments"], json!(["/init", "-v", "serve", "$HOME"]));
    let container = json!({ "type": "MESOS", "volumes": docker["container"]["volumes"],
        "mesos": { "image": { "type": "DOCKER", "docker": { "name": "web:1" }, "cached": false } } });
    assert_eq!((&mesos["container"], &mesos["command"]["user"]), (&container, &"web".into()));
    assert_eq!(mesos["health_check"]["http"]["port"], 31_001, "in the host's network the port is what it was given");

    // A command has a container without an image, for what it sees and for its network.
    let mut plain = TaskTemplate { image: None, command: Some(Command::Shell(text("x"))), ..full };
    plain.env.insert(text("HOST"), text("0.0.0.0"));
    plain.container.user = Some(text("etl"));
    plain.container.volumes.pop();
    let isolated = info(&plain);
    let mappings = json!([{ "host_port": 31_000, "container_port": 53, "protocol": "udp" },
        { "host_port": 31_001, "container_port": 8080, "protocol": "tcp" }]);
    let container = json!({ "type": "MESOS", "volumes": docker["container"]["volumes"],
        "network_infos": [{ "name": "overlay", "port_mappings": mappings }] });
    assert_eq!((&isolated["command"]["user"], &isolated["container"]), (&"etl".into(), &container));
    assert_eq!(isolated["health_check"]["http"]["port"], 8080);
    plain.container.volumes.clear();
    plain.container.network = Some(text("HOST"));
    let plain = info(&plain);
    assert_eq!((&plain["command"]["value"], &plain["container"]), (&"x".into(), &serde_json::Value::Null));
    let told = plain["command"]["environment"]["variables"].to_string();
    for (name, value) in
        [("PORT_HTTP", "31001"), ("HOST", "0.0.0.0"), ("RESOURCE_NICS", "eth1"), ("RESOURCE_SLOTS", "a,b")]
    {
        assert!(told.contains(&format!(r#"{{"name":"{name}","value":"{value}"}}"#)), "{name}: {told}");
    }
}

fn set(name: &str, items: &[&str]) -> Resource {
    let item = items.iter().map(|item| text(item)).collect();
    Resource { name: text(name), kind: ValueKind::Set, set: Some(wire::Set { item }), ..Resource::default() }
}

/// An entrypoint and a command are to Docker, by whichever executor, what they are to a Docker backend.
#[test]
fn an_entrypoint_keeps_all_of_its_words() {
    let list = |words: &[&str]| words.iter().map(|word| text(word)).collect::<Vec<_>>();
    let shell = || Some(Command::Shell(text("a | b")));
    let argv = || Some(Command::Argv(list(&["a", "b"])));
    let python = || Some(list(&["python3", "-u"]));
    let (docker, mesos) = (Containerizer::Docker, Containerizer::Mesos);
    for (containerizer, entrypoint, command, option, expected) in [
        (docker, None, shell(), None, json!({ "shell": true, "value": "a | b" })),
        (docker, None, argv(), None, json!({ "shell": false, "arguments": ["a", "b"] })),
        (docker, None, None, None, json!({ "shell": false })),
        (docker, python(), argv(), Some("python3"), json!({ "shell": false, "arguments": ["-u", "a", "b"] })),
        (
            docker,
            python(),
            shell(),
            Some("python3"),
            json!({ "shell": false, "arguments": ["-u", "/bin/sh", "-c", "a | b"] }),
        ),
        (docker, python(), None, Some("python3"), json!({ "shell": false, "arguments": ["-u"] })),
        (docker, Some(Vec::new()), argv(), Some(""), json!({ "shell": false, "arguments": ["a", "b"] })),
        (mesos, None, shell(), None, json!({ "shell": true, "value": "a | b" })),
        (mesos, None, argv(), None, json!({ "shell": false, "value": "a", "arguments": ["a", "b"] })),
        (mesos, None, None, None, json!({ "shell": false })),
        (
            mesos,
            python(),
            shell(),
            None,
            json!({ "shell": false, "value": "python3", "arguments": ["python3", "-u", "/bin/sh", "-c", "a | b"] }),
        ),
        (mesos, python(), None, None, json!({ "shell": false, "value": "python3", "arguments": ["python3", "-u"] })),
    ] {
        let mut task = TaskTemplate { image: Some(text("i")), command, ..TaskTemplate::default() };
        task.container.entrypoint = entrypoint;
        task.mesos.containerizer = containerizer;
        let mut bench = Bench::new();
        bench.launch_as(&["p.1"], &Arc::new(task.clone()));
        let info = serde_json::to_value(&launched(&bench.offer("a", room(1.0)))[0]).unwrap();
        let mut sent = info["command"].clone();
        sent.as_object_mut().unwrap().remove("environment");
        assert_eq!(sent, expected, "{task:?}");
        let given = option.map_or(serde_json::Value::Null, |first| json!({ "key": "entrypoint", "value": first }));
        assert_eq!(info["container"]["docker"]["parameters"][0], given, "{task:?}");
    }
}

#[test]
fn an_image_is_told_that_its_own_health_check_is_not_wanted() {
    let mut task = TaskTemplate { image: Some(text("i")), ..TaskTemplate::default() };
    task.container.health = Some(Health::Off);
    let mut bench = Bench::new();
    bench.launch_as(&["p.1"], &Arc::new(task));
    let info = serde_json::to_value(&launched(&bench.offer("a", room(1.0)))[0]).unwrap();
    let parameters = &info["container"]["docker"]["parameters"];
    assert_eq!((parameters, info.get("health_check")), (&json!([{ "key": "no-healthcheck", "value": "true" }]), None));
}

/// Tasks of functions are not seen before they are launched.
#[test]
fn what_no_cluster_can_do_is_not_launched() {
    let folder = |source: &str| Volume { source: text(source), target: text("/d"), read_only: false };
    let group: Change = |task| task.container.user = Some(text("etl:data"));
    let number: Change = |task| task.container.user = Some(text("1000"));
    let ours: Change = |task| {
        task.executor = Some(text("setpoint"));
        task.container.network = Some(text("overlay"));
    };
    let never: Change = |task| {
        task.image = Some(text("i"));
        task.container.pull = Pull::Never;
    };
    for (change, expected) in [
        (group, "user: expected a user's name alone"),
        (number, "user: expected a user's name alone"),
        (ours, "network: \"overlay\" is for the cluster's own executors"),
        (never, "pull: expected \"missing\" or \"always\""),
    ] {
        let mut task = (*template("x")).clone();
        change(&mut task);
        assert!(refusal(task).contains(expected), "{expected}");
    }
    for (image, source, expected) in [
        (true, "./x", "expected an absolute path or a volume's name"),
        (true, "cache", ""),
        (false, "cache", "expected an absolute path without Docker"),
        (false, "/x", ""),
    ] {
        let mut task = (*template("x")).clone();
        task.image = image.then(|| text("i"));
        task.container.volumes = vec![folder(source)];
        let refusal = refusal(task);
        assert!(refusal.contains(expected) && refusal.is_empty() == expected.is_empty(), "{source}: {refusal}");
    }
}

/// Why a task is not launched; empty when it is.
fn refusal(task: TaskTemplate) -> String {
    let effects = Bench::new().launch_as(&["p.1"], &Arc::new(task));
    match news(&effects)[..] {
        [] => String::new(),
        [News { exit: Some(Exit::NotStarted { reason }), .. }] => reason.to_string(),
        _ => panic!("{effects:?}"),
    }
}

/// Agents with GPUs are offered to frameworks that ask for them, and are no place for other tasks unless somebody says so.
#[tokio::test]
async fn gpus_are_wanted_only_where_the_host_says_so() {
    let config = |gpus| MesosConfig {
        masters: Some("127.0.0.1:1".parse().unwrap()),
        http: crate::mesos::HttpConfig::default(),
        tls: false,
        name: text("f"),
        user: text("u"),
        principal: None,
        hostname: None,
        webui_url: None,
        checkpoint: true,
        failover_timeout: Duration::from_secs(1),
        state_dir: None,
        setting: Setting { gpus, ..setting() },
    };
    let shown = |gpus| serde_json::to_string(&config(gpus).framework(None, Vec::new())).unwrap();
    assert!(shown(true).contains("GPU_RESOURCES") && !shown(false).contains("GPU_RESOURCES"));

    let mut task = (*template("x")).clone();
    task.mesos.resources = [(text("gpus"), Want::Amount(1.0))].into();
    let task = Arc::new(task);
    for gpus in [false, true] {
        let backend = MesosBackend::new(config(gpus));
        let (updates, mut told) = tokio::sync::mpsc::channel(8);
        let (recovering, launching) = (Arc::clone(&backend), Arc::clone(&backend));
        // Nobody answers there, so neither of the two ends.
        let recovery = tokio::spawn(async move { recovering.recover(Vec::new(), updates).await });
        tokio::task::yield_now().await;
        let request = request("p", "p.1", &task);
        let launch = tokio::spawn(async move { launching.launch(vec![request]).await });
        let update = tokio::time::timeout(Duration::from_millis(if gpus { 200 } else { 20_000 }), told.recv()).await;
        match update {
            Ok(Some(update)) => {
                assert!(!gpus && update.state == TaskState::Gone, "{update:?}");
                let Some(Exit::NotStarted { reason }) = update.exit else { panic!("{update:?}") };
                assert!(reason.contains("`gpus = true` in `[mesos]`"), "{reason}");
            }
            Ok(None) => panic!("it has ended"),
            Err(_) => assert!(gpus, "it waits for what cannot come"),
        }
        recovery.abort();
        launch.abort();
    }
}
