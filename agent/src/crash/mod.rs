//! Why the game died: the evidence is gathered, looked at, and kept.
//!
//! ```text
//!  became ready ─► last_good   what was there when it worked
//!  ended ───────► inquest      exit, cgroup, console, reports, disk, jars ─► CrashRecord
//!                 archive      the last 50 records
//!  asked ───────► repair       what a record's remedy lets the agent do
//! ```
//!
//! Nothing here delays the driver: it is told what was found as an event. Nothing here
//! writes into the game's folder but [`repair`], and that only when asked.

mod archive;
mod inquest;
mod last_good;
mod port_owner;

pub(crate) use port_owner::listener;
pub(crate) mod repair;
mod wire;

pub(crate) use archive::{Archive, id_of};
pub(crate) use inquest::{Inquest, LOG_TAIL_LINES, facts_of, server_of};
pub(crate) use last_good::LastGood;
