//! How often the kernel killed for memory in the control group we live in (v2 and v1).

use std::fs;
use std::path::{Path, PathBuf};

/// The counter, where there is one to read.
pub(super) fn kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let (path, file) = counter_file(&groups)?;
    let text = fs::read_to_string(Path::new(&path).join(file)).ok()?;
    parse(&text)
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
