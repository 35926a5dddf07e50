//! The process of a new version: whose child it is, its end, and its killing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use slog::{Logger, warn};

use super::guardian::{WAITING, wait_for_any};

/// For a process that was killed to be gone.
const GONE: Duration = Duration::from_secs(2);

/// A new version that was started.
pub(super) struct Successor {
    pid: u32,
    process: Process,
}

enum Process {
    /// Whoever watches this process is to learn from its end what became of that one.
    Ours(Child),
    /// It is the manager's child. Of a main process that is not, systemd awaits no end: it
    /// would send SIGKILL right behind SIGTERM. None when it has ended already.
    Managers(Option<OwnedFd>),
}

impl Successor {
    /// Starts it with one end of a connection as its standard input; answers the other end,
    /// too. With a `note` to write its pid to, it becomes a child of the manager's.
    pub(super) fn start(
        binary: &Path,
        arguments: &[OsString],
        note: Option<&Path>,
    ) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        let prepare = |mut command: Command| {
            command.args(arguments).env(WAITING, crate::version()).stdin(Stdio::from(OwnedFd::from(theirs)));
            command
        };
        let Some(note) = note else {
            let child = prepare(Command::new(binary)).spawn()?;
            return Ok((Self { pid: child.id(), process: Process::Ours(child) }, ours.into()));
        };
        let _ = fs::remove_file(note);
        let mut launcher = itself();
        launcher.arg("launch").arg(note).arg(binary);
        let status = prepare(launcher).status()?;
        let pid = fs::read_to_string(note);
        let _ = fs::remove_file(note);
        if !status.success() {
            return Err(io::Error::other(format!("its launcher failed ({status})")));
        }
        let pid: i32 = pid?.parse().map_err(io::Error::other)?;
        let named = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let process = match pidfd_open(named, PidfdFlags::empty()) {
            Ok(process) => Some(process),
            Err(Errno::SRCH) => None,
            Err(errno) => {
                // It could not be watched, and so not be tried.
                let _ = rustix::process::kill_process(named, Signal::KILL);
                return Err(errno.into());
            }
        };
        Ok((Self { pid: pid.cast_unsigned(), process: Process::Managers(process) }, ours.into()))
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to leave.
    pub(super) fn terminate(&self) {
        let _ = match &self.process {
            Process::Ours(child) => match Pid::from_raw(child.id().cast_signed()) {
                Some(pid) => rustix::process::kill_process(pid, Signal::TERM),
                None => Ok(()),
            },
            Process::Managers(Some(process)) => pidfd_send_signal(process, Signal::TERM),
            Process::Managers(None) => Ok(()),
        };
    }

    /// Makes sure that it is gone; what is known of its end.
    pub(super) fn end(mut self) -> String {
        match &mut self.process {
            Process::Ours(child) => {
                let _ = child.kill();
                child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
            }
            Process::Managers(Some(process)) => {
                let _ = pidfd_send_signal(&*process, Signal::KILL);
                match wait_for_any(&[process.as_fd()], Some(GONE)) {
                    true => "it is gone".to_owned(),
                    false => "it is still there".to_owned(),
                }
            }
            Process::Managers(None) => "it is gone".to_owned(),
        }
    }

    /// Stays as long as it does, for whoever watches this process; passes `leave` on.
    pub(super) fn stay(self, leave: Option<BorrowedFd<'_>>, log: &Logger) -> ExitCode {
        match &self.process {
            Process::Ours(child) => {
                let error = itself().args(["stand-in", &child.id().to_string()]).exec();
                // It did not work: end, and leave the new version to itself.
                warn!(log, "the new version runs without its parent"; "error" => %error);
            }
            Process::Managers(Some(process)) => {
                let process = process.as_fd();
                let either: Vec<_> = std::iter::once(process).chain(leave).collect();
                wait_for_any(&either, None);
                // Either it has ended, or it is to.
                self.terminate();
                wait_for_any(&[process], None);
            }
            Process::Managers(None) => {}
        }
        ExitCode::SUCCESS
    }
}

/// `zlh-agent launch NOTE BINARY ARGUMENT...`: starts it, notes its pid, and ends, so that it
/// becomes the child of whoever takes care of orphans.
pub(crate) fn launch(words: &[OsString]) -> ExitCode {
    let [note, binary, arguments @ ..] = words else { return ExitCode::FAILURE };
    let Ok(mut child) = Command::new(binary).args(arguments).spawn() else { return ExitCode::FAILURE };
    match fs::write(note, child.id().to_string()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            let _ = child.kill();
            ExitCode::FAILURE
        }
    }
}

/// The binary that runs, also when its file was moved.
pub(super) fn itself() -> Command {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    Command::new(path.unwrap_or_else(|| PathBuf::from("/proc/self/exe")))
}
