//! A whole jar.

#![no_main]

mod common;
#[path = "../../../artifacts/tests/support/mod.rs"]
mod support;

use support::zip::{zip, zipped};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    common::plant(|| {
        vec![
            zip(&[
                zipped("fabric.mod.json", common::FABRIC),
                zipped("META-INF/jars/inner.jar", zip(&[zipped("fabric.mod.json", common::FABRIC)])).stored(),
            ]),
            zip(&[
                zipped("META-INF/mods.toml", common::FORGE),
                zipped("a/Main.class", [0xca, 0xfe, 0xba, 0xbe]),
            ]),
            zip(&[zipped("plugin.yml", common::BUKKIT)]),
        ]
    });
    zlh_crash::fuzzing::jar(data);
});
