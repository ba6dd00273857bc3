//! The matcher itself: whose turn it is, and where its next task goes.
//!
//! Each demand keeps its candidates in a heap, the best first. Room only ever shrinks, so a candidate that does not fit
//! is dropped for good, and matching costs about one look at each candidate and one for each task.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::constraint::{Constraint, Rule, Tally};
use super::pot::{Pot, Taken};
use super::{Accept, Answers, Demand, Executor, Launch, Miss, Offer, Packing, Placed, Why};
use crate::core::model::{PolicyName, TaskId};

/// Answers every offer.
#[must_use]
pub fn answer(offers: &[Offer], demands: &[Demand], placed: &[Placed]) -> Answers {
    let mut matcher = Matcher::new(offers, demands, placed);
    matcher.place_all();
    matcher.answers()
}

/// A candidate of a demand: the policy's tasks on its agent when it was put there (for spreading), its rank, the pot.
type Candidate = Reverse<(u32, usize, usize)>;

/// A demand that is being served.
struct Line<'a> {
    demand: &'a Demand,
    tasks: VecDeque<&'a (TaskId, u64)>,
    candidates: BinaryHeap<Candidate>,
    /// Why the next task would have no place, should there be none.
    miss: Miss,
}

/// A policy that waits for its turn.
struct Claimant<'a> {
    lines: Vec<Line<'a>>,
    /// Tasks that have a place, before and now.
    placed: u64,
    /// Those and the ones that it asks for.
    wanted: u64,
    /// Its tasks on each agent, by the agents' index.
    on_agent: Vec<u32>,
    /// The kinds of executors that it has on agents, or is about to have there.
    executors: BTreeSet<(usize, &'a str)>,
    /// Where its tasks are, for each attribute that is counted.
    tallies: BTreeMap<&'a str, Tally>,
}

/// Whose turn it is: the greatest goes first.
#[derive(PartialEq, Eq)]
struct Turn {
    priority: i32,
    placed: u64,
    wanted: u64,
    oldest: u64,
    claimant: usize,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        // a / b < c / d as a × d < c × b, which is exact.
        let share = (u128::from(other.placed) * u128::from(self.wanted))
            .cmp(&(u128::from(self.placed) * u128::from(other.wanted)));
        self.priority
            .cmp(&other.priority)
            .then(share)
            .then(other.oldest.cmp(&self.oldest))
            .then(other.claimant.cmp(&self.claimant))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Matcher<'a> {
    offers: &'a [Offer],
    demands: &'a [Demand],
    pots: Vec<Pot>,
    /// The index of each pot's agent.
    agents: Vec<usize>,
    claimants: Vec<Claimant<'a>>,
    /// What is launched with each pot.
    launches: Vec<Vec<Launch>>,
    missed: Vec<(TaskId, Miss)>,
    /// Roles of which not every demand was met.
    short: BTreeSet<&'a str>,
}

impl<'a> Matcher<'a> {
    fn new(offers: &'a [Offer], demands: &'a [Demand], placed: &'a [Placed]) -> Self {
        let mut agents: BTreeMap<&str, usize> = BTreeMap::new();
        let mut members: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (index, offer) in offers.iter().enumerate() {
            let next = agents.len();
            agents.entry(&offer.agent).or_insert(next);
            members.entry((&offer.agent, &offer.role)).or_default().push(index);
        }
        let mut groups: Vec<Vec<usize>> = members.into_values().collect();
        groups.sort_unstable();
        let pots: Vec<Pot> = groups.into_iter().map(|group| Pot::new(offers, group)).collect();
        let of_pot = pots.iter().map(|pot| agents[offers[pot.offers[0]].agent.as_str()]).collect();
        let mut matcher = Self {
            offers,
            demands,
            launches: vec![Vec::new(); pots.len()],
            pots,
            agents: of_pot,
            claimants: Vec::new(),
            missed: Vec::new(),
            short: BTreeSet::new(),
        };
        matcher.line_up(&agents, placed);
        matcher
    }

