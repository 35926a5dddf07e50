//! Jars that the tests write.

use std::io::{Cursor, Write};
use std::path::Path;
use std::time::Duration;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A jar in memory: names and contents. A name that ends in `.class` needs no content.
pub(crate) fn jar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    jar_by(entries, CompressionMethod::Deflated)
}

pub(crate) fn jar_by(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// What this thread has worked so far. By any other clock a busy machine counts as well.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// Puts a file below a server folder.
pub(crate) fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// `fabric.mod.json` of a mod that needs nothing.
pub(crate) fn fabric(id: &str, version: &str) -> Vec<u8> {
    format!(r#"{{"schemaVersion":1,"id":"{id}","version":"{version}","name":"The {id}"}}"#).into_bytes()
}

/// `plugin.yml` of a plugin that needs nothing.
pub(crate) fn bukkit(name: &str, version: &str) -> Vec<u8> {
    format!("name: {name}\nversion: {version}\nmain: com.example.{}.Main\n", name.to_lowercase()).into_bytes()
}

/// Swaps two names as fast as it can while `work` runs.
pub(crate) fn while_swapping(a: &Path, b: &Path, work: impl FnOnce()) {
    use std::sync::atomic::{AtomicBool, Ordering};
    /// Stops the swaps when the work panics, too.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, flags).unwrap();
            }
        });
        let _stop = Stop(&stop);
        work();
    });
}
