//! The matcher's laws as properties, and its rules one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn scalar(name: &str, amount: f64, reserved: bool) -> Resource {
    Resource { name: name.to_owned(), amount: Amount::Scalar(Milli::of(amount)), reserved }
}

fn ports(first: u64, last: u64) -> Resource {
    Resource { name: "ports".to_owned(), amount: Amount::Ranges(vec![(first, last)]), reserved: false }
}

fn offer(agent: &str, cpus: f64, mem: f64) -> Offer {
    offer_with(agent, &[], vec![scalar("cpus", cpus, false), scalar("mem", mem, false)])
}

fn offer_with(agent: &str, attributes: &[(&str, &str)], resources: Vec<Resource>) -> Offer {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), Attribute::Text((*value).to_owned())));
    let attributes = Arc::new(Attributes::new(&format!("{agent}.example"), attributes));
    Offer { agent: agent.to_owned(), role: "*".to_owned(), attributes, resources }
}

fn needs(cpus: f64, mem: f64) -> Needs {
    Needs(vec![("cpus".to_owned(), Need::Scalar(Milli::of(cpus))), ("mem".to_owned(), Need::Scalar(Milli::of(mem)))])
}

fn demand(policy: &str, n: u64, needs: Needs) -> Demand {
    Demand {
        policy: policy.into(),
        priority: 0,
        role: "*".to_owned(),
        needs,
        executor: None,
        constraints: Vec::new(),
        packing: Packing::Pack,
        tasks: (0..n).map(|i| (TaskId::new(format!("{policy}.{i}")), i)).collect(),
    }
}

fn executor(kind: &str, needs: Needs) -> Executor {
    Executor { kind: kind.into(), needs }
}

fn constrained(n: u64, attribute: &str, rule: Rule) -> Demand {
    let constraints = vec![Constraint { attribute: attribute.to_owned(), rule }];
    Demand { constraints, ..demand("p", n, needs(0.1, 1.0)) }
}

/// How many tasks of each policy were placed.
fn placed_by_policy(answers: &Answers) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for launch in answers.accepts.iter().flat_map(|accept| &accept.launches) {
        let policy = launch.task.as_str().split('.').next().unwrap_or_default().to_owned();
        *counts.entry(policy).or_insert(0) += 1;
    }
    counts
}

/// How many tasks were placed on each agent.
fn by_agent(offers: &[Offer], answers: &Answers) -> Vec<(String, usize)> {
    let of = |accept: &Accept| (offers[accept.offers[0]].agent.clone(), accept.launches.len());
    answers.accepts.iter().map(of).collect()
}

#[test]
fn reservations_are_summed_and_come_first() {
    let resources =
        vec![scalar("cpus", 0.6, false), scalar("cpus", 0.6, true), scalar("mem", 64.0, false), ports(31000, 31001)];
    let offers = [offer_with("a", &[], resources)];
    let answers = answer(&offers, &[demand("p", 2, needs(1.0, 8.0))], &[]);
    let launch = &answers.accepts[0].launches[0];
    let cpus: Vec<_> =
        launch.pieces.iter().filter(|piece| piece.resource < 2).map(|p| (p.resource, p.amount.clone())).collect();
    assert_eq!(cpus, [(1, Amount::Scalar(Milli::of(0.6))), (0, Amount::Scalar(Milli::of(0.4)))]);
    assert_eq!(answers.missed, [(TaskId::new("p.1"), Miss::Resources)]);
}

#[test]
fn a_resource_that_is_not_offered_is_not_there() {
    let offers = [offer_with("a", &[], vec![scalar("mem", 1000.0, false)])];
    let answers = answer(&offers, &[demand("p", 1, needs(0.1, 1.0))], &[]);
    assert_eq!((answers.accepts.len(), answers.declines.as_slice()), (0, &[(0, Why::Unfit)][..]));
}

