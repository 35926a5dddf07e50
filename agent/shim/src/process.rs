//! Identity of a process: pid, start time, and which boot and container it belongs to.
//!
//! A bare pid means nothing: it can belong to somebody else by now. In LXC the
//! boot id is the host's and survives a container reboot, so the start time of
//! pid 1 goes beside it.

use std::fs;
use std::io::{self, Read};
use std::time::{Duration, Instant};

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
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let until = Instant::now() + EXEC;
    pids.filter_map(|pid| {
        // Identity first: if the pid changes hands in between, the start time will not match.
        let process = ProcessId::of(pid).ok()?;
        (is_marked(pid, |mark| mark == instance, until) && process.is_alive()).then_some(process)
    })
    .collect()
}

/// Whether a process carries the mark ([`INSTANCE_VARIABLE`]) of one of the runs that are `ours`.
pub fn carries_mark(pid: i32, ours: impl Fn(&str) -> bool) -> bool {
    is_marked(pid, ours, Instant::now() + EXEC)
}

fn is_marked(pid: i32, ours: impl Fn(&str) -> bool, until: Instant) -> bool {
    let mark = format!("{INSTANCE_VARIABLE}=");
    environment(pid, until).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry.strip_prefix(mark.as_bytes())?).ok())
            .any(&ours)
    })
}

/// A process in the middle of an exec shows neither an environment nor a command line for a
/// moment, and is looked at again `until` then.
fn environment(pid: i32, until: Instant) -> io::Result<Vec<u8>> {
    loop {
        let mut environment = Vec::new();
        let file = fs::File::open(format!("/proc/{pid}/environ"))?;
        file.take(MAX_ENVIRONMENT).read_to_end(&mut environment)?;
        let is_settled = !environment.is_empty() || !is_in_exec(pid)?;
        if is_settled || Instant::now() >= until {
            return Ok(environment);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Threads of the kernel and zombies show nothing, either, but have no program.
fn is_in_exec(pid: i32) -> io::Result<bool> {
    let mut first = [0];
    let is_silent = fs::File::open(format!("/proc/{pid}/cmdline"))?.read(&mut first)? == 0;
    Ok(is_silent && fs::read_link(format!("/proc/{pid}/exe")).is_ok())
}

/// Set in the environment of every workload, to its run's identity.
pub const INSTANCE_VARIABLE: &str = "ZLH_INSTANCE";

/// Most of an environment that is looked at, bytes.
const MAX_ENVIRONMENT: u64 = 2 << 20;

/// How long a scan waits in all for processes in the middle of an exec. It takes microseconds;
/// more where the program comes from a slow disk.
const EXEC: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_inherited_and_only_the_whole_mark_counts() {
        let start = |value: &str| {
            let mut command = std::process::Command::new("sleep");
            command.arg("600").env(INSTANCE_VARIABLE, value).spawn().unwrap()
        };
        // Another run of this test may be under way beside it.
        let own = format!("a1b2-{}-", std::process::id());
        // Each is looked at right after its start, when its exec may be half done.
        let missed = (0..100).filter(|_| {
            let mut children = [start(&own), start(&format!("{own}c3"))];
            let pids = children.each_ref().map(|child| i32::try_from(child.id()).unwrap());
            let ours = pids.map(|pid| carries_mark(pid, |mark| mark == own));
            let found: Vec<i32> = carriers(&own).iter().map(|process| process.pid).collect();
            for child in &mut children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            (ours, &found[..]) != ([true, false], &pids[..1])
        });
        assert_eq!(missed.count(), 0);
        assert_eq!(carriers(&own), []);
    }

    #[test]
    fn without_an_environment_there_is_nothing_to_wait_for() {
        let mut child = std::process::Command::new("sleep").arg("600").env_clear().spawn().unwrap();
        let begun = Instant::now();
        let found = is_marked(i32::try_from(child.id()).unwrap(), |_| true, begun + Duration::from_secs(60));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!found && begun.elapsed() < Duration::from_secs(30));
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
