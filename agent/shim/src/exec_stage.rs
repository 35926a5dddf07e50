//! The exec stage: `zlh-agent exec RUN_DIR STATUS_FD LOCK_FD SPEC_FD`, between the shim and
//! the workload.
//!
//! A fresh process, single-threaded, so that everything between "new session"
//! and `execve` is ordinary code and not code after a fork of something larger.
//! It gives up privileges, applies limits and becomes the workload. Without a
//! controlling terminal it forks once: a session *leader* could acquire the
//! terminal by opening it, its child cannot.
//!
//! What it has to say goes down the status pipe as lines: `P <pid>` once the final
//! process exists, `E <errno> <step>` when something failed. The pipe closing
//! after `P` alone means that `execve` succeeded.

#![allow(unsafe_code)] // fork, signal dispositions and inherited descriptors have no safe form

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, Gid, Uid};
use rustix::fs::Mode;

use crate::process::ProcessId;
use crate::record::ChildRecord;
use crate::spec::Spec;

/// Exit status when the workload could not be started; the shim knows better from the pipe.
const FAILED: u8 = 127;

/// A step that failed.
struct Failure {
    step: String,
    errno: i32,
}

/// Runs the stage with the arguments after `exec`.
pub fn main(args: &[OsString]) -> ExitCode {
    let [run_dir, status_fd, lock_fd, spec_fd] = args else {
        return ExitCode::from(2);
    };
    let (Some(status_fd), Some(lock_fd), Some(spec_fd)) =
        (descriptor(status_fd), descriptor(lock_fd), descriptor(spec_fd))
    else {
        return ExitCode::from(2);
    };
    // SAFETY: the shim passed this descriptor for us to own, and nothing else in this
    // process (which has just begun) knows it.
    let mut status = File::from(unsafe { OwnedFd::from_raw_fd(status_fd) });
    // SAFETY: as above.
    let spec = File::from(unsafe { OwnedFd::from_raw_fd(spec_fd) });
    match run(Path::new(run_dir), &mut status, lock_fd, spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If the shim is gone there is nobody left to tell.
            let _ = writeln!(status, "E {} {}", failure.errno, failure.step.replace('\n', " "));
            ExitCode::from(FAILED)
        }
    }
}

/// Returns only in the leader that has done its work, or on failure.
fn run(run_dir: &Path, status: &mut File, lock_fd: RawFd, spec: File) -> Result<(), Failure> {
    let spec: Spec = serde_json::from_reader(BufReader::new(spec))
        .map_err(|error| Failure { step: format!("read the spec: {error}"), errno: libc::EINVAL })?;
    rustix::io::fcntl_setfd(&*status, rustix::io::FdFlags::CLOEXEC).map_err(at("mark the status pipe"))?;
    rustix::process::setsid().map_err(at("setsid"))?;
    if spec.controlling_terminal {
        rustix::process::ioctl_tiocsctty(io::stdin().as_fd()).map_err(at("take the terminal"))?;
    } else {
        let leader = nix::unistd::getpid();
        // SAFETY: this process has one thread, so the child may run any code.
        match unsafe { nix::unistd::fork() }.map_err(|e| failed("fork", e as i32))? {
            ForkResult::Parent { .. } => return Ok(()),
            ForkResult::Child => wait_for_the_shim(leader),
        }
    }
    // Best effort: on a full disk the shim knows and writes it into space of its own.
    if let Ok(child) = i32::try_from(std::process::id()).map_err(io::Error::other).and_then(ProcessId::of) {
        let _ = ChildRecord { instance: spec.instance.clone(), child }.write(run_dir);
    }
    let _ = crate::faults::point("exec.told");
    writeln!(status, "P {}", std::process::id())
        .map_err(|e| failed("tell the shim", e.raw_os_error().unwrap_or(0)))?;

    let argv = strings(spec.argv.iter().map(String::as_str))?;
    let env = strings(spec.env.iter().map(|(key, value)| format!("{key}={value}")))?;
    let Some(program) = argv.first() else {
        return Err(Failure { step: "the command is empty".to_owned(), errno: libc::EINVAL });
    };

    raise_oom_score(spec.oom_score_adj);
    limit(Resource::RLIMIT_NOFILE, spec.max_open_files)?;
    limit(Resource::RLIMIT_CORE, 0)?;
    rustix::process::umask(Mode::from_raw_mode(0o027));
    reset_signals()?;
    if let Some(user) = &spec.user {
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        nix::unistd::setgroups(&groups).map_err(|e| failed("setgroups", e as i32))?;
        nix::unistd::setresgid(gid, gid, gid)
            .map_err(|e| failed(&format!("change to group {}", user.gid), e as i32))?;
        nix::unistd::setresuid(uid, uid, uid)
            .map_err(|e| failed(&format!("change to user {}", user.uid), e as i32))?;
    }
    if !spec.new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(at("give up new privileges"))?;
    }
    // Only after the change of user: what it may not enter, it may not run in.
    rustix::process::chdir(&spec.workdir).map_err(|errno| Failure {
        step: format!("enter {}", spec.workdir.display()),
        errno: errno.raw_os_error(),
    })?;
    close_others(lock_fd);
    let Err(errno) = nix::unistd::execve(program, &argv, &env);
    Err(failed(&format!("execute {}", program.to_string_lossy()), errno as i32))
}

