//! Limits on what a task may use: a control group for each task that asks for `cpus` or `memory`.
//!
//! Best effort: where no control group may be made, tasks run without limits and one warning says so. On
//! version 1 the groups are made inside this program's own. On version 2 a group with processes cannot hand
//! controllers on, so they are made beside this program's own where the folder above is delegated (systemd's
//! `Delegate=` with `DelegateSubgroup=`), or at the true root. Nothing of the host's own grouping is changed.
//!
//! Invariants: a process is in its group before it runs any code of its own; a group is removed after the end
//! of its task; one that cannot be removed stays empty and is harmless.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::logs::file_name;
use crate::core::model::TaskId;
use crate::core::policy::TaskTemplate;
use crate::sample::mounted_at;

/// The folder that holds the groups of all tasks.
const FOLDER: &str = "setpoint";

/// The period in microseconds over which CPU time is rationed, and the kernel's least ration.
const PERIOD: u64 = 100_000;
const LEAST_QUOTA: u64 = 1_000;

/// A group younger than this may be empty because its task is being started.
const NEW: Duration = Duration::from_secs(60);

/// What a hierarchy limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    /// Memory, version 1.
    Memory1,
    /// CPU, version 1.
    Cpu1,
    /// Both, version 2.
    Unified,
}

/// A folder in which groups for tasks can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parent {
    controller: Controller,
    folder: PathBuf,
}

impl Parent {
    fn group_of(&self, id: &TaskId) -> Self {
        Self { controller: self.controller, folder: self.folder.join(FOLDER).join(file_name(id.as_str())) }
    }
}

/// Where limits can be set on this machine.
#[derive(Debug, Default)]
pub(super) struct Limits {
    parents: Vec<Parent>,
    told: AtomicBool,
}

/// The groups of one task, one for each hierarchy.
#[derive(Debug, Default)]
pub(super) struct Group(Vec<Parent>);

impl Limits {
    /// Looks where this program is, makes nothing yet, and clears away what crashed programs left.
    pub(super) fn find() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let parents = parents(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let parents: Vec<Parent> = parents.into_iter().filter_map(usable).collect();
        for parent in &parents {
            sweep(&parent.folder.join(FOLDER));
        }
        Self { parents, told: AtomicBool::new(false) }
    }

    /// Makes the groups that a task's limits need; empty when it has none, or none can be set.
    pub(super) fn group(&self, id: &TaskId, template: &TaskTemplate) -> Group {
        if template.cpus.is_none() && template.memory.is_none() {
            return Group::default();
        }
        if self.parents.is_empty() {
            self.tell("no writable control group was found");
        }
        let mut group = Group::default();
        for parent in &self.parents {
            let own = parent.group_of(id);
            match make(parent, &own, template) {
                Ok(true) => group.0.push(own),
                Ok(false) => {}
                Err(error) => self.tell(&format!("{}: {error}", own.folder.display())),
            }
        }
        group
    }

    /// The groups that an earlier run made for a task.
    pub(super) fn existing(&self, id: &TaskId) -> Group {
        Group(self.parents.iter().map(|parent| parent.group_of(id)).filter(|own| own.folder.is_dir()).collect())
    }

    /// Says, once, that limits are not enforced.
    pub(super) fn tell(&self, reason: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, limits_enforced = false, "`cpus` and `memory` of local tasks are not enforced");
        }
    }
}

impl Drop for Limits {
    /// The folders that held the groups go when they are empty; another backend's tasks may still be in them.
    fn drop(&mut self) {
        for parent in &self.parents {
            fs::remove_dir(parent.folder.join(FOLDER)).ok();
        }
    }
}

impl Group {
    /// Files through which a process that writes `0` to them joins the group.
    pub(super) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let open = |own: &Parent| OpenOptions::new().write(true).open(own.folder.join("cgroup.procs"));
        self.0.iter().map(|own| open(own).map(OwnedFd::from)).collect()
    }

    /// Whether a process is in all of them.
    pub(super) fn holds(&self, pid: i32) -> bool {
        let pid = pid.to_string();
        let lists = self.0.iter().map(|own| fs::read_to_string(own.folder.join("cgroup.procs")).unwrap_or_default());
        lists.into_iter().all(|list| list.lines().any(|line| line == pid))
    }

    /// Whether the kernel has killed a process of it for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.0.iter().any(|own| {
            let file = match own.controller {
                Controller::Memory1 => "memory.oom_control",
                Controller::Unified => "memory.events",
                Controller::Cpu1 => return false,
            };
            let text = fs::read_to_string(own.folder.join(file)).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count != "0")
        })
    }

    /// The most memory that the task may use, in bytes; none where it has no limit.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        self.0.iter().find_map(|own| {
            let file = match own.controller {
                Controller::Memory1 => "memory.limit_in_bytes",
                Controller::Unified => "memory.max",
                Controller::Cpu1 => return None,
            };
            fs::read_to_string(own.folder.join(file)).ok()?.trim().parse().ok()
        })
    }

    /// Removes it, once nothing is in it any more.
    pub(super) fn remove(&self) {
        for own in &self.0 {
            if let Err(error) = fs::remove_dir(&own.folder) {
                tracing::debug!(group = %own.folder.display(), %error, "could not remove a task's control group");
            }
        }
    }
}

