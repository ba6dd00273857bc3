//! A container's control group: which files hold its counters, and what they say, on version 1 and 2.
//!
//! Found through the container's first process: `/proc/PID/cgroup` names its groups, `/proc/self/mountinfo` says
//! where they are seen. What is read here is what the engine would read for its own answer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::engine::without_idle;
use super::files::Kept;
use super::{CpuReading, Machine, Reading};
use crate::core::model::TaskStats;

/// Files of version 1 in which bytes of block devices may be counted, the usual one first.
const BLOCK_FILES: &[&str] = &[
    "blkio.throttle.io_service_bytes_recursive",
    "blkio.throttle.io_service_bytes",
    "blkio.bfq.io_service_bytes_recursive",
];

/// The files of one running container.
#[derive(Debug)]
pub struct ContainerFiles {
    layout: Layout,
    cpu: Kept,
    memory: Kept,
    memory_limit: Kept,
    memory_stat: Kept,
    pids: Option<Kept>,
    block: Option<Kept>,
    network: Option<Kept>,
}

/// Which version of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// A hierarchy for each controller.
    V1,
    /// One for all.
    V2,
}

impl ContainerFiles {
    /// The files of the container `id` (in full) whose first process is `pid`; its network's, too, when it has one
    /// of its own.
    ///
    /// # Errors
    /// There is no such process here, or it is not in a group of this container, or the group cannot be seen.
    pub fn find(id: &str, pid: u32, own_network: bool) -> io::Result<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let network = own_network.then(|| PathBuf::from(format!("/proc/{pid}/net/dev")));
        Self::among(&groups, &mounts, id, network).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn among(groups: &str, mounts: &str, id: &str, network: Option<PathBuf>) -> Option<Self> {
        let folder = |controller: &str| {
            let (kind, option) = if controller.is_empty() { ("cgroup2", "") } else { ("cgroup", controller) };
            mounted_at(mounts, kind, option, own_group(groups, controller, id)?).filter(|folder| folder.is_dir())
        };
        let network = network.map(Kept::new);
        let file = |folder: &Path, name: &str| Kept::new(folder.join(name));
        let existing = |folder: &Path, name: &str| Some(folder.join(name)).filter(|path| path.exists()).map(Kept::new);
        if let (Some(cpu), Some(memory)) = (folder("cpuacct"), folder("memory")) {
            let block = folder("blkio");
            return Some(Self {
                layout: Layout::V1,
                cpu: file(&cpu, "cpuacct.usage"),
                memory: file(&memory, "memory.usage_in_bytes"),
                memory_limit: file(&memory, "memory.limit_in_bytes"),
                memory_stat: file(&memory, "memory.stat"),
                pids: folder("pids").and_then(|folder| existing(&folder, "pids.current")),
                block: block.and_then(|folder| BLOCK_FILES.iter().find_map(|name| existing(&folder, name))),
                network,
            });
        }
        let folder = folder("").filter(|folder| folder.join("memory.current").exists())?;
        Some(Self {
            layout: Layout::V2,
            cpu: file(&folder, "cpu.stat"),
            memory: file(&folder, "memory.current"),
            memory_limit: file(&folder, "memory.max"),
            memory_stat: file(&folder, "memory.stat"),
            pids: existing(&folder, "pids.current"),
            block: existing(&folder, "io.stat"),
            network,
        })
    }

    /// Reads all of them. `machine` is the machine's CPU time and its cores.
    ///
    /// # Errors
    /// The container has ended, or the files say something else than expected.
    pub fn read(&mut self, machine: (u64, u32), limits: &Machine, buffer: &mut Vec<u8>) -> io::Result<Reading> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (used, idle) = match self.layout {
            Layout::V1 => (self.cpu.number(buffer)?, "total_inactive_file"),
            Layout::V2 => {
                let micros = counter(self.cpu.read(buffer)?, "usage_usec").ok_or_else(invalid)?;
                (micros.saturating_mul(1000), "inactive_file")
            }
        };
        let usage = self.memory.number(buffer)?;
        let idle = counter(self.memory_stat.read(buffer)?, idle);
        // `max`, or a number beyond what there is.
        let limit = self.memory_limit.read(buffer)?.trim().parse().unwrap_or(u64::MAX).min(limits.memory());
        let block = match &mut self.block {
            Some(file) => Some(block_bytes(file.read(buffer)?, self.layout)),
            None => None,
        };
        let network = match &mut self.network {
            Some(file) => network_bytes(file.read(buffer)?),
            None => None,
        };
        let pids = self.pids.as_mut().map(|file| file.number(buffer)).transpose()?;
        let stats = TaskStats {
            cpu_percent: None,
            memory_bytes: Some(without_idle(usage, idle)),
            memory_limit: Some(limit).filter(|limit| *limit != u64::MAX),
            network_received: network.map(|(received, _)| received),
            network_sent: network.map(|(_, sent)| sent),
            block_read: block.map(|(read, _)| read),
            block_written: block.map(|(_, written)| written),
            pids,
        };
        let (machine, cores) = machine;
        Ok(Reading { cpu: Some(CpuReading { used, machine, cores }), stats })
    }
}

