//! `/game/players`: who is online.

use axum::Json;
use axum::extract::State;
use zlh_api::{Players, Problem};

use super::App;
use super::problem::Answer;

/// Who is online, asked of the server itself.
#[utoipa::path(get, path = "/game/players", tag = "game", responses(
    (status = 200, description = "Who is online", body = Players),
    (status = 409, description = "Nothing is running", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn players(State(App(app)): State<App>) -> Answer<Json<Players>> {
    Ok(Json(app.handle.players().await?))
}