#[test]
fn ports_are_had_by_count_by_number_and_by_range() {
    let picks = vec![Pick::Any, Pick::Within(31000, 31002), Pick::Exact(31001), Pick::Within(31000, 31001)];
    let needs = Needs(vec![("ports".to_owned(), Need::Numbers(picks))]);
    let offers = [offer_with("a", &[], vec![ports(31000, 31009)])];
    let answers = answer(&offers, &[demand("p", 2, needs)], &[]);
    let launch = &answers.accepts[0].launches[0];
    assert_eq!(launch.numbers, [("ports".to_owned(), vec![31003, 31002, 31001, 31000])]);
    assert_eq!(launch.pieces[0].amount, Amount::Ranges(vec![(31000, 31003)]));
    assert_eq!(answers.missed.len(), 1, "the second one cannot have 31001 too");
}

#[test]
fn sets_are_had_by_name_and_by_count() {
    let gpus = ["g0", "g1", "g2"].map(str::to_owned).into();
    let resource = Resource { name: "gpus".to_owned(), amount: Amount::Set(gpus), reserved: false };
    let offers = [offer_with("a", &[], vec![resource])];
    let need = Need::Items { named: ["g1".to_owned()].into(), any: 1 };
    let answers = answer(&offers, &[demand("p", 2, Needs(vec![("gpus".to_owned(), need)]))], &[]);
    let pieces = &answers.accepts[0].launches[0].pieces;
    assert_eq!(pieces[0].amount, Amount::Set(["g0".to_owned(), "g1".to_owned()].into()));
    assert_eq!(answers.missed.len(), 1);
}

#[test]
fn constraints_choose_agents() {
    let pattern = |text: &str| Rule::Matches(Pattern::new(text).unwrap());
    let cases = [
        (Rule::Equal("r1".into()), vec!["a"]),
        (Rule::NotEqual("r1".into()), vec!["b", "c"]),
        (Rule::In(vec!["r1".into(), "r2".into()]), vec!["a", "b"]),
        (pattern("r[12]"), vec!["a", "b"]),
        (pattern("r"), vec![]),
    ];
    let small = || vec![scalar("cpus", 0.1, false), scalar("mem", 1.0, false)];
    for (rule, agents) in cases {
        let offers = [
            offer_with("a", &[("rack", "r1")], small()),
            offer_with("b", &[("rack", "r2")], small()),
            offer_with("c", &[], small()),
        ];
        let answers = answer(&offers, &[constrained(9, "rack", rule.clone())], &[]);
        let used: Vec<String> = by_agent(&offers, &answers).into_iter().map(|(agent, _)| agent).collect();
        assert_eq!(used, agents, "{rule:?}");
    }
    assert!(Pattern::new("a(").is_err());
    let offers = [offer("a", 1.0, 8.0), offer("b", 1.0, 8.0)];
    let answers = answer(&offers, &[constrained(9, "hostname", Rule::Equal("b.example".into()))], &[]);
    assert_eq!(by_agent(&offers, &answers), [("b".to_owned(), 8)]);
}

#[test]
fn unique_counts_the_tasks_that_are_there_already() {
    let offers = [offer("a", 4.0, 64.0), offer("b", 4.0, 64.0), offer("c", 4.0, 64.0)];
    let placed = Placed {
        policy: "p".into(),
        agent: "b".to_owned(),
        attributes: Arc::clone(&offers[1].attributes),
        executor: None,
    };
    let answers = answer(&offers, &[constrained(5, "hostname", Rule::Unique)], &[placed]);
    assert_eq!(by_agent(&offers, &answers), [("a".to_owned(), 1), ("c".to_owned(), 1)]);
    assert_eq!(answers.missed.len(), 3);
}

#[test]
fn group_by_keeps_groups_even() {
    let big = || vec![scalar("cpus", 4.0, false), scalar("mem", 64.0, false)];
    let offers = [
        offer_with("a", &[("zone", "z1")], big()),
        offer_with("b", &[("zone", "z1")], big()),
        offer_with("c", &[("zone", "z2")], big()),
    ];
    let answers = answer(&offers, &[constrained(6, "zone", Rule::GroupBy(None))], &[]);
    let in_z2: usize = by_agent(&offers, &answers).iter().filter(|(agent, _)| agent == "c").map(|(_, n)| n).sum();
    assert_eq!((placed_by_policy(&answers)["p"], in_z2), (6, 3));
    // Three zones are wanted and two are offered: one task each, and the others wait for the third zone.
    let answers = answer(&offers, &[constrained(6, "zone", Rule::GroupBy(Some(3)))], &[]);
    assert_eq!(placed_by_policy(&answers)["p"], 2);
}

