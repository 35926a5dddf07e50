//! A program on a terminal of its own, as the shim gives it one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::pty::openpty;

use super::wait::{SOON, eventually};

/// A running program and all it printed so far. Killed when dropped.
#[derive(Debug)]
pub struct PtyChild {
    child: Child,
    master: File,
    output: Arc<Mutex<Vec<u8>>>,
}

impl PtyChild {
    /// Starts `command` with a new terminal as its standard streams. The terminal is
    /// nobody's controlling one and keeps its default mode.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let pty = openpty(None, None)?;
        let copy = |fd: &OwnedFd| fd.try_clone().map(Stdio::from);
        command.stdin(copy(&pty.slave)?).stdout(copy(&pty.slave)?).stderr(copy(&pty.slave)?);
        let child = command.spawn()?;
        let master = File::from(pty.master);
        let output = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (master.try_clone()?, Arc::clone(&output));
        std::thread::spawn(move || {
            let mut block = [0; 1 << 14];
            // EIO is how a terminal says that nobody has it open any more.
            while let Ok(count @ 1..) = from.read(&mut block) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&block[..count]);
            }
        });
        Ok(Self { child, master, output })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types a line.
    pub fn send(&mut self, line: &str) -> io::Result<()> {
        self.master.write_all(format!("{line}\n").as_bytes())
    }

    /// Everything printed so far, with the terminal's `\r\n`.
    pub fn output(&self) -> Vec<u8> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything printed so far, as lines.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output()).replace("\r\n", "\n")
    }

    /// Waits until `text` was printed.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        eventually(text, SOON, || {
            let seen = self.text();
            if seen.contains(text) { Ok(()) } else { Err(seen) }
        });
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        eventually("the end of the process", within, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(other),
        })
    }
}

impl Drop for PtyChild {
    fn drop(&mut self) {
        // It may have ended long ago; a child that was not waited for keeps its pid.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
