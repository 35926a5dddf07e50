//! What a workload's driver remembers across agents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zlh_api::{Config, CrashRecord};
use zlh_shim::durable::{self, ReadError};
use zlh_shim::process::Generation;
use zlh_shim::spec::StopPlan;

use super::maintenance::Maintenance;
use super::policy::Policy;
use crate::game::plan::{self, Installed};
use crate::paths::Paths;

const SCHEMA: u32 = 1;

/// Largest payload that is read back, bytes.
const MAX_PAYLOAD: u64 = 1 << 20;

/// `state/workload.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Whether the workload is meant to run: it is started again at boot.
    pub wanted: bool,
    /// Counters of the restart policy.
    pub policy: Policy,
    /// The last unexpected exit.
    pub last_crash: Option<CrashRecord>,
    /// The run whose exit was counted already.
    pub counted: Option<String>,
    /// A planned restart.
    pub restart_at: Option<BootTime>,
    /// Why the start before it came to nothing, if it did.
    #[serde(default)]
    pub not_started: Option<String>,
    /// Why the agent gave up.
    pub error: Option<String>,
    /// The run that was last seen ready, and since when.
    pub ready: Option<(String, BootTime)>,
    /// RFC 3339, to show.
    pub last_ready_at: Option<String>,
    /// The stop that was accepted and has not ended yet.
    #[serde(default)]
    pub stopping: Option<Stopping>,
}

/// A stop under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopping {
    /// The run that is stopped.
    pub instance: String,
    /// Whether another one follows it.
    pub restart: bool,
    /// Whoever holds the run was told.
    #[serde(default)]
    pub told: Option<Told>,
}

/// A stop that was passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// When.
    pub at: BootTime,
    /// By which plan, whatever is configured since.
    pub plan: StopPlan,
}

/// An instant that survives processes, but not the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootTime {
    /// CLOCK_BOOTTIME, milliseconds.
    pub boot_ms: u64,
    /// The container's life it belongs to.
    pub generation: Generation,
}

impl BootTime {
    /// `after` from now.
    pub(crate) fn after(after: Duration) -> Option<Self> {
        let generation = Generation::current().ok()?;
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Some(Self { boot_ms: zlh_shim::holder::boot_ms().saturating_add(after), generation })
    }

    /// How long until then; none in another life of the container.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.is_current()
            .then(|| Duration::from_millis(self.boot_ms.saturating_sub(zlh_shim::holder::boot_ms())))
    }

    /// How long since then, until `boot_ms`.
    pub(crate) fn until(&self, boot_ms: u64) -> Option<Duration> {
        self.is_current().then(|| Duration::from_millis(boot_ms.saturating_sub(self.boot_ms)))
    }

    /// How long ago that was.
    pub(crate) fn ago(&self) -> Option<Duration> {
        self.until(zlh_shim::holder::boot_ms())
    }

    fn is_current(&self) -> bool {
        Generation::current().is_ok_and(|now| now == self.generation)
    }
}

/// The files behind it.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    payload: PathBuf,
    memory: PathBuf,
    installed: PathBuf,
    opened: PathBuf,
    maintenance: PathBuf,
}

impl Shelf {
    pub(crate) fn new(paths: &Paths) -> Self {
        Self {
            payload: paths.payload(),
            memory: paths.state().join("workload.json"),
            installed: paths.state().join("installed.json"),
            opened: paths.state().join("opened.json"),
            maintenance: paths.state().join("maintenance.json"),
        }
    }

    /// The stored payload. One that cannot be read is set aside, never deleted; the error
    /// says where it is now.
    pub(crate) fn payload(&self) -> Result<Option<Config>, String> {
        let bytes = match durable::read_bounded(&self.payload, MAX_PAYLOAD) {
            Ok(bytes) => bytes,
            Err(ReadError::Missing(_)) => return Ok(None),
            Err(error) => return Err(Self::set_aside(&self.payload, &crate::errors::chain(&error))),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Self::set_aside(&self.payload, &error.to_string()))
    }

