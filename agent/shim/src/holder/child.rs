//! The workload's main process: spawned through the exec stage or taken over from a shim
//! that died, and held by pidfd.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fd::AsRawFd;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::kin::Kin;
use crate::living::Living;
use crate::process::ProcessId;
use crate::record::Exit;
use crate::spec::Spec;

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
    main: Option<Living>,
    /// Who belongs to it.
    pub(super) kin: Kin,
}

impl Child {
    /// Spawns the exec stage with the terminal as its standard three.
    pub(super) fn spawn(run_dir: &Path, spec: &Spec, slave: &OwnedFd, lock: &OwnedFd) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The writing end blocks: its few bytes always fit.
        rustix::io::ioctl_fionbio(&writer, false)?;
        // What is run is what this shim was started for: the file in the run directory can be
        // that of another start by now.
        let mut memory = File::from(memfd_create("zlh-spec", MemfdFlags::CLOEXEC)?);
        serde_json::to_writer(&memory, spec)?;
        memory.rewind()?;
        let memory = OwnedFd::from(memory);
        let inherit = [&writer, lock, &memory];
        for fd in inherit {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let arguments: [OsString; 5] = [
            "exec".into(),
            run_dir.into(),
            writer.as_raw_fd().to_string().into(),
            lock.as_raw_fd().to_string().into(),
            memory.as_raw_fd().to_string().into(),
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
        Ok(Self { status: Some(File::from(reader)), said: Vec::new(), main: None, kin: Kin::Descendants })
    }

    /// Takes over a process that a shim before us had started.
    pub(super) fn adopt(main: Living, kin: Kin) -> Self {
        Self { status: None, said: Vec::new(), main: Some(main), kin }
    }

    /// Who it is, once it exists.
    pub(super) fn id(&self) -> Option<ProcessId> {
        self.main.as_ref().map(Living::id)
    }

    /// What to watch for the end of a process that is not our child: no signal tells.
    pub(super) fn foreign(&self) -> Option<&Living> {
        self.main.as_ref().filter(|_| self.kin.is_foreign())
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
        if self.main.is_some() {
            return Launch::Running;
        }
        Launch::Failed(Exit::ExecFailed { step: "the exec stage ended without a word".to_owned(), errno: 0 })
    }

    /// Opened at once: until we reap it, the pid cannot be anybody else's.
    fn learn_pid(&mut self) {
        if self.main.is_some() {
            return;
        }
        let said = String::from_utf8_lossy(&self.said);
        let Some(pid) = said.lines().find_map(|line| line.strip_prefix("P ")?.trim().parse::<i32>().ok())
        else {
            return;
        };
        self.main = ProcessId::of(pid).ok().and_then(Living::open);
    }

    /// How it ended, if it did. It stays a zombie until [`Child::reap`], so that the
    /// record is on disk before the evidence is gone.
    pub(super) fn ended(&self) -> Option<Exit> {
        let main = self.main.as_ref()?;
        if self.kin.is_foreign() {
            return main.end();
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            return match waitid(WaitId::PidFd(main.as_fd()), options) {
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
        if let Some(main) = &self.main {
            // Already reaped, or somebody else's to reap, is as good.
            let _ = waitid(WaitId::PidFd(main.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }

    /// Sends a signal to the main process, and to nothing else.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        self.main.as_ref().ok_or(Errno::SRCH)?.signal(signal)
    }

    /// Sends a signal to everything of the workload; answers how many there were.
    pub(super) fn signal_all(&mut self, signal: Signal) -> usize {
        self.kin.signal(self.main.as_ref().map(Living::id), signal)
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
