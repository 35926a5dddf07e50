//! `/runtimes`: what is installed to run things with, and the verbs on it.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use zlh_api::{Accepted, ErrorCode, InstalledRuntime, InstalledRuntimes, Problem};
use zlh_artifacts::InstalledTree;
use zlh_catalog::check_component;

use super::body::NoBody;
use super::lifecycle::accepted;
use super::problem::{Answer, Failure, quoted};
use super::{App, Inner};
use crate::install::{Tend, is};
use crate::workload::Verb;

type Named = Result<Path<(String, String)>, PathRejection>;

/// The installed runtimes.
#[utoipa::path(get, path = "/runtimes", operation_id = "list_runtimes", tag = "runtimes",
    responses((status = 200, description = "Every installed version", body = InstalledRuntimes)))]
pub(crate) async fn list(State(App(app)): State<App>) -> Answer<Json<InstalledRuntimes>> {
    let used = app.handle.runtime_in_use();
    let told = |tree: InstalledTree| InstalledRuntime {
        in_use: is(&tree, used.as_deref()),
        path: tree.dir.display().to_string(),
        sha256: tree.sha256.to_string(),
        entries: tree.entries,
        bytes: tree.bytes,
        current: tree.current,
        installed_at: tree
            .installed
            .and_then(|at| jiff::Timestamp::try_from(at).ok())
            .map(crate::clock::rfc3339),
        id: tree.name,
        version: tree.version,
    };
    let runtimes = trees(&app).await?.into_iter().map(told).collect();
    Ok(Json(InstalledRuntimes { runtimes }))
}

/// Installs a version from the catalog, beside the others; verified like everything else.
#[utoipa::path(post, path = "/runtimes/{id}/{version}/install", operation_id = "install_runtime", tag = "runtimes",
    params(("id" = String, Path, description = "Runtime id of the catalog"), ("version" = String, Path, description = "Its version")),
    responses(
        (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 409, description = "Another operation on runtimes runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn install(State(App(app)): State<App>, named: Named, _: NoBody) -> Answer<Response> {
    let (id, version) = names(named)?;
    Ok(accepted(app.handle.request(Verb::Tend(Tend::Install { id, version })).await?))
}

/// Compares an installed version with what was installed, file by file. The operation fails,
/// and names what is different, if it is not the same.
#[utoipa::path(post, path = "/runtimes/{id}/{version}/verify", operation_id = "verify_runtime", tag = "runtimes",
    params(("id" = String, Path, description = "As in `GET /runtimes`"), ("version" = String, Path, description = "As there")),
    responses(
        (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 404, description = "It is not installed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another operation on runtimes runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn verify(State(App(app)): State<App>, named: Named, _: NoBody) -> Answer<Response> {
    let tree = Box::new(tree(&app, named).await?);
    Ok(accepted(app.handle.request(Verb::Tend(Tend::Verify(tree))).await?))
}

/// Compares, and installs it again if it is not the same. The archive is fetched and verified
/// before the damaged tree is taken away.
#[utoipa::path(post, path = "/runtimes/{id}/{version}/repair", operation_id = "repair_runtime", tag = "runtimes",
    params(("id" = String, Path, description = "As in `GET /runtimes`"), ("version" = String, Path, description = "As there")),
    responses(
        (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 404, description = "It is not installed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The server runs with it, or another operation on runtimes runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn repair(State(App(app)): State<App>, named: Named, _: NoBody) -> Answer<Response> {
    let tree = Box::new(tree(&app, named).await?);
    Ok(accepted(app.handle.request(Verb::Tend(Tend::Repair(tree))).await?))
}

/// Whether to remove what is configured, too.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Force {
    /// Also the version that is configured to run, while nothing runs; the next start installs
    /// it again.
    #[serde(default)]
    force: bool,
}

/// Removes an installed version.
#[utoipa::path(delete, path = "/runtimes/{id}/{version}", operation_id = "remove_runtime", tag = "runtimes",
    params(("id" = String, Path, description = "As in `GET /runtimes`"), ("version" = String, Path, description = "As there"), Force),
    responses(
        (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 404, description = "It is not installed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is in use, or another operation on runtimes runs", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(App(app)): State<App>,
    named: Named,
    force: Result<Query<Force>, QueryRejection>,
    _: NoBody,
) -> Answer<Response> {
    let Query(Force { force }) =
        force.map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))?;
    let tree = Box::new(tree(&app, named).await?);
    Ok(accepted(app.handle.request(Verb::Tend(Tend::Remove { tree, force })).await?))
}

/// Removes every version that nobody uses.
#[utoipa::path(post, path = "/runtimes/gc", operation_id = "collect_runtimes", tag = "runtimes",
    responses(
        (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 409, description = "Another operation on runtimes runs, or an installation", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn collect(State(App(app)): State<App>, _: NoBody) -> Answer<Response> {
    Ok(accepted(app.handle.request(Verb::Tend(Tend::Collect)).await?))
}

fn names(named: Named) -> Answer<(String, String)> {
    let invalid = |detail: String| Failure::new(ErrorCode::InvalidRequest, detail);
    let Path((id, version)) = named.map_err(|error| invalid(error.body_text()))?;
    for (what, text) in [("runtime", &id), ("version", &version)] {
        check_component(what, text).map_err(|error| invalid(error.to_string()))?;
    }
    Ok((id, version))
}

/// The installed tree of that name; of several the one its path leads to.
async fn tree(app: &Inner, named: Named) -> Answer<InstalledTree> {
    let (id, version) = names(named)?;
    let mut found: Vec<InstalledTree> =
        trees(app).await?.into_iter().filter(|tree| tree.name == id && tree.version == version).collect();
    found.sort_by_key(|tree| tree.current);
    found.pop().ok_or_else(|| {
        Failure::new(
            ErrorCode::NotFound,
            format!("{} {} is not installed; GET /runtimes lists what is", quoted(&id), quoted(&version)),
        )
    })
}

async fn trees(app: &Inner) -> Answer<Vec<InstalledTree>> {
    app.handle
        .runtimes()
        .await
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the runtimes cannot be read: {error}")))
}
