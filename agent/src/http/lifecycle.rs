//! `/start`, `/stop`, `/restart`. A body, if one comes, means nothing.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use zlh_api::{Accepted, ErrorCode, Problem};

use super::App;
use super::body::NoBody;
use super::problem::{Answer, Failure};
use crate::workload::{Outcome, Verb};

/// Starts what is configured; when it runs already that is fine too.
#[utoipa::path(post, path = "/start", tag = "workload", responses(
    (status = 202, description = "Starting, or running already", body = Accepted,
     headers(("location" = String, description = "`/operations/{id}`, when an operation was begun"))),
    (status = 409, description = "Nothing is configured, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn start(State(App(app)): State<App>, _: NoBody) -> Answer<Response> {
    Ok(accepted(app.handle.request(Verb::Start).await?))
}

/// Stops whatever is going on, an installation included. Never counted as a crash. Players
/// are warned first where the launch plan says how; a second stop skips what is left of that.
#[utoipa::path(post, path = "/stop", tag = "workload", params(Urgency), responses(
    (status = 204, description = "Accepted, or nothing runs",
     headers(("location" = String, description = "`/operations/{id}`, when an operation was begun"))),
    (status = 409, description = "Not now", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn stop(
    State(App(app)): State<App>,
    urgency: Result<Query<Urgency>, QueryRejection>,
    _: NoBody,
) -> Answer<Response> {
    let now = urgent(urgency)?;
    let outcome = app.handle.request(Verb::Stop { now }).await?;
    Ok(located(&outcome, StatusCode::NO_CONTENT.into_response()))
}

/// Stops, waits for the end, starts.
#[utoipa::path(post, path = "/restart", tag = "workload", params(Urgency), responses(
    (status = 202, description = "Under way", body = Accepted,
     headers(("location" = String, description = "`/operations/{id}`, when an operation was begun"))),
    (status = 409, description = "Nothing is configured, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn restart(
    State(App(app)): State<App>,
    urgency: Result<Query<Urgency>, QueryRejection>,
    _: NoBody,
) -> Answer<Response> {
    let now = urgent(urgency)?;
    Ok(accepted(app.handle.request(Verb::Restart { now }).await?))
}

/// How urgent a stop is.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Urgency {
    /// Warn nobody; the world is saved all the same.
    #[serde(default)]
    now: bool,
}

fn urgent(urgency: Result<Query<Urgency>, QueryRejection>) -> Result<bool, Failure> {
    urgency
        .map(|Query(urgency)| urgency.now)
        .map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))
}

/// The 202 of a verb.
pub(crate) fn accepted(outcome: Outcome) -> Response {
    let body = Accepted { ok: true, state: outcome.state, operation: outcome.operation.clone() };
    located(&outcome, (StatusCode::ACCEPTED, Json(body)).into_response())
}

pub(super) fn located(outcome: &Outcome, mut response: Response) -> Response {
    let location = outcome.operation.as_ref().map(|operation| format!("/operations/{}", operation.id));
    if let Some(location) = location.and_then(|path| HeaderValue::try_from(path).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
