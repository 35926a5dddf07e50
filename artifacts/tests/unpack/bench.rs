//! A private directory to unpack into, with a canary beside it.

use std::ops::ControlFlow;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use zlh_artifacts::{Limits, UnpackError, Unpacked, unpack};
use zlh_catalog::MediaType;

use crate::support::{Raw, gz, tar};

pub(crate) struct Bench {
    pub(crate) temp: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("dest")).unwrap();
        std::fs::write(temp.path().join("canary"), "alive").unwrap();
        Self { temp }
    }

    pub(crate) fn dest(&self) -> PathBuf {
        self.temp.path().join("dest")
    }

    pub(crate) fn unpack(
        &self,
        data: &[u8],
        media_type: MediaType,
        strip: u8,
        limits: &Limits,
    ) -> Result<Unpacked, UnpackError> {
        let archive = self.temp.path().join("archive");
        std::fs::write(&archive, data).unwrap();
        unpack(&archive, media_type, &self.dest(), strip, limits, &mut |_| ControlFlow::Continue(()))
    }

    #[allow(dead_code, reason = "each test binary uses a part")]
    pub(crate) fn gz(&self, entries: &[Raw], strip: u8) -> Result<Unpacked, UnpackError> {
        self.unpack(&gz(&tar(entries)), MediaType::TarGz, strip, &Limits::default())
    }

    /// Whatever was in the archive, the outside is as it was, and inside are only plain
    /// files and directories with plain modes. Links are for archives that were accepted.
    pub(crate) fn assert_contained(&self, case: &str, accepted: bool) {
        let canary = self.temp.path().join("canary");
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "alive", "{case}");
        assert_eq!(canary.metadata().unwrap().nlink(), 1, "{case}: linked from inside");
        let mut beside: Vec<_> =
            std::fs::read_dir(self.temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["archive", "canary", "dest"], "{case}");
        assert_plain(&self.dest(), &self.dest(), case, accepted);
    }
}

fn assert_plain(root: &Path, dir: &Path, case: &str, accepted: bool) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let (kind, shown) = (meta.file_type(), path.display());
        if kind.is_symlink() {
            assert!(accepted, "{case}: a link before the end was seen: {shown}");
            let leads = std::fs::canonicalize(&path).unwrap();
            assert!(leads.starts_with(std::fs::canonicalize(root).unwrap()), "{case}: {shown}");
            continue;
        }
        assert!(!kind.is_fifo() && !kind.is_socket(), "{case}: {shown}");
        assert!(!kind.is_char_device() && !kind.is_block_device(), "{case}: {shown}");
        let mode = meta.mode() & 0o7777;
        // A file that was being written when the archive was refused is still private.
        assert!(mode == 0o755 || mode == 0o644 || (!accepted && mode == 0o600), "{case}: {shown} {mode:o}");
        assert_eq!(meta.uid(), own_uid(), "{case}: {shown}");
        if kind.is_dir() {
            assert_plain(root, &path, case, accepted);
        }
    }
}

/// Of this process, as the kernel shows it: the owner of its own files in proc.
fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}