#[test]
fn tasks_are_packed_or_spread() {
    let offers = [offer("a", 4.0, 64.0), offer("b", 2.0, 64.0), offer("c", 4.0, 64.0)];
    let mut demand = demand("p", 6, needs(0.5, 1.0));
    let answers = answer(&offers, std::slice::from_ref(&demand), &[]);
    assert_eq!(by_agent(&offers, &answers), [("a".to_owned(), 2), ("b".to_owned(), 4)], "the smallest is filled first");
    demand.packing = Packing::Spread;
    let answers = answer(&offers, &[demand], &[]);
    assert_eq!(by_agent(&offers, &answers), ["a", "b", "c"].map(|agent| (agent.to_owned(), 2)));
}

#[test]
fn the_executor_is_paid_for_once_on_each_agent() {
    let offers = [offer("a", 1.0, 100.0)];
    let demand = Demand { executor: Some(executor("*", needs(0.1, 40.0))), ..demand("p", 4, needs(0.1, 20.0)) };
    let answers = answer(&offers, std::slice::from_ref(&demand), &[]);
    let launches = &answers.accepts[0].launches;
    assert_eq!(launches.iter().map(|launch| launch.executor.len()).collect::<Vec<_>>(), [2, 0, 0]);
    let attributes = Arc::clone(&offers[0].attributes);
    let placed = Placed { policy: "p".into(), agent: "a".to_owned(), attributes, executor: Some("*".into()) };
    assert_eq!(placed_by_policy(&answer(&offers, &[demand], &[placed]))["p"], 4);
}

#[test]
fn policies_share_what_there_is() {
    let offers = [offer("a", 1.0, 100.0)];
    let two =
        |answers: &Answers| (placed_by_policy(answers).get("p").copied(), placed_by_policy(answers).get("q").copied());
    let (p, q) = (demand("p", 90, needs(0.1, 1.0)), demand("q", 10, needs(0.1, 1.0)));
    assert_eq!(two(&answer(&offers, &[p.clone(), q.clone()], &[])), (Some(9), Some(1)), "by what they ask for");
    let placed: Vec<Placed> = (0..9)
        .map(|_| Placed { policy: "p".into(), agent: "z".to_owned(), attributes: Arc::default(), executor: None })
        .collect();
    let p = demand("p", 10, needs(0.1, 1.0));
    let (of_p, of_q) = two(&answer(&offers, &[p.clone(), q.clone()], &placed));
    assert!(of_q > of_p, "the one that has less goes first: {of_p:?} {of_q:?}");
    let q = Demand { priority: 1, ..q };
    assert_eq!(two(&answer(&offers, &[p, q], &[])), (None, Some(10)), "priority goes before everything");
}

#[test]
fn a_policy_that_cannot_use_an_offer_leaves_it_to_others() {
    let offers = [offer("a", 1.0, 10.0)];
    let picky = constrained(3, "rack", Rule::Equal("none".into()));
    let answers = answer(&offers, &[picky.clone(), demand("q", 2, needs(0.1, 1.0))], &[]);
    assert_eq!(placed_by_policy(&answers), BTreeMap::from([("q".to_owned(), 2)]));
    let reasons: BTreeSet<Miss> = answers.missed.iter().map(|(_, miss)| *miss).collect();
    assert_eq!(reasons, BTreeSet::from([Miss::Constraint]));
    // And what nobody can use now is told from what nobody wants.
    assert_eq!(answer(&offers, &[picky], &[]).declines, [(0, Why::Unfit)]);
    assert_eq!(answer(&offers, &[], &[]).declines, [(0, Why::NoDemand)]);
    let other = Demand { role: "other".to_owned(), ..demand("q", 2, needs(0.1, 1.0)) };
    let answers = answer(&offers, &[other], &[]);
    assert_eq!((answers.declines, answers.missed[0].1), (vec![(0, Why::NoDemand)], Miss::NoOffer));
}

