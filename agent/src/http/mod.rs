//! The HTTP surface: parses, asks, answers. It decides nothing about the workload.
//!
//! ```text
//! accept → peer (who is it) → guard (may it) → handler → Handle → the driver
//!          server.rs            guard.rs        one file per noun
//! ```
//!
//! Every answer that is no success is a problem document; no handler can take
//! the process down, and none can hold a connection without bounds.

mod access;
mod audit;
mod body;
mod config;
mod console;
mod console_log;
mod crashes;
#[cfg(test)]
mod describe;
mod guard;
mod health;
mod installed;
mod journal;
mod lifecycle;
mod limits;
mod maintenance;
mod openapi;
mod operations;
mod peer;
mod players;
mod problem;
mod routes;
mod server;
mod shells;
mod status;
mod update;
mod utf8;
mod version;
mod viewer;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use slog::Logger;
use tokio::sync::Semaphore;

use self::access::Policy;
use self::audit::Audit;
use self::limits::{Pace, Quota, Throttle};
use crate::change::Changer;
use crate::config::AgentConfig;
use crate::shell::Shells;
use crate::update::Updater;
use crate::workload::Handle;

pub(crate) use health::TARGET;
pub(crate) use openapi::document as openapi_json;
pub(crate) use server::{bind, serve};

/// What every handler reaches.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    handle: Handle,
    shells: Shells,
    changer: Changer,
    updater: Updater,
    policy: Policy,
    limits: Limits,
    connections: Arc<Semaphore>,
    viewers: Arc<Semaphore>,
    quota: Arc<Quota>,
    throttle: Throttle,
    pace: Pace,
    audit: Audit,
    log: Logger,
}

/// Ceilings of the server; the defaults are the promise, tests take smaller ones.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one local uid that is neither root nor the agent's.
    pub connections_of_a_stranger: usize,
    /// Connections of one remote source.
    pub connections_of_a_remote: usize,
    /// Console viewers.
    pub viewers: usize,
    /// How long a connection may last over which nobody has proved who it is.
    pub unknown: Duration,
    /// From the first idle moment to the end of a request's header.
    pub header: Duration,
    /// From the end of the header to the beginning of the answer.
    pub request: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write_stall: Duration,
    /// Between two pings to a viewer.
    pub ping: Duration,
    /// How long a viewer may answer no ping.
    pub silence: Duration,
    /// How long open requests may go on at the end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_of_a_stranger: 32,
            connections_of_a_remote: 256,
            viewers: 200,
            unknown: Duration::from_secs(5),
            header: Duration::from_secs(10),
            request: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            ping: Duration::from_secs(5),
            silence: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

impl App {
    /// Over the workload's handle, with the rules of the configuration; `log` is the root logger.
    pub(crate) fn new(
        handle: Handle,
        shells: Shells,
        changer: Changer,
        updater: Updater,
        config: &AgentConfig,
        log: &Logger,
    ) -> Self {
        let policy = Policy::new(config, rustix::process::geteuid().as_raw());
        let mut limits = Limits::default();
        // Half of the descriptors is for what else has to go on: shims, files, downloads.
        limits.connections = limits.connections.min(crate::descriptors::limit() / 2).max(8);
        Self::with(handle, shells, changer, updater, policy, limits, crate::log::component(log, "http"))
    }

    fn with(
        handle: Handle,
        shells: Shells,
        changer: Changer,
        updater: Updater,
        policy: Policy,
        limits: Limits,
        log: Logger,
    ) -> Self {
        let audit = Audit::new(handle.journal().clone(), log.clone());
        Self(Arc::new(Inner {
            handle,
            shells,
            changer,
            updater,
            policy,
            connections: Arc::new(Semaphore::new(limits.connections)),
            viewers: Arc::new(Semaphore::new(limits.viewers)),
            quota: Arc::default(),
            throttle: Throttle::default(),
            pace: Pace::default(),
            audit,
            limits,
            log,
        }))
    }
}

/// The routes with everything around them.
fn router(app: App) -> Router {
    routes::routes()
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

#[cfg(test)]
mod tests;
