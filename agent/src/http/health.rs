//! `/health` and `/version`: whether there is an agent, and which.

use axum::Json;
use zlh_api::Version;

/// Answers `ok` while the agent lives; open to everybody, touches nothing that can block.
#[utoipa::path(get, path = "/health", tag = "agent", security(()),
    responses((status = 200, description = "Always `ok`", body = String, content_type = "text/plain")))]
pub(crate) async fn health() -> &'static str {
    "ok"
}

/// The agent's own version.
#[utoipa::path(get, path = "/version", tag = "agent",
    responses((status = 200, description = "The version", body = Version)))]
pub(crate) async fn version() -> Json<Version> {
    Json(Version {
        version: format!("v{}", crate::version()),
        commit: option_env!("ZLH_COMMIT").unwrap_or_default().to_owned(),
        target: TARGET.to_owned(),
    })
}

/// Target triple of this binary.
pub(crate) const TARGET: &str =
    match (cfg!(target_arch = "x86_64"), cfg!(target_arch = "aarch64"), cfg!(target_env = "musl")) {
        (true, _, true) => "x86_64-unknown-linux-musl",
        (true, _, false) => "x86_64-unknown-linux-gnu",
        (_, true, true) => "aarch64-unknown-linux-musl",
        (_, true, false) => "aarch64-unknown-linux-gnu",
        _ => "unknown",
    };
