//! The integration tests: one binary, a module an area, everything through the public door.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is the test's failure")]
#![expect(clippy::print_stderr, reason = "tests say what they skip, and show logs when they fail")]

mod arch;
mod bad_input;
mod cli;
mod counted;
mod crash;
#[cfg(feature = "docker")]
mod docker;
#[cfg(all(feature = "cli", feature = "docker", feature = "http", feature = "mesos", feature = "redis"))]
mod docs;
mod embedded;
mod engine;
mod gocd;
mod hostile;
mod http;
#[cfg(feature = "cli")]
mod import;
mod laws;
#[cfg(all(feature = "cli", feature = "http"))]
mod live_log;
mod local;
#[cfg(feature = "cli")]
mod log;
#[cfg(all(feature = "docker", feature = "http"))]
mod memcached;
#[cfg(feature = "mesos")]
mod mesos;
mod page;
mod policies;
mod properties;
mod reload;
mod sample;
mod script;
mod script_api;
#[cfg(all(feature = "cli", feature = "http"))]
mod shadow;
mod sim;
mod spec;
mod store;
mod support;
#[cfg(feature = "docker")]
mod swarm;
