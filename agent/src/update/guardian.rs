//! The old process, while the new version takes over: single-minded, without a runtime.
//!
//! It has let go of everything (listener, lock, shims) and only waits for one word. The new
//! version's standard input is a connection to it: it says `ready` there once it has
//! answered itself over HTTP, and hears that it was taken note of. Silence, or its end, sends the old version back to work, which
//! replaces this very process: whoever supervises it sees the same process all along.
//!
//! `current` is led to the new version by itself, when it has answered. Whoever is killed
//! before that, both of them or the whole machine, comes back as the old one.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use slog::{Logger, error, info, warn};
use tokio::signal::unix::Signal;

use super::release::Releases;
use super::successor::{Successor, itself};
use super::{Ended, HandOver, conclude};
use crate::paths::Paths;
use crate::systemd::Notify;

/// For the new version to answer. With what is before and after it: old again within 10 s.
const ANSWER: Duration = Duration::from_secs(7);

/// For a manager to take note of who is the main process now.
const NOTED: Duration = Duration::from_secs(5);

/// For the guardian to be gone, after it was told.
const GONE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Says to a new version that a guardian waits for its word, and under which version.
pub(super) const WAITING: &str = "ZLH_UPDATE_FROM";

/// Says to the old version that it comes back only to leave as it always does.
const LEAVING: &str = "ZLH_UPDATE_LEAVE";

/// For a signal that was sent before to be heard of.
const MOMENT: Duration = Duration::from_millis(100);

const WORD: &[u8] = b"ready\n";

/// What the guardian answers when whoever supervises it knows the new version.
const TAKEN: &[u8] = b"taken\n";

/// Starts the new version and waits for its word. Returns when it has taken over; goes back
/// to the old one, in this process, when it has not.
///
/// Who asks this process to leave meanwhile means the agent, whichever it is: `signals` are
/// those by which it is asked.
pub(crate) fn stand_guard(
    hand_over: &HandOver,
    signals: [Signal; 2],
    paths: &Paths,
    notify: &Notify,
    log: &Logger,
) -> ExitCode {
    let leave = match told_to_leave(signals) {
        Ok(leave) => Some(leave),
        Err(source) => {
            warn!(log, "who asks the guardian to leave is not heard"; "error" => %source);
            None
        }
    };
    let leave = leave.as_ref().map(AsFd::as_fd);
    let leaves = |within| leave.is_some_and(|leave: BorrowedFd<'_>| wait_for_any(&[leave], Some(within)));
    let releases = Releases::new(paths);
    let binary = releases.binary(&hand_over.record.to);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let note = paths.launch_note();
    let ended = match Successor::start(&binary, &arguments, notify.is_heard().then_some(&*note)) {
        // It has run its self-test: what is wrong is here.
        Err(source) => Ended::Interrupted(format!("it could not be started: {source}")),
        Ok((successor, pipe)) => match wait_for_word(&pipe, leave, Instant::now() + ANSWER) {
            Ok(()) => {
                info!(log, "the new version has taken over"; "version" => &hand_over.record.to, "pid" => successor.pid());
                // One of before did not lead the link itself.
                if let Err(source) = releases.switch(&hand_over.record.to) {
                    warn!(log, "the link does not lead to the new release"; "error" => %source);
                }
                releases.prune(&hand_over.record.to);
                let _ = zlh_shim::faults::point("update.taken");
                let noted = notify.hand_over(successor.pid(), NOTED);
                // Without it the new version takes us for killed.
                let _ = rustix::io::write(&pipe, TAKEN);
                let leaves = leaves(MOMENT);
                if noted && !leaves {
                    return ExitCode::SUCCESS;
                }
                if leaves {
                    // It was us who got the signal, and the manager waits for our end.
                    successor.terminate();
                }
                return successor.stay(leave.filter(|_| !leaves), log);
            }
            Err(Silent::Leaving) => {
                successor.end();
                Ended::Interrupted("this agent was told to leave before the new one had answered".to_owned())
            }
            Err(Silent::Wrong(why)) => Ended::Failed(format!("{why} ({})", successor.end())),
        },
    };
    error!(log, "the new version did not take over: going back"; "version" => &hand_over.record.to, "why" => format!("{ended:?}"));
    let back = match &hand_over.before {
        Some(before) => releases.lead(before),
        None => releases.unlink(),
    };
    if let Err(source) = back {
        error!(log, "the link to the current release could not be led back"; "error" => %source);
    }
    if let Err(source) = conclude(paths, &hand_over.record, ended) {
        warn!(log, "what became of the update could not be written down"; "error" => %source);
    }
    become_again(&arguments, leaves(Duration::ZERO), log)
}

/// Closes when one of the signals comes, or came since the process began to leave.
fn told_to_leave([mut one, mut other]: [Signal; 2]) -> io::Result<OwnedFd> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = one.recv() => (),
                _ = other.recv() => (),
            }
        });
        drop(writing);
    })?;
    Ok(reading)
}

