//! Ceilings of a scan.

use std::time::Duration;

/// What a scan may cost at most. What lies beyond is left out with a note.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Jars looked at.
    pub jars: usize,
    /// Names looked at in the folders.
    pub names: usize,
    /// Entries of one jar.
    pub entries: usize,
    /// Bytes of one manifest.
    pub manifest: u64,
    /// Packages kept of one jar.
    pub packages: usize,
    /// Jars within one jar.
    pub nested: usize,
    /// Bytes of a packed jar within a jar: it is inflated into memory.
    pub nested_bytes: u64,
    /// Bytes inflated for one jar in all.
    pub inflated: u64,
    /// Time for one jar.
    pub jar_time: Duration,
    /// Time in all.
    pub time: Duration,
    /// Bytes the index may take in memory, about.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jars: 2_000,
            names: 10_000,
            entries: 100_000,
            manifest: 64 << 10,
            packages: 8_192,
            nested: 128,
            nested_bytes: 8 << 20,
            inflated: 64 << 20,
            jar_time: Duration::from_secs(2),
            time: Duration::from_secs(20),
            memory: 16 << 20,
        }
    }
}
