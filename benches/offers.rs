//! What matching costs: `cargo bench --bench offers`.
//!
//! 1,000 offers of as many agents in ten racks, answered in one go: with nothing to launch, with 1,000 tasks of one
//! policy, and with 1,000 tasks of a hundred policies with ports and a constraint each.

use std::sync::Arc;

use divan::{Bencher, black_box};
use setpoint::core::model::TaskId;
use setpoint::core::offers::{
    Amount, Attribute, Attributes, Constraint, Demand, Milli, Need, Needs, Offer, Packing, Pick, Resource, Rule, answer,
};

const OFFERS: usize = 1000;

fn main() {
    divan::main();
}

#[divan::bench]
fn idle(bencher: Bencher<'_, '_>) {
    bench(bencher, &[]);
}

#[divan::bench(args = [Packing::Pack, Packing::Spread])]
fn one_policy(bencher: Bencher<'_, '_>, packing: Packing) {
    bench(bencher, &[Demand { packing, ..demand(0, 1000) }]);
}

#[divan::bench]
fn a_hundred_policies(bencher: Bencher<'_, '_>) {
    let demands: Vec<Demand> = (0..100)
        .map(|i| {
            let mut demand = demand(i, 10);
            demand.needs.0.push(("ports".to_owned(), Need::Numbers(vec![Pick::Any, Pick::Any])));
            let rule = Rule::NotEqual(format!("rack-{}", i % 10));
            demand.constraints.push(Constraint { attribute: "rack".to_owned(), rule });
            demand
        })
        .collect();
    bench(bencher, &demands);
}

fn bench(bencher: Bencher<'_, '_>, demands: &[Demand]) {
    let offers: Vec<Offer> = (0..OFFERS).map(offer).collect();
    bencher.bench(|| {
        let answers = answer(black_box(&offers), black_box(demands), &[]);
        assert_eq!(answers.missed.len(), 0);
        answers
    });
}

fn offer(i: usize) -> Offer {
    let rack = ("rack".to_owned(), Attribute::Text(format!("rack-{}", i % 10)));
    let resource = |name: &str, amount| Resource { name: name.to_owned(), amount, reserved: false };
    Offer {
        agent: format!("agent-{i}"),
        role: "*".to_owned(),
        attributes: Arc::new(Attributes::new(&format!("host-{i}"), [rack])),
        resources: vec![
            resource("cpus", Amount::Scalar(Milli::of(4.0 + (i % 7) as f64))),
            resource("mem", Amount::Scalar(Milli::of(16384.0))),
            resource("disk", Amount::Scalar(Milli::of(65536.0))),
            resource("ports", Amount::Ranges(vec![(31000, 32000)])),
        ],
    }
}

fn demand(policy: usize, n: usize) -> Demand {
    let scalar = |name: &str, amount| (name.to_owned(), Need::Scalar(Milli::of(amount)));
    Demand {
        policy: format!("policy-{policy}").as_str().into(),
        priority: 0,
        role: "*".to_owned(),
        needs: Needs(vec![scalar("cpus", 0.1), scalar("mem", 32.0)]),
        executor: None,
        constraints: Vec::new(),
        packing: Packing::Pack,
        tasks: (0..n).map(|i| (TaskId::new(format!("policy-{policy}.{i}")), i as u64)).collect(),
    }
}
