//! A long live run, and each of its decisions made again: policies of every law, reloads good and bad, an outage of the
//! metric in every form, crashes and restarts; then `replay` must find every decision identical.
//!
//! `SETPOINT_LIVE_LOG` says for how many seconds at least.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use setpoint::log::{Item, Log, Replay, Verdict};

use crate::support::{HttpServer, Scratch, Setpoint, setting};

/// Every law, with guards of all sorts. `{gain}` is what reloads change.
const LAWS: [(&str, &str); 8] = [
    ("adaptive", "law = 'adaptive', per_task = {gain}, lag = '300ms'"),
    ("pid", "law = 'pid', kp = 0.1, ki = 0.07, kd = 0.03, per_task = {gain}"),
    ("relay", "law = 'relay', ramp = 3, lookback = 50 + {gain}"),
    ("ratio", "law = 'ratio', tolerance = 0.05 * {gain}, stabilization = { down = '2s' }"),
    (
        "step",
        "law = 'step', steps = { { above = 4 * {gain}, add = 1 }, { below = 2, remove = 1 } }, cooldown = '500ms'",
    ),
    ("plain", "law = 'proportional', per_task = {gain}, confirm = { n = 2, of = 3 }, on_missing = { keep = '1s' }"),
    ("count", "law = 'count', n = 2"),
    ("scripted", "step = { up = 1 }, flap = { changes = 8, per = '5s' }"),
];

/// What the metric's server does, in turn.
const FORMS: [&str; 8] = ["fine", "refused", "hang", "500", "garbage", "nan", "nothing", "stale"];

/// How long a form lasts.
const ROUND: Duration = Duration::from_millis(800);

/// So many rounds have everything in them once.
const ROUNDS: u32 = 9;

fn policy(name: &str, control: &str, gain: u32, places: &Places) -> String {
    let control = control.replace("{gain}", &gain.to_string());
    let own = match name {
        "scripted" => "decide = function(ctx) return { desired = math.floor(math.max(ctx.sample or 0, 0) / 4) } end,",
        "plain" => "shadow = 'shadows/plain.lua',",
        _ => "",
    };
    let Places { form, load, closed, silent } = places;
    format!(
        r#"local http, json = require("setpoint.http"), require("setpoint.json")
return {{
  interval = "100ms",
  workload = {{ command = "exec sleep 3600", min = 0, max = 4, grace = "1s" }},
  control = {{ {control} }},
  {own}
  metric = function(ctx)
    ctx.state.calls = (ctx.state.calls or 0) + 1
    local form = http.get("{form}").body
    if form == "refused" then return http.get("http://{closed}/").body end
    if form == "hang" then return http.get("http://{silent}/").body end
    if form == "nan" then return 0 / 0 end
    if form == "nothing" then return nil end
    local answer = http.get("{load}?" .. form)
    if answer.status ~= 200 then error("the server answered " .. answer.status) end
    local value = json.decode(answer.body).load - ctx.running
    if form == "stale" then return value, 3600 end
    return value, 0.0125
  end,
  target = 3.1,
}}"#
    )
}

/// Where the metric's parts are.
struct Places {
    form: String,
    load: String,
    closed: String,
    silent: String,
}

