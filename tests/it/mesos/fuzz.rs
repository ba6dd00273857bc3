//! Anything at all instead of records, events, nodes of ZooKeeper and addresses: an error at worst, never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use setpoint::mesos::recordio::{Decoder, encode};
use setpoint::mesos::wire::{executor, scheduler};
use setpoint::mesos::{Masters, node, redirected};

use crate::support::setting;

/// What genuine clusters say, to be spoilt.
const EVENTS: &[&str] = &[
    r#"{"subscribed":{"framework_id":{"value":"f-0001"},"heartbeat_interval_seconds":15.0,"master_info":{"address":{"hostname":"localhost","ip":"127.0.0.1","port":5050},"capabilities":[{"type":"AGENT_UPDATE"}],"hostname":"localhost","id":"m","ip":16777343,"pid":"master@127.0.0.1:5050","port":5050,"version":"1.11.0"}},"type":"SUBSCRIBED"}"#,
    r#"{"offers":{"offers":[{"agent_id":{"value":"S0"},"allocation_info":{"role":"*"},"attributes":[{"name":"rack","text":{"value":"r1"},"type":"TEXT"}],"framework_id":{"value":"f"},"hostname":"h","id":{"value":"O0"},"resources":[{"allocation_info":{"role":"*"},"name":"cpus","scalar":{"value":2.0},"type":"SCALAR"},{"name":"ports","ranges":{"range":[{"begin":31000,"end":31999}]},"type":"RANGES","reservations":[{"role":"ops","type":"STATIC"}]},{"name":"set","set":{"item":["a"]},"type":"SET"}],"url":{"address":{"ip":"127.0.0.1","port":5051},"path":"\/slave(1)","scheme":"http"}}]},"type":"OFFERS"}"#,
    r#"{"type":"UPDATE","update":{"status":{"agent_id":{"value":"S0"},"container_status":{"container_id":{"parent":{"value":"p"},"value":"c"},"network_infos":[{"ip_addresses":[{"ip_address":"1.2.3.4"}]}]},"data":"AAEC","executor_id":{"value":"e"},"healthy":true,"reason":"REASON_RECONCILIATION","source":"SOURCE_EXECUTOR","state":"TASK_RUNNING","task_id":{"value":"t"},"timestamp":1.6e9,"uuid":"7YaVd5muQ9aLpXGyxhC8Ww=="}}}"#,
    r#"{"failure":{"agent_id":{"value":"S0"},"executor_id":{"value":"e"},"status":9},"type":"FAILURE"}"#,
    r#"{"message":{"agent_id":{"value":"S0"},"data":"cGluZw==","executor_id":{"value":"e"}},"type":"MESSAGE"}"#,
    r#"{"inverse_offers":{"inverse_offers":[{"inverse_offer_id":{"value":"O"},"unavailability":{"start":{"nanoseconds":1}}}]},"type":"INVERSE_OFFERS"}"#,
    r#"{"rescind":{"offer_id":{"value":"O0"}},"type":"RESCIND"}"#,
    r#"{"error":{"message":"Framework failed over"},"type":"ERROR"}"#,
    r#"{"type":"HEARTBEAT"}"#,
    r#"{"launch":{"task":{"agent_id":{"value":"S0"},"command":{"environment":{"variables":[{"name":"A","value":"b"}]},"shell":true,"value":"sleep 1"},"limits":{"mem":{"value":64.0}},"name":"t","resources":[],"task_id":{"value":"t"}}},"type":"LAUNCH"}"#,
    r#"{"launch_group":{"task_group":{"tasks":[{"agent_id":{"value":"S0"},"command":{"shell":false,"value":"/x","arguments":["x","y"]},"container":{"docker":{"image":"i","network":"BRIDGE","port_mappings":[{"container_port":80,"host_port":31000}]},"type":"DOCKER"},"name":"t","task_id":{"value":"t"}}]}},"type":"LAUNCH_GROUP"}"#,
    r#"{"acknowledged":{"task_id":{"value":"t"},"uuid":"7YaVd5muQ9aLpXGyxhC8Ww=="},"type":"ACKNOWLEDGED"}"#,
    r#"{"subscribed":{"agent_info":{"hostname":"h","id":{"value":"S0"}},"executor_info":{"executor_id":{"value":"e"}},"framework_info":{"capabilities":[{"type":"TASK_KILLING_STATE"}],"name":"n","user":"u"}},"type":"SUBSCRIBED"}"#,
    r#"{"kill":{"kill_policy":{"grace_period":{"nanoseconds":5000000000}},"task_id":{"value":"t"}},"type":"KILL"}"#,
];

