//! `/game/version`: changing the version of a server, going back, and what is installed of it.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use zlh_api::{Accepted, ChangeVersion, ErrorCode, GameVersion, Problem};
use zlh_catalog::check_component;

use super::body::{NoBody, StrictJson};
use super::lifecycle::accepted;
use super::problem::{Answer, Failure};
use super::{App, Inner};
use crate::change::Chore;

/// Whether to remove what is needed, too.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Needed {
    /// Also the version that is configured, while nothing runs (the next start installs it
    /// again), and what a rollback goes back to.
    #[serde(default)]
    force: bool,
}

/// The installed version, and what a rollback goes back to.
#[utoipa::path(get, path = "/game/version", operation_id = "game_version", tag = "workload", responses(
    (status = 200, description = "The installed version", body = GameVersion),
    (status = 409, description = "Nothing is configured", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get(State(App(app)): State<App>) -> Answer<Json<GameVersion>> {
    Ok(Json(app.changer.version().await?))
}

/// Changes to another version. Everything is fetched while the server still runs; then it is
/// stopped, its folder is copied, and the new version started. If that does not become ready,
/// the version before is put back with its world as it was. The version that runs, sent again,
/// is installed anew, with the newest runtime that will do.
#[utoipa::path(post, path = "/game/version", operation_id = "change_game_version", tag = "workload", request_body = ChangeVersion, responses(
    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
    (status = 400, description = "A version that is none", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is older than the one that runs, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change(
    State(App(app)): State<App>,
    StrictJson(wish): StrictJson<ChangeVersion>,
) -> Answer<Response> {
    Ok(accepted(app.changer.change(wish.version, wish.force).await?))
}

/// Goes back to the version before the last change, with its world of then. The world of now
/// is kept as a copy, so that a second rollback undoes the first.
#[utoipa::path(post, path = "/game/version/rollback", operation_id = "roll_back_game_version", tag = "workload", responses(
    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
    (status = 409, description = "There is nothing to go back to, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn roll_back(State(App(app)): State<App>, _: NoBody) -> Answer<Response> {
    Ok(accepted(app.changer.roll_back().await?))
}

/// Compares what is installed of the server with what was installed: its files in the game's
/// folder, its own tree, its runtime. The operation fails, and names what is different, if it is
/// not the same. Worlds are not looked at.
#[utoipa::path(post, path = "/game/version/verify", operation_id = "verify_game_version", tag = "workload", responses(
    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
    (status = 409, description = "It is not installed, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn verify(State(App(app)): State<App>, _: NoBody) -> Answer<Response> {
    tend(&app, Chore::Verify).await
}

/// Compares, and installs it again if it is not the same. Everything is fetched and verified
/// before anything damaged is taken away. Nothing is started.
#[utoipa::path(post, path = "/game/version/repair", operation_id = "repair_game_version", tag = "workload", responses(
    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
    (status = 409, description = "It is not installed, it runs, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn repair(State(App(app)): State<App>, _: NoBody) -> Answer<Response> {
    tend(&app, Chore::Repair).await
}

/// Removes what is installed of a version. Worlds stay.
#[utoipa::path(delete, path = "/game/version/{version}", operation_id = "remove_game_version", tag = "workload",
    params(("version" = String, Path, description = "As listed"), Needed),
    responses(
        (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 404, description = "Nothing of it is installed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is needed, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(App(app)): State<App>,
    version: Result<Path<String>, PathRejection>,
    needed: Result<Query<Needed>, QueryRejection>,
    _: NoBody,
) -> Answer<Response> {
    let Path(version) = version.map_err(|error| invalid(error.body_text()))?;
    check_component("version", &version).map_err(|error| invalid(error.to_string()))?;
    let force = forced(needed)?;
    tend(&app, Chore::Remove { version, force }).await
}

/// Removes every unpacked server that nobody uses: neither configured, nor started by a rollback.
/// Copies of worlds stay.
#[utoipa::path(post, path = "/game/version/gc", operation_id = "collect_game_versions", tag = "workload", responses(
    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
    (status = 409, description = "Nothing is configured, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn collect(State(App(app)): State<App>, _: NoBody) -> Answer<Response> {
    tend(&app, Chore::Collect).await
}

/// Removes a copy of a world, for good.
#[utoipa::path(delete, path = "/game/version/copies/{id}", operation_id = "remove_world_copy", tag = "workload",
    params(("id" = String, Path, description = "As listed"), Needed),
    responses(
        (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 404, description = "There is no such copy", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A rollback goes back to it, or another operation runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove_copy(
    State(App(app)): State<App>,
    id: Result<Path<String>, PathRejection>,
    needed: Result<Query<Needed>, QueryRejection>,
    _: NoBody,
) -> Answer<Response> {
    let Path(id) = id.map_err(|error| invalid(error.body_text()))?;
    let force = forced(needed)?;
    tend(&app, Chore::RemoveCopy { id, force }).await
}

async fn tend(app: &Inner, chore: Chore) -> Answer<Response> {
    Ok(accepted(app.changer.tend(chore).await?))
}

fn forced(needed: Result<Query<Needed>, QueryRejection>) -> Answer<bool> {
    let Query(Needed { force }) = needed.map_err(|error| invalid(error.body_text()))?;
    Ok(force)
}

fn invalid(detail: String) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, detail)
}
