//! What a server without hashes is held to: the first file that came from each path.
//!
//! ```text
//! path ─► pinned before? ──yes─► that size and hash, as if a catalog had said so
//!              │ no
//!              ▼
//!         fetch whole ─► record (durable) ─► used
//! ```
//!
//! The record protects from what changes later, and from nothing that was wrong at first.
//! One that cannot be read stops everything that would need it: guessing anew would take
//! whatever lies there now for right.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use slog::{Logger, warn};
use zlh_artifacts::Fetcher;
use zlh_catalog::{Artifact, MediaType, Sha256};
use zlh_shim::durable::{self, ReadError};

use super::{InstallError, Step, blocking};

/// The largest file that is taken unseen, bytes.
const MAX_FILE: u64 = 8 << 30;

const SCHEMA: u32 = 1;

/// One installation may pin while another does.
static WRITING: Mutex<()> = Mutex::new(());

/// The record of one agent.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pinned {
    size: u64,
    sha256: Sha256,
    /// When it was first used.
    pub(super) at: String,
}

type Record = BTreeMap<String, Pinned>;

impl Pins {
    pub(super) fn new(state: &Path) -> Self {
        Self { path: state.join("pins.json") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The artifact with the size and the hash of its first use, which this may be.
    pub(super) async fn pin(
        &self,
        fetcher: &Fetcher,
        artifact: &Artifact,
        log: &Logger,
        report: &(impl Fn(Step) + Clone + Send),
    ) -> Result<Artifact, InstallError> {
        if let Some(known) = self.known(artifact)? {
            return Ok(known.of(artifact));
        }
        let text = format!("fetching {}, which nobody pins", artifact.path.file_name());
        report(Step { text: text.clone(), bytes: None });
        let report = report.clone();
        let progress =
            move |done: u64, all: u64| report(Step { text: text.clone(), bytes: Some((done, all)) });
        let seen = fetcher.pin(&artifact.path, MAX_FILE, progress).await?;
        // An error page that was sent in its place must not be right for ever.
        let seen_as = Artifact { size: seen.size, sha256: seen.sha256, ..artifact.clone() };
        let file = fetcher.fetch(&seen_as, |_| ()).await?.path;
        if !begins_as(&file, artifact.media_type) {
            return Err(InstallError::NotThat { path: artifact.path.to_string(), size: seen.size });
        }
        let now = Pinned { size: seen.size, sha256: seen.sha256, at: crate::clock::now_rfc3339() };
        let (this, path) = (self.clone(), artifact.path.to_string());
        let kept = blocking(move || this.record(path, now)).await??;
        warn!(log, "a file that no catalog pins is taken for right from now on";
            "file" => %artifact.path, "sha256" => %kept.sha256, "bytes" => kept.size);
        Ok(kept.of(artifact))
    }

    /// What is known of it, if it was used before.
    pub(super) fn known(&self, artifact: &Artifact) -> Result<Option<Pinned>, InstallError> {
        Ok(self.read()?.remove(artifact.path.as_str()))
    }

    /// Whoever comes first is right.
    fn record(&self, path: String, now: Pinned) -> Result<Pinned, InstallError> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.read()?;
        let kept = record.entry(path).or_insert(now).clone();
        durable::write_record(&self.path, SCHEMA, &record).map_err(|source| InstallError::Io {
            step: format!("record what was fetched in {}", self.path.display()),
            source,
        })?;
        Ok(kept)
    }

    fn read(&self) -> Result<Record, InstallError> {
        match durable::read_record(&self.path, SCHEMA) {
            Ok(record) => Ok(record),
            Err(ReadError::Missing(_)) => Ok(Record::new()),
            Err(error) => Err(InstallError::Pins { path: self.path.clone(), why: error.to_string() }),
        }
    }
}

/// Whether a file begins as one of its kind does.
fn begins_as(file: &Path, media_type: MediaType) -> bool {
    let expected: &[u8] = match media_type {
        MediaType::File => return true,
        MediaType::Jar | MediaType::Zip => b"PK\x03\x04",
        MediaType::TarGz => b"\x1f\x8b",
        MediaType::TarZst => b"\x28\xb5\x2f\xfd",
        MediaType::TarXz => b"\xfd7zXZ\0",
    };
    let mut head = vec![0; expected.len()];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == expected
}

impl Pinned {
    fn of(&self, artifact: &Artifact) -> Artifact {
        Artifact { size: self.size, sha256: self.sha256, ..artifact.clone() }
    }
}
