//! Who belongs to a workload: what is signalled with it, and swept after it.
//!
//! The shim that started it is the subreaper of all of it: its descendants. One that took
//! it over is nobody's parent, and what had lost its own parents went to init. There the
//! workload is: the main process and its descendants, its session (the exec stage gave it
//! one of its own), whoever holds the slot's lock open (inherited by every process of the
//! workload and by nobody else), and all that descends from them.
//!
//! Refuses: a session's number once the session was seen empty, or once another process has
//! the number itself, because then it is or can be another's; and whoever has the lock open as
//! our own user while the workload runs as another, which is a copy or a backup at work.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::files;
use crate::living::Living;
use crate::process::{self, ProcessId, Stat};
use crate::spec::Spec;

/// How processes of the workload are recognised.
#[derive(Debug)]
pub enum Kin {
    /// We started it: our descendants.
    Descendants,
    /// We took it over.
    Foreign {
        /// Its session, while there is somebody in it.
        session: Option<i32>,
        /// Seen before: they stay of the workload wherever they go.
        known: Vec<ProcessId>,
        /// The slot's lock.
        lock: PathBuf,
        /// Who has the lock open as this user is none of it.
        spared: Option<u32>,
    },
}

impl Kin {
    /// Of a workload that another shim started in `run_dir`, whose main process is `main`.
    pub fn foreign(run_dir: &Path, main: Option<ProcessId>) -> Self {
        let stat = main.and_then(|main| {
            process::stat(main.pid).ok().filter(|stat| stat.start_ticks == main.start_ticks)
        });
        // Session 0 is everybody whom the kernel started.
        let session = stat.map(|stat| stat.session).filter(|&session| session > 0);
        let spec = Spec::read(run_dir).ok();
        let owner = stat.and(main).and_then(|main| user_of(main.pid));
        let owner = owner.or_else(|| Some(spec.as_ref()?.user.as_ref()?.uid));
        let us = rustix::process::geteuid().as_raw();
        // Who may take other privileges may have become us.
        let may_become_us = spec.is_some_and(|spec| spec.new_privileges);
        let spared = owner.filter(|&owner| owner != us && !may_become_us).map(|_| us);
        Self::Foreign { session, known: Vec::new(), lock: run_dir.join(files::LOCK), spared }
    }

    /// Whether somebody else started it.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    /// Kills everybody and whoever comes after them: two empty looks in a row, because what
    /// forks between them is seen by the next. False when somebody is left after `patience`.
    pub fn sweep(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut empty = 0;
        while empty < 2 {
            empty = if self.signal(None, Signal::KILL) == 0 { empty + 1 } else { 0 };
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(SWEEP_TICK);
        }
        true
    }

    /// Signals everybody, each by its identity; answers how many there were.
    pub fn signal(&mut self, main: Option<ProcessId>, signal: Signal) -> usize {
        let all = match self {
            Self::Descendants => {
                let Ok(me) = i32::try_from(std::process::id()) else { return 0 };
                process::descendants(me)
            }
            Self::Foreign { session, known, lock, spared } => {
                let everybody = process::all();
                *session = session.filter(|&number| !is_anothers(number, &everybody, main, known));
                *known = family(&everybody, main, *session, known, |pid| {
                    has_open(pid, lock) && (spared.is_none() || user_of(pid) != *spared || runs(pid, b"exec"))
                });
                let occupied = everybody.iter().any(|(_, stat)| Some(stat.session) == *session);
                *session = session.filter(|_| occupied);
                known.clone()
            }
        };
        for process in &all {
            if let Some(process) = Living::open(*process) {
                // It may have ended since; then there is nothing to do.
                let _ = process.signal(signal);
            }
        }
        all.len()
    }
}

/// Between two looks of a sweep.
const SWEEP_TICK: Duration = Duration::from_millis(10);

/// Whether a session's number belongs to a process that is not of the workload: no process gets
/// it while somebody is in the session.
fn is_anothers(
    session: i32,
    everybody: &[(ProcessId, Stat)],
    main: Option<ProcessId>,
    known: &[ProcessId],
) -> bool {
    let leader = everybody.iter().map(|(process, _)| *process).find(|process| process.pid == session);
    leader.is_some_and(|leader| Some(leader) != main && !known.contains(&leader))
}

/// The living ones of the workload. Never ourselves.
fn family(
    everybody: &[(ProcessId, Stat)],
    main: Option<ProcessId>,
    session: Option<i32>,
    known: &[ProcessId],
    holds_the_lock: impl Fn(i32) -> bool,
) -> Vec<ProcessId> {
    let me = std::process::id().cast_signed();
    let strangers = || everybody.iter().filter(|(process, _)| process.pid != me);
    let mut found: Vec<ProcessId> = strangers()
        .filter(|(process, stat)| {
            Some(*process) == main
                || known.contains(process)
                || Some(stat.session) == session
                || holds_the_lock(process.pid)
        })
        .map(|(process, _)| *process)
        .collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.pid) {
        next += 1;
        let children =
            strangers().filter(|(process, stat)| stat.parent == parent && !found.contains(process));
        let children: Vec<ProcessId> = children.map(|(process, _)| *process).collect();
        found.extend(children);
    }
    found
}

/// The shims that hold the slot of `run_dir`, or wait for it.
pub fn shims(run_dir: &Path) -> Vec<ProcessId> {
    let lock = run_dir.join(files::LOCK);
    let everybody = process::all().into_iter().map(|(process, _)| process);
    everybody.filter(|process| is_a_shim(process.pid) && opens(process.pid, &lock)).collect()
}

