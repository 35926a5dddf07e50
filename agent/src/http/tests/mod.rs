//! The HTTP surface against a scripted driver: routes, access, abuse, consoles.

mod abuse;
mod access;
mod fixture;
mod history;
mod routes;
mod viewer;
