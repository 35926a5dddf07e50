//! `/agent/update`: the agent's own version.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use zlh_api::{Accepted, Problem, UpdateRequest, UpdateStatus};

use super::App;
use super::body::JsonOrDefault;
use super::lifecycle::accepted;
use super::problem::Answer;

/// The version that runs, the newest that is known to be offered, and what became of the last
/// update.
#[utoipa::path(get, path = "/agent/update/status", operation_id = "update_status", tag = "agent",
    responses((status = 200, description = "Where updates stand", body = UpdateStatus)))]
pub(crate) async fn status(State(App(app)): State<App>) -> Json<UpdateStatus> {
    Json(app.updater.status())
}

/// Updates the agent: the new version is fetched and verified, passes its own test, takes over
/// and answers, or the one before is back within 10 s. Workloads notice nothing. From the
/// moment it takes over, `GET /agent/update/status` of the new process says what became of it.
#[utoipa::path(post, path = "/agent/update", operation_id = "update_agent", tag = "agent", request_body = Option<UpdateRequest>, responses(
    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
    (status = 400, description = "A version that is none", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It runs already or is older, or an update is under way", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn update(
    State(App(app)): State<App>,
    JsonOrDefault(request): JsonOrDefault<UpdateRequest>,
) -> Answer<Response> {
    Ok(accepted(app.updater.update(request)?))
}
