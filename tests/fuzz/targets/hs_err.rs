//! The JVM's fatal error log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zlh_crash::fuzzing::hs_err(data));