/// Whether one of these can be read, or is closed, in this time.
pub(super) fn wait_for_any(fds: &[BorrowedFd<'_>], within: Option<Duration>) -> bool {
    let deadline = within.map(|within| Instant::now() + within);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Why the word was not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Silent {
    /// This process is to leave.
    Leaving,
    /// The new version does not say it.
    Wrong(String),
}

/// The word, the end of whoever could say it, or nothing for too long.
fn wait_for_word(pipe: &OwnedFd, leave: Option<BorrowedFd<'_>>, deadline: Instant) -> Result<(), Silent> {
    let wrong = |why: String| Err(Silent::Wrong(why));
    let mut heard = Vec::new();
    let mut file = match pipe.try_clone() {
        Ok(pipe) => std::fs::File::from(pipe),
        Err(error) => return wrong(error.to_string()),
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return wrong(format!("it did not answer within {} s", ANSWER.as_secs()));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        let fd = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = [fd(pipe.as_fd()), fd(leave.unwrap_or(pipe.as_fd()))];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return wrong(errno.to_string()),
        }
        if fds[0].revents().is_empty() {
            return Err(Silent::Leaving);
        }
        let mut buffer = [0; 64];
        match file.read(&mut buffer) {
            Ok(0) => return wrong("it ended before it answered".to_owned()),
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
            Err(error) => return wrong(error.to_string()),
        }
        if heard == WORD {
            return Ok(());
        }
        if heard.len() >= WORD.len() {
            return wrong("it said something else than that it is ready".to_owned());
        }
    }
}

fn become_again(arguments: &[OsString], leaving: bool, log: &Logger) -> ExitCode {
    let mut command = itself();
    command.args(arguments).env_remove(WAITING).env_remove(LEAVING);
    if leaving {
        command.env(LEAVING, "1");
    }
    let error = command.exec();
    error!(log, "the old version could not be started again"; "error" => %error);
    ExitCode::FAILURE
}

/// Whether this process was told to leave as long as it stood guard.
pub(crate) fn is_to_leave() -> bool {
    std::env::var_os(LEAVING).is_some()
}

/// As a new version: answers itself over HTTP, leads the link to itself and tells the guardian.
/// Returns whether there was one, when it has told the manager who the agent is now.
pub(crate) fn announce(address: SocketAddr, paths: &Paths, log: &Logger) -> bool {
    let Some(from) = std::env::var_os(WAITING) else {
        settle(paths, log);
        return false;
    };
    let from = from.to_string_lossy().into_owned();
    if let Err(source) = answers(address) {
        error!(log, "this version cannot take over; the one before comes back"; "error" => %source);
        return true;
    }
    let leave = |why: &str| {
        // It was killed, and whoever supervised it starts an agent that wants our place.
        error!(log, "the guardian is gone: leaving"; "why" => why);
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
        true
    };
    let stdin = rustix::stdio::stdin();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&stdin, PollFlags::empty())], Some(&now)).is_ok_and(|gone| gone > 0) {
        return leave("before the new version had answered");
    }
    if let Err(source) = Releases::new(paths).switch(crate::version()) {
        error!(log, "this version cannot take over; the one before comes back"; "error" => %source);
        return true;
    }
    let record =
        super::last(paths).filter(|record| record.to == crate::version() && record.outcome.is_none());
    if let Some(record) = record
        && let Err(source) = conclude(paths, &record, Ended::TookOver)
    {
        warn!(log, "what became of the update could not be written down"; "error" => %source);
    }
    let _ = zlh_shim::faults::point("update.answered");
    if let Err(errno) = rustix::io::write(stdin, WORD) {
        return leave(&errno.to_string());
    }
    let mut said = [0; TAKEN.len()];
    if poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&GONE)).is_ok_and(|ready| ready > 0)
        && rustix::io::read(stdin, &mut said) == Ok(0)
    {
        return leave("before it was told who the agent is");
    }
    info!(log, "took over"; "from" => from);
    // Its end closes with it, or when it stays for other reasons.
    let _ = poll(&mut [PollFd::new(&stdin, PollFlags::empty())], Some(&GONE));
    // Nobody waits any longer; and nothing we start is to hold that connection.
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    true
}

/// An update that was interrupted ends as it is found: with the version that runs.
fn settle(paths: &Paths, log: &Logger) {
    let Some(record) = super::last(paths).filter(|record| record.outcome.is_none()) else { return };
    let ended = match record.to == crate::version() {
        true => Ended::TookOver,
        false => Ended::Interrupted("everything ended before the new version took over".to_owned()),
    };
    if let Err(source) = conclude(paths, &record, ended) {
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
            let (leave, _nobody) = rustix::pipe::pipe().unwrap();
            if let Some(say) = say {
                rustix::io::write(&writing, say).unwrap();
            }
            let _kept = (!close).then_some(writing);
            wait_for_word(&reading, Some(leave.as_fd()), Instant::now() + within)
        };
        let why = |heard| match heard {
            Err(Silent::Wrong(why)) => why,
            other => panic!("{other:?}"),
        };
        let soon = Duration::from_millis(50);
        assert_eq!(heard(Some(b"ready\n"), false, Duration::from_secs(5)), Ok(()));
        assert_eq!(heard(Some(b"ready\n"), true, Duration::from_secs(5)), Ok(()));
        assert!(why(heard(None, true, Duration::from_secs(5))).contains("ended before"));
        assert!(why(heard(None, false, soon)).contains("did not answer"));
        assert!(why(heard(Some(b"rea"), false, soon)).contains("did not answer"));
        assert!(why(heard(Some(b"never mind"), false, soon)).contains("something else"));
    }

    #[test]
    fn who_is_told_to_leave_waits_no_longer_but_hears_a_word_that_was_said() {
        let ((reading, writing), (leave, asks)) =
            (rustix::pipe::pipe().unwrap(), rustix::pipe::pipe().unwrap());
        assert!(!wait_for_any(&[leave.as_fd()], Some(Duration::ZERO)));
        drop(asks);
        assert!(wait_for_any(&[leave.as_fd()], Some(Duration::ZERO)));
        let wait = || wait_for_word(&reading, Some(leave.as_fd()), Instant::now() + Duration::from_secs(5));
        assert_eq!(wait(), Err(Silent::Leaving));
        rustix::io::write(&writing, WORD).unwrap();
        assert_eq!(wait(), Ok(()));
    }
}
