//! The workload's main process: spawned through the exec stage, known by pidfd.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fd::AsRawFd;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::process::{ProcessId, descendants};
use crate::record::Exit;

/// Most bytes the exec stage may say.
const MAX_STATUS: usize = 16 << 10;

/// What the exec stage is doing, or what became of it.
#[derive(Debug)]
pub(super) enum Launch {
    /// It has not reported yet, or not everything.
    Pending,
    /// `execve` succeeded.
    Running,
    /// It failed.
    Failed(Exit),
}

/// The main process and the pipe from its exec stage.
#[derive(Debug)]
pub(super) struct Child {
    status: Option<File>,
    said: Vec<u8>,
    pub(super) id: Option<ProcessId>,
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Spawns the exec stage with the terminal as its standard three.
    pub(super) fn spawn(run_dir: &Path, slave: &OwnedFd, lock: &OwnedFd) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The writing end blocks: its few bytes always fit.
        rustix::io::ioctl_fionbio(&writer, false)?;
        let inherit = [&writer, lock];
        for fd in inherit {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let arguments: [OsString; 4] = [
            "exec".into(),
            run_dir.into(),
            writer.as_raw_fd().to_string().into(),
            lock.as_raw_fd().to_string().into(),
        ];
        let terminal = || slave.try_clone().map(Stdio::from);
        let spawned = Command::new("/proc/self/exe")
            .args(arguments)
            .env_clear()
            .envs(crate::faults::environment())
            .stdin(terminal()?)
            .stdout(terminal()?)
            .stderr(terminal()?)
            .spawn();
        for fd in inherit {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        // The exec stage is reaped with every other orphan, by the loop.
        spawned?;
        Ok(Self { status: Some(File::from(reader)), said: Vec::new(), id: None, pidfd: None })
    }

    /// The pipe to watch, while it is open.
    pub(super) fn status_pipe(&self) -> Option<&File> {
        self.status.as_ref()
    }

    /// Reads what the exec stage says.
    pub(super) fn hear(&mut self) -> Launch {
        let Some(status) = &mut self.status else { return Launch::Running };
        let mut buffer = [0_u8; 1024];
        loop {
            match status.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) if self.said.len() + n <= MAX_STATUS => self.said.extend_from_slice(&buffer[..n]),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.learn_pid();
                    return Launch::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.status = None;
        self.learn_pid();
        let said = String::from_utf8_lossy(&self.said);
        if let Some(line) = said.lines().find_map(|line| line.strip_prefix("E ")) {
            let (errno, step) = line.split_once(' ').unwrap_or((line, "an unnamed step"));
            return Launch::Failed(Exit::ExecFailed {
                step: step.to_owned(),
                errno: errno.parse().unwrap_or(0),
            });
        }
        if self.pidfd.is_some() {
            return Launch::Running;
        }
        Launch::Failed(Exit::ExecFailed { step: "the exec stage ended without a word".to_owned(), errno: 0 })
    }

    /// Opened at once: until we reap it, the pid cannot be anybody else's.
    fn learn_pid(&mut self) {
        if self.pidfd.is_some() {
            return;
        }
        let said = String::from_utf8_lossy(&self.said);
        let Some(pid) = said.lines().find_map(|line| line.strip_prefix("P ")?.trim().parse::<i32>().ok())
        else {
            return;
        };
        if let (Some(raw), Ok(id)) = (Pid::from_raw(pid), ProcessId::of(pid)) {
            self.pidfd = pidfd_open(raw, PidfdFlags::empty()).ok();
            self.id = Some(id);
        }
    }

    /// How it ended, if it did. It stays a zombie until [`Child::reap`], so that the
    /// record is on disk before the evidence is gone.
    pub(super) fn ended(&self) -> Option<Exit> {
        let pidfd = self.pidfd.as_ref()?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            return match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
                Ok(Some(status)) => Some(if let Some(code) = status.exit_status() {
                    Exit::Exited { code }
                } else if let Some(signal) = status.terminating_signal() {
                    Exit::Killed { signal, core: status.dumped() }
                } else {
                    Exit::Lost { reason: "its wait status is of no known kind".to_owned() }
                }),
                Ok(None) => None,
                Err(Errno::INTR) => continue,
                Err(errno) => Some(Exit::Lost { reason: format!("it could not be waited for: {errno}") }),
            };
        }
    }

    /// Lets the main process go.
    pub(super) fn reap(&self) {
        if let Some(pidfd) = &self.pidfd {
            // Already reaped is as good.
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }

    /// Sends a signal to the main process, and to nothing else.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let pidfd = self.pidfd.as_ref().ok_or(Errno::SRCH)?;
        pidfd_send_signal(pidfd, signal)
    }
}

/// Reaps every orphan that ended, the main process excepted.
pub(super) fn reap_orphans(main: Option<ProcessId>) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // NOWAIT shows the same zombie again; the main one must not hide others for ever,
    // so each pass goes through our direct children by name.
    let Ok(children) = direct_children() else { return };
    for pid in children.into_iter().filter(|&pid| main.is_none_or(|m| m.pid != pid)) {
        let Some(raw) = Pid::from_raw(pid) else { continue };
        if matches!(waitid(WaitId::Pid(raw), options), Ok(Some(_))) {
            let _ = waitid(WaitId::Pid(raw), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Our children, zombies included. `/proc/self/task/<tid>/children` is one read.
fn direct_children() -> io::Result<Vec<i32>> {
    let pid = std::process::id();
    match std::fs::read_to_string(format!("/proc/self/task/{pid}/children")) {
        Ok(text) => Ok(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()),
        // Kernels without CONFIG_PROC_CHILDREN: look through everybody.
        Err(_) => {
            let me = i32::try_from(pid).map_err(io::Error::other)?;
            Ok(std::fs::read_dir("/proc")?
                .flatten()
                .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
                .filter(|&pid| crate::process::stat(pid).is_ok_and(|s| s.parent == me))
                .collect())
        }
    }
}

/// Sends a signal to every living descendant of this process; answers how many there were.
pub(super) fn signal_descendants(signal: Signal) -> usize {
    let Ok(me) = i32::try_from(std::process::id()) else { return 0 };
    let all = descendants(me);
    for process in &all {
        let Some(raw) = Pid::from_raw(process.pid) else { continue };
        if let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty())
            && process.is_alive()
        {
            // The start time matched while the pidfd was open: it is the one we mean.
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }
    all.len()
}
