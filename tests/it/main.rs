//! The integration tests: one binary, a module an area, everything through the public door.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is the test's failure")]
#![expect(clippy::print_stderr, reason = "tests say what they skip, and show logs when they fail")]

mod arch;
mod bad_input;
mod cli;
mod crash;
mod embedded;
mod engine;
mod hostile;
mod http;
mod local;
mod page;
mod policies;
mod properties;
mod reload;
mod script;
mod script_api;
mod store;
mod support;
