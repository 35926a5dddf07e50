//! The last crashes, one file each: written whole or not at all, with a checksum.
//!
//! Bounded to [`KEPT`] records of [`MAX_BYTES`]; the oldest go first. One that cannot be
//! read is set aside. On a full disk the records stay in memory and are written with the
//! next one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use slog::{Logger, warn};
use zlh_api::CrashRecord;
use zlh_shim::durable::{self, ReadError};

/// Records kept.
pub(crate) const KEPT: usize = 50;

/// Largest record, bytes: lines of its log tail are dropped until it fits.
const MAX_BYTES: usize = 128 << 10;

const SCHEMA: u32 = 1;

/// The records of one workload. Clones share them.
#[derive(Clone)]
pub(crate) struct Archive {
    dir: Arc<PathBuf>,
    log: Logger,
    /// What the disk did not take yet, newest last.
    unwritten: Arc<Mutex<Vec<CrashRecord>>>,
}

impl Archive {
    pub(crate) fn new(dir: PathBuf, log: Logger) -> Self {
        Self { dir: Arc::new(dir), log, unwritten: Arc::default() }
    }

    /// Keeps a record, or its amended form. Blocking.
    pub(crate) fn keep(&self, record: &CrashRecord) {
        let mut waiting = self.waiting();
        waiting.retain(|one| one.id != record.id);
        waiting.push(fitting(record.clone()));
        let all = std::mem::take(&mut *waiting);
        let mut refused = None;
        for one in all {
            if refused.is_none()
                && let Err(error) = self.write(&one)
            {
                refused = Some(error);
            }
            if refused.is_some() {
                waiting.push(one);
            }
        }
        let surplus = waiting.len().saturating_sub(KEPT);
        waiting.drain(..surplus);
        drop(waiting);
        if let Some(error) = refused {
            warn!(self.log, "a crash record cannot be written; it is kept in memory"; "error" => %error);
        }
        self.prune();
    }

    fn write(&self, record: &CrashRecord) -> std::io::Result<()> {
        crate::paths::make_dir(&self.dir, 0o700)?;
        durable::write_record(&self.path(&record.id), SCHEMA, record)
    }

    /// Newest first. Blocking.
    pub(crate) fn list(&self) -> Vec<CrashRecord> {
        let waiting = self.waiting().clone();
        let mut records: Vec<CrashRecord> = self
            .ids()
            .into_iter()
            .filter(|id| waiting.iter().all(|one| one.id != *id))
            .filter_map(|id| self.read(&id))
            .chain(waiting.iter().cloned())
            .collect();
        records.sort_by(|a, b| order(&b.id).cmp(&order(&a.id)));
        records.truncate(KEPT);
        records
    }

    /// By id; none if nobody made it. Blocking.
    pub(crate) fn get(&self, id: &str) -> Option<CrashRecord> {
        if !is_id(id) {
            return None;
        }
        let waiting = self.waiting().iter().find(|one| one.id == id).cloned();
        waiting.or_else(|| self.read(id))
    }

