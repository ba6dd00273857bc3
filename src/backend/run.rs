//! Which process a run is, so that a later one on the same machine can tell whether it is still there.

use std::fs;

/// A process, by what no other one has: the machine's boot, the space of process ids, its id there, its start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) struct Run {
    boot: String,
    space: String,
    pid: u32,
    start: String,
}

impl Run {
    /// This process. Without `/proc` there is nothing to tell it by, and nobody will.
    pub(in crate::backend) fn this() -> Self {
        let pid = std::process::id();
        Self { boot: boot(), space: space(), pid, start: start(pid).unwrap_or_default() }
    }

    /// As a label's value.
    pub(in crate::backend) fn label(&self) -> String {
        format!("{}/{}/{}/{}", self.boot, self.space, self.pid, self.start)
    }

    /// Whether the process of this label is certainly over: it was in our boot and our space of process ids, and is not
    /// there any more.
    pub(in crate::backend) fn is_over(&self, label: &str) -> bool {
        let Some([boot, space, pid, other_start]) = parts(label) else { return false };
        let Ok(pid) = pid.parse() else { return false };
        if self.boot.is_empty() || self.space.is_empty() || boot != self.boot || space != self.space {
            return false;
        }
        start(pid).is_none_or(|start| start != other_start)
    }
}

fn parts(label: &str) -> Option<[&str; 4]> {
    label.split('/').collect::<Vec<_>>().try_into().ok()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn space() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// When a living process started, in ticks since the boot.
fn start(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the state follows it, and the start time is the 20th field from there.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?;
    (!matches!(state, "Z" | "X")).then(|| start.to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_over_when_its_process_is() {
        let this = Run::this();
        assert!(!this.is_over(&this.label()), "this one");
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let other = Run { pid: child.id(), start: start(child.id()).unwrap(), ..this.clone() };
        assert!(!this.is_over(&other.label()), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(this.is_over(&other.label()));
        assert!(this.is_over(&Run { start: "1".into(), ..this.clone() }.label()), "its pid is another's by now");
        let elsewhere = Run { space: "pid:[1]".into(), ..other.clone() };
        assert!(!this.is_over(&elsewhere.label()) && !this.is_over("") && !this.is_over("a/b/c/d"), "nobody can know");
    }
}
