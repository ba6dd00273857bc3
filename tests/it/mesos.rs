//! Mesos: genuine masters, agents and ZooKeeper, and a scripted master for what those will not do on demand.

mod backend;
mod client;
mod executor;
mod failover;
mod fake;
mod faults;
mod figures;
mod fuzz;
#[cfg(feature = "tls")]
mod proxy;
mod ready;
mod scripted;