/// Whether a process has the slot's lock open, as everything a shim started does unless it
/// closed it. A shim that waits for the slot has it open too, and is not of the workload.
fn has_open(pid: i32, lock: &Path) -> bool {
    opens(pid, lock) && !is_a_shim(pid)
}

fn opens(pid: i32, lock: &Path) -> bool {
    let Ok(lock) = std::fs::metadata(lock) else { return false };
    process::views(pid).iter().any(|view| {
        let descriptors = std::fs::read_dir(view.join("fd")).into_iter().flatten().flatten();
        descriptors
            .map(|descriptor| std::fs::metadata(descriptor.path()))
            .any(|file| file.is_ok_and(|file| (file.dev(), file.ino()) == (lock.dev(), lock.ino())))
    })
}

/// By its command, and by its user: what runs as somebody else is none, whatever it says.
fn is_a_shim(pid: i32) -> bool {
    user_of(pid) == Some(rustix::process::geteuid().as_raw()) && runs(pid, b"shim")
}

fn user_of(pid: i32) -> Option<u32> {
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|process| process.uid())
}

/// Whether its first argument names that part of the agent.
fn runs(pid: i32, part: &[u8]) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|&byte| byte == 0).nth(1) == Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32) -> (ProcessId, Stat) {
        let start_ticks = 100;
        (ProcessId { pid, start_ticks }, Stat { state: b'S', parent, session, threads: 1, start_ticks })
    }

    fn pids(found: &[ProcessId]) -> Vec<i32> {
        let mut pids: Vec<i32> = found.iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn a_workload_is_its_session_its_descendants_and_who_holds_its_lock() {
        let everybody = [
            process(1, 0, 1),
            process(1_000_010, 1, 1_000_009),         // the main process
            process(1_000_011, 1_000_010, 1_000_011), // its child, in a session of its own
            process(1_000_012, 1, 1_000_009),         // its parent died: init has it, in the session
            process(1_000_013, 1_000_012, 1_000_013), // and its child
            process(1_000_014, 1, 1_000_014),         // fled into a session of its own, with the lock
            process(1_000_015, 1, 1_000_015),         // somebody else
        ];
        let main = Some(everybody[1].0);
        let family = |session, known: &[ProcessId]| {
            pids(&family(&everybody, main, session, known, |pid| pid == 1_000_014))
        };
        assert_eq!(family(Some(1_000_009), &[]), [1_000_010, 1_000_011, 1_000_012, 1_000_013, 1_000_014]);
        // Without the session, what was known stays known.
        assert_eq!(family(None, &[everybody[3].0]), [1_000_010, 1_000_011, 1_000_012, 1_000_013, 1_000_014]);
        assert_eq!(family(None, &[]), [1_000_010, 1_000_011, 1_000_014]);
        // A number that is somebody else's by now is not known.
        let recycled = ProcessId { start_ticks: 7, ..everybody[6].0 };
        assert_eq!(family(None, &[recycled]), [1_000_010, 1_000_011, 1_000_014]);
    }

    #[test]
    fn an_empty_session_is_never_looked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let (session, lock) = (Some(i32::MAX), dir.path().join(files::LOCK));
        let mut kin = Kin::Foreign { session, known: Vec::new(), lock, spared: None };
        assert_eq!(kin.signal(None, Signal::CONT), 0);
        assert!(matches!(kin, Kin::Foreign { session: None, .. }));
    }

    #[test]
    fn a_session_whose_number_another_process_has_is_anothers() {
        let everybody = [process(1_000_009, 1, 1_000_009), process(1_000_010, 1, 1_000_009)];
        let [(leader, _), (member, _)] = everybody;
        assert!(is_anothers(1_000_009, &everybody, Some(member), &[]));
        assert!(!is_anothers(1_000_009, &everybody, Some(leader), &[]));
        assert!(!is_anothers(1_000_009, &everybody, None, &[leader]));
        assert!(!is_anothers(1_000_009, &everybody[1..], Some(member), &[]));
    }

    /// Who copies the folder has the lock open, and is nobody's to kill.
    #[test]
    fn who_reads_the_lock_as_our_own_user_is_spared() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join(files::LOCK);
        std::fs::write(&lock, "").unwrap();
        let open = || std::fs::File::open(&lock).unwrap();
        let spawn = || std::process::Command::new("sleep").arg("600").stdin(open()).spawn().unwrap();
        let mut backup = spawn();
        let mut kin = Kin::foreign(dir.path(), None);
        let Kin::Foreign { spared, .. } = &mut kin else { panic!("it is foreign") };
        *spared = Some(rustix::process::geteuid().as_raw());
        assert_eq!(kin.signal(None, Signal::KILL), 0);
        assert!(backup.try_wait().unwrap().is_none(), "left alone");
        backup.kill().unwrap();
        backup.wait().unwrap();
    }

    #[test]
    fn a_sweep_ends_who_has_the_lock_open_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let lock = std::fs::File::create(dir.path().join(files::LOCK)).unwrap();
        let spawn = |input: std::process::Stdio| {
            std::process::Command::new("sleep").arg("600").stdin(input).spawn().unwrap()
        };
        let (mut ours, mut other) = (spawn(lock.into()), spawn(std::process::Stdio::null()));
        // We are their parent: zombies are nobody's problem until the end of the test.
        assert!(Kin::foreign(dir.path(), None).sweep(Duration::from_secs(20)));
        assert!(ours.wait().unwrap().code().is_none(), "killed");
        assert!(other.try_wait().unwrap().is_none(), "left alone");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
