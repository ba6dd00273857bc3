//! Figures beside what `/proc` says of the same processes over the same time.
//!
//! A figure is a share of CPU between two readings that nobody here has seen, so a window of several figures in a row is
//! held against `/proc` at its two ends. On a machine that does other things as well the ends do not match exactly: windows
//! are tried until one agrees, which none does for a figure that counts other processes or in another unit. With
//! `SETPOINT_WINDOW`, on a machine that does nothing else, it is the median of all windows that has to.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::support::{GENEROUS, setting, wait_until};

/// How far a figure may be from the truth, as a part of it.
const WITHIN: f64 = 0.05;

/// Figures in a window.
const FIGURES: usize = 4;

/// Windows that are tried.
const WINDOWS: usize = 10;

/// The processes that a figure is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    /// A process and all that descend from it: what Mesos counts for an executor.
    Tree(i32),
    /// The same with the children that they have waited for: what a control group counts for a container.
    Container(i32),
    /// A process group with the children that it has waited for: what our executor counts for a task.
    Group(i32),
}

/// A share of a core in percent, and bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) cpu: f64,
    pub(super) memory: f64,
}

#[derive(Clone, Copy, Debug)]
struct Stat {
    parent: i32,
    group: i32,
    /// Ticks of its own, and of the children that it has waited for.
    ticks: (f64, f64),
    pages: f64,
}

/// What some processes have used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    at: Instant,
    cpu_secs: f64,
    pub(super) memory: f64,
}

/// The program that Mesos has started for an executor: the ancestor of one of its processes that is the agent's own child.
pub(super) fn container(process: i32, agents: &[i32]) -> i32 {
    let all = all();
    let mut at = process;
    loop {
        let parent = all.get(&at).unwrap_or_else(|| panic!("process {at} of {process} is there")).parent;
        if agents.contains(&parent) {
            return at;
        }
        at = parent;
    }
}

/// What each of them has used so far, from one look.
pub(super) fn used(whose: &[Whose]) -> Vec<Used> {
    let (at, all) = (Instant::now(), all());
    let second = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    let sum = |whose: &Whose| {
        let members = all.iter().filter(|(pid, stat)| match *whose {
            Whose::Tree(root) | Whose::Container(root) => descends(&all, **pid, root),
            Whose::Group(group) => stat.group == group,
        });
        let (ticks, pages) = members.fold((0.0, 0.0), |(ticks, pages), (_, stat)| {
            let of_children = if matches!(whose, Whose::Tree(_)) { 0.0 } else { stat.ticks.1 };
            (ticks + stat.ticks.0 + of_children, pages + stat.pages)
        });
        Used { at, cpu_secs: ticks / second, memory: pages * page }
    };
    whose.iter().map(sum).collect()
}

fn descends(all: &BTreeMap<i32, Stat>, mut pid: i32, root: i32) -> bool {
    while pid != root {
        match all.get(&pid) {
            Some(stat) if stat.parent != pid => pid = stat.parent,
            _ => return false,
        }
    }
    true
}

fn all() -> BTreeMap<i32, Stat> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
        let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let stat = Stat {
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            ticks: (number(11)? + number(12)?, number(13)? + number(14)?),
            pages: number(21)?,
        };
        Some((pid, stat))
    })
    .collect()
}

/// Waits until each source agrees with `/proc` over a window. `so_far` gives every figure that each of them has had.
pub(super) async fn agree(sources: &[(&str, Whose)], mut so_far: impl AsyncFnMut() -> Vec<Vec<Figure>>) {
    let whose: Vec<Whose> = sources.iter().map(|(_, whose)| *whose).collect();
    // Of each source how far it was from the truth in each window.
    let mut off: Vec<Vec<(f64, f64)>> = vec![Vec::new(); sources.len()];
    let thorough = setting("SETPOINT_WINDOW", 0) > 0;
    for window in 1..=WINDOWS {
        let before: Vec<usize> = so_far().await.iter().map(Vec::len).collect();
        let from = used(&whose);
        let seen = wait_until(GENEROUS, "there is a window of figures", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let seen = so_far().await;
            seen.iter().zip(&before).all(|(seen, before)| before + FIGURES <= seen.len()).then_some(seen)
        })
        .await;
        let to = used(&whose);
        for (at, (what, _)) in sources.iter().enumerate() {
            let figures = &seen[at][before[at]..];
            let n = figures.len() as f64;
            let (cpu, memory) = figures.iter().fold((0.0, 0.0), |sum, f| (sum.0 + f.cpu / n, sum.1 + f.memory / n));
            let took = to[at].at.duration_since(from[at].at).as_secs_f64();
            let true_cpu = 100.0 * (to[at].cpu_secs - from[at].cpu_secs) / took;
            let true_memory = f64::midpoint(from[at].memory, to[at].memory);
            let by = (cpu / true_cpu - 1.0, memory / true_memory - 1.0);
            eprintln!(
                "{what}, window {window}: {cpu:.2} % of a core, /proc has {true_cpu:.2} %: {:+.1} %; {:.2} MB, /proc has \
                 {:.2} MB: {:+.1} %",
                100.0 * by.0,
                memory / 1e6,
                true_memory / 1e6,
                100.0 * by.1
            );
            off[at].push((by.0.abs(), by.1.abs()));
        }
        let agrees = |windows: &Vec<(f64, f64)>| match (thorough, windows.len()) {
            (true, WINDOWS) => {
                let of = |part: fn(&(f64, f64)) -> f64| median(windows.iter().map(part).collect());
                of(|(cpu, _)| *cpu) <= WITHIN && of(|(_, memory)| *memory) <= WITHIN
            }
            (true, _) => false,
            (false, _) => windows.iter().any(|(cpu, memory)| *cpu <= WITHIN && *memory <= WITHIN),
        };
        if off.iter().all(agrees) {
            return;
        }
    }
    panic!("in {WINDOWS} windows: {:?}", sources.iter().map(|(what, _)| what).zip(&off).collect::<Vec<_>>());
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
