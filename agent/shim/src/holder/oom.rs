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
        Self(counter_file(&groups).map(|(path, file)| path.join(file)))
    }

    /// Its value, where there is one to read.
    pub(super) fn read(&self) -> Option<u64> {
        parse(&fs::read_to_string(self.0.as_ref()?).ok()?)
    }
}

fn counter_file(groups: &str) -> Option<(PathBuf, &'static str)> {
    let mut unified = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let below = path.trim_start_matches('/');
        if controllers.split(',').any(|c| c == "memory") {
            return Some((Path::new("/sys/fs/cgroup/memory").join(below), "memory.oom_control"));
        }
        if controllers.is_empty() {
            unified = Some((Path::new("/sys/fs/cgroup").join(below), "memory.events"));
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
        assert_eq!(
            counter_file(v1),
            Some((PathBuf::from("/sys/fs/cgroup/memory/lxc/5001"), "memory.oom_control"))
        );
        let v2 = "0::/zlh.slice\n";
        assert_eq!(counter_file(v2), Some((PathBuf::from("/sys/fs/cgroup/zlh.slice"), "memory.events")));
    }

    #[test]
    fn the_counter_is_not_the_group_counter() {
        assert_eq!(parse("low 0\noom 3\noom_kill 2\noom_group_kill 9\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("low 0\n"), None);
    }
}
