//! Ceilings for one archive.

use super::UnpackError;

/// Ceilings for one archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories and links together.
    pub entries: u64,
    /// Bytes after decompression, headers included.
    pub total_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes after decompression per byte of the archive, above 64 MiB.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 200_000, total_bytes: 8 << 30, file_bytes: 2 << 30, ratio: 100 }
    }
}

impl Limits {
    /// What may come out of an archive of that size.
    pub(crate) fn budget(&self, archive_bytes: u64) -> Budget {
        let by_ratio = archive_bytes.saturating_mul(self.ratio).max(RATIO_FREE_BYTES);
        Budget(self.total_bytes.min(by_ratio))
    }
}

/// Bytes that may still come out of a decompressor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget(u64);

impl Budget {
    pub(crate) fn spend(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.0 = self
            .0
            .checked_sub(bytes)
            .ok_or_else(|| UnpackError::Limit("it unpacks to more than its size allows".to_owned()))?;
        Ok(())
    }
}

/// Small archives may have any ratio: a few zeros compress a thousandfold.
const RATIO_FREE_BYTES: u64 = 64 << 20;
