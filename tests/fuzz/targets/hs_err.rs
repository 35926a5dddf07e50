//! The JVM's fatal error log.

#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::plant(|| vec![common::HS_ERR.as_bytes().to_vec()]);
    zlh_crash::fuzzing::hs_err(data);
});
