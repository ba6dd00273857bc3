//! What the script host costs: `cargo bench --bench script`.
//!
//! `observe` is one tick's visit to the VM (`metric` and `target`), from the thread that asks to the script thread and
//! back; `observe_many` is the same for 1,000 policies of a file each, asked all at once, per policy; `load` is a
//! file read, compiled in a VM of its own, run and checked, as at a reload.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use setpoint::core::decision::Bounds;
use setpoint::core::model::{Point, PolicyName, Sample};
use setpoint::core::time::Timestamp;
use setpoint::script::{Content, Ctx, Limits, LoadRequest, LoadedFile, LoadedPolicy, Natives, Permissions, ScriptHost};
use tokio::runtime::Runtime;

const WALL: Duration = Duration::from_secs(30);

fn main() {
    divan::main();
}

#[divan::bench]
fn observe(bencher: Bencher<'_, '_>) {
    let (runtime, host) = host();
    let policy = runtime.block_on(load(&host, "p"));
    let ctx = ctx();
    bencher.bench_local(|| runtime.block_on(policy.script.observe(Arc::clone(black_box(&ctx)), WALL)));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn observe_many(bencher: Bencher<'_, '_>) {
    let (runtime, host) = host();
    let policies: Vec<LoadedPolicy> =
        runtime.block_on(async { futures_util::stream::iter(0..1000).then(|n| load(&host, n)).collect().await });
    let ctx = ctx();
    bencher.counter(ItemsCount::new(policies.len())).bench_local(|| {
        runtime.block_on(async {
            let calls: FuturesUnordered<_> =
                policies.iter().map(|policy| policy.script.observe(Arc::clone(black_box(&ctx)), WALL)).collect();
            calls.count().await
        })
    });
}

#[divan::bench(name = "load", sample_count = 100, sample_size = 1)]
fn load_file(bencher: Bencher<'_, '_>) {
    let (runtime, host) = host();
    bencher.bench_local(|| runtime.block_on(load(&host, "p")));
}

fn host() -> (Runtime, ScriptHost) {
    let runtime = support::runtime().expect("a runtime");
    let (limits, permissions) = (Limits::default(), Permissions::default());
    let host = ScriptHost::new(limits, permissions, Natives::default(), runtime.handle().clone(), 4);
    (runtime, host.expect("script threads"))
}

async fn load(host: &ScriptHost, name: impl ToString) -> LoadedPolicy {
    let request = LoadRequest {
        path: "p.lua".into(),
        name: name.to_string(),
        source: Some(support::policy("1s")),
        params: BTreeMap::new(),
        backends: vec!["local".to_owned()],
    };
    match host.load(request).await {
        Ok(LoadedFile { content: Content::Policy(policy), .. }) => policy,
        Ok(_) => panic!("it is no fleet"),
        Err(errors) => panic!("{errors:?}"),
    }
}

fn ctx() -> Arc<Ctx> {
    let point = |second: u64| Point { at: Timestamp::from_millis(second * 1000), value: 4.0, setpoint: 5.0 };
    Arc::new(Ctx {
        policy: PolicyName::from("p"),
        now: SystemTime::now(),
        tick: 3,
        sample: Some(Sample::value(4.0)),
        setpoint: Some(5.0),
        history: Arc::new((0..64).map(point).collect::<VecDeque<_>>()),
        tasks: Arc::default(),
        running: 2,
        in_flight: 1,
        desired: 3,
        bounds: Bounds { min: 0, max: 10 },
    })
}
