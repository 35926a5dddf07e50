//! The policy on zip archives.

#![no_main]

#[path = "../../../artifacts/tests/unpack/bench.rs"]
mod bench;
mod common;
#[path = "../../../artifacts/tests/support/mod.rs"]
mod support;
mod survive;

use libfuzzer_sys::fuzz_target;
use support::seeds::zip_entries;
use support::zip::{Zip, zip};
use zlh_catalog::MediaType;

fuzz_target!(|data: &[u8]| {
    common::plant(|| vec![zip(&zip_entries()), Zip::new(&zip_entries()).wide_bytes()]);
    survive::survive(data, MediaType::Zip);
});
