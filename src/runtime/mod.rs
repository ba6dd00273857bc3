//! The engine: tickers, the control loop, its workers, the durable store.
//!
//! One owner for the state: the control loop takes a closed list of events and is the only one that changes
//! anything. Scripts, backends, files, the store and the API are workers around it that send it events and are
//! handed requests; the loop waits for none of them.

mod backend_worker;
mod clock;
pub mod config;
mod control_loop;
mod engine;
pub mod eval;
mod event;
pub mod handle;
mod policy;
pub mod record;
pub mod store;
mod ticker;
pub mod view;
mod watch;

pub use config::{EngineConfig, GlobalBudget, PolicySource, RunEnd, Signal, StartError};
pub use engine::Engine;
pub use handle::EngineHandle;
