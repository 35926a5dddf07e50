//! The shim process: `zlh-agent shim RUN_DIR`, and `… --adopt HEAD` for a workload whose
//! shim was killed.
//!
//! One thread, one `poll` loop, no wake-up while nothing happens:
//!
//! ```text
//! signals ─┐                       ┌─► console log (files, or memory on a full disk)
//! terminal ┼─► poll ─► handle ─────┼─► answers to agents (bounded, pulled by them)
//! socket ──┤                       └─► stop ladder, exit record
//! timers ──┘
//! ```
//!
//! Invariants: the terminal is drained whether or not anybody reads; the exit
//! record is on disk before the main process is reaped and before anybody hears
//! of it; after the main process nothing of the workload is left running; no
//! agent can make it wait.

mod adopt;
mod child;
mod client;
mod input;
mod life;
mod oom;
mod serve;
mod setup;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::ladder::Ladder;
use crate::proto;
use crate::record::ExitRecord;
use crate::spec::StopPlan;

use client::Client;
use input::InputQueue;
use setup::Held;

pub use setup::random_hex;

/// Agents connected at once.
const MAX_CLIENTS: usize = 8;

/// Output taken before others get a turn.
const DRAIN_BUDGET: usize = 1 << 20;

/// Output taken at the end at most; what is left behind has been killed by then.
const LAST_DRAIN: usize = 64 << 20;

/// After the start or the greeting of an agent, when it is quiet again.
const TRIM_AFTER: Duration = Duration::from_millis(100);

/// How long an unacknowledged exit is kept for an agent that may come back.
const LINGER: Duration = Duration::from_secs(24 * 3600);

/// Between two looks whether an agent can still find the way to an unacknowledged exit.
const LOOK_FOR_SOCKET: Duration = Duration::from_secs(10);

/// Between two looks for processes the workload left behind.
const SWEEP_TICK: Duration = Duration::from_millis(20);

/// How long leftovers are hunted before the exit is told anyway.
const SWEEP_PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries to accept a connection when there are no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// Largest answer to a read, bytes.
const MAX_READ: usize = 64 << 10;

/// Runs the shim with the arguments after `shim`.
pub fn main(args: &[OsString]) -> ExitCode {
    let (run_dir, adopted) = match args {
        [run_dir] => (run_dir, None),
        [run_dir, flag, head] if flag == "--adopt" => (run_dir, Some(head)),
        _ => return say_and_fail("usage: zlh-agent shim RUN_DIR (started by the agent, not by hand)"),
    };
    // A shim started from a terminal must not die with it; EPERM means it leads already.
    let _ = rustix::process::setsid();
    if let Err(errno) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        return say_and_fail(&format!("cannot become a child subreaper: {errno}"));
    }
    let signals = match block_signals() {
        Ok(signals) => signals,
        Err(errno) => return say_and_fail(&format!("cannot take signals: {errno}")),
    };
    let held = match adopted {
        None => setup::hold(Path::new(run_dir)),
        Some(head) => adopt::hold(Path::new(run_dir), head),
    };
    let held = match held {
        Ok(held) => held,
        Err(error) => return say_and_fail(&error.to_string()),
    };
    let _ = crate::faults::point("shim.ready");
    say("ready");
    // From here on nobody listens there any more.
    close_standard_streams();
    Holder::new(held, signals).run()
}

/// Standard output is a pipe to the agent that spawned us: one line, then silence.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn say_and_fail(line: &str) -> ExitCode {
    say(&format!("error {line}"));
    ExitCode::FAILURE
}

fn close_standard_streams() {
    let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") else { return };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
}

fn block_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [NixSignal::SIGCHLD, NixSignal::SIGTERM, NixSignal::SIGINT, NixSignal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Unix milliseconds, to show.
fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let shift_ms = crate::faults::clock_shift_s().saturating_mul(1000);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(shift_ms)
}

/// CLOCK_BOOTTIME, milliseconds: comparable across processes, not across boots.
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Where the workload is in its life.
enum Life {
    /// The exec stage has not finished.
    Launching,
    /// The main process lives.
    Running,
    /// It ended and is recorded; what it left behind is being removed.
    Sweeping { record: Box<ExitRecord>, recorded: bool, empty_looks: u8, until: Instant, next: Instant },
    /// Nothing of it is left; kept until acknowledged.
    Ended { message: proto::ExitMessage, until: Instant, look: Instant },
    /// Over. How it ended is still told to whoever is connected.
    Gone { message: Option<proto::ExitMessage> },
}

/// What a slot of the poll set stands for.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    /// An adopted main process has ended.
    End,
    Terminal,
    Listener,
    Launch,
    Client(usize),
}

struct Holder {
    held: Held,
    signals: SignalFd,
    life: Life,
    clients: Vec<Client>,
    input: InputQueue,
    ladder: Ladder,
    sequence: u64,
    run_start: u64,
    /// SIGTERM: go as soon as the workload has ended, without waiting for an agent.
    leaving: bool,
    terminal_open: bool,
    /// When what a busy moment took is given back.
    trim_at: Option<Instant>,
    /// A connection could not be accepted (no descriptors left); when it is tried again.
    accept_at: Option<Instant>,
}

impl Holder {
    fn new(held: Held, signals: SignalFd) -> Self {
        let run_start = held.record.console_start;
        let life = if held.child.foreign().is_some() { Life::Running } else { Life::Launching };
        Self {
            held,
            signals,
            life,
            clients: Vec::new(),
            input: InputQueue::default(),
            ladder: Ladder::default(),
            sequence: 1,
            run_start,
            leaving: false,
            terminal_open: true,
            trim_at: None,
            accept_at: None,
        }
    }

