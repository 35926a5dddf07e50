//! What the agent tells the service manager: sd_notify(3), a datagram at a time.
//!
//! Nothing is ever waited for: a manager that does not listen misses a line of text.

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The socket of whoever started us, if they want to know.
#[derive(Debug)]
pub(crate) struct Notify(Option<UnixDatagram>);

impl Notify {
    /// `NOTIFY_SOCKET` of this process. Workloads are started with an environment of their
    /// own and never see it.
    pub(crate) fn of_process() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name).ok()))
    }

    /// Whether there is somebody to be told.
    pub(crate) const fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// The API answers.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// On the way out, for at most `within` from now.
    pub(crate) fn stopping(&self, within: Duration) {
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", within.as_micros()));
    }

    /// One line for people: `systemctl status` shows it.
    pub(crate) fn status(&self, text: &str) {
        let line: String = text.chars().filter(|c| !c.is_control()).take(MAX_STATUS).collect();
        self.send(&format!("STATUS={line}"));
    }

    /// Another process is the main one from now on: told, and waited for (at most `within`)
    /// until the manager has taken note, because it would take our end for the unit's.
    /// Whether there is a manager that does.
    pub(crate) fn hand_over(&self, pid: u32, within: Duration) -> bool {
        let Some(socket) = &self.0 else { return false };
        let told = (|| -> std::io::Result<bool> {
            socket.set_nonblocking(false)?;
            socket.send(format!("MAINPID={pid}\nREADY=1").as_bytes())?;
            let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let fds = [writing.as_raw_fd()];
            let barrier = [std::io::IoSlice::new(b"BARRIER=1")];
            nix::sys::socket::sendmsg::<()>(
                socket.as_raw_fd(),
                &barrier,
                &[nix::sys::socket::ControlMessage::ScmRights(&fds)],
                nix::sys::socket::MsgFlags::empty(),
                None,
            )?;
            drop(writing);
            // It closes its end when everything before was read.
            let timeout = rustix::event::Timespec {
                tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: within.subsec_nanos().into(),
            };
            let mut fds = [rustix::event::PollFd::new(&reading, rustix::event::PollFlags::IN)];
            Ok(rustix::event::poll(&mut fds, Some(&timeout))? > 0)
        })();
        told.unwrap_or(false)
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.0 {
            // Full or gone: there is nobody to tell that nobody could be told.
            let _ = socket.send(message.as_bytes());
        }
    }
}

fn connect(name: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Characters.
const MAX_STATUS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_as_the_protocol_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify(Some(connect(path.as_os_str()).unwrap()));
        let mut buffer = [0_u8; 1024];
        let mut heard = || {
            let n = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        };
        notify.ready();
        assert_eq!(heard(), "READY=1");
        notify.status("running\nREADY=0 \u{1b}[1m");
        assert_eq!(heard(), "STATUS=runningREADY=0 [1m");
        notify.stopping(Duration::from_secs(2));
        assert_eq!(heard(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000");
    }

    #[test]
    fn a_manager_that_does_not_listen_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify(Some(connect(path.as_os_str()).unwrap()));
        for _ in 0..10_000 {
            notify.status("again");
        }
        Notify(None).ready();
    }

    #[test]
    fn a_new_main_process_is_told_and_taken_note_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify(Some(connect(path.as_os_str()).unwrap()));
        assert!(!notify.hand_over(42, Duration::from_millis(20)), "nobody reads it");
        let mut buffer = [0_u8; 64];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"MAINPID=42\nREADY=1");
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            for _ in 0..3 {
                // Descriptors that are not asked for are closed, as a manager closes them.
                let n = manager.recv(&mut buffer).unwrap();
                seen.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
            seen
        });
        assert!(notify.hand_over(43, Duration::from_secs(60)));
        assert_eq!(reader.join().unwrap(), ["BARRIER=1", "MAINPID=43\nREADY=1", "BARRIER=1"]);
        assert!(!Notify(None).hand_over(1, Duration::from_secs(1)));
    }

    #[test]
    fn abstract_names_work() {
        let name = format!("zlh-notify-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notify(Some(connect(OsStr::new(&format!("@{name}"))).unwrap())).ready();
        let mut buffer = [0_u8; 16];
        assert_eq!(manager.recv(&mut buffer).unwrap(), 7);
    }
}
