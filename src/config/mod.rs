//! Configuration: units that people write, shared by policy tables, `setpoint.toml` and flags.

pub mod units;
