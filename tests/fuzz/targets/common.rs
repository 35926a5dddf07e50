//! What the targets have in common.

#![allow(dead_code, reason = "each target uses a part")]

use std::fs;
use std::path::Path;
use std::sync::Once;

/// Where fuzzing begins: written, once, to the folder that `ZLH_FUZZ_SEEDS` names.
pub(crate) fn plant(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(folder) = std::env::var_os("ZLH_FUZZ_SEEDS") else { return };
        for (number, seed) in seeds().iter().enumerate() {
            let path = Path::new(&folder).join(format!("seed-{number}"));
            fs::write(path, seed).expect("a seed can be written");
        }
    });
}
