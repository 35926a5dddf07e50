//! A shim that is none: it answers as a test tells it, over the real socket, for a game
//! whose own shim was killed. For versions that do not exist yet, and for liars.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use zlh_shim::frame::{self, Frame};
use zlh_shim::process::ProcessId;
use zlh_shim::proto;
use zlh_shim::record::ShimRecord;

use super::agent::Agent;
use super::process::Process;
use super::wait::{SOON, until};

/// What to do about a frame.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answer with this type and body, under the request's own number.
    Frame(u16, Vec<u8>),
    /// Send these bytes as they are.
    Raw(Vec<u8>),
    /// Say nothing.
    Nothing,
    /// Close the connection.
    HangUp,
}

/// A forged shim. Its record names a process that does nothing.
#[derive(Debug)]
pub struct ForgedShim {
    process: Child,
    heard: Arc<Mutex<Vec<u16>>>,
}

impl ForgedShim {
    /// Kills agent and shim of a running game and takes the shim's place, before the next
    /// agent starts.
    pub fn replace(
        agent: &mut Agent,
        answer: impl Fn(&Frame, &ShimRecord) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let shims = agent.shims();
        agent.kill();
        for shim in &shims {
            shim.signal(Signal::SIGKILL);
        }
        until("the shim is dead", SOON, || shims.iter().all(|shim| !shim.is_alive()));
        let run_dir = agent.root_path("opt/zlh-agent/run/game");
        Self::serve(&run_dir, answer)
    }

    fn serve(
        run_dir: &Path,
        answer: impl Fn(&Frame, &ShimRecord) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let path = run_dir.join(zlh_shim::files::SOCKET);
        let _ = fs::remove_file(&path);
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(&path)?).context("listen in the shim's place")?;
        let process = listening(Command::new("sleep").arg("3600"), &socket)?;
        let mut record = ShimRecord::read(run_dir)?;
        record.shim = ProcessId::of(process.id().cast_signed())?;
        record.write(run_dir)?;
        let listener = UnixListener::from(socket);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (log, answer, record) = (Arc::clone(&heard), Arc::new(answer), Arc::new(record));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer, record) = (Arc::clone(&log), Arc::clone(&answer), Arc::clone(&record));
                // A connection that breaks has been talked enough to.
                std::thread::spawn(move || drop(talk(stream, &log, |frame| answer(frame, &record))));
            }
        });
        Ok(Self { process, heard })
    }

    /// The types of every frame that came.
    pub fn heard(&self) -> Vec<u16> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process its record names.
    pub fn process(&self) -> Option<Process> {
        Process::of(self.process.id().cast_signed())
    }
}

impl Drop for ForgedShim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A status of the run that `record` names, as version 1 has it.
pub fn status(record: &ShimRecord) -> proto::Status {
    let child = record.child.unwrap_or(ProcessId { pid: 0, start_ticks: 0 });
    proto::Status {
        sequence: 1,
        pid: child.pid,
        start_ticks: child.start_ticks,
        started_boot_ms: record.started_boot_ms,
        started_unix_ms: record.started_unix_ms,
        log_start: 0,
        log_head: 0,
        log_unwritten: 0,
        stop_stage: 0,
        exit: None,
        log_run_start: record.console_start,
        adopted: None,
    }
}

/// Starts a process that is, as far as anybody who connects can see, who listens there.
#[allow(unsafe_code, reason = "listen(2) has to be called between fork and exec")]
fn listening(command: &mut Command, socket: &OwnedFd) -> std::io::Result<Child> {
    let socket = socket.as_raw_fd();
    let listen = move || {
        // SAFETY: the parent keeps the descriptor open until the child has executed.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        socket::listen(&socket, Backlog::new(16)?)?;
        Ok(())
    };
    // SAFETY: what runs in the child is one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(listen) }.spawn()
}

fn talk(mut stream: UnixStream, log: &Mutex<Vec<u16>>, answer: impl Fn(&Frame) -> Reply) -> Result<()> {
    let mut input = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        while let Some(request) = frame::take(&mut input)? {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(request.kind);
            let mut out = Vec::new();
            match answer(&request) {
                Reply::Frame(kind, body) => frame::encode(kind, request.id, &body, &mut out),
                Reply::Raw(bytes) => out = bytes,
                Reply::Nothing => {}
                Reply::HangUp => return Ok(()),
            }
            stream.write_all(&out)?;
        }
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..n]);
    }
}