const NODE: &str = r#"{"address":{"hostname":"m1","ip":"10.0.0.7","port":5050},"capabilities":[],"hostname":"m1","id":"1f","ip":117440522,"pid":"master@10.0.0.7:5050","port":5050,"version":"1.11.0"}"#;

const ADDRESSES: &[&str] = &[
    "zk://user:secret@a:2181,b:2181/mesos",
    "10.0.0.1:5050,10.0.0.2:5050",
    "https://m.example:5050/prefix",
    "//localhost:5051/api/v1/scheduler",
    "http://[::1]:5050/",
    "json.info_0000000012",
];

/// What JSON, numbers and addresses break at.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "0.1",
    "\\u0000",
    "\\ud800",
    "\u{ff}",
    "\n",
    "\0",
    "/",
    "@",
    "//",
    "%",
    "type",
    "value",
    "é",
    "99999999999999999999\n",
    "4294967295",
    "::",
];

/// Spoils bytes in a few places.
fn spoil(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(0..6) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            3 => bytes
                .splice(at..at, random.choice(TOKENS).map(|token| token.as_bytes()).unwrap().iter().copied())
                .for_each(drop),
            4 => drop(bytes.drain(at..(at + random.usize(0..20)).min(bytes.len()))),
            _ => {
                let end = (at + random.usize(0..40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again).for_each(drop);
            }
        }
    }
}

/// Decodes a stream in random pieces; the records that were read.
fn decode(random: &mut fastrand::Rng, stream: &[u8]) -> usize {
    let (mut decoder, mut rest, mut records) = (Decoder::new(4096), stream, 0);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
        decoder.push(chunk);
        rest = after;
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => {
                    records += 1;
                    assert!(record.len() <= 4096);
                    drop(scheduler::Event::read(record));
                }
                Ok(None) => break,
                Err(_) => return records,
            }
        }
    }
    records
}

/// One case; what it was made from.
fn case(random: &mut fastrand::Rng) {
    let event = *random.choice(EVENTS).unwrap();
    match random.u8(0..5) {
        0 => {
            let mut stream: Vec<u8> = (0..random.usize(1..4)).flat_map(|_| encode(event.as_bytes())).collect();
            spoil(random, &mut stream);
            decode(random, &stream);
        }
        1 => {
            let mut bytes = event.as_bytes().to_vec();
            spoil(random, &mut bytes);
            if let Ok(event) = scheduler::Event::read(&bytes) {
                drop(format!("{event:?}"));
            }
        }
        2 => {
            let mut bytes = event.as_bytes().to_vec();
            spoil(random, &mut bytes);
            if let Ok(event) = executor::Event::read(&bytes) {
                drop(format!("{event:?}"));
            }
        }
        3 => {
            let mut bytes = NODE.as_bytes().to_vec();
            spoil(random, &mut bytes);
            if let Ok(info) = node::read(&bytes) {
                for tls in [false, true] {
                    if let Ok(url) = node::url(&info, tls) {
                        assert!(url.has_host() && url.path() == "/", "{url}");
                    }
                }
            }
        }
        _ => {
            let mut bytes = random.choice(ADDRESSES).unwrap().as_bytes().to_vec();
            spoil(random, &mut bytes);
            let text = String::from_utf8_lossy(&bytes);
            if let Err(error) = text.parse::<Masters>() {
                drop(error.to_string());
            }
            let base = "https://a:5050/prefix".parse().unwrap();
            if let Ok(url) = redirected(&base, "/api/v1/scheduler", &text) {
                assert!(url.scheme() == "https" && url.has_host() && url.password().is_none(), "{url}");
            }
            assert!(node::leader([text.as_ref(), "json.info_0000000001"]).is_some());
        }
    }
}

#[test]
fn nothing_that_comes_in_makes_it_panic() {
    let (cases, first) = (setting("SETPOINT_CASES", 20_000), setting("SETPOINT_SEED", 1));
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (first + thread..first + cases).step_by(threads as usize) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut fastrand::Rng::with_seed(seed))));
                    assert!(outcome.is_ok(), "it panicked; again with SETPOINT_SEED={seed} SETPOINT_CASES=1");
                }
            });
        }
    });
    eprintln!("{cases} cases from seed {first} on, no panic");
}