fn any_resource() -> impl Strategy<Value = Resource> {
    let scalar =
        (prop_oneof!["cpus", "mem"], 0_u64..4000).prop_map(|(name, milli)| (name, Amount::Scalar(Milli(milli))));
    let ranges = prop::collection::vec((0_u64..40, 0_u64..6), 0..3).prop_map(|spans| {
        // Apart from each other, as a master sends them.
        let mut next = 0;
        let ranges = spans.into_iter().map(|(gap, length)| {
            let first = next + gap;
            next = first + length + 2;
            (first, first + length)
        });
        ("ports".to_owned(), Amount::Ranges(ranges.collect()))
    });
    let set = prop::collection::btree_set("[a-d]", 0..4).prop_map(|items| ("gpus".to_owned(), Amount::Set(items)));
    (prop_oneof![3 => scalar, 1 => ranges, 1 => set], any::<bool>()).prop_map(|((name, amount), reserved)| Resource {
        name,
        amount,
        reserved,
    })
}

fn any_offer() -> impl Strategy<Value = Offer> {
    (0_u8..5, 0_u8..2, prop::collection::vec(any_resource(), 0..7)).prop_map(|(agent, role, resources)| {
        let rack = format!("r{}", agent % 3);
        let mut offer = offer_with(&format!("a{agent}"), &[("rack", &rack)], distinct(resources));
        offer.role = format!("role{role}");
        offer
    })
}

/// An agent has each of its items once, whichever offers they are in.
fn any_offers() -> impl Strategy<Value = Vec<Offer>> {
    prop::collection::vec(any_offer(), 0..12).prop_map(|mut offers| {
        let mut had = BTreeSet::new();
        for offer in &mut offers {
            for resource in &mut offer.resources {
                if let Amount::Set(items) = &mut resource.amount {
                    items.retain(|item| had.insert((offer.agent.clone(), item.clone())));
                }
            }
        }
        offers
    })
}

/// Items and numbers are in one offer once.
fn distinct(resources: Vec<Resource>) -> Vec<Resource> {
    let (mut items, mut ranges) = (BTreeSet::new(), false);
    resources
        .into_iter()
        .map(|mut resource| {
            match &mut resource.amount {
                Amount::Set(set) => {
                    set.retain(|item| items.insert(item.clone()));
                }
                Amount::Ranges(own) => {
                    if std::mem::replace(&mut ranges, true) {
                        own.clear();
                    }
                }
                Amount::Scalar(_) => {}
            }
            resource
        })
        .collect()
}

fn any_needs() -> impl Strategy<Value = Needs> {
    let pick = prop_oneof![
        Just(Pick::Any),
        (0_u64..40).prop_map(Pick::Exact),
        (0_u64..40, 0_u64..9).prop_map(|(first, length)| Pick::Within(first, first + length)),
    ];
    let items = (prop::collection::btree_set("[a-d]", 0..2), 0_u32..2);
    (0_u64..1500, 0_u64..1500, prop::collection::vec(pick, 0..4), items).prop_map(|(cpus, mem, picks, (named, any))| {
        Needs(vec![
            ("cpus".to_owned(), Need::Scalar(Milli(cpus))),
            ("mem".to_owned(), Need::Scalar(Milli(mem))),
            ("ports".to_owned(), Need::Numbers(picks)),
            ("gpus".to_owned(), Need::Items { named, any }),
        ])
    })
}

