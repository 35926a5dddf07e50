//! The HTTP surface against a scripted driver: routes, access, abuse, consoles.

mod abuse;
mod access;
mod console_log;
mod crashes;
mod fixture;
mod routes;
mod typing;
mod viewer;
mod viewer_v1;
