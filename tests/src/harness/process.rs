//! Processes by pid and start time: a pid alone may be somebody else's by now.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process, told apart from every later one with its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Field 22 of its `stat`: ticks since boot.
    pub start: u64,
}

/// Memory of a process, KiB, from `smaps_rollup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident.
    pub rss_kib: u64,
    /// Resident, shared pages divided among those who share them.
    pub pss_kib: u64,
    /// Its own, changed pages.
    pub private_dirty_kib: u64,
}

impl Process {
    /// The process that has this pid now; none when there is none, or only its remains.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, _, start) = stat(pid)?;
        (state != 'X').then_some(Self { pid, start })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether it is stopped by a signal.
    pub fn is_stopped(self) -> bool {
        self.is_alive() && stat(self.pid).is_some_and(|(state, ..)| state == 'T')
    }

    /// Sends a signal, unless it is gone.
    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end between the look and the signal; then there is nothing to do.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Its children, their children and so on.
    pub fn descendants(self) -> Vec<Self> {
        let everybody = all();
        let mut found = vec![self];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            next += 1;
            let children = everybody.iter().filter(|(_, ppid)| *ppid == parent.pid).map(|(child, _)| *child);
            found.extend(children.filter(|child| !found.contains(child)).collect::<Vec<_>>());
        }
        found.remove(0);
        found
    }

    /// What it uses; none when it is gone.
    pub fn memory(self) -> Option<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").trim().parse().ok()
        };
        Some(Memory {
            rss_kib: field("Rss:")?,
            pss_kib: field("Pss:")?,
            private_dirty_kib: field("Private_Dirty:")?,
        })
    }

    /// How often each of its threads went to sleep of its own will: once for every time it woke up.
    pub fn wake_ups(self) -> Option<BTreeMap<OsString, u64>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
        let count = |task: fs::DirEntry| {
            // A thread may end between the two looks.
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((task.file_name(), line.trim().parse().ok()?))
        };
        Some(tasks.flatten().filter_map(count).collect())
    }

    /// A limit by the name in `/proc/PID/limits`: the soft and the hard one.
    pub fn limit(self, name: &str) -> Option<(String, String)> {
        let text = fs::read_to_string(format!("/proc/{}/limits", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut fields = line.split_whitespace();
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    }

    /// Children that have ended and that it has not waited for.
    pub fn zombies(self) -> usize {
        let Ok(entries) = fs::read_dir("/proc") else { return 0 };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(stat).filter(|(state, parent, _)| (*state, *parent) == ('X', self.pid)).count()
    }

    /// Descriptors it has open.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// Threads it has.
    pub fn threads(self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count)
    }

    /// The program it runs, by the name the kernel knows.
    pub fn executable(self) -> Option<std::path::PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }
}

/// Every process whose working directory, root or program lies below `dir`.
pub fn living_in(dir: &Path) -> Vec<Process> {
    let inside = |pid: i32, link: &str| {
        fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|target| target.starts_with(dir))
    };
    let everybody = all().into_iter().map(|(process, _)| process);
    everybody.filter(|process| ["cwd", "exe"].iter().any(|link| inside(process.pid, link))).collect()
}

/// Every process whose environment holds this entry, wherever it lives and whoever it is.
pub fn carrying(entry: &str) -> Vec<Process> {
    // Without its first thread a process shows its environment in the others only.
    let carries = |pid: i32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads
            .map(|thread| fs::read(thread.path().join("environ")).unwrap_or_default())
            .any(|environment| environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()))
    };
    all().into_iter().map(|(process, _)| process).filter(|process| carries(process.pid)).collect()
}

/// All living processes with the pids of their parents.
fn all() -> Vec<(Process, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| {
        let (state, ppid, start) = stat(pid)?;
        (state != 'X').then_some((Process { pid, start }, ppid))
    })
    .collect()
}

/// State, parent and start time. `X` is whoever has no thread left: one whose first thread has
/// ended runs on with the others, and looks like a zombie.
fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also `) `.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let state = fields.first()?.chars().next()?;
    let threads: u32 = fields.get(17)?.parse().ok()?;
    let state = if state == 'Z' && threads <= 1 { 'X' } else { state };
    Some((state, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_seen_with_its_start_time_and_a_dead_one_is_not() {
        let me = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive() && me.memory().unwrap().rss_kib > 0 && me.threads() > 0);
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        assert!(me.descendants().contains(&process));
        assert!(!Process { start: process.start + 1, ..process }.is_alive());
        process.signal(Signal::SIGKILL);
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert!(me.zombies() > 0, "nobody has waited for it");
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert!(!me.descendants().contains(&process));
    }
}
