//! `GET /history`: what became of the workload over the last day, week and month.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use zlh_api::{ErrorCode, History, HistoryWindow, Problem};

use super::App;
use super::problem::{Answer, Failure};
use crate::errors::chain;
use crate::journal;

/// Which part of the journal.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// The window of segments and events; summaries come for all of them. 24h when absent.
    #[serde(default)]
    window: HistoryWindow,
    /// Only events before this number: `nextBefore` of the answer before.
    before: Option<u64>,
    /// At most this many events, the newest; 100 when absent, 1,000 at most.
    limit: Option<usize>,
}

/// Uptime, outages and events, from the journal.
#[utoipa::path(get, path = "/history", operation_id = "history", tag = "workload", params(Part), responses(
    (status = 200, description = "The summaries of all windows and the timeline of one", body = History),
    (status = 400, description = "A query parameter is not of its form", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn history(
    State(App(app)): State<App>,
    part: Result<Query<Part>, QueryRejection>,
) -> Answer<Json<History>> {
    let Query(part) = part.map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let limit = part.limit.unwrap_or(DEFAULT_EVENTS).min(MAX_EVENTS);
    let query = journal::Query { window: part.window, before: part.before, limit };
    match app.handle.journal().history(query).await {
        Ok(history) => Ok(Json(history)),
        Err(error) => Err(Failure::new(ErrorCode::Internal, chain(&error))),
    }
}

const DEFAULT_EVENTS: usize = 100;
const MAX_EVENTS: usize = 1000;
