//! Valid archives and trees, damaged at random: nothing panics, nothing gets out, nothing
//! takes memory for what it only claims.
//!
//! Deterministic mutation, with every run of the suite; `make fuzz` looks for more by coverage.
//! More cases with `ZLH_FUZZ_CASES=100000`; a failure prints its smallest input, and its seed is
//! kept in `fuzz.proptest-regressions`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "unpack/bench.rs"]
mod bench;
mod support;

use std::ops::ControlFlow;

use bench::Bench;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, FileFailurePersistence};
use support::seeds::{entries, few_entries, with_checksums, zip_entries};
use support::zip::{Zip, zip};
use support::*;
use zlh_artifacts::{Install, Limits, Store, hash_file};
use zlh_catalog::MediaType;

/// One change to some bytes.
#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Put(Index, Vec<u8>),
    Insert(Index, Vec<u8>),
    Cut(Index, usize),
    Copy(Index, Index, usize),
}

impl Edit {
    fn apply(&self, data: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        let length = data.len();
        match self {
            Self::Flip(at, bit) => data[at.index(length)] ^= 1 << (bit % 8),
            Self::Put(at, bytes) => {
                let at = at.index(length);
                let end = length.min(at + bytes.len());
                data[at..end].copy_from_slice(&bytes[..end - at]);
            }
            Self::Insert(at, bytes) => drop(data.splice(at.index(length)..at.index(length), bytes.clone())),
            Self::Cut(at, count) => {
                let at = at.index(length);
                drop(data.drain(at..length.min(at + count)));
            }
            Self::Copy(from, to, count) => {
                let from = from.index(length);
                let piece = data[from..length.min(from + count)].to_vec();
                let to = to.index(length);
                drop(data.splice(to..to, piece));
            }
        }
    }
}

/// Numbers at the edges of their types, words of the formats, and anything.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            &b"\0\0\0\0"[..],
            b"\xff\xff\xff\xff",
            b"\xff\xff",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xff\xff\xff\x7f",
            b"\0\0\0\0\0\0\0\x40",
            b"\x80\0\0\0\x40\0\0\0\0\0\0\0",
            b"77777777777",
            b"../",
            b"/etc/x",
            b"canary",
            b"PK\x03\x04",
            b"PK\x01\x02",
            b"PK\x05\x06",
            b"PK\x06\x06",
            b"PK\x06\x07",
            b"PK\x07\x08",
            b"ustar\0",
            b"9 size=9\n",
            b"\x01\0\x08\0",
            b"null",
            b"{}",
            b"\"",
            b"1e999",
            b"\\u0000",
        ])
        .prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 1..16),
        // The kinds of tar entries.
        prop::sample::select(b"0123456789xgLKSDMV".to_vec()).prop_map(|kind| vec![kind]),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (any::<Index>(), bytes()).prop_map(|(at, bytes)| Edit::Put(at, bytes)),
        (any::<Index>(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1..600_usize).prop_map(|(at, count)| Edit::Cut(at, count)),
        (any::<Index>(), any::<Index>(), 1..1100_usize).prop_map(|(a, b, count)| Edit::Copy(a, b, count)),
    ]
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(edit(), 1..5)
}

fn mutated(mut data: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    edits.iter().for_each(|edit| edit.apply(&mut data));
    data
}

/// Unpacks whatever it is.
fn survive(data: &[u8], media_type: MediaType) {
    let bench = Bench::new();
    let result = bench.unpack(data, media_type, 0, &Limits { total_bytes: 16 << 20, ..Limits::default() });
    bench.assert_contained(&format!("{media_type:?}: {result:?}"), result.is_ok());
    assert_modest();
}

/// The most memory that this process ever had: an xz dictionary of 96 MiB, and then some.
fn assert_modest() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kibibytes < 200 << 10, "the peak of memory was {kibibytes} KiB");
}

/// `ZLH_FUZZ_CASES`, or as many as take a second or two.
fn config() -> Config {
    with_cases(1)
}

