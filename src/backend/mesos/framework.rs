//! The framework's conduct as a pure state machine: what happens and the time go in, effects come out.
//!
//! ```text
//!           launch                 offer accepted             statuses
//!   ──────────────────► Queued ──────────────────► Sent ────────────────► Staging ─► Running ─► gone
//!                         │ kill: gone at once       │                       ▲  │       │
//!                         └──► gone                  └── kill: KILL, repeated until ────┴──► gone
//!   recover ─► Unsure ── an answer to RECONCILE ─────────────────────────────┘
//!      └─────► gone: without a place it was never sent
//! ```
//!
//! Offers are answered as they come. What is not placed waits in the queue until it is placed or withdrawn, so nothing is
//! launched that is no longer wanted. Between the withdrawal of what lapsed and the decision that follows it nothing is
//! wanted for a moment; an offer that comes right then waits for that decision, [`HOLD`] at most. Declined, it would come back
//! with one of the next allocations, and where those and the policy's ticks go in step it would meet the same moment again.
//!
//! - **Invariant:** every offer is answered once, with one ACCEPT or DECLINE, decided within [`HOLD`].
//! - **Invariant:** each task is told to be gone, and nothing of it after that but the same once more, with what is to be
//!   acknowledged: an agent repeats a task's last update until that is durable.
//! - **Invariant:** a task that an agent may still run is given up only on the master's word: it is over, it cannot be
//!   reached (and has not been for [`Setting::unreachable`]), or it has been denied for [`DENIED_FOR`]. One that comes back
//!   after that is killed.
//! - **Invariant:** SUPPRESS only when nothing has been launched for [`BUSY_FOR`]; a REVIVE that does not follow a
//!   SUPPRESS comes at least [`REVIVE_EVERY`] after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::LaunchRequest;
use crate::core::model::{Exit, Placement, PolicyName, TaskId, TaskState};
use crate::core::offers::{self, Attributes, Demand, Placed, Why};
use crate::mesos::wire;
use crate::mesos::wire::scheduler::{
    Accept, Acknowledge, Call, Decline, Filters, Kill, Launch, Operation, Reconcile, ReconcileTask, Roles,
};
use crate::mesos::wire::{AgentId, Bytes, ExecutorInfo, KillPolicy, Offer, StatusReason, TaskStatus};

use super::offer;
use super::status::{self, Verdict};
use super::task_info::{self, Setting};
use super::token::{self, Kept};

/// How long after a launch a role counts as busy.
pub(super) const BUSY_FOR: Duration = Duration::from_secs(30);

/// Least time between two REVIVEs of a role that is not suppressed.
pub(super) const REVIVE_EVERY: Duration = Duration::from_secs(5);

/// How long an offer may wait for a decision that is on its way.
pub(super) const HOLD: Duration = Duration::from_millis(250);

/// How long what a busy role declines stays away.
const SHORT: f64 = 0.25;

/// The same of an idle one.
const LONG: f64 = 3600.0;

/// How long a master must deny a task that it should know before it counts as lost: agents of a new master may still be
/// on their way to it.
pub(super) const DENIED_FOR: Duration = Duration::from_secs(75);

/// The same of a task that nobody has ever seen run.
const UNSEEN_FOR: Duration = Duration::from_secs(20);

/// How long a task that cannot be reached is waited for after the cluster has said so, unless the host says otherwise.
/// The cluster itself has waited before that: more than a minute, by default.
pub const UNREACHABLE_FOR: Duration = Duration::from_secs(5);

/// How long `recover` waits for answers about its tasks.
const RECOVER_FOR: Duration = Duration::from_secs(10);

/// Reconciliation is repeated so often once everything is known.
const RECONCILE_EVERY: Duration = Duration::from_secs(15 * 60);

/// Pauses between rounds while answers are missing.
const FIRST_ROUND: Duration = Duration::from_secs(1);
const LAST_ROUND: Duration = Duration::from_secs(30);

/// A KILL that nobody answers is repeated after this, doubling to [`LAST_ROUND`].
const REPEAT_KILL: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// A call to the master.
    Call(Call),
    /// The framework has got another role.
    Roles,
    /// Something to say of a task.
    Tell(Box<News>),
    /// Every task that was known has been answered for, or waited for long enough.
    Recovered,
    /// Every task with a place has been heard of since the subscription; once for each.
    Reconciled,
}

/// What there is to say of a task.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct News {
    pub(super) id: TaskId,
    pub(super) state: TaskState,
    pub(super) healthy: Option<bool>,
    pub(super) placement: Option<Placement>,
    pub(super) exit: Option<Exit>,
    /// To be acknowledged once the news are durable.
    pub(super) acknowledge: Option<Acknowledge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// No place yet.
    Queued,
    /// From an earlier run; nobody has answered for it yet.
    Unsure,
    /// Its offer was accepted.
    Sent,
    Staging,
    Running,
}