fn any_demand(at: usize) -> impl Strategy<Value = Demand> {
    let rule = prop_oneof![
        "r[0-3]".prop_map(Rule::Equal),
        "r[0-3]".prop_map(Rule::NotEqual),
        Just(Rule::Unique),
        prop::option::of(1_u32..4).prop_map(Rule::GroupBy),
        Just(Rule::Matches(Pattern::new("r[01]").unwrap())),
    ];
    let constraints = prop::collection::vec(rule, 0..2);
    let parts = (0_u8..3, 0_u8..2, any_needs(), prop::option::of(any_needs()), constraints, any::<bool>(), 0_u64..6);
    parts.prop_map(move |(policy, role, needs, needs_executor, rules, spread, n)| {
        let constraints =
            rules.into_iter().map(|rule| Constraint { attribute: "rack".to_owned(), rule }).collect::<Vec<_>>();
        Demand {
            role: format!("role{role}"),
            executor: needs_executor.map(|needs| executor(&format!("role{role}"), needs)),
            constraints,
            packing: if spread { Packing::Spread } else { Packing::Pack },
            tasks: (0..n).map(|i| (TaskId::new(format!("p{policy}.{at}.{i}")), i * 7 % 5)).collect(),
            ..demand(&format!("p{policy}"), 0, needs)
        }
    })
}

fn any_demands() -> impl Strategy<Value = Vec<Demand>> {
    (any_demand(0), any_demand(1), any_demand(2), 0_usize..4).prop_map(|(a, b, c, n)| {
        let mut all = vec![a, b, c];
        all.truncate(n);
        all
    })
}

/// Takes a piece out of what is left; false when it was not there.
fn take(left: &mut Amount, piece: &Amount) -> bool {
    match (left, piece) {
        (Amount::Scalar(left), Amount::Scalar(taken)) => {
            let fits = Milli::ZERO < *taken && taken <= left;
            *left = left.minus(*taken);
            fits
        }
        (Amount::Ranges(left), Amount::Ranges(taken)) => {
            let mut numbers: BTreeSet<u64> = left.iter().flat_map(|(first, last)| *first..=*last).collect();
            let fits = taken.iter().flat_map(|(first, last)| *first..=*last).all(|number| numbers.remove(&number));
            *left = numbers.into_iter().map(|number| (number, number)).collect();
            fits
        }
        (Amount::Set(left), Amount::Set(taken)) => taken.iter().all(|item| left.remove(item)),
        _ => false,
    }
}

/// Whether pieces are what was needed.
fn covers(needs: &Needs, pieces: &[Piece], offers: &[Offer]) -> bool {
    needs.0.iter().all(|(name, need)| {
        let of_name = pieces.iter().filter(|piece| offers[piece.offer].resources[piece.resource].name == *name);
        match need {
            Need::Scalar(wanted) => {
                let sum = of_name.fold(Milli::ZERO, |sum, piece| match piece.amount {
                    Amount::Scalar(amount) => sum.plus(amount),
                    _ => sum,
                });
                sum == *wanted
            }
            Need::Numbers(picks) => {
                let count: u64 = of_name
                    .map(|piece| match &piece.amount {
                        Amount::Ranges(ranges) => ranges.iter().map(|(first, last)| last - first + 1).sum(),
                        _ => 0,
                    })
                    .sum();
                count == picks.len() as u64
            }
            Need::Items { named, any } => {
                let items: BTreeSet<&String> = of_name
                    .filter_map(|piece| if let Amount::Set(items) = &piece.amount { Some(items) } else { None })
                    .flatten()
                    .collect();
                // Items that are called for by name are had; so are so many others.
                named.iter().all(|item| items.contains(item)) && items.len() == named.len() + *any as usize
            }
        }
    })
}