/// Until the leader is gone and the shim, as subreaper, is the parent: before that the shim
/// could not wait for us, and would have to call a quick end lost. The leader has nothing
/// left to do but to end.
fn wait_for_the_shim(leader: nix::unistd::Pid) {
    while nix::unistd::getppid() == leader {
        std::thread::yield_now();
    }
}

fn descriptor(arg: &OsString) -> Option<RawFd> {
    arg.to_str()?.parse().ok().filter(|&fd: &RawFd| fd > 2)
}

fn at(step: &'static str) -> impl Fn(rustix::io::Errno) -> Failure {
    move |errno| Failure { step: step.to_owned(), errno: errno.raw_os_error() }
}

fn failed(step: &str, errno: i32) -> Failure {
    Failure { step: step.to_owned(), errno }
}

fn strings<S: Into<Vec<u8>>>(items: impl Iterator<Item = S>) -> Result<Vec<CString>, Failure> {
    items
        .map(|item| CString::new(item))
        .collect::<Result<_, _>>()
        .map_err(|_| failed("a zero byte in the command or environment", libc::EINVAL))
}

/// Best effort: lowering it below the inherited value needs a privilege, so the
/// workload is raised instead of the shim lowered.
fn raise_oom_score(by: i32) {
    let path = "/proc/self/oom_score_adj";
    let now: i32 = std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    let _ = std::fs::write(path, (now + by).clamp(-1000, 1000).to_string());
}

fn limit(resource: Resource, wanted: u64) -> Result<(), Failure> {
    let (_, hard) = getrlimit(resource).map_err(|e| failed("read a limit", e as i32))?;
    let value = wanted.min(hard);
    setrlimit(resource, value, if resource == Resource::RLIMIT_CORE { value } else { hard })
        .map_err(|e| failed("set a limit", e as i32))
}

/// The workload starts with default dispositions and nothing blocked.
fn reset_signals() -> Result<(), Failure> {
    // The kernel's `sigaction`, all zero: the default disposition, no flags. The system call
    // itself, because the C library keeps two signals from its callers that may be inherited
    // as ignored all the same.
    let default = [0_u64; 4];
    for signal in 1..=64_i32 {
        // SAFETY: the structure is as large as the kernel's and outlives the call; signals
        // that refuse (9 and 19) are left alone.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(|e| failed("unblock signals", e as i32))
}

/// Everything above the standard three closes at `execve`, except the slot lock: it is
/// held by the workload as well, so that nobody starts a second one beside it.
fn close_others(lock_fd: RawFd) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|&fd| fd > 2).collect();
    for fd in open {
        let flags = if fd == lock_fd { 0 } else { libc::FD_CLOEXEC };
        // SAFETY: sets a flag on a descriptor number; one that is closed by now says EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, flags) };
    }
}
