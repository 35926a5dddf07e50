//! How often the kernel killed for memory in the control group of a process (v2 and v1).

use std::fs;
use std::path::{Path, PathBuf};

/// The counter of one group: read after the process has ended, found while it lives.
#[derive(Debug)]
pub(super) struct Counter(Option<PathBuf>);

impl Counter {
    /// The counter of the group this process lives in.
    pub(super) fn own() -> Self {
        Self::of("self")
    }

    /// The counter of the group that `process` (a pid, or `self`) lives in.
    pub(super) fn of(process: &str) -> Self {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        Self::below(Path::new("/sys/fs/cgroup"), &groups)
    }

    fn below(mount: &Path, groups: &str) -> Self {
        Self(counter_file(mount, groups).map(|(path, file)| path.join(file)))
    }

    /// Its value, where there is one to read.
    pub(super) fn read(&self) -> Option<u64> {
        parse(&fs::read_to_string(self.0.as_ref()?).ok()?)
    }
}

fn counter_file(mount: &Path, groups: &str) -> Option<(PathBuf, &'static str)> {
    let mut unified = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let below = path.trim_start_matches('/');
        if controllers.split(',').any(|c| c == "memory") {
            return Some((mount.join("memory").join(below), "memory.oom_control"));
        }
        if controllers.is_empty() {
            unified = Some((mount.join(below), "memory.events"));
        }
    }
    unified
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_found() {
        let v1 = "5:memory:/lxc/5001\n1:name=systemd:/x\n0::/x\n";
        let mount = Path::new("/sys/fs/cgroup");
        assert_eq!(
            counter_file(mount, v1),
            Some((PathBuf::from("/sys/fs/cgroup/memory/lxc/5001"), "memory.oom_control"))
        );
        let v2 = "0::/zlh.slice\n";
        assert_eq!(
            counter_file(mount, v2),
            Some((PathBuf::from("/sys/fs/cgroup/zlh.slice"), "memory.events"))
        );
    }

    /// Trees as they were recorded before and after a kill: a unit of its own on a host with
    /// v2, the root of a container's cgroup namespace, a container on a host with v1.
    #[test]
    fn a_kill_is_counted_in_recorded_trees() {
        let v2 = |kills: u32| format!("low 0\nhigh 0\nmax 4213\noom 1\noom_kill {kills}\noom_group_kill 0\n");
        let v1 = |kills: u32| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        let unit = "system.slice/zlh-game.service";
        for (groups, file, record) in [
            (format!("0::/{unit}\n"), format!("{unit}/memory.events"), &v2 as &dyn Fn(u32) -> String),
            ("0::/\n".to_owned(), "memory.events".to_owned(), &v2),
            (
                "9:memory:/lxc/5001\n1:name=systemd:/\n0::/lxc/5001\n".to_owned(),
                "memory/lxc/5001/memory.oom_control".to_owned(),
                &v1,
            ),
        ] {
            let mount = tempfile::tempdir().unwrap();
            let path = mount.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let counter = Counter::below(mount.path(), &groups);
            assert_eq!(counter.read(), None, "nothing to read is no kill");
            for kills in [0, 1, 3] {
                fs::write(&path, record(kills)).unwrap();
                assert_eq!(counter.read(), Some(u64::from(kills)), "{groups}");
            }
        }
    }

    #[test]
    fn the_counter_is_not_the_group_counter() {
        assert_eq!(parse("low 0\noom 3\noom_kill 2\noom_group_kill 9\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("low 0\n"), None);
    }
}
