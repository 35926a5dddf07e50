//! Identity of a process: pid, start time, and which boot and container it belongs to.
//!
//! A bare pid means nothing: it can belong to somebody else by now. In LXC the
//! boot id is the host's and survives a container reboot, so the start time of
//! pid 1 goes beside it.

use std::fs;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// A process that can be recognised again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start_ticks: u64,
}

/// One life of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Start time of pid 1, clock ticks since boot.
    pub init_start_ticks: u64,
}

/// What `/proc/<pid>/stat` says, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// One letter, `Z` for a zombie, `T` for stopped.
    pub state: u8,
    /// Parent.
    pub parent: i32,
    /// Session.
    pub session: i32,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The identity of a living process (a zombie counts: its pid is still its own).
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: stat(pid)?.start_ticks })
    }

    /// Whether this very process still exists and is not a zombie.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|s| s.start_ticks == self.start_ticks && s.state != b'Z')
    }
}

impl Generation {
    /// The container's current life.
    pub fn current() -> io::Result<Self> {
        Ok(Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            init_start_ticks: stat(1)?.start_ticks,
        })
    }
}

/// Reads `/proc/<pid>/stat`.
pub fn stat(pid: i32) -> io::Result<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat"))?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable process state"))
}

/// The wait status of a process that has ended and was not waited for yet. Zero may also
/// mean that we have no right to know: [`crate::living::Living`] asks about that.
pub fn remains(process: ProcessId) -> Option<i32> {
    let bytes = fs::read(format!("/proc/{}/stat", process.pid)).ok()?;
    let stat = parse_stat(&bytes)?;
    if stat.start_ticks != process.start_ticks || stat.state != b'Z' {
        return None;
    }
    // Field 52, the last one so far; the name counts as one whatever it holds.
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(49)?.parse().ok()
}

/// Every living process, zombies left out.
pub fn all() -> Vec<(ProcessId, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = stat(pid).ok()?;
        (stat.state != b'Z').then_some((ProcessId { pid, start_ticks: stat.start_ticks }, stat))
    })
    .collect()
}

/// The command name may hold spaces and parentheses, so fields count from the last `)`.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let _group = fields.next()?;
    let session = fields.next()?.parse().ok()?;
    // Fields 7 to 21 lie between the session and the start time.
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, parent, session, start_ticks })
}

/// Every living descendant of `ancestor`, found by walking parents in `/proc`.
/// Zombies are left out.
pub fn descendants(ancestor: i32) -> Vec<ProcessId> {
    let mut all: Vec<(i32, Stat)> = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if let Ok(stat) = stat(pid) {
            all.push((pid, stat));
        }
    }
    let mut found: Vec<i32> = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        // A pid that changed hands during the scan must not close a circle.
        let children = all.iter().filter(|(pid, s)| s.parent == parent && !found.contains(pid));
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
    }
    all.iter()
        .filter(|(pid, stat)| found[1..].contains(pid) && stat.state != b'Z')
        .map(|(pid, stat)| ProcessId { pid: *pid, start_ticks: stat.start_ticks })
        .collect()
}

/// Every living process whose environment carries a run's mark ([`INSTANCE_VARIABLE`]): also
/// one that left its session and its parents. A process that rewrote its environment is not
/// found; the mark adds to other ways and replaces none.
pub fn carriers(instance: &str) -> Vec<ProcessId> {
    let mark = format!("{INSTANCE_VARIABLE}={instance}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        // Identity first: if the pid changes hands in between, the start time will not match.
        let process = ProcessId::of(pid).ok()?;
        let mut environment = Vec::new();
        let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        file.take(MAX_ENVIRONMENT).read_to_end(&mut environment).ok()?;
        let marked = environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
        (marked && process.is_alive()).then_some(process)
    })
    .collect()
}

/// Set in the environment of every workload, to its run's identity.
pub const INSTANCE_VARIABLE: &str = "ZLH_INSTANCE";

/// Most of an environment that is looked at, bytes.
const MAX_ENVIRONMENT: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_inherited_and_only_the_whole_mark_counts() {
        let start = |value: &str| {
            let mut command = std::process::Command::new("sleep");
            command.arg("600").env(INSTANCE_VARIABLE, value).spawn().unwrap()
        };
        let mut children = [start("a1b2"), start("a1b2c3")];
        let pid = i32::try_from(children[0].id()).unwrap();
        let found: Vec<i32> = carriers("a1b2").iter().map(|process| process.pid).collect();
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found, [pid]);
        assert_eq!(carriers("a1b2"), []);
    }

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let line = b"42 (a) Z 1 (x) 2 3 4) S 7 8 9 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 123456 0 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.session, stat.start_ticks), (b'S', 7, 9, 123_456));
    }

    #[test]
    fn this_process_knows_itself_and_its_parent_knows_it() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_ticks: me.start_ticks + 1, ..me }.is_alive());
        let parent = stat(me.pid).unwrap().parent;
        assert!(descendants(parent).contains(&me));
    }
}
