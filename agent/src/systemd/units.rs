//! In which unit a process lives: the control group says it, with no systemd to ask.

use zlh_shim::durable;

/// The system unit this process belongs to.
pub(crate) fn own_unit() -> Option<String> {
    read("self")
}

/// The system unit a process belongs to.
pub(crate) fn unit_of(pid: i32) -> Option<String> {
    read(&pid.to_string())
}

fn read(process: &str) -> Option<String> {
    let path = format!("/proc/{process}/cgroup");
    let bytes = durable::read_bounded(std::path::Path::new(&path), MAX_GROUPS).ok()?;
    parse(&String::from_utf8_lossy(&bytes))
}

/// systemd keeps its tree in the unified hierarchy, or in one named after it where there is
/// no unified one. Where both are there one of them may be empty.
fn parse(groups: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        if !controllers.is_empty() && controllers != "name=systemd" {
            return None;
        }
        let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
        let mut parts = path.split('/').filter(is_unit);
        let unit = parts.next_back()?;
        // What runs below a user's own manager is not known to the system's.
        let of_a_user = parts.any(|part| part.starts_with("user@"));
        (!of_a_user).then(|| unit.to_owned())
    })
}

/// A dozen hierarchies with long paths.
const MAX_GROUPS: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_found_in_every_layout() {
        let agent = Some("zlh-agent.service".to_owned());
        for (groups, expected) in [
            ("0::/system.slice/zlh-agent.service\n", agent.clone()),
            ("0::/system.slice/zlh-agent.service/below\n", agent.clone()),
            ("9:name=systemd:/\n8:pids:/\n0::/system.slice/zlh-agent.service\n", agent.clone()),
            ("4:memory:/x.service\n1:name=systemd:/system.slice/zlh-agent.service\n0::/\n", agent),
            ("0::/user.slice/user-0.slice/session-3.scope\n", Some("session-3.scope".to_owned())),
            ("0::/user.slice/user-1.slice/user@1.service/app.slice/a.service\n", None),
            ("0::/\n", None),
            ("4:memory:/x.service\n", None),
            ("nonsense\n", None),
        ] {
            assert_eq!(parse(groups), expected, "{groups:?}");
        }
    }
}
