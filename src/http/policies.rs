//! `GET /v1/policies`, `GET /v1/policies/NAME` and `GET /v1/policies/NAME/history`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::runtime::handle::EngineHandle;

use super::Api;
use super::commands::ACTIONS;
use super::dto::{BackendJson, PoliciesJson, PolicyJson};
use super::error::{Problem, nearest};
use super::query::covers;

/// Every policy, or those that `?policy=` names.
pub(super) async fn list(State(api): State<Api>, filter: super::query::PolicyFilter) -> Result<Response, Problem> {
    require_known(&api.handle, filter.names())?;
    let policies = api.handle.policies();
    let policies: Vec<PolicyJson<'_>> =
        policies.iter().filter(|policy| filter.takes(policy.name.as_str())).map(|policy| (&**policy).into()).collect();
    let health = api.handle.health();
    Ok(Json(PoliciesJson { policies, backends: BackendJson::all(&health) }).into_response())
}

/// One policy, or its history. A policy whose name ends in `/history` comes before another's history.
pub(super) async fn read(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let path = policy_path(path)?;
    if let Some(policy) = api.handle.policy(&path) {
        return Ok(Json(PolicyJson::from(&*policy)).into_response());
    }
    match path.rsplit_once('/') {
        Some((name, "history")) => history(&api, name),
        Some((name, action)) if ACTIONS.contains(&action) && api.handle.policy(name).is_some() => {
            let allowed = if action == "override" { "POST, DELETE" } else { "POST" };
            Err(Problem::wrong_method(format!("`{action}` does not take GET, only {allowed}")).allowing(allowed))
        }
        _ => Err(no_such_policy(&api.handle, &path)),
    }
}

fn history(api: &Api, name: &str) -> Result<Response, Problem> {
    let policy = api.handle.policy(name).ok_or_else(|| no_such_policy(&api.handle, name))?;
    let points = api.history.points(&policy);
    Ok(Json(json!({ "policy": name, "points": points })).into_response())
}

/// The part of the path behind `/v1/policies/`, percent-decoded.
pub(super) fn policy_path(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(path)| path).map_err(|rejection| Problem::bad_request(rejection.body_text()))
}

/// Refuses names that are neither a policy nor a fleet.
pub(super) fn require_known(handle: &EngineHandle, names: &[String]) -> Result<(), Problem> {
    if names.is_empty() {
        return Ok(());
    }
    let policies = handle.policies();
    match names.iter().find(|name| !policies.iter().any(|policy| covers(name, policy.name.as_str()))) {
        Some(name) => Err(no_such_policy(handle, name)),
        None => Ok(()),
    }
}

/// A 404 that says which name was probably meant.
pub(super) fn no_such_policy(handle: &EngineHandle, name: &str) -> Problem {
    let policies = handle.policies();
    let names = || policies.iter().map(|policy| policy.name.as_str());
    if let Some(row) = names().find(|policy| *policy != name && covers(name, policy)) {
        return Problem::not_found(format!("`{name}` is a fleet; its policies are called like `{row}`"));
    }
    Problem::missing("policy", name, nearest(name, names()))
}