    /// How many kept crashes before `id` have this fingerprint. Blocking.
    pub(crate) fn seen(&self, fingerprint: &str, id: &str) -> u32 {
        let same = |one: &&CrashRecord| one.fingerprint == fingerprint && order(&one.id) < order(id);
        let count = if fingerprint.is_empty() { 0 } else { self.list().iter().filter(same).count() };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn read(&self, id: &str) -> Option<CrashRecord> {
        let path = self.path(id);
        match durable::read_record(&path, SCHEMA) {
            Ok(record) => Some(record),
            Err(ReadError::Missing(_)) => None,
            Err(error) => {
                let aside = path.with_extension("broken");
                let kept = std::fs::rename(&path, &aside).is_ok();
                warn!(self.log, "a crash record cannot be read"; "set aside" => kept,
                    "path" => %aside.display(), "error" => crate::errors::chain(&error));
                None
            }
        }
    }

    /// Ids of what is on disk, oldest first.
    fn ids(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&*self.dir) else { return Vec::new() };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let id = name.strip_suffix(".json")?;
                is_id(id).then(|| id.to_owned())
            })
            .collect();
        ids.sort_by(|a, b| order(a).cmp(&order(b)));
        ids
    }

    fn prune(&self) {
        let ids = self.ids();
        for id in &ids[..ids.len().saturating_sub(KEPT)] {
            // What cannot be removed now is tried again with the next record.
            let _ = std::fs::remove_file(self.path(id));
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        Path::new(&*self.dir).join(format!("{id}.json"))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<CrashRecord>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of a crash: when it ended, and which run that was.
pub(crate) fn id_of(ended_unix_ms: u64, instance: &str) -> String {
    let run: String = instance.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{ended_unix_ms}-{}", if run.is_empty() { "0" } else { run.as_str() })
}

/// What came from outside names a file only in this form.
fn is_id(id: &str) -> bool {
    id.split_once('-').is_some_and(|(time, run)| {
        !time.is_empty()
            && time.len() <= 20
            && time.bytes().all(|b| b.is_ascii_digit())
            && (1..=8).contains(&run.len())
            && run.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn order(id: &str) -> (u64, &str) {
    id.split_once('-').map_or((0, id), |(time, run)| (time.parse().unwrap_or(u64::MAX), run))
}

/// A record that is too large loses the oldest lines of its log tail.
fn fitting(mut record: CrashRecord) -> CrashRecord {
    let size = |record: &CrashRecord| serde_json::to_vec(record).map_or(0, |bytes| bytes.len());
    while size(&record) > MAX_BYTES && !record.log_tail.is_empty() {
        let fewer = record.log_tail.len().div_ceil(4);
        record.log_tail.drain(..fewer);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(dir: &Path) -> Archive {
        Archive::new(dir.join("crashes"), Logger::root(slog::Discard, slog::o!()))
    }

    fn record(time: u64, fingerprint: &str) -> CrashRecord {
        CrashRecord {
            id: id_of(time, "abcdef0123"),
            fingerprint: fingerprint.to_owned(),
            ..CrashRecord::default()
        }
    }

    #[test]
    fn the_newest_fifty_are_kept_and_a_broken_one_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path());
        for time in 1..=60 {
            archive.keep(&record(time, "f"));
        }
        let ids: Vec<_> = archive.list().into_iter().map(|one| one.id).collect();
        assert_eq!((ids.len(), ids[0].as_str(), ids[49].as_str()), (50, "60-abcdef01", "11-abcdef01"));
        std::fs::write(dir.path().join("crashes/60-abcdef01.json"), "garbage").unwrap();
        assert_eq!(archive.list().len(), 49);
        assert!(dir.path().join("crashes/60-abcdef01.broken").exists());
        assert_eq!(archive.seen("f", "59-abcdef01"), 48);
        assert_eq!(archive.seen("", "59-abcdef01"), 0);
    }

    #[test]
    fn an_amended_record_takes_the_place_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path());
        archive.keep(&record(1, "a"));
        archive.keep(&record(1, "b"));
        let list = archive.list();
        assert_eq!((list.len(), list[0].fingerprint.as_str()), (1, "b"));
    }

    #[test]
    fn what_the_disk_refuses_stays_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path());
        // A file where the folder should be stands for a disk that takes nothing.
        std::fs::write(dir.path().join("crashes"), "").unwrap();
        archive.keep(&record(1, "a"));
        archive.keep(&record(2, "a"));
        assert_eq!(archive.list().len(), 2);
        assert!(archive.get("2-abcdef01").is_some());
        std::fs::remove_file(dir.path().join("crashes")).unwrap();
        archive.keep(&record(3, "a"));
        let again = super::tests::archive(dir.path());
        assert_eq!(again.list().len(), 3, "all of them are on disk now");
    }

    #[test]
    fn an_id_from_outside_is_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path());
        for id in [
            "",
            "..",
            "../x",
            "1-..",
            "1-/etc",
            "1",
            "-a",
            "1-abcdef012",
            "1-g",
            "1\0-a",
            "99999999999999999999999-a",
        ] {
            assert!(archive.get(id).is_none(), "{id}");
        }
    }

    #[test]
    fn a_record_is_bounded() {
        let big = CrashRecord { log_tail: vec!["x".repeat(1000); 2000], ..record(1, "a") };
        let kept = fitting(big);
        assert!(serde_json::to_vec(&kept).unwrap().len() <= MAX_BYTES);
        assert!(!kept.log_tail.is_empty());
    }
}
