//! The engine: tickers, the control loop, its workers, the durable store.

pub mod handle;
pub mod record;
pub mod store;
pub mod view;
