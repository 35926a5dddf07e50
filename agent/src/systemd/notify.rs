//! What the agent tells the service manager: sd_notify(3), a datagram at a time.
//!
//! Nothing is ever waited for: a manager that does not listen misses a line of text.

use std::ffi::OsStr;
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
    fn abstract_names_work() {
        let name = format!("zlh-notify-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notify(Some(connect(OsStr::new(&format!("@{name}"))).unwrap())).ready();
        let mut buffer = [0_u8; 16];
        assert_eq!(manager.recv(&mut buffer).unwrap(), 7);
    }
}
