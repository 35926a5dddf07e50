//! What the linker is told beside the rest, and the packed description of the surface.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, GzBuilder};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    // A position-independent program relocates itself, 24 bytes an address; packed it is two.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // Functions that became the same code are there once. Not where one looks into them.
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=safe");
    }
    println!("cargo:rerun-if-changed=api/openapi.json");
    let packed = fs::File::create(Path::new(&std::env::var("OUT_DIR")?).join("openapi.json.gz"))?;
    let mut writer = GzBuilder::new().mtime(0).write(packed, Compression::best());
    writer.write_all(&fs::read("api/openapi.json")?)?;
    writer.finish()?;
    Ok(())
}
