//! The shim: a small process that holds one workload's terminal and child while
//! agents come, go, crash and are upgraded.
//!
//! ```text
//!  zlh-agent run ──spawns──► zlh-agent shim ──spawns──► zlh-agent exec ──execve──► java, node …
//!        │   unix socket 0600       │  PTY master, console log, exit record
//!        └──────────────────────────┘  child subreaper, stop ladder
//! ```
//!
//! - [`holder`] is the process itself: single-threaded, no async runtime, one `poll` loop.
//! - [`ladder`] is how a stop goes, for the holder and for an agent without one.
//! - [`exec_stage`] drops privileges and becomes the workload.
//! - [`proto`], [`frame`] and [`connect`] are the protocol; `PROTOCOL.md` beside
//!   `Cargo.toml` is its text.
//! - [`console_log`], [`record`], [`spec`] and [`durable`] are what lies on disk.
//! - [`faults`] lets tests break things at named places; it is empty in what is shipped.
//! - [`flight`], [`handover`], [`living`] and [`kin`] are for the time after a shim was
//!   killed: the bytes it had in hand, the descriptors its successor needs, the end of a
//!   process that is nobody's child, and who else belongs to it.
//!
//! Nothing of the agent is imported here, and no async runtime is in the dependency tree.

pub mod connect;
pub mod console_log;
pub mod durable;
pub mod exec_stage;
pub mod faults;
pub mod flight;
pub mod frame;
pub mod handover;
pub mod holder;
pub mod kin;
pub mod ladder;
pub mod living;
pub mod process;
pub mod proto;
pub mod record;
pub mod spec;
pub mod trim;

/// Version of this crate, told in the handshake.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// File names inside a run directory (`run/<workload>/`, mode 0700).
pub mod files {
    /// What to run, written by the agent before it spawns the shim.
    pub const SPEC: &str = "spec.json";
    /// Who holds the workload, written by the shim.
    pub const SHIM: &str = "shim.json";
    /// The main process, written by itself just before it becomes the workload: known even if
    /// the shim dies before it hears of it.
    pub const CHILD: &str = "child.json";
    /// How the workload ended, written by the shim.
    pub const EXIT: &str = "exit.json";
    /// Space reserved for the exit record on a full disk.
    pub const EXIT_SLOT: &str = "exit.slot";
    /// The socket.
    pub const SOCKET: &str = "s";
    /// Locked by the shim and every process of the workload.
    pub const LOCK: &str = "lock";
    /// Locked by whoever holds the workload, and by nobody else: two shims never hold one.
    pub const HOLDER_LOCK: &str = "holder.lock";
    /// Segments of the console log.
    pub const CONSOLE: &str = "console";
    /// What the shim has to say to a person.
    pub const LOG: &str = "shim.log";
}