/// The path of the container's own group in the hierarchy of a controller (`""` is version 2's), from the text of
/// `/proc/PID/cgroup`. A process may be in a group below it (an init system in the container makes such).
fn own_group<'a>(groups: &'a str, controller: &str, id: &str) -> Option<&'a str> {
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    })?;
    if id.is_empty() {
        return None;
    }
    let from = path.find(id)? + id.len();
    let end = path[from..].find('/').map_or(path.len(), |slash| from + slash);
    Some(&path[..end])
}

/// Where a group of a hierarchy is seen in the file system, from the text of `/proc/self/mountinfo` (proc(5));
/// `kind` is `cgroup` with a controller as `option`, or `cgroup2` with none.
#[must_use]
pub fn mounted_at(mounts: &str, kind: &str, option: &str, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let (mount, file_system): (Vec<&str>, Vec<&str>) =
            (mount.split(' ').collect(), file_system.split(' ').collect());
        let matches = *file_system.first()? == kind
            && (option.is_empty() || file_system.get(2)?.split(',').any(|given| given == option));
        let below = Path::new(path).strip_prefix(mount.get(3)?).ok()?;
        matches.then(|| Path::new(mount.get(4).copied().unwrap_or_default()).join(below))
    })
}

/// One counter of a file with a name and a number on each line.
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Bytes read and written over all devices.
fn block_bytes(text: &str, layout: Layout) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    let mut add = |name: &str, bytes: Option<u64>| {
        let bytes = bytes.unwrap_or(0);
        match name {
            "Read" | "rbytes" => sums.0 = sums.0.saturating_add(bytes),
            "Write" | "wbytes" => sums.1 = sums.1.saturating_add(bytes),
            _ => {}
        }
    };
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(1);
        match layout {
            // `8:0 Read 4096`; the line with the sum of all devices has two words only.
            Layout::V1 => {
                if let (Some(name), Some(bytes)) = (words.next(), words.next()) {
                    add(name, bytes.parse().ok());
                }
            }
            // `8:0 rbytes=4096 wbytes=0 …`
            Layout::V2 => words.filter_map(|word| word.split_once('=')).for_each(|(name, n)| add(name, n.parse().ok())),
        }
    }
    sums
}

