//! A manifest of any kind: the first byte chooses it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zlh_crash::fuzzing::manifest(data));
