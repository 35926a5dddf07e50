//! `POST /config`: what this container is to run.

use axum::extract::State;
use axum::response::Response;
use zlh_api::{Accepted, Config};

use super::App;
use super::body::StrictJson;
use super::lifecycle::accepted;
use super::problem::Answer;
use crate::workload::Verb;

/// Stores the payload, then installs and starts what it asks for in the background.
///
/// The same payload again changes nothing. The content type is not looked at.
/// Unknown fields are kept; a key that occurs twice is refused. Once a token is
/// set this route needs it, from trusted networks too.
#[utoipa::path(post, path = "/config", tag = "workload", request_body = Config, responses(
    (status = 202, description = "Stored; the operation goes on in the background", body = Accepted,
     headers(("location" = String, description = "`/operations/{id}` of the operation begun"))),
    (status = 400, description = "`bad_json` or `invalid_config`; nothing was stored", body = zlh_api::Problem, content_type = "application/problem+json"),
    (status = 409, description = "Another operation runs, another payload is running, or the version is older than the one this world was opened with", body = zlh_api::Problem, content_type = "application/problem+json")))]
pub(crate) async fn configure(
    State(App(app)): State<App>,
    StrictJson(config): StrictJson<Config>,
) -> Answer<Response> {
    Ok(accepted(app.handle.request(Verb::Configure(Box::new(config))).await?))
}
