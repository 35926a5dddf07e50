//! `/runtimes` and `/addons`: what is installed beside games, and the verbs on it.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use zlh_api::{
    Accepted, ErrorCode, InstalledAddons, InstalledRuntime, InstalledRuntimes, Problem, UpgradeRequest,
};
use zlh_artifacts::InstalledTree;
use zlh_catalog::check_component;

use super::body::{JsonOrDefault, NoBody};
use super::lifecycle::accepted;
use super::problem::{Answer, Failure, quoted};
use super::{App, Inner};
use crate::install::{Act, Kind, Tend, described};
use crate::workload::Verb;

type Named = Result<Path<(String, String)>, PathRejection>;

/// Whether to remove what is configured, too.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Force {
    /// Also the version that is configured to run, while nothing runs (the next start installs
    /// it again), and the one that was chosen.
    #[serde(default)]
    force: bool,
}

/// The same verbs on both; each with its own paths, so that each is described.
macro_rules! verbs {
    ($module:ident, $kind:ident, $body:ident { $field:ident }, $tag:tt,
     $list:tt $list_id:tt, $install:tt $install_id:tt, $verify:tt $verify_id:tt, $repair:tt $repair_id:tt,
     $remove:tt $remove_id:tt, $collect:tt $collect_id:tt, $upgrade:tt $upgrade_id:tt, $back:tt $back_id:tt) => {
        pub(crate) mod $module {
            use super::*;

            /// What is installed.
            #[utoipa::path(get, path = $list, operation_id = $list_id, tag = $tag,
                responses((status = 200, description = "Every installed version", body = $body)))]
            pub(crate) async fn list(State(App(app)): State<App>) -> Answer<Json<$body>> {
                Ok(Json($body { $field: told(&app, Kind::$kind).await? }))
            }

            /// Installs a version from the catalog, beside the others; verified like everything else.
            /// The first one is also chosen.
            #[utoipa::path(post, path = $install, operation_id = $install_id, tag = $tag,
                params(("id" = String, Path, description = "Its id in the catalog"), ("version" = String, Path, description = "Its version")),
                responses(
                    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
                    (status = 409, description = "Another such operation runs", body = Problem, content_type = "application/problem+json")))]
            pub(crate) async fn install(State(App(app)): State<App>, named: Named, _: NoBody) -> Answer<Response> {
                let (id, version) = names(named)?;
                tend(&app, Kind::$kind, Act::Install { id, version }).await
            }

            /// Compares an installed version with what was installed, file by file. The operation
            /// fails, and names what is different, if it is not the same.
            #[utoipa::path(post, path = $verify, operation_id = $verify_id, tag = $tag,
                params(("id" = String, Path, description = "As listed"), ("version" = String, Path, description = "As listed")),
                responses(
                    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
                    (status = 404, description = "It is not installed", body = Problem, content_type = "application/problem+json"),
                    (status = 409, description = "Another such operation runs", body = Problem, content_type = "application/problem+json")))]
            pub(crate) async fn verify(State(App(app)): State<App>, named: Named, _: NoBody) -> Answer<Response> {
                let tree = Box::new(tree(&app, Kind::$kind, named).await?);
                tend(&app, Kind::$kind, Act::Verify(tree)).await
            }

            /// Compares, and installs it again if it is not the same. The archive is fetched and
            /// verified before the damaged tree is taken away.
            #[utoipa::path(post, path = $repair, operation_id = $repair_id, tag = $tag,
                params(("id" = String, Path, description = "As listed"), ("version" = String, Path, description = "As listed")),
                responses(
                    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
                    (status = 404, description = "It is not installed", body = Problem, content_type = "application/problem+json"),
                    (status = 409, description = "The server runs with it, or another such operation runs", body = Problem, content_type = "application/problem+json")))]
            pub(crate) async fn repair(State(App(app)): State<App>, named: Named, _: NoBody) -> Answer<Response> {
                let tree = Box::new(tree(&app, Kind::$kind, named).await?);
                tend(&app, Kind::$kind, Act::Repair(tree)).await
            }

            /// Removes an installed version.
            #[utoipa::path(delete, path = $remove, operation_id = $remove_id, tag = $tag,
                params(("id" = String, Path, description = "As listed"), ("version" = String, Path, description = "As listed"), Force),
                responses(
                    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
                    (status = 404, description = "It is not installed", body = Problem, content_type = "application/problem+json"),
                    (status = 409, description = "It is in use, or another such operation runs", body = Problem, content_type = "application/problem+json")))]
            pub(crate) async fn remove(
                State(App(app)): State<App>,
                named: Named,
                force: Result<Query<Force>, QueryRejection>,
                _: NoBody,
            ) -> Answer<Response> {
                let Query(Force { force }) =
                    force.map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))?;
                let tree = Box::new(tree(&app, Kind::$kind, named).await?);
                tend(&app, Kind::$kind, Act::Remove { tree, force }).await
            }

            /// Removes every version that nobody uses: neither chosen, nor gone back to, nor
            /// configured to run.
            #[utoipa::path(post, path = $collect, operation_id = $collect_id, tag = $tag,
                responses(
                    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
                    (status = 409, description = "Another such operation runs, or an installation", body = Problem, content_type = "application/problem+json")))]
            pub(crate) async fn collect(State(App(app)): State<App>, _: NoBody) -> Answer<Response> {
                tend(&app, Kind::$kind, Act::Collect).await
            }

            /// Chooses a version: installs it beside the others, runs its programs, switches, runs
            /// them again, and switches back if they fail. The one before is kept.
            #[utoipa::path(post, path = $upgrade, operation_id = $upgrade_id, tag = $tag,
                params(("id" = String, Path, description = "Its id in the catalog")),
                request_body = Option<UpgradeRequest>,
                responses(
                    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
                    (status = 400, description = "A version that is none", body = Problem, content_type = "application/problem+json"),
                    (status = 409, description = "Another such operation runs", body = Problem, content_type = "application/problem+json")))]
            pub(crate) async fn upgrade(
                State(App(app)): State<App>,
                id: Result<Path<String>, PathRejection>,
                JsonOrDefault(request): JsonOrDefault<UpgradeRequest>,
            ) -> Answer<Response> {
                let id = name(id)?;
                let version = upgrade_to(request)?;
                tend(&app, Kind::$kind, Act::Upgrade { id, version }).await
            }

            /// Chooses the version before the last upgrade again. Twice is as before.
            #[utoipa::path(post, path = $back, operation_id = $back_id, tag = $tag,
                params(("id" = String, Path, description = "As listed")),
                responses(
                    (status = 202, description = "Under way", body = Accepted, headers(("location" = String, description = "`/operations/{id}`"))),
                    (status = 409, description = "Another such operation runs", body = Problem, content_type = "application/problem+json")))]
            pub(crate) async fn roll_back(
                State(App(app)): State<App>,
                id: Result<Path<String>, PathRejection>,
                _: NoBody,
            ) -> Answer<Response> {
                let id = name(id)?;
                tend(&app, Kind::$kind, Act::RollBack { id }).await
            }
        }
    };
}

