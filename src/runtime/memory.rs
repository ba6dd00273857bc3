//! Memory that policies leave behind when their VMs go.
//!
//! A VM is some hundred pages of its own. When it goes they are free, but the allocator keeps them: what lives on lies
//! between them, so that the end of the heap is never free, and what comes next does not fit exactly where they were. A
//! folder whose files come and go would grow the process without anything having been leaked. So the allocator is asked,
//! a while after VMs went or came, to give all pages that are free back to the system.
//!
//! Does not decide when: the control loop does, at its chores.

use std::time::Duration;

use tokio::time::Instant;

/// How long after VMs went or came the allocator is asked; more of them may follow.
const SETTLE: Duration = Duration::from_secs(5);

/// Whether there is something to give back, and since when.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    since: Option<Instant>,
}

impl Garbage {
    /// VMs went or came.
    pub(super) fn note(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// True, once, when that was long enough ago.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.since.take_if(|since| *since + SETTLE <= now).is_some()
    }
}

/// Gives pages of the heap that are free back to the system. Takes some milliseconds, in which other threads may wait for
/// memory. Does nothing where the allocator is not glibc's.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "no crate has a safe door to `malloc_trim`")]
    // SAFETY: `malloc_trim` may be called at any time by any thread; it touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_due_once_and_a_while_after_the_first() {
        let start = Instant::now();
        let mut garbage = Garbage::default();
        assert!(!garbage.is_due(start + SETTLE));
        garbage.note(start);
        garbage.note(start + SETTLE / 2);
        assert!(!garbage.is_due(start + SETTLE / 2));
        assert!(garbage.is_due(start + SETTLE));
        assert!(!garbage.is_due(start + SETTLE * 2));
        give_back();
    }
}
