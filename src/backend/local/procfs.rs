//! What `/proc` says of processes: pure parsers and the thinnest of readers.
//!
//! Nothing in here keeps state or signals anything. A process that cannot be read (it ended, it belongs to
//! somebody else, there is no `/proc`) is none, never an error: every caller has to cope with a process that
//! ends while it looks.

use std::collections::HashMap;
use std::fs;

/// Names of the environment variables that every local task has besides those of all tasks.
pub(super) mod var {
    /// The mark of the state folder, by which a later run finds its tasks.
    pub(in crate::backend::local) const RUN: &str = "SETPOINT_RUN";
    /// The task's ports as `name=number,…`, by which a later run knows which are taken.
    pub(in crate::backend::local) const PORTS: &str = "SETPOINT_PORTS";
}

/// The name of the thread that starts tasks. The kernel keeps 15 bytes of it, and a child has it until it runs its
/// command.
pub(super) const SPAWNER: &str = "setpoint-spawn";

/// The fields of `/proc/PID/stat` that matter here (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    /// Whether it has the name of the thread that starts tasks: a child of one, between fork and exec.
    pub(super) is_unborn: bool,
    pub(super) ppid: i32,
    pub(super) pgrp: i32,
    state: u8,
    /// Threads, its first one included.
    pub(super) threads: u64,
    /// Clock ticks from boot to the start of the process: with the pid, its identity until the next boot.
    pub(super) start: u64,
    /// CPU time in clock ticks, that of the children it has waited for included.
    ///
    /// With those, the sum over a process group only grows: what a child used moves to its parent when it ends.
    pub(super) ticks: u64,
    /// Resident memory in pages.
    pub(super) rss_pages: u64,
}

impl Stat {
    /// Reads one line in the format of `/proc/PID/stat`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        // The name stands in brackets and may itself hold blanks and brackets: only the last one ends it.
        let (head, rest) = line.rsplit_once(')')?;
        let (pid, name) = head.split_once(" (")?;
        let pid = pid.parse().ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `n` is the field's number in proc(5); the state is field 3.
        let number = |n: usize| fields.get(n - 3)?.parse::<i64>().ok();
        let unsigned = |n: usize| number(n).map(|value| u64::try_from(value).unwrap_or(0));
        Some(Self {
            pid,
            is_unborn: name == SPAWNER,
            ppid: i32::try_from(number(4)?).ok()?,
            pgrp: i32::try_from(number(5)?).ok()?,
            state: *fields.first()?.as_bytes().first()?,
            threads: unsigned(20)?,
            start: fields.get(22 - 3)?.parse().ok()?,
            ticks: (14..=17).map_while(unsigned).sum(),
            rss_pages: unsigned(24)?,
        })
    }

    /// Whether it still runs. A zombie does not, unless only its first thread has ended.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }

    /// Whether it leads its process group, as every task does.
    pub(super) const fn is_leader(&self) -> bool {
        self.pid == self.pgrp
    }
}

/// One process now.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    // The name of a process can be any bytes; the fields after it are ASCII.
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Stat::parse(&String::from_utf8_lossy(&line))
}

/// Every process, zombies included.
pub(super) fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

/// The environment that a process was started with; none when it may not be read.
pub(super) fn environment(pid: i32) -> Option<Environment> {
    fs::read(format!("/proc/{pid}/environ")).ok().map(Environment)
}

/// An environment block: `NAME=value`, each ended by a zero byte.
pub(super) struct Environment(Vec<u8>);

impl Environment {
    /// The value of a variable, if it is there and is text.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self
            .0
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=".as_slice()))?;
        std::str::from_utf8(value).ok()
    }
}

/// Which boot of the machine this is; start times of different boots must not be compared.
pub(super) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// How a process is recognised after a restart: its start time in clock ticks, and the boot that it counts from.
pub(super) fn token(start: u64, boot: &str) -> String {
    format!("{start}@{boot}")
}

/// What a process group uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time in clock ticks.
    pub(super) ticks: u64,
    /// Resident memory in pages. Those that processes of a group share are counted for each of them.
    pub(super) pages: u64,
    /// Processes and threads.
    pub(super) threads: u64,
}

/// What each of these process groups uses, from one pass over `/proc`.
pub(super) fn usage(groups: impl IntoIterator<Item = i32>) -> HashMap<i32, Usage> {
    let mut wanted: HashMap<i32, Option<Usage>> = groups.into_iter().map(|group| (group, None)).collect();
    for stat in all() {
        if let Some(usage) = wanted.get_mut(&stat.pgrp) {
            let usage = usage.get_or_insert_default();
            usage.ticks += stat.ticks;
            usage.pages += stat.rss_pages;
            usage.threads += stat.threads;
        }
    }
    wanted.into_iter().filter_map(|(group, usage)| Some((group, usage?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let line =
            "4242 (a) (b c) S 17 4200 4200 0 -1 4194560 1 2 3 4 50 7 11 13 20 0 3 0 987654 1000 250 184467 1 1 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.ppid, stat.pgrp), (4242, 17, 4200));
        assert_eq!((stat.ticks, stat.start, stat.rss_pages), (50 + 7 + 11 + 13, 987_654, 250));
        assert!(stat.is_alive() && !stat.is_leader() && !stat.is_unborn);
        assert!(Stat::parse(&line.replace("a) (b c", SPAWNER)).unwrap().is_unborn);
        let zombie = Stat::parse(&line.replace(") S", ") Z").replace("20 0 3 0", "20 0 1 0")).unwrap();
        assert!(!zombie.is_alive());
        // The first thread has ended, the others run.
        assert!(Stat::parse(&line.replace(") S", ") Z")).unwrap().is_alive());
        for cut in 0..line.len() - 30 {
            assert_eq!(Stat::parse(&line[..cut]).map(|stat| stat.rss_pages), None, "{}", &line[..cut]);
        }
    }

    #[test]
    fn an_environment_is_searched_by_whole_names() {
        let block = Environment(b"XSETPOINT_RUN=no\0SETPOINT_RUNNER=no\0\xff\xfe\0SETPOINT_RUN=a=b\0EMPTY=\0".to_vec());
        assert_eq!(block.get("SETPOINT_RUN"), Some("a=b"));
        assert_eq!(block.get("EMPTY"), Some(""));
        assert_eq!(block.get("SETPOINT"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = stat(rustix::process::getpid().as_raw_pid()).unwrap();
        assert!(own.is_alive() && own.rss_pages > 0 && own.start > 0);
        assert!(all().iter().any(|stat| (stat.pid, stat.start) == (own.pid, own.start)));
        let usage = usage([own.pgrp, i32::MAX]);
        assert!(
            usage[&own.pgrp].threads >= 1
                && usage[&own.pgrp].pages >= own.rss_pages / 2
                && !usage.contains_key(&i32::MAX)
        );
    }
}
