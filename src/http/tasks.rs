//! `GET /v1/tasks` and `DELETE /v1/tasks/ID`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use crate::core::model::TaskId;
use crate::runtime::view::Command;

use super::Api;
use super::body::Fields;
use super::commands::tell;
use super::dto::{AllTasksJson, TaskJson};
use super::error::{Problem, nearest};
use super::policies::{policy_path, require_known};
use super::query::PolicyFilter;

/// Every task, or those of the policies that `?policy=` names.
pub(super) async fn list(State(api): State<Api>, filter: PolicyFilter) -> Result<Response, Problem> {
    require_known(&api.handle, filter.names())?;
    let tasks = api.handle.tasks();
    let tasks: Vec<TaskJson<'_>> =
        tasks.iter().filter(|task| filter.takes(task.policy.as_str())).map(Into::into).collect();
    Ok(Json(AllTasksJson { tasks }).into_response())
}

/// Ends one task; a service replaces it.
pub(super) async fn kill(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
    fields: Fields,
) -> Result<Response, Problem> {
    fields.only(&[])?;
    let id = policy_path(id)?;
    let tasks = api.handle.tasks();
    if !tasks.iter().any(|task| task.id.as_str() == id) {
        return Err(Problem::missing("task", &id, nearest(&id, tasks.iter().map(|task| task.id.as_str()))));
    }
    tell(&api.handle, Command::KillTask { task: TaskId::from(id.as_str()) }).await
}
