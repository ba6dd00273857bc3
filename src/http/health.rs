//! `/healthz` and `/readyz` (semantics §29).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Api;

/// 200 while the control loop lives. This is what a watchdog looks at: a bad script never fails it.
pub(super) async fn healthz(State(api): State<Api>) -> Response {
    if api.handle.is_running() {
        Json(json!({ "status": "alive" })).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopped" }))).into_response()
    }
}

/// 200 `ready`; 200 `degraded` for script errors; 503 `unready` for stalled policies, lost backends and a recovery
/// that has not ended. `problems` says what is wrong, by policy, backend or `engine`.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let health = api.handle.health();
    let (code, status) = if !health.ready || !api.handle.is_running() {
        (StatusCode::SERVICE_UNAVAILABLE, "unready")
    } else if health.degraded {
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "ready")
    };
    (code, Json(json!({ "status": status, "degraded": health.degraded, "problems": health.problems, "backends": health.backends }))).into_response()
}
