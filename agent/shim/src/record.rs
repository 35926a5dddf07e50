//! What the shim writes down: who holds the workload, and how it ended.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable::{self, ReadError, Slot};
use crate::files;
use crate::process::{Generation, ProcessId};

/// Schema of both records.
pub const SCHEMA: u32 = 1;

/// Bytes reserved for an exit record.
pub const EXIT_SLOT_BYTES: usize = 8192;

/// `shim.json`: who holds the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// Identity of this run, random.
    pub instance: String,
    /// The shim.
    pub shim: ProcessId,
    /// The workload's main process, once it exists.
    pub child: Option<ProcessId>,
    /// The container's life this belongs to.
    pub generation: Generation,
    /// Version of the shim.
    pub version: String,
    /// Protocol versions it speaks.
    pub protocol: (u16, u16),
    /// When it was started, Unix milliseconds, to show.
    pub started_unix_ms: u64,
    /// CLOCK_BOOTTIME at the start, milliseconds.
    pub started_boot_ms: u64,
    /// Console log offset at which this run began.
    #[serde(default)]
    pub console_start: u64,
    /// Memory events before the start, where they could be read.
    #[serde(default)]
    pub oom_before: Option<u64>,
    /// How often another shim took over, because the one before had died.
    #[serde(default)]
    pub adoptions: u32,
    /// Bytes of output that went with dead shims.
    #[serde(default)]
    pub lost_bytes: u64,
}

/// `child.json`: who became the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRecord {
    /// Identity of the run.
    pub instance: String,
    /// The main process.
    pub child: ProcessId,
}

/// How a workload ended. `Lost` is never mistaken for success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Exit {
    /// It called exit.
    Exited {
        /// 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Killed {
        /// Signal number.
        signal: i32,
        /// Whether a core file was written.
        core: bool,
    },
    /// It never ran.
    ExecFailed {
        /// The step that failed, for example `chdir /srv/world`.
        step: String,
        /// Error number.
        errno: i32,
    },
    /// Nobody saw how it ended.
    Lost {
        /// Why not.
        reason: String,
    },
}

/// How far the stop ladder went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopStage {
    /// The stop command was typed.
    Command,
    /// SIGTERM was sent.
    Term,
    /// SIGKILL was sent.
    Kill,
}

/// Memory events of the workload's control group, where there is one to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCounters {
    /// Processes killed for memory before the start.
    pub before: u64,
    /// Processes killed for memory at the exit.
    pub after: u64,
}

/// `exit.json`: how the workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Identity of the run.
    pub instance: String,
    /// The process that ended; none when it never ran.
    pub child: Option<ProcessId>,
    /// How.
    pub exit: Exit,
    /// Whether a stop had been asked for, and how far the ladder went.
    pub stop: Option<StopStage>,
    /// Unix milliseconds, to show.
    pub ended_unix_ms: u64,
    /// CLOCK_BOOTTIME, milliseconds.
    pub ended_boot_ms: u64,
    /// How long it lived, milliseconds.
    pub uptime_ms: u64,
    /// Console log offset when it ended.
    pub console_end: u64,
    /// Console log offset when it started.
    pub console_start: u64,
    /// Memory events, where they could be read.
    pub oom: Option<OomCounters>,
    /// The container's life this belongs to.
    pub generation: Generation,
}

impl ShimRecord {
    /// Writes `shim.json`.
    pub fn write(&self, run_dir: &Path) -> std::io::Result<()> {
        durable::write_record(&run_dir.join(files::SHIM), SCHEMA, self)
    }

    /// Reads `shim.json`, with the child that the shim had no time to write down.
    pub fn read(run_dir: &Path) -> Result<Self, ReadError> {
        let mut record: Self = durable::read_record(&run_dir.join(files::SHIM), SCHEMA)?;
        if record.child.is_none()
            && let Ok(own) = durable::read_record::<ChildRecord>(&run_dir.join(files::CHILD), SCHEMA)
            && own.instance == record.instance
        {
            record.child = Some(own.child);
        }
        Ok(record)
    }
}

