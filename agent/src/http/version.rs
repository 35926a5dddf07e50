//! `/game/version`: changing the version of a server, and going back.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use zlh_api::{Accepted, ChangeVersion, GameVersion, Problem};

use super::App;
use super::body::{NoBody, StrictJson};
use super::lifecycle::accepted;
use super::problem::Answer;

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