    fn run(mut self) -> ExitCode {
        while !matches!(self.life, Life::Gone { .. }) {
            for (source, flags) in self.wait() {
                self.handle(source, flags);
            }
            self.tick(Instant::now());
            self.tell_watchers();
            self.flush();
        }
        // Whoever is still connected gets what is queued for it, once.
        self.flush();
        let _ = std::fs::remove_file(crate::files::SOCKET);
        ExitCode::SUCCESS
    }

    /// Sleeps until something happens or a timer is due.
    fn wait(&self) -> Vec<(Source, PollFlags)> {
        let now = Instant::now();
        let timeout = self.due(now).map(|at| {
            let left = at.saturating_duration_since(now);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let mut sources = vec![Source::Signals];
        let mut set = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if self.terminal_open {
            let out = if self.input.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
            sources.push(Source::Terminal);
            set.push(PollFd::new(&self.held.master, PollFlags::IN | out));
        }
        if let Some(main) = self.held.child.foreign().filter(|_| matches!(self.life, Life::Running)) {
            sources.push(Source::End);
            set.push(PollFd::new(main, PollFlags::IN));
        }
        if self.clients.len() < MAX_CLIENTS && self.accept_at.is_none() {
            sources.push(Source::Listener);
            set.push(PollFd::new(&self.held.listener, PollFlags::IN));
        }
        if let Some(pipe) = self.held.child.status_pipe() {
            sources.push(Source::Launch);
            set.push(PollFd::new(pipe, PollFlags::IN));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.wants_read());
            flags.set(PollFlags::OUT, client.wants_write());
            sources.push(Source::Client(index));
            set.push(PollFd::new(client, flags));
        }
        match rustix::event::poll(&mut set, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Vec::new(),
            // Out of kernel memory: nothing to do but try again, slowly.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(100));
                return Vec::new();
            }
        }
        let ready = sources.into_iter().zip(set.iter().map(PollFd::revents));
        let mut ready: Vec<_> = ready.filter(|(_, flags)| !flags.is_empty()).collect();
        // Clients last and from the end, so that removing one leaves the other indices true.
        ready.reverse();
        ready.sort_by_key(|(source, _)| matches!(source, Source::Client(_)));
        ready
    }

    /// When the loop has to act although nothing happened.
    fn due(&self, now: Instant) -> Option<Instant> {
        let life = match &self.life {
            Life::Sweeping { next, .. } => Some(*next),
            Life::Ended { until, look, .. } => Some(if self.leaving { now } else { *look.min(until) }),
            Life::Launching | Life::Running => self.ladder.due(),
            Life::Gone { .. } => Some(now),
        };
        [life, self.held.log.retry_at(), self.input.due(now), self.trim_at, self.accept_at]
            .into_iter()
            .flatten()
            .chain(self.clients.iter().filter_map(Client::deadline))
            .min()
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Terminal => {
                if flags.contains(PollFlags::OUT) {
                    self.write_input();
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.drain(DRAIN_BUDGET);
                }
            }
            Source::End => self.look_after_children(),
            Source::Listener => self.accept(),
            Source::Launch => self.hear_launch(),
            Source::Client(index) => {
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.serve(index);
                }
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if i32::try_from(info.ssi_signo) == Ok(libc::SIGTERM) {
                self.leaving = true;
                // A container that shuts down has no time to warn anybody.
                let plan = self.held.spec.shutdown_plan();
                self.stop(StopPlan { warn: Vec::new(), ..plan });
            }
        }
        // SIGCHLD coalesces, and so do we: look at everything.
        self.look_after_children();
    }

    fn tick(&mut self, now: Instant) {
        if self.trim_at.is_some_and(|at| now >= at) {
            self.trim_at = None;
            crate::trim::trim();
        }
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept_at = None;
        }
        if self.held.log.retry_at().is_some_and(|at| now >= at) {
            self.held.log.recover();
        }
        if self.input.due(now).is_some() {
            self.write_input();
        }
        self.climb(now);
        self.sweep(now);
        if let Life::Ended { message, until, look } = &mut self.life {
            let looks = now >= *look;
            let nobody_comes = looks && self.clients.is_empty() && !Path::new(crate::files::SOCKET).exists();
            if looks {
                *look = now + LOOK_FOR_SOCKET;
            }
            if self.leaving || now >= *until || nobody_comes {
                self.life = Life::Gone { message: Some(message.clone()) };
            }
        }
        self.clients.retain(|client| client.deadline().is_none_or(|at| now < at));
    }

    fn write_input(&mut self) {
        self.input.write(&self.held.master, &self.held.slave, Instant::now());
    }

    /// Takes output from the terminal into the log. A terminal gives at most 4 KiB a read: they
    /// are gathered, so that the log is written in larger pieces than it is read.
    fn drain(&mut self, budget: usize) {
        let mut taken = 0;
        while taken < budget && self.terminal_open {
            match self.take_output() {
                Ok(0) => break,
                Ok(n) => taken += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Hung up for good.
                Err(_) => self.terminal_open = false,
            }
        }
        let Held { log, flight: Some(flight), .. } = &mut self.held else { return };
        log.append(flight.aboard());
        flight.landed();
    }

    fn take_output(&mut self) -> Result<usize, Errno> {
        let Held { log, flight, master, .. } = &mut self.held;
        let Some(flight) = flight else {
            let mut buffer = [0_u8; crate::flight::BUFFER];
            let n = rustix::io::read(&*master, &mut buffer)?;
            log.append(&buffer[..n]);
            return Ok(n);
        };
        if flight.is_full() {
            log.append(flight.aboard());
            flight.landed();
        }
        flight.take(master, log.head())
    }
}