verbs!(runtimes, Runtimes, InstalledRuntimes { runtimes }, "runtimes",
    "/runtimes" "list_runtimes", "/runtimes/{id}/{version}/install" "install_runtime",
    "/runtimes/{id}/{version}/verify" "verify_runtime", "/runtimes/{id}/{version}/repair" "repair_runtime",
    "/runtimes/{id}/{version}" "remove_runtime", "/runtimes/gc" "collect_runtimes",
    "/runtimes/{id}/upgrade" "upgrade_runtime", "/runtimes/{id}/rollback" "roll_back_runtime");
verbs!(addons, Addons, InstalledAddons { addons }, "addons",
    "/addons" "list_addons", "/addons/{id}/{version}/install" "install_addon",
    "/addons/{id}/{version}/verify" "verify_addon", "/addons/{id}/{version}/repair" "repair_addon",
    "/addons/{id}/{version}" "remove_addon", "/addons/gc" "collect_addons",
    "/addons/{id}/upgrade" "upgrade_addon", "/addons/{id}/rollback" "roll_back_addon");

async fn tend(app: &Inner, kind: Kind, act: Act) -> Answer<Response> {
    Ok(accepted(app.handle.request(Verb::Tend(Tend { kind, act })).await?))
}

async fn told(app: &Inner, kind: Kind) -> Answer<Vec<InstalledRuntime>> {
    let used = app.handle.runtime_in_use().filter(|_| kind == Kind::Runtimes);
    let told = |tree| described(tree, used.as_deref());
    Ok(trees(app, kind).await?.into_iter().map(told).collect())
}

fn invalid(detail: String) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, detail)
}

fn name(id: Result<Path<String>, PathRejection>) -> Answer<String> {
    let Path(id) = id.map_err(|error| invalid(error.body_text()))?;
    check_component("id", &id).map_err(|error| invalid(error.to_string()))?;
    Ok(id)
}

fn upgrade_to(request: UpgradeRequest) -> Answer<Option<String>> {
    if let Some(version) = &request.version {
        check_component("version", version).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(request.version)
}

fn names(named: Named) -> Answer<(String, String)> {
    let Path((id, version)) = named.map_err(|error| invalid(error.body_text()))?;
    for (what, text) in [("id", &id), ("version", &version)] {
        check_component(what, text).map_err(|error| invalid(error.to_string()))?;
    }
    Ok((id, version))
}

/// The installed tree of that name; of several the one its path leads to.
async fn tree(app: &Inner, kind: Kind, named: Named) -> Answer<InstalledTree> {
    let (id, version) = names(named)?;
    let all = trees(app, kind).await?.into_iter();
    let mut found: Vec<InstalledTree> =
        all.filter(|tree| tree.name == id && tree.version == version).collect();
    found.sort_by_key(|tree| tree.current);
    let listed = match kind {
        Kind::Runtimes => "runtimes",
        Kind::Addons => "addons",
    };
    found.pop().ok_or_else(|| {
        Failure::new(
            ErrorCode::NotFound,
            format!("{} {} is not installed; GET /{listed} lists what is", quoted(&id), quoted(&version)),
        )
    })
}

async fn trees(app: &Inner, kind: Kind) -> Answer<Vec<InstalledTree>> {
    app.handle.installed(kind).await.map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("what is installed cannot be read: {error}"))
    })
}
