//! Waiting for conditions instead of for time to pass.

use std::time::{Duration, Instant};

/// A limit that only a hang reaches: machines that run tests are slow and shared.
pub(crate) const GENEROUS: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(15);

/// Waits until `check` gives something, and gives that. Panics with `what` once `limit` is over.
pub(crate) async fn wait_until<T>(limit: Duration, what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain until {what}");
        tokio::time::sleep(EVERY).await;
    }
}

/// The same for tests, and drops, that have no runtime.
pub(crate) fn wait_until_blocking<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(EVERY);
    }
}
