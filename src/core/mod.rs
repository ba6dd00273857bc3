//! The pure core: the model, the laws, the guards and the ledger.
//!
//! Nothing in here does I/O, reads a clock, draws a random number or knows Lua, and therefore nothing in
//! here can fail: bad values become a decision to hold, with a reason. The live loop, `eval` and every
//! later tool call the same `decide`.
//!
//! The only outside crates that it names are serde, for the store, and two that are nothing but functions of what they
//! are given: rustfft, and regex-lite for constraints on attributes.

pub mod compare;
pub mod container;
pub mod decide;
pub mod decision;
pub mod guard;
pub mod intent;
pub mod interval;
pub mod law;
pub mod ledger;
pub mod mesos;
pub mod model;
pub mod offers;
pub mod plan;
pub mod policy;
pub mod time;
