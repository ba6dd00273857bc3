//! What the tests share: the built binary on a scratch folder, genuine services, and waiting for conditions.
//!
//! Everything that a test starts carries its scratch folder's mark and is ended with it, by pid, whether the test
//! passes or not. Nothing in here knows what a policy means.
#![allow(dead_code, unused_imports, reason = "each test module takes what it needs")]

mod compose;
mod docker;
mod http_server;
mod mesos;
mod moto;
mod port;
mod process;
mod prometheus;
mod redis;
mod scratch;
mod server;
mod setpoint;
mod setting;
mod swarm;
mod ticks;
mod tool;
mod wait;
mod zookeeper;

pub(crate) use compose::Compose;
pub(crate) use docker::{Docker, EngineOptions, LABEL, OwnEngine, Sweep};
pub(crate) use http_server::{HttpServer, Seen};
pub(crate) use mesos::{Cluster, ClusterSpec};
pub(crate) use moto::Moto;
pub(crate) use port::Port;
pub(crate) use process::Marked;
pub(crate) use prometheus::Prometheus;
pub(crate) use redis::Redis;
pub(crate) use scratch::Scratch;
pub(crate) use server::Server;
pub(crate) use setpoint::{Finished, Setpoint, client, command};
pub(crate) use setting::setting;
pub(crate) use swarm::{Node, Swarm};
pub(crate) use ticks::Ticks;
pub(crate) use tool::{data, missing, tool};
pub(crate) use wait::{GENEROUS, wait_until};
pub(crate) use zookeeper::ZooKeeper;
