//! What happens around every handler: access, deadline, panics, headers, log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use slog::{debug, error, info, warn};
use tokio::sync::{OwnedSemaphorePermit, watch};
use zlh_api::ErrorCode;

use super::App;
use super::access::{Call, Denial};
use super::limits::{Place, Source};
use super::peer::Peer;
use super::problem::{Failure, quoted};

/// The connection a request came by; an extension of every request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who is at its other end.
    pub peer: Peer,
    /// Counts the connection; a handler that outlives its response keeps a copy.
    pub seat: Arc<Seat>,
    /// Turns true (or closes) when the agent ends.
    pub shutdown: watch::Receiver<bool>,
}

/// One connection's place among all, and among those of its source.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) _permit: OwnedSemaphorePermit,
    pub(crate) _place: Place,
    /// Whoever came by it is known by who it is, or has brought a token.
    pub(crate) known: AtomicBool,
}

/// Access first, then the handler under a deadline; whatever happens, an answer.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    // Without a connection nothing is known of the peer, and so nothing is granted.
    let caller = request.extensions().get::<Caller>();
    let peer = caller.map_or(Peer::Local(None), |caller| caller.peer);
    let mut response = match admit(&app, peer, &request, started) {
        Ok(()) => {
            // What everybody may ask proves nothing.
            if let Some(caller) = caller.filter(|_| !app.0.policy.is_open(&uri)) {
                caller.seat.known.store(true, Ordering::Relaxed);
            }
            run(&app, &method, &uri, request, next).await
        }
        Err(failure) => failure.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let (status, path, ms) = (response.status().as_u16(), uri.path(), started.elapsed().as_millis());
    let (method, peer) = (method.as_str(), peer.to_string());
    let ms = u64::try_from(ms).unwrap_or(u64::MAX);
    if method == "POST" && status != 401 && status != 403 {
        info!(app.0.log, "request"; "method" => method, "path" => path, "status" => status, "ms" => ms, "peer" => peer);
    } else {
        debug!(app.0.log, "request"; "method" => method, "path" => path, "status" => status, "ms" => ms, "peer" => peer);
    }
    response
}

/// No such route.
pub(crate) async fn not_found(uri: Uri) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!("there is no {}; GET /openapi.json lists the routes", quoted(uri.path())),
    )
}

/// The route has other methods; axum adds `Allow`.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    let detail = format!(
        "{} does not take {}; the Allow header says what it takes",
        quoted(uri.path()),
        quoted(method.as_str())
    );
    Failure::new(ErrorCode::MethodNotAllowed, detail)
}

fn admit(app: &App, peer: Peer, request: &Request, now: Instant) -> Result<(), Failure> {
    let App(app) = app;
    let call = Call { method: request.method(), uri: request.uri(), headers: request.headers() };
    let source = Source::from(peer);
    if app.policy.brings_token(&call)
        && let Some(wait) = app.throttle.wait(source, now)
    {
        let detail = format!("too many wrong tokens; wait {} s", wait.as_secs().max(1));
        return Err(Failure::new(ErrorCode::TooManyAttempts, detail).retry_after(wait));
    }
    app.policy.decide(peer, &call).map_err(|denial| {
        if denial == Denial::WrongToken && app.throttle.failed(source, now) {
            warn!(app.log, "too many wrong tokens, its tokens are not looked at for a while"; "peer" => peer.to_string());
        }
        denial.into()
    })
}

async fn run(app: &App, method: &Method, uri: &Uri, request: Request, next: Next) -> Response {
    let App(app) = app;
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(app.limits.request, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            error!(app.log, "a handler panicked"; "method" => method.as_str(), "path" => uri.path());
            Failure::new(ErrorCode::Internal, "a fault in the agent, its log says more; please report it")
                .into_response()
        }
        Err(_) => {
            warn!(app.log, "a request ran out of time"; "method" => method.as_str(), "path" => uri.path());
            let detail = format!(
                "no answer within {} s; GET /operations says what the agent is doing",
                app.limits.request.as_secs()
            );
            Failure::new(ErrorCode::Busy, detail).into_response()
        }
    }
}
