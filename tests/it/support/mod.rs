//! What the tests share: the built binary on a scratch folder, genuine services, and waiting for conditions.
//!
//! Everything that a test starts carries its scratch folder's mark and is ended with it, by pid, whether the test
//! passes or not. Nothing in here knows what a policy means.
#![allow(dead_code, unused_imports, reason = "each test module takes what it needs")]

mod http_server;
mod process;
mod redis;
mod scratch;
mod setpoint;
mod setting;
mod tool;
mod wait;

pub(crate) use http_server::{HttpServer, Seen};
pub(crate) use process::Marked;
pub(crate) use redis::Redis;
pub(crate) use scratch::Scratch;
pub(crate) use setpoint::{Finished, Setpoint, client, command};
pub(crate) use setting::setting;
pub(crate) use tool::{data, tool};
pub(crate) use wait::{GENEROUS, wait_until};
