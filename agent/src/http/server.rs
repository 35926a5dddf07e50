//! The accept loop: every connection has an owner, a deadline and a place.
//!
//! Order for each: a place among all (else 503), who is it, a place among those
//! of its source (else 503), then HTTP/1.1. An accept that fails for want of
//! descriptors waits instead of spinning. At the end the listener closes first,
//! open requests get a few seconds, the rest is cut.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slog::{debug, info, warn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use zlh_api::ErrorCode;

use super::App;
use super::guard::{Caller, Seat};
use super::limits::Source;
use super::peer::{Ends, Peer};
use super::problem::{Failure, MEDIA_TYPE};

/// Opens the listener, so that a port in use is known before anything else starts.
///
/// # Errors
/// Of the system; the caller names the address.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `shutdown` turns true (or its sender is gone), then drains.
pub(crate) async fn serve(listener: TcpListener, app: App, mut shutdown: watch::Receiver<bool>) {
    let router = super::router(app.clone());
    let farewells = Arc::new(Semaphore::new(MAX_FAREWELLS));
    let mut tasks = JoinSet::new();
    let mut pause = MIN_PAUSE;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    pause = MIN_PAUSE;
                    match Arc::clone(&app.0.connections).try_acquire_owned() {
                        Ok(permit) => {
                            let connection = Connection { app: app.clone(), router: router.clone(), shutdown: shutdown.clone() };
                            tasks.spawn(connection.run(stream, remote, permit));
                        }
                        Err(_) => if let Ok(permit) = Arc::clone(&farewells).try_acquire_owned() {
                            tasks.spawn(async move {
                                turn_away(stream).await;
                                drop(permit);
                            });
                        },
                    }
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    warn!(app.0.log, "cannot accept connections, trying again"; "error" => %error, "after_ms" => ms(pause));
                    tokio::select! {
                        () = stopped(&mut shutdown) => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            },
        }
    }
    drop(listener);
    drain(&app, tasks).await;
}

/// Completes at the end of the agent.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}

struct Connection {
    app: App,
    router: Router,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    async fn run(mut self, stream: TcpStream, remote: SocketAddr, permit: OwnedSemaphorePermit) {
        let App(app) = &self.app;
        // Consoles are made of small writes; a failure costs latency only.
        let _ = stream.set_nodelay(true);
        let peer = match self.identify(&stream, remote).await {
            Some(Ok(peer)) => peer,
            // Nobody knows who it is: not a reason to call it a stranger.
            Some(Err(_)) => return turn_away(stream).await,
            None => return,
        };
        let limit = match peer {
            _ if app.policy.privileged(peer) => app.limits.connections,
            Peer::Local(_) => app.limits.connections_of_a_stranger,
            Peer::Remote(_) => app.limits.connections_of_a_remote,
        };
        let Some(place) = app.quota.take(Source::from(peer), limit) else {
            return turn_away(stream).await;
        };
        let known = AtomicBool::new(app.policy.knows(peer));
        let seat = Arc::new(Seat { _permit: permit, _place: place, known });
        let caller = Caller { peer, seat: Arc::clone(&seat), shutdown: self.shutdown.clone() };
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            self.router.clone().oneshot(request.map(Body::new))
        });
        // Of whatever is written, to an upgraded connection as well: who reads slowly is kept,
        // who reads no more is not.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(app.limits.write_stall));
        let io = TokioIo::new(Box::pin(stream));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(app.limits.header)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut self.shutdown) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = remains_unknown(&seat, app.limits.unknown) => {
                connection.as_mut().graceful_shutdown();
                // An answer that is under way may end.
                match tokio::time::timeout(FAREWELL, connection).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            debug!(app.log, "connection ended early"; "peer" => format!("{peer:?}"), "error" => %error);
        }
    }

    /// None when the connection is gone already.
    async fn identify(&self, stream: &TcpStream, remote: SocketAddr) -> Option<io::Result<Peer>> {
        let local = stream.local_addr().ok()?;
        let inode = rustix::fs::fstat(stream.as_fd()).ok()?.st_ino;
        let certain = self.app.0.policy.trusts(remote.ip());
        let ends = Ends { local, remote, inode };
        tokio::task::spawn_blocking(move || Peer::identify(&ends, certain)).await.ok()
    }
}

/// Ready when nobody has proved within `patience` who it is.
async fn remains_unknown(seat: &Seat, patience: Duration) {
    if !seat.known.load(Ordering::Relaxed) {
        tokio::time::sleep(patience).await;
    }
    if seat.known.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// A 503 that costs next to nothing, and a moment for the peer to read it.
async fn turn_away(mut stream: TcpStream) {
    let body =
        Failure::new(ErrorCode::Busy, "too many connections; close some, or try again later").to_json();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Closing with unread input would reset the connection and take the answer with it.
    let farewell = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

async fn drain(app: &App, mut tasks: JoinSet<()>) {
    let App(app) = app;
    let all = u32::try_from(app.limits.connections).unwrap_or(u32::MAX);
    let finished = async {
        while tasks.join_next().await.is_some() {}
        // Upgraded connections live in tasks of their own, but keep their seats.
        let _ = app.connections.acquire_many(all).await;
    };
    match tokio::time::timeout(app.limits.drain, finished).await {
        Ok(()) => debug!(app.log, "all connections are closed"),
        Err(_) => info!(app.log, "connections were cut"; "after_ms" => ms(app.limits.drain)),
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
const MAX_FAREWELLS: usize = 64;
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 64 * 1024;
