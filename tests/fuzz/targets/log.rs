//! A console, and the same bytes as a crash report. It begins with the lines by which signatures
//! are proved.

#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::plant(|| {
        let signatures = [
            include_str!("../../../agent/crash/signatures/bukkit.toml"),
            include_str!("../../../agent/crash/signatures/fabric.toml"),
            include_str!("../../../agent/crash/signatures/forge.toml"),
            include_str!("../../../agent/crash/signatures/jvm.toml"),
            include_str!("../../../agent/crash/signatures/vanilla.toml"),
        ];
        signatures.map(|text| text.as_bytes().to_vec()).to_vec()
    });
    zlh_crash::fuzzing::log(data);
});
