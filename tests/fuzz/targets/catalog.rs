//! Catalogs: parsing never panics, and what it accepts says the same when it is written and read
//! again. The lists of before are read by the same rules.

#![no_main]

mod common;
#[path = "../../../catalog/tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;
use zlh_catalog::{Catalog, lint};

const LIST: &str = r#"{"games":[{"id":"minecraft","variants":[{"id":"paper","versions":["1.21.7"]}]}]}"#;

fuzz_target!(|data: &[u8]| {
    common::plant(|| vec![support::document().to_string().into_bytes(), LIST.as_bytes().to_vec()]);
    let _ = Catalog::from_list(data);
    let _ = lint(data, jiff::Timestamp::UNIX_EPOCH);
    let Ok(catalog) = Catalog::parse(data) else { return };
    let again = serde_json::to_vec(&catalog).expect("what was read can be written");
    let again = Catalog::parse(&again).expect("what was written can be read");
    assert!(again == catalog, "it says something else the second time");
});
