//! The end-to-end suite: real processes, real sockets, real files.
//!
//! One binary, because linking is what a test build spends its time on. Run it
//! with `make test`, which prepares what it needs.

#![allow(clippy::unwrap_used, reason = "a test says what it could not do by panicking")]

mod addons;
mod adoption;
mod adversary;
mod bounds;
mod browser;
mod bucket;
mod changes;
mod chaos;
mod code_server;
mod console;
mod crashes;
mod deployed;
mod disks;
mod endurance;
mod fake_game;
mod faults;
mod guards;
mod history;
mod http;
mod install;
mod lifecycle;
mod maintenance;
mod operator;
mod promises;
mod readiness;
mod real_runtimes;
mod records;
mod recovery;
mod recycled;
mod repairs;
mod runtimes;
mod shells;
mod stopping;
mod story;
mod unfinished;
mod updates;
mod upkeep;
mod versions;
mod viewers;
