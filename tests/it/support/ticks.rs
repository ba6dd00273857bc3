//! What a running setpoint does at each tick.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::task::JoinHandle;

use super::setpoint::Setpoint;
use super::wait::GENEROUS;

/// Every tick of a running setpoint, as the event stream shows it.
pub(crate) struct Ticks {
    seen: Arc<Mutex<Vec<Value>>>,
    worker: JoinHandle<()>,
}

impl Ticks {
    /// Listens from now on.
    pub(crate) async fn of(setpoint: &mut Setpoint) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().read_timeout(GENEROUS).build().unwrap();
        let mut stream = client.get(setpoint.address().await + "/v1/events").send().await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let worker = tokio::spawn(async move {
            let mut text = Vec::new();
            // The end of the stream is the end of the run.
            while let Ok(Some(chunk)) = stream.chunk().await {
                text.extend_from_slice(&chunk);
                while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    let event = String::from_utf8(event).unwrap();
                    let field = |name| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                    if field("event:") == Some("tick") {
                        let tick = serde_json::from_str(field("data:").unwrap()).unwrap();
                        log.lock().unwrap_or_else(PoisonError::into_inner).push(tick);
                    }
                }
            }
        });
        Self { seen, worker }
    }

    /// All so far of one policy.
    pub(crate) fn all(&self, policy: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|tick| tick["name"] == policy).cloned().collect()
    }

    /// The most tasks that a policy of that name ran.
    pub(crate) fn most_running(&self, policy: &str) -> u64 {
        self.all(policy).iter().filter_map(|tick| tick["tasks"]["running"].as_u64()).max().unwrap_or_default()
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.worker.abort();
    }
}