/// Bytes received and sent over all interfaces but the loopback one, from the text of `/proc/PID/net/dev`; none
/// without an interface.
fn network_bytes(text: &str) -> Option<(u64, u64)> {
    let interfaces = text.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse().unwrap_or(0_u64));
        // Eight numbers of what was received, eight of what was sent; bytes come first.
        (name.trim() != "lo").then_some((numbers.next()?, numbers.nth(7)?))
    });
    interfaces.reduce(|sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4c777ab8a652548a8f819caaa7cdcd6dec94b698489384749491f775eb1780eb";

    #[test]
    fn the_group_is_the_containers_own() {
        let v1 =
            format!("9:name=systemd:/docker/{ID}\n4:memory:/docker/{ID}\n2:cpu,cpuacct:/a:b/{ID}/init.scope\n0::/");
        assert_eq!(own_group(&v1, "memory", ID), Some(format!("/docker/{ID}").as_str()));
        assert_eq!(own_group(&v1, "cpuacct", ID), Some(format!("/a:b/{ID}").as_str()));
        assert_eq!(own_group(&v1, "pids", ID), None);
        assert_eq!(own_group(&v1, "", ID), None, "in the root group of version 2");
        let v2 = format!("0::/system.slice/docker-{ID}.scope/init");
        assert_eq!(own_group(&v2, "", ID), Some(format!("/system.slice/docker-{ID}.scope").as_str()));
        // Another process that happens to have the number, and no id at all.
        assert_eq!(own_group("0::/user.slice/session-1.scope", "", ID), None);
        assert_eq!(own_group(&v2, "", ""), None);
    }

    #[test]
    fn counters_of_both_versions() {
        assert_eq!(counter("cache 5\ninactive_file 7\ntotal_inactive_file 9\n", "total_inactive_file"), Some(9));
        assert_eq!(counter("inactive_file_x 7\ninactive_file 8\n", "inactive_file"), Some(8));
        assert_eq!(counter("", "usage_usec"), None);
        let v1 = "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 9\n8:0 Total 4608\n8:16 Read 1\nTotal 4609\n";
        assert_eq!(block_bytes(v1, Layout::V1), (4097, 512));
        assert_eq!(block_bytes("Total 0\n", Layout::V1), (0, 0));
        let v2 = "8:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n253:0 rbytes=1 wbytes=x\n254:0 \n";
        assert_eq!(block_bytes(v2, Layout::V2), (4097, 512));
    }

    #[test]
    fn bytes_of_all_interfaces_but_loopback() {
        let head = "Inter-|   Receive  |  Transmit\n face |bytes packets\n";
        let lo = "    lo:    900 12 0 0 0 0 0 0    900 12 0 0 0 0 0 0\n";
        let eth = "  eth0:    1112      12    0    0    0     0          0         0   50 1    0    0    0     0       0   0\n";
        let near = "eth1:8 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(&format!("{head}{lo}{eth}{near}")), Some((1120, 59)));
        assert_eq!(network_bytes(&format!("{head}{lo}")), None);
        assert_eq!(network_bytes(""), None);
    }

    /// A folder with the files of a version, and the mount table that shows it.
    fn tree(layout: Layout, files: &[(&str, &str, &str)]) -> (tempfile::TempDir, String) {
        let root = tempfile::tempdir().unwrap();
        let mut mounts = String::new();
        for (controller, name, text) in files {
            let mount = root.path().join(controller);
            let folder = mount.join(format!("docker/{ID}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), text).unwrap();
            let (kind, option) = match layout {
                Layout::V1 => ("cgroup", *controller),
                Layout::V2 => ("cgroup2", ""),
            };
            mounts += &format!("30 20 0:26 / {} rw - {kind} {kind} rw,{option}\n", mount.display());
        }
        (root, mounts)
    }

    #[test]
    fn a_group_of_version_1_is_read() {
        let (_root, mounts) = tree(
            Layout::V1,
            &[
                ("cpuacct", "cpuacct.usage", "1500000000\n"),
                ("memory", "memory.usage_in_bytes", "1843200\n"),
                ("memory", "memory.limit_in_bytes", "67108864\n"),
                ("memory", "memory.stat", "inactive_file 1\ntotal_inactive_file 1507328\n"),
                ("blkio", "blkio.throttle.io_service_bytes", "8:0 Write 512\nTotal 512\n"),
                ("pids", "pids.current", "3\n"),
            ],
        );
        let groups =
            format!("4:memory:/docker/{ID}\n3:cpuacct:/docker/{ID}\n2:blkio:/docker/{ID}\n1:pids:/docker/{ID}\n");
        let mut files = ContainerFiles::among(&groups, &mounts, ID, None).unwrap();
        let reading = files.read((7, 2), &Machine::new(), &mut Vec::new()).unwrap();
        assert_eq!(reading.cpu, Some(CpuReading { used: 1_500_000_000, machine: 7, cores: 2 }));
        let expected = TaskStats {
            memory_bytes: Some(335_872),
            memory_limit: Some(64 << 20),
            block_read: Some(0),
            block_written: Some(512),
            pids: Some(3),
            ..TaskStats::default()
        };
        assert_eq!(reading.stats, expected);
        // A process in groups of another container, or whose groups cannot be seen.
        assert!(ContainerFiles::among(&groups, &mounts, &ID.replace('4', "5"), None).is_none());
        assert!(ContainerFiles::among(&groups, "", ID, None).is_none());
    }

    #[test]
    fn a_group_of_version_2_is_read() {
        let (_root, mounts) = tree(
            Layout::V2,
            &[
                ("u", "cpu.stat", "usage_usec 1500000\nuser_usec 9\n"),
                ("u", "memory.current", "1843200\n"),
                ("u", "memory.max", "max\n"),
                ("u", "memory.stat", "anon 5\ninactive_file 1507328\n"),
                ("u", "io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n"),
            ],
        );
        let mut files = ContainerFiles::among(&format!("0::/docker/{ID}\n"), &mounts, ID, None).unwrap();
        let machine = Machine::new();
        let reading = files.read((7, 2), &machine, &mut Vec::new()).unwrap();
        assert_eq!(reading.cpu.map(|cpu| cpu.used), Some(1_500_000_000));
        let expected = TaskStats {
            memory_bytes: Some(335_872),
            memory_limit: Some(machine.memory()),
            block_read: Some(10),
            block_written: Some(20),
            ..TaskStats::default()
        };
        assert_eq!(reading.stats, expected);
    }
}
