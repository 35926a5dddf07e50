//! The main thread while the server is up: lines, timers, SIGTERM, one at a time,
//! as Minecraft's server thread takes them. A save therefore delays everything else.

use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::Command;
use super::events::{Events, What};
use super::game::{Game, Input};
use super::ping::{self, PingState};
use super::settings::StopMode;
use super::world::World;
use super::{Bytes, PingMode, family, output, rcon};

/// A server with its world open.
pub(crate) struct Server<'a> {
    game: &'a Game,
    world: World,
    state: PingState,
    saving: bool,
    leaked: Vec<Vec<u8>>,
    exit_at: Option<Instant>,
    freeze_at: Option<Instant>,
    autosave_at: Option<Instant>,
}

/// The file that lets a held server end.
pub const MAY_END: &str = "may-end";

/// Goes on, or ends with a code.
type Turn = ControlFlow<ExitCode>;

impl<'a> Server<'a> {
    pub(crate) fn new(game: &'a Game, world: World) -> Self {
        let state = PingState::new(
            game.settings.ping.unwrap_or_default(),
            game.properties.motd.clone(),
            game.properties.max_players,
            game.settings.players.clone().unwrap_or_default(),
        );
        Self {
            game,
            world,
            state,
            saving: true,
            leaked: Vec::new(),
            exit_at: None,
            freeze_at: None,
            autosave_at: None,
        }
    }

    /// Starts up, serves, and ends with the process's exit code.
    pub(crate) fn run(mut self, begun: Instant) -> ExitCode {
        match self.live(begun) {
            ControlFlow::Break(code) => code,
            ControlFlow::Continue(never) => match never {},
        }
    }

    fn live(&mut self, begun: Instant) -> ControlFlow<ExitCode, Infallible> {
        let settings = &self.game.settings;
        let port = settings.port.unwrap_or(self.game.properties.port);
        self.game.console.info(&format!("Starting Minecraft server on *:{port}"));
        self.game.console.info(&format!("Preparing level \"{}\"", self.game.properties.level_name));
        if settings.never_done == Some(true) {
            self.exit_at = settings.exit_after.map(|span| begun + span.0);
            return self.turns();
        }
        self.turns_until(begun + settings.startup_delay.unwrap_or_default().0)?;
        let seconds = begun.elapsed().as_secs_f64();
        self.game.console.info(&format!("Done ({seconds:.3}s)! For help, type \"help\""));
        self.game.events.record(What::Done, "");
        let now = Instant::now();
        self.exit_at = settings.exit_after.map(|span| now + span.0);
        self.freeze_at = settings.freeze_after.map(|span| now + span.0);
        self.autosave_at = settings.autosave.map(|span| now + span.0);
        if settings.ping != Some(PingMode::Refuse) {
            self.turns_until(now + settings.ready_delay.unwrap_or_default().0)?;
            self.open_port(port)?;
        }
        self.misbehave();
        self.turns()
    }

    /// Opens the port, or ends as Minecraft does when somebody else has it.
    fn open_port(&self, port: u16) -> Turn {
        if let Some((port, password)) = self.game.properties.rcon.clone()
            && let Err(error) = rcon::listen(port, password, self.state.clone(), self.game.events.clone())
        {
            self.game.console.line(
                "Server thread",
                "WARN",
                &format!("Unable to initialise RCON on 0.0.0.0:{port}: {error}"),
            );
        }
        let Err(error) = ping::listen(port, self.state.clone(), self.game.events.clone()) else {
            return Turn::Continue(());
        };
        let warn = |text: &str| self.game.console.line("Server thread", "WARN", text);
        warn("**** FAILED TO BIND TO PORT!");
        warn(&format!("The exception was: java.net.BindException: {error}"));
        warn("Perhaps a server is already running on that port?");
        Turn::Break(ExitCode::FAILURE)
    }

    /// What was asked for from `Done` on.
    fn misbehave(&mut self) {
        let settings = &self.game.settings;
        if let Some(mode) = settings.daemon {
            self.report(family::daemonise(mode, settings));
        }
        if let Some(count) = settings.forks {
            self.report(family::litter(count, settings));
        }
        if settings.headless == Some(true) {
            self.report(family::headless(settings));
        }
        if let Some(uid) = settings.child_uid {
            self.report(family::defector(uid, settings));
        }
        if let Some(bytes) = settings.long_line {
            output::long_line(self.game.console, bytes);
        }
        if let Some(bytes) = settings.noise {
            self.game.console.raw(&output::noise(bytes));
        }
        if let Some(rate) = settings.flood_rate {
            self.flood(rate, settings.flood_bytes);
        }
        if let Some(rate) = settings.leak_rate {
            let limit = settings.leak_limit.unwrap_or(DEFAULT_LEAK);
            self.report(background("leak", move || leak(rate, limit)));
        }
    }

