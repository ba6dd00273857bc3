//! Mesos: genuine masters, agents and ZooKeeper, and a scripted master for what those will not do on demand.

mod agent;
mod backend;
mod beside;
mod client;
mod detection;
mod executor;
mod fake;
mod faults;
mod figures;
mod fuzz;
mod neighbour;
mod places;
mod proxy;
mod ready;
mod scenarios;
mod scene;
mod scripted;