/// A part of the cases, where each takes long.
fn with_cases(part: u32) -> Config {
    let cases: u32 = std::env::var("ZLH_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let kept = FileFailurePersistence::WithSource("proptest-regressions");
    Config { cases: (cases / part).max(1), failure_persistence: Some(Box::new(kept)), ..Config::default() }
}

/// The unharmed forms, or nothing is tested here.
#[test]
fn the_seeds_are_good() {
    for (data, media_type) in [
        (gz(&with_checksums(tar(&entries()))), MediaType::TarGz),
        (xz(&tar(&entries())), MediaType::TarXz),
        (zip(&zip_entries()), MediaType::Zip),
        (Zip::new(&zip_entries()).wide_bytes(), MediaType::Zip),
    ] {
        let bench = Bench::new();
        bench.unpack(&data, media_type, 0, &Limits::default()).unwrap();
        bench.assert_contained("seed", true);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tar_bytes(edits in edits(), repair in any::<bool>()) {
        let data = mutated(support::tar(&entries()), &edits);
        let data = if repair { with_checksums(data) } else { data };
        survive(&gz(&data), MediaType::TarGz);
    }

    #[test]
    fn compressed(edits in edits(), which in 0..3_usize) {
        let whole = support::tar(&entries());
        let (data, media_type) = match which {
            0 => (gz(&whole), MediaType::TarGz),
            1 => (zst(&whole), MediaType::TarZst),
            _ => (xz(&whole), MediaType::TarXz),
        };
        survive(&mutated(data, &edits), media_type);
    }

    #[test]
    fn zip_bytes(edits in edits(), wide in any::<bool>()) {
        let zip = Zip::new(&zip_entries());
        survive(&mutated(if wide { zip.wide_bytes() } else { zip.bytes() }, &edits), MediaType::Zip);
    }

    /// Fields that lie, in one record or in both, while everything around them is right.
    #[test]
    fn zip_records(
        which in any::<Index>(), at in 8..44_usize, bytes in bytes(), record in 0..3_u8, data in edits(),
        tamper in any::<bool>(),
    ) {
        let mut entries = zip_entries();
        let which = which.index(entries.len());
        let mut entry = entries[which].clone();
        let bytes = &bytes[..bytes.len().min(4)];
        entry = match record {
            0 => entry.local(at.min(27) - 4, bytes),
            1 => entry.central(at.min(42), bytes),
            _ => entry.both(at.min(24), bytes),
        };
        if tamper {
            entry.data = Some(mutated(entry.packed(), &data));
        }
        entries[which] = entry;
        survive(&zip(&entries), MediaType::Zip);
    }

}

proptest! {
    // Each installs a tree, durably.
    #![proptest_config(with_cases(10))]

    /// The manifest of an installed tree, and its mark that vouches for it.
    #[test]
    fn manifest(edits in edits(), mark_edits in edits(), vouched in any::<bool>()) {
        let temp = tempfile::tempdir().unwrap();
        let data = gz(&support::tar(&few_entries()));
        let archive = temp.path().join("archive");
        std::fs::write(&archive, &data).unwrap();
        let store = Store::open(temp.path().join("store")).unwrap();
        let artifact = artifact("archive", &data);
        let install = Install {
            name: "node", version: "1", artifact: &artifact, archive: &archive, strip_components: 0,
            executables: &[], limits: Limits::default(),
        };
        let tree = store.install(&install, &mut |_| ControlFlow::Continue(())).unwrap();
        let (manifest, mark) = (tree.join(".zlh-manifest"), tree.join(".zlh-ok"));
        let text = mutated(std::fs::read(&manifest).unwrap(), &edits);
        std::fs::write(&manifest, text).unwrap();
        if vouched {
            let mut document: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&mark).unwrap()).unwrap();
            let (_, sha256) = hash_file(&manifest).unwrap();
            document["manifest"] = serde_json::to_value(sha256).unwrap();
            std::fs::write(&mark, document.to_string()).unwrap();
        } else {
            std::fs::write(&mark, mutated(std::fs::read(&mark).unwrap(), &mark_edits)).unwrap();
        }
        for tree in store.list().unwrap() {
            let _ = store.verify(&tree);
        }
        assert_modest();
    }
}
