//! Faults on purpose: a place in the code that may fail, or be the last one reached.
//!
//! Without the feature `faults` (nothing that is shipped has it) every function here is
//! empty. With it, the folder that `ZLH_FAULTS` names tells what happens:
//!
//! - `plan`, read at every point, has one instruction a line, `#` begins a comment:
//!   - `kill ROLE N`: SIGKILL at the N-th point (from 0) that processes of that role reach;
//!   - `kill-at NAME`: SIGKILL for whoever reaches that point;
//!   - `enospc PREFIX N`: every N-th point whose name begins so fails with "no space left";
//!   - `delay NAME MS`: who reaches that point takes so many milliseconds longer;
//!   - `hold NAME`: who reaches that point waits there until the plan says so no more.
//! - `trace-ROLE` grows by the name of every point that was reached;
//! - `refused` grows by the name of every point that was made to fail.
//!
//! - `clock` holds seconds by which the wall clock is wrong; CLOCK_BOOTTIME stays true.
//!
//! Roles are the agent's personalities: `run`, `shim`, `exec`.

/// Whether this build has fault points at all.
pub const ENABLED: bool = cfg!(feature = "faults");

#[cfg(not(feature = "faults"))]
use std::io;

/// The variable that names the folder.
pub const VARIABLE: &str = "ZLH_FAULTS";

/// What a process started by this one has to be told, besides its environment.
#[cfg(not(feature = "faults"))]
pub fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    None
}

/// A place that may fail. The name says what is about to happen.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn point(_name: &str) -> io::Result<()> {
    Ok(())
}

/// By how many seconds the wall clock is wrong.
#[cfg(not(feature = "faults"))]
#[inline]
pub const fn clock_shift_s() -> i64 {
    0
}

#[cfg(feature = "faults")]
pub use armed::{clock_shift_s, environment, point};

#[cfg(feature = "faults")]
mod armed {
    use std::fs::{self, File, OpenOptions};
    use std::io::{self, Read, Write};
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    /// What a process started by this one has to be told, besides its environment.
    pub fn environment() -> Option<(&'static str, std::ffi::OsString)> {
        Some((super::VARIABLE, folder()?.into()))
    }

    /// A place that may fail. The name says what is about to happen.
    pub fn point(name: &str) -> io::Result<()> {
        let Some(folder) = folder() else { return Ok(()) };
        let instructions = plan(folder);
        let role = std::env::args().nth(1).unwrap_or_default();
        let reached = note(folder, &format!("trace-{role}"), name).unwrap_or(0);
        for line in instructions.lines().map(|line| line.split('#').next().unwrap_or_default()) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                ["kill", wanted, at] if wanted == role && at.parse() == Ok(reached) => {
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
                }
                ["kill-at", wanted] if wanted == name => {
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
                }
                ["enospc", prefix, every] if name.starts_with(prefix) => {
                    let every = every.parse::<usize>().unwrap_or(1).max(1);
                    if reached.is_multiple_of(every) {
                        note(folder, "refused", name)?;
                        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                    }
                }
                // A busy machine, made to order.
                ["delay", wanted, ms] if wanted == name => {
                    std::thread::sleep(std::time::Duration::from_millis(ms.parse().unwrap_or(0)));
                }
                // The same, until a test has seen what it wanted to see.
                ["hold", wanted] if wanted == name => {
                    while plan(folder).contains(line) {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn plan(folder: &Path) -> String {
        fs::read_to_string(folder.join("plan")).unwrap_or_default()
    }

    /// By how many seconds the wall clock is wrong.
    pub fn clock_shift_s() -> i64 {
        let shift = folder().and_then(|folder| fs::read_to_string(folder.join("clock")).ok());
        shift.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn folder() -> Option<&'static Path> {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        FOLDER.get_or_init(|| std::env::var_os(super::VARIABLE).map(PathBuf::from)).as_deref()
    }

    /// Adds a line to a file that several processes share; how many it had before.
    fn note(folder: &Path, file: &str, name: &str) -> io::Result<usize> {
        let mut file: File =
            OpenOptions::new().read(true).append(true).create(true).open(folder.join(file))?;
        file.lock()?;
        let mut before = Vec::new();
        file.read_to_end(&mut before)?;
        file.write_all(format!("{name}\n").as_bytes())?;
        Ok(before.iter().filter(|&&byte| byte == b'\n').count())
    }
}