impl ChildRecord {
    /// Writes `child.json`. Not synced: after a power cut there is no process to know of.
    pub fn write(&self, run_dir: &Path) -> std::io::Result<()> {
        let (path, bytes) = (run_dir.join(files::CHILD), durable::encode_record(SCHEMA, self)?);
        let fresh = path.with_extension("new");
        let written = std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, path));
        if written.is_err() {
            // Best effort: the next one writes over it.
            let _ = std::fs::remove_file(&fresh);
        }
        written
    }
}

impl ExitRecord {
    /// Writes `exit.json`, or the reserved slot when the disk does not take a new file.
    pub fn write(&self, run_dir: &Path, slot: Option<&Slot>) -> std::io::Result<()> {
        let first = durable::write_record(&run_dir.join(files::EXIT), SCHEMA, self);
        match (first, slot) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(slot)) => slot.fill(&durable::encode_record(SCHEMA, self)?),
            (Err(error), None) => Err(error),
        }
    }

    /// Reads the exit record of `instance`, from the file or the slot.
    pub fn read(run_dir: &Path, instance: &str) -> Result<Self, ReadError> {
        let file = durable::read_record::<Self>(&run_dir.join(files::EXIT), SCHEMA);
        if let Ok(record) = &file
            && record.instance == instance
        {
            return file;
        }
        let slot_path = run_dir.join(files::EXIT_SLOT);
        match durable::read_record::<Self>(&slot_path, SCHEMA) {
            Ok(record) if record.instance == instance => Ok(record),
            _ => match file {
                Ok(_) => Err(ReadError::Missing(run_dir.join(files::EXIT))),
                Err(error) => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(instance: &str) -> ExitRecord {
        ExitRecord {
            instance: instance.to_owned(),
            child: Some(ProcessId { pid: 7, start_ticks: 9 }),
            exit: Exit::Killed { signal: 9, core: false },
            stop: None,
            ended_unix_ms: 1,
            ended_boot_ms: 2,
            uptime_ms: 3,
            console_end: 4,
            console_start: 0,
            oom: None,
            generation: Generation { boot_id: "b".to_owned(), init_start_ticks: 1 },
        }
    }

    #[test]
    fn the_slot_serves_when_the_file_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot::reserve(&dir.path().join(files::EXIT_SLOT), EXIT_SLOT_BYTES).unwrap();
        // A directory in the way stands for a rename that the file system refuses.
        std::fs::create_dir(dir.path().join(files::EXIT)).unwrap();
        record("a").write(dir.path(), Some(&slot)).unwrap();
        assert_eq!(ExitRecord::read(dir.path(), "a").unwrap(), record("a"));
        assert!(ExitRecord::read(dir.path(), "b").is_err());
    }

    #[test]
    fn the_child_is_known_by_its_own_word_if_the_shim_said_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let own = ProcessId { pid: 7, start_ticks: 9 };
        let shim = ShimRecord {
            instance: "a".to_owned(),
            shim: ProcessId { pid: 6, start_ticks: 8 },
            child: None,
            generation: record("a").generation,
            version: "1".to_owned(),
            protocol: (1, 1),
            started_unix_ms: 1,
            started_boot_ms: 1,
            console_start: 0,
            oom_before: None,
            adoptions: 0,
            lost_bytes: 0,
        };
        shim.write(dir.path()).unwrap();
        assert_eq!(ShimRecord::read(dir.path()).unwrap().child, None);
        for (instance, known) in [("b", None), ("a", Some(own))] {
            ChildRecord { instance: instance.to_owned(), child: own }.write(dir.path()).unwrap();
            assert_eq!(ShimRecord::read(dir.path()).unwrap().child, known, "{instance}");
        }
    }

    #[test]
    fn another_runs_record_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        record("old").write(dir.path(), None).unwrap();
        assert!(matches!(ExitRecord::read(dir.path(), "new"), Err(ReadError::Missing(_))));
    }
}