/// Removes old groups that nothing is in. A new one may be another backend's that its task has yet to enter; one with
/// a process in it cannot be removed.
fn sweep(shared: &Path) {
    let Ok(entries) = fs::read_dir(shared) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|made| made.elapsed().ok());
        if age.is_some_and(|age| NEW < age) {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// Makes a task's group and sets its limits. False when this hierarchy has nothing to limit for it.
fn make(parent: &Parent, own: &Parent, template: &TaskTemplate) -> io::Result<bool> {
    let quota = template.cpus.map(|cpus| ((cpus * PERIOD as f64) as u64).max(LEAST_QUOTA));
    let settings: Vec<(&str, String)> = match own.controller {
        Controller::Memory1 => template.memory.iter().map(|m| ("memory.limit_in_bytes", m.to_string())).collect(),
        Controller::Cpu1 => quota
            .iter()
            .flat_map(|quota| [("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", quota.to_string())])
            .collect(),
        Controller::Unified => {
            let memory = template.memory.iter().map(|memory| ("memory.max", memory.to_string()));
            memory.chain(quota.iter().map(|quota| ("cpu.max", format!("{quota} {PERIOD}")))).collect()
        }
    };
    if settings.is_empty() {
        return Ok(false);
    }
    if own.controller == Controller::Unified {
        let shared = parent.folder.join(FOLDER);
        fs::create_dir_all(&shared)?;
        for folder in [&parent.folder, &shared] {
            fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory")?;
        }
    }
    fs::create_dir_all(&own.folder)?;
    for (file, value) in settings {
        if let Err(error) = fs::write(own.folder.join(file), value) {
            fs::remove_dir(&own.folder).ok();
            return Err(error);
        }
    }
    Ok(true)
}

/// This program's own groups, from `/proc/self/cgroup` and `/proc/self/mountinfo` (cgroups(7), proc(5)).
fn parents(cgroups: &str, mounts: &str) -> Vec<Parent> {
    let mut parents = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let has = |name| controllers.split(',').any(|controller| controller == name);
        let mut add = |controller, kind: &str, option: &str| {
            parents.extend(mounted_at(mounts, kind, option, path).map(|folder| Parent { controller, folder }));
        };
        if has("memory") {
            add(Controller::Memory1, "cgroup", "memory");
        }
        if has("cpu") {
            add(Controller::Cpu1, "cgroup", "cpu");
        }
        if controllers.is_empty() {
            add(Controller::Unified, "cgroup2", "");
        }
    }
    parents
}

/// The folder in which groups may be made, given this program's own group.
fn usable(own: Parent) -> Option<Parent> {
    if own.controller != Controller::Unified {
        return is_writable(&own.folder).then_some(own);
    }
    // Only the true root may have both processes and groups with controllers; it alone has no type.
    let root = !own.folder.join("cgroup.type").exists();
    let folder = if root { own.folder } else { own.folder.parent().filter(|above| is_delegated(above))?.to_path_buf() };
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).ok()?;
    let both = ["cpu", "memory"].iter().all(|name| controllers.split_whitespace().any(|given| given == *name));
    (both && is_writable(&folder)).then_some(Parent { controller: Controller::Unified, folder })
}

/// Whether the service manager has left this group to its service.
fn is_delegated(folder: &Path) -> bool {
    let mut value = [0; 8];
    ["user.delegate", "trusted.delegate"]
        .iter()
        .any(|name| rustix::fs::getxattr(folder, *name, &mut value).is_ok_and(|len| value.get(..len) == Some(b"1")))
}

fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups_are_found_through_their_mounts() {
        let mounts = "\
25 1 0:22 / /proc rw - proc proc rw
30 20 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 20 0:27 /docker/abc /sys/fs/cgroup/memory rw master:9 - cgroup cgroup rw,memory
32 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 20 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
";
        let found = |cgroups| {
            let all = parents(cgroups, mounts).into_iter();
            all.map(|parent| (parent.controller, parent.folder.to_str().unwrap().to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(
            found("9:cpuset:/x\n4:memory:/docker/abc/sub\n3:cpu,cpuacct:/a:b\n0::/own.service\n"),
            [
                (Controller::Memory1, "/sys/fs/cgroup/memory/sub".to_owned()),
                (Controller::Cpu1, "/sys/fs/cgroup/cpu,cpuacct/a:b".to_owned()),
                (Controller::Unified, "/sys/fs/cgroup/unified/own.service".to_owned()),
            ]
        );
        // A group above what is mounted here cannot be seen.
        assert_eq!(found("4:memory:/docker/other\n\nnonsense\n"), []);
    }
}
