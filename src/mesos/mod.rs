//! A client of Apache Mesos: scheduler, executor and operator over the v1 HTTP API, JSON, any Mesos from 1.0 on.
//!
//! Knows nothing of policies, tasks of ours or backends; it could be a crate of its own. What a framework does with offers
//! and updates is not decided here, and nothing is kept but the subscription.
//!
//! # A scheduler
//!
//! ```no_run
//! use setpoint::mesos::{Scheduler, SchedulerConfig, Signal};
//! use setpoint::mesos::wire::scheduler::{Call, Decline, Event};
//! use setpoint::mesos::wire::{Capability, CapabilityKind, FrameworkInfo};
//!
//! # async fn run() -> Result<(), setpoint::mesos::MesosError> {
//! let framework = FrameworkInfo {
//!     user: "nobody".to_owned(),
//!     name: "example".to_owned(),
//!     roles: vec!["*".to_owned()],
//!     capabilities: vec![Capability::from(CapabilityKind::MultiRole)],
//!     ..FrameworkInfo::default()
//! };
//! let masters = "zk://zk1:2181,zk2:2181/mesos".parse()?;
//! let (scheduler, mut signals) = Scheduler::connect(SchedulerConfig::new(masters, framework))?;
//! while let Some(signal) = signals.recv().await {
//!     match signal {
//!         Signal::Subscribed(connected) => println!("framework {}", connected.framework_id),
//!         Signal::Event(Event::Offers(offers)) => {
//!             let offer_ids = offers.into_iter().map(|offer| offer.id).collect();
//!             scheduler.call(&Call::Decline(Decline { offer_ids, filters: None })).await?;
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Scheduler::connect`] gives a handle for calls and the stream of [`Signal`]s. The client subscribes by itself and
//!   does so again, under the same framework id, when the leader changes, the stream breaks or five heartbeats are missing.
//! - [`Scheduler::status`] shows at any time how that stands: leader, since when, what was last heard, why it failed.
//! - After each [`Signal::Subscribed`] earlier offers are void, nothing is suppressed, and tasks are to be reconciled.
//! - [`Signal::Ended`] is final: credentials refused ([`End::Refused`]), the framework gone or taken over ([`End::Error`]).
//!
//! # Parts
//!
//! [`wire`] are the messages; [`recordio`] and [`subscription`] are pure; [`node`] and [`Masters`] say who leads;
//! [`executor`] is the other end of a task, [`operator`] reads the state of masters and agents, [`Cluster`] does so wherever
//! the leader is, and [`Meter`] makes shares of CPU of what agents tell.
//!
//! - **Invariant:** nothing that comes from the network or from ZooKeeper makes anything in here panic.
//! - **Invariant:** secrets are in no message, log line or `Debug` text.

mod address;
mod cluster;
mod error;
pub mod executor;
mod http;
pub mod node;
pub mod operator;
pub mod recordio;
mod scheduler;
pub mod subscription;
mod usage;
pub mod wire;
mod zookeeper;

pub use address::{Masters, ZooKeeperUrl, redirected};
pub use cluster::Cluster;
pub use error::MesosError;
pub use http::{Credentials, HttpConfig, Identity};
pub use scheduler::{Connected, Scheduler, SchedulerConfig, Signal, Signals, Status};
pub use subscription::{End, Patience};
pub use usage::Meter;
