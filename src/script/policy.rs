//! The functions of one policy, called: [`PolicyScript`] over a VM.
//!
//! A call runs on the pool and goes on to its end (it is bounded) even when the one who asked has stopped waiting. What
//! it does there is in `row`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::core::model::{PolicyName, Sample, TaskId};
use crate::core::policy::PolicySpec;

use super::call::Outside;
use super::direct::Direct;
use super::error::{ScriptError, ScriptErrorKind};
use super::fleet::Allowance;
use super::row::{Row, Visit};
use super::table::Functions;
use super::vm::Vm;
use super::{Acted, Ctx, Hook, Mode, Observed, PolicyScript};

/// One policy of a VM.
pub(super) struct Script {
    row: Arc<Row>,
}

impl Script {
    /// Makes a policy of a checked table. Only under the VM's turn.
    pub(super) fn new(
        vm: &Arc<Vm>,
        name: PolicyName,
        spec: Arc<PolicySpec>,
        functions: Functions,
        allowance: Option<Arc<Allowance>>,
    ) -> mlua::Result<Self> {
        Ok(Self { row: Arc::new(Row::new(vm, name, spec, functions, allowance)?) })
    }

    /// Runs work of this policy on the pool.
    async fn on_pool<R, F>(&self, work: impl FnOnce(Arc<Row>) -> F) -> Result<R, String>
    where
        R: Send + 'static,
        F: Future<Output = R> + Send + 'static,
    {
        let row = Arc::clone(&self.row);
        let pool = Arc::clone(&row.vm().pool);
        pool.spawn(work(row)).await.map_err(|error| format!("the script host failed: {error}"))
    }

    fn failed(&self, hook: Hook, message: String) -> ScriptError {
        self.row.vm().error(hook, ScriptErrorKind::Runtime, message)
    }
}

#[async_trait]
impl PolicyScript for Script {
    async fn observe(&self, ctx: Arc<Ctx>, deadline: Duration) -> Observed {
        let deadline = tokio::time::Instant::now() + deadline;
        match self.on_pool(|row| async move { row.observe(ctx, deadline).await }).await {
            Ok(observed) => observed,
            Err(message) => Observed {
                sample: Sample::Error { message: message.as_str().into() },
                setpoint: None,
                count: None,
                scripted: None,
                errors: vec![self.failed(Hook::Metric, message)],
                cpu: Duration::ZERO,
            },
        }
    }

    async fn act(&self, hook: Hook, n: u32, ctx: Arc<Ctx>, mode: Mode, deadline: Duration) -> Acted {
        let visit = Visit { hook, mode, ctx, deadline: tokio::time::Instant::now() + deadline };
        match self.on_pool(|row| async move { row.act(visit, n).await }).await {
            Ok(acted) => acted,
            Err(message) => Acted {
                intents: Vec::new(),
                accepted: None,
                recorded: Vec::new(),
                error: Some(self.failed(hook, message)),
                cpu: Duration::ZERO,
            },
        }
    }

    async fn victims(&self, n: u32, ctx: Arc<Ctx>, deadline: Duration) -> Result<Vec<TaskId>, ScriptError> {
        let deadline = tokio::time::Instant::now() + deadline;
        let visit = Visit { hook: Hook::Victims, mode: Mode::Record, ctx, deadline };
        let result = self.on_pool(|row| async move { row.victims(visit, n).await }).await;
        result.unwrap_or_else(|message| Err(self.failed(Hook::Victims, message)))
    }

    async fn drain(&self, task: TaskId, ctx: Arc<Ctx>, mode: Mode, deadline: Duration) -> Result<bool, ScriptError> {
        let visit = Visit { hook: Hook::Drain, mode, ctx, deadline: tokio::time::Instant::now() + deadline };
        let result = self.on_pool(|row| async move { row.drain(visit, task).await }).await;
        result.unwrap_or_else(|message| Err(self.failed(Hook::Drain, message)))
    }

    async fn stop(&self, ctx: Arc<Ctx>, mode: Mode, deadline: Duration) -> Result<Option<i32>, ScriptError> {
        let visit = Visit { hook: Hook::Stop, mode, ctx, deadline: tokio::time::Instant::now() + deadline };
        let result = self.on_pool(|row| async move { row.stop(visit).await }).await;
        result.unwrap_or_else(|message| Err(self.failed(Hook::Stop, message)))
    }

    async fn restore(&self, state: Option<&str>, migrate: bool) -> Result<(), ScriptError> {
        let state = state.map(str::to_owned);
        let result = self.on_pool(|row| async move { row.restore(state, migrate).await }).await;
        result.unwrap_or_else(|message| Err(self.failed(Hook::Migrate, message)))
    }

    fn take_changed_state(&self) -> Option<String> {
        self.row.take_changed_state()
    }

    fn state(&self) -> Option<String> {
        self.row.state()
    }

    fn direct(&self) -> Option<Direct> {
        Some(Direct::new(Arc::clone(&self.row), Outside::Simulated))
    }
}
