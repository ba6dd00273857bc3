//! The last words of a container.

use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;

use super::engine::{Engine, QUICK};
use super::error::EngineError;

/// Most bytes that are kept of a tail.
const MOST: usize = 16 << 10;

impl Engine {
    /// The last `lines` of what a container wrote to standard output and error, at most 16 KiB of it.
    pub async fn log_tail(&self, container: &str, lines: u32) -> Result<String, EngineError> {
        let options = LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..LogsOptions::default() };
        self.call("read a container's log", QUICK, async |docker| {
            let mut stream = std::pin::pin!(docker.logs(container, Some(options)));
            let mut tail: Vec<u8> = Vec::new();
            while let Some(part) = stream.next().await {
                tail.extend_from_slice(&part?.into_bytes());
                let excess = tail.len().saturating_sub(MOST);
                tail.drain(..excess);
            }
            Ok(String::from_utf8_lossy(&tail).trim_end().to_owned())
        })
        .await
    }
}
