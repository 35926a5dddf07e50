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

pub(crate) const FABRIC: &str =
    r#"{"schemaVersion":1,"id":"a","version":"1.2","depends":{"minecraft":">=1.21","b":["1","2"]}}"#;

pub(crate) const FORGE: &str = "modLoader=\"javafml\"\n[[mods]]\nmodId=\"a\"\nversion=\"1.2\"\n\
    [[dependencies.a]]\nmodId=\"b\"\nmandatory=true\nversionRange=\"[1,)\"\n";

pub(crate) const BUKKIT: &str =
    "name: A\nversion: '1.2'\nmain: a.Main\napi-version: '1.21'\ndepend: [B, C]\nsoftdepend:\n  - D\n";

pub(crate) const HS_ERR: &str = "#\n# A fatal error has been detected by the Java Runtime Environment:\n#\n\
    #  SIGSEGV (0xb) at pc=0x00007f0000000000, pid=1, tid=2\n#\n\
    # JRE version: OpenJDK Runtime Environment (21.0.1+12) (build 21.0.1+12)\n\
    # Problematic frame:\n# C  [liba.so+0x1234]  f+0x10\n#\n\
    ---------------  T H R E A D  ---------------\n\n\
    Current thread (0x1):  JavaThread \"Server thread\" [_thread_in_native, id=2]\n\n\
    Stack: [0x1,0x2],  sp=0x1,  free space=1023k\n\
    Native frames: (J=compiled Java code, j=interpreted, Vv=VM code, C=native code)\n\
    C  [liba.so+0x1234]  f+0x10\nj  a.Main.run()V+5\n";
