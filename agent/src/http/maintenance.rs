//! `/maintenance`: nothing is started until it is over.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use zlh_api::{ErrorCode, Maintenance, MaintenanceRequest, Problem};

use super::body::{JsonOrDefault, NoBody, is_one_line};
use super::lifecycle::located;
use super::problem::{Answer, Failure};
use super::{App, Inner};
use crate::workload::{Outcome, Verb};

/// Longest reason, characters.
const MAX_REASON: usize = 200;

/// Whether the workload is in maintenance.
#[utoipa::path(get, path = "/maintenance", tag = "workload",
    responses((status = 200, description = "Whether it is, since when and what for", body = Maintenance)))]
pub(crate) async fn maintenance(State(App(app)): State<App>) -> Json<Maintenance> {
    Json(app.handle.maintenance())
}

/// Stops what runs and lets nothing be started, by whomever, until it is over: not after a crash,
/// not at boot, not by `/start` (409). It outlives the agent and the container. Once more while it
/// lasts, it gives another reason, if any.
#[utoipa::path(put, path = "/maintenance", tag = "workload", operation_id = "begin_maintenance",
    request_body = Option<MaintenanceRequest>,
    responses(
        (status = 200, description = "It is in maintenance; what runs may still be stopping", body = Maintenance,
         headers(("location" = String, description = "`/operations/{id}` of the stop, if one was begun"))),
        (status = 400, description = "A reason that is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Something on the server's files, or an update of the agent, is under way", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn begin(
    State(App(app)): State<App>,
    JsonOrDefault(request): JsonOrDefault<MaintenanceRequest>,
) -> Answer<Response> {
    let MaintenanceRequest { reason, keep_running, now } = request;
    let reason = reason.map(|reason| checked(&reason)).transpose()?;
    let outcome = app.handle.request(Verb::Maintain { reason, keep_running, now }).await?;
    Ok(answer(&app, &outcome))
}

/// Whether to start what was meant to run.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Start {
    /// With `false` it stays down, until somebody starts it.
    #[serde(default = "yes")]
    #[param(default = true)]
    start: bool,
}

const fn yes() -> bool {
    true
}

/// Maintenance is over: what was meant to run when it began is started again. Without any, nothing
/// happens.
#[utoipa::path(delete, path = "/maintenance", tag = "workload", operation_id = "end_maintenance", params(Start),
    responses(
        (status = 200, description = "It is over; what was meant to run may still be starting", body = Maintenance,
         headers(("location" = String, description = "`/operations/{id}` of the start, if one was begun"))),
        (status = 409, description = "Something on the server's files, or an update of the agent, is under way", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn end(
    State(App(app)): State<App>,
    start: Result<Query<Start>, QueryRejection>,
    _: NoBody,
) -> Answer<Response> {
    let Query(Start { start }) =
        start.map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let outcome = app.handle.request(Verb::EndMaintenance { start }).await?;
    Ok(answer(&app, &outcome))
}

fn answer(app: &Inner, outcome: &Outcome) -> Response {
    let body = Maintenance { operation: outcome.operation.clone(), ..app.handle.maintenance() };
    located(outcome, Json(body).into_response())
}

fn checked(reason: &str) -> Result<String, Failure> {
    let reason = reason.trim();
    let refuse = |why: &str| Err(Failure::new(ErrorCode::InvalidRequest, format!("the reason {why}")));
    if !is_one_line(reason) {
        return refuse("holds a control character or a line break; send one line");
    }
    if reason.chars().count() > MAX_REASON {
        return refuse(&format!("is longer than {MAX_REASON} characters"));
    }
    Ok(reason.to_owned())
}
