//! How far a run has come, on a terminal and only when it takes a while.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::term;

/// Ticks between two looks at the clock.
const EVERY: u32 = 2048;

/// Runs that are over sooner show nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often the line is written anew.
const PACE: Duration = Duration::from_millis(100);

/// Columns of the bar.
const COLUMNS: usize = 30;

/// One run's progress. The line is gone when this is.
#[derive(Debug)]
pub(super) struct Progress {
    name: String,
    whole: Duration,
    /// When the line is due; none where nobody looks.
    due: Option<Instant>,
    ticks: u32,
    shown: bool,
}

impl Progress {
    /// For a run of that length.
    pub(super) fn new(name: &str, whole: Duration) -> Self {
        let due = std::io::stderr().is_terminal().then(|| Instant::now() + PATIENCE);
        Self { name: name.to_owned(), whole, due, ticks: 0, shown: false }
    }

    /// The run has come so far.
    pub(super) fn at(&mut self, at: Duration) {
        let Some(due) = self.due else { return };
        self.ticks += 1;
        if !self.ticks.is_multiple_of(EVERY) {
            return;
        }
        let now = Instant::now();
        if due <= now {
            self.due = Some(now + PACE);
            self.shown = true;
            term::status(&line(&self.name, at, self.whole));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            term::status("");
        }
    }
}

fn line(name: &str, at: Duration, whole: Duration) -> String {
    let share = at.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
    let share = share.clamp(0.0, 1.0);
    let full = (share * COLUMNS as f64) as usize;
    format!("{name} {}{} {:3.0} %", "█".repeat(full), "░".repeat(COLUMNS - full), share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_up() {
        let second = Duration::from_secs(1);
        assert_eq!(line("web", Duration::ZERO, second), format!("web {}   0 %", "░".repeat(30)));
        assert_eq!(line("web", second / 2, second), format!("web {}{}  50 %", "█".repeat(15), "░".repeat(15)));
        assert_eq!(line("web", second * 2, second), format!("web {} 100 %", "█".repeat(30)));
        assert_eq!(line("web", Duration::ZERO, Duration::ZERO), format!("web {}   0 %", "░".repeat(30)));
    }
}
