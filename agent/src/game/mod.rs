//! What only games know: payload rules, launch plans, Server List Ping.

pub(crate) mod files;
pub(crate) mod payload;
pub(crate) mod plan;
pub(crate) mod probe;
pub(crate) mod rcon;
pub(crate) mod slp;
pub(crate) mod worlds;