#[derive(Debug)]
struct Task {
    policy: PolicyName,
    stage: Stage,
    /// The order in which tasks were asked for.
    asked: u64,
    request: Option<Arc<LaunchRequest>>,
    agent: Option<AgentId>,
    attributes: Arc<Attributes>,
    /// The kind of the executor of ours that runs it.
    executor: Option<Arc<str>>,
    placement: Placement,
    killing: Option<Killing>,
    /// Heard of since the last subscription.
    confirmed: bool,
    /// Since when the master says that it does not know it.
    denied: Option<Duration>,
    /// Since when its agent cannot be reached.
    unreachable: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Killing {
    grace: Duration,
    /// When it is asked again.
    next: Duration,
    pause: Duration,
}

/// Whether `recover` waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovering {
    No,
    /// There is no subscription yet.
    Away,
    /// It is answered then at the latest.
    Until(Duration),
}

/// How a role stands with the master.
#[derive(Clone, Copy, Debug, Default)]
struct Role {
    suppressed: bool,
    /// When something in it was last asked for, or launched.
    wanted: Option<Duration>,
    revived: Option<Duration>,
}

/// Counters for those who look on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) offers: u64,
    pub(super) accepted: u64,
    pub(super) declined: u64,
    pub(super) rescinded: u64,
}

/// An offer that waits for a decision.
#[derive(Debug)]
struct Held {
    offer: Offer,
    /// It is answered then at the latest.
    until: Duration,
}

/// The framework.
#[derive(Debug)]
pub(super) struct Framework {
    setting: Setting,
    subscribed: bool,
    tasks: BTreeMap<TaskId, Task>,
    roles: BTreeMap<String, Role>,
    held: Vec<Held>,
    /// Offers whose answer did not reach the master.
    unanswered: Vec<wire::OfferId>,
    /// Policies whose launches were withdrawn and that have not launched anything since, with role and time of that.
    withdrawn: BTreeMap<PolicyName, (String, Duration)>,
    /// Executors of ours by policy, agent and kind; tasks of one must name it in the same words.
    executors: BTreeMap<(PolicyName, AgentId, Arc<str>), ExecutorInfo>,
    /// Tasks that run and that nobody asked for, or that were given up.
    strays: BTreeMap<TaskId, (Option<AgentId>, Killing)>,
    serial: u64,
    /// When the next round of reconciliation is due, and how long the pause before it was.
    round: Option<(Duration, Duration)>,
    /// Whether tasks have been asked about since the last round that nothing was missing from.
    asking: bool,
    recovering: Recovering,
    /// Whether [`Effect::Reconciled`] is still to come for this subscription.
    reconciling: bool,
    pub(super) counters: Counters,
    out: Vec<Effect>,
}

impl Framework {
    pub(super) fn new(setting: Setting) -> Self {
        let roles = BTreeMap::from([(setting.role.clone(), Role::default())]);
        Self {
            setting,
            subscribed: false,
            tasks: BTreeMap::new(),
            roles,
            held: Vec::new(),
            unanswered: Vec::new(),
            withdrawn: BTreeMap::new(),
            executors: BTreeMap::new(),
            strays: BTreeMap::new(),
            serial: 0,
            round: None,
            asking: false,
            recovering: Recovering::No,
            reconciling: false,
            counters: Counters::default(),
            out: Vec::new(),
        }
    }

    /// What is to be done, in this order.
    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// Whether there is a subscription.
    pub(super) const fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// Whether a task is there, or is to be.
    pub(super) fn knows(&self, id: &TaskId) -> bool {
        self.tasks.contains_key(id)
    }

    /// The roles of the framework.
    pub(super) fn roles(&self) -> BTreeSet<String> {
        self.roles.keys().cloned().collect()
    }

    /// The roles for which no offers are wanted at present.
    pub(super) fn suppressed(&self) -> Vec<String> {
        self.roles.iter().filter(|(_, role)| role.suppressed).map(|(name, _)| name.clone()).collect()
    }

    /// Whether there is none for which they are.
    pub(super) fn is_suppressed(&self) -> bool {
        self.subscribed && self.roles.values().all(|role| role.suppressed)
    }

