//! setpoint: an embeddable, scripting-driven autoscaler.
//!
//! A *policy* is a Lua file with up to four functions. On every tick of a control loop `metric` gives a *sample* and
//! `target` the *setpoint*; a *law* turns the *deviation* between them into a proposed number of *tasks*; *guards*
//! (tolerance, cooldowns, min and max …) limit that, each leaving its reason; and `warmer` or `cooler`, or the default,
//! says what is launched and killed. Those *intents* are recorded before a *backend* carries them out.
//!
//! # Where to start
//!
//! - [`runtime::Engine`]: a whole autoscaler inside your program, from a [`runtime::EngineConfig`].
//! - [`runtime::EngineHandle`]: look at it, subscribe to what happens, pause, override, reload.
//! - [`backend::TaskBackend`]: where tasks run; bring your own, or take [`backend::local::LocalBackend`].
//! - [`core::decide::decide`]: the one pure function behind every decision, usable by itself.
//! - [`script::ScriptHost`]: policies as functions, without a loop.
//! - [`log::DecisionLog`]: every decision with all that it depended on, to be explained and made again.
//!
//! # The engine in a program
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use setpoint::backend::{Backend, local::{LocalBackend, LocalConfig}};
//! use setpoint::runtime::{Engine, EngineConfig, PolicySource};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = r#"return {
//!   interval = "1s",
//!   workload = { command = "exec sleep 600", min = 2, max = 2 },
//!   control = { law = "count", n = 2 },
//! }"#;
//! let engine = Engine::start(EngineConfig {
//!     sources: vec![PolicySource::Text { name: "two".to_owned(), source: policy.to_owned() }],
//!     backends: BTreeMap::from([("local".to_owned(), Backend::Tasks(LocalBackend::new(LocalConfig::default())?))]),
//!     ..EngineConfig::default()
//! })
//! .await?;
//! println!("{} policies", engine.handle().policies().len());
//! let end = engine.stop().await;
//! assert_eq!(end.code, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # One decision
//!
//! ```
//! use setpoint::core::decide::{Config, decide};
//! use setpoint::core::decision::{InFlight, Observation, PolicyState};
//! use setpoint::core::model::{Counts, Effect, Sample};
//! use setpoint::core::policy::{Control, Interval, LawSpec};
//! use setpoint::core::time::Timestamp;
//!
//! // A queue of 37 and two tasks; one more for each 20 that are too many.
//! let control = Control::new(LawSpec::Proportional { per_task: 20.0 });
//! let config = Config {
//!     control: &control,
//!     effect: Effect::Cools,
//!     min: 0,
//!     max: 10,
//!     interval: Interval::fixed(std::time::Duration::from_secs(1)),
//!     counter: false,
//!     metric: true,
//! };
//! let observation = Observation {
//!     now: Timestamp::from_millis(1000),
//!     sample: Sample::value(37.0),
//!     setpoint: Some(0.0),
//!     counts: Counts { running: 2, ready: 2, ..Counts::default() },
//!     ..Observation::default()
//! };
//! let (decision, _state) = decide(&config, PolicyState::default(), &observation);
//! assert_eq!(decision.adjustment, 2);
//! ```
//!
//! # Features
//!
//! `cli`, `docker`, `http`, `mesos`, `redis` and `tls`, all on by default; without them the engine, the script host, the
//! local backend and the store are left.

pub mod backend;
pub mod config;
#[cfg(feature = "docker")]
pub mod container;
pub mod core;
#[cfg(feature = "mesos")]
pub mod executor;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "import")]
pub mod import;
pub mod log;
#[cfg(feature = "mesos")]
pub mod mesos;
pub mod runtime;
pub mod sample;
pub mod script;
pub mod services;
#[cfg(feature = "sim")]
pub mod sim;
pub mod telemetry;
