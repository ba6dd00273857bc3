//! The threads that scripts run on: a fixed pool of its own, at lower priority than the loop and the API.
//!
//! Calls are futures. One that has used its time slice yields, so that a fresh call never waits behind a long one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// How much nicer than the rest of the process script threads are.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Luau's parser and its C functions recurse (bounded) on the native stack; a debug build needs the most.
const STACK: usize = 8 << 20;

/// The pool. Dropping it abandons what still runs; every call is bounded, so its threads end by themselves.
#[derive(Debug)]
pub(super) struct Pool {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Pool {
    /// Starts `threads` threads, at least one.
    pub(super) fn new(threads: usize) -> io::Result<Self> {
        let counter = Arc::new(AtomicUsize::new(0));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name_fn(move || format!("setpoint-script-{}", counter.fetch_add(1, Ordering::Relaxed)))
            .thread_stack_size(STACK)
            // Fresh calls come through the global queue, those that were cut into slices go round locally. Taking from
            // both in turns, neither waits for more than a slice of the other; at 1 the local ones could starve.
            .global_queue_interval(2)
            .on_thread_start(lower_priority)
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// Runs a future on the pool.
    pub(super) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(work)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Waiting for the threads here could block an async context, which tokio forbids.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Best effort: where the kernel refuses, scripts run at the common priority.
#[cfg(target_os = "linux")]
fn lower_priority() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        tracing::debug!(%error, "script thread keeps the common priority");
    }
}

/// Elsewhere priorities belong to whole processes.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
