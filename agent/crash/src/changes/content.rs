//! A hash of what is in a file, cheap enough for hundreds of jars.
//!
//! Small files are hashed whole. Of large ones size, head and tail are: the tail of a jar
//! is its directory, which holds a checksum of every entry. In a properties file comments
//! and the order of the lines do not count: servers write the date into it at each start.

use std::fs::File;
use std::io;

use crate::folder::{fill, head};

/// Bytes that hashing one file reads at most.
pub(super) const MAX_READ: u64 = 2 * PIECE as u64;

/// The hash of a file of `size` bytes.
pub(super) fn hash(file: &File, size: u64, properties: bool) -> io::Result<u64> {
    if size <= MAX_READ {
        let bytes = head(file, usize::try_from(MAX_READ).unwrap_or(usize::MAX))?;
        return Ok(if properties { lines(&bytes) } else { mix(SEED, &bytes) });
    }
    let mut piece = vec![0; PIECE];
    let got = fill(file, &mut piece, 0)?;
    let hash = mix(mix(SEED, &size.to_le_bytes()), &piece[..got]);
    let got = fill(file, &mut piece, size - PIECE as u64)?;
    Ok(mix(hash, &piece[..got]))
}

fn lines(bytes: &[u8]) -> u64 {
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let says_something = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"#");
    let mut hashes: Vec<u64> = lines.filter(says_something).map(|line| mix(SEED, line)).collect();
    hashes.sort_unstable();
    hashes.iter().fold(SEED, |hash, line| mix(hash, &line.to_le_bytes()))
}

/// Eight bytes at a time; fixed for ever, since hashes are kept.
fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let end = u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56;
    hash = (hash.rotate_left(23) ^ end).wrapping_mul(FACTOR);
    hash ^ hash >> 32
}

const SEED: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Read of a large file at each of its ends.
const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let base = mix(SEED, b"0123456789");
        for at in 0..10 {
            let mut other = *b"0123456789";
            other[at] ^= 1;
            assert_ne!(mix(SEED, &other), base);
        }
        assert_ne!(mix(SEED, b""), mix(SEED, b"\0"));
        assert_ne!(mix(SEED, b"a"), mix(SEED, b"a\0"));
        assert_ne!(mix(SEED, b"01234567"), mix(SEED, b"01234567\0\0\0\0\0\0\0\0"));
    }

    #[test]
    fn properties_are_their_keys_and_values() {
        assert_eq!(lines(b"#Mon\r\na=1\r\nb=2\r\n"), lines(b"#Tue\nb=2\n\na=1"));
        assert_ne!(lines(b"a=1\nb=2\n"), lines(b"a=1\nb=3\n"));
        assert_ne!(lines(b"a=1\n"), lines(b"a=1\na=1\n"));
    }
}
