//! `/shells`: login shells, each with a name.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use zlh_api::{ErrorCode, NewShell, Problem, Shell, Shells};

use super::App;
use super::body::{NoBody, StrictJson};
use super::problem::{Answer, Failure};

/// A path that names a shell.
pub(super) type Named = Result<Path<String>, PathRejection>;

/// The shells that run.
#[utoipa::path(get, path = "/shells", operation_id = "list_shells", tag = "shells",
    responses((status = 200, description = "Every session", body = Shells)))]
pub(crate) async fn list(State(App(app)): State<App>) -> Json<Shells> {
    Json(Shells { shells: app.shells.list() })
}

/// Starts a login shell. One that nobody looks at ends after `detached_s` of `[shell]` (60 s).
#[utoipa::path(post, path = "/shells", operation_id = "open_shell", tag = "shells", request_body = NewShell, responses(
    (status = 201, description = "It runs", body = Shell, headers(("location" = String, description = "`/shells/{name}`"))),
    (status = 400, description = "Not JSON, or no name of a shell", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The name is taken, there are as many as may be, or there is no user to run one as", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn open(
    State(App(app)): State<App>,
    StrictJson(wanted): StrictJson<NewShell>,
) -> Answer<Response> {
    let session = app.shells.open(wanted).await?;
    let location = format!("/shells/{}", session.name());
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(session.told())).into_response())
}

/// One shell.
#[utoipa::path(get, path = "/shells/{name}", operation_id = "get_shell", tag = "shells",
    params(("name" = String, Path, description = "As in `GET /shells`")), responses(
    (status = 200, description = "It runs", body = Shell),
    (status = 404, description = "There is no such shell", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn one(State(App(app)): State<App>, name: Named) -> Answer<Json<Shell>> {
    Ok(Json(app.shells.get(&named(name)?)?.told()))
}

/// Hangs up, and ends what does not mind a hang-up. Answered when nothing of it is left.
#[utoipa::path(delete, path = "/shells/{name}", operation_id = "close_shell", tag = "shells",
    params(("name" = String, Path, description = "As in `GET /shells`")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "There is no such shell", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn close(State(App(app)): State<App>, name: Named, _: NoBody) -> Answer<StatusCode> {
    app.shells.close(&named(name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The name in the path.
pub(super) fn named(name: Named) -> Answer<String> {
    let Path(name) = name.map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))?;
    Ok(name)
}
