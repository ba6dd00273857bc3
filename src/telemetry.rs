//! What setpoint says of itself: the log's set-up, the words that it uses, and a limit on repetitions.
//!
//! The library only emits `tracing` events; an embedder's own subscriber gets them. Setting one up is for the
//! command line (feature `cli`). Numbers for Prometheus are the HTTP API's business.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Field names of log events: one word for one thing, everywhere.
pub mod field {
    /// A policy's name.
    pub const POLICY: &str = "policy";
    /// A task's id.
    pub const TASK: &str = "task";
    /// A backend's name.
    pub const BACKEND: &str = "backend";
    /// A script's generation.
    pub const GENERATION: &str = "generation";
    /// A function of a script.
    pub const HOOK: &str = "hook";
    /// A file or folder.
    pub const PATH: &str = "path";
    /// What went wrong, as `Display` has it.
    pub const ERROR: &str = "error";
    /// What sort of event it is: one of [`super::event`].
    pub const EVENT: &str = "event";
    /// How many events like it were left out before it.
    pub const SUPPRESSED: &str = "suppressed";
}

/// Values of the field `event`, the same words as on `/v1/events` where both tell of the same thing.
pub mod event {
    /// A policy ticked.
    pub const TICK: &str = "tick";
    /// A decision changed something, or a new reason held it.
    pub const DECISION: &str = "decision";
    /// A task changed its state.
    pub const TASK: &str = "task";
    /// A script was reloaded, or a reload was refused.
    pub const RELOAD: &str = "reload";
    /// A script's function failed.
    pub const ERROR: &str = "error";
    /// A policy appeared, ended, retired or went.
    pub const POLICY: &str = "policy";
    /// A script wrote to its log.
    pub const SCRIPT: &str = "script";
    /// The store failed, or works again.
    pub const STORE: &str = "store";
    /// A backend was lost, or is back.
    pub const BACKEND: &str = "backend";
}

/// How often the same event is told at most.
pub const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Lets each event through at most once in a while and counts the ones in between.
///
/// Keys that were silent for that long are forgotten, so it holds no more than [`RateLimited::CAPACITY`] of them.
#[derive(Debug)]
pub struct RateLimited<K> {
    every: Duration,
    seen: Mutex<HashMap<K, Seen>>,
}

#[derive(Debug)]
struct Seen {
    told: Instant,
    suppressed: u64,
}

impl<K: Hash + Eq + Clone> Default for RateLimited<K> {
    fn default() -> Self {
        Self::new(REPEAT_AFTER)
    }
}

impl<K: Hash + Eq + Clone> RateLimited<K> {
    /// How many keys it remembers; beyond that the one that was told longest ago goes.
    pub const CAPACITY: usize = 1024;

    /// A limiter that tells each event at most once in `every`.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every, seen: Mutex::default() }
    }

    /// Whether an event is to be told now: `Some(n)` when it is, with the number of those that were left out since
    /// the last time; none when it is to be left out.
    pub fn admit(&self, key: K) -> Option<u64> {
        self.admit_at(key, Instant::now())
    }

    /// [`RateLimited::admit`] at a given time.
    pub fn admit_at(&self, key: K, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(&key) {
            if now.saturating_duration_since(entry.told) < self.every {
                entry.suppressed += 1;
                return None;
            }
            entry.told = now;
            return Some(std::mem::take(&mut entry.suppressed));
        }
        if seen.len() >= Self::CAPACITY {
            seen.retain(|_, entry| now.saturating_duration_since(entry.told) < self.every);
        }
        if seen.len() >= Self::CAPACITY {
            let oldest = seen.iter().min_by_key(|(_, entry)| entry.told).map(|(key, _)| key.clone());
            if let Some(key) = oldest {
                seen.remove(&key);
            }
        }
        seen.insert(key, Seen { told: now, suppressed: 0 });
        Some(0)
    }
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs code whose panics are caught and told as errors: the panic hook that [`init`] sets says nothing of them.
pub(crate) fn contain_panics<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    let before = CONTAINED.replace(true);
    // Whoever calls this drops what the code was working on when it panicked.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    CONTAINED.set(before);
    outcome
}

