//! What the linker is told beside the rest.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A position-independent program relocates itself, 24 bytes an address; packed it is two.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // Functions that became the same code are there once. Not where one looks into them.
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=safe");
    }
}
