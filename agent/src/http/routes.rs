//! Which handler answers what: the one list from which both the router and its description come.

use axum::Router;
use axum::routing::{delete, get, post, put};

use super::installed::{addons, runtimes};
use super::{
    App, config, console, console_log, crashes, health, journal, lifecycle, maintenance, openapi, operations,
    players, shells, status, update, version, viewer,
};

/// From `method "path" module::handler` the routes, and in tests their description as well.
macro_rules! routes {
    ($($method:ident $path:literal $module:ident::$handler:ident,)+) => {
        /// The routes.
        pub(super) fn routes() -> Router<App> {
            Router::new()$(.route($path, $method($module::$handler)))+
        }

        /// What the description must have, neither more nor less.
        #[cfg(test)]
        pub(super) const TABLE: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        /// The same with their description. What is shipped has the finished document only.
        #[cfg(test)]
        pub(super) fn described() -> utoipa_axum::router::OpenApiRouter<App> {
            utoipa_axum::router::OpenApiRouter::default()
                $(.routes(utoipa_axum::routes!($module::$handler)))+
        }
    };
}

routes! {
    get "/health" health::health,
    get "/version" health::version,
    get "/status" status::status,
    get "/ready" status::ready,
    post "/config" config::configure,
    post "/start" lifecycle::start,
    post "/stop" lifecycle::stop,
    post "/restart" lifecycle::restart,
    get "/maintenance" maintenance::maintenance,
    put "/maintenance" maintenance::begin,
    delete "/maintenance" maintenance::end,
    post "/console/command" console::command,
    get "/console/log" console_log::log,
    get "/console/stream" viewer::stream,
    get "/console/ws" viewer::ws,
    get "/game/players" players::players,
    get "/history" journal::history,
    get "/crashes" crashes::list,
    get "/crashes/{id}" crashes::one,
    post "/crashes/{id}/actions/{action}" crashes::act,
    get "/runtimes" runtimes::list,
    post "/runtimes/{id}/{version}/install" runtimes::install,
    post "/runtimes/{id}/{version}/verify" runtimes::verify,
    post "/runtimes/{id}/{version}/repair" runtimes::repair,
    delete "/runtimes/{id}/{version}" runtimes::remove,
    post "/runtimes/gc" runtimes::collect,
    post "/runtimes/{id}/upgrade" runtimes::upgrade,
    post "/runtimes/{id}/rollback" runtimes::roll_back,
    get "/addons" addons::list,
    post "/addons/{id}/{version}/install" addons::install,
    post "/addons/{id}/{version}/verify" addons::verify,
    post "/addons/{id}/{version}/repair" addons::repair,
    delete "/addons/{id}/{version}" addons::remove,
    post "/addons/gc" addons::collect,
    post "/addons/{id}/upgrade" addons::upgrade,
    post "/addons/{id}/rollback" addons::roll_back,
    get "/game/version" version::get,
    post "/game/version" version::change,
    post "/game/version/rollback" version::roll_back,
    post "/game/version/verify" version::verify,
    post "/game/version/repair" version::repair,
    post "/game/version/gc" version::collect,
    delete "/game/version/{version}" version::remove,
    delete "/game/version/copies/{id}" version::remove_copy,
    post "/agent/update" update::update,
    get "/agent/update/status" update::status,
    get "/shells" shells::list,
    post "/shells" shells::open,
    get "/shells/{name}" shells::one,
    delete "/shells/{name}" shells::close,
    get "/shells/{name}/stream" viewer::shell,
    get "/operations" operations::list,
    get "/operations/{id}" operations::one,
    get "/openapi.json" openapi::openapi,
}
