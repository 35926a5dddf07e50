//! Identity of a process: pid, start time, and which boot and container it belongs to.
//!
//! A bare pid means nothing: it can belong to somebody else by now. In LXC the
//! boot id is the host's and survives a container reboot, so the start time of
//! pid 1 goes beside it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
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
    /// One letter of the first thread: `Z` when it has ended, `T` when it is stopped.
    pub state: u8,
    /// Parent.
    pub parent: i32,
    /// Session.
    pub session: i32,
    /// How many threads it has; the first one counts also when it has ended.
    pub threads: u32,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Nothing of it runs any more. A process whose first thread has ended looks like a zombie
    /// and runs on as long as it has another.
    pub const fn is_dead(&self) -> bool {
        self.state == b'Z' && self.threads <= 1
    }
}

impl ProcessId {
    /// The identity of a living process (a zombie counts: its pid is still its own).
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: stat(pid)?.start_ticks })
    }

    /// Whether this very process still exists and is not dead.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|s| s.start_ticks == self.start_ticks && !s.is_dead())
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
    if stat.start_ticks != process.start_ticks || !stat.is_dead() {
        return None;
    }
    // Field 52, the last one so far; the name counts as one whatever it holds.
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(49)?.parse().ok()
}

/// Every living process, the dead left out.
pub fn all() -> Vec<(ProcessId, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = stat(pid).ok()?;
        (!stat.is_dead()).then_some((ProcessId { pid, start_ticks: stat.start_ticks }, stat))
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
    // Fields 7 to 19 lie between the session and the threads, 21 before the start time.
    let threads = fields.nth(13)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, parent, session, threads, start_ticks })
}

/// Every living descendant of `ancestor`, found by walking parents in `/proc`.
/// The dead are left out.
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
        .filter(|(pid, stat)| found[1..].contains(pid) && !stat.is_dead())
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

/// Where `/proc` shows what a process has. Once its first thread has ended the process itself
/// shows nothing, and each of the others shows what it has.
pub(crate) fn views(pid: i32) -> Vec<PathBuf> {
    let whole = PathBuf::from(format!("/proc/{pid}"));
    if !stat(pid).is_ok_and(|stat| stat.state == b'Z' && !stat.is_dead()) {
        return vec![whole];
    }
    let Ok(threads) = fs::read_dir(whole.join("task")) else { return vec![whole] };
    threads.flatten().map(|thread| thread.path()).collect()
}

fn is_marked(pid: i32, ours: impl Fn(&str) -> bool, until: Instant) -> bool {
    let mark = format!("{INSTANCE_VARIABLE}=");
    let carries = |environment: Vec<u8>| {
        environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry.strip_prefix(mark.as_bytes())?).ok())
            .any(&ours)
    };
    views(pid).iter().any(|view| environment(view, until).is_ok_and(carries))
}

/// A process in the middle of an exec shows neither an environment nor a command line for a
/// moment, and is looked at again `until` then.
fn environment(view: &Path, until: Instant) -> io::Result<Vec<u8>> {
    loop {
        let mut environment = Vec::new();
        let file = fs::File::open(view.join("environ"))?;
        file.take(MAX_ENVIRONMENT).read_to_end(&mut environment)?;
        let is_settled = !environment.is_empty() || !is_in_exec(view)?;
        if is_settled || Instant::now() >= until {
            return Ok(environment);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Threads of the kernel and those that have ended show nothing, either, but have no program.
fn is_in_exec(view: &Path) -> io::Result<bool> {
    let mut first = [0];
    let is_silent = fs::File::open(view.join("cmdline"))?.read(&mut first)? == 0;
    Ok(is_silent && fs::read_link(view.join("exe")).is_ok())
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
            let look = || {
                let ours = pids.map(|pid| carries_mark(pid, |mark| mark == own));
                let found: Vec<i32> = carriers(&own).iter().map(|process| process.pid).collect();
                (ours, found)
            };
            let (mut ours, mut found) = look();
            if ours != [true, false] {
                // On a machine that rested while one was in its exec: the same ones once more.
                (ours, found) = look();
            }
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
        let line = b"42 (a) Z 1 (x) 2 3 4) S 7 8 9 0 0 0 0 0 0 0 0 0 0 0 20 0 3 0 123456 0 0";
        let stat = parse_stat(line).unwrap();
        let expected = Stat { state: b'S', parent: 7, session: 9, threads: 3, start_ticks: 123_456 };
        assert_eq!(stat, expected);
    }

    #[test]
    fn dead_is_who_has_no_thread_left() {
        let stat = |state, threads| Stat { state, parent: 1, session: 1, threads, start_ticks: 1 };
        assert!(stat(b'Z', 1).is_dead() && stat(b'Z', 0).is_dead());
        assert!(!stat(b'Z', 2).is_dead() && !stat(b'S', 1).is_dead() && !stat(b'T', 2).is_dead());
    }

    /// Plays a process whose first thread ends while another goes on, for the test below.
    #[test]
    fn headless() {
        if std::env::var_os(HEADLESS).is_none() {
            return;
        }
        let first = i32::try_from(std::process::id()).unwrap();
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
        // Tests run in threads of their own: the first one waits for them in a call that a
        // signal breaks into.
        end_thread_on(libc::SIGUSR1);
        #[allow(unsafe_code)]
        // SAFETY: a plain system call on our own first thread.
        unsafe {
            libc::syscall(libc::SYS_tgkill, first, first, libc::SIGUSR1)
        };
        std::thread::sleep(Duration::from_secs(60));
    }

    #[allow(unsafe_code)]
    fn end_thread_on(signal: i32) {
        extern "C" fn end(_: i32) {
            // SAFETY: `exit` ends this thread alone and touches no memory.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        let end: extern "C" fn(i32) = end;
        // SAFETY: the handler makes one system call, which is all a handler may do.
        unsafe { libc::signal(signal, end as libc::sighandler_t) };
    }

    const HEADLESS: &str = "ZLH_TEST_HEADLESS";

    #[test]
    fn a_process_without_its_first_thread_lives_and_shows_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let lock = fs::File::create(dir.path().join(crate::files::LOCK)).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::headless", "--test-threads", "2"])
            .env(HEADLESS, "1")
            .env(INSTANCE_VARIABLE, "d4e5")
            .stdin(lock)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while stat(id.pid).unwrap().state != b'Z' {
            assert!(Instant::now() < until, "its first thread lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
        let me = i32::try_from(std::process::id()).unwrap();
        let seen = (
            id.is_alive(),
            all().iter().any(|(other, _)| *other == id),
            descendants(me).contains(&id),
            carriers("d4e5").contains(&id),
            remains(id),
        );
        let swept = crate::kin::Kin::foreign(dir.path(), None).sweep(Duration::from_secs(20));
        let exit = std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap());
        assert_eq!(seen, (true, true, true, true, None));
        assert!(swept && exit == Some(libc::SIGKILL), "{exit:?}");
        assert!(!id.is_alive());
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
