//! Container engines: Docker's API over a Unix socket, TCP, TLS or ssh.
//!
//! The one place that knows the client library. [`Engine`] is a handle that is always there, whether the engine
//! answers or not: it connects when it is first used, agrees on a version of the API, and does so again after an
//! outage. What it gives and takes are plain values of this module. It keeps no state of containers, decides nothing
//! and repeats nothing by itself.
//!
//! Invariants:
//! - every call ends: each has a deadline, and the answer's body counts;
//! - errors say whether trying again can help ([`EngineError::is_retryable`]).

mod address;
mod blueprint;
mod connect;
mod create;
mod engine;
mod error;
mod events;
mod image;
mod inspect;
mod life;
mod logs;
mod roster;
mod stats;
mod swarm;
mod watch;

pub use address::Address;
pub use create::{ContainerConfig, HealthConfig, Publish};
pub use engine::{Engine, EngineConfig};
pub use error::EngineError;
pub use events::{Event, EventFilter, EventStream};
pub use image::{Credentials, registry};
pub use inspect::{Container, Health, Listed, Status};
pub use swarm::{Node, Service, ServiceConfig, SwarmState, SwarmTask};
pub use watch::Watch;
