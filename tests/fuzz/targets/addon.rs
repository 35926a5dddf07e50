//! A manifest of a mod or plugin: the first byte chooses of which kind.

#![no_main]

mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::plant(|| {
        let kinds = 0..6_u8;
        let texts = [common::FABRIC, common::FORGE, common::BUKKIT];
        kinds.flat_map(|kind| texts.map(|text| [&[kind], text.as_bytes()].concat())).collect()
    });
    zlh_crash::fuzzing::manifest(data);
});