proptest! {
    #[test]
    fn every_offer_is_answered_once_and_nothing_is_given_out_twice(
        offers in any_offers(),
        demands in any_demands(),
    ) {
        let answers = answer(&offers, &demands, &[]);
        let mut answered: Vec<usize> = answers.accepts.iter().flat_map(|accept| accept.offers.clone()).collect();
        answered.extend(answers.declines.iter().map(|(offer, _)| *offer));
        answered.sort_unstable();
        prop_assert_eq!(answered, (0..offers.len()).collect::<Vec<_>>());

        let mut left: Vec<Vec<Amount>> =
            offers.iter().map(|offer| offer.resources.iter().map(|held| held.amount.clone()).collect()).collect();
        let mut executors = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for accept in &answers.accepts {
            let first = &offers[accept.offers[0]];
            prop_assert!(accept.offers.iter().all(|at| offers[*at].agent == first.agent && offers[*at].role == first.role));
            prop_assert!(!accept.launches.is_empty());
            for launch in &accept.launches {
                prop_assert!(seen.insert(launch.task.clone()), "{} is placed twice", launch.task);
                let owns = |demand: &&Demand| demand.tasks.iter().any(|(task, _)| *task == launch.task);
                let demand = demands.iter().find(owns).unwrap();
                prop_assert_eq!(&demand.role, &first.role);
                prop_assert!(demand.constraints.iter().all(|constraint| constraint.allows(&first.attributes)));
                prop_assert!(covers(&demand.needs, &launch.pieces, &offers));
                if let Some(executor) = &demand.executor
                    && executors.insert((demand.policy.clone(), first.agent.clone(), executor.kind.clone()))
                {
                    prop_assert!(covers(&executor.needs, &launch.executor, &offers));
                } else {
                    prop_assert!(launch.executor.is_empty());
                }
                for piece in launch.pieces.iter().chain(&launch.executor) {
                    prop_assert!(accept.offers.contains(&piece.offer));
                    prop_assert!(take(&mut left[piece.offer][piece.resource], &piece.amount), "{piece:?} was not there");
                }
            }
        }
        let asked: BTreeSet<TaskId> =
            demands.iter().flat_map(|demand| demand.tasks.iter().map(|(task, _)| task.clone())).collect();
        let missed: BTreeSet<TaskId> = answers.missed.iter().map(|(task, _)| task.clone()).collect();
        prop_assert!(seen.is_disjoint(&missed));
        prop_assert_eq!(&seen | &missed, asked);
        for (offer, why) in &answers.declines {
            let wanted = demands.iter().any(|demand| demand.role == offers[*offer].role && !demand.tasks.is_empty());
            prop_assert_eq!(*why == Why::NoDemand, !wanted);
        }
    }

    #[test]
    fn a_task_by_itself_is_placed_whenever_a_pot_has_room(
        offers in any_offers(),
        cpus in 0_u64..3000, mem in 0_u64..3000,
    ) {
        let (cpus, mem) = (Milli(cpus), Milli(mem));
        let demand = Demand {
            role: "role0".to_owned(),
            ..demand("p", 1, Needs(vec![
                ("cpus".to_owned(), Need::Scalar(cpus)),
                ("mem".to_owned(), Need::Scalar(mem)),
            ]))
        };
        let sum = |agent: &str, name: &str| offers
            .iter()
            .filter(|offer| offer.agent == agent && offer.role == "role0")
            .flat_map(|offer| &offer.resources)
            .filter(|resource| resource.name == name)
            .fold(Milli::ZERO, |sum, resource| match resource.amount {
                Amount::Scalar(amount) => sum.plus(amount),
                _ => sum,
            });
        let room = offers
            .iter()
            .filter(|offer| offer.role == "role0")
            .any(|offer| cpus <= sum(&offer.agent, "cpus") && mem <= sum(&offer.agent, "mem"));
        let answers = answer(&offers, &[demand], &[]);
        prop_assert_eq!(answers.accepts.len(), usize::from(room));
    }

    #[test]
    fn policies_that_ask_alike_get_alike(n in 1_usize..6, room in 0_u64..40) {
        let offers = [offer("a", room as f64, 1000.0)];
        let demands: Vec<Demand> = (0..n).map(|i| demand(&format!("p{i}"), 20, needs(1.0, 1.0))).collect();
        let counts = placed_by_policy(&answer(&offers, &demands, &[]));
        let of = |i: usize| counts.get(&format!("p{i}")).copied().unwrap_or(0);
        let (least, most) = ((0..n).map(of).min().unwrap(), (0..n).map(of).max().unwrap());
        prop_assert!(most - least <= 1, "{counts:?}");
    }
}
