//! An old segment, packed: blocks that are each deflated by themselves, so that a piece of it
//! costs the block it lies in and nothing else.
//!
//! ```text
//! magic │ raw length │ packed length of each block │ blocks …
//!  8 B  │   u32 LE   │          u32 LE …           │
//! ```
//!
//! A segment is packed beside its raw form, forced to the disk, and renamed; then the raw form goes.
//! Killed anywhere in between there are one or two whole forms of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

const MAGIC: &[u8; 8] = b"ZLHlog1\n";

/// Raw bytes of a block.
const BLOCK: usize = 64 << 10;

/// Longest segment there can be, bytes.
const LONGEST: u64 = 64 << 20;

/// Packs the file `raw` into `packed`, which appears whole or not at all.
pub(super) fn pack(raw: &Path, packed: &Path) -> io::Result<()> {
    let mut file = File::open(raw)?;
    let length = file.metadata()?.len();
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment of no size that is written"));
    }
    let mut bytes = Vec::new();
    (&mut file).take(LONGEST).read_to_end(&mut bytes)?;
    let blocks: Vec<Vec<u8>> = bytes.chunks(BLOCK).map(deflate).collect::<io::Result<_>>()?;
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&number(bytes.len())?);
    for block in &blocks {
        out.extend_from_slice(&number(block.len())?);
    }
    for block in &blocks {
        out.extend_from_slice(block);
    }
    let fresh = packed.with_extension("new");
    let written = (|| {
        crate::faults::point("console.pack")?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&out)?;
        file.sync_data()?;
        fs::rename(&fresh, packed)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// A packed segment that is open.
pub(super) struct Packed {
    file: File,
    length: u64,
    /// Where each block begins in the file, and where the last one ends.
    blocks: Vec<u64>,
}

impl Packed {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut head = [0_u8; 12];
        file.read_exact_at(&mut head, 0)?;
        let length = u64::from(u32::from_le_bytes([head[8], head[9], head[10], head[11]]));
        if &head[..8] != MAGIC || length > LONGEST {
            return Err(damaged());
        }
        let count = usize::try_from(length.div_ceil(BLOCK as u64)).map_err(|_| damaged())?;
        let mut table = vec![0_u8; count * 4];
        file.read_exact_at(&mut table, 12)?;
        let mut at = 12 + table.len() as u64;
        let mut blocks = vec![at];
        for four in table.chunks_exact(4) {
            at += u64::from(u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            blocks.push(at);
        }
        if file.metadata()?.len() != at {
            return Err(damaged());
        }
        Ok(Self { file, length, blocks })
    }

    /// Raw bytes in it.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// As `pread(2)` on the raw form: at most `max` bytes from `offset` on, to the end of a block.
    pub(super) fn read_at(&self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let index = usize::try_from(offset / BLOCK as u64).map_err(|_| damaged())?;
        let (Some(&begin), Some(&end)) = (self.blocks.get(index), self.blocks.get(index + 1)) else {
            return Ok(Vec::new());
        };
        let size = usize::try_from(end - begin).ok().filter(|size| *size <= 2 * BLOCK).ok_or_else(damaged)?;
        let mut block = vec![0_u8; size];
        self.file.read_exact_at(&mut block, begin)?;
        let mut raw = Vec::with_capacity(BLOCK);
        DeflateDecoder::new(block.as_slice()).take(BLOCK as u64).read_to_end(&mut raw)?;
        let skip = usize::try_from(offset % BLOCK as u64).map_err(|_| damaged())?;
        let wanted = (self.length - (offset - offset % BLOCK as u64)).min(BLOCK as u64);
        if raw.len() as u64 != wanted {
            return Err(damaged());
        }
        Ok(raw.get(skip..raw.len().min(skip.saturating_add(max))).unwrap_or_default().to_vec())
    }
}

fn deflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn number(length: usize) -> io::Result<[u8; 4]> {
    u32::try_from(length).map(u32::to_le_bytes).map_err(io::Error::other)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a packed segment is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(bytes: &[u8]) -> (tempfile::TempDir, Packed) {
        let dir = tempfile::tempdir().unwrap();
        let (raw, to) = (dir.path().join("raw"), dir.path().join("packed"));
        fs::write(&raw, bytes).unwrap();
        pack(&raw, &to).unwrap();
        let packed = Packed::open(&to).unwrap();
        (dir, packed)
    }

    #[test]
    fn every_piece_is_the_same_piece() {
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let (dir, packed) = packed(&bytes);
        assert_eq!(packed.length(), bytes.len() as u64);
        for offset in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7, bytes.len() - 1] {
            for max in [1, 100, BLOCK, 4 * BLOCK] {
                let piece = packed.read_at(offset as u64, max).unwrap();
                assert!(!piece.is_empty() && piece.len() <= max);
                assert_eq!(piece, bytes[offset..offset + piece.len()], "{offset} {max}");
            }
        }
        assert_eq!(packed.read_at(bytes.len() as u64, 10).unwrap(), Vec::<u8>::new());
        let size = fs::metadata(dir.path().join("packed")).unwrap().len();
        assert!(size < bytes.len() as u64, "{size}");
    }

    #[test]
    fn what_cannot_be_made_smaller_stays_whole_and_an_empty_one_is_empty() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .take(200_000)
        .collect();
        let (_dir, open) = packed(&noise);
        assert_eq!(open.read_at(131_072, BLOCK).unwrap(), noise[131_072..196_608]);
        let (_dir, none) = packed(b"");
        assert_eq!((none.length(), none.read_at(0, 10).unwrap().len()), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damage_is_noticed_or_harmless(at in 0_usize..2000, bit in 0_u8..8, cut in 0_usize..2000) {
            let dir = tempfile::tempdir().unwrap();
            let (raw, to) = (dir.path().join("raw"), dir.path().join("packed"));
            let text: Vec<u8> = (0..20_000).map(|n| b"Saving chunks\n"[n % 14]).collect();
            fs::write(&raw, &text).unwrap();
            pack(&raw, &to).unwrap();
            let mut bytes = fs::read(&to).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            bytes.truncate(bytes.len() - cut % bytes.len() / 2);
            fs::write(&to, &bytes).unwrap();
            if let Ok(open) = Packed::open(&to) {
                prop_assert!(open.length() <= LONGEST);
                let _ = open.read_at(0, 1 << 20);
            }
        }
    }
}
