//! The engine: tickers, the control loop, its workers, the durable store.
//!
//! One owner for the state: the control loop takes a closed list of events and is the only one that changes
//! anything. Scripts, backends, files, the store and the API are workers around it that send it events and are
//! handed requests; the loop waits for none of them.

mod backend_worker;
mod clock;
#[cfg(feature = "mesos")]
mod cluster;
pub mod config;
#[cfg(feature = "docker")]
mod containers;
mod control_loop;
mod counted;
mod engine;
pub mod eval;
mod event;
pub mod handle;
mod memory;
mod policy;
pub mod record;
mod shadow;
pub mod store;
mod ticker;
mod trail;
pub mod view;
mod watch;

#[cfg(feature = "sim")]
pub(crate) use control_loop::{Action, action, with_plan};
#[cfg(feature = "sim")]
pub(crate) use policy::{External, by_word};

#[cfg(feature = "mesos")]
pub use cluster::MesosCluster;
pub use config::{EngineConfig, GlobalBudget, PolicySource, RunEnd, Signal, StartError};
#[cfg(feature = "docker")]
pub use containers::EngineContainers;
pub use engine::{Engine, check_params};
pub use handle::EngineHandle;