fn write_policies(scratch: &Scratch, gain: u32, places: &Places) {
    for (name, control) in LAWS {
        scratch.replace(&format!("policies/{name}.lua"), &policy(name, control, gain, places));
    }
    let (_, other) = LAWS[0];
    scratch.replace("policies/shadows/plain.lua", &policy("shadow", other, gain + 1, places));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_run_with_everything_in_it_replays_bit_for_bit() {
    let length = Duration::from_secs(setting("SETPOINT_LIVE_LOG", 1));
    let form = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&form);
    let server = HttpServer::start(move |seen| {
        let form = FORMS[now.load(Ordering::Relaxed) % FORMS.len()];
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        match seen.path.as_str() {
            "/form" => (200, form.to_owned()),
            "/load?500" => (500, "no".to_owned()),
            "/load?garbage" => (200, "<html>".to_owned()),
            _ => (200, format!("{{\"load\":{}}}", 8.0 + 7.7 * (seconds / 3.0).sin())),
        }
    })
    .await;
    // Nobody listens on the one any more, and the other is never answered.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let places = Places {
        form: server.url("/form"),
        load: server.url("/load"),
        closed: closed.to_string(),
        silent: silent.local_addr().unwrap().to_string(),
    };
    let scratch = Scratch::new();
    write_policies(&scratch, 1, &places);
    let args = ["policies", "--state-dir", "state"];
    let mut run = Setpoint::run(&scratch, args);
    run.ticks("plain", 3).await;
    let (began, mut round) = (Instant::now(), 0_u32);
    let (mut kills, mut restarts, mut reloads) = (0, 0, 0);
    while began.elapsed() < length || round < ROUNDS {
        round += 1;
        server.forget();
        form.fetch_add(1, Ordering::Relaxed);
        if round.is_multiple_of(3) {
            write_policies(&scratch, 1 + round / 3 % 4, &places);
            reloads += 1;
        }
        if round.is_multiple_of(5) {
            // Neither a bad policy nor a bad shadow takes the place of what runs.
            scratch.replace("policies/pid.lua", "return {");
            scratch.replace("policies/shadows/plain.lua", "return { interval = 7 }");
        }
        if round % 8 == 4 {
            run.kill();
            kills += 1;
            run = Setpoint::run(&scratch, args);
            run.ticks("plain", 2).await;
        } else if round % 8 == 7 {
            assert!(run.stop().await.success());
            restarts += 1;
            run = Setpoint::run(&scratch, args);
            run.ticks("plain", 2).await;
        }
        tokio::time::sleep(ROUND).await;
    }
    run.ticks("plain", 10).await;
    assert!(run.stop().await.success());

    let mut told = Setpoint::start(&scratch, ["replay", "state", "--json"]);
    let status = told.exit(length + Duration::from_secs(120)).await;
    let replayed: Value = serde_json::from_str(&told.stdout()).unwrap();
    assert!(status.success(), "{replayed:.3000} {}", told.stderr());
    assert_eq!(replayed["differences"], serde_json::json!([]));
    let gaps = &replayed["gaps"];
    for gap in ["not_replayable", "lost", "damaged_bytes"] {
        assert_eq!(gaps[gap], 0, "{gaps}");
    }
    let seen = Seen::of(&scratch);
    assert_eq!(Some(seen.decisions), replayed["decisions"].as_u64());
    eprintln!(
        "{} decisions identical over {:.0} s: {kills} kills, {restarts} restarts, {reloads} reloads; samples {:?}; \
         {:?} of each policy, {} of the shadow; {} changed something",
        seen.decisions,
        began.elapsed().as_secs_f64(),
        seen.samples,
        seen.policies,
        seen.of_shadows,
        seen.acted,
    );
    assert_eq!(seen.policies.len(), LAWS.len());
    assert!(0 < seen.of_shadows && 0 < seen.acted);
    let kinds: Vec<&str> = seen.samples.keys().copied().collect();
    assert_eq!(kinds, ["error", "missing", "stale", "value"]);
    let told: Vec<&str> = seen.errors.iter().map(String::as_str).collect();
    for part in ["refused", "500", "NaN"] {
        assert!(told.iter().any(|error| error.contains(part)), "no outage tells of `{part}`: {told:#?}");
    }
}

/// What the log has.
#[derive(Default)]
struct Seen {
    decisions: u64,
    of_shadows: u64,
    acted: u64,
    samples: BTreeMap<&'static str, u64>,
    policies: BTreeMap<String, u64>,
    errors: BTreeSet<String>,
}

impl Seen {
    /// Reads it once more, and replays it through the library.
    fn of(scratch: &Scratch) -> Self {
        let (mut seen, mut replay) = (Self::default(), Replay::default());
        Log::find(&scratch.path("state"))
            .unwrap()
            .read(|item| {
                let Item::Decision { entry, follows } = item else { return };
                assert_eq!(replay.take(&entry, follows), Verdict::Identical, "{} {}", entry.policy.name, entry.tick);
                seen.decisions += 1;
                seen.of_shadows += u64::from(entry.policy.shadow.is_some());
                seen.acted += u64::from(entry.outcome.acted != 0);
                *seen.samples.entry(entry.observation.sample.kind()).or_default() += 1;
                *seen.policies.entry(entry.policy.name.to_string()).or_default() += 1;
                if let setpoint::core::model::Sample::Error { message } = &entry.observation.sample {
                    seen.errors.insert(message.to_string());
                }
            })
            .unwrap();
        seen
    }
}
