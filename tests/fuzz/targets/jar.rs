//! A whole jar.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zlh_crash::fuzzing::jar(data));
