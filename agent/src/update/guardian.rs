//! The old process, while the new version takes over: single-minded, without a runtime.
//!
//! It has let go of everything (listener, lock, shims) and only waits for one word. The new
//! version's standard input is the writing end of a pipe: it says `ready` there once it has
//! answered itself over HTTP. Silence, or its end, sends the old version back to work, which
//! replaces this very process: whoever supervises it sees the same process all along.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slog::{Logger, error, info, warn};

use super::release::Releases;
use super::{HandOver, conclude};
use crate::paths::Paths;
use crate::systemd::Notify;

/// For the new version to answer. With what is before and after it: old again within 10 s.
const ANSWER: Duration = Duration::from_secs(7);

/// For a manager to take note of who is the main process now.
const NOTED: Duration = Duration::from_secs(5);

/// Says to a new version that a guardian waits for its word, and under which version.
const WAITING: &str = "ZLH_UPDATE_FROM";

const WORD: &[u8] = b"ready\n";

/// Starts the new version and waits for its word. Returns when it has taken over; goes back
/// to the old one, in this process, when it has not.
pub(crate) fn stand_guard(hand_over: &HandOver, paths: &Paths, notify: &Notify, log: &Logger) -> ExitCode {
    let releases = Releases::new(paths);
    let binary = releases.binary(&hand_over.record.to);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let why = match start(&binary, &arguments) {
        Err(source) => format!("it could not be started: {source}"),
        Ok((mut child, pipe)) => match wait_for_word(&pipe, Instant::now() + ANSWER) {
            Ok(()) => {
                info!(log, "the new version has taken over"; "version" => &hand_over.record.to, "pid" => child.id());
                if notify.hand_over(child.id(), NOTED) {
                    return ExitCode::SUCCESS;
                }
                return stay(child, log);
            }
            Err(why) => {
                let _ = child.kill();
                let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                format!("{why} ({ended})")
            }
        },
    };
    error!(log, "the new version did not take over: going back"; "version" => &hand_over.record.to, "why" => &why);
    let back = match &hand_over.before {
        Some(before) => releases.lead(before),
        None => releases.unlink(),
    };
    if let Err(source) = back {
        error!(log, "the link to the current release could not be led back"; "error" => %source);
    }
    if let Err(source) = conclude(paths, &hand_over.record, Err(why)) {
        warn!(log, "what became of the update could not be written down"; "error" => %source);
    }
    become_again(&arguments, log)
}

fn start(binary: &PathBuf, arguments: &[OsString]) -> io::Result<(Child, OwnedFd)> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let child = Command::new(binary)
        .args(arguments)
        .env(WAITING, crate::version())
        .stdin(Stdio::from(writing))
        .spawn()?;
    Ok((child, reading))
}

/// The word, the end of whoever could say it, or nothing for too long.
fn wait_for_word(pipe: &OwnedFd, deadline: Instant) -> Result<(), String> {
    let mut heard = Vec::new();
    let mut file = std::fs::File::from(pipe.try_clone().map_err(|error| error.to_string())?);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("it did not answer within {} s", ANSWER.as_secs()));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.to_string()),
        }
        let mut buffer = [0; 64];
        match file.read(&mut buffer) {
            Ok(0) => return Err("it ended before it answered".to_owned()),
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(error.to_string()),
        }
        if heard == WORD {
            return Ok(());
        }
        if heard.len() >= WORD.len() {
            return Err("it said something else than that it is ready".to_owned());
        }
    }
}

/// Without a manager that could be told, whoever started us watches this process: it stays,
/// and ends as the new one does.
fn stay(child: Child, log: &Logger) -> ExitCode {
    let pid = child.id().to_string();
    let error = itself().args(["stand-in", &pid]).exec();
    // It did not work: end, and leave the new version to itself.
    warn!(log, "the new version runs without its parent"; "error" => %error);
    ExitCode::SUCCESS
}

