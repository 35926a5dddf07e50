//! `zlhctl maintenance`.

use clap::{Args, Subcommand};

use super::Lifecycle;
use super::examples::{MAINTENANCE_OFF_EXAMPLES, MAINTENANCE_ON_EXAMPLES};

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Stop servers, and let nothing start them until it is over
    #[command(after_long_help = MAINTENANCE_ON_EXAMPLES)]
    On(MaintenanceOn),
    /// End it, and start again what was meant to run
    #[command(after_long_help = MAINTENANCE_OFF_EXAMPLES)]
    Off(MaintenanceOff),
}

#[derive(Debug, Args)]
pub(crate) struct MaintenanceOn {
    #[command(flatten)]
    pub(crate) lifecycle: Lifecycle,
    /// What for: shown to whoever asks for a start
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Do not stop what runs; once it has ended it stays down
    #[arg(long, conflicts_with = "now")]
    pub(crate) keep_running: bool,
    /// Do not warn players first; the world is saved all the same
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MaintenanceOff {
    #[command(flatten)]
    pub(crate) lifecycle: Lifecycle,
    /// Leave it down, until somebody starts it
    #[arg(long)]
    pub(crate) no_start: bool,
}