    /// Stores a payload, mode 0600.
    pub(crate) fn store_payload(&self, config: &Config) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(config)?;
        bytes.push(b'\n');
        durable::write(&self.payload, &bytes, 0o600)
    }

    /// What was remembered; a broken record is set aside with a warning.
    pub(crate) fn memory(&self) -> (Memory, Option<String>) {
        self.record(&self.memory, SCHEMA)
    }

    /// Remembers.
    pub(crate) fn store_memory(&self, memory: &Memory) -> std::io::Result<()> {
        durable::write_record(&self.memory, SCHEMA, memory)
    }

    /// What is installed; a broken record is set aside with a warning (and installed again).
    pub(crate) fn installed(&self) -> (Option<Installed>, Option<String>) {
        self.record(&self.installed, plan::SCHEMA)
    }

    /// Records what is installed.
    pub(crate) fn store_installed(&self, installed: &Installed) -> std::io::Result<()> {
        durable::write_record(&self.installed, plan::SCHEMA, &Some(installed))
    }

    /// The version that a server's folder was opened with last, as far as anybody knows.
    pub(crate) fn opened_with(&self, root: &Path) -> Option<String> {
        self.opened().remove(root)
    }

    /// A version is about to open a server's folder.
    pub(crate) fn note_opened(&self, root: &Path, version: &str) -> std::io::Result<()> {
        let mut opened = self.opened();
        if opened.insert(root.to_owned(), version.to_owned()).as_deref() == Some(version) {
            return Ok(());
        }
        // Worlds that are gone are nobody's.
        opened.retain(|root, _| root.exists());
        durable::write_record(&self.opened, SCHEMA, &opened)
    }

    /// Whether maintenance holds the workload. A broken record stays where it is: it holds, too.
    pub(crate) fn maintenance(&self) -> Result<Option<Maintenance>, ReadError> {
        match durable::read_record(&self.maintenance, SCHEMA) {
            Ok(maintenance) => Ok(maintenance),
            Err(ReadError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a record of it, in whatever condition.
    pub(crate) fn has_maintenance(&self) -> bool {
        // What cannot be looked at holds, too.
        self.maintenance.try_exists().unwrap_or(true)
    }

    /// Maintenance has begun.
    pub(crate) fn store_maintenance(&self, maintenance: &Maintenance) -> std::io::Result<()> {
        durable::write_record(&self.maintenance, SCHEMA, &Some(maintenance))
    }

    /// It is over.
    pub(crate) fn forget_maintenance(&self) -> std::io::Result<()> {
        durable::remove(&self.maintenance)
    }

    fn opened(&self) -> BTreeMap<PathBuf, String> {
        durable::read_record(&self.opened, SCHEMA).unwrap_or_default()
    }

    /// From now on nothing counts as installed.
    pub(crate) fn forget_installed(&self) -> std::io::Result<()> {
        durable::remove(&self.installed)
    }

    fn record<T: Default + serde::de::DeserializeOwned>(
        &self,
        path: &Path,
        schema: u32,
    ) -> (T, Option<String>) {
        match durable::read_record(path, schema) {
            Ok(value) => (value, None),
            Err(ReadError::Missing(_)) => (T::default(), None),
            Err(error) => (T::default(), Some(Self::set_aside(path, &crate::errors::chain(&error)))),
        }
    }

    /// Renames what cannot be used, never deletes it; the text says so and where it is now.
    pub(crate) fn set_aside(path: &Path, why: &str) -> String {
        let mut aside = path.to_owned().into_os_string();
        aside.push(format!(".broken-{}", crate::clock::now().as_millisecond()));
        let what = path.display();
        match std::fs::rename(path, &aside) {
            Ok(()) => format!("{what} cannot be used ({why}); it was set aside as {}", aside.display()),
            Err(error) => format!("{what} cannot be used ({why}) and could not be set aside: {error}"),
        }
    }
}
