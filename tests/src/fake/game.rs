//! The server from its first line to its last: properties, EULA, world, port.

use std::io::{self, BufRead};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

use super::console::Console;
use super::events::{Events, What};
use super::properties::{Properties, eula_accepted};
use super::server::Server;
use super::world::World;
use super::{Bytes, Settings};

/// One server, until it ends.
pub(crate) struct Game {
    pub(crate) settings: Settings,
    pub(crate) console: Console,
    pub(crate) events: Events,
    pub(crate) properties: Properties,
    pub(crate) inbox: Receiver<Input>,
    outbox: Sender<Input>,
}

/// What can reach the main thread.
pub(crate) enum Input {
    /// A console line, with its end.
    Line(String),
    /// SIGTERM.
    Terminate,
}

impl Game {
    /// Prepares everything that must be so before the first output.
    pub(crate) fn new(settings: Settings) -> anyhow::Result<Self> {
        let events = Events::open(settings.events.as_deref()).context("open the event file")?;
        events.record(What::Started, "");
        let properties = Properties::read(Path::new("."));
        let (outbox, inbox) = channel();
        let game = Self { settings, console: Console, events, properties, inbox, outbox };
        game.watch_signals().context("watch signals")?;
        if game.settings.deaf != Some(true) {
            game.watch_stdin().context("watch the console")?;
        }
        Ok(game)
    }

    /// Runs to the end.
    pub(crate) fn run(self) -> ExitCode {
        let begun = Instant::now();
        self.console.line("main", "INFO", "Environment: a fake game, there is no Minecraft in here");
        if self.settings.require_eula == Some(true) && !eula_accepted(Path::new(".")) {
            let refusal =
                "You need to agree to the EULA in order to run the server. Go to eula.txt for more info.";
            self.console.line("main", "INFO", refusal);
            return ExitCode::SUCCESS;
        }
        self.console.info("Starting minecraft server version 1.18.2");
        self.console.info("Loading properties");
        match self.open_world() {
            Ok(world) => Server::new(&self, world).run(begun),
            Err(error) => {
                let level = &self.properties.level_name;
                self.console.line("main", "ERROR", "Failed to start the minecraft server");
                let cause = "net.minecraft.util.DirectoryLock$LockException";
                let why =
                    format!("{level}/session.lock: already locked (possibly by other Minecraft instance?)");
                self.console.raw(format!("{cause}: {why}: {error}\n").as_bytes());
                ExitCode::FAILURE
            }
        }
    }

    fn open_world(&self) -> io::Result<World> {
        let bytes = self.settings.world_bytes.unwrap_or(DEFAULT_WORLD);
        let save_time = self.settings.save_time.unwrap_or_default();
        World::open(Path::new(&self.properties.level_name), bytes.0, save_time.0)
    }

    /// SIGTERM arrives as an input. It is blocked before any other thread exists, so that
    /// only the waiting one sees it; children get an empty mask again from the standard library.
    fn watch_signals(&self) -> io::Result<()> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.thread_block()?;
        let (outbox, events) = (self.outbox.clone(), self.events.clone());
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            while let Ok(signal) = set.wait() {
                events.record(What::Signal, signal.as_str());
                if outbox.send(Input::Terminate).is_err() {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// As in Minecraft the end of the input is the end of the console, not of the server.
    fn watch_stdin(&self) -> io::Result<()> {
        let outbox = self.outbox.clone();
        std::thread::Builder::new().name("console".to_owned()).spawn(move || {
            let mut input = io::stdin().lock();
            let mut line = Vec::new();
            // Bytes, not text: a stray byte must not end the console.
            while matches!(input.read_until(b'\n', &mut line), Ok(1..)) {
                if outbox.send(Input::Line(String::from_utf8_lossy(&line).into_owned())).is_err() {
                    return;
                }
                line.clear();
            }
        })?;
        Ok(())
    }
}

const DEFAULT_WORLD: Bytes = Bytes(256 << 10);