    /// Makes a claimant of each policy.
    fn line_up(&mut self, agents: &BTreeMap<&str, usize>, placed: &'a [Placed]) {
        let ranks = self.ranks();
        let mut index: BTreeMap<&PolicyName, usize> = BTreeMap::new();
        for demand in self.demands {
            let next = self.claimants.len();
            let at = *index.entry(&demand.policy).or_insert(next);
            if at == next {
                self.claimants.push(Claimant {
                    lines: Vec::new(),
                    placed: 0,
                    wanted: 0,
                    on_agent: vec![0; agents.len()],
                    executors: BTreeSet::new(),
                    tallies: BTreeMap::new(),
                });
            }
            let claimant = &mut self.claimants[at];
            for constraint in demand.constraints.iter().filter(|constraint| constraint.counts()) {
                claimant.tallies.entry(&constraint.attribute).or_default();
            }
            claimant.wanted += demand.tasks.len() as u64;
        }
        for placed in placed {
            let Some(at) = index.get(&placed.policy) else { continue };
            let claimant = &mut self.claimants[*at];
            claimant.placed += 1;
            claimant.wanted += 1;
            claimant.count(&placed.attributes);
            if let Some(agent) = agents.get(placed.agent.as_str()) {
                claimant.on_agent[*agent] += 1;
                claimant.executors.extend(placed.executor.as_deref().map(|kind| (*agent, kind)));
            }
        }
        for demand in self.demands {
            let at = index[&demand.policy];
            let line = self.line(demand, &ranks, at);
            self.claimants[at].lines.push(line);
        }
    }

    /// The order in which packing fills the pots: those with the least left first.
    fn ranks(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.pots.len()).collect();
        order.sort_by_key(|pot| (self.pots[*pot].scalar("cpus"), self.pots[*pot].scalar("mem"), *pot));
        let mut ranks = vec![0; order.len()];
        for (rank, pot) in order.into_iter().enumerate() {
            ranks[pot] = rank;
        }
        ranks
    }

    /// A demand with the pots that its constraints allow.
    fn line(&mut self, demand: &'a Demand, ranks: &[usize], claimant: usize) -> Line<'a> {
        let claimant = &mut self.claimants[claimant];
        let mut tasks: Vec<&(TaskId, u64)> = demand.tasks.iter().collect();
        tasks.sort_by_key(|(_, asked)| *asked);
        let mut line = Line { demand, tasks: tasks.into(), candidates: BinaryHeap::new(), miss: Miss::NoOffer };
        let mut candidates = Vec::new();
        for (pot, rank) in ranks.iter().enumerate() {
            let offer = &self.offers[self.pots[pot].offers[0]];
            if offer.role != demand.role {
                continue;
            }
            line.miss = line.miss.max(Miss::Constraint);
            if !demand.constraints.iter().all(|constraint| constraint.allows(&offer.attributes)) {
                continue;
            }
            for (name, tally) in &mut claimant.tallies {
                if let Some(group) = offer.attributes.group(name) {
                    tally.know(group);
                }
            }
            let tasks = claimant.on_agent[self.agents[pot]];
            candidates.push(Reverse((demand.packing.crowd(tasks), *rank, pot)));
        }
        line.candidates = candidates.into();
        line
    }

    fn place_all(&mut self) {
        let mut turns: BinaryHeap<Turn> = (0..self.claimants.len()).filter_map(|at| self.turn(at)).collect();
        while let Some(Turn { claimant, .. }) = turns.pop() {
            self.place_next(claimant);
            turns.extend(self.turn(claimant));
        }
    }

    /// The turn of a policy that has tasks left.
    fn turn(&self, at: usize) -> Option<Turn> {
        let claimant = &self.claimants[at];
        let line = claimant.next()?;
        let line = &claimant.lines[line];
        let (priority, oldest) = (line.demand.priority, line.tasks.front()?.1);
        Some(Turn { priority, placed: claimant.placed, wanted: claimant.wanted, oldest, claimant: at })
    }

    /// Finds a place for a policy's next task, or finds that there is none for any like it.
    fn place_next(&mut self, at: usize) {
        let claimant = &mut self.claimants[at];
        let Some(line) = claimant.next() else { return };
        let Some((pot, taken, executor)) = find(claimant, line, &mut self.pots, &self.agents, self.offers) else {
            let line = &mut claimant.lines[line];
            let miss = line.miss;
            self.short.insert(&line.demand.role);
            self.missed.extend(line.tasks.drain(..).map(|(task, _)| (task.clone(), miss)));
            return;
        };
        let agent = self.agents[pot];
        let line = &mut claimant.lines[line];
        let Some((task, _)) = line.tasks.pop_front() else { return };
        claimant.executors.extend(line.demand.executor.as_ref().map(|executor| (agent, &*executor.kind)));
        claimant.on_agent[agent] += 1;
        claimant.placed += 1;
        claimant.count(&self.offers[self.pots[pot].offers[0]].attributes);
        let launch =
            Launch { task: task.clone(), pieces: taken.pieces, executor: executor.pieces, numbers: taken.numbers };
        self.launches[pot].push(launch);
    }

    fn answers(self) -> Answers {
        let mut answers = Answers { missed: self.missed, ..Answers::default() };
        let wanted: BTreeSet<&str> = roles(self.demands.iter().filter(|demand| !demand.tasks.is_empty()));
        for (pot, launches) in self.pots.into_iter().zip(self.launches) {
            let pieces = launches.iter().flat_map(|launch| launch.pieces.iter().chain(&launch.executor));
            let mut used: BTreeSet<usize> = pieces.map(|piece| piece.offer).collect();
            if used.is_empty() && !launches.is_empty() {
                // A task that needs nothing needs an offer all the same.
                used.extend(pot.offers.first());
            }
            for offer in pot.offers.iter().filter(|offer| !used.contains(offer)) {
                let role = self.offers[*offer].role.as_str();
                let why = match (wanted.contains(role), self.short.contains(role)) {
                    (false, _) => Why::NoDemand,
                    (true, false) => Why::Enough,
                    (true, true) => Why::Unfit,
                };
                answers.declines.push((*offer, why));
            }
            if !used.is_empty() {
                answers.accepts.push(Accept { offers: used.into_iter().collect(), launches });
            }
        }
        answers
    }
}

