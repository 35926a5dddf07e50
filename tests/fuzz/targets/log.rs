//! A console, and the same bytes as a crash report.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zlh_crash::fuzzing::log(data));
