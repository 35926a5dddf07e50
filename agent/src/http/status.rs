//! `/status` and `/ready`, from the published snapshot: they wait for nobody.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use zlh_api::{Ready, Status};

use super::App;

/// Everything known of the workload; secrets of the payload are masked.
#[utoipa::path(get, path = "/status", tag = "workload",
    responses((status = 200, description = "The status", body = Status)))]
pub(crate) async fn status(State(App(app)): State<App>) -> Json<Status> {
    Json(app.handle.status())
}

/// Whether the workload accepts users; that its process exists is not enough.
#[utoipa::path(get, path = "/ready", tag = "workload", responses(
    (status = 200, description = "It accepts users", body = Ready),
    (status = 503, description = "It does not; `reason` says why", body = Ready)))]
pub(crate) async fn ready(State(App(app)): State<App>) -> (StatusCode, Json<Ready>) {
    let ready = app.handle.ready();
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready))
}
