//! What a workload uses: memory, CPU time, disk.

use std::path::Path;

use procfs::process::Process;
use zlh_api::Resources;

/// Figures of the process tree of `pid` and the file system under `root`; none when it is gone.
pub(crate) fn resources(pid: i32, root: Option<&Path>) -> Option<Resources> {
    let tree = zlh_shim::process::descendants(pid);
    let main = figures(pid)?;
    let mut sum = tree.iter().filter_map(|process| figures(process.pid)).fold(main, |a, b| Resources {
        memory_bytes: a.memory_bytes + b.memory_bytes,
        cpu_millis: a.cpu_millis + b.cpu_millis,
        threads: a.threads + b.threads,
        ..a
    });
    if let Some(disk) = root.and_then(|root| rustix::fs::statvfs(root).ok()) {
        sum.disk_free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        sum.disk_total_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
    }
    Some(sum)
}

fn figures(pid: i32) -> Option<Resources> {
    let stat = Process::new(pid).ok()?.stat().ok()?;
    let ticks = procfs::ticks_per_second().max(1);
    Some(Resources {
        memory_bytes: stat.rss.saturating_mul(procfs::page_size()),
        cpu_millis: (stat.utime + stat.stime).saturating_mul(1000) / ticks,
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        ..Resources::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let me = i32::try_from(std::process::id()).unwrap();
        let used = resources(me, Some(Path::new("/"))).unwrap();
        assert!(used.memory_bytes > 100_000 && used.threads > 0 && used.disk_total_bytes > 0, "{used:?}");
    }
}
