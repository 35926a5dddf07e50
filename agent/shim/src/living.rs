//! A process held by descriptor: signalled without a doubt, its end seen by whoever looks.
//!
//! A pidfd opened after a number was read could already be somebody else's, so the start
//! time is compared while it is open. Who is not the parent learns the true exit status all
//! the same: from the remains, while they lie there, or from the pidfd itself once they
//! were taken away (`PIDFD_GET_INFO`, Linux 6.15). Where the kernel tells neither, the end
//! is *lost*, never 0.

#![allow(unsafe_code)] // the pidfd's `ioctl` has no safe form

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::process::{self, ProcessId};
use crate::record::Exit;

/// A process of known identity, alive or dead.
#[derive(Debug)]
pub struct Living {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl Living {
    /// Holds the process of that identity; none when its number is nobody's or somebody
    /// else's. One that has ended and was not taken away yet can still be held.
    pub fn open(id: ProcessId) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(id.pid)?, PidfdFlags::empty()).ok()?;
        // The start time matched while the pidfd was open: it is the one we mean.
        (process::stat(id.pid).ok()?.start_ticks == id.start_ticks).then_some(Self { id, pidfd })
    }

    /// Who it is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Sends a signal to this very process.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        pidfd_send_signal(&self.pidfd, signal)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.poll(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
    }

    /// Blocks until it has ended.
    pub fn wait(&self) {
        while !self.poll(None) {}
    }

    fn poll(&self, timeout: Option<&Timespec>) -> bool {
        let mut set = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut set, timeout), Ok(ready) if ready > 0)
    }

    /// How it ended; none while it runs.
    pub fn end(&self) -> Option<Exit> {
        if !self.has_ended() {
            return None;
        }
        // The remains may be taken away between the two looks; then the pidfd has it.
        let status = self.remains().or_else(|| exit_status(self.pidfd.as_fd())).or_else(|| self.remains());
        Some(status.map_or_else(
            || Exit::Lost { reason: "its parent was gone, and this kernel does not tell others".to_owned() },
            from_wait_status,
        ))
    }

    /// The wait status in `/proc`, as long as nobody has waited for it.
    fn remains(&self) -> Option<i32> {
        let status = process::remains(self.id)?;
        // Whoever may not look reads 0 there; the same right decides over this link, which
        // leads nowhere for the dead.
        let link = fs::read_link(format!("/proc/{}/exe", self.id.pid));
        let may_look = link.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        // Also a number that changed hands in between says "not found".
        (may_look && process::remains(self.id).is_some()).then_some(status)
    }
}

impl AsRawFd for Living {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl AsFd for Living {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whether this kernel tells the end of a process to others than its parent, also after
/// its remains are gone.
pub fn kernel_tells() -> bool {
    tells(&rustix::system::uname().release().to_string_lossy())
}

fn tells(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

/// What a wait status says.
fn from_wait_status(status: i32) -> Exit {
    let signal = status & 0x7f;
    if signal == 0 {
        return Exit::Exited { code: status >> 8 & 0xff };
    }
    Exit::Killed { signal, core: status & 0x80 != 0 }
}

/// The kernel's `struct pidfd_info`, first published size (64 bytes).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pids: [u32; 3],
    users: [u32; 8],
    exit_code: i32,
}

/// `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: u32 = 0xc040_ff0b;

/// `PIDFD_INFO_EXIT`.
const EXIT: u64 = 1 << 3;

/// The wait status of a process that was waited for. A kernel that does not know how to
/// tell leaves the bit in the mask unset, or refuses.
fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: EXIT, ..PidfdInfo::default() };
    // SAFETY: the request names the size of the structure, which outlives the call; the
    // kernel writes no further than that.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    (done == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn spawn(script: &str) -> (Child, Living) {
        let child = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap();
        (child, Living::open(id).unwrap())
    }

    #[test]
    fn the_structure_is_the_kernels() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        assert_eq!(std::mem::offset_of!(PidfdInfo, exit_code), 60);
    }

    #[test]
    fn an_end_is_told_before_and_after_somebody_waited_for_it() {
        for (script, expected) in [
            ("read x; exit 0", Exit::Exited { code: 0 }),
            ("read x; exit 255", Exit::Exited { code: 255 }),
            ("read x; kill -KILL $$", Exit::Killed { signal: 9, core: false }),
        ] {
            let (mut child, living) = spawn(script);
            assert!(!living.has_ended());
            assert_eq!(living.end(), None);
            drop(child.stdin.take());
            living.wait();
            assert_eq!(living.end().unwrap(), expected, "its remains: {script}");
            child.wait().unwrap();
            assert!(Living::open(living.id()).is_none());
            match living.end().unwrap() {
                Exit::Lost { .. } => assert!(!kernel_tells(), "the kernel knew"),
                told => assert_eq!(told, expected, "the pidfd: {script}"),
            }
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, expected) in [
            ("6.18.44-fc", true),
            ("6.15", true),
            ("10.0.1", true),
            ("6.1.0-38-amd64", false),
            ("6.14.9", false),
            ("5.99", false),
            ("", false),
        ] {
            assert_eq!(tells(release), expected, "{release}");
        }
    }

    #[test]
    fn a_number_that_changed_hands_is_not_held() {
        let (mut child, living) = spawn("read x");
        let other = ProcessId { start_ticks: living.id().start_ticks + 1, ..living.id() };
        assert!(Living::open(other).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(living.signal(Signal::KILL), Err(Errno::SRCH));
    }
}
