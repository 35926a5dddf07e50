//! The policy on tar archives, behind a compression that hides nothing from the fuzzer. The
//! checksums of what looks like headers are made right.

#![no_main]

#[path = "../../../artifacts/tests/unpack/bench.rs"]
mod bench;
mod common;
#[path = "../../../artifacts/tests/support/mod.rs"]
mod support;
mod survive;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use support::seeds::{entries, few_entries, with_checksums};
use zlh_catalog::MediaType;

fuzz_target!(|data: &[u8]| {
    common::plant(|| vec![support::tar(&entries()), support::tar(&few_entries())]);
    let mut gz = GzEncoder::new(Vec::new(), Compression::none());
    gz.write_all(&with_checksums(data.to_vec())).expect("memory takes everything");
    survive::survive(&gz.finish().expect("memory takes everything"), MediaType::TarGz);
});
