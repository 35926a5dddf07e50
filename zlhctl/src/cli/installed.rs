//! `runtimes`, `addons`, `game` and `agent`: what is installed, and its versions.

use clap::{Args, Subcommand};

use super::{One, Patience};

#[derive(Debug, Subcommand)]
pub(crate) enum InstalledCommand {
    /// List the installed versions
    List(One),
    /// Install a version from the catalog, beside the others
    Install(OneVersion),
    /// Compare an installed version with what was installed, file by file
    Verify(OneVersion),
    /// Compare, and install it again if it is not the same
    Repair(OneVersion),
    /// Use another version: install it, try it, switch, and switch back if it fails
    Upgrade {
        #[command(flatten)]
        one: One,
        /// For example java
        #[arg(value_name = "ID")]
        id: String,
        /// For example 21.0.9 [default: the newest that is offered]
        #[arg(value_name = "VERSION")]
        version: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Use the version before the last upgrade again
    Rollback {
        #[command(flatten)]
        one: One,
        /// For example java
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Remove a version
    Remove {
        #[command(flatten)]
        one: OneVersion,
        /// Also the one that is configured to run, or chosen; the next start installs it again
        #[arg(long)]
        force: bool,
    },
    /// Remove every version that nobody uses
    Gc {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        patience: Patience,
    },
}

/// One version of something on one agent.
#[derive(Debug, Args)]
pub(crate) struct OneVersion {
    #[command(flatten)]
    pub(crate) one: One,
    /// For example java
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// For example 21.0.9
    #[arg(value_name = "VERSION")]
    pub(crate) version: String,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GameCommand {
    /// Say which version is installed, and what a rollback goes back to
    Version(One),
    /// Change to another version
    ///
    /// Everything is fetched while the server runs. Then it is stopped, its folder is copied, and
    /// the new version is started. If that does not become ready, the version before comes back,
    /// with its world as it was. The version that runs, given again, gets the newest runtime.
    Upgrade {
        #[command(flatten)]
        one: One,
        /// For example 1.21.7
        #[arg(value_name = "VERSION")]
        version: String,
        /// Also to an older version, which may destroy a world that a newer one has opened
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Go back to the version before the last change, with its world of then
    ///
    /// The world of now is kept as a copy: a second rollback undoes the first.
    Rollback {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        patience: Patience,
    },
    /// Compare the server's files, its tree and its runtime with what was installed
    Verify {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        patience: Patience,
    },
    /// Compare, and install again what is not the same; the server has to be stopped
    ///
    /// Everything is fetched and verified before anything damaged is taken away. Worlds are not
    /// touched, and nothing is started.
    Repair {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        patience: Patience,
    },
    /// Remove what is installed of a version; worlds stay
    Remove {
        #[command(flatten)]
        one: One,
        /// For example 1.21.7
        #[arg(value_name = "VERSION")]
        version: String,
        /// Also the configured one (the next start installs it again), and one that a rollback starts
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Remove a copy of a world, for good
    RemoveCopy {
        #[command(flatten)]
        one: One,
        /// As `zlhctl game version` lists it
        #[arg(value_name = "COPY")]
        copy: String,
        /// Also the one that a rollback goes back to
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Remove every unpacked server that nobody uses; copies of worlds stay
    Gc {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        patience: Patience,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Say which version runs, and whether a newer one is offered
    Status(One),
    /// Update an agent; the game goes on
    ///
    /// The new version passes its own test before it takes over, and answers after it, or the one
    /// before is back within 10 s.
    Update {
        #[command(flatten)]
        one: One,
        /// For example 1.4.0 [default: the newest that is offered]
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Also an older version, and the one that runs
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: Patience,
    },
}
