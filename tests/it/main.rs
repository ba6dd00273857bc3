//! The integration tests: one binary, a module an area, everything through the public door.

mod arch;
mod cli;
mod crash;
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
