//! `/operations`: what is being done, and what became of the last ones.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use zlh_api::{ErrorCode, Operation, Operations};

use super::App;
use super::problem::{Answer, Failure, quoted};

/// The latest operations, newest first.
#[utoipa::path(get, path = "/operations", operation_id = "list_operations", tag = "operations",
    responses((status = 200, description = "Newest first, bounded", body = Operations)))]
pub(crate) async fn list(State(App(app)): State<App>) -> Json<Operations> {
    Json(Operations { operations: app.handle.operations() })
}

/// One operation.
#[utoipa::path(get, path = "/operations/{id}", operation_id = "get_operation", tag = "operations",
    params(("id" = String, Path, description = "As in `Location` of the answer that began it")),
    responses(
        (status = 200, description = "The operation", body = Operation),
        (status = 404, description = "None of that id is known any more", body = zlh_api::Problem, content_type = "application/problem+json")))]
pub(crate) async fn one(
    State(App(app)): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<Json<Operation>> {
    let unknown = |id: &str| {
        Failure::new(ErrorCode::NotFound, format!("no operation {}; GET /operations lists them", quoted(id)))
    };
    let Path(id) = id.map_err(|_| unknown("that is no text"))?;
    app.handle.operation(&id).map(Json).ok_or_else(|| unknown(&id))
}
