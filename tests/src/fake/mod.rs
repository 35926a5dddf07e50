//! A game server that behaves, or misbehaves, exactly as told.
//!
//! To the agent it looks like Minecraft on a terminal: the same log lines, the
//! same console commands, the same Server List Ping, `server.properties`, EULA,
//! session lock and world files. What Minecraft does only on a bad day it does
//! on request, and says when it did it ([`events`]), so that a test measures
//! against the server's own clock and not against its own guess.
//!
//! ```text
//! stdin ──► lines ─┐
//! SIGTERM ─────────┼──► game (main thread) ──► stdout   ◄── flood, leak (threads)
//! timers ──────────┘         │
//!                            └── ping (threads): port, answers as told
//! ```
//!
//! Everything it starts ends by itself after [`Settings::linger`], whatever a
//! test forgets; it refuses settings it does not know.

mod command;
mod console;
pub mod events;
mod family;
mod game;
pub mod output;
mod ping;
mod properties;
mod rcon;
mod server;
mod settings;
mod units;
pub mod wire;
pub mod world;

use std::process::ExitCode;

pub use ping::PingMode;
pub use server::MAY_END;
pub use settings::{DEFAULT_FILE, DaemonMode, Settings, StopMode};
pub use units::{Bytes, SignalName, Span};

/// The whole program.
pub fn main() -> ExitCode {
    let settings = match Settings::from_process() {
        Ok(settings) => settings,
        Err(error) => return refuse(&error),
    };
    if let Some(role) = settings.role {
        return family::play(role, &settings);
    }
    match game::Game::new(settings) {
        Ok(game) => game.run(),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    console::complain(&format!("zlh-fake-game: {error:#}"));
    ExitCode::from(2)
}
