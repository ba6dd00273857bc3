//! The closed list of everything that can happen to the control loop.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::backend::BackendError;
use crate::core::model::{PolicyName, TaskId, TaskStats};
use crate::script::{Acted, Fleet, FleetRow, LoadedFile, Observed, ReadFile, ScriptError};

use super::backend_worker::Asked;
use super::config::Signal;
use super::handle::Request;
use super::shadow::ShadowAnswer;

/// Something that happened. Policies are named by key and by the serial number of what was asked, so that an answer
/// that comes too late is told from the one that is awaited.
pub(crate) enum Event {
    /// `observe` came back.
    Observed { key: usize, serial: u64, observed: Box<Observed> },
    /// A warmer or cooler came back.
    Acted { key: usize, serial: u64, acted: Box<Acted> },
    /// `victims` came back.
    Victims { key: usize, serial: u64, order: Result<Vec<TaskId>, ScriptError> },
    /// `stop` came back.
    Stop { key: usize, serial: u64, code: Result<Option<i32>, ScriptError> },
    /// `drain` came back.
    Drained { key: usize, task: TaskId, done: Result<bool, ScriptError> },
    /// A new generation has taken over the state, or refused it.
    Migrated { key: usize, serial: u64, result: Result<(), ScriptError> },
    /// A tick for show.
    Evaluated { policy: PolicyName, request: Request, observed: Box<Observed> },
    /// A file was read, compiled and tried.
    Loaded { source: usize, serial: u64, result: Result<LoadedFile, Vec<ScriptError>>, read: Vec<ReadFile> },
    /// A fleet's rows; `fleet` says of which generation.
    Discovered { source: usize, fleet: std::sync::Arc<dyn Fleet>, rows: Result<Vec<FleetRow>, ScriptError> },
    /// Files or folders that changed on the disk.
    Changed(Vec<PathBuf>),
    /// A backend has answered `recover`.
    Recovered { backend: String, result: Result<(), BackendError> },
    /// A backend did not carry out what it was asked.
    BackendFailed { backend: String, asked: Asked, error: BackendError },
    /// Intents could not be recorded, so that the backend never heard of them.
    NotRecorded { launches: Vec<TaskId>, kills: Vec<TaskId>, error: String },
    /// A backend did what it was asked.
    BackendDone { backend: String },
    /// A worker of a policy's shadow has answered.
    Shadow { key: usize, serial: u64, answer: ShadowAnswer },
    /// A count backend has answered.
    Counted(Box<super::control_loop::CountAnswer>),
    /// What tasks use; without figures where none could be had.
    Stats(BTreeMap<TaskId, TaskStats>),
    /// A command from the API.
    Command(Request),
    /// A signal.
    Signal(Signal),
    /// A worker that should not have ended.
    WorkerDied { name: String, reason: String },
}
