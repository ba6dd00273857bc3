//! setpoint: an embeddable, scripting-driven autoscaler.

pub mod backend;
pub mod config;
pub mod core;
#[cfg(feature = "http")]
pub mod http;
pub mod runtime;
pub mod script;
pub mod telemetry;
