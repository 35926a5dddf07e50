//! `/crashes`: what ended the server lately, why, and what the agent does about it when
//! it is asked to.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use zlh_api::{Accepted, CrashAction, CrashActionId, CrashRecord, Crashes, ErrorCode, Problem};

use super::App;
use super::body::NoBody;
use super::lifecycle::accepted;
use super::problem::{Answer, Failure, quoted};
use crate::workload::{Repair, Verb};

/// The last crashes, newest first.
#[utoipa::path(get, path = "/crashes", operation_id = "list_crashes", tag = "crashes",
    responses((status = 200, description = "Newest first, at most 50", body = Crashes)))]
pub(crate) async fn list(State(App(app)): State<App>) -> Answer<Json<Crashes>> {
    let archive = app.handle.crashes().clone();
    let crashes = blocking(move || archive.list()).await?;
    Ok(Json(Crashes { crashes }))
}

/// One crash with its evidence.
#[utoipa::path(get, path = "/crashes/{id}", operation_id = "get_crash", tag = "crashes",
    params(("id" = String, Path, description = "As in `GET /crashes`")),
    responses(
        (status = 200, description = "The crash", body = CrashRecord),
        (status = 404, description = "None of that id is kept any more", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn one(
    State(App(app)): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<Json<CrashRecord>> {
    let Path(id) = id.map_err(|_| unknown("that is no text"))?;
    find(&app, id).await.map(Json)
}

/// Does what a step of the remedy offers. Never done unasked; the server must not run.
#[utoipa::path(post, path = "/crashes/{id}/actions/{action}", operation_id = "act_on_crash", tag = "crashes",
    params(("id" = String, Path, description = "As in `GET /crashes`"),
           ("action" = CrashActionId, Path, description = "Id of an action that a step of this crash's remedy offers")),
    responses(
        (status = 202, description = "Under way, or done", body = Accepted,
         headers(("location" = String, description = "`/operations/{id}`"))),
        (status = 404, description = "No such crash, or its remedy does not offer that", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The server runs, another operation runs, or this step is a person's", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn act(
    State(App(app)): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    _: NoBody,
) -> Answer<Response> {
    let Path((id, action)) = path.map_err(|_| unknown("that is no text"))?;
    let crash = find(&app, id).await?;
    let offered = crash.remedy.iter().filter_map(|step| step.action.as_ref());
    // A newer agent's remedies are not ours to name.
    let offered: Vec<&CrashAction> = offered.filter(|action| action.id != CrashActionId::Unknown).collect();
    let name = |one: &CrashAction| {
        serde_json::to_value(one.id).ok().and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let Some(wanted) = offered.iter().find(|one| name(one) == action) else {
        let names: Vec<String> = offered.iter().filter(|one| one.available).map(|one| name(one)).collect();
        let what = if names.is_empty() {
            "it offers none".to_owned()
        } else {
            format!("it offers {}", names.join(", "))
        };
        return Err(Failure::new(
            ErrorCode::NotFound,
            format!("the remedy of crash {} has no action {}; {what}", crash.id, quoted(&action)),
        ));
    };
    let repair = Some(wanted)
        .filter(|action| action.available)
        .and_then(|action| repair(action))
        .ok_or_else(|| {
            Failure::new(
                ErrorCode::WrongState,
                format!("this agent cannot do {action} by itself: follow the step's text"),
            )
        })?;
    Ok(accepted(app.handle.request(Verb::Repair { repair, server: crash.server }).await?))
}

fn repair(action: &CrashAction) -> Option<Repair> {
    match action.id {
        CrashActionId::ReinstallServer => Some(Repair::Reinstall),
        CrashActionId::AcceptEula => Some(Repair::AcceptEula),
        CrashActionId::DisableAddon => action.file.clone().map(Repair::DisableAddon),
        CrashActionId::FreePort => action.port.map(Repair::FreePort),
        CrashActionId::SwitchJava => action.version.map(Repair::SwitchJava),
        CrashActionId::RestoreRegion | CrashActionId::Unknown => None,
    }
}

async fn find(app: &super::Inner, id: String) -> Result<CrashRecord, Failure> {
    let archive = app.handle.crashes().clone();
    let found = {
        let id = id.clone();
        blocking(move || archive.get(&id)).await?
    };
    found.ok_or_else(|| unknown(&id))
}

fn unknown(id: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("no crash {}; GET /crashes lists them", quoted(id)))
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the records cannot be read: {error}")))
}
