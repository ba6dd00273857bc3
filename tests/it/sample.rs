//! Figures of containers: exact on recorded answers, and beside `docker stats` on a genuine engine.

mod engine;

use serde::Deserialize;
use serde_json::Value;
use setpoint::core::model::TaskStats;
use setpoint::sample::{CpuMeter, EngineAnswer};

use crate::support;

/// Figures as `docker stats` prints them, from an answer that has the engine's reading before in it.
fn figures(answer: &EngineAnswer) -> Option<TaskStats> {
    let mut meter = CpuMeter::default();
    if let Some(before) = answer.before() {
        meter.read(before.used, before.machine, before.cores);
    }
    answer.reading().map(|reading| reading.figures(&mut meter))
}

fn percent(value: f64) -> String {
    format!("{value:.2}%")
}

/// Bytes with units of 1024 and four figures, as `docker stats` prints memory.
fn binary(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let (mut value, mut at) = (bytes as f64, 0);
    while value >= 1024.0 && at + 1 < units.len() {
        value /= 1024.0;
        at += 1;
    }
    // Four significant figures, without zeros at the end.
    let digits = 3_usize.saturating_sub(value.abs().log10().floor().max(0.0) as usize);
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[at])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    answer: EngineAnswer,
    running: bool,
    cpu: Option<String>,
    memory: Option<u64>,
    memory_percent: Option<String>,
    network: Option<(u64, u64)>,
    block: Option<(u64, u64)>,
    pids: Option<u64>,
    /// For the reader of the file.
    #[serde(rename = "note")]
    _note: String,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            answer: EngineAnswer::default(),
            running: true,
            cpu: None,
            memory: None,
            memory_percent: None,
            network: None,
            block: None,
            pids: None,
            _note: String::new(),
        }
    }
}

#[test]
fn answers_of_both_versions_of_control_groups_are_read_exactly() {
    let text = include_str!("sample/answers.json");
    let cases: std::collections::BTreeMap<String, Case> = serde_json::from_str(text).unwrap();
    for (name, case) in cases {
        let Some(stats) = figures(&case.answer) else {
            assert!(!case.running, "{name}");
            continue;
        };
        assert!(case.running, "{name}");
        assert_eq!(stats.cpu_percent.map(percent), case.cpu, "{name}");
        assert_eq!(stats.memory_bytes, case.memory, "{name}");
        let share =
            stats.memory_bytes.zip(stats.memory_limit).map(|(used, limit)| percent(used as f64 / limit as f64 * 100.0));
        assert_eq!(share, case.memory_percent, "{name}");
        assert_eq!(stats.network_received.zip(stats.network_sent), case.network, "{name}");
        assert_eq!(stats.block_read.zip(stats.block_written), case.block, "{name}");
        assert_eq!(stats.pids, case.pids, "{name}");
    }
}

/// What `docker stats` printed for containers of the recording in `docker-stats.json`, and by the formula of its
/// source where it was not asked at the same moment.
const PRINTED: &[(&str, Option<&str>, Option<&str>)] = &[
    ("idle", Some("0.00%"), Some("328KiB / 64MiB")),
    ("cpu_burning_cpus_0.5", None, Some("332KiB / 64MiB")),
    ("memory_anon_30MB_limit_64m", Some("0.00%"), Some("30.34MiB / 64MiB")),
    ("memory_pagecache_inactive_40MB_limit_64m", None, Some("1.289MiB / 64MiB")),
    ("memory_tmpfs_30MB_limit_64m", None, Some("31.26MiB / 64MiB")),
    ("multi_cpu_1.5_two_networks_pids_limit_50", None, Some("792KiB / 32MiB")),
    ("no_limits", Some("0.00%"), Some("324KiB / 23.54GiB")),
];

#[test]
fn recorded_answers_of_an_engine_give_what_docker_stats_printed() {
    let Some(path) = support::data("docker-stats.json") else {
        eprintln!("skipped: SETPOINT_TEST_DATA has no docker-stats.json");
        return;
    };
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let answer = |name: &str| serde_json::from_value::<EngineAnswer>(recorded[name].clone()).unwrap();
    for (name, cpu, memory) in PRINTED {
        let stats = figures(&answer(name)).unwrap();
        let printed = |bytes: Option<u64>| binary(bytes.unwrap());
        let shown = format!("{} / {}", printed(stats.memory_bytes), printed(stats.memory_limit));
        if let Some(memory) = memory {
            assert_eq!(shown, *memory, "{name}");
        }
        if let Some(cpu) = cpu {
            assert_eq!(percent(stats.cpu_percent.unwrap()), *cpu, "{name}");
        }
    }
    let mut seen = 0;
    for (name, value) in recorded.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with('_')) {
        let stats = figures(&answer(name));
        if name.starts_with("not_running") {
            assert_eq!(stats, None, "{name}");
            continue;
        }
        let stats = stats.unwrap();
        let number = |path: &str| value.pointer(path).and_then(Value::as_u64);
        // The formula of the command's source, on the raw numbers.
        let delta = |key: &str| Some(number(&format!("/cpu_stats/{key}"))? - number(&format!("/precpu_stats/{key}"))?);
        let expected = delta("system_cpu_usage").map(|machine| {
            let used = delta("cpu_usage/total_usage").unwrap();
            used as f64 / machine as f64 * number("/cpu_stats/online_cpus").unwrap() as f64 * 100.0
        });
        assert_eq!(stats.cpu_percent, expected, "{name}");
        assert_eq!(name.ends_with("oneshot"), expected.is_none(), "{name}: an answer without a reading before");
        let idle = number("/memory_stats/stats/total_inactive_file").unwrap();
        assert_eq!(stats.memory_bytes, Some(number("/memory_stats/usage").unwrap() - idle), "{name}");
        assert_eq!(stats.pids, number("/pids_stats/current"), "{name}");
        assert_eq!(stats.network_received.is_none(), name == "host_network", "{name}");
        assert_eq!((stats.block_read, stats.block_written), (Some(0), Some(0)), "{name}");
        seen += 1;
    }
    assert!(seen >= 12, "{seen} answers");
}