    fn turns_until(&mut self, end: Instant) -> Turn {
        while Instant::now() < end {
            self.turn(Some(end))?;
        }
        Turn::Continue(())
    }

    fn turns(&mut self) -> ControlFlow<ExitCode, Infallible> {
        loop {
            self.turn(None)?;
        }
    }

    fn turn(&mut self, until: Option<Instant>) -> Turn {
        let next = [until, self.exit_at, self.freeze_at, self.autosave_at].into_iter().flatten().min();
        let input = match next {
            Some(next) => self.game.inbox.recv_timeout(next.saturating_duration_since(Instant::now())),
            None => self.game.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match input {
            Ok(Input::Line(line)) => self.line(&line),
            Ok(Input::Terminate) => self.terminated(),
            Err(RecvTimeoutError::Timeout) => self.timers(),
            Err(RecvTimeoutError::Disconnected) => Turn::Break(ExitCode::from(2)),
        }
    }

    fn timers(&mut self) -> Turn {
        let settings = &self.game.settings;
        let now = Instant::now();
        if self.exit_at.is_some_and(|at| at <= now) {
            self.exit_at = None;
            return match settings.exit_signal {
                Some(signal) => die(&self.game.events, signal.0),
                None => self.crash(settings.exit_code.unwrap_or(1)),
            };
        }
        if self.freeze_at.is_some_and(|at| at <= now) {
            self.freeze_at = None;
            freeze(&self.game.events);
        }
        if self.autosave_at.is_some_and(|at| at <= now) {
            self.autosave_at = settings.autosave.map(|span| now + span.0);
            if self.saving {
                self.save();
            }
        }
        Turn::Continue(())
    }

    fn line(&mut self, line: &str) -> Turn {
        self.game.events.record(What::Command, line.trim_end_matches(['\r', '\n']));
        match Command::parse(line) {
            Some(command) => self.command(command),
            None => Turn::Continue(()),
        }
    }

    fn command(&mut self, command: Command) -> Turn {
        let (console, settings) = (self.game.console, &self.game.settings);
        match command {
            Command::Stop => return self.stop(),
            Command::Crash(code) => return self.crash(code),
            Command::Signal(signal) => return die(&self.game.events, signal.0),
            Command::Hang => loop {
                std::thread::park();
            },
            Command::Say(text) => console.info(&format!("[Server] {text}")),
            Command::Echo(text) => console.raw(format!("{text}\n").as_bytes()),
            Command::Help => console.info(HELP),
            Command::List => {
                let (players, max) = self.state.players();
                let (online, names) = (players.len(), players.join(", "));
                console.info(&format!("There are {online} of a max of {max} players online: {names}"));
            }
            Command::Join(name) => {
                self.state.join(&name);
                console.info(&format!("{name} joined the game"));
            }
            Command::Leave(name) => {
                self.state.leave(&name);
                console.info(&format!("{name} left the game"));
            }
            Command::SaveAll => {
                console.info("Saving the game (this may take a moment!)");
                self.save();
                console.info("Saved the game");
            }
            Command::SaveOff => self.set_saving(false, "disabled", "off"),
            Command::SaveOn => self.set_saving(true, "enabled", "on"),
            Command::Ping(mode) => self.state.set_mode(mode),
            Command::Freeze => freeze(&self.game.events),
            Command::Flood { bytes, rate } => self.flood(rate, Some(bytes)),
            Command::Line(bytes) => output::long_line(console, bytes),
            Command::Noise(bytes) => console.raw(&output::noise(bytes)),
            Command::Fork(count) => self.report(family::litter(count, settings)),
            Command::Storm(count) => {
                for _ in 0..count {
                    self.report(family::orphan(settings));
                }
            }
            Command::Bomb => self.report(family::bomb(settings)),
            Command::Daemon(mode) => self.report(family::daemonise(mode, settings)),
            Command::Leak(bytes) => self.leaked.push(vec![1; usize::try_from(bytes.0).unwrap_or(0)]),
            Command::Unknown(text) => {
                console.info("Unknown or incomplete command, see below for error");
                console.info(&format!("{text}<--[HERE]"));
            }
        }
        Turn::Continue(())
    }

    fn set_saving(&mut self, saving: bool, word: &str, already: &str) {
        if self.saving == saving {
            self.game.console.info(&format!("Saving is already turned {already}"));
        } else {
            self.saving = saving;
            self.game.console.info(&format!("Automatic saving is now {word}"));
        }
    }

    fn save(&mut self) {
        self.game.events.record(What::SaveBegan, "");
        match self.world.save() {
            Ok(()) => self.game.events.record(What::SaveEnded, ""),
            Err(error) => {
                let text = format!("Failed to save chunk: java.io.IOException: {error}");
                self.game.console.line("Server thread", "ERROR", &text);
            }
        }
    }

    fn stop(&mut self) -> Turn {
        let settings = &self.game.settings;
        match settings.stop.unwrap_or_default() {
            StopMode::Ignore => return Turn::Continue(()),
            StopMode::Pretend => {
                self.game.console.info("Stopping the server");
                return Turn::Continue(());
            }
            StopMode::Obey => {}
            StopMode::Held => self.wait_for_leave(),
            StopMode::SaveForever => return self.forever("Saving chunks", World::grow),
            StopMode::TouchForever => return self.forever("Saving chunks", World::touch),
            StopMode::Storm => return self.storm(),
        }
        self.game.console.info("Stopping the server");
        std::thread::sleep(settings.stop_delay.unwrap_or_default().0);
        self.wind_down();
        self.game.events.record(What::Ending, "stop");
        Turn::Break(ExitCode::SUCCESS)
    }

    /// Until a test lets it end, or nobody does for its linger time.
    fn wait_for_leave(&self) {
        self.game.console.info("Waiting for leave to end");
        let leave = Path::new(MAY_END);
        let end = Instant::now() + self.game.settings.linger();
        // Each leave is for one end.
        while std::fs::remove_file(leave).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Does something for its linger time, and talks about it.
    fn forever(&mut self, words: &str, act: impl Fn(&mut World) -> io::Result<()>) -> Turn {
        let end = Instant::now() + self.game.settings.linger();
        while Instant::now() < end {
            self.game.console.info(words);
            if let Err(error) = act(&mut self.world) {
                self.game.console.line("Server thread", "ERROR", &error.to_string());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Turn::Continue(())
    }

    fn storm(&self) -> Turn {
        let settings = &self.game.settings;
        let end = Instant::now() + settings.linger();
        while Instant::now() < end {
            self.report(family::orphan(settings));
        }
        Turn::Continue(())
    }

    /// As a JVM's shutdown hook: the world is saved, the code is 128 + 15.
    fn terminated(&mut self) -> Turn {
        if self.game.settings.ignore_sigterm == Some(true) {
            return Turn::Continue(());
        }
        if self.game.settings.stop == Some(StopMode::Storm) {
            return self.storm();
        }
        self.wind_down();
        self.game.events.record(What::Ending, "SIGTERM");
        Turn::Break(ExitCode::from(143))
    }

    fn wind_down(&mut self) {
        let (console, level) = (self.game.console, &self.game.properties.level_name);
        console.info("Stopping server");
        console.info("Saving players");
        console.info("Saving worlds");
        console.info(&format!("Saving chunks for level 'ServerLevel[{level}]'/minecraft:overworld"));
        self.save();
        console.info(&format!("ThreadedAnvilChunkStorage ({level}): All chunks are saved"));
    }

    fn crash(&self, code: u8) -> Turn {
        self.game.console.line("Server thread", "ERROR", "Encountered an unexpected exception");
        let trace = "java.lang.IllegalStateException: told to crash\n\tat zlh.fake.Game.crash(Game.java:1)\n";
        self.game.console.raw(trace.as_bytes());
        self.game.events.record(What::Ending, format!("crash {code}"));
        Turn::Break(ExitCode::from(code))
    }

    fn flood(&self, rate: Bytes, limit: Option<Bytes>) {
        let console = self.game.console;
        // It ends early when nobody can read any more; there is nobody to tell.
        let events = self.game.events.clone();
        let work = move || {
            events.record(What::FloodBegan, "");
            drop(output::flood(console, rate, limit));
            events.record(What::FloodEnded, "");
        };
        self.report(background("flood", work));
    }

    fn report(&self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.game.console.line("Server thread", "ERROR", &format!("{error:#}"));
        }
    }
}

fn background(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let spawned: io::Result<_> = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    Ok(spawned.map(drop)?)
}

/// Allocates `rate` bytes a second up to `limit` and keeps them.
fn leak(rate: Bytes, limit: Bytes) {
    let share = usize::try_from(rate.0 / 10).unwrap_or(0).max(1);
    let shares = usize::try_from(limit.0).unwrap_or(0) / share;
    let mut kept = Vec::new();
    while kept.len() < shares {
        kept.push(vec![1_u8; share]);
        std::thread::sleep(Duration::from_millis(100));
    }
    loop {
        std::thread::park();
    }
}

fn freeze(events: &Events) {
    events.record(What::Signal, Signal::SIGSTOP.as_str());
    // Nothing stops a process from stopping itself.
    let _ = kill(Pid::this(), Signal::SIGSTOP);
}

/// Signals itself until it is dead: the standard library survives the first SIGSEGV.
fn die(events: &Events, signal: Signal) -> Turn {
    events.record(What::Ending, signal.as_str());
    for _ in 0..10 {
        let _ = kill(Pid::this(), signal);
        std::thread::sleep(Duration::from_millis(20));
    }
    // A signal that is handled or ignored is no end: SIGTERM comes as an input.
    Turn::Continue(())
}

const HELP: &str = "/help /list /say /save-all /save-off /save-on /stop, and more in --help";
const DEFAULT_LEAK: Bytes = Bytes(512 << 20);
