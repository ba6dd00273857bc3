//! The changing calls: pause, resume, override, reload, evaluate, adopt and remove.
//!
//! Each becomes one command to the control loop and answers with the policy after it, or 204 where there is none.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::core::model::PolicyName;
use crate::runtime::handle::EngineHandle;
use crate::runtime::view::Command;

use super::Api;
use super::body::Fields;
use super::dto::PolicyJson;
use super::error::{Problem, nearest, shorten};
use super::policies::{no_such_policy, policy_path};
use super::query::covers;

/// What can be asked of a policy by POST, as the last part of the path.
pub(super) const ACTIONS: [&str; 6] = ["pause", "resume", "override", "reload", "evaluate", "adopt"];

/// How long the loop may take to answer. An evaluation waits for the script, whose own deadline is shorter.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// `POST /v1/policies/NAME/ACTION`.
pub(super) async fn post(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    fields: Fields,
) -> Result<Response, Problem> {
    let path = policy_path(path)?;
    let (name, action) = path.rsplit_once('/').unwrap_or((&path, ""));
    if !ACTIONS.contains(&action) {
        return Err(wrong_action(&api.handle, &path, name, action));
    }
    // A reload may name a fleet, whose rows are policies and which is none itself.
    let known = if action == "reload" {
        api.handle.policies().iter().any(|policy| covers(name, policy.name.as_str()))
    } else {
        api.handle.policy(name).is_some()
    };
    if !known {
        return Err(no_such_policy(&api.handle, name));
    }
    let command = parse(PolicyName::from(name), action, fields)?;
    tell(&api.handle, command).await
}

/// `DELETE /v1/policies/NAME/override` and `DELETE /v1/policies/NAME`; an existing policy's name comes first.
pub(super) async fn delete(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    fields: Fields,
) -> Result<Response, Problem> {
    fields.only(&[])?;
    let path = policy_path(path)?;
    let command = match path.rsplit_once('/') {
        _ if api.handle.policy(&path).is_some() => Command::Remove { policy: PolicyName::from(path.as_str()) },
        Some((name, "override")) if api.handle.policy(name).is_some() => {
            Command::ClearOverride { policy: PolicyName::from(name) }
        }
        Some((name, "override")) => return Err(no_such_policy(&api.handle, name)),
        _ => return Err(no_such_policy(&api.handle, &path)),
    };
    tell(&api.handle, command).await
}

/// `POST /v1/reload`.
pub(super) async fn reload_all(State(api): State<Api>, fields: Fields) -> Result<Response, Problem> {
    fields.only(&[])?;
    tell(&api.handle, Command::Reload { policy: None }).await
}

/// Sends a command and turns its answer into a response.
pub(super) async fn tell(handle: &EngineHandle, command: Command) -> Result<Response, Problem> {
    match tokio::time::timeout(ANSWER_LIMIT, handle.command(command)).await {
        Ok(Ok(Some(policy))) => Ok(Json(PolicyJson::from(&*policy)).into_response()),
        Ok(Ok(None)) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("the engine did not answer within {ANSWER_LIMIT:?}; it may still carry the command out"),
        )),
    }
}

fn parse(policy: PolicyName, action: &str, fields: Fields) -> Result<Command, Problem> {
    Ok(match action {
        "pause" => {
            let fields = fields.only(&["for", "reason"])?;
            Command::Pause { policy, for_: fields.duration("for")?, reason: fields.text("reason")? }
        }
        "override" => parse_override(policy, fields)?,
        "adopt" => {
            let fields = fields.only(&["new"])?;
            let new = fields.text("new")?.ok_or_else(|| {
                Problem::bad_request(format!("`new` is needed: the policy that takes over the tasks of `{policy}`"))
            })?;
            Command::Adopt { old: policy, new: PolicyName::from(new.as_str()) }
        }
        plain => {
            fields.only(&[])?;
            match plain {
                "resume" => Command::Resume { policy },
                "evaluate" => Command::Evaluate { policy },
                _ => Command::Reload { policy: Some(policy) },
            }
        }
    })
}

fn parse_override(policy: PolicyName, fields: Fields) -> Result<Command, Problem> {
    let fields = fields.only(&["min", "max", "for", "force", "reason"])?;
    let (min, max) = (fields.count("min")?, fields.count("max")?);
    match (min, max) {
        (None, None) => return Err(Problem::bad_request("an override needs `min`, `max` or both")),
        (Some(min), Some(max)) if min > max => {
            return Err(Problem::bad_request(format!("`min` ({min}) is more than `max` ({max})")));
        }
        _ => {}
    }
    Ok(Command::Override {
        policy,
        min,
        max,
        for_: fields.duration("for")?,
        force: fields.flag("force")?,
        reason: fields.text("reason")?,
    })
}

/// A POST to something that is not an action.
fn wrong_action(handle: &EngineHandle, path: &str, name: &str, action: &str) -> Problem {
    if handle.policy(path).is_some() || path.ends_with("/history") {
        return Problem::wrong_method("POST needs an action: …/pause, resume, override, reload, evaluate or adopt")
            .allowing("GET, DELETE");
    }
    if handle.policy(name).is_none() {
        return no_such_policy(handle, path);
    }
    Problem::missing("action", &shorten(action), nearest(action, ACTIONS))
}