/// Why the log could not be set up.
#[cfg(feature = "cli")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("expected a log filter such as `info,setpoint::script=debug`, got `{filter}`")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Someone has set up a log before.
    #[error("the log has been set up already")]
    Twice,
}

/// Sends the log to standard error: as text, coloured with `ansi`, or as one JSON object a line.
///
/// `filter` is what `tracing` understands (`info,setpoint::script=debug`); without one `verbosity` decides: 0 is
/// information, each `-v` one step more, each `-q` one less. It reads no environment.
///
/// # Errors
/// A filter that cannot be read; a second call.
#[cfg(feature = "cli")]
pub fn init(filter: Option<&str>, verbosity: i8, json: bool, ansi: bool) -> Result<(), TelemetryError> {
    init_to(std::io::stderr, filter, verbosity, json, ansi)
}

/// [`init`] with a writer of the caller's own, for a terminal that shows more than the log.
///
/// # Errors
/// As [`init`].
#[cfg(feature = "cli")]
pub fn init_to<W>(writer: W, filter: Option<&str>, verbosity: i8, json: bool, ansi: bool) -> Result<(), TelemetryError>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::util::SubscriberInitExt as _;

    let directives = filter.unwrap_or_else(|| default_filter(verbosity));
    let filter = EnvFilter::builder()
        .parse(directives)
        .map_err(|source| TelemetryError::Filter { filter: directives.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let set = if json {
        builder.json().flatten_event(true).with_current_span(false).with_ansi(false).finish().try_init()
    } else {
        builder.with_target(false).with_ansi(ansi).finish().try_init()
    };
    set.map_err(|_| TelemetryError::Twice)?;
    let inner = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !CONTAINED.get() {
            inner(panic);
        }
    }));
    Ok(())
}

/// Libraries are one step quieter than setpoint itself.
#[cfg(feature = "cli")]
const fn default_filter(verbosity: i8) -> &'static str {
    match verbosity {
        i8::MIN..=-3 => "off",
        -2 => "error",
        -1 => "warn",
        0 => "warn,setpoint=info",
        1 => "info,setpoint=debug",
        _ => "debug,setpoint=trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_left_out() {
        let limited = RateLimited::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limited.admit_at("a", at(0)), Some(0));
        assert_eq!(limited.admit_at("a", at(1)), None);
        assert_eq!(limited.admit_at("b", at(1)), Some(0), "keys do not share");
        assert_eq!(limited.admit_at("a", at(9)), None);
        assert_eq!(limited.admit_at("a", at(10)), Some(2));
        assert_eq!(limited.admit_at("a", at(11)), None, "the time counts from the last one told");
        assert_eq!(limited.admit_at("a", at(60)), Some(1));
    }

    #[test]
    fn keys_without_end_take_no_memory_without_end() {
        let limited = RateLimited::new(REPEAT_AFTER);
        let start = Instant::now();
        for key in 0..3 * RateLimited::<usize>::CAPACITY {
            assert_eq!(limited.admit_at(key, start + Duration::from_millis(key as u64)), Some(0));
        }
        assert!(limited.seen.lock().unwrap().len() <= RateLimited::<usize>::CAPACITY);
    }

    #[test]
    fn a_contained_panic_is_a_value() {
        let outcome = contain_panics(|| -> u8 { panic!("damaged") });
        assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"damaged"));
        assert!(!CONTAINED.get());
        assert_eq!(contain_panics(|| 7).unwrap(), 7);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn every_verbosity_is_a_filter_that_can_be_read() {
        for verbosity in -4..=4 {
            let parsed = tracing_subscriber::EnvFilter::builder().parse(default_filter(verbosity));
            assert!(parsed.is_ok(), "{verbosity}");
        }
        let error = init(Some("setpoint=loud"), 0, false, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a log filter such as `info,setpoint::script=debug`, got `setpoint=loud`"
        );
    }
}