    /// Tasks without a place, tasks with one, and those of them on agents that cannot be reached.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let queued = self.tasks.values().filter(|task| task.stage == Stage::Queued).count();
        let unreachable = self.tasks.values().filter(|task| task.unreachable.is_some()).count();
        (queued, self.tasks.len() - queued, unreachable)
    }

    /// The tasks that run, but not under an executor of ours as far as is known, and their agents.
    pub(super) fn elsewhere(&self) -> BTreeMap<TaskId, AgentId> {
        let running = self.tasks.iter().filter(|(_, task)| task.stage == Stage::Running && task.executor.is_none());
        running.filter_map(|(id, task)| Some((id.clone(), task.agent.clone()?))).collect()
    }

    /// Tasks of an earlier run, with the agents that they were on.
    pub(super) fn recover(&mut self, known: Vec<(TaskId, PolicyName, TaskState, Placement)>) {
        for (id, policy, state, placement) in known {
            let told_of = matches!(state, TaskState::Staging | TaskState::Running);
            if placement.token.is_none() && !told_of {
                // The place is durable before a launch is sent.
                self.tell_gone(id, Exit::Unknown, None, None);
                continue;
            }
            let ran = matches!(state, TaskState::Running | TaskState::Killing);
            let (agent, kept) = placement.token.as_deref().map(token::read).unzip();
            let Kept { attributes, executor } = kept.unwrap_or_default();
            let (executor, info) = executor.unzip();
            if let (Some(agent), Some(kind), Some(info)) = (&agent, &executor, info) {
                self.executors.insert((policy.clone(), agent.clone(), Arc::clone(kind)), info);
            }
            let task = Task {
                agent,
                attributes,
                executor,
                placement,
                ..self.task(policy, if ran { Stage::Running } else { Stage::Unsure })
            };
            self.tasks.insert(id, task);
        }
        self.recovering = Recovering::Away;
    }

    fn task(&mut self, policy: PolicyName, stage: Stage) -> Task {
        self.serial += 1;
        Task {
            policy,
            stage,
            asked: self.serial,
            request: None,
            agent: None,
            attributes: Arc::default(),
            executor: None,
            placement: Placement::default(),
            killing: None,
            confirmed: false,
            denied: None,
            unreachable: None,
        }
    }

    /// There is a subscription: earlier offers are void, nothing is suppressed, and every task is asked about.
    pub(super) fn subscribed(&mut self, now: Duration) {
        self.subscribed = true;
        self.forget_offers();
        for role in self.roles.values_mut() {
            role.suppressed = false;
            role.revived = Some(now);
        }
        let strays = self.strays.values_mut().map(|(_, killing)| killing);
        for killing in self.tasks.values_mut().filter_map(|task| task.killing.as_mut()).chain(strays) {
            (killing.next, killing.pause) = (now, REPEAT_KILL);
        }
        for task in self.tasks.values_mut() {
            task.confirmed = false;
            // What another master has said, or this one long ago, may be true no more.
            (task.denied, task.unreachable) = (None, None);
        }
        self.reconciling = true;
        if self.recovering == Recovering::Away {
            self.recovering = Recovering::Until(now + RECOVER_FOR);
        }
        self.ask(now, FIRST_ROUND);
        // All that the master knows of the framework, those included that nobody asked about.
        self.out.push(Effect::Call(Call::Reconcile(Reconcile::default())));
        self.tick(now);
    }

    /// The stream is lost.
    pub(super) fn lost(&mut self) {
        self.subscribed = false;
        self.forget_offers();
    }

    /// The cluster has forgotten the framework, and ended all that ran under it.
    pub(super) fn removed(&mut self) {
        self.lost();
        self.executors.clear();
        self.strays.clear();
    }

    fn forget_offers(&mut self) {
        self.held.clear();
        self.unanswered.clear();
    }

    /// Asks about the tasks that have not been heard of.
    fn ask(&mut self, now: Duration, pause: Duration) {
        let open = self.tasks.iter().filter(|(_, task)| task.stage != Stage::Queued && !task.confirmed);
        let tasks: Vec<ReconcileTask> = open
            .map(|(id, task)| ReconcileTask { task_id: wire::TaskId::new(id.as_str()), agent_id: task.agent.clone() })
            .collect();
        self.asking = !tasks.is_empty();
        if tasks.is_empty() {
            self.round = Some((now + RECONCILE_EVERY, FIRST_ROUND));
            return;
        }
        self.round = Some((now + pause, (pause * 2).min(LAST_ROUND)));
        self.out.push(Effect::Call(Call::Reconcile(Reconcile { tasks })));
    }

    /// Tasks to be placed. One that is known already is left as it is.
    pub(super) fn launch(&mut self, now: Duration, requests: Vec<LaunchRequest>) {
        let mut roles = BTreeSet::new();
        for request in requests {
            if self.tasks.contains_key(&request.id) {
                continue;
            }
            if let Err(reason) = task_info::check(&self.setting, &request.template) {
                let exit = Exit::NotStarted { reason: reason.into() };
                self.tell_gone(request.id, exit, None, None);
                continue;
            }
            roles.insert(self.role_of(&request));
            self.withdrawn.remove(&request.policy);
            let task = self.task(request.policy.clone(), Stage::Queued);
            self.tasks.insert(request.id.clone(), Task { request: Some(Arc::new(request)), ..task });
        }
        let known = self.roles.len();
        for role in &roles {
            self.roles.entry(role.clone()).or_default().wanted = Some(now);
        }
        if known < self.roles.len() {
            self.out.push(Effect::Roles);
        }
        self.reconsider(now);
        self.revive(now);
    }

    fn role_of(&self, request: &LaunchRequest) -> String {
        request.template.mesos.role.clone().unwrap_or_else(|| self.setting.role.clone())
    }

    /// Asks for offers for the roles that tasks wait for.
    fn revive(&mut self, now: Duration) {
        if !self.subscribed {
            return;
        }
        let queued = self.tasks.values().filter(|task| task.stage == Stage::Queued);
        let waiting: BTreeSet<String> =
            queued.filter_map(|task| task.request.as_deref()).map(|request| self.role_of(request)).collect();
        let due = |role: &Role| role.suppressed || role.revived.is_none_or(|at| at + REVIVE_EVERY <= now);
        let mut roles = Vec::new();
        for (name, role) in &mut self.roles {
            if waiting.contains(name) && due(role) {
                *role = Role { suppressed: false, revived: Some(now), ..*role };
                roles.push(name.clone());
            }
        }
        // One by one: a master passes over a call in which one of the roles is not the framework's, or not yet.
        for role in roles {
            self.out.push(Effect::Call(Call::Revive(Roles { roles: vec![role] })));
        }
    }

    /// Lets go of tasks that have no place. One that was sent a moment ago is launched, and wanted.
    pub(super) fn withdraw(&mut self, now: Duration, ids: Vec<TaskId>) {
        for id in ids {
            match self.tasks.get(&id) {
                None => self.tell_gone(id, Exit::Unknown, None, None),
                Some(task) if task.stage == Stage::Queued => self.let_go(now, id),
                Some(_) => {}
            }
        }
    }

    /// Takes a task out that has no place; offers wait for what its policy decides next.
    fn let_go(&mut self, now: Duration, id: TaskId) {
        if let Some(Task { policy, request: Some(request), .. }) = self.tasks.remove(&id) {
            self.withdrawn.insert(policy, (self.role_of(&request), now));
        }
        self.tell_gone(id, Exit::Unknown, None, None);
    }

    /// Tells tasks to end.
    pub(super) fn kill(&mut self, now: Duration, ids: Vec<TaskId>, grace: Duration) {
        for id in ids {
            match self.tasks.get_mut(&id) {
                None => self.tell_gone(id, Exit::Unknown, None, None),
                Some(task) if task.stage == Stage::Queued => self.let_go(now, id),
                Some(task) => {
                    if task.killing.is_none_or(|killing| grace < killing.grace) {
                        task.killing = Some(Killing { grace, next: now, pause: REPEAT_KILL });
                    }
                }
            }
        }
        self.send_kills(now);
    }

    fn send_kills(&mut self, now: Duration) {
        if !self.subscribed {
            return;
        }
        let known = self.tasks.iter_mut().filter_map(|(id, task)| Some((id, &task.agent, task.killing.as_mut()?)));
        let strays = self.strays.iter_mut().map(|(id, (agent, killing))| (id, &*agent, killing));
        for (id, agent, killing) in known.chain(strays).filter(|(_, _, killing)| killing.next <= now) {
            killing.next = now + killing.grace + killing.pause;
            killing.pause = (killing.pause * 2).min(LAST_ROUND);
            self.out.push(Effect::Call(Call::Kill(kill_call(id.as_str(), agent.clone(), killing.grace))));
        }
    }

    /// Answers offers, those that are held with them.
    pub(super) fn offers(&mut self, now: Duration, offers: Vec<Offer>) {
        self.counters.offers += offers.len() as u64;
        let held = std::mem::take(&mut self.held);
        let (offers, until): (Vec<Offer>, Vec<Duration>) = held
            .into_iter()
            .map(|held| (held.offer, held.until))
            .chain(offers.into_iter().map(|offer| (offer, now + HOLD)))
            .unzip();
        self.withdrawn.retain(|_, (_, at)| now < *at + HOLD);
        let plain: Vec<offers::Offer> = offers.iter().map(|offer| offer::plain(offer, &self.setting.role)).collect();
        self.learn(&plain);
        let answers = offers::answer(&plain, &self.demands(), &self.placed());
        for accept in answers.accepts {
            self.accept(now, &offers, &plain, accept);
        }
        let mut declines: BTreeMap<bool, Vec<wire::OfferId>> = BTreeMap::new();
        for (index, why) in answers.declines {
            let role = &plain[index].role;
            if now < until[index] && self.withdrawn.values().any(|(of, _)| of == role) {
                self.held.push(Held { offer: offers[index].clone(), until: until[index] });
                continue;
            }
            let busy = why != Why::NoDemand || self.is_busy(role, now);
            declines.entry(busy).or_default().push(offers[index].id.clone());
        }
        for (busy, offer_ids) in declines {
            self.counters.declined += offer_ids.len() as u64;
            self.out.push(Effect::Call(Call::Decline(Decline { offer_ids, filters: Some(filters(busy)) })));
        }
    }

    /// Answers offers that are not to be used.
    pub(super) fn pass_over(&mut self, offers: Vec<Offer>) {
        if offers.is_empty() {
            return;
        }
        let count = offers.len() as u64;
        self.counters.offers += count;
        self.counters.declined += count;
        let offer_ids = offers.into_iter().map(|offer| offer.id).collect();
        self.out.push(Effect::Call(Call::Decline(Decline { offer_ids, filters: Some(filters(true)) })));
    }

    /// Tasks of an earlier run whose placement was not kept get to know their agents.
    fn learn(&mut self, offers: &[offers::Offer]) {
        for task in self.tasks.values_mut().filter(|task| *task.attributes == Attributes::default()) {
            let Some(agent) = &task.agent else { continue };
            if let Some(offer) = offers.iter().find(|offer| offer.agent == agent.as_str()) {
                task.attributes = Arc::clone(&offer.attributes);
                let kept = Kept { attributes: Arc::clone(&task.attributes), executor: None };
                task.placement.token = Some(token::write(agent, &kept));
            }
        }
    }

    /// Answers those offers that are held and need not be any more.
    pub(super) fn reconsider(&mut self, now: Duration) {
        if !self.held.is_empty() {
            self.offers(now, Vec::new());
        }
    }

    /// When an offer that is held has to be answered.
    pub(super) fn held_until(&self) -> Option<Duration> {
        self.held.iter().map(|held| held.until).min()
    }

    /// How many offers are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn is_busy(&self, role: &str, now: Duration) -> bool {
        self.roles.get(role).and_then(|role| role.wanted).is_some_and(|at| now < at + BUSY_FOR)
    }

    /// What waits for a place, alike tasks together.
    fn demands(&self) -> Vec<Demand> {
        let mut demands: BTreeMap<(PolicyName, usize), Demand> = BTreeMap::new();
        for (id, task) in self.tasks.iter().filter(|(_, task)| task.stage == Stage::Queued) {
            let Some(request) = &task.request else { continue };
            let like = Arc::as_ptr(&request.template).addr();
            let demand = demands.entry((task.policy.clone(), like)).or_insert_with(|| {
                let mesos = &request.template.mesos;
                let role = self.role_of(request);
                Demand {
                    policy: task.policy.clone(),
                    priority: mesos.priority,
                    needs: task_info::needs(&request.template),
                    executor: task_info::executor_of(&self.setting, &request.template, &role),
                    role,
                    constraints: mesos.constraints.clone(),
                    packing: mesos.packing,
                    tasks: Vec::new(),
                }
            });
            demand.tasks.push((id.clone(), task.asked));
        }
        demands.into_values().collect()
    }

    fn placed(&self) -> Vec<Placed> {
        let with_agent = self.tasks.values().filter_map(|task| Some((task, task.agent.as_ref()?)));
        let mut placed: Vec<Placed> = with_agent
            .map(|(task, agent)| {
                let lives = |kind: &Arc<str>| {
                    self.executors.contains_key(&(task.policy.clone(), agent.clone(), Arc::clone(kind)))
                };
                Placed {
                    policy: task.policy.clone(),
                    agent: agent.as_str().to_owned(),
                    attributes: Arc::clone(&task.attributes),
                    executor: task.executor.clone().filter(lives),
                }
            })
            .collect();
        placed.sort_by(|a, b| a.policy.cmp(&b.policy));
        placed
    }

    /// Launches what the matcher has placed on offers of one agent.
    fn accept(&mut self, now: Duration, offers: &[Offer], plain: &[offers::Offer], accept: offers::Accept) {
        let Some(first) = accept.offers.first().copied() else { return };
        let (offer, attributes) = (&offers[first], &plain[first].attributes);
        let agent = offer.agent_id.clone();
        let mut task_infos = Vec::new();
        for launch in &accept.launches {
            let Some(task) = self.tasks.get(&launch.task) else { continue };
            let Some(request) = task.request.clone() else { continue };
            let place = task_info::Place { offers, agent: &agent, host: &offer.hostname, launch };
            let kind = task_info::executor_of(&self.setting, &request.template, &plain[first].role)
                .map(|executor| executor.kind);
            let executor = kind.clone().map(|kind| {
                let new = || task_info::executor(&self.setting, &request, &place);
                self.executors.entry((task.policy.clone(), agent.clone(), kind)).or_insert_with(new).clone()
            });
            let kept = Kept { attributes: Arc::clone(attributes), executor: kind.clone().zip(executor.clone()) };
            let ports = task_info::ports(&request.template, launch);
            task_infos.push(task_info::task(&self.setting, &request, &place, &ports, executor));
            let placement = Placement {
                host: Some(offer.hostname.clone()),
                ports,
                token: Some(token::write(&agent, &kept)),
                ..Placement::default()
            };
            let Some(task) = self.tasks.get_mut(&launch.task) else { continue };
            task.stage = Stage::Sent;
            task.agent = Some(agent.clone());
            task.attributes = Arc::clone(attributes);
            task.executor = kind;
            task.placement = placement.clone();
            task.confirmed = true;
            let id = launch.task.clone();
            self.out.push(Effect::Tell(Box::new(News {
                id,
                state: TaskState::Staging,
                healthy: None,
                placement: Some(placement),
                exit: None,
                acknowledge: None,
            })));
        }
        self.counters.accepted += accept.offers.len() as u64;
        let role = &plain[first].role;
        if let Some(role) = self.roles.get_mut(role) {
            role.wanted = Some(now);
        }
        let busy = self.is_busy(role, now);
        self.out.push(Effect::Call(Call::Accept(Accept {
            offer_ids: accept.offers.iter().map(|index| offers[*index].id.clone()).collect(),
            operations: vec![Operation::Launch(Launch { task_infos })],
            filters: Some(filters(busy)),
        })));
    }

    /// A call did not reach the master, as far as one can tell. Tasks that it launched are asked about, and offers that it
    /// answered are declined, which says nothing to a master that has heard it after all; what is not sent again by itself is.
    pub(super) fn not_sent(&mut self, now: Duration, call: &Call) {
        if !self.subscribed {
            return;
        }
        match call {
            Call::Accept(accept) => {
                for id in launched(accept) {
                    if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.stage == Stage::Sent) {
                        task.confirmed = false;
                        task.denied = None;
                    }
                }
                self.unanswered.extend(accept.offer_ids.iter().cloned());
                self.ask(now, FIRST_ROUND);
            }
            Call::Decline(decline) => self.unanswered.extend(decline.offer_ids.iter().cloned()),
            Call::Suppress(named) => self.each_role(named, |role| role.suppressed = false),
            Call::Revive(named) => self.each_role(named, |role| role.revived = None),
            _ => {}
        }
    }

    /// A launch was not sent, for certain: its tasks never were anywhere, and its offers are declined.
    pub(super) fn unsent(&mut self, call: &Call) {
        let Call::Accept(accept) = call else { return };
        for id in launched(accept) {
            if self.tasks.get(&id).is_some_and(|task| task.stage == Stage::Sent) {
                self.forget(&id);
                self.tell_gone(id, Exit::Unknown, None, None);
            }
        }
        if self.subscribed {
            self.unanswered.extend(accept.offer_ids.iter().cloned());
        }
    }

    fn each_role(&mut self, named: &Roles, change: impl Fn(&mut Role)) {
        let named = |name: &String| named.roles.contains(name);
        self.roles.iter_mut().filter(|(name, _)| named(name)).for_each(|(_, role)| change(role));
    }

    /// Answers offers once more whose answer was lost.
    fn decline_again(&mut self) {
        let offer_ids = std::mem::take(&mut self.unanswered);
        if !offer_ids.is_empty() {
            self.out.push(Effect::Call(Call::Decline(Decline { offer_ids, filters: Some(filters(true)) })));
        }
    }

    /// An offer was taken back before its answer arrived; tasks that were launched with it are reported as dropped.
    pub(super) fn rescinded(&mut self, id: &wire::OfferId) {
        self.counters.rescinded += 1;
        self.held.retain(|held| held.offer.id != *id);
    }

    /// An executor has ended, or an agent has gone.
    pub(super) fn failure(&mut self, agent: Option<&AgentId>, executor: Option<&str>) {
        self.executors.retain(|(_, on, _), info| {
            let here = agent.is_none_or(|agent| agent == on);
            let this = executor.is_none_or(|executor| executor == info.executor_id.as_str());
            !(here && this)
        });
    }

    /// What the cluster says of a task.
    pub(super) fn update(&mut self, now: Duration, status: &TaskStatus) {
        let id = TaskId::from(status.task_id.as_str());
        let acknowledge = acknowledgement(status);
        let verdict = status::verdict(status);
        let Some(task) = self.tasks.get_mut(&id) else {
            return self.update_of_stray(now, id, &verdict, status.agent_id.clone(), acknowledge);
        };
        if status.agent_id.is_some() && task.agent.is_none() {
            task.agent.clone_from(&status.agent_id);
            let kept = Kept { attributes: Arc::clone(&task.attributes), executor: None };
            task.placement.token = status.agent_id.as_ref().map(|agent| token::write(agent, &kept));
        }
        match verdict {
            Verdict::Alive { running, killing } => {
                task.confirmed = true;
                task.denied = None;
                task.unreachable = None;
                task.stage = if running { Stage::Running } else { task.stage.max(Stage::Staging) };
                let state = match task.stage {
                    _ if killing => TaskState::Killing,
                    Stage::Running => TaskState::Running,
                    _ => TaskState::Staging,
                };
                status::enrich(&mut task.placement, status);
                let (healthy, placement) = (status.healthy, Some(task.placement.clone()));
                self.out.push(Effect::Tell(Box::new(News { id, state, healthy, placement, exit: None, acknowledge })));
            }
            Verdict::Unreachable => {
                task.confirmed = true;
                task.denied = None;
                task.unreachable.get_or_insert(now);
                self.out.extend(acknowledge.map(|acknowledge| Effect::Call(Call::Acknowledge(acknowledge))));
            }
            Verdict::Denied => {
                let since = *task.denied.get_or_insert(now);
                let patience = match task.stage {
                    _ if task.killing.is_some() => REPEAT_KILL,
                    Stage::Running => DENIED_FOR,
                    _ => UNSEEN_FOR,
                };
                let exit = match task.stage {
                    Stage::Running => Exit::Lost { reason: "the cluster knows nothing of it any more".into() },
                    _ => Exit::Unknown,
                };
                task.confirmed = false;
                if since + patience <= now {
                    self.forget(&id);
                    self.tell_gone(id, exit, None, acknowledge);
                } else {
                    // Asked again soon, unless it is going to be.
                    if !std::mem::replace(&mut self.asking, true) {
                        self.round = Some((now + FIRST_ROUND, FIRST_ROUND));
                    }
                    self.out.extend(acknowledge.map(|acknowledge| Effect::Call(Call::Acknowledge(acknowledge))));
                }
            }
            Verdict::Gone(exit) => {
                // A task that its agent never heard of: the launch was lost on the way, and nothing has failed.
                let lost = matches!(exit, Exit::Lost { .. }) && status.reason == Some(StatusReason::Reconciliation);
                let exit = if lost && task.stage <= Stage::Sent { Exit::Unknown } else { exit };
                let placement = Some(task.placement.clone());
                self.forget(&id);
                self.tell_gone(id, exit, placement, acknowledge);
            }
        }
        self.check_recovered(now);
    }

    /// The same of a task that nobody asks for any more, or ever did: what was told to be gone must not go on.
    fn update_of_stray(
        &mut self,
        now: Duration,
        id: TaskId,
        verdict: &Verdict,
        agent: Option<AgentId>,
        acknowledge: Option<Acknowledge>,
    ) {
        match verdict {
            Verdict::Alive { .. } => {
                let killing = Killing { grace: Duration::ZERO, next: now, pause: REPEAT_KILL };
                self.strays.entry(id.clone()).or_insert((agent, killing));
                self.send_kills(now);
            }
            // One that cannot be reached is ended when it turns up; a KILL now would be answered with the very same status,
            // without end.
            Verdict::Unreachable | Verdict::Denied | Verdict::Gone(_) => drop(self.strays.remove(&id)),
        }
        match (verdict, acknowledge) {
            // The engine may still be writing down that it is over.
            (Verdict::Gone(exit), Some(acknowledge)) => self.tell_gone(id, exit.clone(), None, Some(acknowledge)),
            (_, acknowledge) => {
                self.out.extend(acknowledge.map(|acknowledge| Effect::Call(Call::Acknowledge(acknowledge))));
            }
        }
    }

    /// Takes a task out; an executor that has none left ends by itself and is not used again.
    fn forget(&mut self, id: &TaskId) {
        let Some(Task { policy, agent: Some(agent), executor: Some(kind), .. }) = self.tasks.remove(id) else { return };
        let is_used = |task: &Task| {
            task.policy == policy && task.agent.as_ref() == Some(&agent) && task.executor.as_ref() == Some(&kind)
        };
        if !self.tasks.values().any(is_used) {
            self.executors.remove(&(policy, agent, kind));
        }
    }

    fn tell_gone(&mut self, id: TaskId, exit: Exit, placement: Option<Placement>, acknowledge: Option<Acknowledge>) {
        let news = News { id, state: TaskState::Gone, healthy: None, placement, exit: Some(exit), acknowledge };
        self.out.push(Effect::Tell(Box::new(news)));
    }

    fn check_recovered(&mut self, now: Duration) {
        if self.recovering == Recovering::No && !self.reconciling {
            return;
        }
        let open = self.tasks.values().any(|task| task.stage != Stage::Queued && !task.confirmed);
        if !open && self.subscribed && std::mem::take(&mut self.reconciling) {
            self.out.push(Effect::Reconciled);
        }
        let Recovering::Until(until) = self.recovering else { return };
        if !open || until <= now {
            self.recovering = Recovering::No;
            self.out.push(Effect::Recovered);
            // What was offered meanwhile has been declined for long, since nobody knew of any demand: only after a SUPPRESS
            // are offers asked for again as soon as there is some.
            self.suppress(now);
        }
    }

    /// What time alone brings about.
    pub(super) fn tick(&mut self, now: Duration) {
        if !self.subscribed {
            return;
        }
        self.reconsider(now);
        self.decline_again();
        self.give_up(now);
        self.check_recovered(now);
        self.send_kills(now);
        if let Some((due, pause)) = self.round
            && due <= now
        {
            let complete = self.tasks.values().all(|task| task.stage == Stage::Queued || task.confirmed);
            if complete && std::mem::take(&mut self.asking) {
                self.round = Some((now + RECONCILE_EVERY, FIRST_ROUND));
            } else if complete {
                // Everything is asked about anew.
                for task in self.tasks.values_mut() {
                    task.confirmed = false;
                }
                self.ask(now, FIRST_ROUND);
                self.out.push(Effect::Call(Call::Reconcile(Reconcile::default())));
            } else {
                self.ask(now, pause);
            }
        }
        self.revive(now);
        self.suppress(now);
    }

    /// Gives up the tasks that could not be reached for too long.
    fn give_up(&mut self, now: Duration) {
        let patience = self.setting.unreachable;
        let over = |task: &Task| task.unreachable.is_some_and(|since| since + patience <= now);
        let ids: Vec<TaskId> = self.tasks.iter().filter(|(_, task)| over(task)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            let placement = self.tasks.get(&id).map(|task| task.placement.clone());
            self.forget(&id);
            let exit = Exit::Lost { reason: "its agent cannot be reached any more".into() };
            self.tell_gone(id, exit, placement, None);
        }
    }

    /// Wants no offers for roles in which nothing happens.
    fn suppress(&mut self, now: Duration) {
        if self.recovering != Recovering::No {
            return;
        }
        let queued = self.tasks.values().filter(|task| task.stage == Stage::Queued);
        let waiting: BTreeSet<String> =
            queued.filter_map(|task| task.request.as_deref()).map(|request| self.role_of(request)).collect();
        let mut roles = Vec::new();
        for (name, role) in &mut self.roles {
            let busy = role.wanted.is_some_and(|at| now < at + BUSY_FOR) || waiting.contains(name);
            if !busy && !role.suppressed {
                role.suppressed = true;
                roles.push(name.clone());
            }
        }
        for role in roles {
            self.out.push(Effect::Call(Call::Suppress(Roles { roles: vec![role] })));
        }
    }
}

fn filters(busy: bool) -> Filters {
    Filters { refuse_seconds: Some(if busy { SHORT } else { LONG }) }
}

/// The tasks that an ACCEPT launches.
fn launched(accept: &Accept) -> Vec<TaskId> {
    let infos = accept.operations.iter().filter_map(|operation| match operation {
        Operation::Launch(launch) => Some(&launch.task_infos),
        _ => None,
    });
    infos.flatten().map(|info| TaskId::from(info.task_id.as_str())).collect()
}

fn kill_call(id: &str, agent_id: Option<AgentId>, grace: Duration) -> Kill {
    Kill {
        task_id: wire::TaskId::new(id),
        agent_id,
        kill_policy: Some(KillPolicy { grace_period: Some(grace.into()) }),
    }
}

/// What acknowledges a status, if that is to be done: those of masters and of reconciliation carry no uuid.
fn acknowledgement(status: &TaskStatus) -> Option<Acknowledge> {
    let uuid: Bytes = status.uuid.clone().filter(|uuid| !uuid.0.is_empty())?;
    Some(Acknowledge { agent_id: status.agent_id.clone()?, task_id: status.task_id.clone(), uuid })
}
