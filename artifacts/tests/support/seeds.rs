//! Valid archives with everything that may be in one: where fuzzing begins.

use super::zip::{Zipped, extra, zipped, zipped_dir, zipped_link};
use super::{Raw, dir, file, link, pax, raw};

pub(crate) fn entries() -> Vec<Raw> {
    vec![
        dir("a/"),
        file("a/run", "#!/bin/sh\n").mode(0o755),
        pax(b'g', &[("comment", "x")]),
        pax(b'x', &[("path", "a/long"), ("size", "700"), ("mtime", "1.5")]),
        file("short", vec![b'x'; 700]),
        Raw { content: b"a/longer\0".to_vec(), ..raw(b'L', "././@LongLink") },
        file("short", "gnu"),
        link(b'2', "a/link", "run"),
        link(b'2', "b", "a"),
        link(b'1', "a/twin", "a/run"),
    ]
}

pub(crate) fn zip_entries() -> Vec<Zipped> {
    let wide: Vec<u8> = [700_u64, 700].iter().flat_map(|n| n.to_le_bytes()).collect();
    vec![
        zipped_dir("a/"),
        zipped("a/run", "#!/bin/sh\n").mode(0o100_755),
        zipped("a/stored", vec![b'x'; 700]).stored().both(20, [0xff; 8]).extras(&extra(1, &wide)),
        zipped("a/streamed", "in one go").streamed(),
        zipped("dos", "x").mode(0),
        zipped_link("a/link", "run"),
        zipped_link("b", "a"),
    ]
}

/// Makes the checksums of what looks like headers right again, so that what is behind them
/// is reached.
pub(crate) fn with_checksums(mut data: Vec<u8>) -> Vec<u8> {
    for block in data.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    data
}

/// Few, since each case installs them.
pub(crate) fn few_entries() -> Vec<Raw> {
    vec![dir("a/"), file("a/run", "x").mode(0o755), link(b'2', "l", "a/run")]
}
