//! Control groups of a test's own, as small as a container can be. Version 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::geteuid;

use super::process::Process;
use super::wait::{SOON, STEP};

/// A limited control group, removed when dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

/// What every group of a test has in its name.
pub const MARK: &str = "zlh-test-";

impl Cgroup {
    /// With so much memory. The error says why this machine has none to give.
    pub fn of_memory(bytes: u64) -> Result<Self, String> {
        let (group, v1) = Self::new("memory")?;
        if v1 {
            group.limit("memory.limit_in_bytes", bytes)?;
            // Swap, where there is some, would only make it slower.
            let _ = group.limit("memory.memsw.limit_in_bytes", bytes);
        } else {
            group.limit("memory.max", bytes)?;
            let _ = group.limit("memory.swap.max", 0);
        }
        Ok(group)
    }

    /// With so many processes and threads. The error says why this machine has none to give.
    pub fn of_processes(most: u64) -> Result<Self, String> {
        let (group, _) = Self::new("pids")?;
        group.limit("pids.max", most)?;
        Ok(group)
    }

    /// The group, and whether it is one of version 1.
    fn new(controller: &str) -> Result<(Self, bool), String> {
        if !geteuid().is_root() {
            return Err("it needs root".to_owned());
        }
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = |wanted: &dyn Fn(&str) -> bool| {
            groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let root = Path::new("/sys/fs/cgroup");
        let v1 = own(&|c| c.split(',').any(|one| one == controller));
        let is_v1 = v1.is_some();
        let parent = match (v1, own(&str::is_empty)) {
            (Some(path), _) => root.join(controller).join(path),
            (None, Some(path)) => root.join(path),
            (None, None) => return Err(format!("there is no {controller} controller")),
        };
        let dir = parent.join(format!("{MARK}{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
        Ok((Self(dir), is_v1))
    }

    fn limit(&self, file: &str, value: u64) -> Result<(), String> {
        fs::write(self.0.join(file), value.to_string())
            .map_err(|error| format!("limit {}: {error}", self.0.display()))
    }

    /// A process lives in it from now on, and what it starts.
    #[track_caller]
    pub fn take(&self, process: Process) {
        fs::write(self.0.join("cgroup.procs"), process.pid.to_string())
            .expect("move a process into the group");
    }

    /// How many of its processes were killed for memory.
    pub fn killed(&self) -> u64 {
        let events =
            ["memory.events", "memory.oom_control"].map(|file| fs::read_to_string(self.0.join(file)));
        let mut lines = events.iter().flatten().flat_map(|text| text.lines());
        let count = lines.find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// How often a process was refused.
    pub fn refused(&self) -> u64 {
        let events = fs::read_to_string(self.0.join("pids.events")).unwrap_or_default();
        let line = events.lines().find_map(|line| line.strip_prefix("max "));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes may be on their last instructions.
        let end = Instant::now() + SOON;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(STEP);
        }
    }
}