fn roles<'a>(demands: impl Iterator<Item = &'a Demand>) -> BTreeSet<&'a str> {
    demands.map(|demand| demand.role.as_str()).collect()
}

impl Packing {
    /// What the number of tasks on an agent says about it as a place for one more.
    const fn crowd(self, tasks: u32) -> u32 {
        match self {
            Self::Pack => 0,
            Self::Spread => tasks,
        }
    }
}

impl Claimant<'_> {
    /// The line with the policy's most urgent task.
    fn next(&self) -> Option<usize> {
        let waiting = self.lines.iter().enumerate().filter_map(|(at, line)| {
            let (_, asked) = line.tasks.front()?;
            Some((Reverse(line.demand.priority), *asked, at))
        });
        waiting.min().map(|(_, _, at)| at)
    }

    /// Counts a task where it is.
    fn count(&mut self, attributes: &super::Attributes) {
        for (name, tally) in &mut self.tallies {
            if let Some(group) = attributes.group(name) {
                tally.add(group);
            }
        }
    }

    /// The rule that keeps a place from getting one more task, if there is one.
    fn forbids<'c>(&self, constraints: &'c [Constraint], attributes: &super::Attributes) -> Option<&'c Rule> {
        constraints
            .iter()
            .filter(|constraint| constraint.counts())
            .map(|constraint| (constraint, &constraint.rule))
            .find_map(|(constraint, rule)| {
                let room =
                    match (self.tallies.get(constraint.attribute.as_str()), attributes.group(&constraint.attribute)) {
                        (Some(tally), Some(group)) => tally.has_room(rule, &group),
                        _ => false,
                    };
                (!room).then_some(rule)
            })
    }
}

/// Finds the best pot for a line's next task, and takes what it needs.
fn find(
    claimant: &mut Claimant<'_>,
    line: usize,
    pots: &mut [Pot],
    agents: &[usize],
    offers: &[Offer],
) -> Option<(usize, Taken, Taken)> {
    let mut candidates = std::mem::take(&mut claimant.lines[line].candidates);
    let demand = claimant.lines[line].demand;
    let mut aside = Vec::new();
    let mut found = None;
    while let Some(Reverse((crowd, rank, pot))) = candidates.pop() {
        let agent = agents[pot];
        let crowd_now = demand.packing.crowd(claimant.on_agent[agent]);
        if crowd_now != crowd {
            candidates.push(Reverse((crowd_now, rank, pot)));
            continue;
        }
        match claimant.forbids(&demand.constraints, &offers[pots[pot].offers[0]].attributes) {
            // Balance may come back to it.
            Some(Rule::GroupBy(_)) => {
                aside.push(Reverse((crowd, rank, pot)));
                continue;
            }
            Some(_) => continue,
            None => {}
        }
        let needs_executor = |executor: &&Executor| !claimant.executors.contains(&(agent, &*executor.kind));
        let executor = demand.executor.as_ref().filter(needs_executor).map(|executor| &executor.needs);
        if let Some((task, executor)) = pots[pot].take(&demand.needs, executor) {
            aside.push(Reverse((crowd, rank, pot)));
            found = Some((pot, task, executor));
            break;
        }
        claimant.lines[line].miss = Miss::Resources;
    }
    candidates.extend(aside);
    claimant.lines[line].candidates = candidates;
    found
}