fn become_again(arguments: &[OsString], log: &Logger) -> ExitCode {
    let error = itself().args(arguments).env_remove(WAITING).exec();
    error!(log, "the old version could not be started again"; "error" => %error);
    ExitCode::FAILURE
}

/// The binary that runs, also when its file was moved.
fn itself() -> Command {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    Command::new(path.unwrap_or_else(|| PathBuf::from("/proc/self/exe")))
}

/// As a new version: answers itself over HTTP and tells the guardian. Whether there was one.
pub(crate) fn announce(address: SocketAddr, paths: &Paths, log: &Logger) -> bool {
    let Some(from) = std::env::var_os(WAITING) else {
        settle(paths, log);
        return false;
    };
    let from = from.to_string_lossy().into_owned();
    if let Err(source) = answers(address) {
        error!(log, "this version does not answer itself; the one before comes back"; "error" => %source);
        return true;
    }
    let record =
        super::last(paths).filter(|record| record.to == crate::version() && record.outcome.is_none());
    if let Some(record) = record
        && let Err(source) = conclude(paths, &record, Ok(()))
    {
        warn!(log, "what became of the update could not be written down"; "error" => %source);
    }
    let told = rustix::io::write(rustix::stdio::stdin(), WORD);
    info!(log, "took over"; "from" => from, "told" => told.is_ok());
    // Nobody waits any longer; and nothing we start is to hold that pipe.
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    true
}

/// An update that was interrupted ends as it is found: with the version that runs.
fn settle(paths: &Paths, log: &Logger) {
    let Some(record) = super::last(paths).filter(|record| record.outcome.is_none()) else { return };
    let outcome = match record.to == crate::version() {
        true => Ok(()),
        false => Err("it was interrupted before the new version took over".to_owned()),
    };
    if let Err(source) = conclude(paths, &record, outcome) {
        warn!(log, "what became of the update could not be written down"; "error" => %source);
    }
}

fn answers(address: SocketAddr) -> io::Result<()> {
    let ip = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => std::net::Ipv4Addr::LOCALHOST.into(),
        ip if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let wait = Duration::from_secs(3);
    let mut stream = std::net::TcpStream::connect_timeout(&SocketAddr::new(ip, address.port()), wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    match answer.ends_with(b" 200") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
    }
}

/// `zlh-agent stand-in PID`: passes signals on, and ends as the child does.
pub(crate) fn stand_in(pid: i32) -> ExitCode {
    use nix::sys::signal::{SigSet, Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let pid = nix::unistd::Pid::from_raw(pid);
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD]);
    // Blocked and waited for: there is one thread, and nothing else for it to do.
    if signals.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return ExitCode::from(u8::try_from(code).unwrap_or(1)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1));
            }
            Err(_) => return ExitCode::FAILURE,
            Ok(_) => {}
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let _ = kill(pid, signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_its_end_and_silence_are_told_apart() {
        let heard = |say: Option<&[u8]>, close: bool, within: Duration| {
            let (reading, writing) = rustix::pipe::pipe().unwrap();
            if let Some(say) = say {
                rustix::io::write(&writing, say).unwrap();
            }
            let _kept = (!close).then_some(writing);
            wait_for_word(&reading, Instant::now() + within)
        };
        let soon = Duration::from_millis(50);
        assert_eq!(heard(Some(b"ready\n"), false, Duration::from_secs(5)), Ok(()));
        assert_eq!(heard(Some(b"ready\n"), true, Duration::from_secs(5)), Ok(()));
        assert!(heard(None, true, Duration::from_secs(5)).unwrap_err().contains("ended before"));
        assert!(heard(None, false, soon).unwrap_err().contains("did not answer"));
        assert!(heard(Some(b"rea"), false, soon).unwrap_err().contains("did not answer"));
        assert!(heard(Some(b"never mind"), false, soon).unwrap_err().contains("something else"));
    }
}
