//! Workloads: what runs in this container and how it is kept running.
//!
//! `handle` is what the rest of the agent sees; `machine` and `policy` decide, purely;
//! `driver` performs; `boot` finds out what an earlier agent left behind,
//! `launcher` starts shims, `shutdown` ends with the container.

mod boot;
mod configuring;
mod drain;
mod driver;
mod due;
mod effects;
mod events;
mod exits;
mod explaining;
mod handle;
mod journaling;
mod launcher;
mod machine;
mod maintenance;
mod operations;
mod orphan;
mod picture;
mod policy;
mod regain;
mod saving;
mod shim_client;
mod shutdown;
mod snapshot;
mod start;
mod stopping;
mod stored;
mod tending;

pub(crate) use boot::boot;
#[cfg(test)]
pub(crate) use handle::Request;
pub(crate) use handle::{Handle, Outcome, Repair, Verb, Withdrawn};
pub(crate) use launcher::{Launcher, Order};
pub(crate) use maintenance::refusal as maintenance_refusal;
#[cfg(test)]
pub(crate) use operations::Operations;
pub(crate) use orphan::sweep_slot;
pub(crate) use policy::Limits;
pub(crate) use shim_client::ShimClient;
pub(crate) use snapshot::Snapshot;
pub(crate) use start::{game_user, make_game_root};
pub(crate) use stored::Shelf;
